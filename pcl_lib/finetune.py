"""Your own labels: how many does a pre-trained encoder need? `python -m pcl_lib.finetune --data FOLDER`.

For growing numbers of labelled training images it compares a linear probe of the frozen encoder, the same encoder
fine-tuned as a whole, and the same network trained from scratch; each with several seeds, which draw other images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score
from torch import Tensor
from tqdm.auto import tqdm

from pcl_lib import methods, plots, probes
from pcl_lib.data import FaceSet, ImageSource, PreparedFaces, SizedFaces
from pcl_lib.data.labels import AU_NAMES, PRESENT, expression_codes
from pcl_lib.methods.supervised import Supervised
from pcl_lib.models import PCL, checkpoint_notes, load_checkpoint
from pcl_lib.models.shipped import card, shipped
from pcl_lib.presets import PRESETS, Preset, override
from pcl_lib.probes import linear
from pcl_lib.probes.features import evaluating
from pcl_lib.probes.tasks import Plan, Split, plan
from pcl_lib.tables import Estimate, Table, save_rows, write_table
from pcl_lib.utils import BadInput, check_writable, device_name, exit_cleanly

WAYS = ("linear probe", "fine-tuned", "from scratch")
BATCH, RATES, CHECKS = 32, (3e-4, 1e-3), 10
# Gentle views, which leave every label true.
VIEW = {
    "crop": "none", "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.05, "grey": 0.0, "blur": 0.0,
    "gradient": 0.0,
}  # fmt: skip


class Task(NamedTuple):
    """A kind of labels: the method that trains on them, how predictions are scored, and whether less is better."""

    method: str
    metric: str
    falls: bool = False


TASKS = {
    "expression": Task("supervised_expression", "accuracy"),
    "head pose": Task("supervised_pose", "MAE mean", falls=True),
    "action units": Task("supervised_units", "AUC mean"),
}


class Labels:
    """The labels of one task of a set: who has some, and how good predictions of them are.

    faces: a prepared set. task: a key of `TASKS`. Raises BadInput where a split of the set lacks such labels.
    """

    def __init__(self, faces: FaceSet, task: str) -> None:
        if task not in TASKS:
            raise BadInput(f"unknown task '{task}': choose {', '.join(TASKS)}")
        self.faces, self.task, self.kind = faces, task, TASKS[task]
        made = plan(faces)
        split = {"expression": made.expression, "head pose": made.pose, "action units": made.action_units}[
            task
        ]
        if split is None or (task == "head pose" and len(made.angles) < 3):
            why = " ".join(str(one) for one in made.left_out if one.task == task)
            raise BadInput(f"{faces.name} cannot be trained on {task}. {why}".strip())
        self.split: Split = split
        self.y = self._targets(faces.table, made)

    def _targets(self, table: pd.DataFrame, made: Plan) -> np.ndarray:
        if self.task == "expression":
            return expression_codes(table["expression"])
        if self.task == "head pose":
            return table[list(made.angles)].to_numpy(float)
        every = [name for name in AU_NAMES if name in table]  # as `SupervisedUnits` has them
        self.judged = [every.index(unit) for unit in made.units]
        return table[list(made.units)].to_numpy(float) >= PRESENT

    def score(self, predicted: np.ndarray, rows: np.ndarray) -> float:
        """predicted: classes [n], angles in degrees [n, 3] or logits [n, units] of these rows of the table."""
        truth = self.y[rows]
        if self.task == "expression":
            return float((predicted == truth).mean())
        if self.task == "head pose":
            return float(np.abs(predicted - truth).mean())
        return float(np.mean([roc_auc_score(t, p) for t, p in zip(truth.T, predicted.T, strict=True)]))

    def chance(self) -> float:
        """What a constant answer gets on the test split: the commonest training class, the mean training angles."""
        train, test = self.y[self.split.train], self.split.test
        if self.task == "expression":
            return self.score(np.full(len(test), np.bincount(train).argmax()), test)
        if self.task == "head pose":
            return self.score(np.tile(train.mean(0), (len(test), 1)), test)
        return 0.5


class _Few(SizedFaces):
    """A set at the model's image size that trains on some of its images alone."""

    def __init__(self, faces: FaceSet, size: int, train: np.ndarray) -> None:
        super().__init__(faces, size)
        self._train = train

    def split(self, name: str) -> np.ndarray:
        return self._train if name == "train" else super().split(name)


