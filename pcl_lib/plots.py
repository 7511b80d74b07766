"""Figures of the notebooks and the README: data in, a matplotlib figure out, nothing global touched.

A notebook shows a returned figure by itself; `save` also writes it. Colours are those of Okabe and Ito (2008), which
colour-blind readers tell apart; text stays readable where the picture is shown 1,000 pixels wide.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pcl_lib.data.labels import EXPRESSION_NAMES
from pcl_lib.probes.progress import READINGS
from pcl_lib.tables import CONSTANT
from pcl_lib.utils import BadInput, replace_atomically, spent

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
METHOD_COLOURS = {
    "pcl": COLOURS[0],
    "pcl_plus": COLOURS[5],
    "pcl_video": COLOURS[4],
    "simclr": COLOURS[1],
    "simclr_noflip": COLOURS[3],
    "random": COLOURS[2],
    "masked": "#6A3D9A",
    "raw pixels": "#7A5C3E",
    "HoG": COLOURS[6],
    "LBP": COLOURS[7],
}
MARKERS = "osD^vP*X"
DPI = 100
WIDTH = 10.0  # inches, of every figure as wide as a notebook
OTHERS = "others"  # what a colouring names no colour for


class Picture(Figure):
    """A figure that a notebook shows without pyplot."""

    @spent("draw")
    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


@spent("draw")
def save(figure: Figure, path: Path | str, dpi: int = DPI) -> Figure:
    """Write a figure as PNG, atomically, and return it. Raises BadInput where the folder cannot be written."""
    with replace_atomically(Path(path)) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)
    return figure


def file_stem(name: str) -> str:
    """The name of a set as a part of a file's name: letters and digits, "_" for the rest."""
    return "".join(c if c.isalnum() else "_" for c in name)


