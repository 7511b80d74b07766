"""A real JupyterLab on loopback and a Chromium on it, for the browser tests; nothing here is a test.

Needs Playwright and a Chromium (`CHROMIUM`); tests are skipped where one is missing, unless PCL_KIT_BROWSER=required.
Screenshots stay in PCL_KIT_SCREENSHOTS, or in the tests' folder. PCL_KIT_PATIENCE=10 waits ten times as long for
everything, on a machine that has other work.
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
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image

from pcl_lib import utils

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = "/usr/bin/chromium"
REQUIRED = os.environ.get("PCL_KIT_BROWSER") == "required"
PATIENCE = float(os.environ.get("PCL_KIT_PATIENCE", "3"))
SECOND = 1000 * PATIENCE  # in the browser's milliseconds
ROUNDING = 3  # grey values: one picture decoded alone, one in a batch, on other threads
TOKEN = "only-for-this-test"
WIDTHS = (1280, 480)  # of the windows that screenshots are taken in
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false"},
}
READ = """async e => {
    const blob = await (await fetch(e.src)).blob(), reader = new FileReader();
    return await new Promise(done => { reader.onload = () => done(reader.result); reader.readAsDataURL(blob); });
}"""
ASKED = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
    .some(prompt => /[*\\d]/.test(prompt.textContent))"""
IDLE = """() => { const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')];
    return prompts.length && prompts.every(p => /\\d/.test(p.textContent)); }"""
PARTS = "img[class*=pcl-], .widget-slider, .widget-text, .widget-dropdown, .jp-OutputArea .widget-button"
ERRORS = ".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr'], .jp-OutputArea-error"


def browser_missing() -> str:
    """Why no browser can be driven here; "" where one can."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "Playwright is not installed (make env)"
    return "" if Path(CHROMIUM).is_file() else f"there is no {CHROMIUM} (apt-get install chromium)"


@dataclass
class Lab:
    """A page of JupyterLab on one notebook, and what its console complained of."""

    page: Any
    notebook: Path
    screenshots: Path
    complaints: list[str] = field(default_factory=list)

    def run_all(self) -> None:
        """Run All Cells, and wait for the last. A request before the kernel is connected is dropped: ask again."""
        from playwright.sync_api import TimeoutError as TooLate

        for _ in range(int(10 * PATIENCE)):
            self.page.get_by_role("menuitem", name="Run", exact=True).click()
            self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
            try:
                self.page.wait_for_function(ASKED, timeout=10_000)
                break
            except TooLate:
                continue
        self.page.wait_for_function(IDLE, timeout=300 * SECOND)  # no prompt is empty or shows an asterisk

    def picture(self, name: str) -> np.ndarray:
        """The picture that a tile of a widget shows now, int [H, W, 3]."""
        data = self.page.locator(f"img.pcl-{name}").first.evaluate(READ)
        content = base64.b64decode(data.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)

    def move(self, label: str, key: str, presses: int = 1, handle: int = 0) -> None:
        """Press a key on a handle of the slider whose label holds these letters.

        A busy page may drop a key: Home and End are pressed until the handle is there.
        """
        knob = self.page.locator(".widget-slider", has_text=label).first.locator(".noUi-handle").nth(handle)
        knob.focus()
        for _ in range(presses):
            knob.press(key)
        goal = {"Home": "aria-valuemin", "End": "aria-valuemax"}.get(key)
        for _ in range(10 if goal else 0):
            if knob.get_attribute("aria-valuenow") == knob.get_attribute(goal):
                return
            self.page.wait_for_timeout(200)
            knob.press(key)

    def button(self, label: str) -> Any:
        """The button of a widget with these letters; its accessible name has the letter of its icon as well."""
        return self.page.locator(".jp-OutputArea .jupyter-button", has_text=label).first

    def press(self, label: str) -> None:
        """Press a button by the keyboard."""
        button = self.button(label)
        button.focus()
        button.press("Enter")

    def wait_for(self, name: str, expected: np.ndarray, rows: slice = slice(None)) -> None:
        """Wait until a tile shows the expected picture, uint8 [H, W, 3]; fails with how far off it is.

        rows: the lines of the picture to look at.
        """
        end = time.monotonic() + 10 * PATIENCE
        while True:
            shown = self.picture(name)
            assert shown.shape == expected.shape, f"{name} is {shown.shape}, not {expected.shape}"
            off = np.abs(shown - expected.astype(int))[rows].max()
            if off <= ROUNDING:
                return
            if time.monotonic() > end:
                raise AssertionError(f"{name} is off by up to {off} of 255 grey values")
            self.page.wait_for_timeout(50)

    def look(self, name: str, place: str) -> None:
        """Keep a screenshot at each of `WIDTHS`; fails where a picture or control reaches out of the page.

        place: CSS selector of what is scrolled to.
        """
        self.screenshots.mkdir(parents=True, exist_ok=True)
        if self.page.locator(".jp-FileBrowser").first.is_visible():  # a narrow window has no room for it
            self.page.locator("li[data-id=filebrowser]").first.click()
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 1600})
            self.page.locator(place).first.scroll_into_view_if_needed()
            self.page.wait_for_timeout(500 * max(1.0, PATIENCE / 5))
            self.page.screenshot(path=self.screenshots / f"{name}_{width}.png")
            panel = self.page.locator(".jp-NotebookPanel").first.bounding_box()
            for part in self.page.locator(PARTS).all():
                box = part.bounding_box()
                assert not box or box["x"] + box["width"] <= panel["x"] + panel["width"] + 1, (
                    f"cut off at {width} pixels: {part.inner_text() or part.get_attribute('class')}"
                )

    def assert_quiet(self) -> None:
        """No error output in any cell, nothing in the console."""
        assert self.page.locator(ERRORS).all_inner_texts() == []
        assert not self.complaints


@dataclass
class Jupyter:
    """A running JupyterLab over copies of the notebooks in `folder`, and a browser."""

    folder: Path
    address: str
    chromium: Any
    screenshots: Path

    @contextmanager
    def open(self, name: str, run: bool = True) -> Iterator[Lab]:
        """A notebook after Run All (unless not run), in a window of its own; its kernel ends with it."""
        page = self.chromium.new_page(viewport={"width": WIDTHS[0], "height": 1000})
        page.set_default_timeout(30 * SECOND)
        lab = Lab(page, self.folder / "notebooks" / f"{name}.ipynb", self.screenshots)
        page.on("console", lambda m: lab.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: lab.complaints.append(str(error)))
        try:
            # a workspace of its own: another would open the tabs that an earlier window had
            page.goto(f"{self.address}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?token={TOKEN}")
            page.locator(".jp-MarkdownOutput h1").first.wait_for(timeout=90 * SECOND)
            if run:
                lab.run_all()
            yield lab
        finally:
            page.close()
            self._end_kernels()

    @contextmanager
    def open_cells(self, name: str, *needles: str) -> Iterator[Lab]:
        """As `open`, with no more of a notebook than title, set-up and the cells that hold one of these texts."""
        notebook = nbformat.read(self.folder / "notebooks" / f"{name}.ipynb", as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        last = max(
            (i for i, cell in enumerate(code) if any(text in cell.source for text in needles)), default=0
        )
        set_up, wanted = code[:2], ("open_run(", *needles)  # parameters and imports come first
        cells = [
            cell for cell in code[: last + 1] if cell in set_up or any(text in cell.source for text in wanted)
        ]
        notebook.cells = [notebook.cells[0], *cells]
        assert len(notebook.cells) >= 3 + len(needles), f"{name} lacks a cell with one of {needles}"
        # a file of its own: a window that is still open on an earlier part would save itself over this one
        part = f"{name}_part{len(list((self.folder / 'notebooks').glob('*_part*.ipynb')))}"
        nbformat.write(notebook, self.folder / "notebooks" / f"{part}.ipynb")
        with self.open(part) as lab:
            yield lab

    def _end_kernels(self) -> None:
        for kernel in self._ask("kernels"):
            self._ask(f"kernels/{kernel['id']}", "DELETE")

    def _ask(self, what: str, method: str = "GET") -> Sequence[dict[str, str]]:
        request = urllib.request.Request(f"{self.address}/api/{what}?token={TOKEN}", method=method)
        with urllib.request.urlopen(request, timeout=30 * PATIENCE) as answer:
            return json.loads(answer.read() or "[]")


@contextmanager
def start_chromium() -> Iterator[Any]:
    """A Chromium, ended with the block. Playwright allows one such block at a time in a process."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=60 * SECOND
        )
        yield browser
        browser.close()


