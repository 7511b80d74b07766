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

import pandas as pd

from data_scripts.label_csv import Labels, locate, read_labels
from data_scripts.listing import LeftOut, Listing, Recipe, first_reason
from data_scripts.names import plain
from data_scripts.official import still_packed
from data_scripts.pairs import locate_pairs, read_pairs, unlocated
from data_scripts.people import People, two_names
from data_scripts.people_in_folders import in_folders
from data_scripts.prepare import check_range, run, standard_parser
from data_scripts.sources import SUFFIXES, VIDEO_SUFFIXES, find_files, is_archive, other_files, printable
from data_scripts.splits import choose_split, of_known_people
from pcl_lib.data.labels import KNOWN_LABELS
from pcl_lib.utils import BadInput, exit_cleanly

SPLIT_HELP = """who is in train, validation and test. labels: column split of the CSV. official: every identity that
occurs in the first TEST_FOLDS folds of the pairs is in test, 15%% of the other identities in validation. identity:
70, 15 and 15%% of the identities. all-train: everything in train, for pre-training only (probes then have nothing
to test on). In none of them does an identity lie in two splits. Default: labels if the CSV has that column, else
official if there are pairs, else identity"""
IDENTITY_HELP = """whom an image shows: folder: the folder that the names tell to be one person's, whatever lies between
(ann/day1/3.jpg shows ann); parent: the folder it lies in; name: its file name without the trailing number; image: no
two images show the same person; none: not known, so that all images are train (folder)"""


def find_people(files: Sequence[str], how: str, level: int | None = None) -> People:
    """Whom each image shows. how: folder, parent, name, image or none, as `IDENTITY_HELP` says; level: of `in_folders`.

    Files in no such folder show somebody unknown. Raises BadInput where two folder levels could be people.
    """
    if how == "folder":
        return in_folders(files, level)
    paths = [PurePosixPath(plain(printable(file))) for file in files]
    identity: list[str | None] = [None] * len(files)
    if how == "parent":
        identity = [path.parent.name or None for path in paths]
    elif how == "name":
        identity = [path.stem.rstrip("0123456789").rstrip("_- .") or path.stem for path in paths]
    elif how == "image":
        identity = [str(path) for path in paths]
    count = len({name for name in identity if name})
    where = {"parent": "the innermost folder", "name": "the file name", "image": "--identity-from image"}
    told = f"{count:,} people (by {where[how]})" if how in where else ""
    nothing: list[str | None] = [None] * len(files)
    return People(identity, nothing, nothing, nothing, told, two_names(identity))


def add_labels(
    table: pd.DataFrame, labels: Labels, left: LeftOut
) -> tuple[pd.DataFrame, dict[str, int], list[str]]:
    """Join labels to `table` by `label_csv.locate`; count what did not match; and sentences for the summary.

    A label takes the place of what was read off the folders. An identity does so for all images of its folder that the
    table says nothing of; where it names several people in one folder, who is on the others is not known. Raises
    BadInput where nothing matches, or images have no split where others have one.
    """
    row, notes = locate(labels, table["file"], left)
    counts = {
        "images_without_labels": int((row < 0).sum()),
        "labels_without_image": len(labels.table) - int((row >= 0).sum()),
    }
    columns = labels.table.drop(columns="file").reindex(row).reset_index(drop=True)
    if "split" in columns and columns["split"].isna().any():
        lost = table["file"][columns["split"].isna()]
        raise BadInput(
            f"{labels.path}: column split names no split for {len(lost)} images (the first is {lost.iloc[0]}); give"
            " every image a split"
        )
    if "identity" in columns and "identity" in table:
        columns["identity"], told = merge_identities(table["identity"], columns["identity"])
        notes += told + two_names(columns["identity"])
    for name in labels.others:
        left.add(
            labels.path.name, f"column {name} is no label of this kit; kept as text, and read by nothing"
        )
    kept = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([kept, columns], axis=1), counts, notes


def merge_identities(folders: pd.Series, given: pd.Series) -> tuple[pd.Series, list[str]]:
    """Whom each image shows by the table, else by its folder, so that one person has one name; and what was decided."""
    both = pd.DataFrame({"folder": folders, "given": given}, dtype=object)
    names = both.dropna().groupby("folder")["given"].unique()
    one = {folder: found[0] for folder, found in names.items() if len(found) == 1}
    several = {folder for folder, found in names.items() if len(found) > 1}
    other = both["folder"].map(lambda folder: None if folder in several else one.get(folder, folder))
    missing = both["given"].isna()
    identity = both["given"].where(~missing, other).astype(object)
    identity = identity.where(identity.notna(), None)
    if not missing.any():
        return identity, []
    kept, unknown = int((missing & identity.notna()).sum()), int((missing & identity.isna()).sum())
    told = f"column identity is silent on {int(missing.sum())} images: {kept} keep the person of their folder"
    return identity, [told + (f", who is on {unknown} is not known" if unknown else "")]


