"""Train, probe and keep the weights that come with the kit: `python -m pcl_lib.reproduce.shipped_weights`."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pcl_lib import presets, pretrain, probes
from pcl_lib.data import PreparedFaces, rendered
from pcl_lib.models import checkpoint_notes, load_checkpoint, save_checkpoint
from pcl_lib.models.shipped import LIMIT, NOT_FOR, SHIPPED, WEIGHTS
from pcl_lib.presets import Preset
from pcl_lib.reproduce import measure
from pcl_lib.utils import BadInput, commit, exit_cleanly, machine, replace_atomically, versions

# What pcl_video learns from: clips of many people, none of whom any set of still images knows.
CLIPS: dict[str, Any] = {
    "identities": (2400, 60, 60),
    "images_per_identity": 15,
    "frames_per_clip": 5,
    "clutter": 0.2,
}
CLIPS_FOLDER = "clips-2400"
BEGINNING = ("epochs", "epoch", "seconds", "hardware", "precision", "commit", "settings")


@dataclass(frozen=True)
class Recipe:
    """How shipped weights are trained: so many times the preset's epochs, and settings that differ from it.

    clips: whether the method learns from `CLIPS` rather than from the preset's still images. first: the recipe of an
    earlier training, on the same images, whose weights this one begins with.
    """

    times: int
    changes: Mapping[str, Any] = field(default_factory=dict)
    clips: bool = False
    first: Recipe | None = None

    def of(self, preset: Preset) -> Preset:
        """The preset with the recipe's changes."""
        return presets.override(preset, {**self.changes, "train.epochs": self.times * preset.train.epochs})


VIDEO = {
    "model.backbone": "patches", "model.width": 1.0, "video.restage": 0.3, "train.iterations_per_epoch": 100,
    "train.frames_per_identity": 4, "train.checkpoint_every": 2,
    # Small batches: the pictures need many steps more than they need many images a step.
    "train.pdd_batch": 12, "train.face_batch": 24, "train.pose_batch": 12,
}  # fmt: skip
# The decoder of pcl_plus has more say in the features than the preset gives it.
RECIPES = {
    "pcl": Recipe(4),
    "pcl_plus": Recipe(8, {"loss.pdd": 16.0}),
    "pcl_video": Recipe(4, VIDEO | {"video.swap": 0.5}, clips=True, first=Recipe(8, VIDEO, clips=True)),
}


def export_weights(
    method: str,
    preset: Preset,
    faces: PreparedFaces,
    out: Path,
    folder: Path = WEIGHTS,
    command: str = "",
    judge: PreparedFaces | None = None,
    start: Path | None = None,
) -> Path:
    """Train a method, or go on from what `out` holds, probe it and keep it in `folder`, in float16, with a card.

    start: the weights to begin with (see `pretrain.fit`); the card repeats what they say of themselves.

    The card (see `shipped.card`) is measured on the test people of `judge`, by default `faces`, which the method is
    trained on, with the weights as they are shipped.
    Returns the path of the weights. Raises BadInput as `pretrain.fit`, where weights leave float16, and where all in
    the folder together are larger than `LIMIT`.
    """
    tree = commit()  # before the weights themselves change it
    before = {} if start is None else _said_of(start)  # also before they change
    training = pretrain.fit(method, preset=preset, faces=faces, out=out, seed=0, start=start)
    model = training.model.cpu().half()
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise BadInput(f"{out} holds values beyond float16: they cannot be shipped")
    path = folder / f"{method}.safetensors"
    notes = {"method": method, "preset": preset.name, "seed": 0, "epoch": preset.train.epochs}
    save_checkpoint(model, path, notes)
    judge = judge or faces
    found = measure.of_method(probes.extract(probes.EvenOdd(load_checkpoint(path)), judge), training.method)
    about = _card(training, preset, faces, probes.evaluate(found, judge))
    about |= {"method": method, "command": command, "commit": tree} | before
    about["seconds"] = round(
        about["seconds"] + before.get("begins with", {}).get("seconds", 0), 1
    )  # of all steps
    about |= {"measured on": {"name": judge.name, "hash": judge.content_hash}}
    with replace_atomically(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    size = sum(each.stat().st_size for each in folder.glob("*.safetensors"))
    if size > LIMIT:
        raise BadInput(f"{folder} holds {size / 1e6:.1f} MB of weights, {LIMIT / 1e6:.0f} may be shipped")
    return path


def _said_of(start: Path) -> dict[str, Any]:
    """What a card says of the weights a training began with: their own card's words, else their checkpoint's notes."""
    card = start.with_suffix(".json")
    known = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else checkpoint_notes(start)
    return {"begins with": {name: known[name] for name in BEGINNING if name in known}}


def _card(
    training: pretrain.Trained, preset: Preset, faces: PreparedFaces, rows: pd.DataFrame
) -> dict[str, Any]:
    where = machine("cuda" if torch.cuda.is_available() else "cpu")
    rows = rows[~rows["metric"].str.contains(r" au\d")]
    names = rows["feature"] + ": " + rows["task"] + " " + rows["metric"]
    return {
        "preset": preset.name,
        "seed": 0,
        "epochs": preset.train.epochs,
        "seconds": round(training.seconds, 1),
        "hardware": f"{where['device']}: threads {where['threads']}, cores {where['cores']}, {where['processor']}",
        "precision": training.precision,
        "data": {"name": faces.name, "hash": faces.content_hash},
        "settings": presets.to_dict(preset),
        "versions": versions(),
        "metrics": dict(zip(names, rows["value"].round(4).tolist(), strict=True)),
        "not_for": list(NOT_FOR),
        "weights": "float16",
        "exported": datetime.date.today().isoformat(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.shipped_weights."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.shipped_weights",
        description="Train the weights that come with the kit, longer than the preset does, probe them and write them, "
        "in float16 and with a card each, to pcl_lib/weights. Goes on where it was.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument("--out", type=Path, default=Path("runs/weights"), help="where training goes on from")
    parser.add_argument("--only", nargs="+", default=list(SHIPPED), metavar="METHOD", help=", ".join(SHIPPED))
    parser.add_argument(
        "--start",
        type=Path,
        metavar="FILE",
        help="what the first of two trainings left, where it was done elsewhere",
    )
    given = parser.parse_args(argv)
    if unknown := set(given.only) - set(SHIPPED):
        raise BadInput(f"--only: {min(unknown)} does not ship, choose some of {', '.join(SHIPPED)}")
    preset = presets.get(given.preset)
    faces = rendered.open_faces(None, preset, given.out.parent)
    for method in given.only:
        recipe = RECIPES[method]
        learnt = (
            rendered.prepare_rendered(given.out.parent / "faces" / CLIPS_FOLDER, **CLIPS)
            if recipe.clips
            else faces
        )
        start = None
        if recipe.first:
            start = given.start or _first(method, recipe.first.of(preset), learnt, given.out)
        command = f"python -m pcl_lib.reproduce.shipped_weights --preset {preset.name} --only {method}"
        path = export_weights(
            method, recipe.of(preset), learnt, given.out, command=command, judge=faces, start=start
        )
        print(f"{path} ({path.stat().st_size / 1e6:.1f} MB) and {path.with_suffix('.json').name}")


def _first(method: str, preset: Preset, faces: PreparedFaces, out: Path) -> Path:
    """Do the first of two trainings; returns its checkpoint."""
    training = pretrain.fit(method, preset=preset, faces=faces, out=out / "first", seed=0)
    return training.folder / "checkpoints" / f"{method}.safetensors"


if __name__ == "__main__":
    exit_cleanly(main)