def learning_curve(
    model: PCL,
    labels: Labels,
    counts: Sequence[int] = (),
    *,
    seeds: int = 3,
    iterations: int = 300,
    done: Callable[[pd.DataFrame], object] | None = None,
) -> pd.DataFrame:
    """Test scores of the three `WAYS` by number of labelled training images.

    model: pre-trained; it is left as it is. counts: numbers of images, by default 25, 100, 400, ... and all there are;
    larger ones than that are refused. seeds: how many; each draws other images, and smaller draws of a seed lie in its
    larger ones. iterations: of training, in batches of `BATCH`; the learning rate (of `RATES`) and the moment to stop
    are chosen on the validation split, whose labels are not counted. done: told the rows so far after each draw.
    Returns one row per way, count and seed: method, task, metric, labels, seed, value, n (test images).
    """
    counts = _counts(counts, len(labels.split.train))
    rows = np.concatenate([labels.split.train, labels.split.validation, labels.split.test])
    seen = SizedFaces(labels.faces, model.image_size)
    cached = linear.CachedFeatures(probes.extract(model, seen, rows).general, rows, len(seen))
    device = next(model.parameters()).device
    found: list[dict[str, object]] = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(labels.split.train)
        for count in tqdm(counts, desc=f"{labels.task}, seed {seed}", unit="draw", disable=None):
            split = labels.split._replace(train=order[:count])
            values = (
                labels.score(_probed(cached, split, labels), split.test),
                _trained(model, labels, split, iterations, seed),
                _trained(PCL(model.config, seed).to(device), labels, split, iterations, seed),
            )
            about = {"task": labels.task, "metric": labels.kind.metric, "labels": count, "seed": seed}
            for way, value in zip(WAYS, values, strict=True):
                found.append({"method": way, **about, "value": value, "n": len(split.test)})
            if done:
                done(pd.DataFrame(found))
    return pd.DataFrame(found)


def _counts(wanted: Sequence[int], there: int) -> list[int]:
    counts = sorted(set(wanted)) or [n for n in (25 * 4**i for i in range(8)) if n < there] + [there]
    if counts[0] < 2 or counts[-1] > there:
        raise BadInput(
            f"--labels {' '.join(map(str, counts))}: give numbers from 2 to {there}, the labelled images"
        )
    return counts


def _probed(cached: linear.CachedFeatures, split: Split, labels: Labels) -> np.ndarray:
    """Predictions of the test rows by the kit's linear probe."""
    if labels.task == "expression":
        return linear.predict_classes(cached, split, labels.y)[0]
    if labels.task == "head pose":
        return linear.predict_values(cached, split, labels.y, robust=True)[0]
    return linear.predict_presence(cached, split, labels.y)[1]


def _trained(start: PCL, labels: Labels, split: Split, iterations: int, seed: int) -> float:
    """Test score of a copy of `start` that is trained as a whole, with a linear head on its general feature."""
    best = [_train(start, labels, split, iterations, seed, rate) for rate in RATES]
    sign = -1 if labels.kind.falls else 1
    return max(best, key=lambda scores: sign * scores[0])[1]


