"""Result rows on disk, and the paper's tables made from them alone: as CSV, Markdown and LaTeX.

An `Estimate` of a table holds a value and its interval; the CSV holds plain numbers, the others rounded text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcl_lib.probes import FEATURES
from pcl_lib.probes.tasks import OPTIMISTIC
from pcl_lib.utils import BadInput, commit, replace_atomically, versions

# What every result row says about itself besides its value.
CONTEXT = ("method", "preset", "seed", "data", "protocol", "device", "precision", "versions", "commit")
# A column of the main table: its task and metric in the rows, and whether more or less is better.
MAIN_COLUMNS = {
    "expression accuracy": ("expression", "accuracy", "higher"),
    "verification accuracy": ("verification", "accuracy", "higher"),
    "cross-pose verification accuracy": ("cross-pose verification", "accuracy", "higher"),
    "AU mean F1": ("action units", "F1 mean", "higher"),
    "AU mean AUC": ("action units", "AUC mean", "higher"),
    "yaw MAE": ("head pose", "MAE yaw", "lower"),
    "pitch MAE": ("head pose", "MAE pitch", "lower"),
    "roll MAE": ("head pose", "MAE roll", "lower"),
}
ALIKE = ("preset", "data", "protocol")  # what the rows of one table may not mix
# Two features by what both are called: what a flip turns over is read from the second, all else from the first.
FEATURE_PAIRS = {"branches": ("face", "pose"), "components": ("even", "odd")}
TURNED = ("MAE yaw", "MAE roll")
CONSTANT = "chance baseline"
HERE = "this run"  # in a column source: measured, not cited
HEADLINES = ("main", "disentanglement")  # the tables whose numbers go into summary.json


@dataclass(frozen=True)
class Estimate:
    """One number of a table.

    low, high: 95% interval of a single seed; std: sample standard deviation over seeds; NaN where there is none.
    better: "higher", "lower" or "" (no best value in this column). missing: why there is no value, where so.
    """

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    std: float = math.nan
    better: str = ""
    digits: int = 3
    missing: str = ""

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if self.missing:
            return self.missing
        text = self.rounded
        if math.isfinite(self.std):
            return f"{text} ± {self.std:.{self.digits}f}"
        if math.isfinite(self.low):
            return f"{text} [{self.low:.{self.digits}f}, {self.high:.{self.digits}f}]"
        return text

    @property
    def rounded(self) -> str:
        """The value as it is shown."""
        return f"{self.value:.{self.digits}f}"


@dataclass(frozen=True)
class Table:
    """A table as it is shown: its rows, and what holds for all of them.

    frame: strings, numbers and `Estimate`s. context: preset, data, protocol, seeds and more, in words. blocks: headings
    before some row numbers. difference: whether its estimates are leads of one method over another. over: what was
    resampled for its intervals, in words. A notebook shows it as Markdown.
    """

    frame: pd.DataFrame
    context: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[int, str] = field(default_factory=dict)
    difference: bool = False
    over: str = "test identities"

    def _repr_markdown_(self) -> str:
        return to_markdown(self, "")


def save_rows(frame: pd.DataFrame, folder: Path | str, name: str, **context: Any) -> pd.DataFrame:
    """Write result rows to folder/<name>.csv, each with where it came from; returns them.

    frame: a table of `evaluate`, `leakage` or `swap_report`, or several of them in one. context: columns that the
    frame lacks, of `CONTEXT` (`reproduce.Run.save_rows` fills those of a run) and others. protocol is "validation"
    where nobody names another. Raises BadInput where a column of `CONTEXT` is missing.
    """
    given = {"protocol": "validation", "versions": versions(), "commit": commit()} | context
    rows = frame.assign(**{key: value for key, value in given.items() if key not in frame})
    if missing := [key for key in CONTEXT if key not in rows]:
        raise BadInput(
            f"the rows for {name} do not say their {', '.join(missing)}: give it as {missing[0]}=..."
        )
    rows = rows[["method", *(column for column in rows if column != "method")]]
    with replace_atomically(Path(folder) / f"{name}.csv") as path:
        rows.to_csv(path, index=False)
    return rows


def main_table(rows: pd.DataFrame) -> Table:
    """Methods x tasks on the general feature: one row per method, in the order they come, and `MAIN_COLUMNS`.

    rows: of `probes.evaluate` and `probes.baseline_rows`, with the columns that `save_rows` adds. Rows of the face and
    the pose feature are passed over. Several seeds give mean ± standard deviation, one seed its 95% interval.
    Angles in degrees, the rest in 0..1. A task that no method has is "n/a: no labels" ("no pairs"), a single gap
    "n/a: not run". The context says preset, data, protocol, seeds and more.
    Raises BadInput where rows of several data sets, presets or protocols are mixed, or a seed stands twice.
    """
    need_columns(rows, "feature", "task", "metric", "value")
    rows = rows[~rows["feature"].isin(FEATURES[1:])]
    context = context_of(rows)
    methods = list(rows["method"].unique())
    columns: dict[str, Any] = {"method": methods}
    for column, (task, metric, better) in MAIN_COLUMNS.items():
        part = rows[(rows["task"] == task) & (rows["metric"] == metric)]
        gap = "n/a: not run" if len(part) else f"n/a: no {'pairs' if 'verification' in task else 'labels'}"
        digits = 2 if "MAE" in metric else 3
        columns[column] = [estimate(part[part["method"] == m], gap, better, digits) for m in methods]
    return Table(pd.DataFrame(columns), context)


def readings(rows: pd.DataFrame) -> pd.DataFrame:
    """Result rows by how a method is read: from one feature, or each task from the one of two that should hold it.

    rows: of probes, or their bootstrap. The general feature keeps the name of its method; "pcl, branches" is read from
    the face-aware and the pose-related feature, "pcl, components" from the even and the odd one of the general feature
    (`probes.EvenOdd`): `TURNED` from the second, all else from the first.
    """
    found = [rows[rows["feature"] == "general"]]
    for name, (first, second) in FEATURE_PAIRS.items():
        turned = rows["metric"].isin(TURNED)
        own = rows[((rows["feature"] == first) & ~turned) | ((rows["feature"] == second) & turned)]
        found.append(own.assign(method=own["method"] + f", {name}"))
    return pd.concat(found, ignore_index=True)


def components_table(rows: pd.DataFrame) -> Table:
    """`main_table` of methods as `readings` names them, but for the plain ones: each task from one of two features.

    Pitch is read from the first of the two: a flip does not turn it over. Constant answers stay as they are.
    Raises as `main_table`.
    """
    need_columns(rows, "feature", "task", "metric", "value")
    read = readings(rows)
    pairs = read[~read["method"].isin(rows["method"])].assign(feature="of two")
    return main_table(pd.concat([rows[~rows["feature"].isin(FEATURES)], pairs], ignore_index=True))


def disentanglement_table(rows: pd.DataFrame) -> Table:
    """What each feature of each method reveals: one row per method and feature, one column per factor and its metric.

    rows: of `disentangle.leakage`, with the columns that `save_rows` adds. A last row holds what a constant
    answer gets. No value is the best of its column: yaw should be readable from the pose feature and not from the face
    feature. Raises as `main_table`.
    """
    need_columns(rows, "feature", "factor", "metric", "value", "chance")
    context = context_of(rows)
    pairs = [
        (method, feature)
        for method in rows["method"].unique()
        for feature in FEATURES
        if ((rows["method"] == method) & (rows["feature"] == feature)).any()
    ]
    columns: dict[str, Any] = {
        "method": [*(method for method, _ in pairs), CONSTANT],
        "feature": [*(feature for _, feature in pairs), "none"],
    }
    for (factor, metric), part in rows.groupby(["factor", "metric"], sort=False):
        cells = [
            estimate(part[(part["method"] == method) & (part["feature"] == feature)], "n/a: not run")
            for method, feature in pairs
        ]
        columns[f"{factor} {metric}"] = [*cells, Estimate(float(part["chance"].mean()))]
    return Table(pd.DataFrame(columns), context)


def need_columns(rows: pd.DataFrame, *columns: str) -> None:
    """Raise BadInput where there are no result rows, or they lack one of `columns` or of `CONTEXT`."""
    if missing := [name for name in (*columns, *CONTEXT) if name not in rows]:
        raise BadInput(
            f"result rows without the column {missing[0]!r} make no table: write them with save_rows"
        )
    if not len(rows):
        raise BadInput("there are no result rows to make a table of: run notebook 05 first")


def estimate(group: pd.DataFrame, gap: str, better: str = "", digits: int = 3) -> Estimate:
    """The cell of rows that differ in the seed alone."""
    if not len(group):
        return Estimate(missing=gap)
    mean = summarise(group)
    if len(mean) > 1:
        differ = [str(name) for name in mean if mean[name].nunique(dropna=False) > 1]
        raise BadInput(
            f"rows of {group['method'].iloc[0]} for one cell differ in {', '.join(differ)}: keep those of one kind"
        )
    value, std = float(mean["value"].iloc[0]), float(mean["std"].iloc[0])
    if len(group) > 1 or "low" not in group:
        return Estimate(value, std=std, better=better, digits=digits)
    return Estimate(
        value, float(group["low"].iloc[0]), float(group["high"].iloc[0]), better=better, digits=digits
    )


def context_of(rows: pd.DataFrame, alike: Sequence[str] = ALIKE) -> dict[str, str]:
    """What holds for the whole table, in words. Raises BadInput where rows differ in a column of `alike`."""
    for name in alike:
        if rows[name].nunique() > 1:
            found = ", ".join(map(str, rows[name].unique()))
            raise BadInput(f"the rows of one table differ in {name} ({found}): make a table of each")
    names = [name for name in CONTEXT if name not in ("method", "seed")]
    said = {name: " / ".join(map(str, rows[name].unique())) for name in names}
    if said["protocol"] in OPTIMISTIC:
        said["protocol"] += " (optimistic: the epoch is chosen on the test split)"
    what = "task" if "task" in rows else "factor"
    if "n" in rows:
        counts = rows.groupby(what, sort=False)["n"].unique()
        said["n"] = ", ".join(f"{task} {' / '.join(f'{x:.0f}' for x in n)}" for task, n in counts.items())
    if "labels" in rows and (pseudo := rows["labels"] == "pseudo").any():
        said["pseudo labels"] = ", ".join(map(str, rows.loc[pseudo, what].unique()))
    return said | {"seeds": " ".join(map(str, sorted(rows["seed"].unique())))}


def write_table(
    table: Table | pd.DataFrame, out_stem: Path | str, caption: str, latex: bool = True
) -> list[Path]:
    """Write `out_stem`.csv (plain numbers), .md and .tex (booktabs, best value of a column bold); returns the paths.

    table: of `main_table` or `disentanglement_table`, or any table of strings and numbers. An `Estimate` column gets
    columns "... low", "... high" and "... std" next to it in the CSV, where there are such; gaps are empty there and
    named in the column "missing". The context stands in the CSV's last columns and under the caption. latex: whether
    the .tex is written; figures/tables does without.
    """
    table = table if isinstance(table, Table) else Table(table)
    note = "; ".join(f"{name} {text}" for name, text in table.context.items())
    full = f"{caption.rstrip('.')}.{_legend(table)}" + (f" ({note})" if note else "")
    text = {
        ".csv": lambda: _plain(table).to_csv(index=False),
        ".md": lambda: to_markdown(table, full),
        **({".tex": lambda: to_latex(table, full)} if latex else {}),
    }
    written = []
    for suffix, make in text.items():
        # not with_suffix: "main.v2" has none
        path = Path(f"{out_stem}{suffix}")
        with replace_atomically(path) as temporary:
            temporary.write_text(make(), encoding="utf-8")
        written.append(path)
    return written


def _legend(table: Table) -> str:
    cells = [x for column in table.frame for x in table.frame[column] if isinstance(x, Estimate)]
    over = table.over + (" and seeds, of the difference" if table.difference else "")
    text = f" In brackets: 95% interval over {over}." if any(math.isfinite(c.low) for c in cells) else ""
    if any(math.isfinite(c.std) for c in cells):
        text += " ±: standard deviation over seeds."
    if any("MAE" in str(column) for column in table.frame):
        text += f" MAE in degrees, {'a positive lead' if table.difference else 'lower'} is better."
    return text


def _plain(table: Table) -> pd.DataFrame:
    """The table in plain numbers and strings."""
    columns: dict[str, Any] = {}
    gaps: list[list[str]] = [[] for _ in range(len(table.frame))]
    for name in table.frame:
        cells = list(table.frame[name])
        if not cells or not isinstance(cells[0], Estimate):
            columns[str(name)] = cells
            continue
        columns[str(name)] = [cell.value for cell in cells]
        for more in ("low", "high", "std"):
            values = [getattr(cell, more) for cell in cells]
            if any(map(math.isfinite, values)):
                columns[f"{name} {more}"] = values
        for gap, cell in zip(gaps, cells, strict=True):
            gap += [f"{name} {cell.missing}"] if cell.missing.startswith("n/a") else []
    if any(gaps):
        columns["missing"] = ["; ".join(gap) for gap in gaps]
    return pd.DataFrame(columns | {name: [text] * len(gaps) for name, text in table.context.items()})


def headline(path: Path) -> dict[str, dict[str, float]]:
    """The values of a CSV of `write_table`, by row ("pcl", "pcl, pose") and column; empty where there is no file.

    Rows of another source than `HERE` (published figures) are passed over.
    """
    if not path.is_file():
        return {}
    table = pd.read_csv(path)
    if "source" in table:
        table = table[table["source"] == HERE]
    names = [name for name in ("method", "feature") if name in table]
    no_values = (*CONTEXT, "n", "seeds")
    numbers = [str(name) for name in table.select_dtypes("number") if name not in no_values]
    values = [name for name in numbers if not name.endswith((" low", " high", " std"))]
    return {
        ", ".join(str(row[name]) for name in names): {
            name: float(row[name]) for name in values if pd.notna(row[name])
        }
        for _, row in table.iterrows()
    }


def to_markdown(table: Table, caption: str) -> str:
    """The table as GitHub's Markdown, best values bold."""
    frame = table.frame
    lines = [[_escape_markdown(str(name)) for name in frame], ["---"] * frame.shape[1]]
    for row, line in enumerate(_body(frame, _escape_markdown, "**{}**".format)):
        if row in table.blocks:
            lines.append([f"*{_escape_markdown(table.blocks[row])}*", *[""] * (frame.shape[1] - 1)])
        lines.append(line)
    return (f"{caption}\n\n" if caption else "") + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_latex(table: Table, caption: str) -> str:
    """The table as LaTeX for the booktabs package, best values bold."""
    frame = table.frame
    head = " & ".join(_escape_latex(str(name)) for name in frame)
    body = ""
    for row, line in enumerate(_body(frame, _escape_latex, "\\textbf{{{}}}".format)):
        if row in table.blocks:
            heading = (
                f"\\multicolumn{{{frame.shape[1]}}}{{l}}{{\\emph{{{_escape_latex(table.blocks[row])}}}}}"
            )
            body += ("\\midrule\n" if row else "") + f"{heading} \\\\\n"
        body += f"{' & '.join(line)} \\\\\n"
    # The text columns to the left, numbers centred.
    columns = "".join("l" if all(isinstance(x, str) for x in frame[name]) else "c" for name in frame)
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_escape_latex(caption)}}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n"
        f"{head} \\\\\n\\midrule\n{body}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _body(frame: pd.DataFrame, escape: Callable[[str], str], bold: Callable[[str], str]) -> list[list[str]]:
    shown = []
    for name in frame:
        best = _best(list(frame[name]))
        texts = [escape(_show(x)) for x in frame[name]]
        shown.append([bold(t) if i in best else t for i, t in enumerate(texts)])
    return [list(line) for line in zip(*shown, strict=True)]


