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
from data_scripts.sources import next_to
from data_scripts.splits import keep_apart
from data_scripts.tables import Line
from pcl_lib.data.labels import ATTRIBUTE, SPLITS
from pcl_lib.utils import BadInput, exit_cleanly

ATTRIBUTES = 40
ALIGNED = (178, 218)  # pixels of the aligned images as published
TRIM = -0.1  # of their central square at every edge: leaves brow to chin with some hair
FOLDERS = ("Img/img_align_celeba", "img_align_celeba", "Img/img_align_celeba_png", "img_align_celeba_png")
VALUES = {
    "identity": ("identity", "identities", "id", "person"),
    "split": ("partition", "partitions", "split"),
}
LOOKED_AT = 1000  # images whose size is looked at to decide on the crop


def optional(root: Path, name: str) -> Path | None:
    """`name`, a .txt or a .csv, in Anno, Eval or `root` itself; None where it is in none of them."""
    places = (f"{folder}{name}{suffix}" for suffix in (".txt", ".csv") for folder in ("Anno/", "Eval/", ""))
    return next((path for place in places if (path := next_to(root, place)).is_file()), None)


def read_pairs(path: Path, root: Path, left: LeftOut, column: str) -> pd.Series:
    """Value of identity or split, as text, by stem of a file of lines "000001.jpg 2880"; other values are left."""
    found, told, what = {}, official.relative(path, root), f"CelebA's {path.name}"
    valid = ("0", "1", "2") if column == "split" else None
    rows = official.two_columns(path, what, left, root, VALUES[column])
    seen = {value for _, _, value in rows}
    if valid is not None and valid[0] not in seen and str(int(valid[-1]) + 1) in seen:
        raise BadInput(
            f"{path}: values {', '.join(sorted(seen)[:5])}, where {', '.join(valid)} are CelebA's; take its own file"
        )
    for line, name, value in rows:
        if not value.isdecimal() or (valid is not None and value not in valid):
            wanted = " or ".join(valid) if valid else "a number"
            left.add(told, f"{value} of {name} is not {wanted}", line)
        else:
            found[official.stem_of(name)] = value
    if not found:
        raise BadInput(f"{path} is not {what}: none of its lines can be used; take CelebA's own file")
    return pd.Series(found, dtype=object, name=column)


def attribute_lines(path: Path) -> tuple[list[str], list[Line], str]:
    """The 40 names, the lines below them, and what to say of the count that a .txt begins with. BadInput else."""
    lines = official.read_lines(path, "CelebA's attributes")
    note = ""
    if path.suffix == ".csv":
        names = lines[0].words[1:] if lines else []
    else:
        if lines and len(lines[0].words) == 1 and lines[0].text.isdecimal():
            count, lines = int(lines[0].text), lines[1:]
            if count != len(lines) - 1:
                note = f"{path.name} announces {count:,} rows and has {len(lines) - 1:,}"
        names = lines[0].words if lines else []
    if len(names) != ATTRIBUTES or len(lines) < 2:
        raise BadInput(
            f"{path} is not list_attr_celeba.txt (a count, then {ATTRIBUTES} names, then rows) nor its CSV"
        )
    return names, lines[1:], note


def read_attributes(path: Path, root: Path, left: LeftOut) -> tuple[pd.DataFrame, str]:
    """attr_* columns of 0 and 1 by stem, of list_attr_celeba; and a note, or "". Rows of another form are left out.

    Values are -1 and 1, or 0 and 1, whichever the whole file holds.
    """
    names, lines, note = attribute_lines(path)
    told = official.relative(path, root)
    low = "-1" if any("-1" in line.words[1:] for line in lines) else "0"
    first: dict[str, int] = {}
    values = []
    for number, _, words in lines:
        if len(words) != ATTRIBUTES + 1 or set(words[1:]) - {low, "1"}:
            left.add(told, f"is not a name and {ATTRIBUTES} values of {low} or 1", number)
        elif (stem := official.stem_of(words[0])) in first:
            left.add(told, f"{words[0]} is listed in line {first[stem]} already", number)
        else:
            first[stem] = number
            values.append([word == "1" for word in words[1:]])
    if low == "0":
        note = (note + "; " if note else "") + f"{path.name} holds 0 and 1, not -1 and 1: 0 is taken for no"
    columns = [ATTRIBUTE + name.lower() for name in names]
    return pd.DataFrame(np.array(values, dtype=np.int8).reshape(-1, ATTRIBUTES), list(first), columns), note


