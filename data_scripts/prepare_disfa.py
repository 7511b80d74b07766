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
from data_scripts.listing import LeftOut, Listing, Recipe, first_reason
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
RIGHT = re.compile(r"right_?(video|cam)|(?<![a-z])right(?![a-z])", re.IGNORECASE)
NUMBER = re.compile(r"(?<!\d)(?<!SN)(\d+)\.[A-Z]+$", re.IGNORECASE)  # SN001.png is no frame 1
RATE = 20.0  # frames a second of DISFA's own videos
SLACK = 0.02  # by how much, as a share, pictures or frames of a video may be more or fewer than labels
ALL = 0.95  # share of the numbers up to the last from which on pictures are every frame, not some
SHORT = 0.9  # of the last label: where every frame ends before it, the frames are of another rate, or half are lost
FEW = 20  # intensities, of which too few tell nothing
MARGIN = 0.1  # about the face that the detector finds


def read_unit(path: Path, root: Path, left: LeftOut) -> pd.Series:
    """Intensity by frame number of one SNxxx_auK.txt; bad lines go to `left`, their frames stay without a value.

    Raises BadInput where most lines are bad: what is left of columns that changed places is no label.
    """
    found: dict[int, float] = {}
    wrong = 0
    told = official.relative(path, root)
    for line, text, words in official.read_lines(path, 'lines "frame,intensity" of DISFA'):
        frame, value = words if len(words) == 2 else ("", "")
        if not frame.isdecimal() or not value.isdecimal() or int(value) > 5:
            left.add(told, f'"{text[:60]}" is not a frame and an intensity from 0 to 5', line)
            wrong += 1
        elif int(frame) in found:
            left.add(told, f"frame {frame} is listed before; the first counts", line)
            wrong += 1
        else:
            found[int(frame)] = float(value)
    if not found:
        raise BadInput(
            f'{path} has no line "frame,intensity" with an intensity from 0 to 5; take DISFA\'s own file'
        )
    if wrong > len(found):
        raise BadInput(
            f'{path}: {wrong} lines are not "frame,intensity", each frame once, and {len(found)} are; take DISFA\'s own'
            " file"
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

    Raises BadInput where a frame 0 is in few files of a subject or in files of some subjects alone, and where the last
    frame shows that another file counts from 1.
    """
    if not any(0 in table.index for table in labels.values()):
        return labels, ""
    for subject, table in labels.items():
        given = table.dropna(axis="columns", how="all")
        last = given.apply(lambda column: column.last_valid_index())
        zero = given.loc[0].notna() if 0 in given.index else pd.Series(False, index=given.columns)
        if zero.any() and (zero.mean() <= 0.5 or (last[~zero] > last[zero].max()).any()):
            raise BadInput(
                f"the labels of {subject} count frames from 0 in some files and from 1 in others, such as"
                f" {zero.idxmax()} from 0; take DISFA's own"
            )
        if len(given) and not zero.any():
            others = next(name for name, other in labels.items() if 0 in other.index)
            raise BadInput(
                f"the labels of {others} count frames from 0, those of {subject} do not; take DISFA's own label files"
            )
    shifted = {subject: table.set_axis(table.index + 1) for subject, table in labels.items()}
    return shifted, "the label files count frames from 0, where DISFA's count from 1: 1 is added throughout"


def find_frames(root: Path, left: LeftOut) -> dict[str, dict[int, str]]:
    """Number -> file, for each subject of whom there are frames as images; right cameras are not looked at."""
    found: dict[str, dict[int, str]] = {}
    right = 0
    for file in official.images(root, left):
        subject, number = SUBJECT.search(file), NUMBER.search(file)
        if RIGHT.search(file):
            right += 1
        elif not subject or not number:
            left.add(
                file, "its path has no subject such as SN001, or its name does not end in a frame's number"
            )
        else:
            frames = found.setdefault(subject[0].upper(), {})
            if int(number[1]) in frames:
                left.add(file, f"is frame {int(number[1])} of {subject[0]}, as is {frames[int(number[1])]}")
            else:
                frames[int(number[1])] = file
    if right:
        left.add("right camera", f"{right} images; those of the left camera are the labelled ones")
    return found


def of_every_frame(
    frames: dict[str, dict[int, str]], labels: dict[str, pd.DataFrame], left: LeftOut
) -> dict[str, dict[int, str]]:
    """`frames` of subjects whose pictures end where their labels do; the others go to `left`.

    Pictures beyond the last label, or all of them well before it, are of another frame rate: their numbers are not
    those of the labels. Raises BadInput where this is so in most subjects.
    """
    kept, odd = {}, []
    for subject, found in frames.items():
        end, last = max(found), int(labels[subject].index.max()) if len(labels[subject]) else 0
        every = len(found) >= ALL * (end - min(found) + 1)
        if last and (end > last + max(2, SLACK * last) or (every and end < SHORT * last)):
            odd.append(f"pictures are numbered to {end}, labels to {last}")
            left.add(subject, f"{odd[-1]}: not every frame of the video, numbered as the labels are")
        else:
            kept[subject] = found
    if len(odd) * 2 > len(frames):
        raise BadInput(
            f"{odd[0]} in {len(odd)} of {len(frames)} subjects: taken from the videos at another rate; take every frame"
            " (or delete the labels beyond the pictures, where these are the first frames alone)"
        )
    return kept


def check_intensities(labels: dict[str, pd.DataFrame], root: Path) -> None:
    """Raise BadInput where labels say no more than whether a unit is there: as intensities all would be too low."""
    values = np.concatenate([table.to_numpy(float).ravel() for table in labels.values()] or [np.empty(0)])
    values = values[np.isfinite(values)]
    if len(values) >= FEW and values.max() == 1:
        raise BadInput(
            f"{root}: no intensity is above 1, where DISFA's go from 0 to 5: these labels say presence alone, where 1"
            " of 5 counts as absent; take DISFA's own label files"
        )


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


def video_frames(root: Path, file: str, numbers: Sequence[int], last: int, left: LeftOut) -> dict[int, str]:
    """Frame number -> "FILE#n=NUMBER" (from 0); nothing, with the reason, where the video has no rate.

    Nor where it has been encoded anew with more or fewer frames than there are labels (to frame `last`).
    """
    count = 0
    try:
        with av.open(str(inside(root, file))) as video:
            stream = video.streams.video[0] if video.streams.video else None
            rate = stream.average_rate if stream else None
            if stream and rate:
                count = stream.frames or round((video.duration or 0) / av.time_base * rate)
    except (av.FFmpegError, OSError, BadInput) as error:
        left.add(file, f"cannot be opened ({error})")
        return {}
    if not rate:
        left.add(file, "does not say how many frames a second it has")
        return {}
    if count and abs(count - last) > max(2, SLACK * last) and abs(rate - RATE) > SLACK * RATE:
        left.add(
            file,
            f"has {count} frames, {float(rate):g} a second, for labels of frames 1 to {last}: encoded anew at another"
            f" rate than DISFA's {RATE:g}; take its own video",
        )
        return {}
    return {number: f"{file}#n={number - 1}" for number in numbers}


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
    last = int(units.index.max()) if len(units) else 0
    units = units.iloc[::every]
    if frames is None and video:
        frames = video_frames(root, video, units.index.to_list(), last, left)
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
    for folder in sorted(next_to(root, "ActionUnit_Labels").iterdir()):
        if folder.is_dir() and folder.name.upper() in FOLD_OF:
            found[folder.name.upper()] = read_units(folder, root, left)
        elif folder.is_dir():
            left.add(official.relative(folder, root), "is not one of DISFA's 27 subjects")
    return found


def read(root: Path, options: argparse.Namespace) -> Listing:
    """Frames with the intensities of 12 action units; one fold of people is test, 15% of the others validation."""
    left = LeftOut()
    if not next_to(root, "ActionUnit_Labels").is_dir():
        raise BadInput(
            f"{root} has no folder ActionUnit_Labels; give the folder of the whole download of"
            f" DISFA{official.still_packed(root)}"
        )
    frames, videos = find_frames(root, left), find_videos(root, left)
    labels, renumbered = from_one(read_all_units(root, left))
    check_intensities(labels, root)
    told, read_from = "", set(labels)
    if frames:
        given = {subject: found for subject, found in frames.items() if subject in labels}
        left.extend(sorted(set(frames) - set(given)), "has pictures, but no labels")
        frames, told = align_frames(given, labels, left)
        frames = of_every_frame(frames, labels, left)
        labels = {s: units for s, units in labels.items() if s in frames or s not in given}
    parts = [
        one_subject(subject, units, root, frames.get(subject), videos.get(subject), options.every, left)
        for subject, units in labels.items()
    ]
    if not any(len(part) for part in parts):
        raise BadInput(
            f"{root} has no labelled frame: labels of {len(parts)} subjects, {len(videos)} left videos,"
            f" frames of {len(frames)}{first_reason(left.frame())}{official.still_packed(root)}"
        )
    left.extend(sorted(set(FOLD_OF) - read_from), "has no folder of labels")
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
