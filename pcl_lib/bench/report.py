"""The page figures/benchmarks.md and its plot, from the rows that `pcl_lib.bench` measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from pcl_lib.bench.timing import Row, shown_rate
from pcl_lib.utils import replace_atomically


@dataclass(frozen=True)
class Target:
    """What a form of a case should reach: "faster" at least `least`; why: what hinders it where it does not."""

    what: str
    part: str
    case: str
    form: str
    least: float
    why: str = ""

    def lines(self, rows: list[Row]) -> list[str]:
        """A line of the table of targets for each measured row."""
        own = [
            row
            for row in rows
            if (row.part, row.form) == (self.part, self.form) and row.case.startswith(self.case)
        ]
        return [
            f"| {self.what} | >= {self.least:g}x | {row.ratio:,.2f}x, {row.threads} threads | "
            + ("met |" if row.ratio >= self.least else f"missed: {self.why} |")
            for row in own
        ]


CONVOLUTION = (
    "what is left is convolution (see operators), and its bfloat16 is two to three times float32 here"
)
PIL = "the chain of one PIL image after the other makes some 1,000 views/s at 64 px in these versions, not 200 to 300"
BESIDE = "the loss is the same product of two matrices in both"
TARGETS = (
    Target("mixed negatives, forward and backward, B = 256", "losses", "B = 256", "Gram", 100),
    Target("face views against PIL", "augment", "face", "batched", 5, PIL),
    Target("pose views against PIL", "augment", "pose", "batched", 5, PIL),
    Target(
        "a whole iteration, paper's network",
        "iteration",
        "paper network",
        "the kit, bfloat16",
        8,
        CONVOLUTION,
    ),
    Target("a SimCLR step against lightly's", "simclr", "whole step", "the kit", 1, BESIDE),
    Target(
        "a linear probe of 300 epochs", "probes", "300 epochs", "features once", 100, "the encoder is small"
    ),
    Target("feeding from the device's memory", "data", "12 steps", "resident", 0.95, "noise of the clock"),
    Target(
        "feeding from the memory map",
        "data",
        "12 steps",
        "memory-mapped, read ahead",
        0.95,
        "noise of the clock",
    ),
)


def targets(rows: list[Row]) -> list[str]:
    """The table of `TARGETS`, of what was measured; the memory of the mixed negatives with them."""
    lines = [line for target in TARGETS for line in target.lines(rows)]
    peak = {row.form: row.peak_mib for row in rows if (row.part, row.case) == ("losses", "B = 256")}
    if (tensor := peak.get("tensor")) and (gram := peak.get("Gram")):
        verdict = "met" if tensor / gram >= 50 else "missed: see losses"
        lines.append(f"| the same, memory | >= 50x | {tensor / gram:,.0f}x less | {verdict} |")
    return (
        ["", "## Targets", "", "| what | target | measured | |", "|---|---|---|---|", *lines] if lines else []
    )


def markdown(
    rows: list[Row], about: dict[str, str], summaries: dict[str, str], picture: str = "benchmarks.png"
) -> str:
    """The page figures/benchmarks.md of the measured rows."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `python -m pcl_lib.bench all --markdown figures/benchmarks.md`; ratios are within one run, against",
        "the first form of each case. ms: median (lowest to highest). Memory: tensors above what was there before.",
        "",
        *(f"- {name}: {value}" for name, value in about.items()),
        *targets(rows),
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
        if part == "sizes":
            lines += ["", f"![Milliseconds of a PDD step by batch and by width]({picture})"]
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
    axes[0].yaxis.set_major_locator(LogLocator(base=2))
    axes[0].yaxis.set_major_formatter("{x:g}")
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _curve(ax: Axes, points: Sequence[tuple[float, float]], label: str) -> None:
    places = [x for x, _ in points]
    ax.loglog(places, [ms for _, ms in points], marker="o")
    ax.set(xlabel=label, xticks=places, xticklabels=[f"{x:g}" for x in places])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
