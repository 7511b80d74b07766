"""Leakage: which factors a linear probe finds in each feature.

PCL aims for an R^2 of 1 for yaw from the pose-related feature and 0 from the face-aware one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from pcl_lib.data import FaceSet
from pcl_lib.data.labels import expression_codes, identity_codes
from pcl_lib.disentangle.swaps import r_squared
from pcl_lib.probes import FEATURES, FeatureModel, FrozenFeatures, linear
from pcl_lib.probes.features import get_features
from pcl_lib.probes.tasks import LeftOut, Split, labelled, plan
from pcl_lib.utils import BadInput, spent


class LeakagePlan(NamedTuple):
    """Which factors can be probed: images of each split by factor, of the two games of identity, and what cannot."""

    factors: dict[str, Split]
    identity: tuple[Split, ...]
    left_out: list[LeftOut]


def leakage_plan(faces: FaceSet, seed: int = 0) -> LeakagePlan:
    """The factors that `leakage` can probe a set for; seed: draws the halves of each person's images.

    A factor that is the same on all test images is left out: nothing can tell a good prediction from a constant.
    """
    made = plan(faces)
    splits: dict[str, Split | None] = dict.fromkeys(made.angles, made.pose)
    splits["skin_tone"] = labelled(faces, ["skin_tone"], "skin tone", made.left_out)
    splits["expression"] = made.expression
    known = {
        factor: split
        for factor, split in splits.items()
        if split is not None and _varies(faces, factor, split, made.left_out)
    }
    games = _identity_games(faces, seed, made.left_out)
    return LeakagePlan(known, games, made.left_out)


def _varies(faces: FaceSet, factor: str, split: Split, notes: list[LeftOut]) -> bool:
    if faces.table[factor].iloc[split.test].nunique() > 1:
        return True
    notes.append(LeftOut(f"leakage of {factor.replace('_', ' ')}", "one value", faces.name))
    return False


@spent("probe")
def leakage(
    model: FeatureModel | FrozenFeatures, faces: FaceSet, seed: int = 0, *, features: Sequence[str] = FEATURES
) -> pd.DataFrame:
    """How well a linear probe predicts each factor from each feature, for identities it has not seen.

    model: see `probes.evaluate`; the features of the whole set, extracted before, serve too. yaw, pitch, roll and
    skin_tone: R^2 of ridge regression, train to test. expression: accuracy of logistic regression, train to test.
    identity: accuracy among the test identities, fitted on half the images of each and tested on the other half;
    its penalty comes from the same game among the validation identities. seed: draws those halves.
    Returns feature, factor, metric ("R2" or "accuracy"), value, chance (of the chance baseline), n; factors that the
    set has no labels for, or one value, have no rows (`leakage_plan` says why).
    Raises BadInput where no factor is labelled and where a feature is NaN or infinite.
    """
    factors, games, left_out = leakage_plan(faces, seed)
    parts = [*factors.values(), *games]
    if not parts:
        raise BadInput(f"no factor of {faces.name} can be probed. " + " ".join(map(str, left_out)))
    given, at = get_features(model, faces, np.unique(np.concatenate([p for s in parts for p in s])))
    rows: list[dict[str, Any]] = []
    for name in features:
        if (x := getattr(given, name)) is None:
            continue
        cached = linear.CachedFeatures(x, at, len(faces))
        for factor, split in factors.items():
            probe = _probe_expression if factor == "expression" else _probe_value
            rows.append({"feature": name, "factor": factor} | probe(cached, split, faces.table[factor]))
        if games:
            rows.append({"feature": name, "factor": "identity"} | _probe_identity(cached, faces, games))
    return pd.DataFrame(rows)


def _probe_value(cached: linear.CachedFeatures, split: Split, truth: pd.Series) -> dict[str, Any]:
    y = truth.to_numpy(float)[:, None]
    predicted, _ = linear.predict_values(cached, split, y)
    value = r_squared(y[split.test, 0], predicted[:, 0])
    return {"metric": "R2", "value": value, "chance": 0.0, "n": len(split.test)}


def _probe_expression(cached: linear.CachedFeatures, split: Split, truth: pd.Series) -> dict[str, Any]:
    y = expression_codes(truth)
    predicted, _ = linear.predict_classes(cached, split, y)
    common = np.bincount(y[split.train]).argmax()
    return _accuracy(predicted == y[split.test], y[split.test] == common)


def _accuracy(right: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    return {"metric": "accuracy", "value": right.mean(), "chance": baseline.mean(), "n": len(right)}


def _identity_games(faces: FaceSet, seed: int, notes: list[LeftOut]) -> tuple[Split, ...]:
    """The game among validation and among test identities: fit on `train`, test on `test` (= `validation`)."""
    codes = identity_codes(faces.table)
    generator = np.random.default_rng(seed)
    games = []
    for name in ("validation", "test"):
        rows = generator.permutation(faces.split(name))
        turn = pd.Series(codes[rows]).groupby(codes[rows]).cumcount().to_numpy()
        images = pd.Series(codes[rows]).map(pd.Series(codes[rows]).value_counts()).to_numpy()
        fit, other = rows[(images > 1) & (turn < images // 2)], rows[(images > 1) & (turn >= images // 2)]
        if len(np.unique(codes[fit])) < 2:
            notes.append(LeftOut("identity", "too few people", faces.name, (name,)))
            return ()
        games.append(Split(fit, other, other))
    return tuple(games)


def _probe_identity(
    cached: linear.CachedFeatures, faces: FaceSet, games: tuple[Split, ...]
) -> dict[str, Any]:
    """Ridge regression onto one-hot identities, the largest output wins."""
    codes = identity_codes(faces.table)
    penalties: tuple[float, ...] = linear.RIDGE_PENALTIES
    for game in games:  # the first chooses the penalty of the second
        names, y = np.unique(codes[game.train], return_inverse=True)
        truth = np.searchsorted(names, codes[game.test])
        train, _, test, values = cached.whitened(game)
        target = torch.eye(len(names), device=train.device)[torch.from_numpy(y).to(train.device)]
        path = linear.ridge_path(train, target, values, penalties)
        right = [w(test).argmax(1).cpu().numpy() == truth for w in path]
        penalties = (penalties[int(np.argmax([r.mean() for r in right]))],)
    return _accuracy(right[0], truth == np.bincount(truth).argmax())


def dci(rows: pd.DataFrame, pair: tuple[str, str] = ("face", "pose")) -> dict[str, float]:
    """How well two features are disentangled, in 0..1: DCI's disentanglement and completeness, and SAP.

    rows: of `leakage` for one method and seed, with both features of the pair. The code has two components, the two
    features, not single numbers, so that a rotation within a feature changes nothing. The score of a feature for a
    factor is what its probe finds above chance, as a share of what there is above chance, at least 0; its share in
    the factor is this score divided by the sum over both features.
    informativeness: mean over factors of the better score. SAP: mean over factors of the better less the worse.
    completeness: 1 - entropy of a factor's shares over the features, in units of its largest, weighted by scores.
    disentanglement: 1 - entropy of a feature's shares over the factors, the same, weighted likewise.
    NaN where nothing is found at all. Raises BadInput where a feature is missing.
    Source: Eastwood and Williams 2018, section 2; Kumar et al. 2018, section 3 (SAP).
    """
    above = rows.assign(above=((rows["value"] - rows["chance"]) / (1 - rows["chance"])).clip(lower=0))
    table = above.pivot(index="factor", columns="feature", values="above")
    if not set(pair) <= set(table):
        raise BadInput(
            f"DCI compares the features {pair[0]} and {pair[1]}, and these rows lack one: compute their leakage first"
        )
    r = table[list(pair)].to_numpy(float)  # [factors, 2]
    total = r.sum()

    def purity(x: np.ndarray) -> float:
        """1 - entropy of each row's shares, mean weighed by the rows' sums."""
        weight = x.sum(1, keepdims=True)
        share = np.divide(x, weight, out=np.full(x.shape, 1 / x.shape[1]), where=weight > 0)
        entropy = -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum(1)
        return float(weight[:, 0] @ (1 - entropy / np.log(x.shape[1])) / total) if total else float("nan")

    return {
        "disentanglement": purity(r.T) if len(r) > 1 else float("nan"),
        "completeness": purity(r),
        "informativeness": float(r.max(1).mean()),
        "SAP": float(np.abs(r[:, 0] - r[:, 1]).mean()),
    }
