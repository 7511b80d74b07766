"""AFLW2000-3D -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts import mat_pose, official
from data_scripts.catalogue import AFLW2000
from data_scripts.listing import BOX_COLUMNS, LeftOut, Listing, Recipe
from pcl_lib.utils import BadInput, exit_cleanly

PUBLISHED = (450, 450)  # pixels of the images of AFLW2000-3D and 300W-LP
LOOKED_AT = 1000  # images whose size is looked at


def find(root: Path, left: LeftOut) -> list[str]:
    """The images of the set itself: those in its folder, not the figures of its code."""
    return [file for file in official.images(root, left) if "/" not in file]


def poses(root: Path, files: Iterable[str], left: LeftOut) -> tuple[pd.DataFrame, list[str]]:
    """What `mat_pose.read_poses` reads of `files`, one picture a .mat file; and sentences on the pictures' sizes.

    Raises BadInput where most angles are beyond all measure, so that they are no radians from -pi to pi, and where
    most faces lie outside their pictures, so that these have been resized or cropped.
    """
    first: dict[str, str] = {}
    for file in files:
        stem = file.rsplit(".", 1)[0].casefold()
        if stem in first:
            left.add(file, f"is the picture that {first[stem]} is")
        else:
            first[stem] = file
    lost = LeftOut()
    table = mat_pose.read_poses(root, first.values(), lost)
    official.join(left, lost)
    beyond = lost.frame().pipe(
        lambda frame: frame[frame["reason"].str.contains("beyond the protocol", regex=False)]
    )
    if len(beyond) > len(table):
        raise BadInput(
            f"{root}: {len(beyond)} of {len(beyond) + len(table)} faces are turned beyond all measure, such as"
            f" {beyond['file'].iloc[0]}, whose {beyond['reason'].iloc[0]}; Pose_Para should hold radians from -3.14 to"
            " 3.14, as the set's own .mat files do"
        )
    return table, sized(root, table)


def sized(root: Path, table: pd.DataFrame) -> list[str]:
    """A sentence where most pictures are not of the published size. BadInput where most faces lie outside of them."""
    some = table.iloc[:: max(1, len(table) // LOOKED_AT)]
    sizes = official.sizes(root, some["file"])
    shares = []
    for size, box in zip(sizes, some[list(BOX_COLUMNS)].to_numpy(), strict=True):
        if size is not None:
            with np.errstate(all="ignore"):  # landmarks may be of any size
                inner = np.minimum(box[2:], size) - np.maximum(box[:2], 0)
                shares.append(inner.clip(0).prod() / max((box[2:] - box[:2]).prod(), 1e-9))
    found = Counter(size for size in sizes if size is not None)
    if not found:
        return []
    (width, height), count = found.most_common(1)[0]
    told = f"{count} of {found.total()} images looked at are {width} x {height}, where {PUBLISHED[0]} x {PUBLISHED[1]}"
    if np.median(shares) < 0.5:
        raise BadInput(
            f"{root}: most faces lie outside their images: {told} was published, which the landmarks are for; give the"
            " images as downloaded"
        )
    if found[PUBLISHED] * 2 > found.total():
        return []
    return [f"{told} was published: if they have been resized, the landmarks do not fit, and crops are wrong"]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """All images within 99 degrees, as test."""
    del options
    left = LeftOut()
    table, told = poses(root, find(root, left), left)
    return Listing(
        name="AFLW2000",
        source="AFLW2000-3D",
        licence=AFLW2000.licence,
        root=root,
        table=table.assign(split="test"),
        left_out=left.frame(),
        recipe=Recipe("box"),
        notes=[
            f"cropped to {mat_pose.MARGIN}",
            *told,
            "all of it is test; prepare_300wlp.py --aflw2000 FOLDER joins it to the training set that it tests",
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(AFLW2000, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