def read(root: Path, options: argparse.Namespace) -> Listing:
    """All images below `root`, with the labels and pairs that the command line gives."""
    files, left = find_files(root)
    videos, _ = find_files(root, VIDEO_SUFFIXES)
    left.extend(videos, "a video; only pictures are read here (prepare_voxceleb.py reads face tracks)")
    if not files:
        raise BadInput(
            f"there are no images in {root} (looked for {' '.join(SUFFIXES)}){first_reason(left.frame())}"
            f"{still_packed(root)}"
        )
    people = find_people(files, options.identity_from, options.identity_level)
    table = pd.DataFrame({"file": files, "identity": people.identity}, dtype=object)
    extra: dict[str, Any] = {}
    notes = [people.sentence, *people.notes, split_folders(people.split), others(root, options)]
    if options.labels:
        table = _labelled(table, options, left, notes, extra)
    if unknown := set(options.pseudo) - set(table):
        raise BadInput(f"--pseudo names {min(unknown)}, but the labels have no such column")
    table = table.dropna(axis="columns", how="all")
    if options.split in ("official", "identity") or (options.split is None and "split" not in table):
        table = of_known_people(table, left)
    pairs = _located(table, root, options, left, extra) if options.pairs else None
    split = choose_split(table, pairs, options.split, options.test_folds)
    if split is not None:
        table["split"] = split
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
        table=table,
        pairs=pairs,
        left_out=left.frame(),
        recipe=Recipe("as_is", -options.crop),
        pseudo=options.pseudo,
        notes=[note for note in notes if note],
        extra=extra,
    )


def _labelled(
    table: pd.DataFrame, options: argparse.Namespace, left: LeftOut, notes: list[str], extra: dict[str, Any]
) -> pd.DataFrame:
    """The table with the columns of --labels; what is to be told goes to `notes`, the counts to `extra`."""
    labels = read_labels(options.labels)
    table, counts, told = add_labels(table, labels, left)
    extra["labels"] = counts
    missed = (
        f"Images without labels: {counts['images_without_labels']};"
        f" labels without an image: {counts['labels_without_image']}"
    )
    notes += [*told, *labels.notes, missed]
    return table


def _located(
    table: pd.DataFrame, root: Path, options: argparse.Namespace, left: LeftOut, extra: dict[str, Any]
) -> pd.DataFrame:
    """The pairs of --pairs whose images are both there; the others are left out, the counts go to `extra`."""
    listed, announced = read_pairs(options.pairs)
    pairs = locate_pairs(listed, table["file"])
    left.extend(unlocated(listed, table["file"]), f"{options.pairs.name} names it, but it is not there")
    if pairs.empty:
        raise BadInput(f"{options.pairs}: none of its {len(listed)} pairs has both images in {root}")
    extra["pairs"] = {"announced": announced, "listed": len(listed)}
    return pairs


def split_folders(splits: Sequence[str | None]) -> str:
    """A sentence where folders are called train, test and the like: they are not taken for splits. Else ""."""
    names = sorted({split for split in splits if split})
    if not names:
        return ""
    return (
        f"folders called {', '.join(names)} are neither people nor splits here: people are split anew, so that"
        " nobody is in two; a column split of --labels keeps them"
    )


def others(root: Path, options: argparse.Namespace) -> str:
    """A sentence on files that nobody looks at, by suffix; "" where there are none."""
    counts = other_files(root)
    for path in (options.labels, options.pairs):
        suffix = path.suffix.lower() if path else None
        if path and suffix in counts and path.resolve().is_relative_to(root.resolve()):
            counts[suffix] -= 1
    told = [f"{count} {suffix or 'without a suffix'}" for suffix, count in counts.items() if count]
    return f"Files that are no pictures, not looked at: {', '.join(told)}" if told else ""


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
    add(
        "--identity-from",
        choices=("folder", "parent", "name", "image", "none"),
        default="folder",
        help=IDENTITY_HELP,
    )
    add("--identity-level", type=int, metavar="N", help="the folder level that is people, 1 the first below ROOT, "
        "where the names do not tell")  # fmt: skip
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
        check_range(options, "identity_level", 1, 100)
        return read(root, options)

    run(checked, parser(), arguments)


if __name__ == "__main__":
    exit_cleanly(main)
