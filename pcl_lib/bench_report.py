"""The page figures/benchmarks.md and its plot, from the rows that `pcl_lib.bench` measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from pcl_lib.bench_timing import Row, shown_rate
from pcl_lib.files import replace_atomically


def markdown(rows: list[Row], about: dict[str, str], summaries: dict[str, str]) -> str:
    """The page figures/benchmarks.md of the measured rows."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `python -m pcl_lib.bench all --markdown figures/benchmarks.md`; ratios are within one run, against",
        "the first form of each case. ms: median (lowest to highest). Memory: tensors above what was there before.",
        "",
        *(f"- {name}: {value}" for name, value in about.items()),
    ]
    for part in dict.fromkeys(row.part for row in rows):
        lines += ["", f"## {part}", "", summaries[part], ""]
        lines += ["| case | form | threads | ms | per second | faster | MiB | repeats | note |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for row in (row for row in rows if row.part == part):
            memory = "" if row.peak_mib is None else f"{row.peak_mib:,.1f}"
            lines.append(
                f"| {row.case} | {row.form} | {row.threads} | {row.ms:,.1f} ({row.ms_low:,.1f} to {row.ms_high:,.1f})"
                f" | {shown_rate(row)} {row.unit} | {row.ratio:,.1f}x | {memory} | {row.repeats} | {row.note} |"
            )
    return "\n".join(lines) + "\n"


SIZES = re.compile(r"width ([\d.]+), batch (\d+)")


def plot_sizes(rows: list[Row], path: Path) -> None:
    """Milliseconds of a PDD step against batch (left) and width (right), both on logarithmic axes."""
    found = [(float(m[1]), int(m[2]), row.ms) for row in rows if (m := SIZES.fullmatch(row.case))]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
    by_batch = sorted((batch, ms) for width, batch, ms in found if width == 0.25)
    by_width = sorted((width, ms) for width, batch, ms in found if batch == 16)
    _curve(axes[0], by_batch, "batch (width 0.25)")
    _curve(axes[1], by_width, "width (batch 16)")
    axes[0].set_ylabel("one PDD step (ms)")
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _curve(ax: Axes, points: Sequence[tuple[float, float]], label: str) -> None:
    places = [x for x, _ in points]
    ax.loglog(places, [ms for _, ms in points], marker="o")
    ax.set(xlabel=label, xticks=places, xticklabels=[f"{x:g}" for x in places])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