@contextmanager
def serve(folder: Path, chromium: Any) -> Iterator[Jupyter]:
    """JupyterLab for a Chromium, ended with the block."""
    screenshots = Path(os.environ.get("PCL_KIT_SCREENSHOTS", folder / "screenshots"))
    server, address = start_jupyterlab(folder)
    try:
        yield Jupyter(folder, address, chromium, screenshots)
    finally:
        server.terminate()
        server.wait(30 * PATIENCE)


def lab_options() -> list[str]:
    """What make lab passes to JupyterLab."""
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\nlab: env")[1].split("\n\n")[0]
    found = re.findall(r"--\S+", recipe)
    assert "--ServerApp.ip=127.0.0.1" in found and len(found) == 3
    return found


def start_jupyterlab(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """JupyterLab on loopback over copies of the notebooks, without the user's own settings; and its address."""
    copy_notebooks(folder / "notebooks")
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    port = free_port()
    own = {
        name: str(folder / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    }
    own["JUPYTER_CONFIG_PATH"] = str(ROOT / "notebooks" / ".jupyter")  # as in make lab
    environment = os.environ | own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop(utils.HEADLESS, None)
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}", "--LabApp.news_url=None",
        f"--LabApp.user_settings_dir={folder / 'settings'}", "--LabApp.extension_manager=readonly",
        f"--LabApp.workspaces_dir={folder / 'workspaces'}",
        f"--MappingKernelManager.kernel_info_timeout={60 * PATIENCE}",
    ]  # fmt: skip
    with open(folder / "jupyterlab.log", "wb") as log:
        command = [sys.executable, "-m", "jupyterlab", *options]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + 60 * PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=PATIENCE):
                return server, address
        except OSError:
            time.sleep(0.1)
    server.kill()
    raise AssertionError("JupyterLab did not start: " + (folder / "jupyterlab.log").read_text()[-2000:])


def copy_notebooks(folder: Path) -> None:
    """The notebooks as they are committed, but for the preset: smoke."""
    shutil.copytree(ROOT / "notebooks", folder)
    for path in folder.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        parameters.source = parameters.source.replace("cpu", "smoke")
        nbformat.write(notebook, path)


def free_port() -> int:
    """A port on loopback that nobody uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
