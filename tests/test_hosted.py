"""Badges and the set-up cell of the notebooks follow the one address, and the cell does nothing where the kit is."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from test_notebooks import NOTEBOOKS, ROOT, prose, read
from test_readme import small

from pcl_lib.reproduce import hosted, readme
from pcl_lib.utils import BadInput

ADDRESS = "https://github.com/somebody/a-kit"
__all__ = ["small"]


def set_up(root: Path, where: str) -> dict[str, Any]:
    """The notebook of `small` after its pyproject.toml was given this address."""
    (root / hosted.PROJECT).write_text(f'[project]\nname = "x"\n[project.urls]\nRepository = "{where}"\n')
    readme.update(root, [])
    return json.loads((root / "notebooks" / "02_mirror.ipynb").read_text())


def test_an_address_gives_badges_and_a_cell_and_its_loss_takes_them_away(small: Path) -> None:
    readme.update(small, [])
    before = json.loads((small / "notebooks" / "02_mirror.ipynb").read_text())
    assert "colab" not in json.dumps(before)
    for where in (ADDRESS, f"{ADDRESS}.git", f"{ADDRESS}/"):
        made = set_up(small, where)
        text = "".join(made["cells"][0]["source"])
        links = re.findall(r"\]\((https://[^)]+)\)", text)
        assert (
            "https://colab.research.google.com/github/somebody/a-kit/blob/main/notebooks/02_mirror.ipynb"
            in links
        )
        assert "https://mybinder.org/v2/gh/somebody/a-kit/HEAD?labpath=notebooks/02_mirror.ipynb" in links
        assert [cell["id"] for cell in made["cells"]].count("set-up") == 1
        assert f"--depth 1 {ADDRESS} pcl_kit" in "".join(made["cells"][1]["source"])
    (small / hosted.PROJECT).unlink()
    readme.update(small, [])
    assert json.loads((small / "notebooks" / "02_mirror.ipynb").read_text()) == before


def test_another_kind_of_address_is_refused(small: Path) -> None:
    with pytest.raises(BadInput, match="OWNER/NAME"):
        set_up(small, "https://example.org/kit")


class Shell:
    """What a cell asks of IPython, written down instead of done."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def system(self, command: str) -> None:
        self.asked.append(command)

    def run_line_magic(self, name: str, line: str) -> None:
        self.asked.append(f"%{name} {line}")


@pytest.mark.parametrize("there", [True, False])
def test_the_cell_installs_the_kit_only_where_it_is_missing(
    there: bool, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, shell = "".join(set_up(small, ADDRESS)["cells"][1]["source"]), Shell()
    monkeypatch.setattr(sys, "path", list(sys.path))
    if not there:
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    before = list(sys.path)
    exec(TransformerManager().transform_cell(cell), {"get_ipython": lambda: shell})
    if there:
        assert not shell.asked and sys.path == before
        return
    clone, install, enter = shell.asked
    assert clone == f"git clone --quiet --depth 1 {ADDRESS} pcl_kit"
    assert install == "%pip install --quiet --editable pcl_kit" and enter == "%cd -q pcl_kit/notebooks"
    assert sys.path[0].endswith("pcl_kit")


def test_committed_notebooks_have_badges_exactly_if_the_kit_has_an_address() -> None:
    where = hosted.address(ROOT)
    for path in NOTEBOOKS:
        notebook = read(path)
        linked = set(
            re.findall(r"https://(?:colab\.research\.google\.com|mybinder\.org/v2)[^)\s]+", prose(notebook))
        )
        wanted = set(re.findall(r"\]\((https://\S+)\)", hosted.badges(where, path.stem))) if where else set()
        assert linked - {"https://colab.research.google.com/assets/colab-badge.svg"} == wanted, path.name
        assert sum(hosted.TAG in cell.metadata.get("tags", []) for cell in notebook.cells) == bool(where)


def test_the_versions_of_colab_are_those_that_the_kit_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "tests" / "reliability" / "colab.lock").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    for line in project["dependencies"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[wanted.name]), line
