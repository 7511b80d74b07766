"""What the readers of official layouts share: finding their files, matching rows to images, holding some train out."""

from __future__ import annotations

import argparse
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_scripts import prepare
from data_scripts.catalogue import DataSet
from data_scripts.listing import LeftOut, Listing
from data_scripts.sources import find_files
from pcl_lib.data.labels import hashed_split
from pcl_lib.utils import BadInput

COMPARED = ("images", "identities", "pairs")  # with the published counts; splits may differ by our validation
VALIDATION = 0.15  # of an official training split, where there is no official validation split


def run(
    entry: DataSet,
    read: Callable[[Path, argparse.Namespace], Listing],
    arguments: Sequence[str] | None = None,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
) -> dict[str, Any]:
    """The command line of a set's script: read, prepare, and say how much of the whole set that was.

    Returns what dataset.json holds. Raises BadInput.
    """
    parser = prepare.standard_parser(entry.help())
    if add_options:
        add_options(parser)
    record = prepare.run(read, parser, arguments)
    counts = record["counts"]
    told = [
        f"{counts[name]:,} of {whole:,} {name}"
        for name, whole in entry.expected.items()
        if name in COMPARED and name in counts
    ]
    print(f"Of the whole {entry.name}: {', '.join(told)}.")
    return record


def read_lines(path: Path, what: str) -> list[list[str]]:
    """The words of every line, empty ones too, so that a line's place is its row. BadInput where it is no text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path} as {what} ({error})") from error
    return [line.split() for line in text.splitlines()]


def join(left: LeftOut, other: LeftOut, prefix: str = "") -> None:
    """Add to `left` what `other` has, with `prefix` before the names of its files."""
    for file, reason in other.frame()[["file", "reason"]].itertuples(index=False, name=None):
        left.add(f"{prefix}{file}", str(reason))


def images(root: Path, left: LeftOut) -> list[str]:
    """Paths of all image files below `root`, sorted; links that are not followed go to `left`."""
    found, refused = find_files(root)
    join(left, refused)
    return found


def the_file(root: Path, candidates: Sequence[str], what: str) -> Path:
    """The first of `candidates` that exists below `root`. Raises BadInput naming them all where none does."""
    for name in candidates:
        if (root / name).is_file():
            return root / name
    if not root.is_dir():
        raise BadInput(f"there is no folder {root}; give the folder of the download")
    raise BadInput(f"{root} has no {' or '.join(candidates)} ({what}); give the folder of the whole download")


def two_columns(
    path: Path, what: str, left: LeftOut, root: Path, skip: int = 0
) -> list[tuple[int, str, str]]:
    """Row (from 0), name and value of each line "name value"; other lines are left out with the reason.

    The first of several lines on one name counts. Raises BadInput where most lines have another form.
    """
    lines = read_lines(path, what)
    told, wrong = relative(path, root), 0
    seen: dict[str, int] = {}
    found = []
    for row, words in enumerate(lines[skip:], skip):
        if not words:
            continue
        if len(words) != 2:
            left.add(told, f'"{" ".join(words)[:60]}" is not a name and a value', row)
            wrong += 1
        elif words[0] in seen:
            left.add(told, f"{words[0]} is listed in row {seen[words[0]]} already", row)
        else:
            seen[words[0]] = row
            found.append((row, words[0], words[1]))
    if wrong > len(found):
        raise BadInput(
            f"{path} is not {what}: {wrong} lines are not a name and a value; take the set's own file"
        )
    return found


def relative(path: Path, root: Path) -> str:
    """How `path` is called in reports and in the column file: below `root` where it is, else in full."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def plain(name: str) -> str:
    """A name in composed Unicode: Macs store e and its accent as two characters, label files as one."""
    return unicodedata.normalize("NFC", name)


def places(files: Iterable[str], left: LeftOut) -> dict[str, str]:
    """File name (plain, without folders) -> path, for matching labels; of several files of one name the first."""
    found: dict[str, str] = {}
    for file in files:
        name = plain(file.rsplit("/", 1)[-1])
        if name in found:
            left.add(file, f"there is {found[name]} of the same name already")
        else:
            found[name] = file
    return found


def match(
    labels: pd.DataFrame, files: Iterable[str], label_file: str, left: LeftOut, what: str
) -> pd.DataFrame:
    """Rows of `labels` whose image is there, with `file` set to its path, in the order of the labels.

    labels: name (the image's file name), row (in the label file), and labels. Rows without an image and images
    without a row go to `left`. Raises BadInput where no row names an image: a label file of another set.
    """
    at = places(files, left)
    paths = labels["name"].map(plain).map(at)
    found = labels.assign(file=paths).dropna(subset="file")
    if not len(found):
        first = labels["name"].iloc[0] if len(labels) else "none"
        raise BadInput(
            f"{label_file}: none of its {len(labels)} rows names one of the {len(at)} images found (the first is"
            f" {first}); give {what} and the images it belongs to"
        )
    for row, name in zip(labels["row"][paths.isna()], labels["name"][paths.isna()], strict=True):
        left.add(label_file, f"{name} is not among the images", int(row))
    left.extend(sorted(set(at.values()) - set(found["file"])), f"no row of {label_file} names it")
    columns = ["file", *(name for name in labels if name not in ("name", "row"))]
    return found[columns].reset_index(drop=True)


def hold_out(table: pd.DataFrame, by: str = "file", share: float = VALIDATION) -> pd.Series:
    """The column split, with `share` of the names in column `by` of train given to validation, by a hash."""
    train = table["split"] == "train"
    split = table["split"].copy()
    if table[by][train].nunique() > 1:
        split[train] = hashed_split(table[train].rename(columns={by: "identity"})[["identity"]], (share, 0.0))
    return split


def positive(text: str) -> int:
    """An argparse type: a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return int(text)


def seconds(text: str) -> float:
    """An argparse type: a time from 0.04 s, the length of a frame, to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.04 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not a time from 0.04 to 3600 seconds")
    return value
