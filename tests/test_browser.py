"""Notebook 06 in a real JupyterLab and a real browser: sliders move, pictures follow, nothing complains.

Needs Playwright and a Chromium (`CHROMIUM`); skipped where one is missing, unless PCL_KIT_BROWSER=required.
Screenshots stay in PCL_KIT_SCREENSHOTS, or in the test's folder.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pcl_lib import live, pictures, studies
from pcl_lib.models.shipped import shipped
from pcl_lib.readers import fit_readers
from pcl_lib.widgets.swap import spread

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
REQUIRED = os.environ.get("PCL_KIT_BROWSER") == "required"
ROUNDING = 3  # grey values: one picture decoded alone, one in a batch, on other threads
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false"},
}


def browser_missing() -> str:
    """Why no browser can be driven here; "" where one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed (make env)"
    return "" if Path(CHROMIUM).is_file() else f"there is no {CHROMIUM} (apt-get install chromium)"


def test_a_browser_is_there_where_it_is_required() -> None:
    if REQUIRED:
        assert not browser_missing(), browser_missing()


@dataclass
class Lab:
    """A page of JupyterLab on 06, and what its console complained of."""

    page: Any
    screenshots: Path
    complaints: list[str] = field(default_factory=list)

    def picture(self, name: str) -> np.ndarray:
        """The picture that a tile of the widget shows now, int [H, W, 3]."""
        read = """async e => {
            const blob = await (await fetch(e.src)).blob(), reader = new FileReader();
            return await new Promise(done => {
                reader.onload = () => done(reader.result);
                reader.readAsDataURL(blob);
            });
        }"""
        data = self.page.locator(f"img.pcl-{name}").first.evaluate(read)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGB")).astype(
            int
        )

    def move(self, label: str, key: str, presses: int = 1) -> None:
        """Press a key on the handle of the slider with that label."""
        slider = self.page.locator(".widget-slider", has_text=re.compile(label)).first
        handle = slider.locator(".noUi-handle").first
        handle.focus()
        for _ in range(presses):
            handle.press(key)

    def wait_for(self, name: str, expected: np.ndarray) -> None:
        """Wait until a tile shows the expected picture, uint8 [H, W, 3]; fails with how far off it is."""
        for _ in range(100):
            off = np.abs(self.picture(name) - expected.astype(int)).max()
            if off <= ROUNDING:
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"{name} is off by up to {off} of 255 grey values")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start_jupyterlab(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """JupyterLab on loopback over copies of the notebooks, without the user's own settings; and its address."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    port, token = free_port(), "only-for-this-test"
    own = {
        name: str(folder / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    environment = os.environ | own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop(live.HEADLESS, None)
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
        f"--LabApp.user_settings_dir={folder / 'settings'}", "--LabApp.extension_manager=readonly",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
    ]  # fmt: skip
    with open(folder / "jupyterlab.log", "wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"{address}/api?token={token}", timeout=1):
                return server, f"{address}/lab/tree/notebooks/06_pose_face_swap.ipynb?token={token}"
        except OSError:
            if server.poll() is not None:
                break
            subprocess.run(["sleep", "0.1"], check=True)
    server.kill()
    raise AssertionError("JupyterLab did not start: " + (folder / "jupyterlab.log").read_text()[-2000:])


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Notebook 06 after Run All."""
    if why := browser_missing():
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("lab")
    screenshots = Path(os.environ.get("PCL_KIT_SCREENSHOTS", folder / "screenshots"))
    server, address = start_jupyterlab(folder)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            lab = Lab(page, screenshots)
            page.on("console", lambda m: lab.complaints.append(m.text) if m.type == "error" else None)
            page.on("pageerror", lambda error: lab.complaints.append(str(error)))
            page.goto(address)
            page.locator(".jp-MarkdownOutput h1").first.wait_for(timeout=90_000)
            run_all(page)
            page.locator("img.pcl-film-strip").first.wait_for(timeout=300_000)
            wait_until_idle(page)
            yield lab
            browser.close()
    finally:
        server.terminate()
        server.wait(30)


def run_all(page: Any) -> None:
    """Run All Cells. A request before the kernel is connected is dropped, and nothing on the page tells: ask again."""
    from playwright.sync_api import TimeoutError as TooLate

    asked = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
        .some(prompt => /[*\\d]/.test(prompt.textContent))"""
    for _ in range(10):
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        try:
            page.wait_for_function(asked, timeout=10_000)
            return
        except TooLate:
            continue
    raise AssertionError("JupyterLab did not run a cell within 100 s")


def wait_until_idle(page: Any) -> None:
    """Until no cell waits or runs: then no prompt shows an asterisk."""
    page.wait_for_function(
        """() => { const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
        return prompts.length && prompts.every(p => /\\d/.test(p.textContent)); }""",
        timeout=300_000,
    )


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """What the pure functions draw for the widget's first two faces, by the places of its sliders."""
    model, faces = shipped("pcl_plus"), live.gallery(64)
    rows = spread(faces)
    a, b = (
        pictures.encode_donor(model, faces.images([row])[0], faces.table.iloc[[row]]) for row in rows[[0, -1]]
    )
    reader = fit_readers(model, faces, ("yaw",))["pose"]
    swap = studies.swap(model, faces, rows[[0]], rows[[-1]]).pictures[0, 0]
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
    lab.page.get_by_text("is not a whole image file").wait_for(timeout=10_000)
    lab.wait_for("a", a)
    lab.wait_for("blend", blend)


def test_no_errors_and_it_fits_two_windows(lab: Lab) -> None:
    error = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-error"
    assert lab.page.locator(error).all_inner_texts() == []
    assert not lab.complaints
    lab.screenshots.mkdir(parents=True, exist_ok=True)
    for width in (1280, 480):
        lab.page.set_viewport_size({"width": width, "height": 1000})
        if width < 700:
            lab.page.keyboard.press("Control+b")  # a narrow window has no room for the list of files
        strip = lab.page.locator("img.pcl-film-strip").first
        strip.scroll_into_view_if_needed()
        lab.page.wait_for_timeout(1000)
        lab.page.screenshot(path=lab.screenshots / f"swap_explorer_{width}.png")
        box, panel = strip.bounding_box(), lab.page.locator(".jp-NotebookPanel").first.bounding_box()
        assert box["x"] + box["width"] <= panel["x"] + panel["width"] + 1, f"cut off at {width} pixels"
