"""Linear probes of a feature that also say which way to move it: what the widgets predict with and turn heads by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcl_lib.data import FaceSet
from pcl_lib.probes import linear
from pcl_lib.probes.features import FeatureModel, extract
from pcl_lib.utils import BadInput, spent

BRANCHES = ("face", "pose")
IMAGES = (800, 200)  # training and validation images to fit on, at most


@dataclass(frozen=True)
class DirectionProbe:
    """Ridge regression from one feature to some factors.

    names: the factors; mean: [D]; weight: [D, C]; bias: [C]; pattern: [D, C], see `turn`; r2: for each factor the
    share of its variance over the validation images that is explained (the penalty was chosen on the same images).
    """

    names: tuple[str, ...]
    mean: Tensor
    weight: Tensor
    bias: Tensor
    pattern: Tensor
    r2: dict[str, float]

    def predict(self, x: Tensor) -> Tensor:
        """x: [n, D] features -> [n, C] factors in their own units."""
        return (x - self.mean) @ self.weight + self.bias

    def turn(self, x: Tensor, name: str, amount: float) -> Tensor:
        """Features [n, D] moved so that this probe predicts `amount` more of the factor from each.

        Of all ways to do so, the one in which the feature itself varies with the prediction p: cov(x, p) / var(p).
        The weights alone would point where noise is small, away from every feature that the decoder was trained on
        (Haufe et al. 2014, NeuroImage 87, equation 6). Raises BadInput for a factor that this probe was not fitted to.
        """
        if name not in self.names:
            raise BadInput(
                f"this probe predicts {', '.join(self.names)}, not {name}: fit one with that column"
            )
        return x + amount * self.pattern[:, self.names.index(name)]


def fit_probe(
    x: Tensor, y: np.ndarray, x_validation: Tensor, y_validation: np.ndarray, names: Sequence[str]
) -> DirectionProbe:
    """Fit a `DirectionProbe` on training features; the penalty of each factor is that of the lowest validation error.

    x, x_validation: [n, D] float32; y, y_validation: [n, C]; names: C factors. Raises BadInput below two images each.
    """
    if min(len(x), len(x_validation)) < 2:
        raise BadInput(
            f"a linear probe needs two training and two validation images, not {len(x)} and {len(x_validation)}"
        )
    own = linear.whitening(x)
    spread = y.std(0).clip(1e-9)
    target, truth = (torch.from_numpy(part / spread).to(x) for part in (y, y_validation))
    z, held = own.coordinates(x), own.coordinates(x_validation)

    def loss(w: linear.Weights) -> np.ndarray:
        return (w(held) - truth).square().mean(0).cpu().numpy()

    best = linear.select_penalty(linear.ridge_path(z, target, own.values), loss)
    unit = torch.from_numpy(spread).to(x)
    weight = best.weight * unit
    power = (own.values[:, None] * weight.square()).sum(0).clamp_min(1e-12)
    pattern = own.values[:, None] * weight / power
    r2 = 1 - loss(best) / truth.var(0, correction=0).clamp_min(1e-12).cpu().numpy()
    return DirectionProbe(
        tuple(names),
        own.mean,
        own.vectors @ weight / own.scale[:, None],
        best.bias * unit,
        own.vectors @ pattern * own.scale[:, None],
        dict(zip(names, r2.tolist(), strict=True)),
    )


@spent("probe")
def fit_probes(model: FeatureModel, faces: FaceSet, names: Sequence[str]) -> dict[str, DirectionProbe]:
    """A `DirectionProbe` of the face-aware and one of the pose-related feature, by branch; empty without labels.

    faces: at the model's size; names: columns of its table, those without labels are passed over. At most `IMAGES`
    training and validation images are used.
    """
    known = [name for name in names if name in faces.table and faces.table[name].notna().any()]
    if not known:
        return {}
    y, generator = faces.table[known].to_numpy(float), np.random.default_rng(0)
    labelled = np.isfinite(y).all(1)
    parts = []
    for split, count in zip(("train", "validation"), IMAGES, strict=True):
        rows = faces.split(split)
        parts.append(np.sort(generator.permutation(rows[labelled[rows]])[:count]))
    if min(map(len, parts)) < 2:
        return {}
    found = extract(model, faces, np.concatenate(parts))
    cut = len(parts[0])
    fitted = {}
    for branch in BRANCHES:
        x = getattr(found, branch)
        if x is not None:
            fitted[branch] = fit_probe(x[:cut], y[parts[0]], x[cut:], y[parts[1]], known)
    return fitted
