"""Head pose as 3DDFA's authors store it (300W-LP, AFLW2000): angles and a face box out of a .mat file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat

from data_scripts import mat_structure
from data_scripts.listing import BOX_COLUMNS, LeftOut
from data_scripts.sources import next_to
from pcl_lib.data.labels import ANGLE_NAMES, LARGEST_ANGLE
from pcl_lib.utils import BadInput

LANDMARKS = ("pt3d_68", "pt2d")  # 68 points in both; AFLW2000's pt2d has 21, some of them unseen
K = 0.2  # of Hopenet (Ruiz et al. 2018) and most since: what is added to the box of the 68 landmarks, which ends at
SIDES, ABOVE = 0.6 * K, 2 * K  # the brows: 12% of its width or height, but 40% of its height above
MARGIN = (
    "the box of the 68 landmarks, 12% wider on each side, 12% longer below and 40% above (Hopenet, k = 0.2)"
)


def read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pose (yaw, pitch, roll in degrees, the kit's signs are these files' own) and landmarks [2, 68] in pixels.

    Raises BadInput with the reason where the file is no such file.
    """
    if not path.is_file():
        raise BadInput("its .mat file is missing")
    try:
        mat_structure.check(path.read_bytes())
        content = loadmat(path, variable_names=("Pose_Para", *LANDMARKS))
        content = {name: np.asarray(content[name], dtype=float) for name in content if name[0] != "_"}
    except Exception as error:  # on foreign or damaged bytes scipy raises almost anything
        raise BadInput(f"its .mat file cannot be read ({type(error).__name__})") from error
    if "Pose_Para" not in content:
        raise BadInput("its .mat file has no Pose_Para; it holds landmarks only")
    pose = content["Pose_Para"].ravel()
    if len(pose) < 3 or not np.isfinite(pose[:3]).all():
        raise BadInput(f"its Pose_Para has {len(pose)} values, or one that is not finite; 7 are needed")
    for name in LANDMARKS:
        points = content.get(name, np.empty(0))
        if points.ndim == 2 and points.shape[0] >= 2 and points.shape[1] == 68 and np.isfinite(points).all():
            pitch, yaw, roll = np.degrees(pose[:3])
            return np.array([yaw, pitch, roll]), points[:2]
    raise BadInput("its .mat file has neither pt3d_68 nor pt2d with 68 landmarks")


def landmark_box(points: np.ndarray) -> tuple[float, float, float, float]:
    """left, top, right, bottom of the face about landmarks [2, 68], with the margin of `MARGIN`."""
    (left, top), (right, bottom) = points.min(axis=1), points.max(axis=1)
    width, height = right - left, bottom - top
    return left - SIDES * width, top - ABOVE * height, right + SIDES * width, bottom + SIDES * height


def read_poses(root: Path, files: Iterable[str], left: LeftOut) -> pd.DataFrame:
    """file, yaw, pitch, roll and the box of each image of `files` whose .mat lies next to it.

    Images without a usable .mat, and those turned by more than 99 degrees about an axis, go to `left`.
    """
    rows = []
    for file in files:
        try:
            angles, points = read_mat(next_to(root, file.rsplit(".", 1)[0] + ".mat"))
        except BadInput as error:
            left.add(file, str(error))
            continue
        if np.abs(angles).max() > LARGEST_ANGLE:
            worst = int(np.abs(angles).argmax())
            told = f"{ANGLE_NAMES[worst]} is {angles[worst]:.0f} degrees, beyond the protocol's {LARGEST_ANGLE:.0f}"
            left.add(file, told)
            continue
        rows.append((file, *angles, *landmark_box(points)))
    return pd.DataFrame(rows, columns=["file", *ANGLE_NAMES, *BOX_COLUMNS])
