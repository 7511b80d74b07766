"""Notebooks as programs: strict parameters, executed into stamped copies, run again only if needed."""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from pcl_lib.utils import (
    HEADLESS,
    REPOSITORY,
    TIMES,
    BadInput,
    library_hash,
    readable_errors,
    replace_atomically,
)

NOTEBOOKS = REPOSITORY / "notebooks"
PARAMETERS = ("preset", "data", "out", "seed")
KERNEL = "python3"
STAMP = "pcl_kit"  # the metadata of an executed copy that finished
# Seconds for a cell and for a whole notebook: several times what a preset needs, so that only a hang meets them.
LIMITS = {"smoke": (600.0, 1200.0), "cpu": (3600.0, 7200.0), "gpu": (7200.0, 14400.0)}
NO_LIMITS = (math.inf, math.inf)  # paper: as long as it takes


class Clock:
    """Tells nbclient how long each cell may take, and remembers which one it was."""

    def __init__(self, limits: tuple[float, float]) -> None:
        self.start = time.monotonic()
        self.limits = limits
        self.cell = nbformat.NotebookNode()

    def __call__(self, cell: nbformat.NotebookNode) -> float | None:
        self.cell = cell
        left = min(self.limits[0], self.limits[1] - self.seconds)
        return max(1.0, left) if math.isfinite(left) else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def number(self, notebook: nbformat.NotebookNode) -> int:
        """Where the cell stands in the notebook it comes from, counted from 1, text cells too."""
        alike = [i for i, cell in enumerate(notebook.cells, 1) if cell.source == self.cell.get("source")]
        by_id = [i for i in alike if notebook.cells[i - 1].get("id") == self.cell.get("id")]
        return (by_id or alike or [0])[0]

    @property
    def limit(self) -> str:
        """The limit that was met, in words."""
        cell, notebook = self.limits
        return f"{notebook:g} s for a notebook" if self.seconds >= notebook else f"{cell:g} s for a cell"


def find_notebooks(folder: Path, only: str | None = None) -> tuple[list[Path], list[Path]]:
    """All numbered notebooks of a folder in order, and those that `only` ("02,05") picks; all where None."""
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise BadInput(
            f"there are no notebooks in {folder}: run from a clone of the repository (make reproduce)"
        )
    if only is None:
        return found, found
    wanted = [number.strip() for number in only.split(",")]
    known = [path.name[:2] for path in found]
    if unknown := [number for number in wanted if number not in known]:
        raise BadInput(f"--only {only}: there is no notebook '{unknown[0]}', there are {', '.join(known)}")
    return found, [path for path in found if path.name[:2] in wanted]


