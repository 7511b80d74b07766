"""The memory format in which a network trains fastest on this machine, found by measuring it once.

Convolutions of some processors and widths run three times faster with channels last, and group norm the other way
round: no rule holds everywhere. The results are the same but for rounding.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pcl_lib.models import PCL
from pcl_lib.presets import ModelPreset, to_dict
from pcl_lib.utils import BadInput, device_name, write_json

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
SECONDS = 2.0  # that measuring may take
BATCH = 32  # images of a measured step
GAIN = 1.05  # times as fast as the default, for another format to be taken
WORTH = 200  # iterations; shorter trainings keep the default: measuring would not pay


def default_format(model: PCL) -> str:
    """The name in `FORMATS` of the format that a model has."""
    return next(name for name, kind in FORMATS.items() if kind == model.memory_format)


def choose_format(config: ModelPreset, device: torch.device, dtype: torch.dtype) -> str:
    """The name in `FORMATS` of the fastest format for a network of these settings on a device.

    dtype: that of autocast, float32 for none. Measured in at most some `SECONDS` and remembered in the user's cache
    folder by machine, PyTorch, threads and settings; where that cannot be written, it is measured again next time.
    """
    about = [
        device_name() if device.type != "cpu" else torch.backends.cpu.get_cpu_capability(), os.cpu_count(),
        torch.get_num_threads(), torch.__version__, str(device.type), str(dtype), to_dict(config),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    path = cache_folder() / "formats.json"
    known = _read(path)
    if known.get(key) not in FORMATS:
        first = default_format(PCL(config))
        known = _read(path) | {key: fastest(first, lambda name: step_seconds(config, name, device, dtype))}
        try:
            write_json(path, known)
        except BadInput as error:
            print(f"The measured memory format is not remembered: {error}.")
    return known[key]


def fastest(first: str, seconds: Callable[[str], float]) -> str:
    """The format with the lowest of up to three times each, in turns; `first` unless another beats it by `GAIN`.

    seconds: runs and times one step. No new step is begun after `SECONDS`, and formats not timed are not taken.
    """
    names = [first, *(name for name in FORMATS if name != first)]
    best: dict[str, float] = {}
    deadline = time.perf_counter() + SECONDS
    for turn in range(4):
        for name in names:
            if time.perf_counter() > deadline:
                break
            took = seconds(name)
            if turn:  # the first turn warms up
                best[name] = min(took, best.get(name, took))
    if len(best) < len(names):
        return first
    winner = min(best, key=lambda name: best[name])
    return winner if best[first] > GAIN * best[winner] else first


def step_seconds(config: ModelPreset, name: str, device: torch.device, dtype: torch.dtype) -> float:
    """Seconds of one forward and backward pass of the encoder on `BATCH` grey images."""
    model = PCL(config).to(device)
    model.use_format(FORMATS[name])
    images = torch.full((BATCH, 3, config.image_size, config.image_size), 0.5, device=device)
    _wait(device)
    start = time.perf_counter()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        found = model.features(images)
    sum(x.float().square().mean() for x in found).backward()  # type: ignore[union-attr]
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cache_folder() -> Path:
    """Where the kit remembers what it measured on this machine: XDG_CACHE_HOME, or .cache in the home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pcl-kit"


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
