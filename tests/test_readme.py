"""Minutes and README's table come from runs; what is committed is what the command writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pcl_lib.reproduce import readme
from pcl_lib.utils import REPOSITORY, BadInput

HEADER = """# 02 · Title

**Question.** Why does
a mirror matter?

**It takes** <!-- minutes -->old<!-- /minutes -->. And more.

**Paper:** section 3.2 (somewhere)."""
README = "before\n<!-- notebooks -->\nold\n<!-- /notebooks -->\nafter\n"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A repository of one notebook and README, and a run of it that took 90 seconds at cpu."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "figures" / "tables").mkdir(parents=True)
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": HEADER.splitlines(keepends=True)}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks" / "02_mirror.ipynb").write_text(json.dumps(notebook))
    (tmp_path / "README.md").write_text(README)
    summary = {"preset": "cpu", "device": "cpu", "commit": "abc", "seconds_by_notebook": {"02_mirror": 90.0}}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def test_minutes_of_a_run_reach_the_header_and_the_readme(small: Path) -> None:
    readme.update(small, [small / "run"])
    row = pd.read_csv(small / readme.MINUTES).iloc[0].to_dict()
    assert row == {"notebook": "02_mirror", "preset": "cpu", "minutes": 1.5, "device": "cpu", "commit": "abc"}
    text = readme.header(json.loads((small / "notebooks" / "02_mirror.ipynb").read_text()))
    assert "**It takes** <!-- minutes -->1.5 minutes at `cpu`" in text and "old" not in text
    assert "not timed yet: `smoke`, `gpu`, `paper`<!-- /minutes -->. And more." in text
    wanted = (
        "| question | notebook | minutes, `cpu` | paper section |\n| --- | --- | --- | --- |\n"
        "| Why does a mirror matter? | [02_mirror](notebooks/02_mirror.ipynb) | 1.5 | 3.2 |\n"
    )
    assert (small / "README.md").read_text() == README.replace("old\n", wanted)


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


def test_missing_markers_and_summaries_are_named(small: Path) -> None:
    with pytest.raises(BadInput, match=r"summary\.json is not the summary of a run"):
        readme.update(small, [small / "nowhere"])
    (small / "README.md").write_text("no markers")
    with pytest.raises(BadInput, match="<!-- notebooks -->"):
        readme.update(small, [])


def test_committed_headers_and_readme_are_what_the_command_writes(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "notebooks", tmp_path / "notebooks")
    (tmp_path / readme.MINUTES).parent.mkdir(parents=True)
    for name in (readme.MINUTES, "README.md"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    readme.update(tmp_path, [])
    for path in sorted((tmp_path / "notebooks").glob("*.ipynb")):
        committed = (REPOSITORY / "notebooks" / path.name).read_text(encoding="utf-8")
        assert path.read_text(encoding="utf-8") == committed, (
            f"{path.name}: python -m pcl_lib.reproduce.readme"
        )
    committed = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == committed
