"""Result rows carry their origin; summaries of seeds are plain means and sample standard deviations."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcl_lib import utils
from pcl_lib.utils import BadInput

CONTEXT = {"preset": "smoke", "device": "cpu", "precision": "32-true"}


def table(value: float, n: int = 10) -> pd.DataFrame:
    rows = {"feature": ["general", "pose"], "metric": "MAE yaw", "value": [value, 2 * value], "n": n}
    return pd.DataFrame(rows)


def test_rows_say_where_they_come_from():
    rows = utils.result_rows(table(3.0), method="pcl", seed=1, data="rendered", **CONTEXT)
    row = rows.iloc[0]
    assert (row["method"], row["preset"], row["seed"], row["data"]) == ("pcl", "smoke", 1, "rendered")
    assert row["protocol"] == "validation" and "torch 2" in row["versions"]
    root = Path(__file__).parents[1]
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode == 0:
        assert head.stdout.startswith(row["commit"].removesuffix("-dirty"))
    kept = utils.result_rows(table(3.0).assign(protocol="released_code"), method="pcl", seed=1, **CONTEXT)
    assert set(kept["protocol"]) == {"released_code"}
    with pytest.raises(BadInput, match="column 'seed' already"):
        utils.result_rows(rows.drop(columns=["method", "preset"]), method="pcl", seed=1, **CONTEXT)


def test_summary_is_mean_and_sample_deviation_over_seeds():
    tables = [
        utils.result_rows(table(v), method=m, seed=s, **CONTEXT)
        for m, s, v in [("pcl", 0, 3.0), ("pcl", 1, 5.0), ("pcl", 2, 4.0), ("random", 0, 9.0)]
    ]
    summary = tables.summarise(tables).set_index(["method", "feature"])
    assert len(summary) == 4
    row = summary.loc[("pcl", "pose")]
    assert (row["value"], row["std"], row["n_seeds"], row["seeds"]) == (8.0, 2.0, 3, "0 1 2")
    assert np.isnan(summary.loc[("random", "general"), "std"])
    with pytest.raises(BadInput, match="seed 1 stands twice"):
        tables.summarise([*tables, tables[1]])


def test_rows_that_differ_in_more_than_the_seed_are_not_mixed():
    tables = [utils.result_rows(table(1.0, n), method="pcl", seed=n, **CONTEXT) for n in (10, 20)]
    assert tables.summarise(tables)["n"].tolist() == [10, 10, 20, 20]
    tables[1] = utils.result_rows(table(1.0), method="pcl", seed=1, **(CONTEXT | {"device": "cuda"}))
    assert set(tables.summarise(tables)["device"]) == {"cpu; cuda"}
