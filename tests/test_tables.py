"""Tables say what their rows say: cells against hand-made rows, and CSV, Markdown and LaTeX against each other."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pcl_lib import tables
from pcl_lib.utils import BadInput

CONTEXT = {
    "preset": "smoke",
    "seed": 0,
    "data": "drawn & rendered_faces",
    "protocol": "validation",
    "device": "cpu",
    "precision": "32-true",
    "versions": "python 3",
    "commit": "abc",
}
TASKS = {column: (task, metric) for column, (task, metric, _) in tables.MAIN_COLUMNS.items()}


def probe_rows(
    method: str, values: dict[str, float], seed: int = 0, feature: str = "general"
) -> pd.DataFrame:
    """Rows as `probes.evaluate` makes them, one a column of the main table."""
    rows = [
        {"feature": feature, "task": task, "metric": metric, "value": value, "n": 80}
        | {"low": value - 0.1, "high": value + 0.2, "chosen": f"L2 {value}"}
        for column, value in values.items()
        for task, metric in [TASKS[column]]
    ]
    return pd.DataFrame(rows).assign(method=method, **CONTEXT | {"seed": seed})


@pytest.fixture
def rows() -> pd.DataFrame:
    """Two methods and a constant answer; no verification pairs, the constant answer without AUC."""
    return pd.concat(
        [
            probe_rows("pcl", {"expression accuracy": 0.6, "yaw MAE": 5.0, "AU mean AUC": 0.8}),
            probe_rows("pcl", {"expression accuracy": 0.99, "yaw MAE": 0.1}, feature="pose"),
            probe_rows("simclr", {"expression accuracy": 0.7, "yaw MAE": 6.5, "AU mean AUC": 0.75}),
            probe_rows("constant", {"expression accuracy": 0.2, "yaw MAE": 22.0}, feature="majority class"),
        ],
        ignore_index=True,
    )


def test_main_table_holds_the_rows_of_the_general_feature(rows):
    table = tables.main_table(rows).set_index("method")
    assert list(table.index) == ["pcl", "simclr", "constant"]
    assert list(table.columns) == list(tables.MAIN_COLUMNS)
    assert float(table.loc["pcl", "yaw MAE"]) == 5.0  # the pose feature's 0.1 stays out
    assert str(table.loc["simclr", "expression accuracy"]) == "0.700 [0.600, 0.900]"
    assert str(table.loc["pcl", "yaw MAE"]) == "5.00 [4.90, 5.20]"


def test_gaps_say_why(rows):
    table = tables.main_table(rows).set_index("method")
    assert str(table.loc["constant", "AU mean AUC"]) == "n/a: not run"
    assert set(map(str, table["pitch MAE"])) == {"n/a: no labels"}
    assert set(map(str, table["cross-pose verification accuracy"])) == {"n/a: no pairs"}


def test_several_seeds_give_mean_and_sample_deviation():
    seeds = [0.5, 0.6, 0.7]
    rows = pd.concat([probe_rows("pcl", {"expression accuracy": v}, seed=i) for i, v in enumerate(seeds)])
    table = tables.main_table(rows)
    assert str(table["expression accuracy"][0]) == f"0.600 ± {np.std(seeds, ddof=1):.3f}"
    assert table.attrs["context"]["seeds"] == "0 1 2"
    with pytest.raises(BadInput, match="seed 2 stands twice"):
        tables.main_table(pd.concat([rows, probe_rows("pcl", {"expression accuracy": 0.1}, seed=2)]))


def test_tables_refuse_rows_that_do_not_belong_together(rows):
    with pytest.raises(BadInput, match=r"differ in data \(drawn & rendered_faces, lfw\)"):
        tables.main_table(pd.concat([rows, rows.assign(data="lfw", method="other")]))
    with pytest.raises(BadInput, match="differ in n"):
        tables.main_table(pd.concat([rows, rows.assign(seed=1, n=90)]))
    with pytest.raises(BadInput, match="'precision'"):
        tables.main_table(rows.drop(columns="precision"))
    with pytest.raises(BadInput, match="no result rows"):
        tables.main_table(rows[:0])


def test_best_is_the_highest_or_the_lowest_and_ties_share_it(rows):
    def bold(frame: pd.DataFrame) -> list[str]:
        markdown = tables.to_markdown(tables.main_table(frame), "x")
        latex = tables.to_latex(tables.main_table(frame), "x")
        found = re.findall(r"\*\*(.*?)\*\*", markdown)
        assert found == re.findall(r"\\textbf\{(.*?)\}", latex)
        return [text.split()[0] for text in found]

    assert bold(rows) == ["0.800", "5.00", "0.700"]  # by line: pcl's AUC and yaw, simclr's expression
    tied = rows.copy()
    tied.loc[tied["method"] == "pcl", "value"] = [0.7001, 5.0, 0.8, 0.9, 0.9]
    assert bold(tied) == ["0.700", "0.800", "5.00", "0.700"]
    assert bold(rows[rows["method"] == "pcl"]) == []  # one row: nothing to compare


def test_the_three_files_agree(rows, tmp_path):
    table = tables.main_table(rows)
    paths = tables.write_table(table, tmp_path / "new" / "main.v2", "Accuracy in 50% of A_B")
    assert [path.name for path in paths] == ["main.v2.csv", "main.v2.md", "main.v2.tex"]
    csv = pd.read_csv(paths[0])
    lines = [line.strip("| \n").split(" | ") for line in paths[1].read_text().splitlines() if "|" in line]
    markdown = pd.DataFrame(lines[2:], columns=lines[0])
    tex = paths[2].read_text()
    body = tex.split("\\midrule\n")[1].split("\\bottomrule")[0].strip().splitlines()
    latex = pd.DataFrame([line.removesuffix(" \\\\").split(" & ") for line in body], columns=lines[0])
    assert list(csv["method"]) == list(markdown["method"]) == list(latex["method"])
    for column, (_, metric) in TASKS.items():
        digits = 2 if "MAE" in metric else 3
        for i, value in enumerate(csv[column]):
            shown = markdown[column][i].strip("*")
            assert shown == re.sub(r"\\textbf\{(.*)\}", r"\1", latex[column][i])
            if math.isnan(value):
                assert shown.startswith("n/a") and f"{column} {shown}" in csv["missing"][i]
            else:
                low, high = csv[f"{column} low"][i], csv[f"{column} high"][i]
                assert shown == f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    assert list(csv["yaw MAE"]) == [5.0, 6.5, 22.0]
    assert set(csv["data"]) == {"drawn & rendered_faces"} and set(csv["seeds"]) == {0}
    assert "data drawn & rendered_faces" in paths[1].read_text()
    assert r"50\% of A\_B" in tex and r"drawn \& rendered\_faces" in tex
    assert tex.count("{") == tex.count("}") and r"\begin{tabular}{l" + "c" * len(TASKS) + "}" in tex


def test_each_task_is_read_from_one_of_two_features(rows):
    even = probe_rows("pcl", {"expression accuracy": 0.7, "yaw MAE": 20.0, "pitch MAE": 4.0}, feature="even")
    odd = probe_rows("pcl", {"expression accuracy": 0.1, "yaw MAE": 4.5, "pitch MAE": 9.0}, feature="odd")
    table = tables.components_table(pd.concat([rows, even, odd])).set_index("method")
    assert list(table.index) == ["constant", "pcl, branches", "pcl, components"]
    shown = {column: float(table.loc["pcl, components", column]) for column in TASKS if column in table}
    assert shown["expression accuracy"] == 0.7 and shown["yaw MAE"] == 4.5 and shown["pitch MAE"] == 4.0
    assert float(table.loc["pcl, branches", "yaw MAE"]) == 0.1
    assert (
        str(table.loc["pcl, branches", "expression accuracy"]) == "n/a: not run"
    )  # no face feature was probed
    named = tables.readings(pd.concat([rows, even, odd])).groupby("method")["value"].apply(sorted)
    assert named["pcl"] == [0.6, 0.8, 5.0] and named["simclr"] == [0.7, 0.75, 6.5]


def test_disentanglement_by_method_and_feature_with_chance(tmp_path):
    parts = []
    for method, shift in (("random", 0.0), ("pcl", 0.1)):
        for feature, yaw in (("pose", 0.9), ("face", 0.3)):
            values = [(feature, "yaw", "R2", yaw + shift, 0.0), (feature, "identity", "accuracy", 0.5, 0.05)]
            columns = ["feature", "factor", "metric", "value", "chance"]
            parts.append(pd.DataFrame(values, columns=columns).assign(method=method, n=40, **CONTEXT))
    table = tables.disentanglement_table(pd.concat(parts))
    lines = [tuple(line) for line in table[["method", "feature"]].itertuples(index=False)]
    pairs = [(method, feature) for method in ("random", "pcl") for feature in ("face", "pose")]
    assert lines == [*pairs, (tables.CONSTANT, "none")]
    assert list(map(float, table["yaw R2"])) == pytest.approx([0.3, 0.9, 0.4, 1.0, 0.0])
    assert list(map(float, table["identity accuracy"])) == [0.5, 0.5, 0.5, 0.5, 0.05]
    paths = tables.write_table(table, tmp_path / "disentanglement", "x")
    assert "**" not in paths[1].read_text()
    found = tables.headline(paths[0])
    assert found["pcl, pose"] == {"yaw R2": 1.0, "identity accuracy": 0.5}
    assert tables.headline(tmp_path / "none.csv") == {}


def test_headline_leaves_out_gaps_and_context(rows, tmp_path):
    path = tables.write_table(tables.main_table(rows), tmp_path / "main", "x")[0]
    assert tables.headline(path)["constant"] == {"expression accuracy": 0.2, "yaw MAE": 22.0}


def test_plain_tables_are_written_too(tmp_path):
    frame = pd.DataFrame({"factor": ["yaw", "a|b"], "r": [0.51234, np.nan], "n": [512, 3]})
    csv, markdown, latex = (p.read_text() for p in tables.write_table(frame, tmp_path / "swap", "Swaps"))
    assert csv == "factor,r,n\nyaw,0.51234,512\na|b,,3\n"
    assert "| yaw | 0.512 | 512 |\n| a\\|b | n/a | 3 |" in markdown and markdown.startswith("Swaps.\n\n")
    assert "yaw & 0.512 & 512 \\\\" in latex and "{lcc}" in latex


def test_rows_are_saved_with_all_they_come_from(tmp_path):
    frame = pd.DataFrame(
        {"feature": ["general"], "task": "expression", "metric": "accuracy", "value": [0.1 + 0.2]}
    )
    context = {k: v for k, v in CONTEXT.items() if k not in ("versions", "commit", "protocol")}
    saved = tables.save_rows(frame, tmp_path, "probes", method="pcl", **context)
    read = pd.read_csv(tmp_path / "tables" / "probes.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(read, saved.astype({"seed": int}))
    assert set(tables.CONTEXT) <= set(read.columns) and read["protocol"][0] == "validation"
    assert "torch 2" in read["versions"][0] and read["value"][0] == 0.1 + 0.2
    with pytest.raises(BadInput, match="do not say their method"):
        tables.save_rows(frame, tmp_path, "probes", **context)
    with pytest.raises(BadInput, match="'value' already"):
        tables.save_rows(frame, tmp_path, "probes", value=3)


def test_unwritable_folder_is_one_sentence(rows, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"a part of the path is a file|of that name is in the way"):
        tables.write_table(tables.main_table(rows), Path(tmp_path / "file" / "main"), "x")
