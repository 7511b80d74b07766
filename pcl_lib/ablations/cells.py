"""Variants x seeds, cell by cell: `python -m pcl_lib.ablations` trains and probes each and keeps what is done.

A cell is one variant (`pcl_lib.ablations.variants`) with one seed. It is shorter than a run of `reproduce`, sees as
many images as any other and leaves its rows in tables/ablation_*.csv at once: stopping the command loses only the
cells in work.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from pcl_lib import disentangle, methods, plots, presets, pretrain, probes, utils
from pcl_lib.ablations import plots as ablation_plots
from pcl_lib.ablations import scheduling
from pcl_lib.ablations import tables as ablation_tables
from pcl_lib.ablations.variants import SERIES, VARIANTS, settings
from pcl_lib.data import FaceSet, ImageSource, PreparedFaces, adapters
from pcl_lib.models import PCL
from pcl_lib.presets import Preset
from pcl_lib.probes.tasks import mark_labels
from pcl_lib.reproduce import Run, measure
from pcl_lib.utils import REPOSITORY, BadInput, commit, replace_atomically, versions

KINDS = ("cells", "probes", "leakage", "swaps")
OLDER_NAMES = {"leakage": ("readability",)}  # what run folders of older versions call a kind
WORKERS = 4  # at most, where nobody says: each takes 1.5 GB
TEST_SEED = 0  # test people are resampled alike in every cell, so that two cells can be compared pair by pair
DRAWN = (("head pose", "MAE yaw"), ("expression", "accuracy"), ("verification", "accuracy"))
FEW = ("pcl", "simclr")  # what notebook 04 runs where there are no cells yet
RECORD = REPOSITORY / "figures" / "tables"  # of the kit's own `make ablations`


TELLING = (
    "pcl",
    "pcl_plus",
    "simclr",
    "simclr_noflip",
    "random",
    "PDD alone",
    "face + pose, no PDD",
)  # run first


class Cell(NamedTuple):
    """One variant with one seed."""

    variant: str
    seed: int

    @property
    def stem(self) -> str:
        """A part of a file's name."""
        return "".join(c if c.isalnum() else "_" for c in self.variant) + f"-seed{self.seed}"


def run_cell(
    cell: Cell, preset: Preset, faces: PreparedFaces, folder: Path, learnt_from: PreparedFaces | None = None
) -> dict[str, pd.DataFrame]:
    """Train and probe one cell; returns its rows by `KINDS`, and the bootstrap of its probes under "bootstrap".

    folder: for its checkpoint, from which a cell that was stopped goes on. learnt_from: the set to train on, where it
    is not the one that is probed. Raises as `pretrain.fit` and `probes.evaluate`; a set without factors to read gives
    no rows of leakage.
    """
    variant = VARIANTS[cell.variant]
    own, learnt_from = variant.of(preset), learnt_from or faces
    training = pretrain.fit(
        variant.method, preset=own, faces=learnt_from, out=folder, seed=cell.seed, progress=False
    )
    images = own.model.image_size
    seen = faces if faces.image_size == images else adapters.SizedFaces(faces, images)
    found = measure.of_method(probes.extract(probes.EvenOdd(training.model), seen), training.method)
    scored, bootstrap = probes.evaluate_paired(found, seen, seed=TEST_SEED)
    parts = {"probes": mark_labels(scored, seen), "leakage": measure.leakage(found, seen, TEST_SEED)}
    parts["swaps"] = swaps(training, seen)
    last = training.history.iloc[-1] if len(training.history) else {"images": 0, "iterations": 0}
    cost = {
        "images": int(last["images"]),
        "iterations": int(last["iterations"]),
        "training_seconds": round(training.seconds, 1),
        "training_GFLOP": round(flops(variant.method, own, learnt_from) * int(last["iterations"]) / 1e9, 1),
        "parameters": sum(p.numel() for p in training.model.parameters()),
    }
    context: dict[str, Any] = {"method": cell.variant, "preset": preset.name, "seed": cell.seed}
    context |= {"data": faces.name, "device": utils.device_name(), "precision": training.precision}
    context |= {"versions": versions(), "commit": commit(), "image_size": images}
    context |= {"settings": settings(cell.variant, preset)}
    rows = {"cells": pd.DataFrame([cost]).assign(protocol="validation", **context)}
    rows |= {kind: part.assign(**context) for kind, part in parts.items()}
    rows |= {kind: rows[kind].assign(protocol="validation") for kind in ("leakage", "swaps")}
    return rows | {"bootstrap": bootstrap.assign(method=cell.variant, seed=cell.seed)}


