"""RAF-DB (basic emotions) -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import RAFDB
from data_scripts.listing import LeftOut, Listing, Recipe
from pcl_lib.utils import BadInput, exit_cleanly

EXPRESSIONS = dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"), 1))
COMPOUND = 11  # labels 8 to 11 exist in the compound set only


def read_labels(path: Path, root: Path, left: LeftOut) -> pd.DataFrame:
    """name (of the aligned image), row, expression, split. Bad rows go to `left`. BadInput for the compound set."""
    rows = []
    for row, name, value in official.two_columns(path, "the label file of RAF-DB", left, root):
        stem, _, suffix = name.rpartition(".")
        split = stem.split("_")[0]
        code = int(value) if value.isdecimal() else 0
        if len(EXPRESSIONS) < code <= COMPOUND:
            raise BadInput(
                f"{path}, row {row}: label {code} is one of the compound set; give the folder basic"
            )
        if code not in EXPRESSIONS or split not in ("train", "test"):
            what = (
                f"label {value} is not 1 to 7"
                if code not in EXPRESSIONS
                else f"{name} is neither train nor test"
            )
            left.add(official.relative(path, root), what, row)
            continue
        rows.append((f"{stem}_aligned.{suffix}", row, EXPRESSIONS[code], split))
    return pd.DataFrame(rows, columns=["name", "row", "expression", "split"])


def read(root: Path, options: argparse.Namespace) -> Listing:
    """The aligned images that the label file names, with the official split and 15% of train as validation."""
    del options
    left = LeftOut()
    path = official.the_file(
        root, ("EmoLabel/list_patition_label.txt", "list_patition_label.txt"), "the labels"
    )
    labels = read_labels(path, root, left)
    aligned = [file for file in official.images(root, left) if file.rsplit(".", 1)[0].endswith("_aligned")]
    table = official.match(labels, aligned, official.relative(path, root), left, "RAF-DB's label file")
    table["split"] = official.hold_out(table)
    return Listing(
        name="RAF-DB",
        source="RAF-DB basic, aligned images",
        licence=RAFDB.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("as_is"),
        notes=["validation is 15% of the official training split, by a hash of the file name"],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(RAFDB, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
