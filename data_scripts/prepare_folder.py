"""Any folder of face images, optionally with labels and verification pairs -> a prepared folder.

    python data_scripts/prepare_folder.py lfw data/lfw --pairs lfw/pairs.txt --labels pose.csv --pseudo yaw,pitch,roll

Images are found in all subfolders (or in an archive), in the order of their paths, turned upright by their EXIF
orientation, cut to the central square and resized with an antialiasing filter; --align detect looks for the face.
What cannot be used is left out and listed with the reason in OUT/skipped.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.pairs import choose_split, locate_pairs, read_pairs
from data_scripts.prepare import check_range, run, standard_parser
from data_scripts.sources import SUFFIXES, find_files, is_archive, printable
from pcl_lib.data.labels import KNOWN_LABELS, check_labels
from pcl_lib.utils import BadInput, exit_cleanly

SPLIT_HELP = """who is in train, validation and test. labels: column split of the CSV. official: every identity that
occurs in the first TEST_FOLDS folds of the pairs is in test, 15%% of the other identities in validation. identity:
70, 15 and 15%% of the identities. all-train: everything in train, for pre-training only (probes then have nothing
to test on). In none of them does an identity lie in two splits. Default: labels if the CSV has that column, else
official if there are pairs, else identity"""


def find_identities(files: Sequence[str], how: str) -> list[str | None]:
    """Whom each image shows. parent: the folder's name; name: the file's name up to its number; none: unknown.

    An image that lies in no subfolder has no parent, hence no identity.
    """
    paths = [PurePosixPath(printable(file)) for file in files]
    if how == "parent":
        return [path.parent.name or None for path in paths]
    if how == "name":
        return [path.stem.rstrip("0123456789").rstrip("_- .") or path.stem for path in paths]
    return [None] * len(paths)


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV with a column `file` and label columns, checked. Raises BadInput naming column, row and value."""
    try:
        labels = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} ({error}); give a CSV file with a column file") from error
    if "file" not in labels:
        raise BadInput(f"{path} has no column file; its columns are {', '.join(map(str, labels.columns))}")
    if taken := {"shard", "row"} & set(labels):
        raise BadInput(f"{path}: column {min(taken)} is a name of the prepared folder; rename it")
    if not set(labels) & set(KNOWN_LABELS):
        raise BadInput(f"{path} has none of the columns {', '.join(KNOWN_LABELS)}; rename its columns")
    again = labels["file"].duplicated()
    if again.any():
        row = int(np.flatnonzero(again)[0])
        raise BadInput(
            f"{path}, row {row}: {labels['file'].iloc[row]} has been labelled before; keep one row"
        )
    check_labels(labels, str(path))
    return labels


def add_labels(
    table: pd.DataFrame, labels: pd.DataFrame, path: Path, left: LeftOut | None = None
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Join labels to `table` by relative path, or else by file name where that is unique; count what did not match.

    A label takes the place of what was read off the folders; rows without an image go to `left`. Raises BadInput
    where nothing matches.
    """
    at = pd.Series(np.arange(len(labels)), index=labels["file"].astype(str).str.replace("\\", "/"))
    base = table["file"].str.rsplit("/", n=1).str[-1]
    row = table["file"].map(at).fillna(base.where(~base.duplicated(keep=False)).map(at))
    counts = {
        "images_without_labels": int(row.isna().sum()),
        "labels_without_image": len(labels) - row.nunique(),
    }
    if row.isna().all():
        raise BadInput(
            f"{path}: no row names an image of the folder (the first is {labels['file'].iloc[0]!r})"
        )
    for number in np.setdiff1d(np.arange(len(labels)), row.dropna().to_numpy()) if left is not None else ():
        left.add(path.name, f"there is no image {labels['file'].iloc[number]}", int(number))  # type: ignore[union-attr]
    columns = labels.drop(columns="file").reindex(row.fillna(-1).astype(int)).reset_index(drop=True)
    kept = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([kept, columns], axis=1), counts


def read(root: Path, options: argparse.Namespace) -> Listing:
    """All images below `root`, with the labels and pairs that the command line gives."""
    files, left = find_files(root)
    if not files:
        raise BadInput(f"there are no images in {root} (looked for {' '.join(SUFFIXES)})")
    table = pd.DataFrame({"file": files, "identity": find_identities(files, options.identity_from)})
    extra: dict[str, Any] = {}
    pairs, notes = None, []
    if options.labels:
        table, counts = add_labels(table, read_csv(options.labels), options.labels, left)
        extra["labels"] = counts
        notes.append(
            f"Images without labels: {counts['images_without_labels']};"
            f" labels without an image: {counts['labels_without_image']}"
        )
    if unknown := set(options.pseudo) - set(table):
        raise BadInput(f"--pseudo names {min(unknown)}, but the labels have no such column")
    if options.pairs:
        listed, announced = read_pairs(options.pairs)
        pairs = locate_pairs(listed, table["file"])
        extra["pairs"] = {"announced": announced, "listed": len(listed)}
    table["split"] = choose_split(table, pairs, options.split, options.test_folds)
    if pairs is not None and (table["split"] == "train").mean() < 0.5:
        notes.append(
            "Less than half of the images are left to train on; --test-folds 2 holds out fewer people"
        )
    called = options.root.resolve().name
    if is_archive(options.root):
        called = called.split(".")[0]
    return Listing(
        name=called,
        source=f"data_scripts/prepare_folder.py, from a folder named {called}",
        licence="",
        root=root,
        table=table.dropna(axis="columns", how="all"),
        pairs=pairs,
        left_out=left.frame(),
        recipe=Recipe("as_is", -options.crop),
        pseudo=options.pseudo,
        notes=notes,
        extra=extra,
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = standard_parser(__doc__)
    add = line.add_argument
    add(
        "--crop",
        type=float,
        default=0.0,
        help="share of the square's side to trim at every edge, 0 to 0.45 (0)",
    )
    add("--labels", type=Path, help="CSV: column file (path within ROOT, or file name) and label columns: "
        + ", ".join(KNOWN_LABELS))  # fmt: skip
    add("--pseudo", type=lambda text: text.split(","), default=[], help="columns that were estimated, not measured: "
        "recorded in dataset.json, so that results can say so")  # fmt: skip
    add("--identity-from", choices=("parent", "name", "none"), default="parent", help="whom an image shows: its "
        "folder, its file name without the trailing number, or unknown (parent)")  # fmt: skip
    add("--pairs", type=Path, help="verification pairs as LFW lists them (pairs.txt)")
    add("--split", choices=("labels", "official", "identity", "all-train"), help=SPLIT_HELP)
    add(
        "--test-folds",
        type=int,
        help="with official: hold out the people of the first so many folds only (all)",
    )
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""

    def checked(root: Path, options: argparse.Namespace) -> Listing:
        check_range(options, "crop", 0, 0.45)
        check_range(options, "test_folds", 1, 10)
        return read(root, options)

    run(checked, parser(), arguments)


if __name__ == "__main__":
    exit_cleanly(main)
