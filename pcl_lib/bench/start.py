"""The part of the benchmark about the first minute: imports, the first picture of the course, JupyterLab."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

from pcl_lib.bench.timing import Bench
from pcl_lib.utils import REPOSITORY, BadInput

PATIENCE = 120.0  # seconds for JupyterLab to answer


def bench_start(bench: Bench) -> None:
    """New processes: the imports of notebook 00, its cells up to the first sliders, and JupyterLab until it answers."""
    cells = first_cells(REPOSITORY / "notebooks" / "00_tour.ipynb", "SwapExplorer(")
    imports = "\n".join(
        line for cell in cells for line in cell.splitlines() if line.startswith(("import ", "from "))
    )
    every = partial(bench.time, "notebook 00", unit="starts", repeats=min(bench.repeats, 3))
    every("imports", partial(run_code, imports))
    every("imports and the first picture", partial(run_code, "\n".join(cells)))
    bench.time("JupyterLab", "until it answers", lab_answers, unit="starts", repeats=min(bench.repeats, 3))


def first_cells(path: Path, last: str) -> list[str]:
    """The code cells of a notebook up to the first that holds `last`. Raises BadInput where there is none."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for place, cell in enumerate(cells):
        if last in cell:
            return cells[: place + 1]
    raise BadInput(f"no cell of {path} holds {last}: the bench times the cells up to it")


def run_code(code: str) -> None:
    """Run Python code in a new process, in a folder of its own: what it leaves in ../runs goes with the folder."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "notebooks")
        place.mkdir()
        subprocess.run([sys.executable, "-c", code], cwd=place, check=True, stdout=subprocess.DEVNULL)


def lab_answers() -> None:
    """Start JupyterLab without a browser and wait until its page comes. Raises BadInput after `PATIENCE` seconds."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        f"--ServerApp.port={port}",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.token=bench",
        "--no-browser",
    ]
    options += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jupyterlab", *options]
        lab = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait(f"http://127.0.0.1:{port}/lab?token=bench", lab)
        finally:
            lab.send_signal(signal.SIGTERM)
            lab.wait()


def _wait(address: str, lab: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and lab.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise BadInput(f"JupyterLab did not answer at {address} within {PATIENCE:.0f} s: `make lab` says more")
