"""What frozen features know: features once, then expression, action units, head pose and verification.

Probes are linear (paper, evaluation protocol), fitted on the training split to convergence for a grid of penalties.
The penalty and every threshold are chosen on the validation split; the test split is scored once. Verification has
no training: cosine similarity, threshold by cross-validation over the published folds (LFW, restricted). The protocols
"released_code" and "pcfrl" train and choose as the authors' code does instead (`probes.released_code`): optimistic
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch.nn.functional as F

from pcl_lib.data import FaceSet
from pcl_lib.data.labels import ANGLE_NAMES, PAPER_UNITS, PRESENT, expression_codes
from pcl_lib.probes import linear, released_code
from pcl_lib.probes.features import FEATURES, FeatureModel, FrozenFeatures, get_features
from pcl_lib.probes.scores import GroupScores, Scores, group_table, mean_of_folds, score_table, scorers
from pcl_lib.probes.tasks import OPTIMISTIC, PROTOCOLS, Plan, Split, left_out, plans
from pcl_lib.utils import BadInput, spent


@spent("probe")
def evaluate(
    model: FeatureModel | FrozenFeatures,
    faces: FaceSet,
    *,
    features: Sequence[str] = FEATURES,
    seed: int = 0,
    protocol: str = "validation",
) -> pd.DataFrame:
    """Probe frozen features for every task the set has labels for (`left_out` says for which it has none).

    model: see `extract`; or the `FrozenFeatures` of all images of the set, in the order of its table, to run the
    encoder only once for several reports. features: those to probe; ones the model does not have give no rows. seed:
    of the intervals; the probes themselves are convex and need none. protocol: "validation"; or one whose scores are
    optimistic (see `tasks.plan`): "released_code", or "pcfrl", which differs from it in action units and verification.
    A set with folds of people (column fold) is probed once per fold, with that fold for test: values are means over
    the folds.
    Returns one row per feature, task and metric: value (accuracy, F1, AUC in 0..1; MAE in degrees), low and high (95%
    bootstrap over test identities), n (test images or pairs), what was chosen (penalty, threshold, epoch; NaN where
    there is no such choice, the mean over folds where there are several), protocol.
    Raises BadInput where nothing can be probed and where a feature is NaN or infinite.
    Source: paper, section 4; notebooks/method.md, section 7.

    >>> from pcl_lib.data.rendered import Gallery
    >>> from pcl_lib.probes import RawPixels
    >>> rows = evaluate(RawPixels(), Gallery(32, people=10, images_per_person=4))
    >>> rows.loc[rows["metric"] == "MAE yaw", ["feature", "task", "n"]].values.tolist()
    [['general', 'head pose', 8]]
    """
    return score_table(_score(model, faces, features, seed, protocol), protocol)


@spent("probe")
def evaluate_paired(
    model: FeatureModel | FrozenFeatures, faces: FaceSet, *, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`evaluate`, and the same scores over resampled test identities, to compare two models pair by pair.

    The second table has feature, task, metric and the columns 0 to REPLICATES - 1. With one set and one seed, column
    i weighs the same identities alike for every model: differences of two models' columns are paired.
    """
    scores = _score(model, faces, FEATURES, seed, PROTOCOLS[0])
    names = ("feature", "task", "metric")
    rows = [
        {name: of_folds[0][name] for name in names}
        | dict(enumerate(mean_of_folds([row["values"] for row in of_folds])[1:]))
        for of_folds in zip(*(score.rows for score in scores), strict=True)
    ]
    return score_table(scores, PROTOCOLS[0]), pd.DataFrame(rows).rename(columns=str)


