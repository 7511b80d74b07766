"""Linear readers of a feature that also know which way to move it: what the widgets read with and turn heads by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl_lib import linear
from pcl_lib.errors import BadInput
from pcl_lib.probes import extract

BRANCHES = ("face", "pose")


@dataclass(frozen=True)
class Reader:
    """Ridge regression from one feature to some factors.

    names: the factors; mean: [D]; weight: [D, C]; bias: [C]; pattern: [D, C], see `turn`; r2: share of the validation
    images' variance that is read, a factor each (the penalty was chosen on the same images).
    """

    names: tuple[str, ...]
    mean: Tensor
    weight: Tensor
    bias: Tensor
    pattern: Tensor
    r2: dict[str, float]

    def read(self, x: Tensor) -> Tensor:
        """x: [n, D] features -> [n, C] factors in their own units."""
        return (x - self.mean) @ self.weight + self.bias

    def turn(self, x: Tensor, name: str, amount: float) -> Tensor:
        """Features [n, D] moved so that this reader reads `amount` more of the factor from each.

        Of all ways to do so, the one in which the feature itself varies with what is read: cov(x, read) / var(read).
        The weights alone would point where noise is small, out of what the decoder has ever seen (Haufe et al. 2014,
        NeuroImage 87, equation 6). Raises BadInput where the reader does not know the factor.
        """
        if name not in self.names:
            raise BadInput(f"this reader knows {', '.join(self.names)}, not {name}: fit one with that column")
        return x + amount * self.pattern[:, self.names.index(name)]


def fit_reader(
    x: Tensor, y: np.ndarray, x_validation: Tensor, y_validation: np.ndarray, names: Sequence[str]
) -> Reader:
    """Fit a `Reader` on training features; the penalty of each factor is that of the lowest validation error.

    x, x_validation: [n, D] float32; y, y_validation: [n, C]; names: C factors. Raises BadInput below two images each.
    """
    if min(len(x), len(x_validation)) < 2:
        raise BadInput(
            f"a reader needs two training and two validation images, not {len(x)} and {len(x_validation)}"
        )
    axes = linear.principal_axes(x)
    spread = y.std(0).clip(1e-9)
    target, truth = (torch.from_numpy(part / spread).to(x) for part in (y, y_validation))
    z, held = axes.coordinates(x), axes.coordinates(x_validation)

    def loss(w: linear.Weights) -> np.ndarray:
        return (w(held) - truth).square().mean(0).cpu().numpy()

    best = linear.choose(linear.ridge_path(z, target, axes.values), loss)
    unit = torch.from_numpy(spread).to(x)
    weight = best.weight * unit
    power = (axes.values[:, None] * weight.square()).sum(0).clamp_min(1e-12)
    pattern = axes.values[:, None] * weight / power
    r2 = 1 - loss(best) / truth.var(0, correction=0).clamp_min(1e-12).cpu().numpy()
    return Reader(
        tuple(names),
        axes.mean,
        axes.vectors @ weight / axes.scale[:, None],
        best.bias * unit,
        axes.vectors @ pattern * axes.scale[:, None],
        dict(zip(names, r2.tolist(), strict=True)),
    )


def fit_readers(
    model: Any, faces: Any, names: Sequence[str], *, images: tuple[int, int] = (800, 200), seed: int = 0
) -> dict[str, Reader]:
    """A `Reader` for the face-aware and one for the pose-related feature, by branch; empty where nothing is labelled.

    model: with `features`; faces: a prepared set at the model's size; names: columns of its table, those without
    labels are passed over. images: how many training and validation images to read at most; seed draws them.
    """
    known = [name for name in names if name in faces.table and faces.table[name].notna().any()]
    if not known:
        return {}
    y, generator = faces.table[known].to_numpy(float), np.random.default_rng(seed)
    labelled = np.isfinite(y).all(1)
    parts = []
    for split, count in zip(("train", "validation"), images, strict=True):
        rows = faces.split(split)
        parts.append(np.sort(generator.permutation(rows[labelled[rows]])[:count]))
    if min(map(len, parts)) < 2:
        return {}
    found = extract(model, faces, np.concatenate(parts))
    cut = len(parts[0])
    readers = {}
    for branch in BRANCHES:
        x = getattr(found, branch)
        if x is not None:
            readers[branch] = fit_reader(x[:cut], y[parts[0]], x[cut:], y[parts[1]], known)
    return readers
