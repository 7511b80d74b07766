"""Command line: python -m pcl_lib.ablations."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from pcl_lib import presets, reproduce
from pcl_lib.ablations import scaling
from pcl_lib.ablations.cells import WORKERS, current, report, run_cells
from pcl_lib.ablations.variants import GROUPS, SCALING, SEARCH, VARIANTS
from pcl_lib.utils import BadInput, exit_cleanly, only_one, remove_leftovers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.ablations",
        description="Train and probe the variants of the ablation table, cell by cell; goes on where it was.",
    )
    parser.add_argument("--preset", default="cpu", help=", ".join(presets.PRESETS))
    parser.add_argument(
        "--data", default="", metavar="FOLDER", help="prepared folder; without it faces are rendered"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="run folder (default runs/PRESET-ablations; with --scaling runs/PRESET-beyond)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, from 0 on (default 3)")
    parser.add_argument("--only", nargs="+", metavar="VARIANT", help=f"some of: {', '.join(VARIANTS)}")
    parser.add_argument(
        "--scaling",
        action="store_true",
        help="pcl by people x images x iterations x width instead, on rendered faces, with power laws",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="the tries for pcl_plus instead: give them --data of their own, so that no test people are looked at",
    )
    parser.add_argument(
        "--workers", type=int, help="cells at a time (default: one a core, at most 4; 1 on a GPU)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help="time budget: cells not done by then wait for the same command (default: none)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="a Dask scheduler, e.g. tcp://host:8786, instead of --workers here",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.ablations."""
    given = _parser().parse_args(argv)
    variants = given.only or list(SCALING if given.scaling else SEARCH if given.search else GROUPS)
    if unknown := [name for name in variants if name not in VARIANTS]:
        raise BadInput(f"--only: there is no variant '{unknown[0]}', choose some of {', '.join(VARIANTS)}")
    if given.seeds < 1 or (given.workers is not None and given.workers < 1):
        raise BadInput("--seeds and --workers must be 1 or more")
    if given.minutes is not None and not given.minutes > 0:
        raise BadInput("--minutes must be more than 0")
    workers = given.workers or (1 if torch.cuda.is_available() else min(WORKERS, os.cpu_count() or 1))
    out = given.out or Path("runs") / f"{given.preset}-{'beyond' if given.scaling else 'ablations'}"
    run = reproduce.open_run(given.preset, given.data, out.resolve(), 0)
    with only_one(run.out / ".ablations.lock", f"the ablations in {run.out}"):
        remove_leftovers(run.out / "tables")
        failed = run_cells(
            run, variants, range(given.seeds), workers, scheduler=given.scheduler, minutes=given.minutes
        )
    report(run.out, run.preset, variants, range(given.seeds))
    if given.scaling:
        cost = scaling.operations(presets.PRESETS["paper"], run.faces)
        print(*scaling.report(run.out, current(run.out, run.preset), run.preset, cost), sep="\n")
    if failed:
        raise BadInput(
            f"{len(failed)} cells failed, the others are in {out}/tables: remove the cause "
            f"({next(iter(failed.values()))}) and run the same command again"
        )


if __name__ == "__main__":
    exit_cleanly(main)
