"""Variants x seeds, cell by cell: `python -m pcl_lib.ablations` trains and probes each and keeps what is done.

A cell is one variant (`pcl_lib.variants`) with one seed. It is shorter than a run of `reproduce`, sees as many images
as any other and leaves its rows in tables/ablation_*.csv at once: whoever stops the command loses the cells in work.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from pcl_lib import (
    ablation_plots,
    ablation_tables,
    disentangle,
    methods,
    plots,
    presets,
    pretrain,
    probes,
    reproduce,
    studies,
)
from pcl_lib.data import ImageSource, PreparedFaces
from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import replace_atomically
from pcl_lib.models import PCL
from pcl_lib.presets import Preset
from pcl_lib.results import commit, versions
from pcl_lib.variants import GROUPS, SEARCH, SERIES, VARIANTS, settings

KINDS = ("cells", "probes", "readability", "swaps")
WORKERS = 4  # at most, where nobody says: each takes 1.5 GB
TEST_SEED = 0  # test people are resampled alike in every cell, so that two cells can be compared pair by pair
DRAWN = (("head pose", "MAE yaw"), ("expression", "accuracy"), ("verification", "accuracy"))
FEW = ("pcl", "simclr")  # what notebook 04 runs where there are no cells yet
RECORD = Path(__file__).resolve().parents[1] / "figures" / "tables"  # of the kit's own `make ablations`


class Cell(NamedTuple):
    """One variant with one seed."""

    variant: str
    seed: int

    @property
    def stem(self) -> str:
        """A part of a file's name."""
        return "".join(c if c.isalnum() else "_" for c in self.variant) + f"-seed{self.seed}"


def run_cell(cell: Cell, preset: Preset, faces: Any, folder: Path) -> dict[str, pd.DataFrame]:
    """Train and probe one cell; returns its rows by `KINDS`, and the bootstrap of its probes under "bootstrap".

    folder: for its checkpoint, which is deleted once the probes are read. Raises as `pretrain.fit` and
    `probes.evaluate`; a set without factors to read gives no rows of readability.
    """
    variant = VARIANTS[cell.variant]
    own = variant.of(preset)
    run = pretrain.fit(variant.method, preset=own, faces=faces, out=folder, seed=cell.seed, progress=False)
    images = own.model.image_size
    seen = faces if faces.image_size == images else studies.SizedFaces(faces, images)
    meant = studies.meant(probes.extract(probes.Parts(run.model), seen), run.method)
    scored, bootstrap = probes.evaluate_paired(meant, seen, seed=TEST_SEED)
    parts = {"probes": scored, "readability": studies.readability(meant, seen, TEST_SEED)}
    parts["swaps"] = swaps(run, seen)
    last = run.history.iloc[-1] if len(run.history) else {"images": 0, "iterations": 0}
    cost = {
        "images": int(last["images"]),
        "iterations": int(last["iterations"]),
        "training_seconds": round(run.seconds, 1),
        "training_GFLOP": round(flops(variant.method, own, faces) * int(last["iterations"]) / 1e9, 1),
        "parameters": sum(p.numel() for p in run.model.parameters()),
    }
    context: dict[str, Any] = {"method": cell.variant, "preset": preset.name, "seed": cell.seed}
    context |= {"data": faces.name, "device": reproduce.device_name(), "precision": run.precision}
    context |= {"versions": versions(), "commit": commit(), "image_size": images}
    context |= {"settings": settings(cell.variant, preset)}
    rows = {"cells": pd.DataFrame([cost]).assign(protocol="validation", **context)}
    rows |= {kind: part.assign(**context) for kind, part in parts.items()}
    rows |= {kind: rows[kind].assign(protocol="validation") for kind in ("readability", "swaps")}
    shutil.rmtree(folder)
    return rows | {"bootstrap": bootstrap.assign(method=cell.variant, seed=cell.seed)}


def swaps(run: pretrain.Run, faces: Any) -> pd.DataFrame:
    """`disentangle.swap_report` where a decoder was trained and the set has factors that swaps show, else no rows."""
    if run.method.weights.get("pdd") and not set(disentangle.SWAP_FACTORS).isdisjoint(faces.table):
        return disentangle.swap_report(run.model, faces, seed=TEST_SEED)
    return pd.DataFrame()


def flops(method: str, preset: Preset, faces: PreparedFaces) -> int:
    """Floating-point operations of one iteration, forward and backward, of matrix products and convolutions.

    Views are counted as far as they are matrix products; the operations of the optimiser are not counted.
    """
    built = methods.build(method, preset)
    model = PCL(built.preset.model).train()
    built.attach(model, faces)
    source = ImageSource(faces, faces.split("train"), size=preset.model.image_size, resident=False)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        for task in built.tasks:
            rows = np.resize(source.rows, task.batch)
            task.loss(model, task.take(source, rows, rng), generator)[task.name].backward()
    return int(counter.get_total_flops())


