"""CelebA's aligned images with attributes and identities -> a prepared folder. More: --help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts import official
from data_scripts.catalogue import CELEBA
from data_scripts.listing import LeftOut, Listing, Recipe
from pcl_lib.data.labels import ATTRIBUTE, SPLITS, hashed_split
from pcl_lib.utils import BadInput, exit_cleanly

ATTRIBUTES = 40
TRIM = (
    -0.1
)  # of the central square (178 of 178 x 218 pixels) at every edge: leaves brow to chin with some hair


def optional(root: Path, name: str) -> Path | None:
    """`name` in Anno, Eval or `root` itself; None where it is in neither."""
    return next((path for folder in ("Anno", "Eval", "") if (path := root / folder / name).is_file()), None)


def read_pairs(path: Path, root: Path, left: LeftOut, what: str, valid: Sequence[str] | None) -> pd.Series:
    """Value by file name of a file of lines "000001.jpg 2880"; values that are no number, or not `valid`, are left."""
    found = {}
    for row, name, value in official.two_columns(path, what, left, root):
        if not value.isdecimal() or (valid is not None and value not in valid):
            wanted = " or ".join(valid) if valid else "a number"
            left.add(official.relative(path, root), f"{value} of {name} is not {wanted}", row)
        else:
            found[name] = int(value)
    if not found:
        raise BadInput(f"{path} is not {what}: none of its lines can be used; take CelebA's own file")
    return pd.Series(found)


def read_attributes(path: Path, root: Path, left: LeftOut) -> pd.DataFrame:
    """attr_* columns of 0 and 1 by file name, of list_attr_celeba.txt; rows of another form are left out."""
    lines = official.read_lines(path, "CelebA's attributes")
    if len(lines) < 3 or len(lines[0]) != 1 or len(lines[1]) != ATTRIBUTES:
        raise BadInput(
            f"{path} is not list_attr_celeba.txt: a count, then {ATTRIBUTES} names, then rows are needed"
        )
    names: dict[str, int] = {}
    values = []
    for row, words in enumerate(lines[2:], 2):
        if not words:
            continue
        if len(words) != ATTRIBUTES + 1 or set(words[1:]) - {"-1", "1"}:
            left.add(official.relative(path, root), f"is not a name and {ATTRIBUTES} values of -1 or 1", row)
        elif words[0] in names:
            left.add(
                official.relative(path, root), f"{words[0]} is listed in row {names[words[0]]} already", row
            )
        else:
            names[words[0]] = row
            values.append([word == "1" for word in words[1:]])
    columns = [ATTRIBUTE + name.lower() for name in lines[1]]
    return pd.DataFrame(np.array(values, dtype=np.int8).reshape(-1, ATTRIBUTES), list(names), columns)


def add_labels(
    table: pd.DataFrame, labels: pd.DataFrame | pd.Series, path: Path, left: LeftOut
) -> pd.DataFrame:
    """`table` with columns joined by file name; rows of `labels` without an image are counted in `left`."""
    names = table["file"].str.rsplit("/", n=1).str[-1]
    found = labels.reindex(names).set_axis(table.index)
    if not names.isin(labels.index).any():
        raise BadInput(
            f"{path}: none of its {len(labels)} rows names one of the {len(table)} images; give CelebA's"
        )
    if absent := len(labels) - int(names.isin(labels.index).sum()):
        left.add(path.name, f"{absent} rows name images that are not there")
    return pd.concat([table, found], axis=1)


def read(root: Path, options: argparse.Namespace) -> Listing:
    """The aligned images with whatever label files there are; the official partition, or none."""
    del options
    left, notes = LeftOut(), []
    folder = next(
        (name for name in ("Img/img_align_celeba", "img_align_celeba") if (root / name).is_dir()), None
    )
    if folder is None:
        raise BadInput(f"{root} has no folder img_align_celeba; unpack img_align_celeba.zip there")
    table = pd.DataFrame(
        {"file": [name for name in official.images(root, left) if name.startswith(folder + "/")]}
    )
    if table.empty:
        raise BadInput(f"{root / folder} holds no images; unpack img_align_celeba.zip again")
    for name, column in (("identity_CelebA.txt", "identity"), ("list_eval_partition.txt", "split")):
        if path := optional(root, name):
            valid = ("0", "1", "2") if column == "split" else None
            values = read_pairs(path, root, left, f"CelebA's {name}", valid).rename(column)
            table = add_labels(table, values, path, left)
        else:
            notes.append(f"{name} is not there: no {column}")
    if path := optional(root, "list_attr_celeba.txt"):
        table = add_labels(table, read_attributes(path, root, left), path, left)
    else:
        notes.append("list_attr_celeba.txt is not there: no attributes")
    table = named(table, left)
    return Listing(
        name="CelebA",
        source="CelebA, aligned and cropped images",
        licence=CELEBA.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("as_is", margin=TRIM),
        notes=notes,
    )


def named(table: pd.DataFrame, left: LeftOut) -> pd.DataFrame:
    """Numbers of partition and identity as the kit's words; images without a partition are left out."""
    if "split" in table:
        lost = table["split"].isna()
        left.extend(table["file"][lost], "list_eval_partition.txt does not name it")
        table = table[~lost].reset_index(drop=True)
        table["split"] = table["split"].map(dict(enumerate(SPLITS))).astype(object)
    elif "identity" not in table:
        table["split"] = hashed_split(pd.DataFrame({"identity": table["file"]}))
    if "identity" in table:
        table["identity"] = table["identity"].map(
            lambda number: None if pd.isna(number) else f"{int(number):05d}"
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(CELEBA, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
