"""The executed notebooks of a run as a small web site: `python -m pcl_lib.site runs/cpu site`.

A page a notebook, a page for its solutions, an index with README's table. Pictures are inside the pages, links lead
from page to page and are checked; only formulas need the net (MathJax).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat

from pcl_lib import course
from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import make_folder, replace_atomically
from pcl_lib.notebooks import NOTEBOOKS, read_stamp, to_html

LINK = re.compile(r"\]\(([^)\s]+)\.ipynb(#[^)\s]*)?\)")


def build(run: Path, out: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write the site of a run folder to `out`; returns its pages, the index first.

    notebooks: those that were run, with their solutions. Raises BadInput where none has been executed to its end in
    this run, where `out` cannot be written, and where a link of the site is broken, naming page and link.
    """
    executed = [copy for copy in sorted((run / "notebooks").glob("*.ipynb")) if read_stamp(copy)]
    if not executed:
        raise BadInput(f"{run} has no executed notebooks: make reproduce OUT={run} makes them")
    make_folder(out / "solutions")
    solutions = [notebooks / "solutions" / copy.name for copy in executed]
    solutions = [path for path in solutions if path.is_file()]
    pages = [_write(out / "index.html", index(run, executed), "The PCL course")]
    pages += [_page(copy, out / f"{copy.stem}.html") for copy in executed]
    pages += [_page(path, out / "solutions" / f"{path.stem}.html") for path in solutions]
    if broken := broken_links(out):
        raise BadInput("; ".join(broken[:5]) + ": mend these links in the notebooks")
    return pages


def index(run: Path, executed: Sequence[Path]) -> nbformat.NotebookNode:
    """The first page, as a notebook of one text cell: what it is, and question -> notebook -> minutes -> section."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    headers = {copy.stem: course.header(nbformat.read(copy, as_version=4)) for copy in executed}
    table = course.table(headers, course.measured(run)).replace("](notebooks/", "](")
    made = ", ".join(f"{key} {summary[key]}" for key in ("preset", "seed", "device", "commit"))
    text = (
        "# Pose-disentangled contrastive learning: the course\n\n"
        f"The notebooks of the PCL kit as one run executed them ({made}; {summary['versions']}).\n\n{table}\n"
    )
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def _page(notebook: Path, page: Path) -> Path:
    return _write(page, nbformat.read(notebook, as_version=4), notebook.stem)


def _write(page: Path, notebook: nbformat.NotebookNode, title: str) -> Path:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"](\1.html\2)", cell.source)
    with replace_atomically(page) as temporary:
        temporary.write_text(to_html(notebook, title), encoding="utf-8")
    return page


class _Links(HTMLParser):
    """The targets of links and pictures in a page, and the names that links can lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if value and (key == "id" or (tag == "a" and key == "name")):
                self.names.add(value)
            elif value and key in ("href", "src"):
                self.targets.append(value)


def broken_links(folder: Path) -> list[str]:
    """Links in the pages below a folder that lead to no file, or to no such place in a page; the net is not asked."""
    pages = {
        path.resolve(): _Links(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))
    }
    broken = []
    for page, links in pages.items():
        for target in links.targets:
            if re.match(r"[a-z]+:|//", target):
                continue
            file, _, place = target.partition("#")
            there = (page.parent / unquote(file)).resolve() if file else page
            if not there.exists():
                broken.append(f"{page.name} links to {file}, which is not there")
            elif place and there in pages and not {place, unquote(place)} & pages[there].names:
                broken.append(f"{page.name} links to {target}, which has no such place")
    return broken


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.site."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.site", description="Render the executed notebooks of a run as a web site."
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/cpu")
    parser.add_argument("out", type=Path, help="folder of the site")
    given = parser.parse_args(argv)
    pages = build(given.run, given.out)
    print(f"{len(pages)} pages, no broken link: open {pages[0]}")


if __name__ == "__main__":
    exit_cleanly(main)
