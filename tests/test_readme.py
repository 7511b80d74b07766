"""Minutes and the tables of README and RESULTS.md come from runs; what is committed is what the command writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pcl_lib.reproduce import hosted, readme
from pcl_lib.utils import REPOSITORY, BadInput

HEADER = """# 02 · Title

<!-- course -->
old
<!-- /course -->

**You will learn** more."""
COURSE = {"question": "Why does a mirror matter?", "section": "3.2"}
README = "before\n<!-- notebooks -->\nold\n<!-- /notebooks -->\nafter\n<!-- results -->\n<!-- /results -->\n"
MAIN = """method,expression accuracy,verification accuracy,AU mean F1,yaw MAE
chance baseline,0.1423,0.5,0.3713,23.31
HoG,0.473,0.5758,0.5716,4.31
random,0.2733,0.5853,0.4529,10.8
masked,0.3,0.6,0.5,9.5
simclr,0.3183,0.6158,0.4954,8.76
simclr_noflip,0.338,0.6108,0.507,7.67
pcl,0.3177,0.6087,0.4813,6.78
pcl_plus,0.3063,0.592,0.476,6.87
LBP,0.539,0.5833,0.6125,5.74
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository of one notebook, README and results, and a run of it that took 90 seconds at cpu."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures" / "tables").mkdir(parents=True)
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": HEADER.splitlines(keepends=True)}
    metadata = {"language_info": {"name": "python"}, readme.COURSE: COURSE}
    notebook = {"cells": [cell], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "02_mirror.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "README.md").write_text(README)
    (tmp_path / readme.COURSE_PAGE).write_text("before <!-- minutes -->old<!-- /minutes --> after")
    (tmp_path / "figures" / "tables" / "main.csv").write_text(MAIN)
    for name in readme.SHOWN:
        (tmp_path / "figures" / "tables" / f"{name}.md").write_text(
            f"Caption of {name}.\n\n| {name} |\n| --- |\n"
        )
    markers = [f"<!-- table {name} -->old<!-- /table {name} -->" for name in readme.SHOWN]
    (tmp_path / "figures" / "RESULTS.md").write_text("\n".join(markers))
    summary = {"preset": "cpu", "device": "cpu", "commit": "abc", "seconds_by_notebook": {"02_mirror": 90.0}}
    summary["machine"] = {"processor": "A, 2 cores", "instructions": "AVX2", "step_ms": 400.0}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def test_minutes_of_a_run_reach_the_notebook_and_the_readme(small: Path) -> None:
    readme.update(small, [small / "run"])
    row = pd.read_csv(small / readme.MINUTES).iloc[0].to_dict()
    timed = {"notebook": "02_mirror", "preset": "cpu", "minutes": 1.5, "device": "cpu", "commit": "abc"}
    assert row == timed | {"processor": "A, 2 cores", "instructions": "AVX2", "step_ms": 400.0}
    page = (small / readme.COURSE_PAGE).read_text()
    assert "| [02_mirror](02_mirror.ipynb) | 1.5 |\n| all | 1.5 |\n<!-- /minutes --> after" in page
    notebook = json.loads((small / "notebooks" / "02_mirror.ipynb").read_text())
    assert notebook["metadata"] == {
        "language_info": {"name": "python"},
        "pcl_kit_course": COURSE | {"minutes": {"cpu": {"AVX2": 1.5}}},
    }
    text = "".join(notebook["cells"][0]["source"])
    assert text.startswith("# 02 · Title\n\n<!-- course -->\n\n**Question.** Why does a mirror matter?\n\n")
    assert "**It takes** 1.5 minutes at `cpu` (in a run of the whole course); not timed yet" in text
    assert text.endswith(
        "`gpu`, `paper`. **Paper:** section 3.2.\n\n<!-- /course -->\n\n**You will learn** more."
    )
    wanted = (
        "| question | notebook | minutes, `cpu` | paper section |\n| --- | --- | --- | --- |\n"
        "| Why does a mirror matter? | [02_mirror](notebooks/02_mirror.ipynb) | 1.5 | 3.2 |\n"
    )
    assert (
        (small / "README.md")
        .read_text()
        .startswith(README.split("<!-- results -->")[0].replace("old\n", wanted))
    )


def test_the_small_table_and_the_results_are_those_of_the_tables(small: Path) -> None:
    readme.update(small, [small / "run"])
    text = (small / "README.md").read_text()
    shown = text.split("<!-- results -->\n")[1].split("\n<!-- /results -->")[0].splitlines()
    assert shown[0] == (
        "| method | expression accuracy | verification accuracy | action units, mean F1 | yaw error in degrees |"
    )
    assert shown[2] == "| chance baseline | 0.142 | 0.500 | 0.371 | 23.3 |"
    assert shown[-2:] == [
        "| PCL | 0.318 | 0.609 | 0.481 | 6.8 |",
        "| `pcl_plus` | 0.306 | 0.592 | 0.476 | 6.9 |",
    ]
    page = (small / "figures" / "RESULTS.md").read_text()
    assert "<!-- table components -->\n| components |\n| --- |\n<!-- /table components -->" in page
    assert "old" not in page and "Caption" not in page


def test_a_method_that_the_results_lack_is_named(small: Path) -> None:
    (small / "figures" / "tables" / "main.csv").write_text(MAIN.replace("pcl_plus", "other"))
    with pytest.raises(BadInput, match=r"main\.csv has no row pcl_plus"):
        readme.update(small, [small / "run"])


def test_another_preset_is_added_and_the_same_one_replaced(small: Path) -> None:
    readme.update(small, [small / "run"])
    path = small / "run" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"preset": "smoke", "seconds_by_notebook": {"02_mirror": 12.0}}))
    readme.update(small, [small / "run"])
    path.write_text(json.dumps(summary | {"seconds_by_notebook": {"02_mirror": 120.0}}))
    readme.update(small, [small / "run"])
    minutes = pd.read_csv(small / readme.MINUTES).set_index("preset")["minutes"].to_dict()
    assert minutes == {"cpu": 2.0, "smoke": 0.2}


