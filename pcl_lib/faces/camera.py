"""The camera: where a point of the head lands in the image.

R = Rx(pitch) Ry(yaw) Rz(roll), the order and signs of 300W-LP: roll first, about the head's own axis, clockwise in the
image; then yaw, towards the left edge; then pitch, up. The head turns about PIVOT, which a perspective camera
DISTANCE cm away sees in the middle of the picture (moved by shift_x, shift_y half-widths, scaled by zoom).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcl_lib.faces.factors import POSE
from pcl_lib.utils import BadInput

Floats = NDArray[np.float64]
PIVOT = (0.0, -2.1, 4.2)  # cm, head frame
DISTANCE = 75.0  # cm from the camera to the pivot
HALF_VIEW = 10.4  # cm from the middle of the picture to its edge, at the pivot's distance


def rotation(yaw: Floats, pitch: Floats, roll: Floats) -> Floats:
    """Rotation matrices [n, 3, 3] from angles in degrees [n] (head frame to camera frame: x right, y up, z near)."""
    a, b, c = (np.radians(np.asarray(k, np.float64)) for k in (pitch, yaw, roll))
    o, i = np.zeros_like(a), np.ones_like(a)

    def stack(*entries: Floats) -> Floats:
        return np.stack(entries, axis=-1).reshape(*a.shape, 3, 3)

    rx = stack(i, o, o, o, np.cos(a), np.sin(a), o, -np.sin(a), np.cos(a))
    ry = stack(np.cos(b), o, -np.sin(b), o, i, o, np.sin(b), o, np.cos(b))
    rz = stack(np.cos(c), np.sin(c), o, -np.sin(c), np.cos(c), o, o, o, i)
    return np.einsum("nij,njk,nkl->nil", rx, ry, rz)


def project(f: pd.DataFrame, points: Floats, size: int) -> tuple[Floats, Floats]:
    """Pixel positions [n, L, 2] (x right, y down, 0 at the image's corner) and distances [n, L] in cm.

    points: [n, L, 3] cm in the head frame; f: n rows with POSE, shift_x, shift_y and zoom.
    """
    if points.shape[0] != len(f):
        raise BadInput(f"project needs points for each of {len(f)} rows, but got {points.shape[0]}.")
    r = rotation(*(f[k].to_numpy(np.float64) for k in POSE))
    q = np.einsum("nij,nlj->nli", r, points - np.array(PIVOT))
    away = DISTANCE - q[..., 2]
    half = size / 2.0
    scale = half * f["zoom"].to_numpy(np.float64)[:, None] * DISTANCE / HALF_VIEW / away
    x = half * (1 + f["shift_x"].to_numpy(np.float64))[:, None] + scale * q[..., 0]
    y = half * (1 + f["shift_y"].to_numpy(np.float64))[:, None] - scale * q[..., 1]
    return np.stack([x, y], axis=-1), away
