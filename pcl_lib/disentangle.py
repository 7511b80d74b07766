"""What leaks where: which factors each feature reveals, and which image a swapped reconstruction obeys.

Readability asks a linear reader; 1 (or 100%) for yaw from the pose feature and chance from the face feature would
be the disentanglement that PCL aims for. Swaps ask the decoder, by true factors instead of by eye.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib import linear
from pcl_lib.errors import BadInput
from pcl_lib.labels import FEATURES, identity_codes
from pcl_lib.probes import AsDecoded, evaluating, expression_codes, extract, hold
from pcl_lib.tasks import Split, labelled, plan

SWAP_FACTORS = ("yaw", "pitch", "roll", "skin_tone", "hair_tone", "light_azimuth")
READ_SIZE = 24  # pixels; enough for pose and colours, and blurred swaps hold no more


def readability(
    model: Any, faces: Any, seed: int = 0, *, features: Sequence[str] = FEATURES, batch_size: int = 256
) -> pd.DataFrame:
    """How well a linear reader tells each factor from each feature, for identities it has not seen.

    model: see `probes.evaluate`; the features of the whole set, extracted before, serve too. yaw, pitch, roll and
    skin_tone: R^2 of ridge regression, train to test. expression: accuracy of logistic regression, train to test.
    identity: accuracy among the test identities, fitted on half the images of each and tested on the other half;
    its penalty comes from the same game among the validation identities. seed: draws those halves.
    Returns feature, factor, metric ("R2" or "accuracy"), value, chance (of a constant answer), n; factors that the
    set has no labels for have no rows and a sentence each in the table's attrs["left_out"].
    Raises BadInput where no factor is labelled and where a feature is NaN or infinite.
    """
    made = plan(faces)
    splits: dict[str, Split | None] = dict.fromkeys(made.angles, made.pose)
    splits["skin_tone"] = labelled(faces, ["skin_tone"], "Skin tone", made.left_out)
    splits["expression"] = made.expression
    readers = {factor: split for factor, split in splits.items() if split is not None}
    games = _identity_games(faces, seed, made.left_out)
    parts = [*readers.values(), *games]
    if not parts:
        raise BadInput(f"nothing can be read from {faces.name}. " + " ".join(made.left_out))
    held, at = hold(model, faces, np.unique(np.concatenate([p for s in parts for p in s])), batch_size)
    rows: list[dict[str, Any]] = []
    for name in features:
        if (x := getattr(held, name)) is None:
            continue
        frozen = linear.Frozen(x, at, len(faces))
        for factor, split in readers.items():
            read = _read_expression if factor == "expression" else _read_value
            rows.append({"feature": name, "factor": factor} | read(frozen, split, faces.table[factor]))
        if games:
            rows.append({"feature": name, "factor": "identity"} | _read_identity(frozen, faces, games))
    table = pd.DataFrame(rows)
    table.attrs["left_out"] = made.left_out
    return table


def _read_value(frozen: linear.Frozen, split: Split, truth: pd.Series) -> dict[str, Any]:
    y = truth.to_numpy(float)[:, None]
    predicted, _ = linear.read_values(frozen, split, y)
    return {
        "metric": "R2",
        "value": r2(predicted[:, 0], y[split.test, 0]),
        "chance": 0.0,
        "n": len(split.test),
    }


def _read_expression(frozen: linear.Frozen, split: Split, truth: pd.Series) -> dict[str, Any]:
    y = expression_codes(truth)
    predicted, _ = linear.read_classes(frozen, split, y)
    common = np.bincount(y[split.train]).argmax()
    return _accuracy(predicted == y[split.test], y[split.test] == common)


def _accuracy(right: np.ndarray, constant: np.ndarray) -> dict[str, Any]:
    return {"metric": "accuracy", "value": right.mean(), "chance": constant.mean(), "n": len(right)}


def r2(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Share of the variance of truth that is explained; 0 for its mean, negative for worse. Both [n]."""
    return float(1 - np.square(truth - predicted).sum() / np.square(truth - truth.mean()).sum())


def _identity_games(faces: Any, seed: int, notes: list[str]) -> tuple[Split, ...]:
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
            notes.append(f"Identity was left out: {name} has fewer than two identities with two images.")
            return ()
        games.append(Split(fit, other, other))
    return tuple(games)


def _read_identity(frozen: linear.Frozen, faces: Any, games: tuple[Split, ...]) -> dict[str, Any]:
    """Ridge regression onto one-hot identities, the largest output wins."""
    codes = identity_codes(faces.table)
    penalties: tuple[float, ...] = linear.RIDGE_PENALTIES
    for game in games:  # the first chooses the penalty of the second
        names, y = np.unique(codes[game.train], return_inverse=True)
        truth = np.searchsorted(names, codes[game.test])
        train, _, test, values = frozen.read(game)
        target = torch.eye(len(names), device=train.device)[torch.from_numpy(y).to(train.device)]
        path = linear.ridge_path(train, target, values, penalties)
        right = [w(test).argmax(1).cpu().numpy() == truth for w in path]
        penalties = (penalties[int(np.argmax([r.mean() for r in right]))],)
    return _accuracy(right[0], truth == np.bincount(truth).argmax())


