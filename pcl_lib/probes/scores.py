"""Scores of probes and their intervals: each is kept for all test images and over resampled test identities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pcl_lib.data import FaceSet
from pcl_lib.data.labels import identity_codes

REPLICATES = 200  # of the bootstrap over test identities
CHOSEN = (
    "penalty",
    "threshold",
    "epoch",
)  # what a probe chose on validation data (on test data in `tasks.OPTIMISTIC`)


class Scores:
    """Scores of one set, or of one fold of it: values of all test images and over resampled test identities."""

    def __init__(self, faces: FaceSet, seed: int | list[int]) -> None:
        self.codes = identity_codes(faces.table)
        self.seed = seed
        self.rows: list[dict[str, Any]] = []

    def weights(self, *ends: np.ndarray) -> np.ndarray:
        """[1 + REPLICATES, n] weights of images, or of pairs of images: first all 1, then resampled.

        An image weighs as often as its identity was drawn; a pair of two identities, the product of both.
        """
        groups, inverse = np.unique(np.concatenate([self.codes[end] for end in ends]), return_inverse=True)
        if len(groups) < 2:  # nothing to resample
            return np.ones((1, len(ends[0])))
        draws = np.random.default_rng(self.seed).multinomial(
            len(groups), np.full(len(groups), 1 / len(groups)), size=REPLICATES
        )
        times = np.concatenate([np.ones((1, len(groups))), draws])
        first, *second = (times[:, part] for part in np.split(inverse, len(ends)))
        if not second:
            return first
        alone = self.codes[ends[0]] == self.codes[ends[1]]
        return first * np.where(alone, 1.0, second[0])

    def add(self, feature: str, task: str, metric: str, values: np.ndarray, n: int, **chosen: float) -> None:
        """values: [1 + REPLICATES], as a weighted score gives them for `weights`. chosen: some of `CHOSEN`."""
        row = {"feature": feature, "task": task, "metric": metric, "values": values, "n": n}
        self.rows.append(row | dict.fromkeys(CHOSEN, np.nan) | chosen)


class GroupScores(Scores):
    """`Scores` of several groups of images at once: values [groups, 1 + REPLICATES] and n [groups] of each row.

    groups: [groups, images of the set] bool. A pair of images counts where both are in the group. The same identities
    are drawn for all groups, so that differences of two groups are paired.
    """

    def __init__(self, faces: FaceSet, seed: int, groups: np.ndarray) -> None:
        super().__init__(faces, seed)
        self.groups = groups

    def weights(self, *ends: np.ndarray) -> np.ndarray:
        """[groups * (1 + REPLICATES), n]: as `Scores.weights`, 0 outside the group; group after group."""
        member = np.logical_and.reduce([self.groups[:, end] for end in ends])
        self.sizes = member.sum(1)
        return (member[:, None] * super().weights(*ends)).reshape(-1, len(ends[0]))

    def add(self, feature: str, task: str, metric: str, values: np.ndarray, n: int, **chosen: float) -> None:
        """As `Scores.add`, of the weights given last."""
        super().add(feature, task, metric, values.reshape(len(self.groups), -1), n, **chosen)
        self.rows[-1]["n"] = self.sizes


def group_table(
    score: GroupScores, names: Sequence[str], differences: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Result rows by group, and of the differences of two, each with its paired interval; n NaN in the latter."""
    rows = []
    for row in score.rows:
        found = dict(zip(names, row["values"], strict=True))
        sizes: dict[str, float] = dict(zip(names, row["n"], strict=True))
        found |= {f"{first} - {second}": found[first] - found[second] for first, second in differences}
        for name, values in found.items():
            known = values[1:][np.isfinite(values[1:])]
            low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
            about = {key: row[key] for key in ("feature", "task", "metric")}
            scored = {"value": values[0], "low": low, "high": high, "n": sizes.get(name, np.nan)}
            rows.append(about | {"group": name} | scored)
    return pd.DataFrame(rows)


def scorers(faces: FaceSet, seed: int, folds: int) -> list[Scores]:
    """One for each fold, whose people are drawn independently."""
    return [Scores(faces, seed if folds == 1 else [seed, fold]) for fold in range(folds)]


def mean_of_folds(values: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over folds of [1 + REPLICATES] each; of a fold of one person, [1], the value stays in all replicates."""
    return np.mean(np.broadcast_arrays(*values), axis=0)


def score_table(scores: Sequence[Scores], protocol: str) -> pd.DataFrame:
    """Result rows: value and 95% interval of the mean over folds; a set without folds has one."""
    rows = []
    for of_folds in zip(*(score.rows for score in scores), strict=True):
        values = mean_of_folds([row["values"] for row in of_folds])
        known = values[1:][np.isfinite(values[1:])]
        low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
        rows.append(
            {name: of_folds[0][name] for name in ("feature", "task", "metric")}
            | {"value": values[0], "low": low, "high": high, "n": sum(row["n"] for row in of_folds)}
            | {name: float(np.mean([row[name] for row in of_folds])) for name in CHOSEN}
            | {"protocol": protocol}
        )
    return pd.DataFrame(rows)