def _best(cells: list[Any]) -> set[int]:
    """Places of the best value as it is shown; none where there is no choice."""
    known = [
        (i, c) for i, c in enumerate(cells) if isinstance(c, Estimate) and math.isfinite(c.value) and c.better
    ]
    if len(known) < 2:
        return set()
    pick = max if known[0][1].better == "higher" else min
    winner = pick((c for _, c in known), key=float).rounded
    return {i for i, c in known if c.rounded == winner}


def _show(x: Any) -> str:
    if isinstance(x, float):
        return "n/a" if math.isnan(x) else f"{x:.3f}"
    return str(x)


def _escape_markdown(text: str) -> str:
    return text.replace("|", "\\|")


def _escape_latex(text: str) -> str:
    special = {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "±": "$\\pm$",
    }
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)


# Columns that belong to one seed, or only say how a row came about; rows that differ in others are not one result.
PER_SEED = ("value", "low", "high", "penalty", "threshold", "epoch", "chance", "seed")
PROVENANCE = ("device", "precision", "versions", "commit")


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread over seeds of rows that differ in nothing but seed and value.

    rows: as `save_rows` writes them. Returns their columns with value = mean over seeds, std = sample standard
    deviation (NaN for one seed), n_seeds and seeds ("0 1 2"); where devices, precisions, versions or commits differ,
    all are named. Raises BadInput where a seed stands twice for one row.
    """
    if "seed" not in rows or "value" not in rows:
        raise BadInput("only rows with the columns value and seed can be summarised; save_rows writes such")
    keys = [name for name in rows if name not in PER_SEED and name not in PROVENANCE]
    found = []
    for key, group in rows.groupby(keys, sort=False, dropna=False):
        if group["seed"].duplicated().any():
            twice = group["seed"][group["seed"].duplicated()].iloc[0]
            raise BadInput(f"seed {twice} stands twice for {', '.join(map(str, key))}; keep one")
        seeds = sorted(group["seed"])
        spread = group["value"].std(ddof=1) if len(group) > 1 else np.nan
        found.append(
            dict(zip(keys, key, strict=True))
            | {"value": group["value"].mean(), "std": spread}
            | {"n_seeds": len(seeds), "seeds": " ".join(map(str, seeds))}
            | {name: "; ".join(map(str, group[name].unique())) for name in PROVENANCE if name in rows}
        )
    return pd.DataFrame(found)
