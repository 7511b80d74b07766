"""Variants x seeds, cell by cell: `python -m pcl_lib.ablations` trains and probes each and keeps what is done.

A cell is one variant with one seed. It is shorter than a run of `reproduce` (`CELLS`), sees as many images as any
other and leaves its rows in tables/ablation_*.csv at once: whoever stops the command loses the cells in work alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode

from pcl_lib import ablation_tables, methods, presets, pretrain, probes, reproduce, studies
from pcl_lib.data import ImageSource, PreparedFaces
from pcl_lib.errors import BadInput, exit_cleanly
from pcl_lib.files import replace_atomically
from pcl_lib.models import PCL
from pcl_lib.presets import Preset
from pcl_lib.results import commit, versions

# What a cell of each preset changes for all its variants alike; a whole table at cpu is to take two hours on 2 cores.
CELLS: dict[str, dict[str, Any]] = {
    "cpu": {"model.image_size": 32, "train.epochs": 8, "train.checkpoint_every": 8}
}
KINDS = ("cells", "probes", "readability")
WORKERS = 4  # at most, where nobody says: each takes 1.5 GB
TEST_SEED = 0  # test people are resampled alike in every cell, so that two cells can be compared pair by pair


@dataclass(frozen=True)
class Variant:
    """A row of the ablation table.

    group: the heading it stands under; method: of `methods.METHODS`; changes: settings by dotted key; times: settings
    that are multiplied instead (rounded where they are whole numbers, at least 1).
    """

    group: str
    method: str = "pcl"
    changes: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)

    def of(self, preset: Preset) -> Preset:
        """The preset of a cell of this variant."""
        preset = presets.override(preset, CELLS.get(preset.name, {}) | dict(self.changes))
        for key, factor in self.times.items():
            value: Any = preset
            for name in key.split("."):
                value = getattr(value, name)
            scaled = max(1, round(value * factor)) if isinstance(value, int) else value * factor
            preset = presets.override(preset, {key: scaled})
        return preset


SLOWER = 2.2  # times as long as SimCLR's: an iteration of PCL at the cpu preset
OTHERS, TIME = "other methods", "other methods in PCL's time"
BOUNDS = "upper bounds: trained on the labels of one task"
PARTS, LOSSES, POSE, SIZES = "parts of PCL", "losses of PCL", "pose change of PCL", "settings of PCL"
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "pcl": Variant(PARTS),
        "simclr": Variant(OTHERS, "simclr"),
        "simclr_noflip": Variant(OTHERS, "simclr_noflip"),
        "random": Variant(OTHERS, "random"),
        "PDD alone": Variant(PARTS, changes={"loss.face": 0.0, "loss.pose": 0.0}),
        "face contrast alone": Variant(PARTS, changes={"loss.pdd": 0.0, "loss.pose": 0.0}),
        "PDD + face": Variant(PARTS, changes={"loss.pose": 0.0}),
        "face + pose, no PDD": Variant(PARTS, changes={"loss.pdd": 0.0}),
        "no orthogonality": Variant(LOSSES, changes={"loss.orthogonality": 0.0}),
        "orthogonality x 100": Variant(LOSSES, times={"loss.orthogonality": 100.0}),
        "joint update": Variant(LOSSES, changes={"train.update": "joint"}),
        "fixed weights": Variant(LOSSES, changes={"loss.dynamic": False}),
        "negatives as released": Variant(LOSSES, changes={"loss.negatives": "released_code"}),
        "negatives: batch": Variant(LOSSES, changes={"loss.negatives": "batch"}),
        "negatives not mixed": Variant(LOSSES, changes={"loss.mixing": 0.0}),
        "in-plane rotation": Variant(POSE, changes={"loss.pose_change": "rotate"}),
        "flip + rotation": Variant(POSE, changes={"loss.pose_change": "flip_rotate"}),
        "3D turn (oracle)": Variant(POSE, changes={"loss.pose_change": "turn"}),
        "pcl_plus": Variant(PARTS, "pcl_plus"),
        "K = 1": Variant(SIZES, changes={"train.pose_negatives": 1}),
        "K x 4": Variant(SIZES, times={"train.pose_negatives": 4.0}),
        "width x 0.5": Variant(SIZES, times={"model.width": 0.5}),
        "width x 2": Variant(SIZES, times={"model.width": 2.0}),
        "temperature x 0.5": Variant(SIZES, times={"loss.temperature": 0.5}),
        "temperature x 2": Variant(SIZES, times={"loss.temperature": 2.0}),
        "pose feature of 16": Variant(SIZES, changes={"model.pose_dim": 16}),
        "simclr, equal time": Variant(TIME, "simclr", times={"train.epochs": SLOWER}),
        "simclr_noflip, equal time": Variant(TIME, "simclr_noflip", times={"train.epochs": SLOWER}),
        "moco": Variant(OTHERS, "moco"),
        "byol": Variant(OTHERS, "byol"),
        "simsiam": Variant(OTHERS, "simsiam"),
        "fabnet": Variant(OTHERS, "fabnet"),
        "tcae": Variant(OTHERS, "tcae"),
        "facecycle": Variant(OTHERS, "facecycle"),
        "supervised: expression": Variant(BOUNDS, "supervised_expression"),
        "supervised: identity": Variant(BOUNDS, "supervised_identity"),
        "supervised: pose": Variant(BOUNDS, "supervised_pose"),
        "supervised: action units": Variant(BOUNDS, "supervised_units"),
    }
)


# Series of the sensitivity figure: what changes, and the variant at each value of it.
SERIES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "negatives K": {"1": "K = 1", "preset": "pcl", "x 4": "K x 4"},
        "temperature": {"x 0.5": "temperature x 0.5", "preset": "pcl", "x 2": "temperature x 2"},
        "width": {"x 0.5": "width x 0.5", "preset": "pcl", "x 2": "width x 2"},
        "orthogonality": {"0": "no orthogonality", "preset": "pcl", "x 100": "orthogonality x 100"},
    }
)
GROUPS = {name: variant.group for name, variant in VARIANTS.items()}
FEW = ("pcl", "simclr")  # what notebook 04 runs where there are no cells yet


class Cell(NamedTuple):
    """One variant with one seed."""

    variant: str
    seed: int

    @property
    def stem(self) -> str:
        """A part of a file's name."""
        return "".join(c if c.isalnum() else "_" for c in self.variant) + f"-seed{self.seed}"


