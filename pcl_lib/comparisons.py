"""Is the difference of two methods more than chance? Paired bootstrap over test people and seeds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pcl_lib.errors import BadInput
from pcl_lib.tables import MAIN_COLUMNS, Cell

KEYS = ["feature", "task", "metric"]


def paired_interval(
    first: np.ndarray, second: np.ndarray, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean difference of two methods, over test people and training seeds at once.

    first, second: [seeds, replicates], the score of each training seed in each resampling of the test people, which
    is the same for both methods and all seeds. In each replicate the seeds are drawn anew as well, with replacement
    and the same for both; one seed alone gives the interval over test people. seed: of that draw. level: in 0..1.
    Raises BadInput where the shapes differ or there is nothing to compare. Source: Efron and Tibshirani 1993.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise BadInput(
            f"scores {first.shape} and {second.shape} cannot be paired: [seeds, replicates] of both are needed"
        )
    count, replicates = first.shape
    drawn = np.random.default_rng(seed).integers(count, size=(count, replicates))
    found = (first - second)[drawn, np.arange(replicates)].mean(0)
    found = found[np.isfinite(found)]
    if not len(found):
        return float("nan"), float("nan")
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def against(
    rows: pd.DataFrame,
    bootstrap: pd.DataFrame,
    method: str = "pcl",
    columns: Mapping[str, tuple[str, str, str]] = MAIN_COLUMNS,
) -> pd.DataFrame:
    """The lead of one method over each other one on the general feature, a row a method, a column a task.

    rows, bootstrap: as `ablations.read` and `ablations.read_bootstrap` give them. A cell is the mean difference over
    the seeds that both have, signed so that more is better for `method`, with its paired 95% interval; an interval
    that holds 0 is no difference. Nobody chose "the best other" by its test score: all are shown.
    """
    value = _by_seed(rows, ["value"])
    replicates = _by_seed(bootstrap, [str(name) for name in bootstrap if str(name).isdigit()])
    if method not in set(rows["method"]):
        raise BadInput(f"there are no rows of {method} to compare with: run its cells first")
    others = [name for name in rows["method"].unique() if name != method]
    table: dict[str, list[Cell | str | int]] = {"method": list(others), "seeds": []}
    own = set(rows.loc[rows["method"] == method, "seed"])
    for other in others:
        table["seeds"].append(len(own & set(rows.loc[rows["method"] == other, "seed"])))
    for column, (task, metric, better) in columns.items():
        sign, digits = (1, 3) if better == "higher" else (-1, 2)
        table[column] = []
        for other in others:
            pairs = [
                (value[a], value[b], replicates[a], replicates[b])
                for seed in sorted(own)
                for a, b in [((method, task, metric, seed), (other, task, metric, seed))]
                if a in value and b in value and a in replicates and b in replicates
            ]
            if not pairs:
                table[column].append(Cell(missing="n/a: not run"))
                continue
            mine, theirs, first, second = (np.array(part) for part in zip(*pairs, strict=True))
            low, high = sorted(sign * np.array(paired_interval(first, second)))
            table[column].append(Cell(sign * float((mine - theirs).mean()), low, high, digits=digits))
    return pd.DataFrame(table)


def _by_seed(frame: pd.DataFrame, columns: list[str]) -> dict[tuple[str, str, str, int], np.ndarray]:
    """Numbers of the general feature by method, task, metric and seed."""
    general = frame[frame["feature"] == "general"]
    keys = zip(general["method"], general["task"], general["metric"], general["seed"], strict=True)
    return dict(zip(keys, general[columns].to_numpy(float), strict=True))
