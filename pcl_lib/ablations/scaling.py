"""What more people, images, iterations and width bring: power laws over the cells of `--scaling`, and their price."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pcl_lib import plots, presets
from pcl_lib.ablations import power_law
from pcl_lib.ablations.cells import flops
from pcl_lib.ablations.variants import CLIPS, POINTS, VARIANTS
from pcl_lib.data import PreparedFaces
from pcl_lib.presets import PRESETS, Preset
from pcl_lib.tables import Estimate, Table, context_of, write_table
from pcl_lib.utils import BadInput

AXES = ("people", "images of each", "iterations", "width")
RATE = 50e12  # operations a second of the GPU whose hours are told: an assumption, not a measurement
HOURS = f"hours of a GPU that sustains {RATE / 1e12:.0f} TFLOP/s (assumed)"
# The paper's size: people and videos of VoxCeleb1 and 2; iterations and width of the preset `paper`.
PAPER_PEOPLE, PAPER_VIDEOS = 7363, 172_976


class Quantity(NamedTuple):
    """What is fitted: rows of a kind (`cells.KINDS`) that have these values, as they are or taken from 1."""

    kind: str
    where: Mapping[str, str]
    from_one: bool = False
    digits: int = 3


def _probe(task: str, metric: str, from_one: bool = True, digits: int = 3) -> Quantity:
    where = {"feature": "general", "task": task, "metric": metric}
    return Quantity("probes", where, from_one, digits)


QUANTITIES: Mapping[str, Quantity] = {
    "expression error": _probe("expression", "accuracy"),
    "verification error": _probe("verification", "accuracy"),
    "AU error (1 - AUC)": _probe("action units", "AUC mean"),
    "yaw MAE (degrees)": _probe("head pose", "MAE yaw", False, 2),
    "yaw not in face (1 - R2)": Quantity("leakage", {"feature": "face", "factor": "yaw"}, True),
}
# Steps from the paper's size: what each axis is multiplied by.
MORE = {
    "10 x people": np.array([10.0, 1, 1, 1]),
    "10 x images of each": np.array([1, 10.0, 1, 1]),
    "10 x iterations": np.array([1, 1, 10.0, 1]),
    "2 x width": np.array([1, 1, 1, 2.0]),
}


def points(rows: Mapping[str, pd.DataFrame], preset: Preset, methods: Mapping[str, object]) -> pd.DataFrame:
    """One row per finished cell of these variants: method, seed, `AXES`, GFLOP, and the `QUANTITIES` it has."""
    cells = rows["cells"]
    cells = cells[cells["method"].isin(methods)]
    table = cells[["method", "seed", "iterations", "training_GFLOP", "training_seconds"]].copy()
    made = {name: VARIANTS[name].of(preset) for name in cells["method"].unique()}
    for column, axis in zip(AXES[:2], (0, 1), strict=True):
        table[column] = [VARIANTS[m].point.size(made[m])[axis] for m in table["method"]]  # type: ignore[union-attr]
    table["width"] = [made[m].model.width for m in table["method"]]
    for name, quantity in QUANTITIES.items():
        found = rows[quantity.kind]
        for column, value in quantity.where.items():
            found = found[found[column] == value] if column in found else found[:0]
        if len(found):
            own = found.set_index(["method", "seed"])["value"]
            keys = pd.MultiIndex.from_frame(table[["method", "seed"]])
            values = own.reindex(keys).to_numpy()
            table[name] = 1 - values if quantity.from_one else values
    return table.reset_index(drop=True)


def fits(table: pd.DataFrame) -> dict[str, power_law.Fit]:
    """The power law of each quantity; one that cannot be fitted yet is left out, and a printed line says why."""
    found = {}
    for name in QUANTITIES:
        if name in table:
            try:
                found[name] = power_law.fit(table[list(AXES)].to_numpy(float), table[name].to_numpy(float))
            except BadInput as error:
                print(f"{name}: {error}")
    return found


def law_table(found: Mapping[str, power_law.Fit]) -> pd.DataFrame:
    """A row per quantity: the floor, the exponent of each axis with a 95% interval, and the residuals' spread."""
    rows = []
    for name, fit in found.items():
        floors = fit.interval(np.array([law.floor for law in fit.replicates]))
        row: dict[str, object] = {"quantity": name, "floor": Estimate(fit.law.floor, *floors, digits=2)}
        for k, axis in enumerate(AXES):
            interval = fit.interval(fit.exponents()[:, k])
            row[f"exponent of {axis}"] = Estimate(float(fit.law.exponents[k]), *interval, digits=2)
        rows.append(row | {"residual": Estimate(fit.spread, digits=QUANTITIES[name].digits)})
    return pd.DataFrame(rows)


def paper_point() -> np.ndarray:
    """The paper's training on `AXES`: [4]."""
    train = PRESETS["paper"].train
    steps = PAPER_PEOPLE * train.frames_per_identity // max(train.pdd_batch, train.face_batch)
    videos = PAPER_VIDEOS / PAPER_PEOPLE  # frames of one video are too alike to count apart
    return np.array([PAPER_PEOPLE, videos, train.epochs * steps, PRESETS["paper"].model.width])


def operations(preset: Preset, faces: PreparedFaces) -> float:
    """Operations of an iteration of `pcl` at a preset (`cells.flops`), without room for its batches.

    They are counted with batches of two images and of four, and grow in proportion, but for the products of the
    contrastive losses, which are a small share.
    """
    batches = {name: getattr(preset.train, name) for name in ("pdd_batch", "face_batch", "pose_batch")}
    small = presets.override(preset, {f"train.{name}": 2 for name in batches})
    start = total = float(flops("pcl", small, faces))
    for name, batch in batches.items():
        more = flops("pcl", presets.override(small, {f"train.{name}": 4}), faces)
        total += (more - start) / 2 * (batch - 2)
    return total


