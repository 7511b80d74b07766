"""Disentanglement: which factors a linear probe finds in each feature, and which image a swapped picture shows.

Leakage asks linear probes: PCL aims for an R^2 of 1 for yaw from the pose-related feature and 0 from the face-aware
one. Swaps ask the decoder, by true factors instead of by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.data import FaceSet
from pcl_lib.data.labels import expression_codes, identity_codes
from pcl_lib.probes import FEATURES, FeatureModel, FrozenFeatures, extract, linear
from pcl_lib.probes.features import BATCH, AsDecoded, evaluating, get_features
from pcl_lib.probes.tasks import LeftOut, Split, labelled, plan
from pcl_lib.utils import BadInput, spent

SWAP_FACTORS = ("yaw", "pitch", "roll", "skin_tone", "hair_tone", "light_azimuth")
READ_SIZE = 24  # pixels; enough for pose and colours, and blurred swaps hold no more


class LeakagePlan(NamedTuple):
    """Which factors can be probed: images of each split by factor, of the two games of identity, and what cannot."""

    factors: dict[str, Split]
    identity: tuple[Split, ...]
    left_out: list[LeftOut]


def leakage_plan(faces: FaceSet, seed: int = 0) -> LeakagePlan:
    """The factors that `leakage` can probe a set for; seed: draws the halves of each person's images."""
    made = plan(faces)
    splits: dict[str, Split | None] = dict.fromkeys(made.angles, made.pose)
    splits["skin_tone"] = labelled(faces, ["skin_tone"], "skin tone", made.left_out)
    splits["expression"] = made.expression
    known = {factor: split for factor, split in splits.items() if split is not None}
    games = _identity_games(faces, seed, made.left_out)
    return LeakagePlan(known, games, made.left_out)


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
    set has no labels for have no rows (`leakage_plan` says why).
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
    from sklearn.metrics import r2_score  # a second to import

    y = truth.to_numpy(float)[:, None]
    predicted, _ = linear.predict_values(cached, split, y)
    value = r2_score(y[split.test, 0], predicted[:, 0], force_finite=False)
    return {"metric": "R2", "value": float(value), "chance": 0.0, "n": len(split.test)}


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


class SwapModel(Protocol):
    """A model that decodes a picture from two features, such as a `PCL`."""

    def features(self, images: Tensor, /) -> Any:
        """[N, 3, H, W] -> a tuple with `face` and `pose`, [N, D] each."""

    def decode(self, face: Tensor, pose: Tensor, /) -> Tensor:
        """[N, D] each -> [N, 3, S, S]."""


def swap_plan(
    faces: FaceSet, factors: Sequence[str] = SWAP_FACTORS
) -> tuple[list[str], Split | None, list[LeftOut]]:
    """The factors that swaps of a set can be judged by, the images that have them all, and what is left out."""
    notes: list[LeftOut] = []
    known = [factor for factor in factors if labelled(faces, [factor], f"swaps by {factor}", notes)]
    return known, labelled(faces, known, "swaps", notes) if known else None, notes


