"""Head pose from landmarks: perspective-n-point, what alignment needs and self-supervision does without."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcl_lib.faces.camera import DISTANCE, HALF_VIEW, PIVOT
from pcl_lib.utils import BadInput

Floats = NDArray[np.float64]
DOWN_AWAY = np.diag((1.0, -1.0, -1.0))  # OpenCV's camera looks along z, and its y points down


def angles_of(rotations: Floats) -> Floats:
    """Yaw, pitch and roll in degrees [n, 3] of rotation matrices [n, 3, 3]: the inverse of `camera.rotation`."""
    yaw = -np.arcsin(rotations[:, 0, 2].clip(-1, 1))
    pitch = np.arctan2(rotations[:, 1, 2], rotations[:, 2, 2])
    roll = np.arctan2(rotations[:, 0, 1], rotations[:, 0, 0])
    return np.degrees(np.stack([yaw, pitch, roll], axis=1))


def solve_pose(points: Floats, head: Floats, size: int) -> Floats:
    """Yaw, pitch and roll in degrees [n, 3] that explain landmarks best.

    points: [n, L, 2] pixels (x right, y down, 0 at the corner) in pictures of `size` pixels, L >= 4. head: the places
    of the same landmarks in cm in the head frame, [L, 3] one head for all or [n, L, 3]. The camera is the renderer's;
    the place of the head is found with its pose, and a larger picture of it (zoom) counts as a nearer head. Squared
    pixel errors are minimised (OpenCV's SQPnP, then Levenberg-Marquardt). Raises BadInput on other shapes or points
    that are not finite.
    """
    import cv2  # only where poses are solved

    points = np.asarray(points, np.float64)
    heads = np.asarray(head, np.float64)
    if heads.ndim == 2:
        heads = np.repeat(heads[None], len(points), 0)
    if (
        points.ndim != 3
        or points.shape[2] != 2
        or points.shape[1] < 4
        or heads.shape != (*points.shape[:2], 3)
    ):
        raise BadInput(
            f"solve_pose needs points [n, 4 or more, 2] and a head of as many, not {points.shape} and {heads.shape}"
        )
    if not (np.isfinite(points).all() and np.isfinite(heads).all()):
        raise BadInput("solve_pose needs finite points")
    focal = size / 2 * DISTANCE / HALF_VIEW
    camera = np.array([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]])
    rotations, undistorted = [], np.zeros(4)
    for seen, at in zip(points, heads - np.array(PIVOT), strict=True):
        _, turn, shift = cv2.solvePnP(at, seen[:, None], camera, undistorted, flags=cv2.SOLVEPNP_SQPNP)
        turn, _ = cv2.solvePnPRefineLM(at, seen[:, None], camera, undistorted, turn, shift)
        rotations.append(DOWN_AWAY @ cv2.Rodrigues(turn)[0])
    return angles_of(np.array(rotations))
