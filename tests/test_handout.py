"""The students' copy: no solution or answer is left in it, everything else is, and its notebooks still run strictly."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import nbformat
import pytest
from test_notebooks import NAMES, NOTEBOOKS, ROOT, code_cells, prose, read

from pcl_lib.reproduce import handout
from pcl_lib.reproduce.notebooks import check_parameters
from pcl_lib.utils import BadInput


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a handout of the committed notebooks."""
    out = tmp_path_factory.mktemp("course") / "handout"
    handout.make_handout(out)
    return out


def everything(folder: Path) -> str:
    """All text of a folder's notebooks and pages."""
    pages = "\n".join(path.read_text(encoding="utf-8") for path in folder.glob("*.md"))
    cells = (cell.source for path in folder.glob("*.ipynb") for cell in read(path).cells)
    return "\n".join([pages, *cells])


def answers(path: Path) -> list[str]:
    """The folded answers of a notebook, each as its paragraphs."""
    found = re.findall(r"<details><summary>Answer</summary>(.+?)</details>", prose(read(path)), re.DOTALL)
    return [" ".join(answer.split()) for answer in found]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_answer_and_no_solution_is_left(path: Path, copy: Path) -> None:
    text = everything(copy)
    flat = " ".join(text.split())
    folded = answers(path)
    assert len(folded) == 3 and not [answer for answer in folded if answer in flat]
    solved = read(ROOT / "notebooks" / "solutions" / path.name)
    hidden = [cell.source for cell in code_cells(solved) if "solution" in cell.metadata.get("tags", [])]
    assert hidden and not [source for source in hidden if source in text]
    assert "solutions/" not in text and not (copy / "solutions").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_questions_exercises_and_code_stay(path: Path, copy: Path) -> None:
    given, kept = read(path), read(copy / path.name)
    assert [cell.source for cell in code_cells(kept)] == [cell.source for cell in code_cells(given)]
    assert prose(kept).count(handout.ROOM) == 3
    question = next(line for line in prose(given).splitlines() if line.startswith("1. "))
    assert question in prose(kept)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_as_strict_as_before(name: str, copy: Path) -> None:
    nbformat.validate(check_parameters(copy / f"{name}.ipynb"))


def test_links_and_pictures_lead_somewhere(copy: Path) -> None:
    for path in [*copy.glob("*.md"), *copy.glob("*.ipynb")]:
        text = prose(read(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target):
                assert (copy / target.split("#")[0]).is_file(), f"{path.name}: {target}"


def test_an_answer_that_is_not_closed_stops_it() -> None:
    with pytest.raises(BadInput, match=r"02\.ipynb still has '<details'"):
        handout.without_answers("1. Why?\n\n<details><summary>Answer</summary>Because.", "02.ipynb")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(BadInput, match="not an empty folder"):
        handout.make_handout(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_make_hands_on_a_folder_with_blanks() -> None:
    for setting, folder in (([], "handout"), (["OUT=for the students/autumn"], "for the students/autumn")):
        command = ["make", "--dry-run", "handout", *setting]
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        line = next(line for line in said.splitlines() if "reproduce.handout" in line)
        assert shlex.split(line)[-2:] == ["pcl_lib.reproduce.handout", folder]