def parted(rows: pd.DataFrame, pair: tuple[str, str] = ("face", "pose")) -> dict[str, float]:
    """How well two features part the factors, in 0..1: DCI's disentanglement and completeness, and SAP.

    rows: of `readability` for one method and seed, with both features of the pair. The code has two parts, the two
    features, not single numbers, so that a rotation within a feature changes nothing. A part's share in a factor is its
    reading above chance (as a share of what is left above chance, at least 0) divided by the sum over both parts.
    informativeness: mean over factors of the better reading. SAP: mean over factors of the better less the worse.
    completeness: 1 - entropy of a factor's shares over the parts, in units of its largest, mean weighed by reading.
    disentanglement: 1 - entropy of a part's shares over the factors, the same, weighed likewise.
    NaN where nothing is read at all. Raises BadInput where a feature is missing.
    Source: Eastwood and Williams 2018, section 2; Kumar et al. 2018, section 3 (SAP).
    """
    above = rows.assign(above=((rows["value"] - rows["chance"]) / (1 - rows["chance"])).clip(lower=0))
    table = above.pivot(index="factor", columns="feature", values="above")
    if not set(pair) <= set(table):
        raise BadInput(
            f"parting needs what is read from the features {pair[0]} and {pair[1]}: these rows have not both"
        )
    r = table[list(pair)].to_numpy(float)  # [factors, 2]
    total = r.sum()

    def parts_of(x: np.ndarray) -> float:
        """1 - entropy of each row's shares, mean weighed by the rows' sums."""
        weight = x.sum(1, keepdims=True)
        share = np.divide(x, weight, out=np.full(x.shape, 1 / x.shape[1]), where=weight > 0)
        entropy = -(share * np.log(share, out=np.zeros_like(share), where=share > 0)).sum(1)
        return float(weight[:, 0] @ (1 - entropy / np.log(x.shape[1])) / total) if total else float("nan")

    return {
        "disentanglement": parts_of(r.T) if len(r) > 1 else float("nan"),
        "completeness": parts_of(r),
        "informativeness": float(r.max(1).mean()),
        "SAP": float(np.abs(r[:, 0] - r[:, 1]).mean()),
    }


def swap_report(
    model: Any,
    faces: Any,
    n: int = 512,
    seed: int = 0,
    *,
    factors: Sequence[str] = SWAP_FACTORS,
    reader_images: int = 1500,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Whose factors a swapped reconstruction shows: the pose donor's or the face donor's.

    Draws n pairs (a, b) of test images of different identities, reconstructs decode(face(a), pose(b)) and reads
    each factor from the picture with a reader that was fitted on plain reconstructions decode(face(x), pose(x)) of
    training images (`PictureReader`). Features are those that the decoder knows (`AsDecoded`).
    factors: columns of the table; those without labels are left out and named in the table's attrs["left_out"].
    reader_images: training images for the reader, at most; a quarter as many validation images choose its settings.
    Returns factor, pose_donor_r and face_donor_r (correlation of what is read with the true factor of b and of a,
    NaN for a picture that never changes), reader_r2 (of the reader on plain reconstructions of the drawn test
    images: a factor with a low one is not in the pictures, and its correlations mean little) and n.
    Raises BadInput where the model cannot decode or no factor is labelled. Source: METHOD.md 10.
    """
    if not hasattr(model, "decode"):
        raise BadInput("swaps need a model with a decoder; this one has none")
    notes: list[str] = []
    splits = {f: s for f in factors if (s := labelled(faces, [f], f, notes)) is not None}
    split = labelled(faces, list(splits), "Swaps", notes) if splits else None
    if split is None:
        raise BadInput(f"swaps of {faces.name} cannot be measured. " + " ".join(notes))
    generator = np.random.default_rng(seed)
    train = _some(split.train, reader_images, generator)
    validation = _some(split.validation, reader_images // 4, generator)
    a, b = _pairs(split.test, identity_codes(faces.table), n, generator)
    donors = np.unique(np.concatenate([a, b]))
    rows = np.concatenate([train, validation, donors])
    held = extract(AsDecoded(model), faces, rows, batch_size)
    if held.face is None or held.pose is None:
        raise BadInput("swaps need a face feature and a pose feature; this model has only a general one")
    plain = pictures(model, held.face, held.pose, batch_size)
    at_a, at_b = (len(train) + len(validation) + np.searchsorted(donors, rows) for rows in (a, b))
    swapped = pictures(model, held.face[at_a], held.pose[at_b], batch_size)
    truth = faces.table[list(splits)].to_numpy(float)
    cut = np.cumsum([len(train), len(validation)])
    reader = PictureReader(plain[: cut[0]], truth[train], plain[cut[0] : cut[1]], truth[validation])
    seen, read = reader(plain[cut[1] :]), reader(swapped)
    table = pd.DataFrame(
        {
            "factor": factor,
            "pose_donor_r": correlation(read[:, i], truth[b, i]),
            "face_donor_r": correlation(read[:, i], truth[a, i]),
            "reader_r2": r2(seen[:, i], truth[donors, i]),
            "n": n,
        }
        for i, factor in enumerate(splits)
    )
    table.attrs["left_out"] = notes
    return table


def pictures(model: Any, face: Tensor, pose: Tensor, batch_size: int = 256, size: int = READ_SIZE) -> Tensor:
    """Decode face and pose features, [n, D] each, and shrink the pictures: float64 [n, 3 * size * size]."""
    parts = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(face), batch_size):
            batch = model.decode(face[start : start + batch_size], pose[start : start + batch_size])
            small = F.interpolate(batch.float(), (size, size), mode="bilinear", antialias=True)
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
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt(np.square(x).sum() * np.square(y).sum()))
    return float(x @ y) / size if size > 0 else float("nan")


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
