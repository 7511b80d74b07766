"""Notebook 06 in a real JupyterLab and a real browser: sliders move, pictures follow, nothing complains.

What it needs, and what can be set: see `browser`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import REQUIRED, SECOND, Jupyter, Lab, browser_missing
from PIL import Image

from pcl_lib.data import rendered
from pcl_lib.models.shipped import shipped
from pcl_lib.probes.directions import fit_probes
from pcl_lib.probes.features import AsDecoded
from pcl_lib.reproduce import measure
from pcl_lib.widgets import pictures
from pcl_lib.widgets.swap_explorer import spread

CONTROLS = ".jp-OutputArea :is(select, .noUi-handle, .jupyter-button, a[download])"


def test_a_browser_is_there_where_it_is_required() -> None:
    if REQUIRED:
        assert not browser_missing(), browser_missing()


@pytest.fixture(scope="module")
def lab(jupyter: Jupyter) -> Iterator[Lab]:
    """Notebook 06 after Run All."""
    with jupyter.open("06_pose_face_swap") as lab:
        yield lab


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What the pure functions draw for the widget's first two faces, by the places of its sliders."""
    model, faces = shipped("pcl_video"), rendered.gallery(64)
    rows = spread(faces)
    a, b = (
        pictures.encode_donor(model, faces.images([row])[0], faces.table.iloc[[row]]) for row in rows[[0, -2]]
    )
    reader = fit_probes(AsDecoded(model), faces, ("yaw",))["pose"]
    swap = measure.swap(model, faces, rows[[0]], rows[[-2]]).pictures[0, 0]
    places = {"A": (0.0, 0.0, 0.0), "half": (0.0, 0.5, 0.0), "B": (1.0, 1.0, 0.0), "turned": (0.0, 1.0, 20.0)}
    drawn = {
        name: pictures.to_rgb(pictures.blends(model, a, b, [face], [pose], turn, reader)[0])
        for name, (face, pose, turn) in places.items()
    }
    return drawn | {"swap": pictures.to_rgb(swap)}


def test_every_slider_moves_its_picture(lab: Lab, expected: dict[str, np.ndarray]) -> None:
    lab.wait_for("blend", expected["swap"])  # pose at B, face at A: the swap of the pure function
    lab.move("pose A to B", "Home")
    lab.wait_for("blend", expected["A"])
    lab.move("pose A to B", "ArrowRight", 10)
    lab.wait_for("blend", expected["half"])
    lab.move("pose A to B", "End")
    lab.wait_for("blend", expected["swap"])
    truth = lab.picture("truth")
    lab.move("turn the head", "ArrowRight", 10)
    lab.wait_for("blend", expected["turned"])
    assert np.abs(expected["turned"].astype(int) - expected["swap"]).mean() > 0.5
    assert np.abs(lab.picture("truth") - truth).mean() > 2
    lab.move("turn the head", "ArrowLeft", 10)
    lab.wait_for("blend", expected["swap"])
    lab.move("face A to B", "End")
    lab.wait_for("blend", expected["B"])
    lab.move("face A to B", "Home")
    lab.wait_for("blend", expected["swap"])


def test_the_button_swaps_and_a_bad_upload_changes_nothing(lab: Lab, tmp_path: Path) -> None:
    a, b = lab.picture("a"), lab.picture("b")
    lab.page.get_by_role("button", name="swap A and B").click()
    lab.wait_for("a", b)
    lab.page.get_by_role("button", name="swap A and B").click()
    lab.wait_for("a", a)
    blend = lab.picture("blend")
    (tmp_path / "face.png").write_text("no image")
    with lab.page.expect_file_chooser() as chooser:
        lab.page.get_by_role("button", name="upload A").click()
    chooser.value.set_files(tmp_path / "face.png")
    lab.page.get_by_text("is not a whole image file").wait_for(timeout=10 * SECOND)
    lab.wait_for("a", a)
    lab.wait_for("blend", blend)


def test_pictures_are_kept_by_keyboard(lab: Lab) -> None:
    lab.press("keep picture")
    for kind in ("png", "gif"):
        link = lab.page.locator(f"a[download='swapexplorer.{kind}']")
        link.wait_for(timeout=30 * SECOND)
        with lab.page.expect_download(timeout=30 * SECOND) as saved:
            link.press("Enter")
        with Image.open(saved.value.path()) as picture:
            assert picture.format == kind.upper() and picture.width > 200
    assert lab.page.get_by_text("Three things to try").count() == 1


def test_the_keyboard_reaches_every_control(lab: Lab) -> None:
    controls = lab.page.locator(CONTROLS)
    assert controls.count() >= 2 + 2 + 3 + 2  # lists, uploads, sliders, buttons
    assert controls.evaluate_all("all => all.filter(one => one.tabIndex < 0).map(one => one.outerHTML)") == []


def test_no_errors_and_it_fits_two_windows(lab: Lab) -> None:
    lab.assert_quiet()
    lab.look("swap_explorer", "img.pcl-film-strip")
