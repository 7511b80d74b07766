"""A run folder: the settings it was made with, its data, its trained methods, and what is saved in it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from pcl_lib import plots, presets, pretrain, tables
from pcl_lib.data import FaceSet, PreparedFaces, SizedFaces, open_faces
from pcl_lib.models.checkpoint import checkpoint_notes
from pcl_lib.presets import Preset, differences
from pcl_lib.utils import BadInput, device_name, make_folder, stale, versions, write_json

SEPARATOR = os.pathsep  # between the folders of one string: ":", on Windows ";"


def join_folders(folders: Sequence[str | Path]) -> str:
    """Prepared folders as the one string that notebooks take: absolute, `SEPARATOR` between; "" stays "".

    An empty first name stands for the rendered faces. Raises BadInput where a name holds the separator.
    """
    for folder in map(str, folders[1:]):
        if not folder:
            raise BadInput("the name of a set to probe is empty; give prepared folders after the first")
    paths = [str(Path(folder).resolve()) if str(folder) else "" for folder in folders]
    if wrong := [path for path in paths if SEPARATOR in path]:
        raise BadInput(
            f"{wrong[0]} holds {SEPARATOR!r}, which parts the names of folders; rename that folder"
        )
    return SEPARATOR.join(paths)


def split_folders(data: str | Path) -> list[str]:
    """The folders in a string of `join_folders`, one or more; the first is "" for the rendered faces."""
    first, *more = str(data).split(SEPARATOR)
    if not all(more):
        raise BadInput(f"data {str(data)!r} names an empty folder; put one {SEPARATOR!r} between two folders")
    return [first, *more]


def check_distinct(sets: Sequence[PreparedFaces]) -> None:
    """Raise BadInput where a set is given twice, or two sets share the name that their result rows would carry."""
    for place, one in enumerate(sets):
        for other in sets[:place]:
            if one.content_hash == other.content_hash:
                raise BadInput(f"{one.folder} holds the same faces as {other.folder}; give each set once")
            if one.name == other.name:
                raise BadInput(
                    f"{one.folder} and {other.folder} are both called {one.name!r}, so that their results could not be"
                    " told apart; prepare one of them under another --name"
                )


FOLDERS = ("checkpoints", "logs", "notebooks", "tables", "figures")


@dataclass(frozen=True)
class Run:
    """A run folder with all that a notebook works with: settings, faces, seed; it trains, and keeps results.

    faces: the set that methods are pre-trained on, and probed on as far as it has labels. others: only probed.
    """

    preset: Preset
    faces: PreparedFaces
    out: Path
    seed: int
    others: tuple[PreparedFaces, ...] = ()

    @property
    def sets(self) -> tuple[PreparedFaces, ...]:
        """All sets of the run, the one to pre-train on first."""
        return (self.faces, *self.others)

    @property
    def device(self) -> str:
        """The device that training picks, in words: "cpu", "cuda NVIDIA H200", ..."""
        return device_name()

    def sized(self, faces: FaceSet | None = None) -> FaceSet:
        """The run's faces, or another set, at the size its models are trained at."""
        faces, size = faces or self.faces, self.preset.model.image_size
        return faces if faces.image_size == size else SizedFaces(faces, size)

    def trained(self, method: str) -> pretrain.Trained:
        """The method pre-trained on the run's faces: loaded where it is done, trained (saying so) where not.

        Raises as `pretrain.fit`.
        """
        weights = self.out / "checkpoints" / f"{method}.safetensors"
        done = int(checkpoint_notes(weights)["epoch"]) if weights.is_file() else None
        epochs = self.preset.train.epochs
        if method == "random":
            print("random: an untrained encoder, nothing to train.")
        elif done is None:
            print(f"{method}: training {epochs} epochs on {self.faces.name}.")
        elif done < epochs:
            print(f"{method}: training goes on after epoch {done} of {epochs} on {self.faces.name}.")
        else:
            print(f"{method}: loading the finished training from {weights}.")
        return pretrain.fit(method, preset=self.preset, faces=self.faces, out=self.out, seed=self.seed)

    def save_rows(self, rows: pd.DataFrame, name: str, **context: Any) -> pd.DataFrame:
        """Write result rows to tables/<name>.csv, each with where it came from (`tables.save_rows`); returns them.

        preset, seed, data and device are the run's where the rows do not say them; context: further columns, such as
        method="pcl" and precision="32-true". An empty table is passed over, and that is said. Raises BadInput where
        the rows do not say all of `tables.CONTEXT`.
        """
        if rows.empty:
            names = " and ".join(faces.name for faces in self.sets)
            print(f"{name}: nothing to save, {names} lacks the labels.")
            return rows
        own = {"preset": self.preset.name, "seed": self.seed, "data": self.faces.name, "device": self.device}
        return tables.save_rows(rows, self.out / "tables", name, **(own | context))

    def save_table(self, table: tables.Table | pd.DataFrame, name: str, caption: str) -> None:
        """Write a table to tables/<name>.csv, .md and .tex (`tables.write_table`)."""
        tables.write_table(table, self.out / "tables" / name, caption)

    def save_figure(self, figure: Figure, name: str) -> Figure:
        """Write a figure to figures/<name>.png; returns it, so that a notebook shows it."""
        return plots.save(figure, self.out / "figures" / f"{name}.png")


def open_run(preset: str | Preset, data: str | Path, out: str | Path, seed: int) -> Run:
    """Open a run folder for these settings, or make it; the first thing that every notebook does.

    preset: a name, or one of your own. data: a prepared folder, or several as `run.join_folders` joins them, the
    first to pre-train on; "" for the rendered faces, which are kept next to the run folder. Writes out/config.json;
    where it is there with other settings, raises BadInput that names those that differ. Raises BadInput as well on an
    unknown preset, a negative seed, bad data, a set given twice, a folder that cannot be written. Says so where the
    kernel runs older code than lies on the disk.
    """
    if said := stale():
        print(said)
    preset = presets.get(preset) if isinstance(preset, str) else preset
    presets.check_seed(seed)
    out = Path(out)
    first, *more = split_folders(data)
    others = tuple(PreparedFaces(folder) for folder in more)
    faces = open_faces(first or None, preset, out.parent)
    check_distinct((faces, *others))
    for name in FOLDERS:
        make_folder(out / name)
    config = {
        "preset": presets.to_dict(preset),
        "data": {"name": faces.name, "content_hash": faces.content_hash},
        "seed": seed,
        "versions": versions(),
    }
    if others:
        config["probed too"] = {other.name: other.content_hash for other in others}
    _keep_config(out / "config.json", config)
    return Run(preset, faces, out, seed, others)


def _keep_config(path: Path, config: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, config)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): choose another --out, or delete it") from None
    if differ := list(differences(before, config)):
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise BadInput(
            f"{path.parent} is the folder of a run with other settings ({'; '.join(differ[:4])}{more}): "
            "choose another --out, or delete that folder"
        )
