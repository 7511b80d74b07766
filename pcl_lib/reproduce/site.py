"""The executed notebooks of a run as a small web site: `python -m pcl_lib.reproduce.site runs/cpu site`.

One page per notebook, one for its solutions, one for each of `TEXTS`, and an index with README's table. Pictures are
inside the pages, links lead from page to page and are checked; only formulas need the network (MathJax).
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

import nbformat

from pcl_lib.reproduce import readme
from pcl_lib.reproduce.notebooks import NOTEBOOKS, read_stamp, to_html
from pcl_lib.utils import BadInput, exit_cleanly, make_folder, replace_atomically

# Lines of a length that can be read, and on a narrow screen neither prompts nor anything that reaches out of it.
STYLE = """<style>
body.jp-Notebook { padding: 0 1rem 3rem; }
nav, main { max-width: 62rem; margin: 0 auto; }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.5rem; padding: 0.8rem 0; font: 15px/1.5 system-ui, sans-serif; }
nav a { color: #00629b; }
main img { max-width: 100%; height: auto; }
main table { display: block; overflow-x: auto; }
main .highlight pre, main .jp-OutputArea-output pre { overflow-x: auto; }
@media (max-width: 700px) {
  body.jp-Notebook { padding: 0 0.4rem 2rem; }
  .jp-Cell .jp-InputPrompt, .jp-Cell .jp-OutputPrompt, .jp-Cell .jp-Collapser { display: none; }
  .jp-Cell, .jp-Cell-inputArea, .jp-OutputArea-child { padding: 0; min-width: 0; }
}
</style>"""
TEXTS = ("README", "method", "glossary")  # pages of Markdown next to the notebooks
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def build(run: Path, out: Path, notebooks: Path = NOTEBOOKS) -> list[Path]:
    """Write the site of a run folder to `out`; returns its pages, the index first.

    notebooks: the folder of those that were run, with their solutions and `TEXTS`, as far as these are there.
    Raises BadInput where none has been executed to its end in this run, where `out` cannot be written, and where a
    link of the site is broken, naming page and link.
    """
    executed = [copy for copy in sorted((run / "notebooks").glob("*.ipynb")) if read_stamp(copy)]
    if not executed:
        raise BadInput(f"{run} has no executed notebooks: make reproduce OUT={run} makes them")
    make_folder(out / "solutions")
    solutions = [notebooks / "solutions" / copy.name for copy in executed]
    solutions = [path for path in solutions if path.is_file()]
    names, solved = [copy.stem for copy in executed], {path.stem for path in solutions}
    pages = [_write(out / "index.html", index(run, executed, notebooks), "The PCL course")]
    for place, copy in enumerate(executed):
        links = around(names, place) | (
            {"solutions": f"solutions/{copy.stem}.html"} if copy.stem in solved else {}
        )
        pages.append(_page(copy, out / f"{copy.stem}.html", links))
    for path in solutions:
        links = {"the course": "../index.html", f"back to {path.stem}": f"../{path.stem}.html"}
        pages.append(_page(path, out / "solutions" / f"{path.stem}.html", links))
    for path in (notebooks / f"{name}.md" for name in TEXTS):
        if path.is_file():
            pages.append(
                _write(out / f"{path.stem}.html", as_notebook(path), path.stem, {"the course": "index.html"})
            )
    if broken := broken_links(out):
        raise BadInput("; ".join(broken[:5]) + ": fix these links in the notebooks")
    return pages


def index(run: Path, executed: Sequence[Path], notebooks: Path) -> nbformat.NotebookNode:
    """The first page, as a notebook of one text cell: what it is, and question -> notebook -> minutes -> section.

    notebooks: the folder in which `TEXTS` are looked for.
    """
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    courses = {copy.stem: readme.course(nbformat.read(copy, as_version=4), copy.stem) for copy in executed}
    table = readme.table(courses, readme.measured(run)).replace("](notebooks/", "](")
    # A long name may break after an underscore.
    table = re.sub(r"\[\w+\]", lambda name: name[0].replace("_", "_<wbr>"), table)
    more = " · ".join(f"[{name}]({name}.md)" for name in TEXTS if (notebooks / f"{name}.md").is_file())
    made = ", ".join(f"{key} {summary[key]}" for key in ("preset", "seed", "device", "commit"))
    text = (
        "# Pose-disentangled contrastive learning: the course\n\n"
        f"The notebooks of the PCL kit as one run executed them ({made}; {summary['versions']}).\n\n{table}\n\n"
        f"{more}\n"
    )
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def around(names: Sequence[str], place: int) -> dict[str, str]:
    """Where to go from the page of a notebook: what a link says -> its target. names: of all notebooks, in order."""
    links = {"the course": "index.html"}
    if place:
        links[f"← {names[place - 1]}"] = f"{names[place - 1]}.html"
    if place + 1 < len(names):
        links[f"{names[place + 1]} →"] = f"{names[place + 1]}.html"
    return links


def as_notebook(path: Path) -> nbformat.NotebookNode:
    """A page of Markdown as a notebook of one text cell; each heading gets the id that GitHub gives it."""
    text = HEADING.sub(_with_id, path.read_text(encoding="utf-8"))
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def _with_id(heading: re.Match[str]) -> str:
    name = re.sub(r"[^\w\- ]", "", heading[1].lower()).strip().replace(" ", "-")
    return f'<a id="{name}"></a>\n\n{heading[0]}'


def _relinked(link: re.Match[str]) -> str:
    """A link of Markdown as the site has it: to a page of the site, or its text alone where there is no such page."""
    picture, text, file, place = link[1], link[2], link[3], link[4] or ""
    if not file or re.match(r"[a-z]+:|//", file):
        return link[0]
    if file.endswith(".ipynb") or file in [f"{name}.md" for name in TEXTS]:
        return f"[{text}]({Path(file).with_suffix('.html').as_posix()}{place})"
    return "" if picture else text


def _page(notebook: Path, page: Path, links: Mapping[str, str]) -> Path:
    return _write(page, nbformat.read(notebook, as_version=4), notebook.stem, links)


def _write(
    page: Path, notebook: nbformat.NotebookNode, title: str, links: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Write a page with a line of links above and below its text, without parameters that the run replaced."""
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        notebook.cells = [c for c in notebook.cells if "parameters" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(_relinked, cell.source)
    with replace_atomically(page) as temporary:
        temporary.write_text(_furnished(to_html(notebook, title), links), encoding="utf-8")
    return page


def _furnished(text: str, links: Mapping[str, str]) -> str:
    line = " ".join(f'<a href="{target}">{said}</a>' for said, target in links.items())
    line = f'<nav aria-label="course">{line}</nav>' if links else ""
    text = text.replace("</head>", f"{STYLE}</head>", 1)
    return text.replace("<main>", f"{line}<main>", 1).replace("</main>", f"</main>{line}", 1)


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
    """Command line: python -m pcl_lib.reproduce.site."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.site",
        description="Render the executed notebooks of a run as a web site.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/cpu")
    parser.add_argument("out", type=Path, help="folder of the site")
    given = parser.parse_args(argv)
    pages = build(given.run, given.out)
    print(f"{len(pages)} pages, no broken link: open {pages[0]}")


if __name__ == "__main__":
    exit_cleanly(main)
