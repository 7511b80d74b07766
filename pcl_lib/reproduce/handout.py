"""A students' copy of the course, without solutions: `python -m pcl_lib.reproduce.handout FOLDER`.

Folded answers, the links to solutions and the section about them are left out; questions, exercises and their checks
stay. Links that lead out of the folder become plain text, and pictures come along.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat

from pcl_lib.reproduce.notebooks import NOTEBOOKS, check_parameters, find_notebooks
from pcl_lib.utils import BadInput, exit_cleanly, make_folder, readable_errors, replace_atomically

PAGES = ("README.md", "glossary.md", "method.md", "project.md")  # teaching.md is the lecturer's
ANSWER = re.compile(r"<details>.*?</details>", re.DOTALL)
ROOM = "*Your answer:*"
ON_SOLUTIONS = re.compile(r" *\[[^\]]*\]\((?:\./)?solutions[^)]*\)[^.\n]*\.?")
SECTION = re.compile(r"^## [^\n]*[Ss]olutions.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
PICTURE = re.compile(r"!\[([^\]]*)\]\((\.\./[^)\s]+)\)")
LEADS_OUT = re.compile(r"(?<!!)\[([^\]]*)\]\((?:\.\./|teaching\.md)[^)\s]*\)")


def without_answers(text: str, name: str) -> str:
    """Markdown without folded answers, in whose place there is room for one's own, and without links to solutions.

    name: of the page, for the message. Raises BadInput where an answer's <details> is not closed, or a link to the
    solutions is left over.
    """
    text = ON_SOLUTIONS.sub("", ANSWER.sub(ROOM, SECTION.sub("", text)))
    if left := next((mark for mark in ("<details", "</details", "(solutions") if mark in text), ""):
        raise BadInput(f"{name} still has {left!r} after its answers were taken out: close every <details>")
    return text


def students_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook as students get it: no solution, no answer, no output. Raises BadInput as `check_parameters` does."""
    notebook = check_parameters(path)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LEADS_OUT.sub(r"\1", without_answers(cell.source, path.name))
        else:
            cell.outputs, cell.execution_count = [], None
    return notebook


def students_page(path: Path, out: Path) -> str:
    """A page of text as students get it; its pictures are copied to `out`/pictures."""
    text = without_answers(path.read_text(encoding="utf-8"), path.name)
    for _, target in PICTURE.findall(text):
        make_folder(out / "pictures")
        shutil.copy(path.parent / target, out / "pictures")
    text = PICTURE.sub(lambda found: f"![{found[1]}](pictures/{Path(found[2]).name})", text)
    return LEADS_OUT.sub(r"\1", text)


def make_handout(out: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write the students' copy of the folder `notebooks` to a new or empty folder; returns its files.

    Raises BadInput where `out` holds something already, where it cannot be written, and as `students_notebook`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is not an empty folder: give another one by OUT=, or empty it")
    copies = {path.name: students_notebook(path) for path in find_notebooks(notebooks)[0]}
    make_folder(out)
    written = []
    for name, notebook in copies.items():
        with replace_atomically(out / name) as temporary:
            nbformat.write(notebook, str(temporary))
        written.append(out / name)
    for page in PAGES:
        with readable_errors(out / page):
            (out / page).write_text(students_page(notebooks / page, out), encoding="utf-8")
        written.append(out / page)
    return written


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.handout."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.handout",
        description="Write a students' copy of the notebooks: exercises and checks, no solutions or answers.",
    )
    parser.add_argument("out", type=Path, help="a new folder")
    written = make_handout(parser.parse_args(argv).out)
    print(
        f"{len(written)} files without solutions in {written[0].parent}; they need the kit to run (make env)."
    )


if __name__ == "__main__":
    exit_cleanly(main)
