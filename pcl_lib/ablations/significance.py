"""Is the difference of two methods more than chance? Paired bootstrap over test people and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from pcl_lib.tables import MAIN_COLUMNS, Estimate
from pcl_lib.utils import BadInput


def paired_interval(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """95% percentile interval of the mean difference of two methods, over test people and training seeds at once.

    first, second: [seeds, replicates], the score of each training seed in each resampling of the test people, which
    is the same for both methods and all seeds. In each replicate the seeds are drawn anew as well, with replacement
    and the same for both; one seed alone gives the interval over test people.
    Raises BadInput where the shapes differ or there is nothing to compare. Source: Efron and Tibshirani 1993.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise BadInput(
            f"scores {first.shape} and {second.shape} cannot be paired: [seeds, replicates] of both are needed"
        )
    count, replicates = first.shape
    drawn = np.random.default_rng(0).integers(count, size=(count, replicates))
    found = (first - second)[drawn, np.arange(replicates)].mean(0)
    found = found[np.isfinite(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


class Question(NamedTuple):
    """What is asked, and the two variants whose difference answers it: `first` is better if the answer is yes."""

    text: str
    first: str
    second: str


def against(
    rows: pd.DataFrame,
    bootstrap: pd.DataFrame,
    method: str = "pcl",
) -> pd.DataFrame:
    """The lead of one method over each other one: one row per method, one column per task.

    rows, bootstrap: as `cells.read` and `cells.read_bootstrap` give them, after `tables.readings`. An entry is
    the mean difference over the seeds that both have, signed so that more is better for `method`, with its paired 95%
    interval; an interval that contains 0 is no difference. All other methods are shown: choosing the best of them by
    its test score would bias the lead.
    Raises BadInput where there are no rows of `method`.
    """
    if method not in set(rows["method"]):
        raise BadInput(f"there are no rows of {method} to compare with: run its cells first")
    others = [name for name in rows["method"].unique() if name != method]
    return pd.DataFrame({"method": others}).join(
        leads(rows, bootstrap, [(method, other) for other in others], MAIN_COLUMNS)
    )


def answers(
    rows: pd.DataFrame,
    bootstrap: pd.DataFrame,
    questions: Sequence[Question],
    columns: Mapping[str, tuple[str, str, str]] = MAIN_COLUMNS,
) -> pd.DataFrame:
    """One row per question: how far its first variant leads its second, with intervals, as in `against`."""
    table = pd.DataFrame({"question": [q.text for q in questions]})
    table["compared"] = [f"{q.first} - {q.second}" for q in questions]
    return table.join(leads(rows, bootstrap, [(q.first, q.second) for q in questions], columns))


def leads(
    rows: pd.DataFrame,
    bootstrap: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    columns: Mapping[str, tuple[str, str, str]],
) -> pd.DataFrame:
    """For each pair of methods the seeds they share and, one column per task, the lead of the first; see `against`."""
    value = _by_seed(rows, ["value"])
    replicates = _by_seed(bootstrap, [str(name) for name in bootstrap if str(name).isdigit()])
    seeds = {name: set(part) for name, part in rows.groupby("method")["seed"]}
    shared = [sorted(seeds.get(first, set()) & seeds.get(second, set())) for first, second in pairs]
    table: dict[str, list[Estimate | int]] = {"seeds": [len(common) for common in shared]}
    for column, (task, metric, better) in columns.items():
        table[column] = []
        for pair, common in zip(pairs, shared, strict=True):
            keys = [tuple((name, task, metric, seed) for name in pair) for seed in common]
            kept = [both for both in keys if all(key in value and key in replicates for key in both)]
            table[column].append(_lead(kept, value, replicates, better))
    return pd.DataFrame(table)


Key = tuple[str, str, str, int]


def _lead(
    pairs: Sequence[tuple[Key, ...]],
    value: Mapping[Key, np.ndarray],
    replicates: Mapping[Key, np.ndarray],
    better: str,
) -> Estimate:
    """Mean difference of the pairs, one a seed, with its paired interval."""
    if not pairs:
        return Estimate(missing="n/a: not run")
    sign, digits = (1, 3) if better == "higher" else (-1, 2)
    difference = np.mean([value[first] - value[second] for first, second in pairs])
    first, second = (np.array([replicates[key] for key in keys]) for keys in zip(*pairs, strict=True))
    nan = float("nan")  # where too few people are tested to draw them anew
    low, high = sorted(sign * np.array(paired_interval(first, second))) if first.size else (nan, nan)
    return Estimate(sign * float(difference), low, high, digits=digits)


def _by_seed(frame: pd.DataFrame, columns: list[str]) -> dict[Key, np.ndarray]:
    """Numbers by method, task, metric and seed. Raises BadInput where a method is read from several features."""
    if frame.duplicated(["method", "task", "metric", "seed"]).any():
        raise BadInput(
            "rows of several features cannot be compared: name their readings first (tables.readings)"
        )
    keys = zip(frame["method"], frame["task"], frame["metric"], frame["seed"], strict=True)
    return dict(zip(keys, frame[columns].to_numpy(float), strict=True))
