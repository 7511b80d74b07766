"""Swaps: whose factors the decoder's picture shows, the face donor's or the pose donor's, by true factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.data import FaceSet
from pcl_lib.data.labels import identity_codes
from pcl_lib.probes import extract
from pcl_lib.probes.features import BATCH, AsDecoded, device_of, evaluating
from pcl_lib.probes.tasks import LeftOut, Split, labelled
from pcl_lib.utils import BadInput, spent

SWAP_FACTORS = ("yaw", "pitch", "roll", "skin_tone", "hair_tone", "light_azimuth")
READ_SIZE = 24  # pixels; enough for pose and colours, and blurred swaps hold no more


class SwapModel(Protocol):
    """A model that decodes a picture from two features, such as a `PCL`."""

    def features(self, images: Tensor, /) -> Any:
        """[N, 3, H, W] -> a tuple with `face` and `pose`, [N, D] each."""

    def decode(self, face: Tensor, pose: Tensor, /) -> Tensor:
        """[N, D] each -> [N, 3, S, S]."""


def swap_plan(
    faces: FaceSet, factors: Sequence[str] = SWAP_FACTORS
) -> tuple[list[str], Split | None, list[LeftOut]]:
    """The factors that swaps of a set can be judged by, the images that have them all, and what is left out.

    The images are None where no factor is labelled in every split, or the test images show a single person.
    """
    notes: list[LeftOut] = []
    known = [factor for factor in factors if labelled(faces, [factor], f"swaps by {factor}", notes)]
    split = labelled(faces, known, "swaps", notes) if known else None
    if split is not None and len(np.unique(identity_codes(faces.table)[split.test])) < 2:
        notes.append(LeftOut("swaps", "one person", faces.name))
        split = None
    return known, split, notes


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
    Raises BadInput where the model cannot decode, no factor is labelled, or test images show one person. Source: ours.
    """
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
            "reader_r2": r_squared(truth[donors, i], seen[:, i]),
            "n": n,
        }
        for i, factor in enumerate(known)
    )


def pictures(model: SwapModel, face: Tensor, pose: Tensor) -> Tensor:
    """Decode face and pose features, [n, D] each, and shrink the pictures: float64 [n, 3 * READ_SIZE^2]."""
    parts, device = [], device_of(model)
    with evaluating(model), torch.inference_mode():
        for some in (slice(start, start + BATCH) for start in range(0, len(face), BATCH)):
            batch = model.decode(face[some].to(device), pose[some].to(device))
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


def r_squared(truth: np.ndarray, predicted: np.ndarray) -> float:
    """The coefficient of determination of predictions [n]; NaN where the truth is constant."""
    from sklearn.metrics import r2_score  # a second to import

    return float(r2_score(truth, predicted)) if np.ptp(truth) > 0 else float("nan")


def _some(rows: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.sort(generator.permutation(rows)[:count])


def _pairs(
    rows: np.ndarray, codes: np.ndarray, n: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """n pairs of rows of different identities, of which there are two or more, each row at random."""
    a, b = generator.choice(rows, n), generator.choice(rows, n)
    while (alike := codes[a] == codes[b]).any():
        b[alike] = generator.choice(rows, int(alike.sum()))
    return a, b