def _train(
    start: PCL, labels: Labels, split: Split, iterations: int, seed: int, rate: float
) -> tuple[float, float]:
    """Scores on validation and test at the best of `CHECKS` moments for the validation split."""
    model = deepcopy(start)
    faces = _Few(labels.faces, model.image_size, split.train)
    method = methods.build(labels.kind.method, _preset(model))
    assert isinstance(method, Supervised)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        device = next(model.parameters()).device
        head = method.auxiliary(model, faces).to(device)
    adam = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, iterations)
    source = ImageSource(faces, split.train, device)
    generator = torch.Generator(device).manual_seed(seed)
    best, sign = (-np.inf, np.nan), -1 if labels.kind.falls else 1
    for step, rows in enumerate(_batches(split.train, iterations, seed), 1):
        model.train()
        adam.zero_grad(set_to_none=True)
        batch = method.take(source, rows, np.random.default_rng())
        method.loss(model, batch, generator)[method.name].backward()
        adam.step()
        decay.step()
        if step % max(1, iterations // CHECKS) == 0 or step == iterations:
            value = sign * labels.score(
                _predicted(model, method, labels, faces, split.validation), split.validation
            )
            if value > best[0]:
                best = value, labels.score(_predicted(model, method, labels, faces, split.test), split.test)
    return sign * best[0], best[1]


def _preset(model: PCL) -> Preset:
    """Settings of a supervised method for this model."""
    changes = {f"pose_view.{key}": value for key, value in VIEW.items()}
    changes |= {f"model.{key}": value for key, value in vars(model.config).items()}
    return override(PRESETS["cpu"], changes)


def _batches(rows: np.ndarray, iterations: int, seed: int) -> Iterator[np.ndarray]:
    """So many batches of `BATCH` rows, or of all where there are fewer, in a new order each time they are through."""
    rng = np.random.default_rng([seed, 0xF17E])
    size, left = min(BATCH, len(rows)), np.empty(0, np.int64)
    for _ in range(iterations):
        if len(left) < size:
            left = rng.permutation(rows)
        yield left[:size]
        left = left[size:]


def _predicted(
    model: PCL, method: Supervised, labels: Labels, faces: FaceSet, rows: np.ndarray
) -> np.ndarray:
    """What the head says of these rows, in the units of `Labels.score`."""
    device, parts = next(model.parameters()).device, []
    with evaluating(model), torch.inference_mode():
        for part in np.array_split(rows, -(-len(rows) // 256)):
            out: Tensor = method.head(model.general_feature(faces.images(part).to(device)))
            parts.append(out.float().cpu())
    out = torch.cat(parts)
    if labels.task == "expression":
        return out.argmax(1).numpy()
    if labels.task == "head pose":  # the method standardises angles
        train = labels.y[faces.split("train")]
        return out.numpy() * train.std(0).clip(1e-6) + train.mean(0)
    return out[:, labels.judged].numpy()


def curve_table(rows: pd.DataFrame, chance: float) -> Table:
    """One row per number of labels, one column per way: mean and standard deviation over seeds."""
    counts, metric = sorted(rows["labels"].unique()), rows["metric"].iloc[0]
    digits = 2 if "MAE" in metric else 3
    columns: dict[str, list[object]] = {"training labels": [f"{count:,}" for count in counts]}
    for way in WAYS:
        values = [rows.loc[(rows["method"] == way) & (rows["labels"] == n), "value"] for n in counts]
        columns[f"{way}, {metric}"] = [Estimate(v.mean(), std=v.std(), digits=digits) for v in values]
    columns["chance baseline"] = [Estimate(chance, digits=digits)] * len(counts)
    names = ("data", "weights", "device", "versions", "commit")
    context = {name: str(rows[name].iloc[0]) for name in names if name in rows}
    return Table(pd.DataFrame(columns), context)


def curve_figure(rows: pd.DataFrame, chance: float) -> Figure:
    """Test score against the number of labels, a line per way, with the spread over seeds."""
    figure = plots.new_figure(6.5, 4)
    (axes,) = plots.axes_grid(figure, 1, 1)
    for way, colour in zip(WAYS, plots.COLOURS, strict=False):
        part = rows[rows["method"] == way].groupby("labels")["value"]
        mean, std = part.mean(), part.std().fillna(0)
        plots.clean_axes(axes).plot(mean.index, mean, "o-", color=colour, label=way)
        axes.fill_between(mean.index, mean - std, mean + std, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(chance, color="#999999", linestyle=":", label="chance baseline")
    axes.set_xscale("log")
    axes.set_xticks(ticks := sorted(rows["labels"].unique()), [f"{n:,}" for n in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlabel("labelled training images")
    unit = " in degrees" if "MAE" in rows["metric"].iloc[0] else ""
    axes.set_ylabel(f"{rows['task'].iloc[0]}, {rows['metric'].iloc[0]}{unit}")
    axes.legend(frameon=False)
    return figure


def run(
    data: Path, weights: Path | None, out: Path, task: str, counts: Sequence[int], seeds: int, iterations: int
) -> Table:
    """Everything the command does; files go to out/tables and out/figures, rows after each draw."""
    labels = Labels(PreparedFaces(data), task)
    model = load_checkpoint(weights) if weights else shipped()
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    notes = checkpoint_notes(weights) if weights else card()
    check_writable(out)
    name = f"finetune_{task.replace(' ', '_')}"
    context = {"preset": notes.get("preset", "unknown"), "data": labels.faces.name, "device": device_name()}
    context |= {"precision": "32-true", "weights": str(weights or "shipped pcl")}
    print(f"{labels.faces.name}: {len(labels.split.train)} training images with labels for {task}")

    def save(rows: pd.DataFrame) -> pd.DataFrame:
        return save_rows(rows, out / "tables", f"{name}_rows", **context)

    rows = save(learning_curve(model, labels, counts, seeds=seeds, iterations=iterations, done=save))
    table = curve_table(rows, labels.chance())
    write_table(table, out / "tables" / name, f"Test scores of {task} by number of labels, {seeds} draws")
    plots.save(curve_figure(rows, labels.chance()), out / "figures" / f"{name}.png")
    return table


def main() -> None:
    """Command line: python -m pcl_lib.finetune."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.finetune",
        description="How many labels of your own does a pre-trained encoder need? A table and a figure.",
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared folder with labels")
    parser.add_argument("--weights", type=Path, help="checkpoint of the kit; without it the shipped pcl")
    parser.add_argument("--task", default="expression", help=", ".join(TASKS))
    parser.add_argument(
        "--labels", type=int, nargs="+", default=[], help="numbers of labels; default 25 100 ... all"
    )
    parser.add_argument("--seeds", type=int, default=3, help="draws of the labelled images")
    parser.add_argument("--iterations", type=int, default=300, help="of training, in batches of 32")
    parser.add_argument(
        "--out", type=Path, default=Path("runs") / "finetune", help="folder for table and figure"
    )
    given = parser.parse_args()
    if given.seeds < 1 or given.iterations < 1:
        raise BadInput("--seeds and --iterations must be 1 or more")
    table = run(given.data, given.weights, given.out, given.task, given.labels, given.seeds, given.iterations)
    print(table._repr_markdown_())
    print(f"table and figure in {given.out}")


if __name__ == "__main__":
    exit_cleanly(main)
