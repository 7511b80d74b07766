"""The web site of a run: pages, links, strips in the places of widgets; in a browser without network, by keyboard."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import offline
import pytest
from PIL import Image

from pcl_lib.faces import AUS, render, sample_factors
from pcl_lib.models.shipped import shipped
from pcl_lib.reproduce import readme
from pcl_lib.reproduce.notebooks import STAMP
from pcl_lib.site import pages, strips
from pcl_lib.utils import BadInput
from pcl_lib.widgets import pictures

NAMES = ("00_start", "01_next")
GREYS = [np.full((96, 96, 3), 20 * place, np.uint8) for place in range(6)]  # of 2 x 3 places
STRIP = strips.Strip(
    "swap",
    "SwapExplorer",
    "Six greys.",
    (strips.Control("line", "ab"), strips.Control("row", "xyz", 1)),
    GREYS,
)


def png() -> str:
    content = io.BytesIO()
    Image.new("RGB", (64, 32), "orange").save(content, "png")
    return base64.b64encode(content.getvalue()).decode()


LANGUAGE = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def notebook(text: str) -> nbformat.NotebookNode:
    """A page of text, a picture, a widget's still and a progress bar."""
    outputs = [
        {"image/png": png(), "text/plain": "<Figure>"},
        {"text/html": "<p>Nobody watches</p>", "text/plain": "SwapExplorer: Nobody watches"},
        {"text/markdown": "| method | MAE |\n| --- | --- |\n| pcl | 6.8 |", "text/plain": "pcl"},
        {pages.PROGRESS: {"model_id": "x"}, "text/plain": "0%|"},
    ]
    code = nbformat.v4.new_code_cell("1 + 1", execution_count=1)
    code.outputs = [nbformat.v4.new_output("display_data", data) for data in outputs]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text), code], metadata=LANGUAGE)


