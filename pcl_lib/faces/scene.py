"""What every rendered image shares: the head, its bases and textures, laid out for the kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pcl_lib.faces.hair import hair_fields
from pcl_lib.faces.head import head
from pcl_lib.faces.mesh import MOUTH_ROW, STRIP, Head
from pcl_lib.faces.paint import NUMBERS, Packed, atlas

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """What every image shares, laid out for the kernels.

    basis [K, 3V]: shape then action units; first, last [K]: the part of each row that is not zero; hair_fields
    [styles, H, 6]: x, y, z by volume, mask by fringe, hairline and parting; anchors: vertices of both eyeballs'
    centres and of the lip line, which painting is told of.
    """

    head: Head
    basis: F32
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    hair_fields: F32
    atlas: F32
    anchors: NDArray[np.int64]


@cache
def scene() -> Scene:
    """Build the shared arrays once a process."""
    h = head()
    basis = np.concatenate([h.shape, h.au]).reshape(len(h.shape) + len(h.au), -1)
    basis = np.where(np.abs(basis) < 1e-3, np.float32(0), basis)  # a hundredth of a millimetre
    used = [np.flatnonzero(row) for row in basis]
    columns = h.grid.shape[1]
    lip = (MOUTH_ROW + STRIP // 2) * columns + columns // 2
    return Scene(
        h, np.ascontiguousarray(basis), np.array([u[0] for u in used]), np.array([u[-1] + 1 for u in used]),
        hair_fields(h).astype(np.float32), atlas(h), np.array([h.landmark[0], h.landmark[1], lip]),
    )  # fmt: skip


def prepare(p: Packed) -> tuple[F32, F32, F32]:
    """Mean heads with each row's hair [n, V, 3], hair masks [n, H], and the anchors' places [n, 3, 3]."""
    s = scene()
    h, number = s.head, dict(zip(NUMBERS, p.numbers.T, strict=True))
    style = number["style"].astype(np.int64)
    fields = s.hair_fields[style]
    v = np.repeat(h.mean[None], len(style), axis=0)
    v[:, h.hair_start :] = h.hair[style] + (number["volume"][:, None, None] - 1) * fields[..., :3]
    mask = h.hair_mask[style].copy()
    for k, name in enumerate(("fringe", "hairline", "part"), start=3):
        mask += fields[..., k] * number[name][:, None]
    # The anchors follow identity, not expression.
    shape = p.coefficients[:, : len(h.shape)]
    anchors = h.mean[s.anchors] + np.einsum("nk,kaj->naj", shape, h.shape[:, s.anchors])
    return v, mask, anchors.astype(np.float32)