def settings(variant: str, preset: Preset) -> str:
    """A short hash of all settings of a variant but seed and data.

    Settings at their defaults are left out, so that cells outlive settings that the kit gains.
    """
    own = VARIANTS[variant]
    kept = [own.method, _changed(presets.to_dict(own.of(preset)), presets.to_dict(Preset("")))]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:10]


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _changed(value, defaults[key]) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value != defaults[key]
    }


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
    found = probes.extract(run.model, seen)
    meant = probes.Features(**{name: getattr(found, name) for name in run.method.features})
    scored, bootstrap = probes.evaluate_paired(meant, seen, seed=TEST_SEED)
    parts = {"probes": scored, "readability": studies.readability(meant, seen, TEST_SEED)}
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
    rows["readability"] = rows["readability"].assign(protocol="validation")
    shutil.rmtree(folder)
    return rows | {"bootstrap": bootstrap.assign(method=cell.variant, seed=cell.seed)}


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
    with ProcessPoolExecutor(min(workers, len(cells)), spawn, _one_thread) as pool:
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


def _one_thread() -> None:
    torch.set_num_threads(1)  # two cells on a thread each do a third more than one on two


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
    """Write the tables of the cells that are there, print the first, and what is left."""
    rows = current(out, preset)
    if len(rows["probes"]):
        written = ablation_tables.write_all(out, rows, read_bootstrap(out), GROUPS)
        print(f"\n{written[1].read_text(encoding='utf-8')}\nTables in {out / 'tables'}:")
        print(*(f"  {path.name}" for path in written), sep="\n")
    waiting = left(out, preset, variants, seeds)
    print(f"left to run: {', '.join(f'{c.variant} (seed {c.seed})' for c in waiting) or 'nothing'}")


def shown(setup: reproduce.Setup) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Rows by `KINDS` and their bootstrap: those that `make ablations` left beside a run, else of a few tiny cells.

    Says which. The tiny cells (`FEW`, one seed, one epoch at 32 pixels) show that everything runs; their rows name a
    preset of their own. Empty tables, and a printed sentence, where the set has no labels to probe for.
    """
    folder = setup.out.parent / f"{setup.preset.name}-ablations"
    found = current(folder, setup.preset)
    if len(found["cells"]) and set(found["cells"]["data"]) == {setup.faces.name}:
        print(f"{len(found['cells'])} cells read from {folder}.")
        return found, read_bootstrap(folder)
    print(f"{folder} has no cells of this set: {len(FEW)} tiny ones are run now, too short to learn from.")
    short = presets.override(setup.preset, {"model.image_size": 32, "train.epochs": 1})
    tiny, out = replace(short, name=f"{setup.preset.name}, tiny cells"), setup.out / "ablations"
    try:
        for cell in left(out, tiny, FEW, [setup.seed]):
            keep(out, cell, run_cell(cell, tiny, setup.faces, out / "cells" / cell.stem))
    except BadInput as error:
        if not studies.probed(setup).views:
            print(error)
            return {kind: pd.DataFrame() for kind in KINDS}, pd.DataFrame()
        raise
    return current(out, tiny), read_bootstrap(out)


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
        "--workers", type=int, help="cells at a time (default: one a core, at most 4; 1 on a GPU)"
    )
    given = parser.parse_args(argv)
    variants = given.only or list(VARIANTS)
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
