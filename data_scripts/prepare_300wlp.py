"""300W-LP -> a prepared folder, with AFLW2000 as its test split where that is given. More: --help."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_scripts import mat_pose, official, prepare_aflw2000
from data_scripts.catalogue import AFLW2000, LP
from data_scripts.listing import LeftOut, Listing, Recipe, first_reason
from pcl_lib.data.labels import hashed_split
from pcl_lib.utils import BadInput, exit_cleanly

SUBSETS = ("AFW", "HELEN", "IBUG", "LFPW")
VIEW = re.compile(r"_\d+(_flip)?$", re.IGNORECASE)  # the number of the view, after its photograph's name


def find(root: Path, flips: bool, left: LeftOut) -> list[str]:
    """Images of the four subsets, and of their mirrored folders where `flips`; what lies elsewhere is left out."""
    wanted, others = [], {"flip": 0, "landmarks": 0}
    for file in official.images(root, left):
        folder = file.split("/")[0].upper() if "/" in file else ""
        if folder in SUBSETS or (flips and folder.removesuffix("_FLIP") in SUBSETS):
            wanted.append(file)
        elif folder.removesuffix("_FLIP") in SUBSETS:
            others["flip"] += 1
        else:
            others["landmarks"] += 1
    if others["flip"]:
        left.add("*_Flip", f"{others['flip']} mirror images; --flips takes them too")
    if others["landmarks"]:
        told = ", ".join(SUBSETS)
        left.add("other folders", f"{others['landmarks']} images outside {told}")
    return wanted


def photograph(file: str) -> str:
    """The photograph that an image was synthesised from: "AFW/AFW_134212_1" of AFW/AFW_134212_1_3.jpg."""
    folder, name = file.rsplit("/", 1)
    return f"{folder.upper().removesuffix('_FLIP')}/{VIEW.sub('', name.rsplit('.', 1)[0])}"


def add_test(
    table: pd.DataFrame, root: Path, test: Path, left: LeftOut
) -> tuple[pd.DataFrame, Path, list[str]]:
    """`table` with AFLW2000 below it as test, both relative to the folder that holds both, which is returned; notes."""
    theirs = LeftOut()
    other, told = prepare_aflw2000.poses(test, prepare_aflw2000.find(test, theirs), theirs)
    if other.empty:
        raise BadInput(f"{test} has no image with a .mat file of AFLW2000; give the folder of that download")
    both = Path(os.path.commonpath([root.resolve(), test.resolve()]))
    parts = []
    for part, folder in ((table, root), (other.assign(split="test"), test)):
        prefix = folder.resolve().relative_to(both).as_posix()
        parts.append(part.assign(file=part["file"] if prefix == "." else prefix + "/" + part["file"]))
    official.join(left, theirs, prefix=f"{test.name}/")
    return pd.concat(parts, ignore_index=True), both, [f"AFLW2000-3D: {note}" for note in told]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """The four subsets; 15% of the photographs, with all their views, are validation."""
    left = LeftOut()
    table, told = prepare_aflw2000.poses(root, find(root, options.flips, left), left)
    if table.empty:
        raise BadInput(
            f"{root} has no image with a .mat file in {', '.join(SUBSETS)}; give the folder"
            f" 300W_LP{first_reason(left.frame())}"
        )
    table.insert(1, "identity", table["file"].map(photograph))
    table["split"] = hashed_split(table, (official.VALIDATION, 0.0))
    notes = [
        f"cropped to {mat_pose.MARGIN}",
        *told,
        "identity is the photograph that the views were synthesised from; who is on it is not known",
    ]
    source = "300W-LP"
    if options.aflw2000:
        table, root, more = add_test(table, root, options.aflw2000, left)
        source += f" for training, AFLW2000-3D for test ({AFLW2000.licence})"
        notes += ["test is AFLW2000-3D", *more]
    return Listing(
        name="300W-LP" + (" and AFLW2000" if options.aflw2000 else ""),
        source=source,
        licence=LP.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("box"),
        notes=notes,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script takes besides the common options."""
    parser.add_argument("--flips", action="store_true", help="take the mirrored folders too")
    parser.add_argument(
        "--aflw2000",
        type=Path,
        metavar="FOLDER",
        help="join AFLW2000 as the test split, so that one prepared folder holds the paper's pose protocol",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(LP, read, arguments, add_options)


if __name__ == "__main__":
    exit_cleanly(main)
