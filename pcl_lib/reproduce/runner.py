"""From one command to tables and figures: `python -m pcl_lib.reproduce` runs the notebooks in order.

A run folder holds the settings it was made with and never takes in results of others. Whatever finished is
kept: a notebook is run again only if it, the library or what ran before it changed, and training goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pcl_lib import presets, tables
from pcl_lib.data import PreparedFaces
from pcl_lib.models.checkpoint import checkpoint_notes
from pcl_lib.reproduce import doctor, notebooks
from pcl_lib.reproduce.run import FOLDERS, Run, join_folders, open_run
from pcl_lib.utils import KINDS, commit, only_one, remove_leftovers, versions, write_json


def reproduce(
    preset: str,
    data: str | Path | Sequence[str | Path],
    out: str | Path,
    seed: int,
    *,
    only: str | None = None,
    folder: Path = notebooks.NOTEBOOKS,
    limits: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Run the notebooks that have not finished yet with these settings; returns what summary.json holds.

    preset, out, seed: see `open_run`. data: a prepared folder or several, the first to pre-train on. only: "02,05" for
    those two. folder: where the notebooks are. limits: see `notebooks.run_if_needed`. A notebook that finished is run
    again where it, the library or an earlier notebook's run is newer. Raises BadInput on bad settings before anything
    runs, where another process works in `out`, and where a cell fails; what was done stays.
    """
    presets.get(preset)
    found, wanted = notebooks.find_notebooks(folder, only)
    for path in wanted:
        notebooks.check_parameters(path)
    notebooks.check_kernel()
    joined = join_folders([data] if isinstance(data, str | Path) else data)
    run = open_run(preset, joined, Path(out).resolve(), seed)
    values = {"preset": preset, "data": joined, "out": str(run.out), "seed": seed}
    earlier: dict[str, str] = {}
    with only_one(run.out / ".reproduce.lock", f"the run folder {run.out}"):
        for name in FOLDERS:
            if name not in ("checkpoints", "logs"):  # those a training may be writing to
                remove_leftovers(run.out / name)
        for number, path in enumerate(found, 1):
            stamp = notebooks.read_stamp(run.out / "notebooks" / path.name)
            if path in wanted:
                print(f"[{number}/{len(found)}] {path.stem} ...", end=" ", flush=True)
                stamp = notebooks.run_if_needed(path, run.out, values, earlier, limits)
            if "run" in stamp:
                earlier[path.stem] = stamp["run"]
        summary = summarise_run(run)
        write_json(run.out / "summary.json", summary)
    return summary


def summarise_run(run: Run) -> dict[str, Any]:
    """Settings, times and headline numbers of a run folder, all read from its files."""
    copies = sorted((run.out / "notebooks").glob("*.ipynb"))
    stamps = {copy.stem: notebooks.read_stamp(copy) for copy in copies}
    seconds = {name: stamp["seconds"] for name, stamp in stamps.items() if stamp}
    weights = sorted((run.out / "checkpoints").glob("*.safetensors"))
    names = (*tables.HEADLINES, "paper") if run.others else tables.HEADLINES
    headline = {name: tables.headline(run.out / "tables" / f"{name}.csv") for name in names}
    return {
        "preset": run.preset.name,
        "seed": run.seed,
        "data": _describe(run.faces),
        "probed_too": [_describe(other) for other in run.others],
        "device": run.device,
        "versions": versions(),
        "commit": commit(),
        "seconds": round(sum(seconds.values()), 1),
        "seconds_by_notebook": seconds,
        "seconds_by_kind": {name: stamp["spent"] for name, stamp in stamps.items() if "spent" in stamp},
        "training_seconds": {path.stem: checkpoint_notes(path)["seconds"] for path in weights},
        "headline": {name: values for name, values in headline.items() if values},
        "absent": [f"tables/{name}.csv" for name, values in headline.items() if not values],
    }


def _describe(faces: PreparedFaces) -> dict[str, Any]:
    return {"name": faces.name, "images": len(faces), "hash": faces.content_hash}


def times_table(summary: dict[str, Any]) -> pd.DataFrame:
    """Seconds of a summary by notebook and kind of work (`utils.spent`), with sums; empty where nothing was timed."""
    table = pd.DataFrame.from_dict(summary["seconds_by_kind"], orient="index", dtype=float).fillna(0.0)
    if len(table):
        table = table[[kind for kind in (*KINDS, "other") if kind in table]]
        table.loc["all"] = table.sum()
        table["all"] = table.sum(axis=1)
    return table


def report(out: Path, summary: dict[str, Any]) -> None:
    """Print where the results are, the main table, and that of the paper where several sets were probed."""
    print(
        f"\n{summary['seconds']:.0f} s in {len(summary['seconds_by_notebook'])} notebooks. Results in {out}:"
    )
    if len(times := times_table(summary)):
        print(f"Seconds by notebook and kind of work:\n{times.round().astype(int).to_string()}\n")
    for folder in ("tables", "figures", "notebooks"):
        names = sorted(path.name for path in (out / folder).iterdir() if not path.name.startswith("."))
        print(f"  {folder}/ {', '.join(names) or 'nothing yet'}")
    print("  summary.json")
    for name in summary["absent"]:
        print(f"There is no {name} yet, so summary.json has no numbers of it: notebook 07 writes it.")
    for name in ("main", "paper") if summary["probed_too"] else ("main",):
        table = out / "tables" / f"{name}.md"
        if table.is_file():
            print(f"\n{table.read_text(encoding='utf-8')}")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce",
        description="Run the notebooks in order, into a run folder with tables and figures.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument(
        "--data",
        nargs="+",
        default=[""],
        metavar="FOLDER",
        help="prepared folders: pre-train on the first, probe it and the others; without it faces are rendered",
    )
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="numbers of the notebooks to run, e.g. 02,05")
    given = parser.parse_args(argv)
    out = given.out or Path("runs") / given.preset
    summary = reproduce(given.preset, given.data, out, given.seed, only=given.only)
    summary["machine"] = doctor.speed(summary["device"])  # so that `make doctor` can scale this run's minutes
    write_json(out / "summary.json", summary)
    report(out, summary)
