"""Ears and spectacles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcl_lib.faces.mesh import FRAME, LENS, SKIN_V, grid_faces

Floats = NDArray[np.float64]


def ear_patch() -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Left-of-head ear (x > 0): points [N, 3], texture coordinates and triangles of a polar grid."""
    rings, spokes = np.linspace(0.0, 1.0, 6), np.linspace(0.0, 2 * np.pi, 17)
    rho, phi = np.meshgrid(rings, spokes, indexing="ij")
    across, up = rho * np.cos(phi) * 1.7, rho * np.sin(phi) * (3.1 - 0.3 * np.sin(phi))
    across *= np.where(up < 0, 1.0 + 0.14 * up, 1.0)
    relief = 0.4 * np.sin(np.clip(rho, 0, 1) ** 2 * np.pi * 0.9) - 0.15
    tilt = np.radians(12)
    z, y = -across * np.cos(tilt) - up * np.sin(tilt), up * np.cos(tilt) - across * np.sin(tilt)
    out = relief + 0.36 * across
    points = np.stack([7.3 + out, y - 1.5, z - 0.6], axis=-1).reshape(-1, 3)
    uv = np.stack([phi / (2 * np.pi), SKIN_V + 0.02 + (0.97 - SKIN_V) * rho], axis=-1).reshape(-1, 2)
    return points, uv, grid_faces(len(rings), len(spokes))


def frames() -> tuple[list[Floats], list[NDArray[np.int64]], list[int]]:
    """Spectacles: parts as points, triangles and material; rims, lenses, bridge, temples."""
    turn = np.linspace(0, 2 * np.pi, 25)
    points, faces, kinds = [], [], []

    def add(p: Floats, f: NDArray[np.int64], kind: int) -> None:
        points.append(p)
        faces.append(f)
        kinds.append(kind)

    square = (np.abs(np.cos(turn)) ** 3.2 + np.abs(np.sin(turn)) ** 3.2) ** (-1 / 3.2)
    for side in (-1.0, 1.0):
        rim = np.stack([np.cos(turn) * square, np.sin(turn) * square])
        for scale, kind in ((1.0, FRAME), (0.0, LENS)):
            x = side * (3.3 + rim[0] * np.array([[2.25], [1.98 * scale]]))
            y = -0.25 + rim[1] * np.array([[1.62], [1.38 * scale]])
            z = 9.15 - 0.06 * (np.abs(x) - 1.2) ** 2 + 0.02 * (scale == 1.0)
            add(np.stack([x, y, z], -1).reshape(-1, 3), grid_faces(2, len(turn)), kind)
        strip = np.array([[5.45, 0.75, 8.05], [5.45, 0.3, 8.05], [7.35, 0.75, 6.2], [7.35, 0.3, 6.2],
                          [7.75, 0.65, -0.8], [7.75, 0.25, -0.8]])  # fmt: skip
        add(strip * [side, 1, 1], np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4], [4, 3, 5]]), FRAME)
    bridge = np.array([[-1.3, 0.6, 9.15], [-1.3, 0.25, 9.15], [0, 0.75, 9.5], [0, 0.4, 9.5], [1.3, 0.6, 9.15],
                       [1.3, 0.25, 9.15]])  # fmt: skip
    add(bridge, np.array([[0, 1, 2], [2, 1, 3], [2, 3, 4], [4, 3, 5]]), FRAME)
    return points, faces, kinds
