"""FER-2013, as a table of pixels or as image folders -> a prepared folder. Layouts, and where to ask: --help."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import FER2013
from data_scripts.images import pixel_table
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.names import EXPRESSION_WORDS
from data_scripts.people import split_word
from data_scripts.splits import UNNAMED
from pcl_lib.utils import BadInput, exit_cleanly

CODES = dict(enumerate(("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")))
USAGES = {"training": "train", "publictest": "validation", "privatetest": "test"}
TABLES = ("fer2013.csv", "icml_face_data.csv")
IMAGES = (4953, 547, 5121, 8989, 6077, 4002, 6198)  # of each class, all three splits, as published
PUBLISHED = dict(zip(CODES.values(), IMAGES, strict=True))
OFFICIAL = "give fer2013.csv or icml_face_data.csv as downloaded"
CODE_OF = {name: code for code, name in CODES.items()}
SIDE, LOOKED_AT = 48, 500  # pixels of the published pictures; images whose size is looked at
HELD_OUT = (
    "the folder {other} is the test split here, to be scored once; validation, to choose on, is 15% of the"
    " folder train, by a hash of the file name"
)


def check_codes(codes: Iterable[int], where: str) -> None:
    """Raise BadInput where labels, all of a file or a set of folders, are not 0 to 6 as a whole.

    Nor may they be as frequent as if they stood for other classes: by the alphabet, or in the order of FER+, which has
    an eighth.
    """
    counts = Counter(codes)
    if len(CODES) in counts:
        raise BadInput(
            f"{where}: labels from {min(counts)} to {max(counts)}, where FER-2013's are 0 to 6: somebody has numbered"
            f" them anew, and which is which is not known; {OFFICIAL}"
        )
    official.check_counts({name: counts[code] for code, name in CODES.items()}, PUBLISHED, where, OFFICIAL)


def read_table(path: Path, left: LeftOut) -> pd.DataFrame:
    """file ("fer2013.csv#row=0"), expression, split of a table of pixels. Bad lines go to `left`.

    Rows are counted by the parser that later finds the pixels of each, so that a label stays with its picture.
    """
    table = pixel_table(path)
    names = {name.lower(): place for place, name in enumerate(table.header)}
    if missing := {"emotion", "pixels", "usage"} - names.keys():
        raise BadInput(f"{path} has no column {min(missing)}; {OFFICIAL}")
    given = [(values[names["emotion"]].strip(), values[names["usage"]].strip()) for values in table.rows()]
    check_codes((int(code) for code, _ in given if code.isdecimal()), str(path))
    rows = []
    for row, ((code, usage), line) in enumerate(zip(given, table.lines.tolist(), strict=True)):
        split = USAGES.get(usage.lower())
        if not code.isdecimal() or int(code) not in CODES:
            left.add(path.name, f"emotion {code} is not 0 to 6", line)
        elif split is None:
            left.add(path.name, f"Usage {usage} is not one of Training, PublicTest, PrivateTest", line)
        else:
            rows.append((f"{path.name}#row={row}", CODES[int(code)], split))
    return pd.DataFrame(rows, columns=["file", "expression", "split"])


def folder_split(name: str) -> str | None:
    """The split that a folder's name stands for: of `USAGES`, or train, test and the like."""
    return USAGES.get(re.sub(r"[-_ ]", "", name.lower())) or split_word(name)


def folder_class(name: str) -> int | None:
    """The label that a folder's name stands for, a word or a number; None for other names."""
    return int(name) if name.isdecimal() else CODE_OF.get(EXPRESSION_WORDS.get(name.lower(), ""))


