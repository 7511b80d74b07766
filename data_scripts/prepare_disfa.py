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
from data_scripts.sources import VIDEO_SUFFIXES, find_files, inside
from pcl_lib.data.labels import AU_NAMES, PAPER_UNITS, hashed_split
from pcl_lib.utils import BadInput, exit_cleanly

# Subject-exclusive thirds as the literature on 8 AUs uses them (first in JAA-Net), so that figures can be compared.
FOLDS = (
    ("SN001", "SN002", "SN009", "SN010", "SN016", "SN026", "SN027", "SN030", "SN032"),
    ("SN006", "SN011", "SN012", "SN013", "SN018", "SN021", "SN024", "SN028", "SN031"),
    ("SN003", "SN004", "SN005", "SN007", "SN008", "SN017", "SN023", "SN025", "SN029"),
)
FOLD_OF = {subject: fold for fold, subjects in enumerate(FOLDS) for subject in subjects}
SUBJECT = re.compile(r"SN\d{3}")
RIGHT = re.compile(r"right_?(video|camera)", re.IGNORECASE)
NUMBER = re.compile(r"(\d+)\.[A-Za-z]+$")
MARGIN = 0.1  # about the face that the detector finds


def read_unit(path: Path, root: Path, left: LeftOut) -> pd.Series:
    """Intensity by frame number of one SNxxx_auK.txt; bad lines go to `left`, their frames stay without a value."""
    found: dict[int, float] = {}
    lines = official.read_lines(path, 'lines "frame,intensity" of DISFA')
    told = official.relative(path, root)
    for row, words in enumerate(lines):
        if not words:
            continue
        frame, _, value = "".join(words).partition(",")
        if not frame.isdecimal() or not value.isdecimal() or int(value) > 5:
            left.add(told, f'"{" ".join(words)[:60]}" is not a frame and an intensity from 0 to 5', row)
        elif int(frame) in found:
            left.add(told, f"frame {frame} is listed before; the first counts", row)
        else:
            found[int(frame)] = float(value)
    if not found:
        raise BadInput(
            f'{path} has no line "frame,intensity" with an intensity from 0 to 5; take DISFA\'s own file'
        )
    return pd.Series(found, dtype=float)


def read_units(folder: Path, root: Path, left: LeftOut) -> pd.DataFrame:
    """A column an action unit, a row a frame (index: its number, from 1) of one subject."""
    units = {}
    for name in AU_NAMES:
        path = folder / f"{folder.name}_au{int(name[2:])}.txt"
        if path.is_file():
            units[name] = read_unit(path, root, left)
        else:
            left.add(official.relative(path, root), f"is missing: {folder.name} is without {name}")
    table = pd.DataFrame(units, columns=list(AU_NAMES), dtype=float)
    return table.rename_axis("frame").sort_index()


def find_frames(root: Path, left: LeftOut) -> dict[str, dict[int, str]]:
    """Frame number -> file, for each subject of whom there are frames as images; right cameras are not looked at."""
    found: dict[str, dict[int, str]] = {}
    for file in official.images(root, left):
        subject, number = SUBJECT.search(file), NUMBER.search(file)
        if subject and number and not RIGHT.search(file):
            frames = found.setdefault(subject[0], {})
            if int(number[1]) in frames:
                left.add(file, f"is frame {int(number[1])} of {subject[0]}, as is {frames[int(number[1])]}")
            else:
                frames[int(number[1])] = file
    for frames in found.values():
        if 0 in frames:  # numbered from 0: the labels count from 1
            shifted = {number + 1: file for number, file in frames.items()}
            frames.clear()
            frames.update(shifted)
    return found


def find_videos(root: Path, left: LeftOut) -> dict[str, str]:
    """The left video of each subject."""
    files, _ = find_files(root, VIDEO_SUFFIXES)
    found: dict[str, str] = {}
    for file in files:
        subject = re.search(r"LeftVideo(SN\d{3})", file)
        if subject and subject[1] in found:
            left.add(file, f"is a second left video of {subject[1]}; {found[subject[1]]} counts")
        elif subject:
            found[subject[1]] = file
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
    folder: Path, root: Path, frames: dict[int, str], video: str | None, every: int, left: LeftOut
) -> pd.DataFrame:
    """Rows of one subject: file, identity, fold and action units of every `every`th labelled frame that is there."""
    units = read_units(folder, root, left).iloc[::every]
    if not frames and video:
        frames = video_frames(root, video, units.index.to_list(), left)
    elif not frames:
        left.add(folder.name, "has labels, but neither a left video nor frames")
    table = units.assign(file=units.index.map(frames), identity=folder.name, fold=FOLD_OF[folder.name])
    lost = table["file"].isna()
    if frames and lost.any():
        left.add(
            folder.name, f"{lost.sum()} labelled frames are not there (the first is frame {lost.idxmax()})"
        )
    return table.dropna(subset="file").reset_index(drop=True)


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Frames with the intensities of 12 action units; one fold of people is test, 15% of the others validation."""
    left = LeftOut()
    labels = root / "ActionUnit_Labels"
    if not labels.is_dir():
        raise BadInput(
            f"{root} has no folder ActionUnit_Labels; give the folder of the whole download of DISFA"
        )
    frames, videos = find_frames(root, left), find_videos(root, left)
    parts = []
    for folder in sorted(labels.iterdir()):
        if folder.is_dir() and folder.name in FOLD_OF:
            have = frames.get(folder.name, {}), videos.get(folder.name)
            parts.append(one_subject(folder, root, *have, options.every, left))
        elif folder.is_dir():
            left.add(official.relative(folder, root), "is not one of DISFA's 27 subjects")
    left.extend(sorted(set(FOLD_OF) - {path.name for path in labels.iterdir()}), "has no folder of labels")
    if not any(len(part) for part in parts):
        raise BadInput(
            f"{root} has no labelled frame: labels of {len(parts)} subjects, {len(videos)} left videos,"
            f" frames of {len(frames)}"
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
    """What this script takes beside the common options."""
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
