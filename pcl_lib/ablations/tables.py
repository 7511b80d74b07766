"""The tables of the ablations, made from the rows that the cells left: ablation, action units, pose, DCI, leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from pcl_lib import disentangle
from pcl_lib.ablations.significance import Question, against, answers
from pcl_lib.data.labels import ANGLE_NAMES, AU_NAMES
from pcl_lib.tables import (
    FEATURE_PAIRS,
    MAIN_COLUMNS,
    Estimate,
    Table,
    components_table,
    context_of,
    estimate,
    need_columns,
    readings,
    write_table,
)

NOT_RUN = "n/a: not run"
TIME, BOUNDS = (
    "other methods in PCL's time",
    "upper bounds: trained on the labels of one task, four times as long",
)
UNRANKED = (TIME, BOUNDS)  # headings whose rows had more images, or labels: never the best of a column
COSTS = {"images": ("images", 0), "training_seconds": ("training (s)", 0), "training_GFLOP": ("GFLOP", 0)}
LEAKS = {  # a column of the ablation table: feature and factor of `disentangle.leakage`
    "yaw R2 from pose": ("pose", "yaw"),
    "yaw R2 from face": ("face", "yaw"),
}
# What the paper's ablation claims, and what it leaves open: each a difference of two variants.
QUESTIONS = (
    Question("does PCL score better than SimCLR?", "pcl", "simclr"),
    Question("than SimCLR in equal time?", "pcl", "simclr, equal time"),
    Question("than SimCLR without flips?", "pcl", "simclr_noflip"),
    Question("than SimCLR without flips in equal time?", "pcl", "simclr_noflip, equal time"),
    Question("are the flips why SimCLR loses pose?", "simclr_noflip", "simclr"),
    Question("does the PDD add to the two contrasts?", "pcl", "face + pose, no PDD"),
    Question("does the pose contrast add to PDD and face?", "pcl", "PDD + face"),
    Question("does the PDD add to the face contrast?", "PDD + face", "face contrast alone"),
    Question("does orthogonality help?", "pcl", "no orthogonality"),
    Question("do dynamic weights help?", "pcl", "fixed weights"),
    Question("does mixing negatives help?", "pcl", "negatives not mixed"),
    Question("a sample's own flips as negatives, not others'?", "pcl", "negatives as released"),
    Question("harder negatives (the batch and its mirror)?", "negatives: batch", "pcl"),
    Question("more negatives?", "K x 4", "K = 1"),
    Question("three steps, not one joint step?", "pcl", "joint update"),
    Question("a flip, not a rotation in the plane?", "pcl", "in-plane rotation"),
    Question("would true turns of the head help?", "3D turn (oracle)", "pcl"),
    Question("does disentangling by construction help?", "pcl_plus", "pcl"),
    Question("do the even and odd components of the general feature help?", "pcl, components", "pcl"),
    Question("also where nothing was learnt?", "random, components", "random"),
    Question("with components, is PCL better than SimCLR?", "pcl, components", "simclr, components"),
    Question(
        "than SimCLR without flips in equal time?", "pcl, components", "simclr_noflip, equal time, components"
    ),
    Question(
        "with components, is pcl_plus better than SimCLR?", "pcl_plus, components", "simclr, components"
    ),
    Question("than SimCLR in equal time?", "pcl_plus, components", "simclr, equal time, components"),
    Question("than SimCLR without flips?", "pcl_plus, components", "simclr_noflip, components"),
    Question(
        "than SimCLR without flips in equal time?",
        "pcl_plus, components",
        "simclr_noflip, equal time, components",
    ),
    Question("than SimCLR by its general feature?", "pcl_plus, components", "simclr"),
    Question("than PCL?", "pcl_plus, components", "pcl, components"),
    Question("than its own two branches?", "pcl_plus, components", "pcl_plus, branches"),
)
ASKED = {
    name: MAIN_COLUMNS[name]
    for name in ("expression accuracy", "verification accuracy", "AU mean F1", "yaw MAE")
}


def ablation_table(
    probes: pd.DataFrame, leakage: pd.DataFrame, cells: pd.DataFrame, groups: Mapping[str, str]
) -> Table:
    """Variants x tasks on the general feature, with what each cost; those that were not run say so.

    probes, leakage, cells: rows of the ablations' cells. groups: variant -> heading, in the order to show them.
    Angles in degrees. Mean and sample standard deviation over seeds. The best of a column is sought among rows of the
    same images seen and no labels (not `UNRANKED`). Raises as `tables.main_table`.
    """
    need_columns(probes, "feature", "task", "metric", "value")
    names = sorted(groups, key=lambda name: list(dict.fromkeys(groups.values())).index(groups[name]))
    general = probes[probes["feature"] == "general"]
    columns: dict[str, Any] = {"method": names}
    columns["seeds"] = [general.loc[general["method"] == name, "seed"].nunique() for name in names]
    for column, (task, metric, better) in MAIN_COLUMNS.items():
        part = general[(general["task"] == task) & (general["metric"] == metric)]
        columns[column] = [
            estimate(
                part[part["method"] == name],
                NOT_RUN,
                _ranked(name, groups, better),
                2 if "MAE" in metric else 3,
            )
            for name in names
        ]
    for column, (feature, factor) in LEAKS.items() if len(leakage) else ():
        part = leakage[(leakage["feature"] == feature) & (leakage["factor"] == factor)]
        gap = {name: "n/a: no such feature" if (cells["method"] == name).any() else NOT_RUN for name in names}
        columns[column] = [estimate(part[part["method"] == name], gap[name], digits=2) for name in names]
    for source, (column, digits) in COSTS.items():
        part = cells.assign(value=cells[source])
        means = {name: part.loc[part["method"] == name, "value"] for name in names}
        columns[column] = [
            Estimate(float(means[name].mean()), digits=digits)
            if len(means[name])
            else Estimate(missing=NOT_RUN)
            for name in names
        ]
    first = {groups[name]: place for place, name in reversed(list(enumerate(names)))}
    blocks = {
        place: f"{heading} (not ranked)" if heading in UNRANKED else heading
        for heading, place in first.items()
    }
    return Table(pd.DataFrame(columns), context_of(general), blocks)


def _ranked(method: str, groups: Mapping[str, str], better: str) -> str:
    """Which value is the best where a method takes part in the comparison."""
    return "" if groups.get(method) in UNRANKED else better


def unit_table(probes: pd.DataFrame) -> Table:
    """F1 (threshold chosen on validation) and AUC of every action unit, general feature: two rows a method."""
    units = [unit for unit in AU_NAMES if (probes["metric"] == f"F1 {unit}").any()]
    return _metrics(probes, "action units", ("F1", "AUC"), (*units, "mean"), "higher")


def pose_table(probes: pd.DataFrame, groups: Mapping[str, str] = MappingProxyType({})) -> Table:
    """Mean absolute error of the angles in degrees, general feature; the best as in `ablation_table`."""
    return _metrics(probes, "head pose", ("MAE",), (*ANGLE_NAMES, "mean"), "lower", groups)


def _metrics(
    probes: pd.DataFrame,
    task: str,
    metrics: Sequence[str],
    names: Sequence[str],
    better: str,
    groups: Mapping[str, str] = MappingProxyType({}),
) -> Table:
    """Rows methods (times metrics), columns names, of one task."""
    need_columns(probes, "feature", "task", "metric", "value")
    rows = probes[(probes["feature"] == "general") & (probes["task"] == task)]
    better = better if len(metrics) == 1 else ""  # the best of a column would mix F1 and AUC
    lines = [(method, metric) for metric in metrics for method in rows["method"].unique()]
    columns: dict[str, Any] = {"method": [method for method, _ in lines]}
    columns["metric"] = [f"{metric} (degrees)" if metric == "MAE" else metric for _, metric in lines]
    for name in names:
        columns[name] = [
            estimate(
                rows[(rows["method"] == method) & (rows["metric"] == f"{metric} {name}")],
                NOT_RUN,
                _ranked(method, groups, better),
                2 if metric == "MAE" else 3,
            )
            for method, metric in lines
        ]
    return Table(pd.DataFrame(columns), context_of(rows) if len(rows) else {})


def dci_table(leakage: pd.DataFrame) -> Table:
    """`disentangle.dci` of every two features (`tables.FEATURE_PAIRS`) of a method: mean and deviation over seeds."""
    need_columns(leakage, "feature", "factor", "value", "chance")
    features = leakage.groupby("method")["feature"].agg(set)
    wanted = [
        (name, kind)
        for kind, pair in FEATURE_PAIRS.items()
        for name in leakage["method"].unique()
        if set(pair) <= features[name]
    ]
    columns: dict[str, Any] = {"method": [f"{name}, {kind}" for name, kind in wanted]}
    for name, kind in wanted:
        own = leakage[leakage["method"] == name]
        scores = pd.DataFrame([disentangle.dci(part, FEATURE_PAIRS[kind]) for _, part in own.groupby("seed")])
        for score, values in scores.items():
            spread = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
            columns.setdefault(str(score), []).append(Estimate(float(values.mean()), std=spread))
    return Table(pd.DataFrame(columns), context_of(leakage))


def swap_table(swaps: pd.DataFrame) -> Table:
    """Whose factor a swapped picture shows: r with the pose donor's / with the face donor's, mean over seeds.

    swaps: rows of `disentangle.swap_report` of all cells.
    """
    need_columns(swaps, "factor", "pose_donor_r", "face_donor_r")
    names = list(swaps["method"].unique())
    columns: dict[str, Any] = {"method": names}
    columns["seeds"] = [swaps.loc[swaps["method"] == name, "seed"].nunique() for name in names]
    means = swaps.groupby(["method", "factor"])[["pose_donor_r", "face_donor_r"]].mean()
    for factor in swaps["factor"].unique():
        columns[f"{factor}: pose / face donor"] = [
            "{:.2f} / {:.2f}".format(*means.loc[(name, factor)]) if (name, factor) in means.index else NOT_RUN
            for name in names
        ]
    return Table(pd.DataFrame(columns), context_of(swaps))


def write_all(
    out: Path,
    rows: Mapping[str, pd.DataFrame],
    bootstrap: pd.DataFrame,
    groups: Mapping[str, str],
    reference: str = "pcl",
) -> list[Path]:
    """Write every table that these rows allow as CSV, Markdown and LaTeX; returns the paths.

    rows: by `ablation_cells.KINDS`; groups: see `ablation_table`; reference: whose lead over the others is shown.
    """
    probes, leakage = rows["probes"], rows["leakage"]
    made = {
        "main": (ablation_table(probes, leakage, rows["cells"], groups), "Ablations, general feature"),
        "action_units": (
            unit_table(probes),
            "Action units, general feature, thresholds chosen on validation",
        ),
        "pose": (pose_table(probes, groups), "Head pose, general feature"),
    }
    if len(leakage):
        made["dci"] = (
            dci_table(leakage),
            "How well two features are disentangled: DCI and SAP",
        )
    if len(rows["swaps"]):
        made["swaps"] = (
            swap_table(rows["swaps"]),
            "Swaps: correlation of what is read with the donors' factors",
        )
    if probes["feature"].isin(FEATURE_PAIRS["components"]).any():
        made["components"] = (
            components_table(probes),
            "Each task from one of two features: yaw and roll from what a flip turns over, all else from the other",
        )
    context = made["main"][0].context
    for name, (frame, caption) in _compared(probes, bootstrap, reference).items():
        made[name] = (Table(frame, context, difference=True), caption)
    return [
        path
        for name, (table, caption) in made.items()
        if len(table.frame)
        for path in write_table(table, out / "tables" / f"ablation_{name}_table", caption)
    ]


def _compared(
    probes: pd.DataFrame, bootstrap: pd.DataFrame, reference: str
) -> dict[str, tuple[pd.DataFrame, str]]:
    """The tables of leads by name, each with its caption."""
    rows, resampled, made = readings(probes), readings(bootstrap), {}
    plain = rows["method"].isin(probes["method"])
    components = rows["method"].str.endswith(", components")
    for name, kind, first in (
        ("lead", plain, reference),
        ("lead_components", components, f"{reference}, components"),
    ):
        own = rows[kind]
        if first in set(own["method"]) and own["method"].nunique() > 1:
            made[name] = (against(own, resampled, first), f"Lead of {first}, more is better for it")
    if asked := [q for q in QUESTIONS if {q.first, q.second} <= set(rows["method"])]:
        made["questions"] = (
            answers(rows, resampled, asked, ASKED),
            "Questions: by how much the first variant is better than the second",
        )
    return made
