"""What frozen features know: features once, then expression, action units, head pose and verification.

Probes are linear (paper, evaluation protocol), fitted on the training split to convergence for a grid of penalties.
The penalty and every threshold are chosen on the validation split; the test split is scored once. Verification has
no training: cosine similarity, threshold by cross-validation over the published folds (LFW, restricted). The protocol
"released_code" trains and chooses as the authors' code does instead (`pcl_lib.released_probes`): optimistic numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from pcl_lib import linear, released_probes
from pcl_lib.errors import BadInput
from pcl_lib.labels import ANGLE_NAMES, EXPRESSION_NAMES, FEATURES, PAPER_UNITS
from pcl_lib.results import result_rows, summarise
from pcl_lib.scores import Scores, score_table, scorers
from pcl_lib.tasks import PRESENT, PROTOCOLS, Plan, Split, left_out, plans

__all__ = [
    "FEATURES",
    "Features",
    "RawPixels",
    "baseline_rows",
    "evaluate",
    "evaluate_paired",
    "extract",
    "left_out",
    "result_rows",
    "summarise",
]


class Features(NamedTuple):
    """Frozen features, each float32 [n, D]; controls such as raw pixels have a general feature only.

    even, odd: the parts of the general feature under the flip, where `Parts` made them.
    """

    general: Tensor
    face: Tensor | None = None
    pose: Tensor | None = None
    even: Tensor | None = None
    odd: Tensor | None = None


class Parts(nn.Module):
    """A model, and the even and the odd part of its general feature g under the flip: (g(x) +- g(flip of x)) / 2.

    The flip is all that PCL knows of pose, and its parts need no training: what `pcl_plus` learns is to be compared
    with what they part in any encoder. The even part is the same for an image and its flip, the odd part the negative.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.general = getattr(model, "general_feature", lambda x: model.features(x).general)

    def features(self, x: Tensor) -> Features:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> the model's own features, even and odd [N, D] each."""
        found, flipped = self.model.features(x), self.general(x.flip(3))
        return Features(
            found.general,
            getattr(found, "face", None),
            getattr(found, "pose", None),
            (found.general + flipped) / 2,
            (found.general - flipped) / 2,
        )


class AsDecoded(nn.Module):
    """A model with the features that its decoder knows (`PCL.decoder_features`) in place of those of clean images."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.features = getattr(model, "decoder_features", model.features)


class RawPixels:
    """The control without a model: the image itself, small, each standardised to mean 0 and spread 1."""

    def __init__(self, size: int = 24) -> None:
        self.size = size

    def features(self, x: Tensor) -> Features:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> general [N, 3 * size * size]."""
        small = F.interpolate(x.float(), (self.size, self.size), mode="bilinear", antialias=True).flatten(1)
        centred = small - small.mean(1, keepdim=True)
        return Features(centred / centred.std(1, keepdim=True).clamp_min(1e-6))


