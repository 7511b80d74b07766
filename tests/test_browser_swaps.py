"""The matrix and the photographs of SwapExplorer in a real browser: mouse, finger, keyboard, a file, a camera.

What it needs, and what can be set: see `browser`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from browser import CHROMIUM, PATIENCE, SECOND, Jupyter, Lab
from test_photographs import as_file, scene

from pcl_lib.data import rendered
from pcl_lib.models.shipped import shipped
from pcl_lib.reproduce import measure
from pcl_lib.widgets import pictures
from pcl_lib.widgets.base import SAVED, WAS_LIVE
from pcl_lib.widgets.photographs import EXPECT, read_photograph
from pcl_lib.widgets.swap_explorer import PARTS
from pcl_lib.widgets.swap_matrix import COUNT

VIEW = "application/vnd.jupyter.widget-view+json"
CELL = "explorer = widgets.SwapExplorer("  # of 00_tour: with the shipped weights


@pytest.fixture(scope="module")
def lab(jupyter: Jupyter) -> Iterator[Lab]:
    with jupyter.open_cells("00_tour", CELL) as lab:
        yield lab


@pytest.fixture(scope="module")
def swaps() -> list[list[np.ndarray]]:
    """Every face of the matrix in every pose, by the function that notebooks measure with."""
    model, faces = shipped("pcl_video"), rendered.gallery(64)
    drawn = measure.swap(model, faces, *measure.donors(faces, (COUNT, COUNT))).pictures
    return [[pictures.to_rgb(picture) for picture in row] for row in drawn]


def middle(lab: Lab, name: str) -> tuple[float, float]:
    box = lab.button(name).bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag_by_finger(lab: Lab, start: tuple[float, float], end: tuple[float, float]) -> None:
    touch = lab.page.context.new_cdp_session(lab.page)
    for kind, points in (
        ("touchStart", [start]),
        ("touchMove", [end]),
        ("touchMove", [end]),
        ("touchEnd", []),
    ):
        places = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    touch.detach()


def test_faces_are_dragged_onto_poses(lab: Lab, swaps: list[list[np.ndarray]]) -> None:
    lab.press(PARTS[1])
    lab.button("face 1").wait_for(timeout=10 * SECOND)
    lab.button("face 1").scroll_into_view_if_needed()
    lab.page.mouse.move(*middle(lab, "face 3"))
    lab.page.mouse.down()
    lab.page.mouse.move(*middle(lab, "pose D"), steps=5)
    lab.page.mouse.up()
    lab.wait_for("cell-2-3", swaps[2][3])
    drag_by_finger(lab, middle(lab, "face 2"), middle(lab, "pose E"))
    lab.wait_for("cell-1-4", swaps[1][4])
    lab.press("face 5")  # by keyboard: one face in two poses
    for pose in (0, 1):
        lab.press(f"pose {'AB'[pose]}")
        lab.wait_for(f"cell-4-{pose}", swaps[4][pose])
    lab.button("face 1").click()
    lab.button("pose C").click()
    lab.wait_for("cell-0-2", swaps[0][2])
    assert lab.page.get_by_text("Face 1 in pose C.").count() == 1
    assert (lab.picture("cell-3-3") == 235).all()  # nobody asked for it
    lab.look("swap_matrix", ".pcl-matrix")
    lab.assert_quiet()


def test_a_photograph_shows_what_is_cut_out_and_what_to_expect(lab: Lab, tmp_path: Path) -> None:
    lab.press(PARTS[0])
    content = as_file(scene((7, 240, 300, 160)))
    (tmp_path / "me.png").write_bytes(content)
    with lab.page.expect_file_chooser() as chooser:
        lab.button("upload A").click()
    chooser.value.set_files(tmp_path / "me.png")
    found = read_photograph(content, 64)
    lab.wait_for("a", pictures.to_rgb(found.face))
    lab.page.locator("img.pcl-photograph").wait_for(timeout=10 * SECOND)
    lab.wait_for("photograph", found.shown)
    assert lab.page.get_by_text(EXPECT).count() == 1
    lab.look("photograph", "img.pcl-photograph")


def test_without_a_camera_a_sentence_says_so(lab: Lab) -> None:
    before = lab.picture("b")
    lab.button("camera").click()
    said = lab.page.get_by_text(re.compile("No camera was found|may not use the camera"))
    said.wait_for(timeout=10 * SECOND)
    assert (lab.picture("b") == before).all()
    lab.assert_quiet()


@pytest.fixture
def with_camera(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    """A Chromium whose camera shows a rendered face before a wall."""
    film = tmp_path / "camera.mjpeg"
    film.write_bytes(as_file(scene((7, 240, 300, 160)), "jpeg", quality=95) * 4)
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    options = [*fake, f"--use-file-for-fake-video-capture={film}", "--no-sandbox"]
    running = chromium.browser_type.launch(executable_path=CHROMIUM, args=options, timeout=60 * SECOND)
    yield running
    running.close()


def test_a_face_is_taken_by_the_camera(jupyter: Jupyter, with_camera: Any) -> None:
    with replace(jupyter, chromium=with_camera).open_cells("00_tour", CELL) as lab:
        lab.button("camera").click()
        lab.button("take for B").click(timeout=30 * SECOND)
        lab.page.locator("img.pcl-photograph").wait_for(timeout=30 * SECOND)
        assert lab.page.get_by_text(EXPECT).count() == 1
        wanted = read_photograph(as_file(scene((7, 240, 300, 160))), 64)
        assert np.abs(lab.picture("b") - pictures.to_rgb(wanted.face)).mean() < 12  # through JPEG and a video
        assert not lab.page.locator("video").is_visible() and lab.button("camera").is_visible()
        lab.look("camera", "img.pcl-photograph")
        lab.assert_quiet()


def test_a_saved_panel_is_a_still_that_says_so(jupyter: Jupyter) -> None:
    with jupyter.open_cells("00_tour", CELL) as lab:
        blend = lab.picture("blend")
        path = lab.notebook
        lab.page.locator(".jp-Notebook").first.click(position={"x": 2, "y": 2})
        lab.page.keyboard.press("Control+s")
        end = time.monotonic() + 30 * PATIENCE
        while '"widgets": {' not in path.read_text(encoding="utf-8"):
            assert time.monotonic() < end, "the state of the widgets was not saved"
            lab.page.wait_for_timeout(500)
        lab.page.wait_for_timeout(1000)  # the file is written in place
    saved = nbformat.read(path, as_version=4)
    (output,) = (o for o in saved.cells[-1].outputs if VIEW in o.get("data", {}))
    assert WAS_LIVE in output.data["text/html"]
    with jupyter.open(path.stem, run=False) as lab:  # with another kernel, which knows nothing of the panel
        lab.page.locator("img.pcl-blend").wait_for(timeout=60 * SECOND)
        assert (lab.picture("blend") == blend).all()
        assert lab.page.get_by_text(SAVED).count() == 1
        lab.look("saved_panel", "img.pcl-blend")
        lab.assert_quiet()