def make_run(folder: Path, more: str = "") -> Path:
    """A run of two notebooks that link to each other; the first has solutions. more: text of the second."""
    out, given = folder / "run", folder / "notebooks"
    (out / "notebooks").mkdir(parents=True)
    (given / "solutions").mkdir(parents=True)
    for name, other in zip(NAMES, reversed(NAMES), strict=True):
        links = f"[on]({other}.ipynb#{other}) [results](../figures/RESULTS.md) [word](glossary.md#auc)"
        links += " [solved](solutions/00_start.ipynb)" if name == NAMES[0] else more
        made = notebook(f"# {name}\n\nWhat is $x^2$?\n\n{links}")
        made.metadata[readme.COURSE] = {"question": "What is $x^2$?", "section": "1"}
        for parameter, tag in (("of_the_notebook", "parameters"), ("of_the_run", "injected-parameters")):
            made.cells.append(nbformat.v4.new_code_cell(f"{parameter} = 1", metadata={"tags": [tag]}))
        made.metadata[STAMP] = {"seconds": 1.0}
        nbformat.write(made, out / "notebooks" / f"{name}.ipynb")
    solution = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell("# Solved\n\n[back](../00_start.ipynb)")]
    )
    nbformat.write(solution, given / "solutions" / "00_start.ipynb")
    (given / "method.md").write_text(
        "# The method\n\n## 1 Encoder\n\n$$L = \\sum_i x_i$$\n\n[here](#1-encoder)\n"
    )
    (given / "glossary.md").write_text(
        '# Glossary\n\n<a id="auc"></a>\n**AUC.** An area.\n\n<a id="roc"></a>\n**ROC.** Its [curve](#auc).\n'
    )
    summary = {"preset": "smoke", "seed": 0, "device": "cpu", "commit": "abc", "versions": "x 1"}
    seconds = {
        "seconds_by_notebook": dict.fromkeys(NAMES, 60.0),
        "machine": {"processor": "A", "instructions": "AVX2", "step_ms": 1.0},
    }
    (out / "summary.json").write_text(json.dumps(summary | seconds))
    return out


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of `make_run` with one strip."""
    run = make_run(tmp_path_factory.mktemp("site"))
    pages.build(run, run.parent / "site", run.parent / "notebooks", [STRIP])
    return run.parent / "site"


def test_pages_lead_to_each_other(site: Path) -> None:
    def text(name: str) -> str:
        return (site / name).read_text(encoding="utf-8")

    assert 'href="00_start.html"' in text("index.html") and "seed 0" in text("index.html")
    assert 'href="01_next.html#id1"' in text("00_start.html") or 'href="01_next.html#next"' in text(
        "00_start.html"
    )
    assert 'href="solutions/00_start.html"' in text("00_start.html")
    assert 'href="../00_start.html"' in text("solutions/00_start.html")
    assert 'href="glossary.html#glossary-auc"' in text("00_start.html")
    assert 'id="glossary-auc"' in text("glossary.html") and 'href="#glossary-auc"' in text("glossary.html")
    assert "RESULTS.md" not in text("00_start.html") and "results" in text("00_start.html")


def test_every_file_that_a_page_asks_for_is_there(site: Path) -> None:
    asked = 0
    for path in [*site.glob("*.html"), *(site / "solutions").glob("*.html")]:
        for target in re.findall(
            r'(?:src|href)="([^"#?]+)[^"]*"|url\(([^)&]+)\)', path.read_text(encoding="utf-8")
        ):
            if not re.match(r"[a-z]+:", file := "".join(target)):
                asked += 1
                assert (path.parent / file).resolve().exists(), f"{path.name}: {file}"
    assert asked > 20


def test_what_a_run_replaced_and_what_needs_a_kernel_is_left_out(site: Path) -> None:
    text = (site / "00_start.html").read_text(encoding="utf-8")
    assert "of_the_run" in text and "of_the_notebook" not in text
    assert "<td><p>6.8</p></td>" in text
    assert "0%|" not in text and "widget-view" not in text
    assert 'alt="Figure of the section: 00_start"' in text
    assert "Nobody watches" not in text and text.count('<figure class="strip"') == 1
    assert len(list((site / "_static" / "mathjax").glob("*.js"))) == 1


def test_a_broken_link_stops_the_build(tmp_path: Path) -> None:
    run = make_run(tmp_path, " [gone](02_gone.ipynb)")
    with pytest.raises(BadInput, match=r"01_next\.ipynb.*02_gone\.ipynb"):
        pages.build(run, tmp_path / "site", tmp_path / "notebooks", [STRIP])
    assert not (tmp_path / "site").exists()


def test_a_folder_without_executed_notebooks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has no executed notebooks"):
        pages.build(tmp_path, tmp_path / "site")


def test_a_half_finished_run_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "notebooks" / "02_later.ipynb").write_text("{}")
    with pytest.raises(BadInput, match=r"has not finished \(it lacks 02_later\): make reproduce OUT="):
        pages.build(run, tmp_path / "site", tmp_path / "notebooks", [STRIP])
    (tmp_path / "notebooks" / "02_later.ipynb").unlink()
    (run / "summary.json").unlink()
    with pytest.raises(BadInput, match=r"it lacks its summary\.json"):
        pages.build(run, tmp_path / "site", tmp_path / "notebooks", [STRIP])


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("keep me")
    with pytest.raises(BadInput, match="something else than a site"):
        pages.build(run, tmp_path / "mine", tmp_path / "notebooks", [STRIP])
    assert (tmp_path / "mine" / "letter.txt").read_text() == "keep me"


def test_without_sphinx_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sphinx.application", None)
    with pytest.raises(BadInput, match=r"pip install 'pcl-kit\[site\]'"):
        pages.run_sphinx(tmp_path, tmp_path / "out")


# Strips -----------------------------------------------------------------------------------------------------


def test_the_sheet_holds_the_pictures_line_by_line() -> None:
    sheet = np.asarray(STRIP.sheet())
    assert STRIP.columns == 3 and sheet.shape == (192, 288, 3)
    for place in range(6):
        line, column = divmod(place, 3)
        assert (sheet[96 * line : 96 * line + 96, 96 * column : 96 * column + 96] == 20 * place).all()


def test_units_are_drawn_at_the_places_of_their_controls() -> None:
    strip = strips.units_strip()
    counts = [len(control.places) for control in strip.controls]
    unit, level, turn = AUS.index("au26"), 4, 0
    assert strip.controls[0].places[unit] == "AU 26: jaw dropped" and strip.controls[2].places[turn] == "-40°"
    face = sample_factors(1, first_identity=7).assign(**dict.fromkeys(AUS, 0.0), pitch=0.0, roll=0.0)
    wanted = render(face.assign(au26=4.0, yaw=-40.0), size=160)[0].permute(1, 2, 0).numpy()
    place = np.ravel_multi_index((unit, level, turn), counts)
    assert np.array_equal(strip.pictures[int(place)], wanted)


def test_blends_are_drawn_at_the_places_of_their_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PCL_KIT_HEADLESS", "1")  # a short gallery
    monkeypatch.setattr(strips, "SHARES", (0.0, 1.0))
    monkeypatch.setattr(strips, "TURNS", (0, 30))
    strips.rendered.gallery.cache_clear()
    strip = strips.swap_strip()
    strips.rendered.gallery.cache_clear()
    model = shipped(strips.METHOD)
    tiles = [
        np.asarray(Image.fromarray(strip.pictures[0][:, 96 * i : 96 * i + 96]).resize((64, 64)))
        for i in (0, 1)
    ]
    images = [strips.torch.from_numpy(tile.copy()).permute(2, 0, 1) for tile in tiles]
    a, b = (pictures.encode_donor(model, image) for image in images)
    for place, (pose, face) in {
        0: (0, 0),
        2: (0, 1),
        4: (1, 0),
        6: (1, 1),
    }.items():  # every other one is turned
        wanted = pictures.to_rgb(pictures.blends(model, a, b, [face], [pose])[0]).astype(float)
        shown = np.asarray(Image.fromarray(strip.pictures[place][:, 192:288]).resize((64, 64))).astype(float)
        errors = [np.abs(shown - wanted).mean()]
        assert errors[0] < 6, (place, errors)  # resized twice, and encoded after that


def test_the_strips_of_the_site_are_small(tmp_path: Path) -> None:
    views = strips.views_strip()
    assert len(views.pictures) == strips.DRAWS * len(strips.COLOURS)
    grey = views.pictures[0].astype(int)
    assert np.abs(grey - views.pictures[2]).max() > 20  # the colours of the same draw are stronger
    assert views.save(tmp_path).stat().st_size < 1_000_000


# In a browser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["index", "00_start", "sliders", "method", "solutions/00_start", "search"])
def test_pages_are_whole_offline_accessible_and_fit_a_telephone(
    site: Path, offline_window: Any, name: str
) -> None:
    with offline.page(offline_window, site / f"{name}.html") as (opened, wrong):
        assert not wrong
        assert offline.serious(opened) == []
        assert offline.width_needed(opened) <= offline.NARROW


def test_dark_pages_are_as_accessible(site: Path, offline_window: Any) -> None:
    with offline.page(offline_window, site / "00_start.html") as (opened, wrong):
        opened.emulate_media(color_scheme="dark")
        opened.wait_for_function("document.documentElement.dataset.theme === 'dark'")
        assert offline.serious(opened) == [] and not wrong


def shown(opened: Any) -> int:
    """The grey of the picture that the strip shows."""
    tile = opened.locator(".strip-picture").first
    picture = Image.open(io.BytesIO(tile.screenshot())).convert("L")
    return round(np.asarray(picture)[20:-20, 20:-20].mean() / 20)


def test_strips_move_by_keyboard_and_by_touch(site: Path, offline_window: Any) -> None:
    with offline.page(offline_window, site / "sliders.html") as (opened, _):
        assert shown(opened) == 1  # a, y: where the controls start
        row = opened.get_by_role("slider", name="row")
        row.focus()
        row.press("ArrowRight")
        assert shown(opened) == 2 and row.get_attribute("aria-valuetext") == "z"
        box = opened.get_by_role("slider", name="line").bounding_box()
        opened.touchscreen.tap(box["x"] + box["width"] - 4, box["y"] + box["height"] / 2)
        assert shown(opened) == 5
        assert "line: b, row: z" in opened.locator(".strip-picture").first.get_attribute("aria-label")


def test_pictures_open_large_formulas_and_search_work(site: Path, offline_window: Any) -> None:
    with offline.page(offline_window, site / "00_start.html") as (opened, wrong):
        opened.locator(".opens-large").first.press("Enter")
        large = opened.locator("dialog.large-picture")
        assert large.is_visible() and large.locator("img").bounding_box()["width"] > 500
        opened.keyboard.press("Escape")
        assert not large.is_visible()
        assert opened.locator("mjx-container").count() == 1 and not wrong
    with offline.page(offline_window, site / "search.html") as (opened, wrong):
        opened.goto(opened.url + "?q=encoder")
        opened.locator("#search-results li a").first.wait_for()
        assert "The method" in opened.locator("#search-results").inner_text() and not wrong
