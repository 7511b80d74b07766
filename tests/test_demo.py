"""The widgets as one page by Voila: two people move their own sliders at the same time."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import offline
import pytest
from browser import PATIENCE, READ, ROOT, SECOND, browser_missing, free_port
from PIL import Image
from test_notebooks import code_cells, read

from pcl_lib import utils

DEMO = ROOT / "pcl_lib" / "site" / "demo" / "demo.ipynb"


def test_the_page_is_kept_without_outputs_and_needs_no_run() -> None:
    cells = code_cells(read(DEMO))
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    text = "\n".join(cell.source for cell in cells)
    assert "open_run" not in text and all(
        name in text for name in ("SwapExplorer", "FaceStudio", "NeighbourBrowser")
    )


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Voila on loopback, as make demo starts it, without the user's own settings."""
    if why := browser_missing():
        pytest.skip(why)
    pytest.importorskip("voila", reason="Voila is not installed: pip install 'pcl-kit[site]'")
    folder, port = tmp_path_factory.mktemp("demo"), free_port()
    own = {name: str(folder) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    environment = os.environ | own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop(utils.HEADLESS, None)
    command = [
        sys.executable,
        "-m",
        "voila",
        str(DEMO),
        "--no-browser",
        "--Voila.ip=127.0.0.1",
        f"--port={port}",
    ]
    with open(folder / "voila.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        yield wait_for(f"http://127.0.0.1:{port}", server, folder / "voila.log")
    finally:
        server.terminate()
        server.wait(30 * PATIENCE)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> str:
    """The address once something answers there."""
    end = time.monotonic() + 60 * PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/voila/static/", timeout=PATIENCE):
                return address
        except urllib.error.HTTPError:
            return address  # it answers, if not with a page
        except OSError:
            time.sleep(0.1)
    raise AssertionError("Voila did not start: " + log.read_text()[-2000:])


def picture(page: Any, name: str) -> np.ndarray:
    data = page.locator(f"img.pcl-{name}").first.evaluate(READ)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("RGB")).astype(int)


def follow(page: Any, name: str, before: np.ndarray) -> np.ndarray:
    """The picture once it is another one than before."""
    end = time.monotonic() + 20 * PATIENCE
    while np.array_equal(now := picture(page, name), before):
        assert time.monotonic() < end, f"{name} did not follow its control"
        page.wait_for_timeout(100)
    return now


def move(page: Any, label: str, key: str) -> None:
    knob = page.locator(".widget-slider", has_text=label).first.locator(".noUi-handle")
    knob.focus()
    knob.press(key)


@pytest.fixture(scope="module")
def people(address: str, chromium: Any) -> Iterator[list[Any]]:
    """The page as two people see it, each in a browser of his own, without the rest of the network."""
    contexts = [chromium.new_context(viewport={"width": 1280, "height": 720}) for _ in range(2)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.set_default_timeout(120 * SECOND)
        page.route(lambda url: not url.startswith(address), lambda route: route.abort())  # no network
        page.goto(address, wait_until="commit")
    for page in pages:
        page.locator("img.pcl-by-pose").first.wait_for()
    yield pages
    for context in contexts:
        context.close()


def test_two_people_move_their_own_sliders(people: list[Any]) -> None:
    first, second = people
    start = picture(first, "blend")
    assert np.array_equal(start, picture(second, "blend"))
    move(first, "pose A to B", "Home")
    moved = follow(first, "blend", start)
    assert np.array_equal(picture(second, "blend"), start)
    move(second, "face A to B", "End")
    other = follow(second, "blend", start)
    assert np.array_equal(picture(first, "blend"), moved) and not np.array_equal(moved, other)
    studio = picture(first, "face")
    move(second, "yaw", "End")
    follow(second, "face", studio)
    assert np.array_equal(picture(first, "face"), studio)
    assert all(page.locator(".jp-OutputArea-error").count() == 0 for page in people)


def test_the_page_is_accessible_and_fits_a_telephone(people: list[Any]) -> None:
    assert offline.serious(people[1]) == []
    assert offline.width_needed(people[1]) <= offline.NARROW
    if folder := os.environ.get("PCL_KIT_SCREENSHOTS"):
        for width in (1280, 480):
            people[0].set_viewport_size({"width": width, "height": 720})
            people[0].wait_for_timeout(500)
            people[0].screenshot(path=Path(folder) / f"demo_{width}.png", full_page=True)
