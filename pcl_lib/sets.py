"""Several prepared sets in one run: how they are named, which are probed, and which two serve one probe together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pcl_lib.errors import BadInput
from pcl_lib.labels import ANGLE_NAMES, AU_NAMES, SPLITS
from pcl_lib.tasks import NO_LABELS, NO_PAIRS, PROBED, left_out, plans

SEPARATOR = os.pathsep  # between the folders of one string: ":", on Windows ";"
# The labels of each trained probe; a set needs some of them.
LABELS = {"expression": ("expression",), "action units": AU_NAMES, "head pose": ANGLE_NAMES}


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


def check_distinct(sets: Sequence[Any]) -> None:
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


class JoinedFaces:
    """Two sets that serve one probe: the first trains and validates it, the second tests it (300W-LP and AFLW2000).

    Has what probes ask of a `PreparedFaces`; table holds `columns` and identities. Images are of one size.
    """

    pairs = None

    def __init__(self, train: Any, test: Any, columns: Sequence[str]) -> None:
        self.train, self.test = train, test
        self.name = f"train {train.name}, test {test.name}"
        self.info = {"pseudo": sorted({*train.info.get("pseudo", ()), *test.info.get("pseudo", ())})}
        kept = [part.table.reindex(columns=["identity", *columns]) for part in (train, test)]
        self.table = pd.concat(kept, ignore_index=True)

    def __len__(self) -> int:
        return len(self.table)

    def split(self, name: str) -> np.ndarray:
        """Row numbers of a split; the second set's rows come after the first's."""
        return self.test.split(name) + len(self.train) if name == "test" else self.train.split(name)

    def images(self, rows: np.ndarray) -> torch.Tensor:
        """uint8 [n, 3, S, S] of these rows, in the order asked."""
        rows = np.asarray(rows)
        second = rows >= len(self.train)
        parts = [self.train.images(rows[~second]), self.test.images(rows[second] - len(self.train))]
        order = np.argsort(np.concatenate([np.flatnonzero(~second), np.flatnonzero(second)]))
        return torch.cat([part for part in parts if len(part)])[torch.from_numpy(order)]


def labelled_splits(faces: Any, columns: Sequence[str]) -> set[str]:
    """The splits in which some row has all of these labels."""
    if not columns or any(name not in faces.table for name in columns):
        return set()
    has = faces.table[list(columns)].notna().all(axis=1).to_numpy()
    return {name for name in SPLITS if has[faces.split(name)].any()}


def joined(sets: Sequence[Any]) -> Iterator[tuple[str, JoinedFaces]]:
    """Each task and two sets that serve it together.

    One has labels in train and validation and none in test, the other in test alone; shared are the labels that both
    have. A set that has all three splits is probed alone and never joined.
    """
    for task, names in LABELS.items():
        for train in sets:
            for test in sets:
                both = [name for name in names if _has(train, name) and _has(test, name)]
                if labelled_splits(train, both) == {"train", "validation"} and labelled_splits(
                    test, both
                ) == {"test"}:
                    yield task, JoinedFaces(train, test, both)


def _has(faces: Any, label: str) -> bool:
    return label in faces.table and bool(faces.table[label].notna().any())


@dataclass
class Probed:
    """What a run's sets are probed for: sets or joined sets, and by name of a set what was left out and why."""

    views: list[Any] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)

    def sentences(self) -> list[str]:
        """What to tell the user: all notes on the first set; on the others not which tasks they have no labels for."""
        first, *others = self.notes.values()
        expected = (NO_LABELS, NO_PAIRS)
        return first + [
            one for notes in others for one in notes if not any(words in one for words in expected)
        ]


def probed(sets: Sequence[Any]) -> Probed:
    """Every set that can be probed alone, then those joined for a task; a set that cannot is said, not refused."""
    found = Probed()
    pairs = list(joined(sets))
    for faces in sets:
        helped = [task for task, pair in pairs if faces in (pair.train, pair.test)]
        notes = [
            said for said in left_out(faces) if not any(said.startswith(PROBED[task]) for task in helped)
        ]
        if not _add(found, faces, notes) and not helped:
            notes.append(f"{faces.name} is not probed: no task has what it needs.")
    for task, pair in pairs:
        own = [said for said in left_out(pair) if said.startswith(PROBED[task])]
        told = f"{PROBED[task]}: trained on {pair.train.name}, tested on {pair.test.name}, which have no other part."
        _add(found, pair, [told, *own])
    return found


def _add(found: Probed, faces: Any, notes: list[str]) -> bool:
    found.notes[faces.name] = notes
    can = any(len(made.rows()) for made in plans(faces))
    found.views += [faces] if can else []
    return can


def mark_labels(rows: pd.DataFrame, faces: Any) -> pd.DataFrame:
    """Result rows of `faces` with columns data, its name, and labels: "pseudo" where its labels were estimated."""
    estimated = set(faces.info.get("pseudo", ()))
    kinds = [
        "pseudo" if estimated & _labels_of(*row) else "given"
        for row in zip(rows["task"], rows["metric"], strict=True)
    ]
    return rows.assign(data=faces.name, labels=kinds)


def _labels_of(task: str, metric: str) -> set[str]:
    """The labels that a row's value hangs on: one angle or unit, or all of them for a mean."""
    if task == "cross-pose verification":
        return {"yaw", "identity"}
    if task == "verification":
        return {"identity"}
    names = LABELS[task]
    return {name for name in metric.split() if name in names} or set(names)