def test_what_was_not_timed_is_said() -> None:
    rows = pd.DataFrame(
        {
            "notebook": ["a", "a", "b", "a"],
            "preset": ["cpu", "smoke", "cpu", "cpu"],
            "instructions": ["AVX2", "AVX2", "AVX2", "AVX512"],
            "minutes": [1.0, 0.5, 2.0, 0.6],
        }
    )
    lines = readme.minutes_table(rows).splitlines()
    assert lines[0] == "| notebook | `smoke`, AVX2 | `cpu`, AVX2 | `cpu`, AVX512 |"
    assert lines[-2:] == [
        "| [b](b.ipynb) | not timed | 2.0 | not timed |",
        "| all | 0.5 (of 1) | 3.0 | 0.6 (of 1) |",
    ]
    shown = readme.table({"a": COURSE, "b": COURSE}, rows).splitlines()
    assert "| 0.5 | 0.6 to 1.0 | 3.2 |" in shown[2] and "| not timed | 2.0 | 3.2 |" in shown[3]


def test_a_run_of_some_notebooks_leaves_the_minutes_of_the_others() -> None:
    kind = {"preset": "cpu", "instructions": "AVX2"}
    before = pd.DataFrame({"notebook": ["a", "b"], "minutes": [1.0, 2.0]}).assign(**kind)
    run = pd.DataFrame({"notebook": ["b", "c"], "minutes": [5.0, 3.0]}).assign(**kind)
    assert readme.merged(before, [run])["minutes"].tolist() == [1.0, 5.0, 3.0]
    other = run.assign(instructions="AVX512")  # another kind of processor stands beside
    assert len(readme.merged(before, [other])) == 4


def test_several_sections_are_sections() -> None:
    shown = readme.header({"question": "Why?", "section": "1 and 3", "minutes": {"smoke": {"AVX2": 0.05}}})
    assert shown.startswith("**Question.** Why?\n\n**It takes** seconds at `smoke` (")
    assert shown.endswith("**Paper:** sections 1 and 3.")


@pytest.mark.parametrize("key", ["question", "section"])
def test_a_notebook_without_its_question_or_section_is_named(small: Path, key: str) -> None:
    path = small / "notebooks" / "02_mirror.ipynb"
    notebook = json.loads(path.read_text())
    del notebook["metadata"][readme.COURSE][key]
    path.write_text(json.dumps(notebook))
    with pytest.raises(BadInput, match=rf"02_mirror: its metadata lack pcl_kit_course\.{key}"):
        readme.update(small, [])


def test_missing_markers_and_summaries_are_named(small: Path) -> None:
    with pytest.raises(BadInput, match=r"summary\.json is not the summary of a run"):
        readme.update(small, [small / "nowhere"])
    (small / "README.md").write_text("no markers")
    with pytest.raises(BadInput, match="<!-- notebooks -->"):
        readme.update(small, [])


def test_committed_headers_and_pages_are_what_the_command_writes(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "notebooks")
    (tmp_path / readme.MINUTES).parent.mkdir(parents=True)
    pages = ("README.md", readme.COURSE_PAGE, readme.RESULTS, hosted.PROJECT)
    tables = ("main.csv", *(f"{name}.md" for name in readme.SHOWN))
    for name in (readme.MINUTES, *pages, *(readme.TABLES / name for name in tables)):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    readme.update(tmp_path, [])
    for path in sorted((tmp_path / "notebooks").glob("*.ipynb")):
        committed = (REPOSITORY / "notebooks" / path.name).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == committed, (
            f"{path.name}: python -m pcl_lib.reproduce.readme"
        )
    for page in pages:
        committed = (REPOSITORY / page).read_text(encoding="utf-8")
        assert (tmp_path / page).read_text(encoding="utf-8") == committed, (
            f"{page}: python -m pcl_lib.reproduce.readme"
        )
