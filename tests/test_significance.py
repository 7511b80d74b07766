"""Paired intervals against scipy's bootstrap, and the table of leads against differences worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pcl_lib import tables
from pcl_lib.ablations import significance
from pcl_lib.tables import MAIN_COLUMNS
from pcl_lib.utils import BadInput


def resampled(scores: np.ndarray, replicates: int, seed: int = 0) -> np.ndarray:
    """Mean scores [replicates] of resampled people."""
    weights = np.random.default_rng(seed).multinomial(
        len(scores), np.full(len(scores), 1 / len(scores)), replicates
    )
    return weights @ scores / len(scores)


def test_interval_over_people_equals_scipys_paired_percentile_bootstrap() -> None:
    rng = np.random.default_rng(3)
    people = rng.normal(0, 1, 60)  # easy and hard people, shared: pairing takes them out
    first, second = people + rng.normal(0.3, 0.4, 60), people + rng.normal(0, 0.4, 60)
    ours = significance.paired_interval(resampled(first, 20_000)[None], resampled(second, 20_000)[None])
    theirs = stats.bootstrap(
        (first, second),
        lambda a, b, axis: (a - b).mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.006)  # both sampled: quantiles are known to about .002
    unpaired = np.percentile(resampled(first, 20_000) - resampled(second, 20_000, seed=9), [2.5, 97.5])
    assert np.diff(unpaired) > 2 * np.diff(ours)


def test_interval_over_seeds_equals_scipys_where_people_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    lead = rng.normal(0.2, 1, 12)
    first, second = np.repeat(lead[:, None], 20_000, 1), np.zeros((12, 20_000))
    theirs = stats.bootstrap(
        (lead,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert significance.paired_interval(first, second) == pytest.approx(tuple(theirs), abs=0.02)


def test_scores_that_cannot_be_paired_are_refused() -> None:
    with pytest.raises(BadInput, match=r"scores \(2, 5\) and \(1, 5\) cannot be paired"):
        significance.paired_interval(np.zeros((2, 5)), np.zeros((1, 5)))


def frames(method: str, seed: int, accuracy: float, yaw: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    keys = pd.DataFrame(
        {
            "feature": ["general", "general", "pose"],
            "task": ["expression", "head pose", "head pose"],
            "metric": ["accuracy", "MAE yaw", "MAE yaw"],
            "method": method,
            "seed": seed,
        }
    )
    value = np.array([accuracy, yaw, 99.0])
    shared = np.random.default_rng(0).normal(0, 0.1, 200)  # what a replicate does to all methods alike
    replicates = pd.DataFrame(value[:, None] + shared, columns=[str(i) for i in range(200)])
    return keys.assign(value=value), pd.concat([keys, replicates], axis=1)


def read(given: Sequence[tuple[str, int, float, float]]) -> tuple[pd.DataFrame, ...]:
    """Rows and their bootstrap, of the general feature."""
    both = (pd.concat(part) for part in zip(*(frames(*line) for line in given), strict=True))
    return tuple(part[part["feature"] == "general"] for part in both)


def test_rows_of_several_features_are_refused() -> None:
    rows, bootstrap = (
        pd.concat(part) for part in zip(frames("a", 0, 0.5, 7.0), frames("b", 0, 0.6, 8.0), strict=True)
    )
    with pytest.raises(BadInput, match="rows of several features cannot be compared"):
        significance.against(rows, bootstrap, "a")
    assert (
        float(significance.against(tables.readings(rows), tables.readings(bootstrap), "a")["yaw MAE"][0])
        == 1.0
    )


def test_leads_are_differences_over_common_seeds_signed_for_the_method() -> None:
    given = [("pcl", 0, 0.5, 7.0), ("pcl", 1, 0.7, 9.0), ("other", 0, 0.4, 10.0), ("other", 1, 0.5, 10.0)]
    given += [("late", 2, 0.9, 1.0)]
    rows, bootstrap = read(given)
    table = significance.against(rows, bootstrap).set_index("method")
    assert table.loc["other", "seeds"] == 2 and table.loc["late", "seeds"] == 0
    assert float(table.loc["other", "expression accuracy"]) == pytest.approx((0.1 + 0.2) / 2)
    lead = table.loc["other", "yaw MAE"]
    assert float(lead) == pytest.approx((3 + 1) / 2)  # an error smaller by two degrees is a lead of two
    assert (lead.low, lead.high) == pytest.approx((1, 3))  # either seed twice, and people cancel
    assert str(table.loc["late", "yaw MAE"]) == "n/a: not run"
    assert set(MAIN_COLUMNS) <= set(table)
    with pytest.raises(BadInput, match="there are no rows of ours"):
        significance.against(rows, bootstrap, "ours")


def test_answers_are_leads_of_any_two_variants() -> None:
    given = [("a", 0, 0.5, 7.0), ("a", 1, 0.7, 9.0), ("b", 1, 0.6, 10.0), ("c", 2, 0.1, 3.0)]
    rows, bootstrap = read(given)
    asked = [significance.Question("better?", "a", "b"), significance.Question("run?", "a", "c")]
    table = significance.answers(rows, bootstrap, asked)
    assert list(table["compared"]) == ["a - b", "a - c"] and list(table["seeds"]) == [1, 0]
    assert float(table["expression accuracy"][0]) == pytest.approx(0.1)
    assert float(table["yaw MAE"][0]) == pytest.approx(1.0)
    assert str(table["yaw MAE"][1]) == "n/a: not run"


def test_a_lead_without_replicates_has_no_interval() -> None:
    """Of a set with one test person, who cannot be drawn anew."""
    rows, bootstrap = read([("pcl", 0, 0.6, 8.0), ("simclr", 0, 0.5, 9.0)])
    keys = bootstrap[[name for name in bootstrap if not name.isdigit()]]
    lead = significance.against(rows, keys).loc[0, "expression accuracy"]
    assert float(lead) == pytest.approx(0.1) and np.isnan([lead.low, lead.high]).all()