def hours(point: np.ndarray, cost: float) -> float:
    """`HOURS` of a training at a point [4] of `AXES`; cost: operations of an iteration at the paper's width.

    Operations grow with the square of the width, since nearly all are products of channels with channels.
    """
    return float(point[2] * cost * (point[3] / PRESETS["paper"].model.width) ** 2 / RATE / 3600)


def gain_table(found: Mapping[str, power_law.Fit], cost: float) -> pd.DataFrame:
    """What each quantity is at the paper's size, by the laws, and how it changes with more of each axis.

    A row per step with its price in `HOURS`; columns: quantities, with 95% intervals. All of it extrapolates.
    """
    start, rows = paper_point(), []
    for step in ("paper's size", *MORE):
        end = start * MORE.get(step, 1.0)
        row: dict[str, object] = {"training": step, HOURS: Estimate(hours(end, cost), digits=1)}
        for name, fit in found.items():
            value = fit.change(start, end) if step in MORE else fit.at(start)
            row[name] = Estimate(*value, digits=QUANTITIES[name].digits)
        rows.append(row)
    return pd.DataFrame(rows)


def video_table(stills: pd.DataFrame, clips: pd.DataFrame) -> pd.DataFrame:
    """How many still images give `pcl` the yaw error and verification that clips give `pcl_video`.

    The two methods differ in more than their data: in losses, decoder and normalisation. stills, clips: `points` of
    trainings of equal length and base width. Means over seeds; between the sizes that were trained, the logarithm of
    the number of images is interpolated. "more" and "fewer" than all that were trained stand where no size reaches the
    value.
    """
    rows = []
    for count, part in clips.groupby("people"):
        row: dict[str, object] = {"clips": count, "images": int(count * part["images of each"].iloc[0])}
        for name in ("yaw MAE (degrees)", "verification error"):
            if name in part and name in stills:
                value = float(part[name].mean())
                row[name] = round(value, QUANTITIES[name].digits)
                row[f"still images for this {name.split()[0]}"] = _worth(stills, name, value)
        rows.append(row)
    return pd.DataFrame(rows)


def _worth(stills: pd.DataFrame, name: str, value: float) -> str:
    """The number of still images at which an error, which falls with it, has this value."""
    sizes = stills["people"] * stills["images of each"]
    mean = stills.assign(size=sizes).groupby("size")[name].mean()
    error = np.minimum.accumulate(mean.to_numpy())
    if value > error[0]:
        return f"fewer than {mean.index[0]:,}"
    if value < error[-1]:
        return f"more than {mean.index[-1]:,}"
    return f"{np.exp(np.interp(-value, -error, np.log(mean.index.to_numpy(float)))):,.0f}"


def draw(found: Mapping[str, power_law.Fit], cost: float) -> Figure:
    """What more of each axis would bring at the paper's size, against its price; one panel per quantity."""
    figure = plots.new_figure(10, 4, "By the power laws: the paper's size, and more of one thing")
    panels = plots.axes_grid(figure, 1, len(found))
    own = hours(paper_point(), cost)
    for axes, (name, fit) in zip(panels, found.items(), strict=True):
        prices = set()
        for i, (step, times) in enumerate({"paper's size": np.ones(len(AXES)), **MORE}.items()):
            end = paper_point() * times
            value, low, high = fit.at(end)
            spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
            price = hours(end, cost)
            place = price * 1.2**i if price == own else price  # side by side at one price
            axes.errorbar(
                place, value, spread, fmt=plots.MARKERS[i], color=plots.COLOURS[i], capsize=3, label=step
            )
            prices.add(price)
        plots.clean_axes(axes).set_title(name, fontsize=8)
        axes.set_xscale("log")
        axes.set_xticks(sorted(prices), [f"{price:.3g}" for price in sorted(prices)])
        axes.minorticks_off()
    panels[len(panels) // 2].set_xlabel(HOURS, fontsize=9)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, frameon=False)
    return figure


def report(out: Path, rows: Mapping[str, pd.DataFrame], preset: Preset, cost: float) -> list[Path]:
    """Write scaling_points, scaling_law, scaling_gain and scaling_video to tables/ and scaling.png to figures/.

    rows: by `cells.KINDS`, with today's settings. cost: operations of an iteration at the paper's size. Parts whose
    cells have not run are left out. Returns the paths of the tables.
    """
    stills, clips = points(rows, preset, POINTS), points(rows, preset, CLIPS)
    if stills.empty:
        return []
    context = context_of(rows["probes"][rows["probes"]["method"].isin(POINTS)])
    made = {"points": (stills.round(4), "The trainings that the power laws are fitted to")}
    if found := fits(stills):
        made["law"] = (law_table(found), "Power laws: floor and exponents, with 95% intervals")
        caption = "By the laws: each quantity at the paper's size, then its change with more of one thing"
        made["gain"] = (gain_table(found, cost), caption)
        plots.save(draw(found, cost), out / "figures" / "scaling.png")
    long = stills[(stills["iterations"] == stills["iterations"].max()) & (stills["images of each"] == 4)]
    if len(clips) and len(long):
        made["video"] = (
            video_table(long, clips),
            "What clips are worth in still images, at equal iterations",
        )
    return [
        path
        for name, (frame, caption) in made.items()
        for path in write_table(
            Table(frame, context, over="residuals of the fit"), out / "tables" / f"scaling_{name}", caption
        )
    ]