def check_parameters(path: Path) -> nbformat.NotebookNode:
    """Read a notebook and make sure that its cell tagged `parameters` sets `PARAMETERS` to literals, and no other."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except Exception as error:  # on JSON that is no notebook nbformat raises almost anything
        raise BadInput(f"{path} is not a readable notebook ({error})") from None
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise BadInput(f"{path} is not a readable notebook ({error.message[:200]})") from None
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise BadInput(f"{path.name} has {len(cells)} cells tagged 'parameters': exactly one is needed")
    names = []
    try:
        for line in ast.parse(cells[0].source).body:
            if not isinstance(line, ast.Assign) or not isinstance(line.targets[0], ast.Name):
                raise ValueError(ast.unparse(line))
            names.append(line.targets[0].id)
            ast.literal_eval(line.value)
    except (ValueError, SyntaxError) as error:
        raise BadInput(
            f"the parameters cell of {path.name} may hold lines like seed = 0 alone, not: {error}"
        ) from None
    if missing := [name for name in PARAMETERS if name not in names]:
        raise BadInput(f"the parameters cell of {path.name} lacks {', '.join(missing)}")
    if extra := [name for name in names if name not in PARAMETERS]:
        raise BadInput(
            f"the parameters cell of {path.name} sets {', '.join(extra)}, which nobody passes:"
            f" it may hold {', '.join(PARAMETERS)} alone"
        )
    return notebook


def check_kernel() -> None:
    """Make sure that notebooks run in this very Python, not in one that was registered for the user."""
    try:
        program = Path(KernelSpecManager().get_kernel_spec(KERNEL).argv[0])
    except NoSuchKernel:
        raise BadInput("Jupyter finds no Python kernel: install ipykernel (make env)") from None
    # A bare "python" stands for the running interpreter.
    if program.is_absolute() and program.parent != Path(sys.executable).parent:
        raise BadInput(
            f"Jupyter's kernel '{KERNEL}' is {program}, not {sys.executable}: "
            f"remove it with jupyter kernelspec remove {KERNEL}"
        )


def run_notebook(
    path: Path, out: Path, values: dict[str, Any], limits: tuple[float, float] = NO_LIMITS
) -> float:
    """Execute one notebook into <run folder>/notebooks, as far as it goes; returns seconds.

    out: the run folder. values: one for each of `PARAMETERS`. limits: seconds for a cell and for the notebook. Raises
    BadInput that names the notebook and the cell (counted from 1, text cells too) where a cell fails or takes too long.
    """
    source, copy, clock = check_parameters(path), out / "notebooks" / path.name, Clock(limits)
    with readable_errors(copy):
        _times(copy).unlink(missing_ok=True)
        problem = _execute(path, copy, values, clock)
    if problem:
        raise BadInput(
            f"{path.name}, cell {clock.number(source)}: {problem} (the copy with its output: {copy})"
        )
    return clock.seconds


def _execute(path: Path, copy: Path, values: dict[str, Any], clock: Clock) -> str:
    """Run papermill; returns what went wrong, "" where nothing did."""
    os.environ[HEADLESS] = "1"  # tells the kernel that nobody looks (`pcl_lib.widgets.live`)
    os.environ[TIMES] = str(_times(copy))
    try:
        papermill.execute_notebook(
            path,
            copy,
            values,
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            cwd=path.parent,
            timeout_func=clock,
            extra_arguments=["--log-level=CRITICAL"],  # the kernel's own words; errors reach us anyway
        )
    except papermill.PapermillExecutionError as error:
        lines = str(error.evalue).strip().splitlines() or [""]
        return f"{error.ename}: {lines[-1]}"
    except CellTimeoutError:
        return f"took longer than the {clock.limit} that preset {values['preset']} allows; run again to go on"
    except DeadKernelError:
        return "the Python process died, most likely for want of memory: take a smaller preset"
    finally:
        del os.environ[HEADLESS], os.environ[TIMES]
    return ""


def _times(copy: Path) -> Path:
    """Where the kernel of an executed copy leaves its seconds by kind of work, until they are in the stamp."""
    return copy.with_name(f".{copy.stem}.times.json")


def _read_times(copy: Path, seconds: float) -> dict[str, float]:
    """Seconds by kind of work (`utils.spent`), and "other": what is left of the notebook's."""
    path = _times(copy)
    spent = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.unlink(missing_ok=True)
    spent = {kind: round(value, 1) for kind, value in spent.items()}
    return spent | {"other": round(max(0.0, seconds - sum(spent.values())), 1)}


def fingerprint(path: Path, out: Path) -> str:
    """A hash of what an executed notebook came from: the run's settings, the notebook's cells and the library."""
    cells = [[cell.cell_type, cell.source] for cell in nbformat.read(path, as_version=4).cells]
    parts = [(out / "config.json").read_text(encoding="utf-8"), json.dumps(cells), library_hash()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamp(copy: Path) -> dict[str, Any]:
    """What an executed copy says about how it finished; empty where it did not finish, or is incomplete."""
    try:
        stamp = json.loads(copy.read_text(encoding="utf-8"))["metadata"][STAMP]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(stamp)


def run_if_needed(
    path: Path,
    out: Path,
    values: dict[str, Any],
    earlier: Mapping[str, str],
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Run a notebook that did not finish as it is now, or not after `earlier`; returns the stamp of its copy.

    earlier: of each notebook before it that has finished, the name of that run (by name, not by time: clocks are set
    back). out, values, limits: see `run_notebook`; without limits, `LIMITS` of the preset hold.
    """
    limits = limits or LIMITS.get(values["preset"], NO_LIMITS)
    copy, mark = out / "notebooks" / path.name, fingerprint(path, out)
    stamp = read_stamp(copy)
    if stamp.get("fingerprint") == mark and stamp.get("after") == earlier:
        print(f"finished before ({stamp['seconds']:.0f} s)")
        return stamp
    try:
        seconds = run_notebook(path, out, values, limits)
    except BadInput:
        print("failed")
        raise
    notebook = nbformat.read(copy, as_version=4)
    stamp = {
        "fingerprint": mark,
        "seconds": round(seconds, 1),
        "finished": time.time(),
        "run": uuid.uuid4().hex,
        "after": dict(earlier),
        "spent": _read_times(copy, seconds),
    }
    notebook.metadata[STAMP] = stamp
    with replace_atomically(copy) as temporary:
        nbformat.write(notebook, str(temporary))
    print(f"{seconds:.0f} s")
    return stamp
