"""The page figures/benchmarks.md and its plot, from the rows that `pcl_lib.bench` measured on each kind of machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from pcl_lib.bench.timing import Row
from pcl_lib.utils import replace_atomically

PREFIX = "bench-"  # of the file with the rows of one kind of machine; the kind follows
NO_GPU = "Not run on a GPU yet: the command is `python -m pcl_lib.bench gpu-check`."


@dataclass(frozen=True)
class Target:
    """What a form of a case should reach: "faster" at least `least`; why: what hinders it where it does not."""

    what: str
    part: str
    case: str
    form: str
    least: float
    why: str = ""

    def verdict(self, rows: Sequence[Row]) -> str:
        """What the rows of one machine say: the ratio, and whether it is met; empty where it was not measured."""
        for row in rows:
            if (row.part, row.form) == (self.part, self.form) and row.case.startswith(self.case):
                return f"{row.ratio:,.2f}x, " + ("met" if row.ratio >= self.least else f"missed: {self.why}")
        return ""


@dataclass(frozen=True)
class Share:
    """At least so much of a matrix product's rate for every step of a network in a precision (part `limit`)."""

    what: str
    case: str
    form: str
    least: float

    def verdict(self, rows: Sequence[Row]) -> str:
        """The lowest and the highest share of the steps, and whether the lowest is enough."""
        found = [
            int(row.note.split("%")[0]) / 100
            for row in rows
            if row.part == "limit" and row.form == self.form and row.case.startswith(self.case)
        ]
        if not found:
            return ""
        return f"{min(found):.0%} to {max(found):.0%}, " + ("met" if min(found) >= self.least else "missed")


@dataclass(frozen=True)
class Most:
    """At most so many seconds for the slowest case of a form."""

    what: str
    part: str
    form: str
    seconds: float

    def verdict(self, rows: Sequence[Row]) -> str:
        """The median of the slowest case, and whether it is short enough; empty where it was not measured."""
        found = [row.ms / 1e3 for row in rows if (row.part, row.form) == (self.part, self.form)]
        if not found:
            return ""
        return f"{max(found):.3g} s, " + ("met" if max(found) <= self.seconds else "missed")


CONVOLUTION = "what is left is convolution (see operators)"
PIL = "one PIL image after the other makes some 1,000 views/s in these versions, not 200 to 300"
BESIDE = "the loss is the same product of two matrices in both"
TARGETS = (
    Target(
        "mixed negatives, forward and backward, B = 256",
        "losses",
        "B = 256",
        "Gram",
        100,
        "few large products",
    ),
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
        "both cores compute, and reading takes a share of one",
    ),
)
SHARES = (
    Share("float32, paper's network, of the matrix product's rate", "paper network", "float32", 0.5),
    Share("bfloat16, paper's network", "paper network", "bfloat16", 0.4),
    Share("float32, cpu preset", "cpu preset", "float32", 0.35),
    Share("bfloat16, cpu preset", "cpu preset", "bfloat16", 0.35),
)
MOST = (
    Most("imports of notebook 00", "start", "imports", 5),
    Most("imports and first picture of notebook 00", "start", "imports and the first picture", 60),
    Most("the slowest slider to its picture", "widgets", "slider to PNG", 0.1),
)
Kind = tuple[dict[str, str], list[Row]]  # about a machine, and what was measured on it


def targets(kinds: Mapping[str, Sequence[Row]]) -> list[str]:
    """The table of `TARGETS`, `SHARES` and `MOST`, a column for each kind of machine, of what was measured."""
    lines = []
    asked = [
        *((target.what, f">= {target.least:g}x", target.verdict) for target in TARGETS),
        *((share.what, f">= {share.least:.0%}", share.verdict) for share in SHARES),
        *((most.what, f"<= {most.seconds:g} s", most.verdict) for most in MOST),
    ]
    for what, goal, verdict in asked:
        said = [verdict(rows) for rows in kinds.values()]
        if any(said):
            lines.append(f"| {what} | {goal} | " + " | ".join(said) + " |")
    if not lines:
        return []
    return ["", "## Targets", "", *_head("what", "target", *kinds), *lines]