@spent("probe")
def evaluate_groups(
    model: FeatureModel | FrozenFeatures,
    faces: FaceSet,
    groups: Mapping[str, np.ndarray],
    *,
    differences: Sequence[tuple[str, str]] = (),
    features: Sequence[str] = FEATURES,
    seed: int = 0,
) -> pd.DataFrame:
    """`evaluate`, with the test images of each group scored apart: one fit, one choice, one threshold for all.

    groups: by name bool [len(faces)], the rows that belong to it; they may overlap. Pairs count where both images do.
    differences: pairs of groups whose difference is wanted too, as a row "first - second" with a paired interval.
    Returns one row per feature, task, metric and group: value, low and high (95% bootstrap over test identities), n
    (images or pairs). A score that a group cannot have, such as an AUC without positives, is NaN.
    Raises BadInput as `evaluate`, for a group of another length, and for a set with folds.
    """
    if "fold" in faces.table:
        raise BadInput(f"{faces.name} has folds of people: its groups are not scored apart")
    if wrong := [name for name, rows in groups.items() if np.shape(rows) != (len(faces),)]:
        raise BadInput(
            f"group {wrong[0]} must say of each of the {len(faces)} images whether it belongs to it"
        )
    member = np.array([np.asarray(rows, dtype=bool) for rows in groups.values()])
    (score,) = _score(model, faces, features, seed, PROTOCOLS[0], member)
    assert isinstance(score, GroupScores)
    return group_table(score, list(groups), differences)


def _score(
    model: FeatureModel | FrozenFeatures,
    faces: FaceSet,
    features: Sequence[str],
    seed: int,
    protocol: str,
    groups: np.ndarray | None = None,
) -> Sequence[Scores]:
    made = plans(faces, protocol)
    rows = np.unique(np.concatenate([each.rows() for each in made]))
    if len(rows) == 0:
        raise BadInput(f"{faces.name} cannot be probed. " + " ".join(map(str, left_out(faces))))
    given, at = get_features(model, faces, rows)
    scores = scorers(faces, seed, len(made)) if groups is None else [GroupScores(faces, seed, groups)]
    for name in features:
        if name not in FEATURES:
            raise BadInput(f"unknown feature {name!r}; use some of {', '.join(FEATURES)}")
        x = getattr(given, name)
        if x is not None:
            cached = linear.CachedFeatures(x, at, len(faces))
            for each, score in zip(made, scores, strict=True):
                _probe(name, cached, each, faces.table, score, protocol)
    return scores


def _probe(
    name: str, cached: linear.CachedFeatures, made: Plan, table: pd.DataFrame, result: Scores, protocol: str
) -> None:
    if made.expression:
        _probe_expression(name, cached, made.expression, table, result, protocol)
    if made.action_units:
        _probe_units(name, cached, made.action_units, made.units, table, result, protocol)
    if made.pose:
        _probe_pose(name, cached, made.pose, made.angles, table, result, protocol)
    for task, pairs in (("verification", made.pairs), ("cross-pose verification", made.cross_pose)):
        if pairs is not None and protocol == "pcfrl":
            _probe_pairs_pcfrl(name, cached, made.pair_splits(pairs), task, result)
        elif pairs is not None:
            _probe_pairs(name, cached, pairs, task, result)


def _probe_expression(
    name: str,
    cached: linear.CachedFeatures,
    split: Split,
    table: pd.DataFrame,
    result: Scores,
    protocol: str,
) -> None:
    y = expression_codes(table["expression"])
    if protocol in OPTIMISTIC:
        predicted, epoch = released_code.predict_classes(cached, split, y)
        chosen = {"epoch": float(epoch)}
    else:
        predicted, penalty = linear.predict_classes(cached, split, y)
        chosen = {"penalty": penalty}
    right = linear.weighted_mean(predicted == y[split.test], result.weights(split.test))
    result.add(name, "expression", "accuracy", right, len(split.test), **chosen)


