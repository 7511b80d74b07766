"""RAF-DB (basic emotions) -> a prepared folder. What it needs, and where to ask for it: --help."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import RAFDB
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.names import EXPRESSION_WORDS
from data_scripts.people import split_of
from data_scripts.sources import next_to
from data_scripts.splits import UNNAMED
from pcl_lib.utils import BadInput, exit_cleanly

EXPRESSIONS = dict(enumerate(("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral"), 1))
CODE_OF = {name: code for code, name in EXPRESSIONS.items()}
COMPOUND = 11  # labels 8 to 11 exist in the compound set only
LISTS = ("EmoLabel/list_patition_label.txt", "list_patition_label.txt", "list_partition_label.txt")
TABLES = ("train_labels.csv", "test_labels.csv")  # next to a folder DATASET, as the set is passed on
IMAGES = (1619, 355, 877, 5957, 2460, 867, 3204)  # of each class, train and test, as published
PUBLISHED = dict(zip(EXPRESSIONS.values(), IMAGES, strict=True))
NAMED = re.compile(r"(train|test)_\d+(_aligned)?")  # names say in which official split they are
VALUES = ("label", "labels", "expression", "emotion", "class")  # what their column can be called
OFFICIAL = "give the folder basic of the official download, with EmoLabel/list_patition_label.txt"


def check_codes(codes: Iterable[int], where: str, lines: Mapping[int, int]) -> None:
    """Raise BadInput where labels, all of a file or a set of folders, are not RAF-DB's 1 to 7 as a whole.

    lines: the first line of each label, to be named.
    """
    seen = set(codes)
    if compound := sorted(code for code in seen if len(EXPRESSIONS) < code <= COMPOUND):
        place = f", line {lines[compound[0]]}" if compound[0] in lines else ""
        raise BadInput(
            f"{where}{place}: label {compound[0]} is one of the compound set; give the folder basic"
        )
    if 0 in seen:
        known = seen & {0, *EXPRESSIONS}
        place = f", line {lines[0]}" if 0 in lines else ""
        raise BadInput(
            f"{where}{place}: labels from {min(known)} to {max(known)}, where RAF-DB's are 1 to {len(EXPRESSIONS)}:"
            f" somebody has numbered them anew, and which is which is not known; {OFFICIAL}"
        )


def read_labels(path: Path, root: Path, left: LeftOut, suffix: str = "_aligned") -> pd.DataFrame:
    """name (of the aligned image), line, expression, split. Bad lines go to `left`. BadInput for other labels."""
    rows = []
    lines = official.two_columns(path, "the label file of RAF-DB", left, root, VALUES)
    codes = {int(value): line for line, _, value in reversed(lines) if value.isdecimal()}
    check_codes(codes, str(path), codes)
    for line, name, value in lines:
        stem, _, ending = name.rpartition(".")
        split = stem.split("_")[0]
        code = int(value) if value.isdecimal() else 0
        if code not in EXPRESSIONS or split not in ("train", "test"):
            what = (
                f"label {value} is not 1 to 7"
                if code not in EXPRESSIONS
                else f"{name} is neither train nor test"
            )
            left.add(official.relative(path, root), what, line)
            continue
        stem = stem if stem.endswith("_aligned") else stem + suffix
        rows.append((f"{stem}.{ending}", line, EXPRESSIONS[code], split))
    return pd.DataFrame(rows, columns=["name", "line", "expression", "split"])


def folder_code(name: str) -> int | None:
    """The label that a folder's name stands for, a number or a word; None for other names."""
    return int(name) if name.isdecimal() else CODE_OF.get(EXPRESSION_WORDS.get(name.lower(), ""))


