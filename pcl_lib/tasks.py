"""What a prepared set can be probed for: labelled rows of each split, pairs, and what had to be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from pcl_lib.errors import BadInput
from pcl_lib.labels import ANGLE_NAMES, AU_NAMES, hashed_split, identity_codes

PRESENT = 2.0  # an action unit is present from this intensity on (DISFA's usual rule)
LARGEST_ANGLE = 99.0  # degrees; the paper's protocol leaves larger angles out
CROSS_POSE = 25.0  # degrees of yaw between the two images of a cross-pose pair
PROTOCOLS = ("validation", "released_code")
FOLD_VALIDATION = 0.15  # of the people that are not in the test fold
NO_LABELS, NO_PAIRS = "has no labels for", "has no list of pairs"
# How the sentences of `left_out` begin, by task.
PROBED = {
    "expression": "Expression",
    "action units": "Action unit",
    "head pose": "Head pose",
    "verification": "Face verification",
    "cross-pose verification": "Cross-pose verification",
}


class Split(NamedTuple):
    """Row numbers of the labelled images of each split."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass
class Plan:
    """What a set can be probed for, and sentences on what was left out and why."""

    expression: Split | None = None
    action_units: Split | None = None
    units: tuple[str, ...] = ()
    pose: Split | None = None
    angles: tuple[str, ...] = ()
    pairs: pd.DataFrame | None = None
    cross_pose: pd.DataFrame | None = None
    left_out: list[str] = field(default_factory=list)

    def rows(self) -> np.ndarray:
        """Row numbers of every image that some task needs, sorted."""
        parts = [part for s in (self.expression, self.action_units, self.pose) if s for part in s]
        if self.pairs is not None:
            parts += [self.pairs["first"].to_numpy(), self.pairs["second"].to_numpy()]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def plan(faces: Any, protocol: str = "validation") -> Plan:
    """Find the tasks a prepared set has labels for.

    protocol: "validation" chooses on the validation split; "released_code" on the test split itself, as the released
    code's probes do (`pcl_lib.released_probes`), and is there only to compare with numbers made that way.
    """
    if protocol not in PROTOCOLS:
        raise BadInput(f"unknown protocol {protocol!r}; use one of {', '.join(PROTOCOLS)}")
    made = Plan()
    _plan_expression(faces, made, protocol)
    _plan_units(faces, made, protocol)
    _plan_pose(faces, made, protocol)
    _plan_pairs(faces, made)
    return made


class FoldFaces:
    """A set with one of its folds as test; `FOLD_VALIDATION` of the other people are validation, the rest train."""

    def __init__(self, faces: Any, fold: int) -> None:
        self._faces, self.name = faces, f"{faces.name}, fold {fold}"
        held = (faces.table["fold"] == fold).to_numpy()
        self._split = np.full(len(held), "test", dtype=object)
        self._split[~held] = hashed_split(faces.table[~held], (FOLD_VALIDATION, 0.0))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._faces, name)

    def split(self, name: str) -> np.ndarray:
        """As `PreparedFaces.split`."""
        return np.flatnonzero(self._split == name)


def views(faces: Any) -> list[Any]:
    """The set itself; where its table has folds of people (column fold, as DISFA's), a view a fold, each test once.

    Raises BadInput where a row has no fold, there is one alone, or a person is in two.
    """
    if "fold" not in faces.table:
        return [faces]
    folds = faces.table["fold"]
    if folds.isna().any() or folds.nunique() < 2:
        raise BadInput(
            f"{faces.name}: column fold must number two folds or more and leave no row out; mend the labels"
        )
    of_person = folds.groupby(identity_codes(faces.table)).nunique()
    if (of_person > 1).any():
        raise BadInput(
            f"{faces.name}: column fold puts {(of_person > 1).sum()} people into two folds; mend the labels"
        )
    return [FoldFaces(faces, int(fold)) for fold in sorted(folds.unique())]


def plans(faces: Any, protocol: str = "validation") -> list[Plan]:
    """`plan` of each of `views`; what cannot be probed in every fold is left out of all."""
    made = [plan(view, protocol) for view in views(faces)]
    units = tuple(unit for unit in made[0].units if all(unit in each.units for each in made))
    for each in made:
        each.units = units
    for task in ("expression", "action_units", "pose", "pairs", "cross_pose"):
        if any(getattr(each, task) is None for each in made) or (task == "action_units" and not units):
            for each in made:
                setattr(each, task, None)
    return made


def left_out(faces: Any) -> list[str]:
    """Sentences on the tasks and rows this set cannot be probed for, and why; empty where there are none."""
    told = [
        sentence.replace(view.name, faces.name)
        for view, made in zip(views(faces), plans(faces), strict=True)
        for sentence in made.left_out
    ]
    return list(dict.fromkeys(told))