def swaps(training: pretrain.Trained, faces: FaceSet) -> pd.DataFrame:
    """`disentangle.swap_report` where a decoder was trained and swaps of the set can be judged, else no rows."""
    if training.method.weights.get("pdd") and disentangle.swap_plan(faces)[1] is not None:
        return disentangle.swap_report(training.model, faces, seed=TEST_SEED)
    return pd.DataFrame()


def flops(method: str, preset: Preset, faces: PreparedFaces) -> int:
    """Floating-point operations of one iteration, forward and backward, of matrix products and convolutions.

    Views are counted as far as they are matrix products; the operations of the optimiser are not counted.
    """
    built = methods.build(method, preset)
    model = PCL(built.preset.model).train()
    built.auxiliary(model, faces)
    source = ImageSource(faces, faces.split("train"), size=preset.model.image_size, resident=False)
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    with FlopCounterMode(display=False) as counter:
        for task in built.tasks:
            rows = np.resize(source.rows, task.batch)
            task.loss(model, task.take(source, rows, rng), generator)[task.name].backward()
    return int(counter.get_total_flops())


def read(out: Path, kind: str) -> pd.DataFrame:
    """The rows of a kind that cells left in a run folder; an empty table where there are none."""
    for name in (kind, *OLDER_NAMES.get(kind, ())):
        if (path := out / "tables" / f"ablation_{name}.csv").is_file():
            return _read_rows(path)
    return pd.DataFrame()


def _read_rows(path: Path) -> pd.DataFrame:
    """Raises BadInput where the file is not one that `keep` wrote."""
    try:
        rows = pd.read_csv(path, dtype={"settings": str})  # hashes, which may be all digits
    except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
        raise BadInput(
            f"{path} cannot be read ({error}): restore or delete it; its cells run again then"
        ) from error
    if missing := {"method", "seed", "settings"} - set(rows):
        raise BadInput(f"{path} has no column {min(missing)}: restore or delete it; its cells run again then")
    return rows