def add_labels(
    table: pd.DataFrame, labels: pd.DataFrame | pd.Series, path: Path, left: LeftOut
) -> pd.DataFrame:
    """`table` with columns joined by file name without suffix; rows without an image are counted in `left`."""
    names = table["file"].map(official.stem_of)
    found = labels.reindex(names).set_axis(table.index)
    if not names.isin(labels.index).any():
        raise BadInput(
            f"{path}: none of its {len(labels)} rows names one of the {len(table)} images; give CelebA's"
        )
    if absent := len(labels) - int(names.isin(labels.index).sum()):
        left.add(path.name, f"{absent} rows name images that are not there")
    bare = int((~names.isin(labels.index)).sum())
    if bare and path.stem != "list_eval_partition":  # without which images are left out, each with the reason
        left.add(path.name, f"{bare} images have no row")
    return pd.concat([table, found], axis=1)


def find_images(root: Path, left: LeftOut) -> pd.DataFrame:
    """file of all aligned images, those of one name once. Raises BadInput where there is no folder of them."""
    places = [place for name in FOLDERS if (place := next_to(root, name)).is_dir()]
    folders = list(dict.fromkeys(official.relative(place, root) for place in places))
    if not folders:
        raise BadInput(
            f"{root} has no folder img_align_celeba; unpack img_align_celeba.zip there{official.still_packed(root)}"
        )
    images = official.images(root, left)
    files = [name for folder in folders for name in images if name.startswith(folder + "/")]
    if not files:
        raise BadInput(
            f"{root / folders[0]} holds no images; unpack img_align_celeba.zip again{official.still_packed(root)}"
        )
    first: dict[str, str] = {}
    for file in files:
        stem = official.stem_of(file)
        if stem in first:
            left.add(file, f"there is {first[stem]} of the same name already")
        else:
            first[stem] = file
    return pd.DataFrame({"file": list(first.values())})


def read(root: Path, options: argparse.Namespace) -> Listing:
    """The aligned images with whatever label files there are; the official partition, or none."""
    del options
    left, notes = LeftOut(), []
    table = find_images(root, left)
    for name, column in (("identity_CelebA", "identity"), ("list_eval_partition", "split")):
        if path := optional(root, name):
            table = add_labels(table, read_pairs(path, root, left, column), path, left)
        else:
            notes.append(f"{name}.txt is not there: no {column}")
    if path := optional(root, "list_attr_celeba"):
        attributes, note = read_attributes(path, root, left)
        table = add_labels(table, attributes, path, left)
        notes += [note] if note else []
    else:
        notes.append("list_attr_celeba.txt is not there: no attributes")
    table = named(table, left)
    recipe, told = crop(root, table["file"].tolist())
    return Listing(
        name="CelebA",
        source="CelebA, aligned and cropped images",
        licence=CELEBA.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=recipe,
        notes=[*notes, told],
    )


def crop(root: Path, files: list[str]) -> tuple[Recipe, str]:
    """Trimmed where most images have the published size, whole where they have been cropped by somebody; and why."""
    found = [size for size in official.sizes(root, files[:: max(1, len(files) // LOOKED_AT)]) if size]
    whole, looked = found.count(ALIGNED), len(found)
    told = f"{whole} of {looked} images looked at are {ALIGNED[0]} x {ALIGNED[1]} as published: "
    if whole * 2 > looked:
        return Recipe("as_is", margin=TRIM), told + "the central square is trimmed to the face"
    return Recipe("as_is"), told + "they have been cropped already, and stay as they are"


def named(table: pd.DataFrame, left: LeftOut) -> pd.DataFrame:
    """Numbers of partition and identity as the kit's words; images without a partition are left out."""
    if "identity" in table:
        table["identity"] = table["identity"].map(lambda number: None if pd.isna(number) else number.zfill(5))
    if "split" in table:
        lost = table["split"].isna()
        left.extend(table["file"][lost], "list_eval_partition does not name it")
        table = table[~lost].reset_index(drop=True)
        table["split"] = table["split"].map(dict(zip("012", SPLITS, strict=True))).astype(object)
        if "identity" in table:
            table = keep_apart(table, left)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(CELEBA, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
