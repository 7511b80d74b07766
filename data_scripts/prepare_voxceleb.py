"""VoxCeleb 1 and 2, face crops or face-track videos -> frames to pre-train on. Layouts, and where to ask: --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts import official
from data_scripts.catalogue import VOXCELEB
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.sources import VIDEO_SUFFIXES, find_files
from pcl_lib.utils import BadInput, exit_cleanly

RATE = "1.6"  # a folder between the person and the video in VoxCeleb1's crops


def whose(file: str) -> tuple[str, str, bool] | None:
    """identity, video and whether below a folder `test`, of .../PERSON[/1.6]/VIDEO/FILE; None for other paths."""
    folders = file.split("/")[:-1]
    if len(folders) < 2:
        return None
    before = folders[:-1]
    if before[-1] == RATE:
        before = before[:-1]
    if not before:
        return None
    return before[-1], folders[-1], "test" in before[:-1]


def list_images(root: Path, options: argparse.Namespace, left: LeftOut) -> list[str]:
    """Crops as they are; of videos a frame every `options.every` seconds, unless crops are all that is asked for."""
    files = official.images(root, left)
    videos, _ = find_files(root, VIDEO_SUFFIXES)
    if videos:
        from data_scripts.video import list_frames  # PyAV: only where there are videos

        files += list_frames(root, videos, left, every=options.every, workers=options.workers)
    return sorted(files)


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Every crop or frame with its person and video; train, but for those below a folder `test`."""
    left = LeftOut()
    files = list_images(root, options, left)
    found = [whose(file) for file in files]
    left.extend(
        [file for file, who in zip(files, found, strict=True) if who is None], "lies in no PERSON/VIDEO"
    )
    rows = [(file, *who) for file, who in zip(files, found, strict=True) if who]
    if not rows:
        raise BadInput(f"{root} has no crop or video in PERSON/VIDEO/, such as id00012/21Uxsk56VDQ/00001.mp4")
    table = pd.DataFrame(rows, columns=["file", "identity", "video", "split"])
    table["split"] = np.where(table["split"], "test", "train").astype(object)
    if both := set(table["identity"][table["split"] == "test"]) & set(
        table["identity"][table["split"] == "train"]
    ):
        raise BadInput(
            f"{root}: {min(both)} lies both below a folder test and outside; keep the official folders"
        )
    people = table["identity"].nunique()
    return Listing(
        name="VoxCeleb",
        source="VoxCeleb 1 and 2, released face tracks",
        licence=VOXCELEB.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("as_is"),
        notes=[
            f"{people} people, {table['video'].nunique()} videos",
            "the face tracks are crops already: the central square is taken, nothing is detected",
        ],
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script takes beside the common options."""
    parser.add_argument(
        "--every", type=official.seconds, default=1.0, help="seconds between frames of a video (1)"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(VOXCELEB, read, arguments, add_options)


if __name__ == "__main__":
    exit_cleanly(main)
