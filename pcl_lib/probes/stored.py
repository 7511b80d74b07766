"""Features on disk: those of one model on one set are computed once in a run folder, then memory-mapped."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pcl_lib.probes.features import FrozenFeatures
from pcl_lib.utils import PACKAGE, BadInput, replace_atomically

# What features depend on besides weights and images: the code that computes them.
SOURCES = ("models", "probes/features.py", "probes/handcrafted.py", "data/batches.py")


def extract_once(
    make: Callable[[], FrozenFeatures],
    folder: Path,
    method: str,
    key: Sequence[str],
    names: Sequence[str],
    device: torch.device | str = "cpu",
) -> FrozenFeatures:
    """The features that `make` gives, from folder/<method>-<feature>-<hash>.npy where they are there.

    key: what they depend on: the weights (`weights_hash`), the content hash and size of the images. names: the
    features that are wanted; others that `make` gives are dropped. device: where they are put. Where `folder` cannot
    be written, a printed sentence says so and nothing is lost but the next run's time. Files of the same method that
    belong to other weights or images are removed when new ones are written. Raises as `make`.
    """
    paths = {name: folder / f"{method}-{name}-{mark(key)}.npy" for name in names}
    found = {name: _read(path) for name, path in paths.items()}
    whole = {name: x for name, x in found.items() if x is not None}
    if len(whole) == len(found):
        return FrozenFeatures(**{name: torch.from_numpy(x).to(device) for name, x in whole.items()})
    made = make()
    kept = {name: getattr(made, name) for name in names}
    try:
        for name, x in kept.items():
            with replace_atomically(paths[name]) as temporary, open(temporary, "wb") as file:
                np.save(file, x.cpu().numpy())
            for old in set(folder.glob(f"{method}-{name}-*.npy")) - {paths[name]}:
                old.unlink()
    except BadInput as error:
        print(f"The features of {method} are not kept: {error}.")
    return FrozenFeatures(**kept)


def mark(key: Sequence[str]) -> str:
    """A hash of what features depend on: `key` as of `extract_once`, and the code that computes them."""
    return hashlib.sha256("\0".join([*key, source_hash()]).encode()).hexdigest()[:16]


def _read(path: Path) -> np.ndarray | None:
    """A memory-mapped float32 array [n, D]; None where there is none that is whole."""
    try:
        x = np.load(path, mmap_mode="c")  # a private copy of what is written to: nobody writes to it
    except (OSError, ValueError):
        return None
    return x if x.dtype == np.float32 and x.ndim == 2 else None


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and buffers, by name."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        x = value.detach().cpu().contiguous()
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}".encode())
        digest.update(x.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@cache
def source_hash() -> str:
    """SHA-256 of the files in `SOURCES`: features computed by other code are not taken."""
    paths = [PACKAGE / name for name in SOURCES]
    files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()
