"""What prepared sets can be probed for: labelled rows of each split, pairs, and what had to be left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from pcl_lib.data import FaceSet, JoinedFaces
from pcl_lib.data.adapters import fold_views
from pcl_lib.data.labels import ANGLE_NAMES, AU_NAMES, LARGEST_ANGLE, PRESENT, SPLITS, WORDS
from pcl_lib.data.pairs import make_pairs
from pcl_lib.utils import BadInput

CROSS_POSE = 25.0  # degrees of yaw between the two images of a cross-pose pair
OPTIMISTIC = ("released_code", "pcfrl")  # the epoch is chosen on the test split
PROTOCOLS = ("validation", *OPTIMISTIC)
# The labels of each trained probe; a set needs some of them.
LABELS = {"expression": ("expression",), "action units": AU_NAMES, "head pose": ANGLE_NAMES}
# Why a task, or a part of it, is left out: a key of LeftOut.reason, and its sentence.
REASONS = {
    "no labels": "{task} left out: {data} has no labels for {columns}.",
    "text": "{task} left out: {columns} of {data} holds text where numbers are wanted.",
    "empty split": "{task} left out: {data} has no labelled images in {columns}.",
    "some unlabelled": "{task}: {rows} images of {data} without labels left out.",
    "one class": "{task} left out: {data} trains on a single class.",
    "constant": "{task}: {columns} left out, because a split of {data} has only present or only absent.",
    "turned too far": "{task}: {rows} images of {data} turned by more than {largest:.0f} degrees left out.",
    "none in range": "{task} left out: a split of {data} has no images within {largest:.0f} degrees.",
    "some angles": "{task}: {columns} left out, because {data} has no such labels.",
    "no pairs": "{task} left out: {data} has no list of pairs.",
    "outside test": "{task}: {rows} pairs of {data} left out: an image of theirs is not in the test split.",
    "no yaw of pairs": "{task} left out: it needs pairs of {data} and their yaw.",
    "too few pairs": "{task} left out: {data} needs same and different pairs in at least two folds.",
    "too few people": "{task} left out: {columns} of {data} has fewer than two identities with two images.",
    "one value": "{task} left out: it is the same on all test images of {data}.",
    "one person": "{task} left out: the labelled test images of {data} show a single person.",
    "joined": "{task}: trained on {columns}, tested on {data}; neither set has the other part.",
    "no task": "{data} is not probed: no task has what it needs.",
}
NOT_THERE = ("no labels", "no pairs")  # what nobody expects of a set that came for other tasks


@dataclass(frozen=True)
class LeftOut:
    """A task, or a part of it, that a set cannot be probed for; as text, one sentence.

    task: as result rows call it ("head pose"), or another name of what was asked for. reason: a key of `REASONS`.
    data: name of the set. columns: the labels or splits it is about. rows: how many images or pairs.
    """

    task: str
    reason: str
    data: str
    columns: tuple[str, ...] = ()
    rows: int = 0

    def __str__(self) -> str:
        task = "Face verification" if self.task == "verification" else self.task[:1].upper() + self.task[1:]
        return REASONS[self.reason].format(
            task=task,
            data=self.data,
            columns=", ".join(self.columns),
            rows=self.rows,
            largest=LARGEST_ANGLE,
        )


class Split(NamedTuple):
    """Row numbers of the labelled images of each split."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass
class Plan:
    """What a set can be probed for, and what was left out and why."""

    expression: Split | None = None
    action_units: Split | None = None
    units: tuple[str, ...] = ()
    pose: Split | None = None
    angles: tuple[str, ...] = ()
    pairs: pd.DataFrame | None = None
    cross_pose: pd.DataFrame | None = None
    training_pairs: pd.DataFrame | None = None  # "pcfrl" alone trains its verification
    left_out: list[LeftOut] = field(default_factory=list)

    def rows(self) -> np.ndarray:
        """Row numbers of every image that some task needs, sorted."""
        parts = [part for s in (self.expression, self.action_units, self.pose) if s for part in s]
        if self.pairs is not None:
            for pairs in (self.pairs, self.training_pairs):
                parts += [] if pairs is None else [pairs["first"].to_numpy(), pairs["second"].to_numpy()]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)

    def pair_splits(self, pairs: pd.DataFrame) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
        """Training pairs and test pairs for a verification that is trained; each of `pairs` is tested once.

        Where the set has no training people, the pairs of each fold are tested after training on those of the others.
        """
        if self.training_pairs is not None:
            return [(self.training_pairs, pairs)]
        folds = pairs["fold"]
        return [(pairs[folds != fold], pairs[folds == fold]) for fold in folds.unique()]


