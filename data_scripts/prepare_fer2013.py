"""FER-2013, as a table of pixels or as image folders -> a prepared folder. Layouts, and where to ask: --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import FER2013
from data_scripts.listing import LeftOut, Listing, Recipe
from pcl_lib.utils import BadInput, exit_cleanly

CODES = dict(enumerate(("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")))
USAGES = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
TABLES = ("fer2013.csv", "icml_face_data.csv")
FOLDERS = {name: name for name in CODES.values()} | {
    "angry": "anger",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "disgusted": "disgust",
    "fearful": "fear",
}
HELD_OUT = (
    "the folder {other} is the test split here, to be scored once; validation, to choose on, is 15% of the"
    " folder train, by a hash of the file name"
)


def read_table(path: Path, left: LeftOut) -> pd.DataFrame:
    """file ("fer2013.csv#row=0"), expression, split of a table of pixels. Bad rows go to `left`."""
    try:
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns
        names = {name.strip().lower(): name for name in header}
        if missing := {"emotion", "pixels", "usage"} - names.keys():
            raise BadInput(
                f"{path} has no column {min(missing)}; give fer2013.csv or icml_face_data.csv as downloaded"
            )
        rows = pd.read_csv(path, usecols=[names["emotion"], names["usage"]], encoding="utf-8-sig", dtype=str)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} ({error}); give the file as downloaded") from error
    codes = pd.to_numeric(rows[names["emotion"]], errors="coerce")
    usage = rows[names["usage"]].str.strip()
    table = pd.DataFrame({"expression": codes.map(CODES), "split": usage.map(USAGES)}, dtype=object)
    table.insert(0, "file", [f"{path.name}#row={row}" for row in range(len(table))])
    for row in table.index[table.isna().any(axis=1)]:
        what = (
            f"emotion {rows[names['emotion']][row]} is not 0 to 6"
            if pd.isna(table["expression"][row])
            else f"Usage {rows[names['usage']][row]} is not one of {', '.join(USAGES)}"
        )
        left.add(path.name, what, int(row))
    return table.dropna().reset_index(drop=True)


def read_folders(root: Path, left: LeftOut) -> tuple[pd.DataFrame, list[str]]:
    """file, expression, split of images in folders SPLIT/CLASS, and what to say of the splits."""
    rows = []
    for file in official.images(root, left):
        split, *between = file.split("/")[:-1] or ("",)
        if split not in ("train", "validation", "test") or len(between) != 1:
            left.add(file, "does not lie in {train,validation,test}/CLASS")
        elif between[0].lower() not in FOLDERS:
            left.add(file, f"the folder {between[0]} is not one of the seven classes")
        else:
            rows.append((file, FOLDERS[between[0].lower()], split))
    table = pd.DataFrame(rows, columns=["file", "expression", "split"])
    splits = set(table["split"])
    if splits == {"train", "validation", "test"}:
        return table, []
    if len(splits) != 2 or "train" not in splits:
        told = ", ".join(sorted(splits)) or "none"
        raise BadInput(
            f"{root} needs train beside validation or test, each with a folder a class; found: {told}"
        )
    other = min(splits - {"train"})
    table["split"] = table["split"].replace(other, "test")
    table["split"] = official.hold_out(table)
    return table, [HELD_OUT.format(other=other)]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Whatever form lies in `root`: fer2013.csv, icml_face_data.csv, or image folders."""
    del options
    left = LeftOut()
    notes: list[str] = []
    tables = [name for name in TABLES if (root / name).is_file()]
    if tables:
        table = read_table(root / tables[0], left)
    else:
        table, notes = read_folders(root, left)
    return Listing(
        name="FER-2013",
        source=f"FER-2013, {tables[0] if tables else 'image folders'}",
        licence=FER2013.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("as_is"),
        notes=notes,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(FER2013, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
