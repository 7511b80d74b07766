"""BIWI Kinect Head Pose -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts import official
from data_scripts.catalogue import BIWI
from data_scripts.listing import BOX_COLUMNS, LeftOut, Listing, Recipe
from data_scripts.sources import next_to
from pcl_lib.data.labels import ANGLE_NAMES
from pcl_lib.utils import BadInput, exit_cleanly

FRAME = re.compile(r"(.+/)?(\d\d)/(frame_\d+)_rgb\.[a-z]+", re.IGNORECASE)
SAME_PERSON = {
    "15": "03",
    "18": "05",
    "21": "02",
    "22": "07",
}  # recorded twice, by the set's list of its people
HALF_SIDE = 120.0  # millimetres about the head's centre, at its distance, that the box takes in: hair to chin
TURNED = 0.02  # by how much R R' may differ from the identity before R is no rotation


@dataclass(frozen=True)
class Camera:
    """The colour camera. matrix: [3, 3] pixels; rotation, translation (mm): from the depth camera to it.

    size: width and height of its pictures in pixels; none where the calibration does not say.
    """

    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    size: tuple[int, ...]


def read_numbers(path: Path, what: str) -> np.ndarray:
    """All numbers of a text file. Raises BadInput with the reason where it is missing or holds anything else."""
    try:
        return np.array(path.read_text(encoding="utf-8-sig").split(), dtype=float)
    except FileNotFoundError:
        raise BadInput(f"its {what} {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"its {what} {path.name} does not hold numbers ({error})") from error


def _rotation(values: np.ndarray, what: str) -> np.ndarray:
    r = values.reshape(3, 3)
    if not np.abs(r @ r.T - np.eye(3)).max() < TURNED or np.linalg.det(r) < 0:
        raise BadInput(f"its {what} does not begin with a rotation matrix")
    return r


def read_camera(path: Path) -> Camera:
    """rgb.cal: 3x3 matrix, 4 distortions, 3x3 rotation, translation, image size, which may be missing."""
    values = read_numbers(path, "calibration")
    if len(values) < 25 or not np.isfinite(values).all():
        raise BadInput(f"its calibration {path.name} holds {len(values)} numbers, not 25 or more, all finite")
    size = tuple(int(value) for value in values[25:27])
    return Camera(values[:9].reshape(3, 3), _rotation(values[13:22], "calibration"), values[22:25], size)


def read_pose(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """frame_*_pose.txt: rotation [3, 3] and the head's centre [3] in mm, in the depth camera's frame."""
    values = read_numbers(path, "pose")
    if len(values) != 12 or not np.isfinite(values).all():
        raise BadInput(f"its pose {path.name} holds {len(values)} numbers, not 12")
    return _rotation(values[:9], "pose"), values[9:]


def euler(rotation: np.ndarray) -> tuple[float, float, float]:
    """yaw, pitch, roll in degrees with the signs of 300W-LP, of a rotation [3, 3] in a camera's frame.

    The camera looks along z, x is right and y down; the identity faces it. In 300W-LP's frame, y up and z near, the
    same rotation is D R D with D = diag(1, -1, -1), and R = Rx(pitch) Ry(yaw) Rz(roll) there (pcl_lib.faces.camera).
    """
    flip = np.diag([1.0, -1.0, -1.0])
    r = flip @ rotation @ flip
    yaw = np.arctan2(-r[0, 2], np.hypot(r[0, 0], r[0, 1]))
    return tuple(np.degrees([yaw, np.arctan2(r[1, 2], r[2, 2]), np.arctan2(r[0, 1], r[0, 0])]))


def head_box(camera: Camera, centre: np.ndarray) -> tuple[float, float, float, float]:
    """left, top, right, bottom in the colour image about the head's centre (mm, depth camera); no distortion."""
    x, y, z = camera.rotation @ centre + camera.translation
    if z <= 0:
        raise BadInput("its head lies behind the camera")
    fx, fy, cx, cy = camera.matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
    u, v = fx * x / z + cx, fy * y / z + cy
    half_w, half_h = fx * HALF_SIDE / z, fy * HALF_SIDE / z
    return u - half_w, v - half_h, u + half_w, v + half_h


def read_frames(root: Path, left: LeftOut) -> pd.DataFrame:
    """file, identity (the person), video (the sequence), angles and box of every colour frame with a pose.

    Raises BadInput, saying what was looked for, where no picture has the name of a frame.
    """
    rows: list[tuple[object, ...]] = []
    cameras: dict[str, Camera] = {}
    seen: dict[str, str] = {}
    found = official.images(root, left)
    frames = [(file, parts) for file in found if (parts := FRAME.fullmatch(file))]
    if not frames:
        raise BadInput(
            f"{root} has no pictures such as 01/frame_00003_rgb.png ({len(found)} others); give the folder hpdb of the"
            f" download{official.still_packed(root)}"
        )
    for file, parts in frames:
        sequence, stem = parts[2], file.rsplit("/", 1)[0] + "/" + parts[3]
        folder = file.rsplit("/", 1)[0]
        if stem in seen:
            left.add(file, f"is the frame that {seen[stem]} is")
            continue
        seen[stem] = file
        try:
            if folder not in cameras:
                cameras[folder] = read_camera(next_to(root, f"{folder}/rgb.cal"))
            (size,) = official.sizes(root, [file])
            if size and cameras[folder].size and size != cameras[folder].size:
                told = " x ".join(map(str, cameras[folder].size))
                raise BadInput(
                    f"is {size[0]} x {size[1]}, where its calibration is for {told}: resized or cropped"
                )
            rotation, centre = read_pose(next_to(root, f"{stem}_pose.txt"))
            angles = euler(cameras[folder].rotation @ rotation)
            who = SAME_PERSON.get(sequence, sequence)
            rows.append((file, who, sequence, *angles, *head_box(cameras[folder], centre)))
        except BadInput as error:
            left.add(file, str(error))
    table = pd.DataFrame(rows, columns=["file", "identity", "video", *ANGLE_NAMES, *BOX_COLUMNS])
    return table.assign(clip=table["video"])  # one person who turns the head: what `pcl_video` learns from


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Every frame with its pose; people are split by a hash, or all test."""
    left = LeftOut()
    table = read_frames(root, left)
    if options.all_test:
        table["split"] = "test"
    return Listing(
        name="BIWI",
        source="BIWI Kinect Head Pose Database, colour frames",
        licence=BIWI.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("box"),
        notes=[
            f"cropped to {2 * HALF_SIDE:.0f} mm about the head's centre, projected into the colour image",
            "angles are relative to the colour camera: its calibration is applied to the poses",
            f"{table['identity'].nunique()} people (sequences 03 and 15, 05 and 18, 02 and 21, 07 and 22 show the same"
            f" ones), {table['video'].nunique()} sequences",
        ],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script takes besides the common options."""
    parser.add_argument("--all-test", action="store_true", help="put every frame in the test split")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(BIWI, read, arguments, add_options)


if __name__ == "__main__":
    exit_cleanly(main)
