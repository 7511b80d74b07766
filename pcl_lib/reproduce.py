"""From one command to tables and figures: `python -m pcl_lib.reproduce` runs the notebooks in order.

A run folder (DESIGN.md) holds the settings it was made with and never takes in results of others. Whatever finished is
kept: a notebook is run again only if it, the library or what ran before it changed, and training goes on where it was.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pcl_lib import presets, pretrain
from pcl_lib.data import PreparedFaces
from pcl_lib.errors import BadInput
from pcl_lib.files import make_folder, replace_atomically
from pcl_lib.models.checkpoint import checkpoint_notes
from pcl_lib.presets import Preset
from pcl_lib.pretrain import _differences
from pcl_lib.results import versions

FOLDERS = ("checkpoints", "logs", "notebooks", "tables", "figures")


@dataclass(frozen=True)
class Setup:
    """What a notebook works with: settings, faces, the run folder and the seed."""

    preset: Preset
    faces: PreparedFaces
    out: Path
    seed: int

    @property
    def device(self) -> str:
        """The device that training picks, in words: "cpu", "cuda NVIDIA H200", ..."""
        return device_name()


def device_name() -> str:
    """The accelerator of this machine, or "cpu"."""
    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_run(preset: str | Preset, data: str | Path, out: str | Path, seed: int) -> Setup:
    """Open a run folder for these settings, or make it; the first thing that every notebook does.

    preset: a name, or one of your own. data: a prepared folder; "" for the rendered faces, which are kept beside
    the run folder. Writes out/config.json; where it is there with other settings, raises BadInput that names those that
    differ. Raises BadInput as well on an unknown preset, a negative seed, bad data, a folder that cannot be written.
    """
    if isinstance(preset, str):
        preset = presets.get(preset)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise BadInput(f"seed {seed!r}: a whole number from 0 on is needed")
    out = Path(out)
    for name in FOLDERS:
        make_folder(out / name)
    faces = pretrain.open_faces(data or None, preset, out.parent)
    config = {
        "preset": presets.to_dict(preset),
        "data": {"name": faces.name, "content_hash": faces.content_hash},
        "seed": seed,
        "versions": versions(),
    }
    _keep_config(out / "config.json", config)
    return Setup(preset, faces, out, seed)


def _keep_config(path: Path, config: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, config)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): choose another --out, or delete it") from None
    differ = list(_differences(before, config))
    if differ:
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise BadInput(
            f"{path.parent} is the folder of a run with other settings ({'; '.join(differ[:4])}{more}): "
            "choose another --out, or delete that folder"
        )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def trained(setup: Setup, method: str) -> pretrain.Run:
    """The method pre-trained on the run's faces: loaded where it is done, trained (saying so) where not.

    Raises as `pretrain.fit`.
    """
    weights = setup.out / "checkpoints" / f"{method}.safetensors"
    done = int(checkpoint_notes(weights)["epoch"]) if weights.is_file() else None
    epochs = setup.preset.train.epochs
    if method == "random":
        print("random: an untrained encoder, nothing to train.")
    elif done is None:
        print(f"{method}: training {epochs} epochs on {setup.faces.name}.")
    elif done < epochs:
        print(f"{method}: training goes on after epoch {done} of {epochs} on {setup.faces.name}.")
    else:
        print(f"{method}: loading the finished training from {weights}.")
    return pretrain.fit(method, preset=setup.preset, faces=setup.faces, out=setup.out, seed=setup.seed)