@spent("probe")
def swap_report(
    model: SwapModel,
    faces: FaceSet,
    n: int = 512,
    seed: int = 0,
    *,
    factors: Sequence[str] = SWAP_FACTORS,
    reader_images: int = 1500,
) -> pd.DataFrame:
    """Whose factors a swapped reconstruction shows: the pose donor's or the face donor's.

    Draws n pairs (a, b) of test images of different identities, reconstructs decode(face(a), pose(b)) and predicts
    each factor from the picture by a kernel regression that was fitted on plain reconstructions decode(face(x),
    pose(x)) of training images (`PictureReader`). Features are those that the decoder was trained on (`AsDecoded`).
    factors: columns of the table; those without labels are left out (`swap_plan` says why). reader_images: training
    images for the regression, at most; a quarter as many validation images choose its settings.
    Returns factor, pose_donor_r and face_donor_r (correlation of the prediction with the true factor of b and of a,
    NaN for a picture that never changes), reader_r2 (of the regression on plain reconstructions of the drawn test
    images: a factor with a low one is not in the pictures, and its correlations mean little) and n.
    Raises BadInput where the model cannot decode or no factor is labelled. Source: ours.
    """
    from sklearn.metrics import r2_score

    if not hasattr(model, "decode"):
        raise BadInput("swaps need a model with a decoder; this one has none")
    known, split, notes = swap_plan(faces, factors)
    if split is None:
        raise BadInput(f"swaps of {faces.name} cannot be measured. " + " ".join(map(str, notes)))
    generator = np.random.default_rng(seed)
    train = _some(split.train, reader_images, generator)
    validation = _some(split.validation, reader_images // 4, generator)
    a, b = _pairs(split.test, identity_codes(faces.table), n, generator)
    donors = np.unique(np.concatenate([a, b]))
    found = extract(AsDecoded(model), faces, np.concatenate([train, validation, donors]))
    if found.face is None or found.pose is None:
        raise BadInput("swaps need a face feature and a pose feature; this model has only a general one")
    plain = pictures(model, found.face, found.pose)
    at_a, at_b = (len(train) + len(validation) + np.searchsorted(donors, rows) for rows in (a, b))
    swapped = pictures(model, found.face[at_a], found.pose[at_b])
    truth = faces.table[known].to_numpy(float)
    cut = np.cumsum([len(train), len(validation)])
    reader = PictureReader(plain[: cut[0]], truth[train], plain[cut[0] : cut[1]], truth[validation])
    seen, predicted = reader(plain[cut[1] :]), reader(swapped)
    return pd.DataFrame(
        {
            "factor": factor,
            "pose_donor_r": correlation(predicted[:, i], truth[b, i]),
            "face_donor_r": correlation(predicted[:, i], truth[a, i]),
            "reader_r2": float(r2_score(truth[donors, i], seen[:, i], force_finite=False)),
            "n": n,
        }
        for i, factor in enumerate(known)
    )


def pictures(model: SwapModel, face: Tensor, pose: Tensor) -> Tensor:
    """Decode face and pose features, [n, D] each, and shrink the pictures: float64 [n, 3 * READ_SIZE^2]."""
    parts = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(face), BATCH):
            batch = model.decode(face[start : start + BATCH], pose[start : start + BATCH])
            small = F.interpolate(batch.float(), (READ_SIZE, READ_SIZE), mode="bilinear", antialias=True)
            parts.append(small.flatten(1).cpu().double())
    return torch.cat(parts)


class PictureReader:
    """Kernel ridge regression from pictures to factors: Gaussian kernel, not linear, because poses are not.

    train, validation: [n, P] float64 pictures; y_train, y_validation: [n, C] factors. The kernel's width (a multiple
    of the median distance between pictures) and the penalty are those of the lowest validation error, per factor.
    """

    def __init__(
        self, train: Tensor, y_train: np.ndarray, validation: Tensor, y_validation: np.ndarray
    ) -> None:
        self.train = train
        self.mean = y_train.mean(0)
        target, truth = (torch.from_numpy(y - self.mean) for y in (y_train, y_validation))
        typical = torch.cdist(train[:500], train[:500]).square().median().clamp_min(1e-12)
        lowest = torch.full((target.shape[1],), torch.inf, dtype=torch.float64)
        self.widths = torch.ones_like(lowest)
        self.weights = torch.zeros_like(target)
        for width in (typical * m for m in (0.3, 1.0, 3.0, 10.0)):
            values, vectors = torch.linalg.eigh(self._kernel(train, width))
            seen = self._kernel(validation, width)
            turned = vectors.T @ target
            for penalty in np.logspace(-6, 1, 15):
                weights = vectors @ (turned / (values.clamp_min(0) + penalty)[:, None])
                error = (seen @ weights - truth).square().mean(0)
                better = error < lowest
                lowest = torch.where(better, error, lowest)
                self.widths = torch.where(better, width, self.widths)
                self.weights = torch.where(better, weights, self.weights)

    def _kernel(self, x: Tensor, width: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, self.train).square() / (2 * width))

    def __call__(self, x: Tensor) -> np.ndarray:
        """x: [n, P] pictures -> factors [n, C]."""
        read = [self._kernel(x, w) @ self.weights[:, i] for i, w in enumerate(self.widths)]
        return torch.stack(read, 1).numpy() + self.mean


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's r of two series [n]; NaN where one is constant."""
    from scipy.stats import pearsonr  # a second to import

    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(pearsonr(x, y).statistic)


def _some(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.sort(generator.permutation(rows)[:count])


def _pairs(
    rows: np.ndarray, codes: np.ndarray, n: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """n pairs of rows of different identities, each row at random."""
    if len(np.unique(codes[rows])) < 2:
        raise BadInput("swaps need test images of at least two identities")
    a, b = generator.choice(rows, n), generator.choice(rows, n)
    while (alike := codes[a] == codes[b]).any():
        b[alike] = generator.choice(rows, int(alike.sum()))
    return a, b