def read_folders(root: Path, left: LeftOut) -> pd.DataFrame:
    """file, code, split, moved of images in .../{train,test}/LABEL/, where LABEL is a number or a word.

    A name such as test_0001 says the official split, whatever folder it lies in; moved: whether the two differ. A
    picture that lies in two classes is left out, one that lies twice in one counts once.
    """
    rows = []
    for file in official.images(root, left):
        folders = file.split("/")[:-1]
        split = split_of(folders)
        code = folder_code(folders[-1]) if folders else None
        if split is None or code is None:
            left.add(file, "does not lie in {train,test}/LABEL, LABEL one of 1 to 7")
        else:
            named = NAMED.fullmatch(official.stem_of(file))
            said = named[1] if named else split
            rows.append((file, code, said, said != split))
    table = pd.DataFrame(rows, columns=["file", "code", "split", "moved"])
    # Of a picture that lies twice, the one in the right folder comes first and counts.
    table = table.sort_values("moved", kind="stable", ignore_index=True)
    stems = table["file"].map(official.stem_of)
    stems = stems.where(stems.map(lambda stem: bool(NAMED.fullmatch(stem))), table["file"])
    clash = table.groupby(stems)["code"].transform("nunique") > 1
    left.extend(table["file"][clash], "lies in the folders of two classes: which is right is not known")
    again = stems.duplicated() & ~clash
    left.extend(table["file"][again], "lies in another folder too, which counts")
    return table[~clash & ~again].reset_index(drop=True)


def read_passed_on(root: Path, left: LeftOut) -> tuple[pd.DataFrame, list[str]]:
    """file, expression, split of the form in which the set is passed on: folders of labels, and tables next to them.

    Where both are there they must agree; an image on which they do not is left out.
    """
    table = read_folders(root, left)
    if table.empty:
        raise BadInput(
            f"{root} has no {LISTS[0]} (the labels), and no images in {{train,test}}/LABEL; {OFFICIAL}"
            f"{official.still_packed(root)}"
        )
    check_codes(table["code"], f"{root}, the folders of labels", {})
    table["expression"] = table["code"].map(EXPRESSIONS).astype(object)
    other = table["expression"].isna()
    left.extend(table["file"][other], "its folder is not one of the labels 1 to 7")
    table = table[~other]
    told = ["labels are those of the folders, a form in which others pass the set on"]
    notes = []
    if table["file"].str.split("/").str[-2].str.isdecimal().any():
        official.check_counts(
            Counter(table["expression"]), PUBLISHED, f"{root}, the folders of labels", OFFICIAL
        )
        notes.append("folders are numbers, read as " + ", ".join(f"{c} {n}" for c, n in EXPRESSIONS.items()))
    if moved := int(table["moved"].sum()):
        notes.append(
            f"{moved:,} images lie in a folder of another split than their name, official, says: it counts"
        )
    paths = [path for name in TABLES if (path := next_to(root, name)).is_file()]
    if paths:
        listed = pd.concat([read_labels(path, root, left) for path in paths], ignore_index=True)
        says = dict(zip(listed["name"].map(official.stem_of), listed["expression"], strict=True))
        given = table["file"].map(official.stem_of).map(says)
        compared, names = int(given.notna().sum()), [path.name for path in paths]
        told = [f"labels are those of the folders, compared with {' and '.join(names)}"]
        if compared < len(table):
            told[0] += f" for {compared:,} of {len(table):,} images; the tables do not name the others"
        for file in table["file"][given.notna() & (given != table["expression"])]:
            left.add(file, f"its folder and {' or '.join(names)} disagree on its label")
        table = table[given.isna() | (given == table["expression"])]
    return table[["file", "expression", "split"]].reset_index(drop=True), told + notes


def read(root: Path, options: argparse.Namespace) -> Listing:
    """The aligned images with their labels, with the official split and 15% of train as validation."""
    del options
    left = LeftOut()
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}; give the folder of the download")
    path = next((path for name in LISTS if (path := next_to(root, name)).is_file()), None)
    notes: list[str] = []
    if path is None:
        table, notes = read_passed_on(root, left)
    else:
        labels = read_labels(path, root, left)
        official.check_counts(Counter(labels["expression"]), PUBLISHED, str(path), OFFICIAL)
        aligned = [
            name for name in official.images(root, left) if official.stem_of(name).endswith("_aligned")
        ]
        table = official.match(
            labels, aligned, official.relative(path, root), left, "RAF-DB's label file", root
        )
    counts = table["expression"].value_counts()
    if absent := [name for name in EXPRESSIONS.values() if name not in counts.index]:
        notes.append(f"no image of {', '.join(absent)}")
    table["split"] = official.hold_out(table)
    return Listing(
        name="RAF-DB",
        source="RAF-DB basic, aligned images",
        licence=RAFDB.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("as_is"),
        notes=[
            *notes,
            "validation is 15% of the official training split, by a hash of the file name",
            UNNAMED,
        ],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(RAFDB, read, arguments)


if __name__ == "__main__":
    exit_cleanly(main)
