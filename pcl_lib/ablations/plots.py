"""Figures of the ablations: every variant with its seeds, and how a result moves with one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pcl_lib.plots import COLOURS, axes_grid, clean_axes, new_figure
from pcl_lib.utils import BadInput


def dots(
    probes: pd.DataFrame,
    groups: Mapping[str, str],
    metrics: Sequence[tuple[str, str]],
    reference: str = "pcl",
) -> Figure:
    """One line per variant, one panel per metric: each seed as a small dot, their mean as a large one.

    probes: rows of `ablation_cells.read`; groups: variant -> heading, a colour each; metrics: (task, metric). The
    dashed line is the mean of `reference`. Raises BadInput where there are no rows of a metric.
    """
    general = probes[probes["feature"] == "general"]
    order = list(dict.fromkeys(groups.values()))
    names = sorted(
        set(general["method"]), key=lambda name: (order.index(groups[name]), list(groups).index(name))
    )
    figure = new_figure(10, 1.4 + 0.27 * len(names))
    for axes, (task, metric) in zip(axes_grid(figure, 1, len(metrics), sharey=True), metrics, strict=True):
        rows = general[(general["task"] == task) & (general["metric"] == metric)]
        if rows.empty:
            raise BadInput(f"there are no rows of {task}, {metric}: choose a metric that was probed")
        for place, name in enumerate(names):
            values = rows.loc[rows["method"] == name, "value"].to_numpy(float)
            colour = COLOURS[order.index(groups[name]) % len(COLOURS)]
            axes.plot(values, np.full(len(values), place), "o", color=colour, ms=4, alpha=0.5)
            axes.plot(values.mean(), place, "D", color=colour, ms=7)
        axes.axvline(rows.loc[rows["method"] == reference, "value"].mean(), color="black", lw=1, ls="--")
        lower = metric.startswith("MAE")
        clean_axes(axes).set_title(f"{task}\n{metric}{' (degrees) ←' if lower else ' →'}", fontsize=10)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel(
        f"better towards the arrow; small: one seed, large: mean; dashed: {reference}", fontsize=10
    )
    return figure


def sensitivity(
    probes: pd.DataFrame, series: Mapping[str, Mapping[str, str]], metric: tuple[str, str]
) -> Figure:
    """How a result moves with one setting, one panel per setting: mean and, with several seeds, sample deviation.

    probes: rows of `ablation_cells.read`; series: setting -> {value in words: variant}; metric: (task, metric).
    Settings of which fewer than two values were run have no panel. Raises BadInput where no setting has two.
    """
    task, name = metric
    rows = probes[(probes["feature"] == "general") & (probes["task"] == task) & (probes["metric"] == name)]
    values = {method: part.to_numpy(float) for method, part in rows.groupby("method")["value"]}
    known = {title: [w for w, v in own.items() if v in values] for title, own in series.items()}
    known = {title: words for title, words in known.items() if len(words) > 1}
    if not known:
        raise BadInput("no setting was run at two values: run make ablations first")
    figure = new_figure(10, 3.2)
    panels = axes_grid(figure, 1, len(known), sharey=True)
    for axes, (title, words) in zip(panels, known.items(), strict=True):
        found = [values[series[title][word]] for word in words]
        spread = [x.std(ddof=1) if len(x) > 1 else 0.0 for x in found]
        axes.errorbar(
            range(len(words)), [x.mean() for x in found], yerr=spread, fmt="o-", color=COLOURS[0], capsize=4
        )
        axes.set_xticks(range(len(words)), words)
        clean_axes(axes).set_title(title, fontsize=11)
    panels[0].set_ylabel(f"{task}, {name}" + (" (degrees)" if name.startswith("MAE") else ""))
    return figure
