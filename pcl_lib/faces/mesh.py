"""The grid of the head: its rows and columns, materials, landmarks, and the smooth functions it is shaped with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Floats = NDArray[np.float64]
SKIN, EYE, MOUTH, EAR, HAIR, FRAME, LENS = range(7)  # materials of triangles
EYE_X, EYE_Z, EYE_RADIUS = 3.15, 6.35, 1.3
LANDMARKS = (
    "right_eye",
    "left_eye",
    "nose_tip",
    "right_mouth",
    "left_mouth",
    "chin",
    "right_ear",
    "left_ear",
)
LANDMARKS_MIRRORED = (1, 0, 2, 4, 3, 5, 7, 6)
# y, depth in front, half width, depth behind, exponent of the horizontal section, from crown to neck
PROFILE = np.array([
    (13.0, 0.2, 0.2, 0.2, 2.0), (12.6, 3.6, 3.2, 4.2, 2.0), (11.6, 5.6, 4.9, 6.4, 2.0), (10.0, 7.2, 6.2, 8.0, 2.1),
    (8.0, 8.3, 6.9, 9.0, 2.2), (6.0, 8.85, 7.25, 9.4, 2.25), (4.0, 9.0, 7.35, 9.5, 2.25), (2.0, 8.9, 7.3, 9.3, 2.2),
    (0.0, 8.45, 7.2, 9.0, 2.15), (-2.0, 8.5, 7.1, 8.4, 2.1), (-4.0, 8.6, 6.9, 7.5, 2.05),
    (-6.0, 8.65, 6.4, 6.6, 2.0), (-7.1, 8.65, 6.1, 6.2, 1.95), (-8.5, 8.5, 5.8, 5.9, 1.85),
    (-10.0, 8.35, 5.55, 5.5, 1.8), (-11.0, 8.15, 5.35, 5.3, 1.8), (-11.5, 7.8, 5.15, 5.3, 1.85),
    (-12.0, 6.4, 4.5, 5.2, 1.9), (-12.6, 4.7, 4.1, 5.2, 2.0), (-14.0, 3.7, 4.0, 5.3, 2.0), (-18.0, 4.2, 4.9, 6.0, 2.0),
])  # fmt: skip
ABOVE = (13.0, 12.8, 12.3, 11.5, 10.4, 9.2, 8.0, 7.0, 6.2, 5.4, 4.7, 4.1, 3.6, 3.15, 2.75, 2.4, 2.05, 1.7, 1.35,
         1.0, 0.7, 0.45, 0.2)  # fmt: skip
BETWEEN = (-0.2, -0.45, -0.8, -1.2, -1.7, -2.2, -2.7, -3.1, -3.45, -3.75, -4.0, -4.25, -4.5, -4.7, -4.9, -5.2, -5.6,
           -6.0, -6.3, -6.55, -6.8)  # fmt: skip
BELOW = (-7.4, -7.7, -8.0, -8.35, -8.8, -9.3, -9.9, -10.4, -10.9, -11.3, -11.6, -11.9, -12.2, -12.5, -13.0, -14.0,
         -15.5, -17.5)  # fmt: skip
MOUTH_Y, STRIP = -7.1, 5
EYE_ROW = len(ABOVE)  # first row (upper lid) of the eye strip
MOUTH_ROW = EYE_ROW + STRIP + len(BETWEEN)
ROWS = MOUTH_ROW + STRIP + len(BELOW)
HALF = np.radians(np.r_[np.arange(0, 46, 2.75), np.arange(48, 91, 4.2), np.arange(100, 181, 11.43)])
SKIN_V = 0.9  # share of the texture's height that is the skin's; ears have the rest


@dataclass(frozen=True)
class Head:
    """The morphable head: vertices = mean + shape . sd + au . intensity / 5 (hair and lids by hair style).

    mean [V, 3], shape [len(SHAPE), V, 3], au [10, V, 3] (at intensity 5), uv [V, 2], triangles [T, 3],
    material [T]; hair [styles, H, 3] are the means of the hair vertices hair_start:, hair_mask [styles, H] is
    positive where hair grows; grid is the skin's mean as [ROWS, columns, 3]. landmark: vertex numbers.
    """

    mean: NDArray[np.float32]
    shape: NDArray[np.float32]
    au: NDArray[np.float32]
    uv: NDArray[np.float32]
    triangles: NDArray[np.int32]
    material: NDArray[np.int32]
    hair_start: int
    hair: NDArray[np.float32]
    hair_mask: NDArray[np.float32]
    grid: Floats
    landmark: NDArray[np.int64]


def smooth(low: float, high: float, x: Floats) -> Floats:
    """Smoothstep: 0 up to `low`, 1 from `high` on, a cubic between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def bump_at(x: Floats, y: Floats, cx: float, cy: float, sx: float, sy: float) -> Floats:
    """Gaussian blob at (+-cx, cy): symmetric in x."""
    return np.exp(-(((np.abs(x) - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def curve(at: Floats, *points: tuple[float, float]) -> Floats:
    """Monotone cubic through (position, value) points, constant beyond them."""
    p = np.array(sorted(points))
    return PchipInterpolator(p[:, 0], p[:, 1])(np.clip(at, p[0, 0], p[-1, 0]))


def azimuths() -> Floats:
    """Azimuths of the columns of the grid in radians, ascending and symmetric about 0, the front."""
    return np.r_[-HALF[:0:-1], HALF]


def section(y: Floats, azimuth: Floats) -> Floats:
    """Point of the plain skull at height y and azimuth: [..., 3]."""
    front, width, back, power = PchipInterpolator(-PROFILE[:, 0], PROFILE[:, 1:])(-np.clip(y, -18, 13)).T
    front, width, back, power = (a.T for a in (front, width, back, power))
    s, c = np.abs(np.sin(azimuth)), np.abs(np.cos(azimuth))
    depth = np.where(np.cos(azimuth) >= 0, front, back)
    power = np.where(np.cos(azimuth) >= 0, power, 2.1)
    r = ((s / width) ** power + (c / depth) ** power) ** (-1.0 / power)
    return np.stack([r * np.sin(azimuth), np.broadcast_to(y, r.shape), r * np.cos(azimuth)], axis=-1)


def grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Triangles of a grid, counter-clockwise seen from outside (rows go down, columns go right).

    The diagonal flips at the middle column, so that the mesh is its own mirror image.
    """
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a, b = (i * columns + j).ravel(), (i * columns + j + 1).ravel()
    c, d = a + columns, b + columns
    left = np.stack([np.stack([a, c, b], 1), np.stack([b, c, d], 1)], 1)
    right = np.stack([np.stack([a, d, b], 1), np.stack([a, c, d], 1)], 1)
    return np.where((j.ravel() < (columns - 1) // 2)[:, None, None], left, right).reshape(-1, 3)