def extract(
    model: Any,
    faces: Any,
    rows: np.ndarray | None = None,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    precision: str | None = None,
    progress: bool = False,
) -> Features:
    """Run the encoder once over images of a prepared folder.

    model: anything with `features(x)`; a module runs in eval mode and gets its mode back. rows: row numbers of
    faces.table, all by default, and the order of the result. device: where images go, by default where the
    model's parameters are (the CPU if it has none). precision: None or "32-true" for the model's own, "bf16-mixed"
    for autocast. Returns float32 features on that device (on the CPU for Apple's mps, which lacks float64).
    Raises BadInput where a feature is NaN or infinite, naming it and the rows.
    """
    if precision not in (None, "32-true", "bf16-mixed"):
        raise BadInput(f"unknown precision {precision!r} for feature extraction; use 32-true or bf16-mixed")
    rows = np.arange(len(faces)) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(rows) == 0:
        raise BadInput("no images to extract features from; give at least one row")
    where = torch.device(device) if device is not None else _device_of(model)
    keep_on = torch.device("cpu") if where.type == "mps" else where
    mixed = torch.autocast(where.type, torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    parts: dict[str, Tensor] = {}
    starts = tqdm(range(0, len(rows), batch_size), desc="features", disable=not progress, leave=False)
    with evaluating(model):
        for start in starts:
            with torch.inference_mode(), mixed:
                out = model.features(faces.images(rows[start : start + batch_size]).to(where))
            for name in FEATURES:
                part = getattr(out, name, None)
                if part is None:
                    continue
                if name not in parts:
                    parts[name] = torch.empty(len(rows), part.shape[1], device=keep_on)
                parts[name][start : start + len(part)] = part
    found = Features(**parts)
    check_finite(found, rows)
    return found


def check_finite(features: Features, rows: np.ndarray) -> None:
    """Raise BadInput where a feature is NaN or infinite. rows: the row number of each feature row."""
    for name, x in zip(features._fields, features, strict=True):
        if x is None or bool(torch.isfinite(x.sum())):
            continue
        bad = rows[(~torch.isfinite(x)).any(1).cpu().numpy()]
        if len(bad):
            shown = ", ".join(str(r) for r in bad[:5]) + (", ..." if len(bad) > 5 else "")
            raise BadInput(
                f"the {name} feature is NaN or infinite for {len(bad)} of {len(rows)} images (rows {shown}); "
                "the checkpoint has diverged: train again with a lower learning rate or in 32-true precision"
            )


def _device_of(model: Any) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a module and its parts in eval mode for a while, then each back in the mode it had."""
    modes = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(
    model: Any,
    faces: Any,
    *,
    features: Sequence[str] = FEATURES,
    seed: int = 0,
    protocol: str = "validation",
    batch_size: int = 256,
    precision: str | None = None,
) -> pd.DataFrame:
    """Probe frozen features for every task the set has labels for (`left_out` says for which it has none).

    model: see `extract`; or the `Features` of all images of the set, in the order of its table, to run the encoder
    only once for several reports. features: those to probe; ones the model does not have give no rows. seed: of the
    intervals; the probes themselves are convex and need none. protocol: "validation", or "released_code", whose
    scores are optimistic and say so under `chosen`; see `tasks.plan`. A set with folds of people
    (column fold) is probed once a fold, with that fold for test: values are means over the folds.
    Returns a row a feature, task and metric: value (accuracy, F1, AUC in 0..1; MAE in degrees), low and high (95%
    bootstrap over test identities), n (test images or pairs), chosen (penalties and thresholds), protocol.
    Raises BadInput where nothing can be probed and where a feature is NaN or infinite.
    Source: paper, section 4; METHOD.md 7.
    """
    return score_table(_score(model, faces, features, seed, protocol, batch_size, precision), protocol)


def evaluate_paired(model: Any, faces: Any, *, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`evaluate`, and the same scores over resampled test identities, to compare two models pair by pair.

    The second table has feature, task, metric and the columns 0 to REPLICATES - 1. With one set and one seed, column
    i weighs the same identities alike for every model: differences of two models' columns are paired.
    """
    scores = _score(model, faces, FEATURES, seed, PROTOCOLS[0], 256, None)
    names = ("feature", "task", "metric")
    rows = [
        {name: of_folds[0][name] for name in names}
        | dict(enumerate(np.mean([row["values"][1:] for row in of_folds], axis=0)))
        for of_folds in zip(*(score.rows for score in scores), strict=True)
    ]
    return score_table(scores, PROTOCOLS[0]), pd.DataFrame(rows).rename(columns=str)


def _score(
    model: Any,
    faces: Any,
    features: Sequence[str],
    seed: int,
    protocol: str,
    batch_size: int,
    precision: str | None,
) -> list[Scores]:
    made = plans(faces, protocol)
    rows = np.unique(np.concatenate([each.rows() for each in made]))
    if len(rows) == 0:
        raise BadInput(f"{faces.name} cannot be probed. " + " ".join(left_out(faces)))
    held, at = hold(model, faces, rows, batch_size, precision)
    scores = scorers(faces, seed, len(made))
    for name in features:
        if name not in FEATURES:
            raise BadInput(f"unknown feature {name!r}; use some of {', '.join(FEATURES)}")
        x = getattr(held, name)
        if x is not None:
            frozen = linear.Frozen(x, at, len(faces))
            for each, score in zip(made, scores, strict=True):
                _probe(name, frozen, each, faces.table, score, protocol == "released_code")
    return scores


def hold(
    model: Any, faces: Any, rows: np.ndarray, batch_size: int = 256, precision: str | None = None
) -> tuple[Features, np.ndarray]:
    """Features for at least these rows, and the row number of each: extracted, or taken as given and checked."""
    if not isinstance(model, tuple):
        return extract(model, faces, rows, batch_size, precision=precision), rows
    given = Features(*model)
    every = np.arange(len(faces))
    for name, x in zip(FEATURES, given, strict=True):
        if x is not None and len(x) != len(faces):
            raise BadInput(f"{len(x)} {name} features for {len(faces)} images; give extract(model, faces)")
    check_finite(given, every)
    return given, every


def _probe(
    name: str, frozen: linear.Frozen, made: Plan, table: pd.DataFrame, result: Scores, released: bool
) -> None:
    if made.expression:
        _probe_expression(name, frozen, made.expression, table, result, released)
    if made.action_units:
        _probe_units(name, frozen, made.action_units, made.units, table, result, released)
    if made.pose:
        _probe_pose(name, frozen, made.pose, made.angles, table, result, released)
    if made.pairs is not None:
        _probe_pairs(name, frozen, made.pairs, "verification", result)
    if made.cross_pose is not None:
        _probe_pairs(name, frozen, made.cross_pose, "cross-pose verification", result)


def expression_codes(names: pd.Series) -> np.ndarray:
    """[rows] 0 to 6 in the order of `labels.EXPRESSION_NAMES`, -1 where there is no label."""
    return pd.Categorical(names, categories=EXPRESSION_NAMES).codes.astype(np.int64)


def _probe_expression(
    name: str, frozen: linear.Frozen, split: Split, table: pd.DataFrame, result: Scores, released: bool
) -> None:
    y = expression_codes(table["expression"])
    if released:
        predicted, epoch = released_probes.read_classes(frozen, split, y)
        chosen = released_probes.named(epoch)
    else:
        predicted, penalty = linear.read_classes(frozen, split, y)
        chosen = f"L2 {penalty:.2g}"
    right = linear.weighted_mean(predicted == y[split.test], result.weights(split.test))
    result.add(name, "expression", "accuracy", right, len(split.test), chosen)


def _probe_units(
    name: str,
    frozen: linear.Frozen,
    split: Split,
    units: tuple[str, ...],
    table: pd.DataFrame,
    result: Scores,
    released: bool,
) -> None:
    present = table[list(units)].to_numpy(float) >= PRESENT
    if released:
        test, epoch = released_probes.read_presence(frozen, split, present)
        thresholds, fitted = np.zeros(len(units)), [released_probes.named(epoch)] * len(units)
    else:
        validation, test, penalties = linear.read_presence(frozen, split, present)
        seen = present[split.validation]
        thresholds = np.array(
            [linear.best_threshold(*pair, "f1") for pair in zip(validation.T, seen.T, strict=True)]
        )
        fitted = [f"L2 {penalty:.2g}" for penalty in penalties]
    weights = result.weights(split.test)
    f1, auc = [], []
    for i, unit in enumerate(units):
        truth, chosen = present[split.test, i], f"{fitted[i]}, threshold {thresholds[i]:.3g}"
        f1.append(linear.weighted_f1(test[:, i] >= thresholds[i], truth, weights))
        auc.append(linear.weighted_auc(test[:, i], truth, weights))
        result.add(name, "action units", f"F1 {unit}", f1[-1], len(truth), chosen)
        result.add(name, "action units", f"AUC {unit}", auc[-1], len(truth), fitted[i])
    _mean_f1(name, units, f1, len(split.test), result)
    result.add(name, "action units", "AUC mean", np.mean(auc, axis=0), len(split.test))


def _mean_f1(name: str, units: tuple[str, ...], f1: list[np.ndarray], n: int, result: Scores) -> None:
    """The mean over all units, and over those of the paper where they are not all."""
    result.add(name, "action units", "F1 mean", np.mean(f1, axis=0), n)
    paper = [score for unit, score in zip(units, f1, strict=True) if unit in PAPER_UNITS]
    if len(paper) == len(PAPER_UNITS):
        result.add(name, "action units", f"F1 mean of {len(paper)}", np.mean(paper, axis=0), n)


def _probe_pose(
    name: str,
    frozen: linear.Frozen,
    split: Split,
    angles: tuple[str, ...],
    table: pd.DataFrame,
    result: Scores,
    released: bool,
) -> None:
    y = table[list(angles)].to_numpy(float)
    if released:
        predicted, epoch = released_probes.read_values(frozen, split, y)
        chosen = [released_probes.named(epoch)] * len(angles)
    else:
        predicted, penalties = linear.read_values(frozen, split, y, robust=True)
        chosen = [f"L2 {penalty:.2g}" for penalty in penalties]
    _pose_rows(name, np.abs(predicted - y[split.test]), split, angles, result, chosen)


def _pose_rows(
    name: str,
    error: np.ndarray,
    split: Split,
    angles: tuple[str, ...],
    result: Scores,
    chosen: Sequence[str] = (),
) -> None:
    weights = result.weights(split.test)
    for i, angle in enumerate(angles):
        mean = linear.weighted_mean(error[:, i], weights)
        result.add(name, "head pose", f"MAE {angle}", mean, len(error), chosen[i] if chosen else "")
    if len(angles) == len(ANGLE_NAMES):
        result.add(name, "head pose", "MAE mean", linear.weighted_mean(error.mean(1), weights), len(error))


def _probe_pairs(name: str, frozen: linear.Frozen, pairs: pd.DataFrame, task: str, result: Scores) -> None:
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    similarity = F.cosine_similarity(frozen.at(first).double(), frozen.at(second).double()).cpu().numpy()
    right, thresholds = linear.verify(similarity, pairs["same"].to_numpy(bool), pairs["fold"].to_numpy())
    accuracy = linear.weighted_mean(right, result.weights(first, second))
    result.add(name, task, "accuracy", accuracy, len(right), f"cosine {thresholds.mean():.3g}")


def baseline_rows(faces: Any, *, seed: int = 0, protocol: str = "validation") -> pd.DataFrame:
    """What can be scored without looking at an image, in the columns of `evaluate`.

    feature is "majority class" (the commonest training expression; the commoner answer of the pairs), "all positive"
    (every action unit present in every image) or "mean predictor" (the mean training angle).
    """
    made, table = plans(faces, protocol), faces.table
    scores = scorers(faces, seed, len(made))
    for each, score in zip(made, scores, strict=True):
        _score_constants(each, table, score)
    return score_table(scores, protocol)


def _score_constants(made: Plan, table: pd.DataFrame, result: Scores) -> None:
    if made.expression:
        y, test = expression_codes(table["expression"]), made.expression.test
        right = y[test] == np.bincount(y[made.expression.train]).argmax()
        right_mean = linear.weighted_mean(right, result.weights(test))
        result.add("majority class", "expression", "accuracy", right_mean, len(test))
    if made.action_units:
        test = made.action_units.test
        weights, f1 = result.weights(test), []
        for unit in made.units:
            present = table[unit].to_numpy(float)[test] >= PRESENT
            f1.append(linear.weighted_f1(np.ones_like(present), present, weights))
            result.add("all positive", "action units", f"F1 {unit}", f1[-1], len(test))
        _mean_f1("all positive", made.units, f1, len(test), result)
    if made.pose:
        y = table[list(made.angles)].to_numpy(float)
        error = np.abs(y[made.pose.test] - y[made.pose.train].mean(0))
        _pose_rows("mean predictor", error, made.pose, made.angles, result)
    for task, pairs in (("verification", made.pairs), ("cross-pose verification", made.cross_pose)):
        if pairs is not None:
            same = pairs["same"].to_numpy(bool)
            weights = result.weights(pairs["first"].to_numpy(), pairs["second"].to_numpy())
            right_mean = linear.weighted_mean(same == (same.mean() >= 0.5), weights)
            result.add("majority class", task, "accuracy", right_mean, len(same))
