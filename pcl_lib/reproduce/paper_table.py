"""The table in the form of the paper's: methods x data sets, filled as far as the sets of a run allow it.

Published figures stand in a block of their own, with their source: they were not measured here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from pcl_lib.data.labels import ANGLE_NAMES, PAPER_UNITS
from pcl_lib.probes import FEATURES
from pcl_lib.probes.tasks import LeftOut
from pcl_lib.tables import HERE, MAIN_COLUMNS, Estimate, Table, context_of, estimate, need_columns

NOT_GIVEN = "n/a: not given"
PUBLISHED = "Published by others, not measured here: other training data and protocols; see the column source"
POSE_SETS = ("300W-LP", "AFLW2000")


@dataclass(frozen=True)
class Column:
    """A column: its title, the sets that it needs, what its result rows are called, and published figures.

    data: names of the rows' data that fill it. better: "higher" or "lower". published: data set and metric in
    reference_results.csv; None where no published figure is of this very measure.
    """

    title: str
    needs: tuple[str, ...]
    data: tuple[str, ...]
    task: str
    metric: str
    better: str
    published: tuple[str, str] | None = None


def _columns() -> list[Column]:
    expression, verification = ("expression", "accuracy", "higher"), ("verification", "accuracy", "higher")
    columns = [
        Column(f"{name} expression accuracy", (name,), (name,), *expression, (name, "linear accuracy"))
        for name in ("RAF-DB", "FER-2013")
    ]
    columns += [
        Column(
            f"{name} verification accuracy", (name,), (name,), *verification, (name, "verification accuracy")
        )
        for name in ("LFW", "CPLFW")
    ]
    f1 = [f"F1 {unit}" for unit in PAPER_UNITS] + [f"F1 mean of {len(PAPER_UNITS)}"]
    columns += [Column(f"DISFA {m}", ("DISFA",), ("DISFA",), "action units", m, "higher") for m in f1]
    train, test = POSE_SETS
    joint = (f"train {train}, test {test}", f"{train} and {test}")  # two folders, or one that holds both
    columns += [
        Column(f"{test} {angle} MAE", POSE_SETS, joint, "head pose", f"MAE {angle}", "lower")
        for angle in (*ANGLE_NAMES, "mean")
    ]
    return columns


COLUMNS = _columns()


def paper_table(
    rows: pd.DataFrame, notes: Mapping[str, Sequence[LeftOut]], published: pd.DataFrame | None = None
) -> Table:
    """Methods x the paper's data sets and metrics (`COLUMNS`), then whatever else was probed; general feature.

    rows: of `measure.probe_rows` as saved. notes: what was left out, by the name of each set given
    (`tasks.Probed.notes`). published: of `measure.reference_results`; its figures come last, as shares of 1, under a
    heading. A column without rows is "n/a: not given", or says why its set cannot be probed. Pseudo labels are named in
    the column's title. Raises BadInput as `tables.main_table`, but sets may be mixed.
    """
    need_columns(rows, "feature", "task", "metric", "value")
    rows = rows[~rows["feature"].isin(FEATURES[1:])]
    methods = [str(method) for method in rows["method"].unique()]
    cited = _cited(published)
    made: dict[str, Any] = {
        "method": methods + [method for method, _ in cited],
        "source": [HERE] * len(methods) + [source for _, source in cited],
    }
    for column in (*COLUMNS, *_others(rows)):
        part = rows[rows["data"].isin(column.data) & (rows["task"] == column.task)]
        part = part[part["metric"] == column.metric]
        gap = "n/a: not run" if len(part) else _gap(column, notes)
        digits = 2 if "MAE" in column.metric else 3
        cells = [estimate(part[part["method"] == method], gap, column.better, digits) for method in methods]
        made[_title(column, part)] = cells + [_figure(column, published, *key) for key in cited]
    blocks = {0: "Measured in this run"} | ({len(methods): PUBLISHED} if cited else {})
    return Table(pd.DataFrame(made), context_of(rows, alike=("preset", "protocol")), blocks)


def _others(rows: pd.DataFrame) -> list[Column]:
    """Columns of the main table for whatever no column of the paper shows: rendered faces, your own sets."""
    shown = {(name, column.task, column.metric) for column in COLUMNS for name in column.data}
    return [
        Column(f"{name} {title}", (name,), (name,), task, metric, better)
        for name in rows["data"].unique()
        for title, (task, metric, better) in MAIN_COLUMNS.items()
        if (name, task, metric) not in shown
        and ((rows["data"] == name) & (rows["task"] == task) & (rows["metric"] == metric)).any()
    ]


def _title(column: Column, part: pd.DataFrame) -> str:
    pseudo = "labels" in part and (part["labels"] == "pseudo").any()
    return column.title + (" (pseudo labels)" if pseudo else "")


def _gap(column: Column, notes: Mapping[str, Sequence[LeftOut]]) -> str:
    """Why a column is empty: its sets were not given, or what was said of them."""
    if any(name in notes for name in column.data):
        given = [name for name in column.data if name in notes]
    elif missing := [name for name in column.needs if name not in notes]:
        return NOT_GIVEN if len(missing) == len(column.needs) else f"n/a: {' and '.join(missing)} not given"
    else:
        given = list(column.needs)
    said = [note for name in given for note in notes[name] if note.task == column.task]
    said.sort(key=lambda note: column.metric.split()[-1] not in note.columns)  # on this unit or angle, first
    return f"n/a: {str(said[0]).removesuffix('.')}" if said else "n/a: no such result"


def _cited(published: pd.DataFrame | None) -> list[tuple[str, str]]:
    """Method and source of the published figures that some column takes."""
    if published is None:
        return []
    taken = {column.published for column in COLUMNS}
    rows = [row for row in published.itertuples() if (row.dataset, row.metric) in taken]
    return list(dict.fromkeys((str(row.method), str(row.source)) for row in rows))


def _figure(column: Column, published: pd.DataFrame | None, method: str, source: str) -> Estimate:
    """A published figure, per cent as a share of 1; never marked as best."""
    if published is None or column.published is None:
        return Estimate(missing="–")
    data, metric = column.published
    own = published[(published["method"] == method) & (published["source"] == source)]
    value = own.loc[(own["dataset"] == data) & (own["metric"] == metric), ["value", "unit"]]
    if not len(value):
        return Estimate(missing="–")
    whole = 100 if value["unit"].iloc[0] == "%" else 1
    return Estimate(float(value["value"].iloc[0]) / whole)
