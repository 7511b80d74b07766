"""LFW and its View-2 pairs -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import LFW
from data_scripts.label_csv import read_labels
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.names import plain
from data_scripts.pairs import locate_pairs, read_pairs, unlocated
from data_scripts.people import two_names
from data_scripts.prepare_folder import add_labels
from data_scripts.splits import choose_split
from pcl_lib.utils import BadInput, exit_cleanly

NAME = re.compile(r"(.*\D)_\d{4}")  # of the published images; NAME_0001_0002 was made of one of them
WHOLE = 250  # pixels a side of lfw and lfw-deepfunneled as published, where the face fills the middle
TRIM = -0.2  # of it at every edge: leaves the middle 150 pixels, hair to chin


def find_people(root: Path, left: LeftOut) -> pd.DataFrame:
    """file and identity of every image that bears an LFW name, and lies in no other person's folder."""
    rows = []
    for file in official.images(root, left):
        found = NAME.fullmatch(file.rsplit("/", 1)[-1].rsplit(".", 1)[0])
        if found:
            rows.append((file, found[1]))
        else:
            left.add(file, "its name is not NAME_0001, as LFW's are")
    table = pd.DataFrame(rows, columns=["file", "identity"])
    folder = pd.Series([plain(f"/{file}".split("/")[-2]) for file in table["file"]], dtype=object)
    people = table["identity"].map(plain)
    moved = folder.isin(set(people)) & (folder != people)
    left.extend(table["file"][moved], "lies in the folder of another person than its name says")
    return table[~moved].reset_index(drop=True)


def find_pairs_file(root: Path, given: Path | None, source: Path) -> Path | None:
    """`given`, or pairs.txt or .csv, in capitals or not, in or next to `root` or `source` (what was given); or None."""
    if given is not None and not given.is_file():
        raise BadInput(f"there is no file {given}; give LFW's pairs.txt")
    folders = (root, root.absolute().parent, source.absolute(), source.absolute().parent)
    if given is not None:
        return given
    for name in ("pairs.txt", "pairs.csv"):
        for folder in folders:
            with contextlib.suppress(OSError):  # a folder that may not be read holds nothing for us
                for path in sorted(folder.iterdir() if folder.is_dir() else ()):
                    if path.name.lower() == name and path.is_file():
                        return path
    return None


def add_pairs(path: Path, table: pd.DataFrame, left: LeftOut) -> tuple[pd.DataFrame, dict[str, int]]:
    """Pairs by position in `table`, and how many were announced, listed and found; absent images go to `left`."""
    listed, announced = read_pairs(path)
    files = table["file"]
    pairs = locate_pairs(listed, files)
    left.extend(unlocated(listed, files), f"{path.name} names it, but it is not there")
    if pairs.empty:
        raise BadInput(
            f"{path}: none of its {len(listed)} pairs has both images; give LFW's images and pairs"
        )
    pairs = official.agreeing(pairs, table["identity"], files, path, left)
    return pairs, {"announced": announced, "listed": len(listed)}


def crop(root: Path, table: pd.DataFrame, left: LeftOut) -> tuple[pd.DataFrame, Recipe, str]:
    """LFW's whole images are cut to their middle; smaller ones have been cropped by somebody and stay. And why.

    Decided over all images that can be opened. Where most are whole, those that are not go to `left`.
    """
    found = official.sizes(root, table["file"])
    whole, looked = found.count((WHOLE, WHOLE)), len(found) - found.count(None)
    told = f"{whole:,} of {looked:,} images are {WHOLE} x {WHOLE}, the whole photographs: "
    if whole * 2 <= looked:
        return table, Recipe("as_is"), told + "they have been cropped already, and stay as they are"
    other = pd.Series([size not in (None, (WHOLE, WHOLE)) for size in found], index=table.index)
    left.extend(
        table["file"][other], f"is not {WHOLE} x {WHOLE} as the set is: cropped by somebody in another way"
    )
    return table[~other].reset_index(drop=True), Recipe("as_is", margin=TRIM), told + "cut to their middle"


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Every image with an LFW name; the people of the pairs are test, 15% of the others validation."""
    left, extra, pairs = LeftOut(), {}, None
    table = find_people(root, left)
    if table.empty:
        raise BadInput(
            f"{root} has no image under an LFW name, such as Ann_Lee/Ann_Lee_0001.jpg{official.still_packed(root)}"
        )
    table, recipe, told = crop(root, table, left)
    notes = [f"{table['identity'].nunique():,} people (by file names)", told, *two_names(table["identity"])]
    pseudo: list[str] = []
    if options.labels:
        labels = read_labels(options.labels)
        table, extra["labels"], more = add_labels(table, labels, left)
        pseudo = labels.given
        notes += more
        notes.append(
            f"{', '.join(pseudo)} come from {options.labels.name}: pseudo labels, estimated, not measured"
        )
    path = find_pairs_file(root, options.pairs, options.root)
    if path is None:
        stems = table["file"].str.rsplit("/", n=1).str[-1].map(official.stem_of)
        if (again := stems.duplicated(keep=False)).any():
            first = table["file"][again & (stems == stems[again].iloc[0])]
            notes.append(
                f"{int(again.sum()):,} images bear a name that another bears, such as {' and '.join(first[:2])}: the"
                " set may lie here twice; give one of its folders"
            )
        notes.append("no pairs.txt: verification cannot be probed; fetch it from LFW's page (View 2)")
    else:
        pairs, extra["pairs"] = add_pairs(path, table, left)
    split = choose_split(table.drop(columns="split", errors="ignore"), pairs, None, options.test_folds)
    return Listing(
        name="LFW",
        source="Labeled Faces in the Wild",
        licence=LFW.licence,
        root=root,
        table=table if split is None else table.assign(split=split),
        pairs=pairs,
        left_out=left.frame(),
        recipe=recipe,
        pseudo=pseudo,
        notes=notes,
        extra=extra,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script takes besides the common options."""
    parser.add_argument("--pairs", type=Path, help="pairs.txt of View 2, where it lies elsewhere")
    parser.add_argument("--labels", type=Path, help="CSV with file and estimated labels; recorded as pseudo")
    parser.add_argument(
        "--test-folds",
        type=int,
        choices=range(1, 11),
        metavar="1..10",
        help="hold out the people of the first so many folds only (all)",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(LFW, read, arguments, add_options)


if __name__ == "__main__":
    exit_cleanly(main)