def plan(faces: FaceSet, protocol: str = "validation") -> Plan:
    """Find the tasks a prepared set has labels for.

    protocol: "validation" chooses on the validation split; "released_code" and "pcfrl" on the test split itself, as
    the probes of the authors' code do (`probes.released_code`), and are there only to compare with numbers made that
    way.
    """
    if protocol not in PROTOCOLS:
        raise BadInput(f"unknown protocol {protocol!r}; use one of {', '.join(PROTOCOLS)}")
    made = Plan()
    _plan_expression(faces, made, protocol)
    _plan_units(faces, made, protocol)
    _plan_pose(faces, made, protocol)
    _plan_pairs(faces, made, protocol)
    return made


def plans(faces: FaceSet, protocol: str = "validation") -> list[Plan]:
    """`plan` of each of `adapters.fold_views`; what cannot be probed in every fold is left out of all."""
    made = [plan(view, protocol) for view in fold_views(faces)]
    units = tuple(unit for unit in made[0].units if all(unit in each.units for each in made))
    for each in made:
        each.units = units
    for task in ("expression", "action_units", "pose", "pairs", "cross_pose"):
        if any(getattr(each, task) is None for each in made) or (task == "action_units" and not units):
            for each in made:
                setattr(each, task, None)
    return made


def left_out(faces: FaceSet) -> list[LeftOut]:
    """The tasks and rows this set cannot be probed for, and why; empty where there are none."""
    told = [dataclasses.replace(one, data=faces.name) for made in plans(faces) for one in made.left_out]
    return list(dict.fromkeys(told))


def labelled(
    faces: FaceSet, columns: Sequence[str], task: str, notes: list[LeftOut], protocol: str = PROTOCOLS[0]
) -> Split | None:
    """Rows that have all of these labels, by split; None, with a note, where a split has none."""
    missing = [c for c in columns if c not in faces.table or faces.table[c].isna().all()]
    if missing:
        notes.append(LeftOut(task, "no labels", faces.name, tuple(missing)))
        return None
    if text := [c for c in columns if c not in WORDS and not is_numeric_dtype(faces.table[c])]:
        notes.append(LeftOut(task, "text", faces.name, tuple(text)))
        return None
    has = faces.table[list(columns)].notna().all(axis=1).to_numpy()
    parts = {name: faces.split(name) for name in Split._fields}
    split = Split(*(rows[has[rows]] for rows in parts.values()))
    if protocol in OPTIMISTIC:
        split = split._replace(validation=split.test)
    empty = [name for name, rows in zip(Split._fields, split, strict=True) if len(rows) == 0]
    if empty:
        notes.append(LeftOut(task, "empty split", faces.name, tuple(empty)))
        return None
    dropped = sum(len(rows) for rows in parts.values()) - int(has[np.concatenate(list(parts.values()))].sum())
    if dropped:
        notes.append(LeftOut(task, "some unlabelled", faces.name, tuple(columns), dropped))
    return split


def _plan_expression(faces: FaceSet, made: Plan, protocol: str) -> None:
    made.expression = labelled(faces, ["expression"], "expression", made.left_out, protocol)
    if made.expression is None:
        return
    if faces.table["expression"].iloc[made.expression.train].nunique() < 2:
        made.left_out.append(LeftOut("expression", "one class", faces.name))
        made.expression = None


def _plan_units(faces: FaceSet, made: Plan, protocol: str) -> None:
    units = [c for c in AU_NAMES if c in faces.table and faces.table[c].notna().any()]
    made.action_units = labelled(faces, units or AU_NAMES, "action units", made.left_out, protocol)
    if made.action_units is None:
        return
    usable = []
    for unit in units:
        present = faces.table[unit].to_numpy() >= PRESENT
        if all(present[rows].any() and not present[rows].all() for rows in made.action_units):
            usable.append(unit)
        else:
            made.left_out.append(LeftOut("action units", "constant", faces.name, (unit,)))
    made.units = tuple(usable)
    made.action_units = made.action_units if usable else None


def _plan_pose(faces: FaceSet, made: Plan, protocol: str) -> None:
    angles = [c for c in ANGLE_NAMES if c in faces.table and faces.table[c].notna().any()]
    split = labelled(faces, angles or ANGLE_NAMES, "head pose", made.left_out, protocol)
    if split is None:
        return
    inside = (faces.table[angles].abs() <= LARGEST_ANGLE).all(axis=1).to_numpy()
    beyond = int((~inside[np.unique(np.concatenate(split))]).sum())
    if beyond:
        made.left_out.append(LeftOut("head pose", "turned too far", faces.name, rows=beyond))
    split = Split(*(rows[inside[rows]] for rows in split))
    if not all(len(rows) for rows in split):
        made.left_out.append(LeftOut("head pose", "none in range", faces.name))
        return
    made.pose, made.angles = split, tuple(angles)
    if absent := tuple(c for c in ANGLE_NAMES if c not in angles):
        made.left_out.append(LeftOut("head pose", "some angles", faces.name, absent))


