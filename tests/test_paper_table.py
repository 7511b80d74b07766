"""The paper's table: which column a row fills, why others are empty, and published figures kept apart."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from test_tables import CONTEXT

from pcl_lib import tables
from pcl_lib.probes import LeftOut
from pcl_lib.reproduce import measure, paper_table
from pcl_lib.utils import BadInput


def row(
    method: str, data: str, task: str, metric: str, value: float, labels: str = "given"
) -> dict[str, object]:
    interval = {"low": value - 0.1, "high": value + 0.1, "n": 50, "penalty": 1.0}
    own = {
        "method": method,
        "feature": "general",
        "task": task,
        "metric": metric,
        "value": value,
        "labels": labels,
    }
    return CONTEXT | own | interval | {"data": data}


@pytest.fixture
def rows() -> pd.DataFrame:
    joint = "train 300W-LP, test AFLW2000"
    made = [
        row("simclr", "LFW", "verification", "accuracy", 0.7),
        row("pcl", "LFW", "verification", "accuracy", 0.6),
        row("pcl", "LFW", "head pose", "MAE yaw", 3.5, labels="pseudo"),
        row("pcl", joint, "head pose", "MAE yaw", 7.25),
        row("pcl", "DISFA", "action units", "F1 mean of 8", 0.5),
        row("pcl", "rendered faces", "expression", "accuracy", 0.4),
        row("pcl", "rendered faces", "expression", "accuracy", 0.9) | {"feature": "pose"},
    ]
    return pd.DataFrame(made)


NOTES = {
    "LFW": [LeftOut("expression", "no labels", "LFW", ("expression",))],
    "300W-LP": [],
    "AFLW2000": [],
    "train 300W-LP, test AFLW2000": [
        LeftOut("head pose", "some angles", "train 300W-LP, test AFLW2000", ("roll",))
    ],
    "DISFA": [],
    "RAF-DB": [LeftOut("expression", "empty split", "RAF-DB", ("test",))],
    "rendered faces": [],
}


def test_each_row_fills_the_column_of_its_set(rows: pd.DataFrame) -> None:
    table = paper_table.paper_table(rows, NOTES).frame.set_index("method")
    assert str(table.loc["pcl", "LFW verification accuracy"]) == "0.600 [0.500, 0.700]"
    assert str(table.loc["pcl", "AFLW2000 yaw MAE"]) == "7.25 [7.15, 7.35]"
    assert float(table.loc["pcl", "DISFA F1 mean of 8"]) == 0.5
    assert float(table.loc["pcl", "rendered faces expression accuracy"]) == 0.4  # not the pose feature's
    assert float(table.loc["pcl", "LFW yaw MAE (pseudo labels)"]) == 3.5
    assert not [name for name in table if name.startswith("LFW verification") and "pseudo" in name]
    assert str(table.loc["simclr", "AFLW2000 yaw MAE"]) == "n/a: not run"


def test_gaps_say_whether_a_set_is_missing_or_cannot_be_probed(rows: pd.DataFrame) -> None:
    table = paper_table.paper_table(rows, NOTES).frame.set_index("method")
    assert set(map(str, table["FER-2013 expression accuracy"])) == {paper_table.NOT_GIVEN}
    reason = "n/a: Expression left out: RAF-DB has no labelled images in test"
    assert set(map(str, table["RAF-DB expression accuracy"])) == {reason}
    assert str(table.loc["pcl", "AFLW2000 roll MAE"]).startswith("n/a: Head pose: roll left out")
    units = NOTES | {
        "DISFA": [LeftOut("action units", "constant", "DISFA", (unit,)) for unit in ("au01", "au04")]
    }
    assert "Action units: au04 left" in str(
        paper_table.paper_table(rows, units).frame.set_index("method").loc["pcl", "DISFA F1 au04"]
    )
    half = {name: said for name, said in NOTES.items() if "300W-LP" not in name}
    fewer = paper_table.paper_table(rows[~rows["data"].str.contains("300W-LP")], half)
    assert set(map(str, fewer.frame["AFLW2000 yaw MAE"])) == {"n/a: 300W-LP not given"}
    neither = {name: said for name, said in half.items() if name != "AFLW2000"}
    none = paper_table.paper_table(rows[~rows["data"].str.contains("300W-LP")], neither)
    assert set(map(str, none.frame["AFLW2000 yaw MAE"])) == {paper_table.NOT_GIVEN}


def test_published_figures_are_a_block_with_their_source(rows: pd.DataFrame, tmp_path: Path) -> None:
    published = measure.reference_results()
    table = paper_table.paper_table(rows, NOTES, published)
    csv, markdown, latex = (p for p in tables.write_table(table, tmp_path / "paper", "The paper's columns"))
    read = pd.read_csv(csv)
    cited = read[read["source"] != tables.HERE].set_index("method")
    assert len(cited) and cited["source"].str.contains("FaceCycle").all()
    assert cited.loc["FaceCycle", "LFW verification accuracy"] == pytest.approx(0.7372)
    assert cited["rendered faces expression accuracy"].isna().all() and cited["AFLW2000 yaw MAE"].isna().all()
    here = read[read["source"] == tables.HERE]
    assert here["method"].tolist() == ["simclr", "pcl"] and "FaceCycle" not in tables.headline(csv)
    lines = [line for line in markdown.read_text().splitlines() if line.startswith("|")]
    heading = next(i for i, line in enumerate(lines) if paper_table.PUBLISHED in line)
    assert all("this run" in line for line in lines[3:heading]) and not any(
        "this run" in line for line in lines[heading:]
    )
    assert not any("**" in line for line in lines[heading:])  # the best is the best of this run
    assert "**0.700" in "".join(lines[:heading])
    assert latex.read_text().count("\\midrule") == 2 and "\\multicolumn{" in latex.read_text()
    assert "pseudo labels head pose" in markdown.read_text()


def test_columns_use_the_names_that_the_data_scripts_write() -> None:
    scripts = (Path(__file__).parent.parent / "data_scripts").glob("prepare_*.py")
    written = {
        name for script in scripts for name in re.findall(r'name="([^"]+)"', script.read_text("utf-8"))
    }
    assert {name for column in paper_table.COLUMNS for name in column.needs} <= written


def test_rows_of_two_presets_make_no_table(rows: pd.DataFrame) -> None:
    mixed = pd.concat([rows, rows.assign(preset="cpu")])
    with pytest.raises(BadInput, match="differ in preset"):
        paper_table.paper_table(mixed, NOTES)