def _probe_units(
    name: str,
    cached: linear.CachedFeatures,
    split: Split,
    units: tuple[str, ...],
    table: pd.DataFrame,
    result: Scores,
    protocol: str,
) -> None:
    present = table[list(units)].to_numpy(float) >= PRESENT
    if protocol in OPTIMISTIC:
        low_bar = protocol == "pcfrl"
        predict = released_code.predict_presence_pcfrl if low_bar else released_code.predict_presence
        test, epoch = predict(cached, split, present)
        thresholds = np.full(len(units), released_code.PCFRL_LOGIT if low_bar else 0.0)
        fitted = [{"epoch": float(epoch)}] * len(units)
    else:
        validation, test, penalties = linear.predict_presence(cached, split, present)
        seen = present[split.validation]
        thresholds = np.array(
            [linear.best_threshold(*pair, "f1") for pair in zip(validation.T, seen.T, strict=True)]
        )
        fitted = [{"penalty": penalty} for penalty in penalties]
    weights = result.weights(split.test)
    f1 = list(linear.weighted_f1(test >= thresholds, present[split.test], weights).T)
    auc = []
    for i, unit in enumerate(units):
        truth = present[split.test, i]
        auc.append(linear.weighted_auc(test[:, i], truth, weights))
        result.add(
            name, "action units", f"F1 {unit}", f1[i], len(truth), threshold=thresholds[i], **fitted[i]
        )
        result.add(name, "action units", f"AUC {unit}", auc[-1], len(truth), **fitted[i])
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
    cached: linear.CachedFeatures,
    split: Split,
    angles: tuple[str, ...],
    table: pd.DataFrame,
    result: Scores,
    protocol: str,
) -> None:
    y = table[list(angles)].to_numpy(float)
    if protocol in OPTIMISTIC:
        predicted, epoch = released_code.predict_values(cached, split, y)
        chosen = [{"epoch": float(epoch)}] * len(angles)
    else:
        predicted, penalties = linear.predict_values(cached, split, y, robust=True)
        chosen = [{"penalty": penalty} for penalty in penalties]
    _pose_rows(name, np.abs(predicted - y[split.test]), split, angles, result, chosen)


def _pose_rows(
    name: str,
    error: np.ndarray,
    split: Split,
    angles: tuple[str, ...],
    result: Scores,
    chosen: Sequence[dict[str, float]] = (),
) -> None:
    weights = result.weights(split.test)
    for i, angle in enumerate(angles):
        mean = linear.weighted_mean(error[:, i], weights)
        result.add(name, "head pose", f"MAE {angle}", mean, len(error), **(chosen[i] if chosen else {}))
    if len(angles) == len(ANGLE_NAMES):
        result.add(name, "head pose", "MAE mean", linear.weighted_mean(error.mean(1), weights), len(error))


def _probe_pairs(
    name: str, cached: linear.CachedFeatures, pairs: pd.DataFrame, task: str, result: Scores
) -> None:
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    similarity = F.cosine_similarity(cached.at(first).double(), cached.at(second).double()).cpu().numpy()
    right, thresholds = linear.verify(similarity, pairs["same"].to_numpy(bool), pairs["fold"].to_numpy())
    accuracy = linear.weighted_mean(right, result.weights(first, second))
    result.add(name, task, "accuracy", accuracy, len(right), threshold=float(thresholds.mean()))


def _probe_pairs_pcfrl(
    name: str,
    cached: linear.CachedFeatures,
    splits: list[tuple[pd.DataFrame, pd.DataFrame]],
    task: str,
    result: Scores,
) -> None:
    judged = [released_code.verify_pcfrl(cached, *split) for split in splits]
    right, tested = np.concatenate([r for r, _ in judged]), pd.concat([test for _, test in splits])
    weights = result.weights(tested["first"].to_numpy(), tested["second"].to_numpy())
    epoch = float(np.mean([epoch for _, epoch in judged]))
    accuracy = linear.weighted_mean(right, weights)
    result.add(name, task, "accuracy", accuracy, len(right), threshold=released_code.MARGIN, epoch=epoch)


def baseline_rows(faces: FaceSet, *, seed: int = 0) -> pd.DataFrame:
    """What can be scored without looking at an image, in the columns of `evaluate`.

    feature is "majority class" (the commonest training expression; the commoner answer of the pairs), "all positive"
    (every action unit present in every image) or "mean predictor" (the mean training angle).
    """
    made, table = plans(faces), faces.table
    scores = scorers(faces, seed, len(made))
    for each, score in zip(made, scores, strict=True):
        _score_constants(each, table, score)
    return score_table(scores, PROTOCOLS[0])


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
