"""DISFA's left videos, or frames of them, and its action units -> a prepared folder. More: --help."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pandas as pd

from data_scripts import official
from data_scripts.catalogue import DISFA
from data_scripts.listing import LeftOut, Listing, Recipe
from data_scripts.sources import VIDEO_SUFFIXES, find_files, inside, next_to
from pcl_lib.data.labels import AU_NAMES, PAPER_UNITS, hashed_split
from pcl_lib.utils import BadInput, exit_cleanly

# Subject-exclusive thirds as the literature on 8 AUs uses them (first in JAA-Net), so that figures can be compared.
FOLDS = (
    ("SN001", "SN002", "SN009", "SN010", "SN016", "SN026", "SN027", "SN030", "SN032"),
    ("SN006", "SN011", "SN012", "SN013", "SN018", "SN021", "SN024", "SN028", "SN031"),
    ("SN003", "SN004", "SN005", "SN007", "SN008", "SN017", "SN023", "SN025", "SN029"),
)
FOLD_OF = {subject: fold for fold, subjects in enumerate(FOLDS) for subject in subjects}
SUBJECT = re.compile(r"SN\d{3}", re.IGNORECASE)
RIGHT = re.compile(r"right_?(video|camera)", re.IGNORECASE)
NUMBER = re.compile(r"(\d+)\.[A-Za-z]+$")
MARGIN = 0.1  # about the face that the detector finds


def read_unit(path: Path, root: Path, left: LeftOut) -> pd.Series:
    """Intensity by frame number of one SNxxx_auK.txt; bad lines go to `left`, their frames stay without a value."""
    found: dict[int, float] = {}
    told = official.relative(path, root)
    for line, text, words in official.read_lines(path, 'lines "frame,intensity" of DISFA'):
        frame, value = words if len(words) == 2 else ("", "")
        if not frame.isdecimal() or not value.isdecimal() or int(value) > 5:
            left.add(told, f'"{text[:60]}" is not a frame and an intensity from 0 to 5', line)
        elif int(frame) in found:
            left.add(told, f"frame {frame} is listed before; the first counts", line)
        else:
            found[int(frame)] = float(value)
    if not found:
        raise BadInput(
            f'{path} has no line "frame,intensity" with an intensity from 0 to 5; take DISFA\'s own file'
        )
    return pd.Series(found, dtype=float)


def read_units(folder: Path, root: Path, left: LeftOut) -> pd.DataFrame:
    """A column an action unit, a row a frame (index: its number as written) of one subject."""
    units, subject = {}, folder.name.upper()
    for name in AU_NAMES:
        path = next_to(root, f"{official.relative(folder, root)}/{folder.name}_au{int(name[2:])}.txt")
        if path.is_file():
            units[name] = read_unit(path, root, left)
        else:
            left.add(official.relative(path, root), f"is missing: {subject} is without {name}")
    table = pd.DataFrame(units, columns=list(AU_NAMES), dtype=float)
    return table.rename_axis("frame").sort_index()


def from_one(labels: dict[str, pd.DataFrame]) -> tuple[dict[str, pd.DataFrame], str]:
    """The labels with frames numbered from 1, decided over all subjects; and what was decided, "" for as published.

    Raises BadInput where one label of a subject has a frame 0 and the last frame shows that another counts from 1.
    """
    if not any(0 in table.index for table in labels.values()):
        return labels, ""
    for subject, table in labels.items():
        last = table.apply(lambda column: column.last_valid_index())
        zero = table.loc[0].notna() if 0 in table.index else pd.Series(False, index=table.columns)
        if zero.any() and (last[~zero] > last[zero].max()).any():
            raise BadInput(
                f"the labels of {subject} count frames from 0 in some files and from 1 in others; take DISFA's own"
            )
    shifted = {subject: table.set_axis(table.index + 1) for subject, table in labels.items()}
    return shifted, "the label files count frames from 0, where DISFA's count from 1: 1 is added throughout"


def find_frames(root: Path, left: LeftOut) -> dict[str, dict[int, str]]:
    """Number -> file, for each subject of whom there are frames as images; right cameras are not looked at."""
    found: dict[str, dict[int, str]] = {}
    for file in official.images(root, left):
        subject, number = SUBJECT.search(file), NUMBER.search(file)
        if subject and number and not RIGHT.search(file):
            frames = found.setdefault(subject[0].upper(), {})
            if int(number[1]) in frames:
                left.add(file, f"is frame {int(number[1])} of {subject[0]}, as is {frames[int(number[1])]}")
            else:
                frames[int(number[1])] = file
    return found


def align_frames(
    frames: dict[str, dict[int, str]], labels: dict[str, pd.DataFrame], left: LeftOut
) -> tuple[dict[str, dict[int, str]], str]:
    """Pictures by the frame of their label, which count from 1; and where the numbers of pictures were found to begin.

    A picture 0 proves that a subject's are numbered from 0, a picture with the number of the last label that they are
    numbered from 1. What is proven of all that prove anything holds for the set; where subjects differ, each is taken
    as it proves, and those that prove nothing are left out. Raises BadInput where one subject proves both.
    """
    start: dict[str, int | None] = {}
    for subject, found in frames.items():
        last = int(labels[subject].index.max()) if len(labels.get(subject, ())) else None
        proofs = {0: 0 in found, 1: last is not None and max(found, default=0) >= last}
        if all(proofs.values()):
            raise BadInput(
                f"{subject} has pictures 0 to {max(found)} for labels of frames 1 to {last}: it cannot be told which is"
                " which; number the pictures from 1"
            )
        start[subject] = next((first for first, proven in proofs.items() if proven), None)
    proven = {first for first in start.values() if first is not None}
    if not proven:
        return frames, "pictures are taken to be numbered from 1, as labels are: nothing shows otherwise"
    aligned = {}
    for subject, found in frames.items():
        first = start[subject] if len(proven) > 1 else min(proven)
        if first is None:
            left.add(
                subject, "others' pictures are numbered from 0 or from 1; nothing shows which holds here"
            )
        else:
            aligned[subject] = {number + 1 - first: file for number, file in found.items()}
    if len(proven) == 1:
        showing = sum(first is not None for first in start.values())
        return (
            aligned,
            f"pictures are numbered from {min(proven)} in all subjects, as {showing} of {len(start)} show",
        )
    who = (
        f"{first} in {', '.join(s for s in sorted(start) if start[s] == first)}" for first in sorted(proven)
    )
    return aligned, "pictures are numbered from " + " and from ".join(who)


def find_videos(root: Path, left: LeftOut) -> dict[str, str]:
    """The left video of each subject."""
    files, _ = find_files(root, VIDEO_SUFFIXES)
    found: dict[str, str] = {}
    for file in files:
        subject = re.search(r"LeftVideo(SN\d{3})", file, re.IGNORECASE)
        if subject and subject[1].upper() in found:
            left.add(file, f"is a second left video of {subject[1]}; {found[subject[1].upper()]} counts")
        elif subject:
            found[subject[1].upper()] = file
    return found


def video_frames(root: Path, file: str, numbers: Sequence[int], left: LeftOut) -> dict[int, str]:
    """Frame number -> "FILE#t=SECONDS" by the video's own rate; nothing, with the reason, where it has none."""
    try:
        with av.open(str(inside(root, file))) as video:
            rate = video.streams.video[0].average_rate if video.streams.video else None
    except (av.FFmpegError, OSError, BadInput) as error:
        left.add(file, f"cannot be opened ({error})")
        return {}
    if not rate:
        left.add(file, "does not say how many frames a second it has")
        return {}
    return {number: f"{file}#t={float((number - 1) / rate):.9g}" for number in numbers}