def _plan_pairs(faces: FaceSet, made: Plan, protocol: str) -> None:
    if faces.pairs is None:
        made.left_out.append(LeftOut("verification", "no pairs", faces.name))
        return
    unseen = np.zeros(len(faces.table), dtype=bool)
    unseen[faces.split("test")] = True
    known = unseen[faces.pairs["first"].to_numpy()] & unseen[faces.pairs["second"].to_numpy()]
    if not known.all():
        made.left_out.append(LeftOut("verification", "outside test", faces.name, rows=int((~known).sum())))
    pairs = faces.pairs[known].reset_index(drop=True)
    made.pairs = _usable_pairs(pairs, "verification", faces.name, made.left_out)
    if protocol == "pcfrl" and len(train := faces.split("train")):
        made.training_pairs = make_pairs(faces.table, train)
    if made.pairs is None or "yaw" not in faces.table:
        made.left_out.append(LeftOut("cross-pose verification", "no yaw of pairs", faces.name))
        return
    yaw = faces.table["yaw"].to_numpy(float)
    apart = np.abs(yaw[pairs["first"].to_numpy()] - yaw[pairs["second"].to_numpy()]) >= CROSS_POSE
    made.cross_pose = _usable_pairs(pairs[apart], "cross-pose verification", faces.name, made.left_out)


def _usable_pairs(pairs: pd.DataFrame, task: str, data: str, notes: list[LeftOut]) -> pd.DataFrame | None:
    if (pairs.groupby("fold")["same"].nunique() == 2).sum() >= 2:
        return pairs
    notes.append(LeftOut(task, "too few pairs", data))
    return None


def labelled_splits(faces: FaceSet, columns: Sequence[str]) -> set[str]:
    """The splits in which some row has all of these labels."""
    if not columns or any(name not in faces.table for name in columns):
        return set()
    has = faces.table[list(columns)].notna().all(axis=1).to_numpy()
    return {name for name in SPLITS if has[faces.split(name)].any()}


def joined(sets: Sequence[FaceSet]) -> Iterator[tuple[str, JoinedFaces]]:
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


def _has(faces: FaceSet, label: str) -> bool:
    return label in faces.table and bool(faces.table[label].notna().any())


@dataclass
class Probed:
    """What a run's sets are probed for: sets or joined sets, and by name of a set what was left out and why."""

    views: list[FaceSet] = field(default_factory=list)
    notes: dict[str, list[LeftOut]] = field(default_factory=dict)

    def told(self) -> list[LeftOut]:
        """What to tell the user: all of the first set; of the others not which tasks they have no labels for."""
        first, *others = self.notes.values()
        return first + [one for notes in others for one in notes if one.reason not in NOT_THERE]


def probed(sets: Sequence[FaceSet]) -> Probed:
    """Every set that can be probed alone, then those joined for a task; a set that cannot is said, not refused."""
    found = Probed()
    pairs = list(joined(sets))
    for faces in sets:
        helped = [task for task, pair in pairs if faces in (pair.train, pair.test)]
        notes = [one for one in left_out(faces) if one.task not in helped]
        if not _add(found, faces, notes) and not helped:
            notes.append(LeftOut("", "no task", faces.name))
    for task, pair in pairs:
        own = [one for one in left_out(pair) if one.task == task]
        _add(found, pair, [LeftOut(task, "joined", pair.test.name, (pair.train.name,)), *own])
    return found


def _add(found: Probed, faces: FaceSet, notes: list[LeftOut]) -> bool:
    found.notes[faces.name] = notes
    can = any(len(made.rows()) for made in plans(faces))
    found.views += [faces] if can else []
    return can


def mark_labels(rows: pd.DataFrame, faces: FaceSet) -> pd.DataFrame:
    """Result rows of `faces` with columns data, its name, and labels: "pseudo" where its labels were estimated."""
    estimated = set(faces.info.get("pseudo", ()))
    kinds = [
        "pseudo" if estimated & _labels_of(*row) else "given"
        for row in zip(rows["task"], rows["metric"], strict=True)
    ]
    return rows.assign(data=faces.name, labels=kinds)


def _labels_of(task: str, metric: str) -> set[str]:
    """The labels that a row's value depends on: one angle or unit, or all of them for a mean."""
    if task == "cross-pose verification":
        return {"yaw", "identity"}
    if task == "verification":
        return {"identity"}
    names = LABELS[task]
    return {name for name in metric.split() if name in names} or set(names)