def new_figure(width: float, height: float, title: str = "") -> Picture:
    """An empty figure; width and height in inches of 100 pixels."""
    figure = Picture(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    if title:
        figure.suptitle("\n".join(textwrap.wrap(title, int(width * 12))), fontsize=13)
    return figure


def axes_grid(figure: Figure, down: int, across: int, used: int | None = None, **options: Any) -> list[Axes]:
    """down x across axes, row by row; those after the first `used` are empty places."""
    axes: list[Axes] = list(figure.subplots(down, across, squeeze=False, **options).flat)
    for empty in axes[down * across if used is None else used :]:
        empty.set_axis_off()
    return axes


def clean_axes(axes: Axes) -> Axes:
    """The same axes with a light grid behind the data, and no frame above and at the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    return axes


def _pixels(image: Tensor) -> np.ndarray:
    """[3, H, W], uint8 or float in [0, 1] (clipped) -> [H, W, 3] for imshow."""
    x = image.detach().float().cpu() / (255 if image.dtype == torch.uint8 else 1)
    return x.clamp(0, 1).permute(1, 2, 0).numpy()


def face_grid(
    images: Tensor,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Images in a grid.

    images: [R, C, 3, H, W], uint8 or float in [0, 1]; rows, columns: a label each (none where empty).
    Raises BadInput on another shape or a wrong number of labels.
    """
    if images.ndim != 5 or images.shape[2] != 3 or not images.numel():
        raise BadInput(f"a grid of faces needs images [rows, columns, 3, H, W], not {tuple(images.shape)}")
    for name, labels, count in (("row", rows, len(images)), ("column", columns, images.shape[1])):
        if len(labels) not in (0, count):
            raise BadInput(f"{len(labels)} {name} labels were given for a grid of {count} {name}s")
    down, across = images.shape[:2]
    cell = (WIDTH - (1.2 if rows else 0.0)) / across
    lines = max((label.count("\n") for label in columns), default=0)
    height = cell * down + (0.45 + 0.3 * lines if columns else 0.0) + (0.5 if title else 0.0)
    figure = new_figure(WIDTH, height, title)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    grid = axes_grid(figure, down, across)
    for place, axes in enumerate(grid):
        r, c = divmod(place, across)
        axes.imshow(_pixels(images[r, c]), interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if columns and r == 0:
            axes.set_title(columns[c], fontsize=11)
        if rows and c == 0:
            axes.set_ylabel(rows[r], fontsize=11, rotation=0, ha="right", va="center")
    return figure


def points_over(images: Sequence[Any], points: Sequence[np.ndarray | None], titles: Sequence[str]) -> Figure:
    """Pictures of any sizes side by side, with numbered points.

    images: whatever imshow takes, such as PIL images; points: [n, 2] pixels each (x right, y down, 0 at the corner), or
    None; titles: one each. Raises BadInput where the numbers differ.
    """
    if not len(images) == len(points) == len(titles):
        raise BadInput(
            f"{len(images)} pictures, {len(points)} lists of points and {len(titles)} titles do not match"
        )
    figure = new_figure(10, 10 / len(images) + 0.5)
    for axes, image, places, title in zip(
        axes_grid(figure, 1, len(images)), images, points, titles, strict=True
    ):
        axes.imshow(image, interpolation="nearest")
        for number, (x, y) in enumerate(
            () if places is None else places - 0.5, 1
        ):  # imshow's 0 is a pixel's middle
            axes.plot(x, y, "o", ms=5, color=COLOURS[number % 8], mec="white")
            axes.annotate(
                str(number), (x, y), xytext=(4, 4), textcoords="offset points", color="white", fontsize=9
            )
        axes.set(xticks=[], yticks=[])
        axes.set_title("\n".join(textwrap.wrap(title, 110 // len(images))), fontsize=11)
    return figure


def swap_grid(
    faces: Tensor, poses: Tensor, swaps: Tensor, pose_labels: Sequence[str] = (), title: str = ""
) -> Figure:
    """Swapped reconstructions between their donors.

    faces [R, 3, H, W]: face donors, the first column; poses [C, 3, H, W]: pose donors, the first row;
    swaps [R, C, 3, H, W]: decode(face of the row, pose of the column); pose_labels: one a pose donor.
    """
    if swaps.shape[:2] != (len(faces), len(poses)):
        raise BadInput(
            f"{len(faces)} face and {len(poses)} pose donors do not fit swaps {tuple(swaps.shape)}"
        )
    as_floats = [
        x.detach().float().cpu() / (255 if x.dtype == torch.uint8 else 1) for x in (faces, poses, swaps)
    ]
    first, top, inner = as_floats
    corner = torch.ones_like(top[:1])
    grid = torch.cat([torch.cat([corner, top])[None], torch.cat([first[:, None], inner], 1)])
    columns = ["face donor ↓", *(pose_labels or [""] * len(poses))]
    return face_grid(grid, rows=["pose donor →", *[""] * len(faces)], columns=columns, title=title)


def training_curves(histories: Mapping[str, pd.DataFrame], against: str = "epoch") -> Figure:
    """Losses, accuracies, weights and readings of validation people, a panel each.

    histories: `pretrain.Run.history` by method. Counts, times, the learning rate and what never changes are no curves.
    against: the column on the horizontal axis. Raises BadInput where no run has been trained.
    """
    aside = {"epoch", "iterations", "seconds", "images", "lr"}
    changing = [
        c for h in histories.values() for c in h if c in READINGS or h[c].count() == 1 or h[c].nunique() > 1
    ]
    names = [name for name in dict.fromkeys(map(str, changing)) if name not in aside]
    if not names:
        raise BadInput("no run has a training history: train a method that has tasks, such as pcl")
    across = min(4, len(names))
    figure = new_figure(10, 2.3 * -(-len(names) // across) + 0.4)
    lines = {}
    for axes, name in zip(
        axes_grid(figure, -(-len(names) // across), across, len(names)), names, strict=False
    ):
        for number, (method, history) in enumerate(histories.items()):
            if name in history:
                known = history.dropna(subset=[name])  # what is read every few epochs alone
                colour = METHOD_COLOURS.get(method, COLOURS[number % len(COLOURS)])
                marker = "o" if len(known) < 12 else ""
                (lines[method],) = clean_axes(axes).plot(
                    known[against], known[name], color=colour, marker=marker, ms=4
                )
        axes.set_title(name.replace("_", " "), fontsize=11)
        axes.set_xlabel(against)
    figure.legend(
        list(lines.values()), list(lines), loc="outside upper right", ncols=len(lines), frameon=False
    )
    return figure


def label_histograms(table: pd.DataFrame, columns: Sequence[str], split: np.ndarray) -> Figure:
    """Distribution of labels, one panel per column, one line per split (as shares, so that splits compare).

    table: labels, one row per image; columns: of numbers or of names; split: [rows] the split of each row.
    """
    import seaborn as sns  # seconds to import

    across = min(4, len(columns))
    down = -(-len(columns) // across)
    figure = new_figure(WIDTH, 2.6 * down + 0.3)
    parts = dict(zip(("train", "validation", "test"), COLOURS, strict=False))
    shown = table.assign(split=split)[np.isin(split, list(parts))]
    options: dict[str, Any] = {
        "hue": "split", "hue_order": list(parts), "palette": parts, "stat": "percent", "common_norm": False,
    }  # fmt: skip
    for number, (axes, name) in enumerate(
        zip(axes_grid(figure, down, across, len(columns)), columns, strict=False)
    ):
        own = shown.dropna(subset=[name])
        options["legend"] = number == 0
        if pd.api.types.is_numeric_dtype(table[name]):
            kind: dict[str, Any] = {"bins": 20, "element": "step", "fill": False}
        else:
            order = [e for e in EXPRESSION_NAMES if e in set(own[name])] or sorted(own[name].unique())
            own = own.assign(**{name: pd.Categorical(own[name], order)})
            kind = {"multiple": "dodge", "shrink": 0.8}
            axes.tick_params("x", rotation=45, labelsize=9)
        sns.histplot(own, x=name, ax=clean_axes(axes), **options, **kind)
        axes.set_xlabel(f"{name} (degrees)" if name in ("yaw", "pitch", "roll") else name.replace("_", " "))
        axes.set_ylabel("" if number else "share of images (%)")
    legend = figure.axes[0].get_legend()
    assert legend is not None
    legend.remove()
    handles = [handle for handle in legend.legend_handles if handle is not None]
    figure.legend(handles, list(parts), loc="outside upper right", ncols=3, frameon=False)
    return figure


def embedding(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], rows: Sequence[str] = ()) -> Figure:
    """Scatter plots of points in the plane, one panel per colouring.

    panels: title -> (points [n, 2], colouring [n]): numbers get a colour bar, names a legend where there are at most
    10 (`OTHERS` in grey).
    rows: how many rows the panels fill, by name; panels come row by row.
    """
    down = max(1, len(rows))
    across = len(panels) // down
    figure = new_figure(10, 3.1 * down + 0.3)
    grid = axes_grid(figure, down, across)
    for number, (axes, (title, (points, value))) in enumerate(zip(grid, panels.items(), strict=True)):
        if np.issubdtype(np.asarray(value).dtype, np.number):
            limit = float(np.abs(value).max()) or 1.0
            kwargs: dict[str, Any] = {"vmin": -limit, "vmax": limit} if np.min(value) < 0 else {}
            drawn = axes.scatter(
                points[:, 0], points[:, 1], c=value, cmap="cividis", s=9, linewidths=0, **kwargs
            )
            figure.colorbar(drawn, ax=axes, shrink=0.8)
        else:
            names = sorted(set(value), key=lambda name: (name != OTHERS, name))
            for i, name in enumerate(names):
                x, y = points[value == name].T
                if name == OTHERS:
                    axes.scatter(x, y, color="0.85", s=6, linewidths=0, label=name)
                    continue
                axes.scatter(
                    x, y, color=COLOURS[i % 8], marker=MARKERS[i // 8 % 8], s=14, linewidths=0, label=name
                )
            if len(names) <= 10 and number < across:
                handles, labels = axes.get_legend_handles_labels()
                place: Literal["outside lower left", "outside lower right"]
                place = "outside lower right" if figure.legends else "outside lower left"
                heading = title.split(" · ")[-1]
                figure.legend(
                    handles,
                    labels,
                    title=heading,
                    loc=place,
                    ncols=4,
                    frameon=False,
                    fontsize=9,
                )
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=11)
        if rows and number % across == 0:
            axes.set_ylabel(rows[number // across], fontsize=11)
    return figure


def leakage_heatmap(table: pd.DataFrame) -> Figure:
    """How well each factor is predicted from each feature: one row per method and feature, one column per factor.

    table: rows of `disentangle.leakage` with a column method. Colours show the value above chance, as a share of
    what is left above chance (R^2: the value itself); numbers show the value.
    """
    import seaborn as sns

    table = table.assign(row=table["method"] + " · " + table["feature"])
    rows, factors = list(dict.fromkeys(table["row"])), list(dict.fromkeys(table["factor"]))
    value = table.pivot_table(index="row", columns="factor", values="value").reindex(
        index=rows, columns=factors
    )
    chance = table.pivot_table(index="row", columns="factor", values="chance").reindex(
        index=rows, columns=factors
    )
    above = ((value - chance) / (1 - chance)).clip(0, 1)
    figure = new_figure(max(6.0, 2.4 + 1.2 * len(factors)), 1.3 + 0.42 * len(rows))
    axes = figure.subplots()
    sns.heatmap(
        above, annot=value, fmt=".2f", vmin=0, vmax=1, cmap="cividis", ax=axes, annot_kws={"fontsize": 11},
        cbar_kws={"label": "above chance (share)"},
    )  # fmt: skip
    metric = table.drop_duplicates("factor").set_index("factor")["metric"].replace({"R2": "R²"})
    axes.set_xticklabels([f"{f.replace('_', ' ')}\n({metric[f]})" for f in factors], rotation=0, fontsize=10)
    axes.set_yticklabels(rows, rotation=0, fontsize=11)
    axes.set(xlabel="", ylabel="")
    axes.set_title("What a linear probe predicts from each feature", fontsize=12)
    return figure


def pose_error_curve(
    truth: np.ndarray, errors: Mapping[str, np.ndarray], angle: str = "yaw", bins: int = 9
) -> Figure:
    """Mean absolute error of an angle against the true angle, one line per method.

    truth: [n] degrees; errors: method -> [n] absolute errors in degrees. Bins hold equally many images; bars are
    +- 1 standard error of the mean in a bin.
    """
    bins = max(1, min(bins, len(truth) // 5))
    parts = np.array_split(np.argsort(truth, kind="stable"), bins)
    figure = new_figure(10, 4.2)
    axes = clean_axes(figure.subplots())
    middle = np.array([truth[p].mean() for p in parts])
    for number, (method, error) in enumerate(errors.items()):
        mean = [error[p].mean() for p in parts]
        spread = [error[p].std(ddof=1) / np.sqrt(len(p)) if len(p) > 1 else 0 for p in parts]
        colour = METHOD_COLOURS.get(method, COLOURS[number % len(COLOURS)])
        axes.errorbar(
            middle, mean, spread, color=colour, marker=MARKERS[number % 8], ms=5, capsize=2, label=method
        )
    axes.set(
        xlabel=f"true {angle} (degrees)", ylabel=f"mean absolute error of {angle} (degrees)", ylim=(0, None)
    )
    axes.legend(frameon=False)
    return figure


def confusion(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str] = EXPRESSION_NAMES, title: str = ""
) -> Figure:
    """Confusion matrix in per cent of each true class; classes that do not occur are left out.

    truth, predicted: [n] places in `names`.
    """
    import seaborn as sns
    from sklearn.metrics import confusion_matrix

    counts = confusion_matrix(truth, predicted, labels=range(len(names)))
    used = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    counts = counts[np.ix_(used, used)]
    share = 100 * counts / counts.sum(1, keepdims=True).clip(1)
    labels = [names[i] for i in used]
    figure = new_figure(6.4, 5.2, title)
    axes = figure.subplots()
    sns.heatmap(
        share, annot=True, fmt=".0f", vmin=0, vmax=100, cmap="cividis", ax=axes, xticklabels=labels,
        yticklabels=labels, cbar_kws={"label": "per cent of the true class"},
    )  # fmt: skip
    axes.tick_params("x", rotation=45)
    axes.tick_params("y", rotation=0)
    axes.set(xlabel="predicted expression", ylabel="true expression")
    return figure


def results_dots(rows: pd.DataFrame) -> Figure:
    """Probe results with their intervals: one panel per task and metric, one dot per method.

    rows: of `probes.evaluate` and `probes.baseline_rows` with a column method. Shown: the metrics of the main table,
    of the general feature; rows of method `tables.CONSTANT` are the dashed line of their panel.
    """
    metrics = ("accuracy", "F1 mean", "AUC mean", "MAE yaw", "MAE pitch", "MAE roll")
    rows = rows[rows["metric"].isin(metrics)]
    panels = list(dict.fromkeys(zip(rows["task"], rows["metric"], strict=True)))
    methods = [m for m in dict.fromkeys(rows["method"]) if m != CONSTANT]
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(10, down * (0.9 + 0.4 * len(methods)) + 0.3)
    grid = axes_grid(figure, down, across, len(panels), sharey=True)
    for axes, (task, metric) in zip(grid, panels, strict=False):
        panel = rows[(rows["task"] == task) & (rows["metric"] == metric)]
        for value in panel.loc[panel["method"] == CONSTANT, "value"]:
            axes.axvline(value, color="0.4", ls="--", lw=1.2)
        shown = panel[(panel["feature"] == "general") & panel["method"].isin(methods)]
        for method, value, low, high in shown[["method", "value", "low", "high"]].itertuples(index=False):
            place, colour = methods.index(method), METHOD_COLOURS.get(method, COLOURS[7])
            axes.plot([low, high], [place, place], color=colour, lw=2)
            axes.plot(value, place, "o", color=colour, ms=7)
        lower = metric.startswith("MAE")
        clean_axes(axes).set_title(f"{task}\n{metric}{' (degrees) ←' if lower else ' →'}", fontsize=10)
    figure.axes[0].set_yticks(range(len(methods)), methods)
    figure.axes[0].set_ylim(len(methods) - 0.5, -0.5)
    figure.supxlabel(
        "better towards the arrow; bars: 95% intervals over test people; dashed: chance baseline", fontsize=10
    )
    return figure
