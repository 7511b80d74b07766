"""How fast, and with how much memory: `python -m pcl_lib.bench PART`. Ratios are taken within one run.

Each part times the kit's way next to the straightforward one, which lives here and nowhere else: the tensor form of
the mixed negatives, one PIL image after the other, plain float32 in the default memory format, and a probe that runs
the encoder in every epoch; for data on the disk, in `pcl_lib.bench.preparation`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from pcl_lib.bench import report
from pcl_lib.bench.parts import PARTS
from pcl_lib.bench.timing import Bench, threads
from pcl_lib.utils import BadInput, check_writable, commit, exit_cleanly, machine, replace_atomically


def main() -> None:
    """Command line: python -m pcl_lib.bench."""
    parser = argparse.ArgumentParser(prog="python -m pcl_lib.bench", description=__doc__)
    parser.add_argument("part", help=", ".join([*PARTS, "all"]))
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each form (default 7)")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="default: as torch chooses"
    )
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="keep the rows in FOLDER/bench-KIND.csv, in the place of older ones of the same parts",
    )
    parser.add_argument(
        "--markdown",
        type=Path,
        metavar="FILE",
        help="write a page of all bench-KIND.csv that FOLDER holds",
    )
    arguments = parser.parse_args()
    _check(arguments)
    about, rows = {}, []
    with threads(arguments.threads):
        about = machine(arguments.device) | {"commit": commit()}
        print("; ".join(f"{name} {value}" for name, value in about.items()))
        every = [part for part in PARTS if part != "gpu-check"]  # asked for by name, on a machine with a GPU
        for part in every if arguments.part == "all" else [arguments.part]:
            bench = Bench(part, arguments.repeats, arguments.device)
            PARTS[part](bench)
            rows += bench.rows
    if arguments.out:
        kind = "cuda" if arguments.device == "cuda" else about["instructions"].lower()
        report.keep_rows(arguments.out, kind, about, rows)
    if arguments.markdown:
        _write_page(report.read_kinds(arguments.out), arguments.markdown)


def _write_page(kinds: dict[str, report.Kind], page: Path) -> None:
    """The page and its picture, of all kinds of machine whose rows are there."""
    summaries = {part: (bench.__doc__ or "").strip().split("\n")[0] for part, bench in PARTS.items()}
    picture = page.with_suffix(".png")
    with replace_atomically(page) as path:
        path.write_text(report.markdown(kinds, summaries, picture.name), encoding="utf-8")
    sizes = {kind: [row for row in rows if row.part == "sizes"] for kind, (_, rows) in kinds.items()}
    if any(sizes.values()):
        report.plot_sizes({kind: rows for kind, rows in sizes.items() if rows}, picture)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.part not in (*PARTS, "all"):
        raise BadInput(f"unknown part '{arguments.part}': choose one of {', '.join(PARTS)} or all")
    if min(arguments.repeats, arguments.threads) < 1:
        raise BadInput("--repeats and --threads must be at least 1")
    if arguments.device not in ("cpu", "cuda") or (
        arguments.device == "cuda" and not torch.cuda.is_available()
    ):
        raise BadInput(
            f"device '{arguments.device}' is not here: choose cpu, or cuda on a machine with a GPU"
        )
    if arguments.markdown and not arguments.out:
        raise BadInput("--markdown needs --out FOLDER: the page shows the rows that are kept there")
    for folder in (arguments.out, arguments.markdown and arguments.markdown.parent):
        if folder:
            check_writable(folder)


if __name__ == "__main__":
    exit_cleanly(main)