def read_folders(root: Path, left: LeftOut) -> tuple[pd.DataFrame, list[str]]:
    """file, expression, split of images in folders SPLIT/CLASS, and what to say of the splits."""
    rows = []
    for file in official.images(root, left):
        top, *between = file.split("/")[:-1] or ("",)
        split, named = folder_split(top), USAGES.get(official.stem_of(file).split("_")[0])
        if split is None or len(between) != 1:
            left.add(file, "does not lie in {train,validation,test}/CLASS")
        elif (code := folder_class(between[0])) is None:
            left.add(file, f"the folder {between[0]} is not one of the seven classes")
        elif named and (named == "train") != (split == "train"):
            left.add(file, f"lies in {top}, and its name says that it is of {named}")
        else:
            rows.append((file, code, split))
    numbered = any(file.split("/")[-2].isdecimal() for file, _, _ in rows)
    notes = []
    if numbered:
        check_codes((code for _, code, _ in rows), f"{root}, the folders of classes")
        notes.append("folders are numbers, read as " + ", ".join(f"{c} {n}" for c, n in CODES.items()))
    table = pd.DataFrame(rows, columns=["file", "expression", "split"])
    table["expression"] = table["expression"].map(CODES).astype(object)
    left.extend(table["file"][table["expression"].isna()], "its folder is not one of the classes 0 to 6")
    table = table.dropna().reset_index(drop=True)
    splits = set(table["split"])
    if splits == {"train", "validation", "test"}:
        return table, notes
    if len(splits) != 2 or "train" not in splits:
        told = ", ".join(sorted(splits)) or "none"
        raise BadInput(
            f"{root} needs train and validation or test, each with one folder per class; found: {told}. Else give"
            " fer2013.csv or icml_face_data.csv (train.csv of the competition lacks Usage)"
            f"{official.still_packed(root)}"
        )
    other = min(splits - {"train"})
    table["split"] = table["split"].replace(other, "test")
    table["split"] = official.hold_out(table)
    return table, [*notes, HELD_OUT.format(other=other)]


def other_sizes(root: Path, files: Sequence[str]) -> list[str]:
    """A sentence where images in folders are not of FER-2013's size: other sets lie in folders of the same names.

    Raises BadInput where the folders are numbers as well, which other sets give other expressions.
    """
    looked = official.sizes(root, files[:: max(1, len(files) // LOOKED_AT)])
    other = Counter(size for size in looked if size not in (None, (SIDE, SIDE)))
    if not other:
        return []
    (size, _), *_ = other.most_common(1)
    if any(file.split("/")[-2].isdecimal() for file in files):
        raise BadInput(
            f"{root}: {other.total()} of {len(looked)} images that were looked at are not {SIDE} x {SIDE}, as"
            f" FER-2013's are, but {' x '.join(map(str, size))} or the like, and the folders of classes are numbers,"
            " which AffectNet and others give other expressions: name them neutral, happy, ... and use"
            " prepare_folder.py"
        )
    return [
        f"{other.total()} of {len(looked)} images that were looked at are not {SIDE} x {SIDE}, as FER-2013's are, but"
        f" {' x '.join(map(str, size))} or the like. If this is another set (RAF-DB, AffectNet, ...), prepare it by"
        " its own script or by prepare_folder.py: here it gets FER-2013's name and licence. The labels are those of"
        " the folders' names either way"
    ]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Whatever form lies in `root`: fer2013.csv, icml_face_data.csv, or image folders."""
    del options
    left = LeftOut()
    notes: list[str] = []
    tables = [path for path in sorted(root.glob("*.*")) if path.name.lower() in TABLES and path.is_file()]
    if tables:
        table = read_table(tables[0], left)
        left.extend([path.name for path in tables[1:]], f"{tables[0].name} holds the set already; not read")
    else:
        table, notes = read_folders(root, left)
        notes += other_sizes(root, table["file"].tolist())
    if absent := [name for name in CODES.values() if name not in set(table["expression"])]:
        notes.append(f"no image of {', '.join(absent)}")
    notes.append(UNNAMED)
    return Listing(
        name="FER-2013",
        source=f"FER-2013, {tables[0].name if tables else 'image folders'}",
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