def read(out: Path, kind: str) -> pd.DataFrame:
    """The rows of a kind that cells left in a run folder; an empty table where there are none."""
    path = out / "tables" / f"ablation_{kind}.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def read_bootstrap(out: Path) -> pd.DataFrame:
    """The bootstrap of all cells (`probes.evaluate_paired`), with columns method and seed; empty where none is."""
    parts = [
        pd.read_parquet(path) for path in sorted((out / "tables" / "ablation_bootstrap").glob("*.parquet"))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def keep(out: Path, cell: Cell, rows: Mapping[str, pd.DataFrame]) -> None:
    """Add the rows of a finished cell to those in a run folder, in place of older ones of the same cell.

    Each file is replaced atomically, that of `cells` last: a cell counts as done once it stands there.
    """
    with replace_atomically(out / "tables" / "ablation_bootstrap" / f"{cell.stem}.parquet") as path:
        rows["bootstrap"].to_parquet(path)
    for kind in reversed(KINDS):
        before = read(out, kind)
        if len(before):
            before = before[(before["method"] != cell.variant) | (before["seed"] != cell.seed)]
        with replace_atomically(out / "tables" / f"ablation_{kind}.csv") as path:
            pd.concat([before, rows[kind]], ignore_index=True).to_csv(path, index=False)


def left(out: Path, preset: Preset, variants: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The cells that are not done with these settings, seed by seed, so that a whole table comes first."""
    done = read(out, "cells")
    known = set(zip(done["method"], done["seed"], done["settings"], strict=True)) if len(done) else set()
    wanted = [Cell(variant, seed) for seed in seeds for variant in variants]
    return [cell for cell in wanted if (*cell, settings(cell.variant, preset)) not in known]


def run(
    setup: reproduce.Setup, variants: Sequence[str], seeds: Sequence[int], workers: int
) -> dict[Cell, str]:
    """Run the cells that are left, `workers` at a time on one thread each; returns why cells failed.

    A cell that fails is reported and does not stop the others. Raises BadInput where a worker dies.
    """
    cells = left(setup.out, setup.preset, variants, seeds)
    total = len(variants) * len(seeds)
    print(f"{total} cells, {total - len(cells)} of them done before; {workers} at a time.", flush=True)
    failed: dict[Cell, str] = {}
    if not cells:
        return failed
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the threads of torch in any state
    with ProcessPoolExecutor(min(workers, len(cells)), spawn, _start) as pool:
        jobs = {
            pool.submit(_work, cell, setup.preset, setup.faces.folder, setup.out / "cells" / cell.stem): cell
            for cell in cells
        }
        try:
            for number, job in enumerate(as_completed(jobs), 1):
                failed |= _collect(setup.out, jobs[job], job, f"[{number}/{len(cells)}]")
        except BrokenProcessPool:
            raise BadInput(
                "a process of the ablations died, most likely for want of memory: run the same command again with "
                "fewer --workers; finished cells are kept"
            ) from None
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def _collect(out: Path, cell: Cell, job: Any, number: str) -> dict[Cell, str]:
    """Keep what a finished cell returned, or tell why it failed."""
    what = f"{number} {cell.variant}, seed {cell.seed}"
    try:
        rows, seconds = job.result()
    except BrokenProcessPool:
        raise
    except Exception as error:  # whatever it is, the other cells go on
        reason = str(error) if isinstance(error, BadInput) else f"{type(error).__name__}: {error}"
        print(f"{what}: failed: {reason}", flush=True)
        return {cell: reason}
    keep(out, cell, rows)
    print(f"{what}: {seconds:.0f} s", flush=True)
    return {}


def _start() -> None:
    torch.set_num_threads(1)  # two cells on a thread each do a third more than one on two
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A command that is killed leaves no cells computing: they would only notice at their end."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _work(cell: Cell, preset: Preset, faces: Path, folder: Path) -> tuple[dict[str, pd.DataFrame], float]:
    start = time.perf_counter()
    return run_cell(cell, preset, PreparedFaces(faces), folder), time.perf_counter() - start


def current(out: Path, preset: Preset) -> dict[str, pd.DataFrame]:
    """The rows by `KINDS` of cells with today's settings: older ones are passed over, and run again."""
    now = {name: settings(name, preset) for name in VARIANTS}
    rows = {kind: read(out, kind) for kind in KINDS}
    return {
        kind: found[found["settings"] == found["method"].map(now)] if len(found) else found
        for kind, found in rows.items()
    }


def report(out: Path, preset: Preset, variants: Sequence[str], seeds: Sequence[int]) -> None:
    """Write the tables of the cells that are there, print the first, and what is left.

    The first of `variants` is the one whose lead over the others is shown.
    """
    rows = current(out, preset)
    if len(rows["probes"]):
        shown = {*variants, *rows["cells"]["method"]}
        groups = {name: variant.group for name, variant in VARIANTS.items() if name in shown}
        written = ablation_tables.write_all(out, rows, read_bootstrap(out), groups, variants[0])
        print(f"\n{written[1].read_text(encoding='utf-8')}\nTables in {out / 'tables'}:")
        print(*(f"  {path.name}" for path in written), sep="\n")
        draw(out / "figures", rows["probes"], groups, variants[0])
    waiting = left(out, preset, variants, seeds)
    print(f"left to run: {', '.join(f'{c.variant} (seed {c.seed})' for c in waiting) or 'nothing'}")


def draw(folder: Path, probes: pd.DataFrame, groups: Mapping[str, str], reference: str) -> list[Figure]:
    """Draw and keep ablation_dots.png and, where a setting was run at two values, ablation_sensitivity.png."""
    there, made = set(zip(probes["task"], probes["metric"], strict=True)), {}
    if metrics := [pair for pair in DRAWN if pair in there]:
        made["dots"] = ablation_plots.dots(probes, groups, metrics, reference)
        run_at = set(probes["method"])
        if any(len(run_at & set(series.values())) > 1 for series in SERIES.values()):
            made["sensitivity"] = ablation_plots.sensitivity(probes, SERIES, metrics[0])
    for name, figure in made.items():
        plots.save(figure, folder / f"ablation_{name}.png")
    return list(made.values())


def beside(setup: reproduce.Setup) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Rows by `KINDS` and their bootstrap that `make ablations` left beside a run; empty where none are of its set."""
    folder = setup.out.parent / f"{setup.preset.name}-ablations"
    found = current(folder, setup.preset)
    if len(found["cells"]) and set(found["cells"]["data"]) == {setup.faces.name}:
        print(f"{len(found['cells'])} cells read from {folder}.")
        return found, read_bootstrap(folder)
    print(f"{folder} has no cells of this set: make ablations PRESET={setup.preset.name} trains them.")
    return {kind: pd.DataFrame() for kind in KINDS}, pd.DataFrame()


def shown(setup: reproduce.Setup) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """What `beside` gives or, where that is nothing, rows of a few tiny cells run here; says so.

    The tiny cells (`FEW`, one seed, one epoch at 32 pixels) show that everything runs; their rows name a preset of
    their own. Empty tables, and a printed sentence, where the set has no labels to probe for.
    """
    found, bootstrap = beside(setup)
    if len(found["cells"]):
        return found, bootstrap
    print(f"{len(FEW)} tiny ones are run now, too short to learn from.")
    short = presets.override(setup.preset, {"model.image_size": 32, "train.epochs": 1})
    tiny, out = replace(short, name=f"{setup.preset.name}, tiny cells"), setup.out / "ablations"
    try:
        for cell in left(out, tiny, FEW, [setup.seed]):
            keep(out, cell, run_cell(cell, tiny, setup.faces, out / "cells" / cell.stem))
    except BadInput as error:
        if not studies.probed(setup).views:
            print(error)
            return found, bootstrap
        raise
    return current(out, tiny), read_bootstrap(out)


def record(name: str) -> str:
    """A table that the kit's own `make ablations` left in figures/tables, as Markdown, under a sentence that says so.

    name: "main", "questions", "lead", ... Where the file is not there, the sentence alone.
    """
    path = RECORD / f"ablation_{name}_table.md"
    if not path.is_file():
        return f"*The kit's own table is not there ({path}): it comes with the repository, not with the package.*"
    return (
        "*On record, not of this run: what `make ablations` left for the kit itself (figures/tables).*\n\n"
        + path.read_text(encoding="utf-8")
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.ablations."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.ablations",
        description="Train and probe the variants of the ablation table, cell by cell; goes on where it was.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument(
        "--data", default="", metavar="FOLDER", help="prepared folder; without it faces are rendered"
    )
    parser.add_argument("--out", type=Path, help="run folder (default runs/PRESET-ablations)")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 on (default 3)")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help=f"some of: {', '.join(VARIANTS)}")
    parser.add_argument(
        "--search",
        action="store_true",
        help="the tries for pcl_plus instead: give them --data of their own, so that no test people are looked at",
    )
    parser.add_argument(
        "--workers", type=int, help="cells at a time (default: one a core, at most 4; 1 on a GPU)"
    )
    given = parser.parse_args(argv)
    variants = given.only or list(SEARCH if given.search else GROUPS)
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise BadInput(f"--only: there is no variant '{unknown[0]}', choose some of {', '.join(VARIANTS)}")
    if given.seeds < 1 or (given.workers is not None and given.workers < 1):
        raise BadInput("--seeds and --workers must be 1 or more")
    workers = given.workers or (1 if torch.cuda.is_available() else min(WORKERS, os.cpu_count() or 1))
    out = given.out or Path("runs") / f"{given.preset}-ablations"
    setup = reproduce.open_run(given.preset, given.data, out.resolve(), 0)
    try:
        failed = run(setup, variants, range(given.seeds), workers)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    report(setup.out, setup.preset, variants, range(given.seeds))
    if failed:
        raise BadInput(
            f"{len(failed)} cells failed, the others are in {out}/tables: mend the cause "
            f"({next(iter(failed.values()))}) and run the same command again"
        )


if __name__ == "__main__":
    exit_cleanly(main)