def one_subject(
    subject: str,
    units: pd.DataFrame,
    root: Path,
    frames: dict[int, str] | None,
    video: str | None,
    every: int,
    left: LeftOut,
) -> pd.DataFrame:
    """Rows of one subject: file, identity, fold and action units of every `every`th labelled frame that is there."""
    units = units.iloc[::every]
    if frames is None and video:
        frames = video_frames(root, video, units.index.to_list(), left)
    elif frames is None:
        left.add(subject, "has labels, but neither a left video nor frames")
    table = units.assign(file=units.index.map(frames or {}), identity=subject, fold=FOLD_OF[subject])
    lost = table["file"].isna()
    if frames and lost.any():
        left.add(subject, f"{lost.sum()} labelled frames are not there (the first is frame {lost.idxmax()})")
    return table.dropna(subset="file").reset_index(drop=True)


def read_all_units(root: Path, left: LeftOut) -> dict[str, pd.DataFrame]:
    """The labels of each of DISFA's subjects that has a folder of them."""
    found = {}
    for folder in sorted((root / "ActionUnit_Labels").iterdir()):
        if folder.is_dir() and folder.name.upper() in FOLD_OF:
            found[folder.name.upper()] = read_units(folder, root, left)
        elif folder.is_dir():
            left.add(official.relative(folder, root), "is not one of DISFA's 27 subjects")
    left.extend(sorted(set(FOLD_OF) - set(found)), "has no folder of labels")
    return found


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Frames with the intensities of 12 action units; one fold of people is test, 15% of the others validation."""
    left = LeftOut()
    if not (root / "ActionUnit_Labels").is_dir():
        raise BadInput(
            f"{root} has no folder ActionUnit_Labels; give the folder of the whole download of"
            f" DISFA{official.still_packed(root)}"
        )
    frames, videos = find_frames(root, left), find_videos(root, left)
    labels, renumbered = from_one(read_all_units(root, left))
    told = ""
    if frames:
        given = {subject: found for subject, found in frames.items() if subject in labels}
        frames, told = align_frames(given, labels, left)
        labels = {s: units for s, units in labels.items() if s in frames or s not in given}
    parts = [
        one_subject(subject, units, root, frames.get(subject), videos.get(subject), options.every, left)
        for subject, units in labels.items()
    ]
    if not any(len(part) for part in parts):
        raise BadInput(
            f"{root} has no labelled frame: labels of {len(parts)} subjects, {len(videos)} left videos,"
            f" frames of {len(frames)}{official.still_packed(root)}"
        )
    table = pd.concat(parts, ignore_index=True)
    table["split"] = split_by_fold(table, options.test_fold)
    return Listing(
        name="DISFA",
        source=f"DISFA, left camera, every {options.every}. frame",
        licence=DISFA.licence,
        root=root,
        table=table,
        left_out=left.frame(),
        recipe=Recipe("detect", margin=MARGIN),
        notes=[
            f"{table['identity'].nunique()} people (by the names of files and folders)",
            *[sentence for sentence in (renumbered, told) if sentence],
            f"test is fold {options.test_fold} of 3 (--test-fold); validation is 15% of the other people",
            "faces are looked for in each frame; for frames that are face crops already, use --align none",
            "the paper probes " + ", ".join(PAPER_UNITS) + "; all 12 are here",
        ],
        extra={"paper_units": list(PAPER_UNITS)},
    )


def split_by_fold(table: pd.DataFrame, test_fold: int) -> np.ndarray:
    """test for one fold, and the others' people split by a hash of their name."""
    split = np.full(len(table), "test", dtype=object)
    others = (table["fold"] != test_fold).to_numpy()
    if table["identity"][others].nunique() > 1:
        split[others] = hashed_split(table[others], (official.VALIDATION, 0.0))
    else:
        split[others] = "train"
    return split


def add_options(parser: argparse.ArgumentParser) -> None:
    """What this script takes besides the common options."""
    add = parser.add_argument
    add("--test-fold", type=int, choices=range(3), default=2, help="the fold of people that is test (2)")
    add(
        "--every",
        type=official.positive,
        default=1,
        help="keep every Nth labelled frame of each subject (1: all)",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    official.run(DISFA, read, arguments, add_options)


if __name__ == "__main__":
    exit_cleanly(main)
