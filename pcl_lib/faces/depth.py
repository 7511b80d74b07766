"""Depth of rendered faces: what a depth camera in the place of the renderer's would measure, without its noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from pcl_lib.faces import raster
from pcl_lib.faces.camera import DISTANCE
from pcl_lib.faces.factors import check_factors
from pcl_lib.faces.paint import pack
from pcl_lib.faces.scene import prepare, scene
from pcl_lib.utils import BadInput, spent

BEHIND = -15.0  # cm: where the background is put, just behind any head
CHUNK = 16  # heads at a time: bounds memory


@spent("render")
def render_depth(f: pd.DataFrame, size: int = 64) -> torch.Tensor:
    """How much nearer than the pivot of the head each pixel's surface is: float32 [len(f), 1, size, size] in cm.

    f: as for `render`; size: side in pixels, 16 to 512. The pivot (`camera.PIVOT`) is `camera.DISTANCE` from the
    camera. One sample in the middle of each pixel, of head, hair and spectacles. The background is at `BEHIND`, and an
    occluder, which the renderer paints over the image, has no depth.
    Raises BadInput where a factor is missing, not finite or out of range, or the size is.
    """
    if not 16 <= size <= 512:
        raise BadInput(f"render_depth draws 16 to 512 pixels a side, but size={size} was asked for.")
    check_factors(f)
    inverse = np.concatenate([inverse_depth(f.iloc[i : i + CHUNK], size) for i in range(0, len(f), CHUNK)])
    seen = inverse > 0
    nearer = np.where(seen, DISTANCE - 1 / np.where(seen, inverse, 1.0), BEHIND)
    return torch.from_numpy(nearer.astype(np.float32))[:, None]


def inverse_depth(f: pd.DataFrame, side: int) -> np.ndarray:
    """The z-buffer of a few heads: 1 / distance in cm of the nearest surface, 0 for none; float32 [n, side, side]."""
    s, p = scene(), pack(f)
    v, mask, _ = prepare(p)
    depth = np.zeros((len(f), side, side), np.float32)
    raster.depths(
        v, mask, s.basis, s.first, s.last, s.head.triangles, s.head.material, p.coefficients, p.numbers, depth
    )
    return depth
