"""AFLW2000-3D -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_scripts import mat_pose, official
from data_scripts.catalogue import AFLW2000
from data_scripts.listing import LeftOut, Listing, Recipe
from pcl_lib.utils import exit_cleanly


def find(root: Path, left: LeftOut) -> list[str]:
    """The images of the set itself: those in its folder, not the figures of its code."""
    return [file for file in official.images(root, left) if "/" not in file]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """All images within 99 degrees, as test."""
    del options
    left = LeftOut()
    table = mat_pose.read_poses(root, find(root, left), left)
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
            "all of it is test; prepare_300wlp.py --aflw2000 FOLDER joins it to the training set that it tests",
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(AFLW2000, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
