"""The web site of a run: its pages, their links, and links that lead nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from pcl_lib.reproduce import readme, site
from pcl_lib.reproduce.notebooks import STAMP
from pcl_lib.utils import BadInput

NAMES = ("00_start", "01_next")


def notebook(text: str) -> nbformat.NotebookNode:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
    made.cells.append(nbformat.v4.new_code_cell("1 + 1"))
    return made


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two notebooks that link to each other; the first has solutions."""
    out = tmp_path / "run"
    (out / "notebooks").mkdir(parents=True)
    (tmp_path / "notebooks" / "solutions").mkdir(parents=True)
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        more = " and [solved](solutions/00_start.ipynb)" if name == NAMES[0] else ""
        made = notebook(f"# {name}\n\n[on]({other}.ipynb#{other}){more}")
        made.metadata[readme.COURSE] = {"question": "What?", "section": "1"}
        made.metadata[STAMP] = {"seconds": 1.0}
        nbformat.write(made, out / "notebooks" / f"{name}.ipynb")
    solved = tmp_path / "notebooks" / "solutions" / "00_start.ipynb"
    nbformat.write(notebook("[back](../00_start.ipynb)"), solved)
    summary = {"preset": "smoke", "seed": 0, "device": "cpu", "commit": "abc", "versions": "x 1"}
    seconds = {"seconds_by_notebook": dict.fromkeys(NAMES, 60.0)}
    (out / "summary.json").write_text(json.dumps(summary | seconds))
    return out


def test_pages_lead_to_each_other(run: Path) -> None:
    pages = site.build(run, run.parent / "site", run.parent / "notebooks")
    names = [str(page.relative_to(run.parent / "site")) for page in pages]
    assert names == ["index.html", "00_start.html", "01_next.html", "solutions/00_start.html"]
    assert 'href="00_start.html"' in pages[0].read_text() and "seed 0" in pages[0].read_text()
    assert "What?" in pages[0].read_text()
    assert 'href="01_next.html#01_next"' in pages[1].read_text()
    assert 'href="solutions/00_start.html"' in pages[1].read_text()
    assert 'href="../00_start.html"' in pages[3].read_text()


def test_pages_of_markdown_are_pages_of_the_site(run: Path) -> None:
    folder = run.parent / "notebooks"
    links = "[x](#on-x), [code](../code.py) and [0](00_start.ipynb)"
    text = f'# Terms\n\n## On `x`\n\n<a id="auc"></a>\n**AUC.** See {links}.'
    (folder / "glossary.md").write_text(text)
    made = nbformat.read(run / "notebooks" / "01_next.ipynb", as_version=4)
    made.cells[0].source += " [AUC](glossary.md#auc)"
    nbformat.write(made, run / "notebooks" / "01_next.ipynb")
    pages = {page.name: page.read_text() for page in site.build(run, run.parent / "site", folder)}
    assert 'href="glossary.html"' in pages["index.html"] and "method.html" not in pages["index.html"]
    assert 'href="glossary.html#auc"' in pages["01_next.html"]
    page = pages["glossary.html"]
    assert 'href="#on-x"' in page and 'id="on-x"' in page and 'id="auc"' in page
    assert 'href="00_start.html"' in page
    assert "code.py" not in page and "code" in page  # there is no such page, so its text alone


def test_each_page_leads_on_back_and_to_the_index(run: Path) -> None:
    index, first, second, solved = site.build(run, run.parent / "site", run.parent / "notebooks")
    assert "<nav" not in index.read_text()
    for page, there, not_there in ((first, "01_next →", "←"), (second, "← 00_start", "→")):
        line = page.read_text().split("<nav")[1].split("</nav>")[0]
        assert there in line and not_there not in line and 'href="index.html"' in line
        assert ("solutions" in line) == (page == first)
    assert solved.read_text().count('href="../index.html"') == 2  # above and below


def test_parameters_that_the_run_replaced_are_left_out(run: Path) -> None:
    made = nbformat.read(run / "notebooks" / "00_start.ipynb", as_version=4)
    for name, tag in (("preset_of_the_notebook", "parameters"), ("preset_of_the_run", "injected-parameters")):
        made.cells.append(nbformat.v4.new_code_cell(f"{name} = 1", metadata={"tags": [tag]}))
    nbformat.write(made, run / "notebooks" / "00_start.ipynb")
    text = site.build(run, run.parent / "site", run.parent / "notebooks")[1].read_text()
    assert "preset_of_the_run" in text and "preset_of_the_notebook" not in text


def test_a_broken_link_stops_the_build(run: Path) -> None:
    made = nbformat.read(run / "notebooks" / "01_next.ipynb", as_version=4)
    made.cells[0].source += " [gone](02_gone.ipynb)"
    nbformat.write(made, run / "notebooks" / "01_next.ipynb")
    with pytest.raises(BadInput, match=r"01_next\.html links to 02_gone\.html"):
        site.build(run, run.parent / "site", run.parent / "notebooks")


def test_links_to_files_and_places_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="1-%C2%B7">x</h1><a href="#1-%C2%B7">1</a><a href="b.html#no">2</a>'
    )
    (tmp_path / "b.html").write_text('<img src="c d.png"><a href="https://x.org/none">3</a><a href="#">4</a>')
    assert site.broken_links(tmp_path) == [
        "a.html links to b.html#no, which has no such place",
        "b.html links to c d.png, which is not there",
    ]


def test_a_folder_without_executed_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no executed notebooks"):
        site.build(tmp_path, tmp_path / "site")