def labelled(
    faces: Any, columns: Sequence[str], what: str, notes: list[str], protocol: str = PROTOCOLS[0]
) -> Split | None:
    """Rows that have all of these labels, by split; None, with a note, where a split has none."""
    missing = [c for c in columns if c not in faces.table or faces.table[c].isna().all()]
    if missing:
        notes.append(f"{what} was left out: {faces.name} {NO_LABELS} {', '.join(missing)}.")
        return None
    has = faces.table[list(columns)].notna().all(axis=1).to_numpy()
    parts = {name: faces.split(name) for name in Split._fields}
    split = Split(*(rows[has[rows]] for rows in parts.values()))
    if protocol == "released_code":
        split = split._replace(validation=split.test)
    empty = [name for name, rows in zip(Split._fields, split, strict=True) if len(rows) == 0]
    if empty:
        notes.append(f"{what} was left out: {faces.name} has no labelled images in {' and '.join(empty)}.")
        return None
    dropped = sum(len(rows) for rows in parts.values()) - int(has[np.concatenate(list(parts.values()))].sum())
    if dropped:
        notes.append(f"{what}: {dropped} images of {faces.name} without labels were left out.")
    return split


def _plan_expression(faces: Any, made: Plan, protocol: str) -> None:
    made.expression = labelled(faces, ["expression"], "Expression", made.left_out, protocol)
    if made.expression is None:
        return
    if faces.table["expression"].iloc[made.expression.train].nunique() < 2:
        made.left_out.append(f"Expression was left out: {faces.name} trains on a single class.")
        made.expression = None


def _plan_units(faces: Any, made: Plan, protocol: str) -> None:
    units = [c for c in AU_NAMES if c in faces.table and faces.table[c].notna().any()]
    made.action_units = labelled(faces, units or AU_NAMES, "Action units", made.left_out, protocol)
    if made.action_units is None:
        return
    usable = []
    for unit in units:
        present = faces.table[unit].to_numpy() >= PRESENT
        if all(present[rows].any() and not present[rows].all() for rows in made.action_units):
            usable.append(unit)
        else:
            made.left_out.append(
                f"Action unit {unit} was left out: a split of {faces.name} has only present or only absent."
            )
    made.units = tuple(usable)
    made.action_units = made.action_units if usable else None


def _plan_pose(faces: Any, made: Plan, protocol: str) -> None:
    angles = [c for c in ANGLE_NAMES if c in faces.table and faces.table[c].notna().any()]
    split = labelled(faces, angles or ANGLE_NAMES, "Head pose", made.left_out, protocol)
    if split is None:
        return
    inside = (faces.table[angles].abs() <= LARGEST_ANGLE).all(axis=1).to_numpy()
    beyond = int((~inside[np.unique(np.concatenate(split))]).sum())
    if beyond:
        made.left_out.append(
            f"Head pose: {beyond} images turned by more than {LARGEST_ANGLE:.0f} degrees left out."
        )
    split = Split(*(rows[inside[rows]] for rows in split))
    if not all(len(rows) for rows in split):
        made.left_out.append(
            f"Head pose was left out: a split of {faces.name} has no images within that range."
        )
        return
    made.pose, made.angles = split, tuple(angles)
    absent = [c for c in ANGLE_NAMES if c not in angles]
    if absent:
        made.left_out.append(f"Head pose: {', '.join(absent)} left out, {faces.name} has no such labels.")


def _plan_pairs(faces: Any, made: Plan) -> None:
    if faces.pairs is None:
        made.left_out.append(f"Face verification was left out: {faces.name} {NO_PAIRS}.")
        return
    unseen = np.zeros(len(faces.table), dtype=bool)
    unseen[faces.split("test")] = True
    known = unseen[faces.pairs["first"].to_numpy()] & unseen[faces.pairs["second"].to_numpy()]
    if not known.all():
        made.left_out.append(
            f"Face verification: {int((~known).sum())} of {len(known)} pairs were left out, "
            "because an image of theirs is not in the test split."
        )
    pairs = faces.pairs[known].reset_index(drop=True)
    made.pairs = _usable_pairs(pairs, "Face verification", made.left_out)
    if made.pairs is None or "yaw" not in faces.table:
        made.left_out.append("Cross-pose verification was left out: it needs pairs and their yaw.")
        return
    yaw = faces.table["yaw"].to_numpy(float)
    apart = np.abs(yaw[pairs["first"].to_numpy()] - yaw[pairs["second"].to_numpy()]) >= CROSS_POSE
    made.cross_pose = _usable_pairs(pairs[apart], "Cross-pose verification", made.left_out)


def _usable_pairs(pairs: pd.DataFrame, what: str, notes: list[str]) -> pd.DataFrame | None:
    if pairs["fold"].nunique() >= 2 and pairs["same"].nunique() == 2:
        return pairs
    notes.append(f"{what} was left out: it needs same and different pairs in at least two folds.")
    return None
