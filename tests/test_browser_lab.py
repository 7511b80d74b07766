"""make lab opens on the map of the course: the page is shown as a page, with the picture that moves and links."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import PATIENCE, ROOT, SECOND, TOKEN, browser_missing, free_port, lab_options


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    if why := browser_missing():
        pytest.skip(why)
    port = free_port()
    own = {
        name: str(tmp_path / name)
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    }
    environment = os.environ | own | {"JUPYTER_CONFIG_PATH": "notebooks/.jupyter"}
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *lab_options(),
        "--no-browser",
        "--allow-root",
        f"--port={port}",
    ]
    command += [f"--IdentityProvider.token={TOKEN}", f"--LabApp.workspaces_dir={tmp_path}"]
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
    end = time.monotonic() + 60 * PATIENCE
    try:
        while time.monotonic() < end and server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=PATIENCE).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30 * PATIENCE)


def test_the_first_thing_seen_is_the_map_of_the_course(address: str, chromium: Any) -> None:
    page = chromium.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(90 * SECOND)
    page.goto(f"{address}/?token={TOKEN}")
    page.locator(".jp-MarkdownViewer h1", has_text="The course").wait_for()
    shown = page.locator(".jp-MarkdownViewer img[alt*='turns the head']")
    shown.wait_for()
    page.wait_for_function("e => e.complete && e.naturalWidth > 100", arg=shown.element_handle())
    assert page.locator(".jp-MarkdownViewer a", has_text="00 Tour").count()
    if folder := os.environ.get("PCL_KIT_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "lab.png")
    page.close()


def test_the_settings_name_plugins_that_jupyterlab_has() -> None:
    text = (ROOT / "notebooks" / ".jupyter" / "labconfig" / "default_setting_overrides.json").read_text()
    jupyter = Path(sys.prefix, "share", "jupyter")
    for plugin, values in json.loads(text).items():
        extension, name = plugin.split(":")
        own = jupyter / "labextensions" / extension / "schemas" / extension / f"{name}.json"
        path = own if own.is_file() else jupyter / "lab" / "schemas" / extension / f"{name}.json"
        schema = json.loads(path.read_text(encoding="utf-8"))
        assert set(values) <= set(schema["properties"]), plugin
