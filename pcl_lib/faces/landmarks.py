"""Named points of rendered heads: for alignment, plots and tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcl_lib.faces import camera
from pcl_lib.faces.depth import inverse_depth
from pcl_lib.faces.mesh import EYE_RADIUS, LANDMARKS
from pcl_lib.faces.paint import pack
from pcl_lib.faces.scene import scene
from pcl_lib.utils import BadInput

Floats = NDArray[np.float64]
VISIBLE_WITHIN = 0.7  # cm behind the nearest surface that still counts as seen
SIDE = 128  # of the depth map that visibility is read from


def head_landmarks(f: pd.DataFrame) -> Floats:
    """Places of LANDMARKS [n, 8, 3] in cm in the head frame, identity and expression applied, pose not.

    Eyes are the front of the eyeballs; right and left are the person's (right has x < 0, the image's left).
    """
    s, p = scene(), pack(f)
    at = s.head.landmark
    fields = s.basis.reshape(len(s.basis), -1, 3)[:, at].astype(np.float64)
    points = s.head.mean[at] + np.einsum("nk,klj->nlj", p.coefficients.astype(np.float64), fields)
    points[:, :2, 2] += EYE_RADIUS
    return points


def project_landmarks(f: pd.DataFrame, size: int = 64) -> tuple[Floats, NDArray[np.bool_]]:
    """Pixel positions [n, 8, 2] of LANDMARKS (x right, y down, 0 at the corner) and whether each is seen [n, 8].

    Seen: inside the picture and not hidden by the head, its hair or spectacles (occluders do not count).
    """
    if size < 1:
        raise BadInput(f"project_landmarks needs a size of at least 1 pixel, but got {size}.")
    places, away = camera.project(f, head_landmarks(f), size)
    cell = np.floor(places * (SIDE / size)).astype(np.int64)
    inside = ((cell >= 0) & (cell < SIDE)).all(axis=-1)
    cell = np.clip(cell, 0, SIDE - 1)
    seen = np.zeros(inside.shape, bool)
    step = 16
    for i in range(0, len(f), step):
        near = inverse_depth(f.iloc[i : i + step], SIDE)
        c = cell[i : i + step]
        front = near[np.arange(len(near))[:, None], c[..., 1], c[..., 0]]
        seen[i : i + step] = away[i : i + step] < 1.0 / np.maximum(front, 1e-6) + VISIBLE_WITHIN
    return places, inside & seen


__all__ = ["LANDMARKS", "head_landmarks", "project_landmarks"]