def read_bootstrap(out: Path) -> pd.DataFrame:
    """The bootstrap of all cells (`probes.evaluate_paired`), with columns method and seed; empty where none is."""
    parts = [
        pd.read_parquet(path) for path in sorted((out / "tables" / "ablation_bootstrap").glob("*.parquet"))
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def keep(out: Path, cell: Cell, rows: Mapping[str, pd.DataFrame]) -> None:
    """Add the rows of a finished cell to those in a run folder, in place of older ones of the same cell.

    Each file is replaced atomically, that of `cells` last: a cell counts as done once it stands there. Only then is
    its checkpoint deleted, so that a kill in between costs nothing.
    """
    with replace_atomically(out / "tables" / "ablation_bootstrap" / f"{cell.stem}.parquet") as path:
        rows["bootstrap"].to_parquet(path)
    for kind in reversed(KINDS):
        before = read(out, kind)
        if len(before):
            before = before[(before["method"] != cell.variant) | (before["seed"] != cell.seed)]
        with replace_atomically(out / "tables" / f"ablation_{kind}.csv") as path:
            pd.concat([before, rows[kind]], ignore_index=True).to_csv(path, index=False)
    shutil.rmtree(out / "cells" / cell.stem, ignore_errors=True)


def left(out: Path, preset: Preset, variants: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    """The cells that are not done with these settings: a whole table comes first, in it the most telling variants."""
    done = read(out, "cells")
    known = set(zip(done["method"], done["seed"], done["settings"], strict=True)) if len(done) else set()
    order = sorted(variants, key=lambda name: TELLING.index(name) if name in TELLING else len(TELLING))
    wanted = [Cell(variant, seed) for seed in seeds for variant in order]
    return [cell for cell in wanted if (*cell, settings(cell.variant, preset)) not in known]


def run_cells(
    run: Run,
    variants: Sequence[str],
    seeds: Sequence[int],
    workers: int,
    *,
    scheduler: str | None = None,
    minutes: float | None = None,
) -> dict[Cell, str]:
    """Run the cells that are left, `workers` at a time on one thread each; returns why cells failed.

    scheduler: see `scheduling.pool_of`. minutes: the budget; cells in work when it ends are dropped, and the same
    command goes on with them. A cell that fails is reported and does not stop the others. Raises BadInput where a
    worker dies, and as `scheduling.pool_of`.
    """
    cells = left(run.out, run.preset, variants, seeds)
    total = len(variants) * len(seeds)
    print(f"{total} cells, {total - len(cells)} of them done before; {workers} at a time.", flush=True)
    failed: dict[Cell, str] = {}
    if not cells:
        return failed
    with scheduling.pool_of(min(workers, len(cells)), scheduler) as (pool, at_once):

        def submit(cell: Cell) -> Any:
            return pool.submit(
                _work, cell, run.preset, run.faces.folder, run.out / "cells" / cell.stem, _own_set(run, cell)
            )

        seconds = None if minutes is None else 60 * minutes
        try:
            ended = scheduling.run_in_time(submit, cells, at_once, seconds)
            for number, (cell, job) in enumerate(ended, 1):
                failed |= _collect(run.out, cell, job, f"[{number}/{len(cells)}]")
        except BrokenProcessPool:
            raise BadInput(
                "a process of the ablations died, most likely for want of memory: run the same command again with "
                "fewer --workers; finished cells are kept"
            ) from None
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


def _own_set(run: Run, cell: Cell) -> Path | None:
    """Where the cell's own training set lies, rendered if it is not there yet; None where it trains on the run's."""
    variant = VARIANTS[cell.variant]
    if variant.point is None:
        return None
    return variant.point.rendered(variant.of(run.preset), run.out.parent)


def _work(
    cell: Cell, preset: Preset, faces: Path, folder: Path, own: Path | None
) -> tuple[dict[str, pd.DataFrame], float]:
    start = time.perf_counter()
    learnt_from = None if own is None else PreparedFaces(own)
    return run_cell(cell, preset, PreparedFaces(faces), folder, learnt_from), time.perf_counter() - start


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
        draw_figures(out / "figures", rows["probes"], groups, variants[0])
    waiting = left(out, preset, variants, seeds)
    print(f"left to run: {', '.join(f'{c.variant} (seed {c.seed})' for c in waiting) or 'nothing'}")


def draw_figures(
    folder: Path, probes: pd.DataFrame, groups: Mapping[str, str], reference: str
) -> list[Figure]:
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


def cells_of(run: Run) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Rows by `KINDS`, and their bootstrap, that `make ablations` left for this run's set; empty without any."""
    folder = run.out.parent / f"{run.preset.name}-ablations"
    found = current(folder, run.preset)
    if len(found["cells"]) and set(found["cells"]["data"]) == {run.faces.name}:
        print(f"{len(found['cells'])} cells read from {folder}.")
        return found, read_bootstrap(folder)
    print(f"{folder} has no cells of this set: make ablations PRESET={run.preset.name} trains them.")
    return {kind: pd.DataFrame() for kind in KINDS}, pd.DataFrame()


def shown(run: Run) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """What `cells_of` gives or, where that is nothing, rows of a few tiny cells run here; says so.

    The tiny cells (`FEW`, one seed, one epoch at 32 pixels) show that everything runs; their rows name a preset of
    their own. Empty tables, and a printed sentence, where the set has no labels to probe for.
    """
    found, bootstrap = cells_of(run)
    if len(found["cells"]):
        return found, bootstrap
    print(f"{len(FEW)} tiny ones are run now, too short to learn from.")
    short = presets.override(run.preset, {"model.image_size": 32, "train.epochs": 1})
    tiny, out = replace(short, name=f"{run.preset.name}, tiny cells"), run.out / "ablations"
    try:
        for cell in left(out, tiny, FEW, [run.seed]):
            keep(out, cell, run_cell(cell, tiny, run.faces, out / "cells" / cell.stem))
    except BadInput as error:
        if not measure.probed(run).views:
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
