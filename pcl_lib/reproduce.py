"""From one command to tables and figures: `python -m pcl_lib.reproduce` runs the notebooks in order.

A run folder (DESIGN.md) holds the settings it was made with and never takes in results of others. Whatever finished is
kept: a notebook is run again only if it, the library or what ran before it changed, and training goes on where it was.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import torch
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from pcl_lib import presets, pretrain, tables
from pcl_lib.data import PreparedFaces
from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import make_folder, readable_errors, replace_atomically
from pcl_lib.models.checkpoint import checkpoint_notes
from pcl_lib.presets import Preset
from pcl_lib.pretrain import differences
from pcl_lib.results import commit, versions

FOLDERS = ("checkpoints", "logs", "notebooks", "tables", "figures")
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
PARAMETERS = ("preset", "data", "out", "seed")
KERNEL = "python3"
STAMP = "pcl_kit"  # the metadata of an executed copy that finished
# Seconds for a cell and for a whole notebook: several times what a preset needs, so that only a hang meets them.
LIMITS = {"smoke": (600.0, 1200.0), "cpu": (3600.0, 7200.0), "gpu": (7200.0, 14400.0)}
NO_LIMITS = (math.inf, math.inf)  # paper: as long as it takes


@dataclass(frozen=True)
class Setup:
    """What a notebook works with: settings, faces, the run folder and the seed."""

    preset: Preset
    faces: PreparedFaces
    out: Path
    seed: int

    @property
    def device(self) -> str:
        """The device that training picks, in words: "cpu", "cuda NVIDIA H200", ..."""
        return device_name()


def device_name() -> str:
    """The accelerator of this machine, or "cpu"."""
    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_run(preset: str | Preset, data: str | Path, out: str | Path, seed: int) -> Setup:
    """Open a run folder for these settings, or make it; the first thing that every notebook does.

    preset: a name, or one of your own. data: a prepared folder; "" for the rendered faces, which are kept beside
    the run folder. Writes out/config.json; where it is there with other settings, raises BadInput that names those that
    differ. Raises BadInput as well on an unknown preset, a negative seed, bad data, a folder that cannot be written.
    """
    preset = presets.get(preset) if isinstance(preset, str) else preset
    if type(seed) is not int or seed < 0:
        raise BadInput(f"seed {seed!r}: a whole number from 0 on is needed")
    out = Path(out)
    faces = pretrain.open_faces(data or None, preset, out.parent)
    for name in FOLDERS:
        make_folder(out / name)
    config = {
        "preset": presets.to_dict(preset),
        "data": {"name": faces.name, "content_hash": faces.content_hash},
        "seed": seed,
        "versions": versions(),
    }
    _keep_config(out / "config.json", config)
    return Setup(preset, faces, out, seed)


def _keep_config(path: Path, config: dict[str, Any]) -> None:
    if not path.exists():
        write_json(path, config)
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): choose another --out, or delete it") from None
    if differ := list(differences(before, config)):
        more = f" and {len(differ) - 4} more" if len(differ) > 4 else ""
        raise BadInput(
            f"{path.parent} is the folder of a run with other settings ({'; '.join(differ[:4])}{more}): "
            "choose another --out, or delete that folder"
        )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON atomically."""
    with replace_atomically(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def trained(setup: Setup, method: str) -> pretrain.Run:
    """The method pre-trained on the run's faces: loaded where it is done, trained (saying so) where not.

    Raises as `pretrain.fit`.
    """
    weights = setup.out / "checkpoints" / f"{method}.safetensors"
    done = int(checkpoint_notes(weights)["epoch"]) if weights.is_file() else None
    epochs = setup.preset.train.epochs
    if method == "random":
        print("random: an untrained encoder, nothing to train.")
    elif done is None:
        print(f"{method}: training {epochs} epochs on {setup.faces.name}.")
    elif done < epochs:
        print(f"{method}: training goes on after epoch {done} of {epochs} on {setup.faces.name}.")
    else:
        print(f"{method}: loading the finished training from {weights}.")
    return pretrain.fit(method, preset=setup.preset, faces=setup.faces, out=setup.out, seed=setup.seed)


class _Clock:
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
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise BadInput(f"{path} is not a readable notebook ({error})") from None
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


def run_notebook(path: Path, setup: Setup, data: str, limits: tuple[float, float] = NO_LIMITS) -> float:
    """Execute one notebook into <run folder>/notebooks, as far as it goes; returns seconds.

    data: a prepared folder, or "". limits: seconds for a cell and for the notebook. Raises BadInput that names the
    notebook and the cell (counted from 1, text cells too) where a cell fails or takes too long.
    """
    source, copy, clock = check_parameters(path), setup.out / "notebooks" / path.name, _Clock(limits)
    values = {"preset": setup.preset.name, "data": data, "out": str(setup.out), "seed": setup.seed}
    with readable_errors(copy):
        problem = _execute(path, copy, values, clock)
    if problem:
        raise BadInput(
            f"{path.name}, cell {clock.number(source)}: {problem} (the copy with its output: {copy})"
        )
    return clock.seconds


def _execute(path: Path, copy: Path, values: dict[str, Any], clock: _Clock) -> str:
    """Run papermill; returns what went wrong, "" where nothing did."""
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
    return ""


def fingerprint(path: Path, out: Path) -> str:
    """A hash of what an executed notebook came from: the run's settings, the notebook's cells and the library."""
    cells = [[cell.cell_type, cell.source] for cell in nbformat.read(path, as_version=4).cells]
    parts = [(out / "config.json").read_text(encoding="utf-8"), json.dumps(cells), library_hash()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def library_hash() -> str:
    """A hash of the sources of pcl_lib."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()


def read_stamp(copy: Path) -> dict[str, Any]:
    """What an executed copy says about how it finished; empty where it did not, or was torn."""
    try:
        stamp = json.loads(copy.read_text(encoding="utf-8"))["metadata"][STAMP]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(stamp)


def _run_if_needed(
    path: Path, setup: Setup, data: str, latest: float, limits: tuple[float, float]
) -> dict[str, Any]:
    """Run a notebook that did not finish as it is now, or not after `latest`; returns the stamp of its copy."""
    copy, mark = setup.out / "notebooks" / path.name, fingerprint(path, setup.out)
    stamp = read_stamp(copy)
    if stamp.get("fingerprint") == mark and stamp["finished"] >= latest:
        print(f"finished before ({stamp['seconds']:.0f} s)")
        return stamp
    try:
        seconds = run_notebook(path, setup, data, limits)
    except BadInput:
        print("failed")
        raise
    notebook = nbformat.read(copy, as_version=4)
    stamp = {"fingerprint": mark, "seconds": round(seconds, 1), "finished": time.time()}
    notebook.metadata[STAMP] = stamp
    with replace_atomically(copy) as temporary:
        nbformat.write(notebook, str(temporary))
    print(f"{seconds:.0f} s")
    return stamp


def reproduce(
    preset: str,
    data: str | Path,
    out: str | Path,
    seed: int,
    *,
    only: str | None = None,
    notebooks: Path = NOTEBOOKS,
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Run the notebooks that have not finished yet with these settings; returns what summary.json holds.

    preset, data, out, seed: see `open_run`. only: "02,05" for those two. limits: see `run_notebook`, by default
    `LIMITS` of the preset. A notebook that finished is run again where it, the library or an earlier notebook's run is
    newer. Raises BadInput on bad settings before anything runs, and where a cell fails; what was done stays.
    """
    presets.get(preset)
    found, wanted = find_notebooks(notebooks, only)
    for path in wanted:
        check_parameters(path)
    check_kernel()
    data = str(Path(data).resolve()) if data else ""
    setup = open_run(preset, data, Path(out).resolve(), seed)
    latest = 0.0
    for number, path in enumerate(found, 1):
        stamp = read_stamp(setup.out / "notebooks" / path.name)
        if path in wanted:
            print(f"[{number}/{len(found)}] {path.stem} ...", end=" ", flush=True)
            stamp = _run_if_needed(path, setup, data, latest, limits or LIMITS.get(preset, NO_LIMITS))
        latest = max(latest, stamp.get("finished", 0.0))
    summary = summarise_run(setup)
    write_json(setup.out / "summary.json", summary)
    return summary


def summarise_run(setup: Setup) -> dict[str, Any]:
    """Settings, times and headline numbers of a run folder, all read from its files."""
    notebooks = {copy.stem: read_stamp(copy) for copy in sorted((setup.out / "notebooks").glob("*.ipynb"))}
    seconds = {name: stamp["seconds"] for name, stamp in notebooks.items() if stamp}
    weights = sorted((setup.out / "checkpoints").glob("*.safetensors"))
    headline = {name: tables.headline(setup.out / "tables" / f"{name}.csv") for name in tables.HEADLINES}
    return {
        "preset": setup.preset.name,
        "seed": setup.seed,
        "data": {"name": setup.faces.name, "images": len(setup.faces), "hash": setup.faces.content_hash},
        "device": setup.device,
        "versions": versions(),
        "commit": commit(),
        "seconds": round(sum(seconds.values()), 1),
        "seconds_by_notebook": seconds,
        "training_seconds": {path.stem: checkpoint_notes(path)["seconds"] for path in weights},
        "headline": {name: values for name, values in headline.items() if values},
        "absent": [f"tables/{name}.csv" for name, values in headline.items() if not values],
    }


def report(out: Path, summary: dict[str, Any]) -> None:
    """Print where the results are, and the main table."""
    print(
        f"\n{summary['seconds']:.0f} s in {len(summary['seconds_by_notebook'])} notebooks. Results in {out}:"
    )
    for folder in ("tables", "figures", "notebooks"):
        names = sorted(path.name for path in (out / folder).iterdir() if not path.name.startswith("."))
        print(f"  {folder}/ {', '.join(names) or 'nothing yet'}")
    print("  summary.json")
    for name in summary["absent"]:
        print(f"There is no {name} yet, so summary.json has no numbers of it: notebook 07 writes it.")
    main_table = out / "tables" / "main.md"
    if main_table.is_file():
        print(f"\n{main_table.read_text(encoding='utf-8')}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce",
        description="Run the notebooks in order, into a run folder with tables and figures.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument(
        "--data", nargs="+", default=[""], help="prepared folder; without it faces are rendered"
    )
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="numbers of the notebooks to run, e.g. 02,05")
    given = parser.parse_args(argv)
    if len(given.data) > 1:
        raise BadInput(
            f"{len(given.data)} folders after --data: one run takes one; run each with an --out of its own"
        )
    out = given.out or Path("runs") / given.preset
    try:
        summary = reproduce(given.preset, given.data[0], out, given.seed, only=given.only)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    report(out, summary)


if __name__ == "__main__":
    exit_cleanly(main)