def keep_rows(folder: Path, kind: str, about: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Write the rows of a kind of machine to its file in `folder`; older rows of the same parts go."""
    path = folder / f"{PREFIX}{kind}.csv"
    frame = pd.DataFrame([{**about, **asdict(row)} for row in rows])
    if path.is_file():
        older = _read(path)
        frame = pd.concat([older[~older["part"].isin(frame["part"])], frame])
    with replace_atomically(path) as temporary:
        frame.to_csv(temporary, index=False)


def read_kinds(folder: Path) -> dict[str, Kind]:
    """What was measured on each kind of machine, from the files of `folder`: kind -> about the machine, rows.

    What was not the same for all rows, such as the commit, is told with all its values.
    """
    kinds = {}
    for path in sorted(folder.glob(f"{PREFIX}*.csv")):
        frame = _read(path)
        names = [name for name in frame if name not in Row.__dataclass_fields__]
        about = {str(name): " and ".join(filter(None, dict.fromkeys(frame[name]))) for name in names}
        kinds[path.stem.removeprefix(PREFIX)] = (about, [_row(record) for record in frame.to_dict("records")])
    return kinds


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def _row(record: Mapping[Any, Any]) -> Row:
    """A row as it was written by the command."""
    values = {name: record[name] for name in Row.__dataclass_fields__}
    numbers = {name: float(values[name]) for name in ("ms", "ms_low", "ms_high", "per_second", "ratio")}
    whole = {name: int(values[name]) for name in ("threads", "repeats", "count")}
    peak = float(values["peak_mib"]) if values["peak_mib"] else None
    return Row(**{**values, **numbers, **whole, "peak_mib": peak})


def markdown(
    kinds: Mapping[str, Kind],
    summaries: Mapping[str, str],
    picture: str = "benchmarks.png",
) -> str:
    """The page figures/benchmarks.md: a column for each kind of machine, a line for each case.

    kinds: see `read_kinds`. summaries: a sentence for each part, in their order.
    """
    lines = [
        "# Benchmarks",
        "",
        "A cell lists the forms of a case: milliseconds (median), and in brackets how many times faster a form is than",
        f"the first one, in the same run. All rows, with spread, memory and rates: [tables](tables), {PREFIX}*.csv.",
        "On each kind of machine: `python -m pcl_lib.bench all --out figures/tables --markdown figures/benchmarks.md`.",
        "",
        *(f"- **{kind}**: {_described(about)}" for kind, (about, _) in kinds.items()),
        *([] if any(about["device"].startswith("cuda") for about, _ in kinds.values()) else [f"- {NO_GPU}"]),
        *targets({kind: rows for kind, (_, rows) in kinds.items()}),
    ]
    present = {row.part for _, rows in kinds.values() for row in rows}
    parts = [part for part in summaries if part in present]
    lines += ["", "## What is timed", "", *(f"- **{part}**: {summaries[part]}" for part in parts)]
    lines += ["", "## All cases", "", *_head("part: case", *kinds)]
    for part in parts:
        own = [[row for row in rows if row.part == part] for _, rows in kinds.values()]
        for case in dict.fromkeys(row.case for rows in own for row in rows):
            cells = [_cell([row for row in rows if row.case == case]) for rows in own]
            lines.append(f"| {part}: {case} | " + " | ".join(cells) + " |")
    if "sizes" in parts:
        lines += ["", f"![Milliseconds of a PDD step by batch and by width]({picture})"]
    return "\n".join(lines) + "\n"


def _described(about: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in about.items())


def _head(*columns: str) -> list[str]:
    return ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]


def _cell(rows: Sequence[Row]) -> str:
    """The forms of a case on one machine; of operators, their shares of the step."""
    if rows and rows[0].part == "operators":
        return ", ".join(f"{row.form.removeprefix('aten::')} {row.note.split()[0]}" for row in rows)
    return "; ".join(_form(row, faster=i > 0) for i, row in enumerate(rows))


def _form(row: Row, faster: bool) -> str:
    words = [f"{row.form} {row.ms:,.0f}" if row.ms >= 100 else f"{row.form} {row.ms:,.1f}"]
    words += [f"({row.ratio:,.1f}x)"] if faster else []
    return " ".join([*words, *([f"[{row.note}]"] if row.note else [])])


SIZES = re.compile(r"width ([\d.]+), batch (\d+)")


def plot_sizes(kinds: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Milliseconds of a PDD step against batch (left) and width (right), both on logarithmic axes; a line a kind."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained", sharey=True)
    for kind, rows in kinds.items():
        found = [(float(m[1]), int(m[2]), row.ms) for row in rows if (m := SIZES.fullmatch(row.case))]
        by_batch = sorted((batch, ms) for width, batch, ms in found if width == 0.25)
        by_width = sorted((width, ms) for width, batch, ms in found if batch == 16)
        _curve(axes[0], by_batch, "batch (width 0.25)", kind)
        _curve(axes[1], by_width, "width (batch 16)", kind)
    axes[0].set_ylabel("one PDD step (ms)")
    axes[0].yaxis.set_major_locator(LogLocator(base=2))
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].legend()
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    plt.close(figure)


def _curve(ax: Axes, points: Sequence[tuple[float, float]], label: str, kind: str) -> None:
    places = [x for x, _ in points]
    ax.loglog(places, [ms for _, ms in points], marker="o", label=kind)
    ax.set(xlabel=label, xticks=places, xticklabels=[f"{x:g}" for x in places])
    ax.minorticks_off()
    ax.grid(alpha=0.3)
