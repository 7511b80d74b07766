"""CPLFW and its pairs -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import CPLFW
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.pairs import locate_pairs, read_cplfw_pairs, unlocated
from pcl_lib.utils import BadInput, exit_cleanly

NAME = re.compile(r"(.+)_\d+")
FOLDERS = ("aligned images", "aligned_images", "images")  # the first that is there; else all of ROOT


def find_people(root: Path, left: LeftOut) -> pd.DataFrame:
    """file and identity of the images; names with a slip of the pen (the download has four) are left out."""
    folder = next((name for name in FOLDERS if (root / name).is_dir()), "")
    rows = []
    for file in official.images(root, left):
        if not file.startswith(f"{folder}/" if folder else ""):
            continue
        found = NAME.fullmatch(file.rsplit("/", 1)[-1].rsplit(".", 1)[0])
        if found:
            rows.append((file, found[1]))
        else:
            left.add(file, "its name is not NAME_1, as CPLFW's are")
    return pd.DataFrame(rows, columns=["file", "identity"])


def read(root: Path, options: argparse.Namespace) -> Listing:
    """The aligned images, all of them test, and the pairs with ten folds."""
    del options
    left = LeftOut()
    path = official.the_file(root, ("pairs_CPLFW.txt",), "the pairs")
    listed = read_cplfw_pairs(path)
    table = find_people(root, left)
    pairs = locate_pairs(listed, table["file"])
    if pairs.empty:
        raise BadInput(
            f"{path}: none of its {len(listed)} pairs has both images; give CPLFW's images and pairs"
            f"{official.still_packed(root)}"
        )
    pairs = official.agreeing(pairs, table["identity"], table["file"], path, left)
    left.extend(unlocated(listed, table["file"]), f"{path.name} names it, but it is not there")
    return Listing(
        name="CPLFW",
        source="Cross-Pose LFW, aligned images",
        licence=CPLFW.licence,
        root=root,
        table=table.assign(split="test"),
        pairs=pairs,
        left_out=left.frame(),
        recipe=Recipe("as_is"),
        extra={"pairs": {"announced": len(listed), "listed": len(listed)}},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(CPLFW, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
