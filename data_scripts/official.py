"""What the readers of official layouts share: finding their files, matching rows to images, holding some train out."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from data_scripts import prepare
from data_scripts.catalogue import DataSet, folders
from data_scripts.listing import LeftOut, Listing
from data_scripts.names import plain
from data_scripts.sources import archives_below, find_files, inside, is_archive, unpack_folder
from data_scripts.splits import VALIDATION, hold_out
from data_scripts.tables import read_lines
from pcl_lib.utils import BadInput

__all__ = ["VALIDATION", "hold_out", "plain", "read_lines"]

COMPARED = ("images", "identities", "pairs")  # with the published counts; splits may differ by our validation
WIDEST = 6  # words of a line that can still be a name, a value and something added
WHOLE = 0.05  # by how much, as a share, the images of a whole set may be fewer or more than published
OFTEN = 0.2  # the same of one class
ODD = 0.1  # share of pairs that the names may contradict: slips of the pen; more is another list


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

    def placed(root: Path, options: argparse.Namespace) -> Listing:
        packed = is_archive(options.root)
        place = locate(entry, unpack_folder(options.out) if packed else root) or root
        listing = read(place, options)
        if place != root and not packed:
            listing.notes.insert(0, f"the set lies in {relative(place, root)} of what was given")
        return listing

    record = prepare.run(placed, parser, arguments)
    counts = record["counts"]
    told = [
        f"{counts[name]:,} of {whole:,} {name}"
        for name, whole in entry.expected.items()
        if name in COMPARED and name in counts
    ]
    print(f"Of the whole {entry.name}: {', '.join(told)}.")
    return record


def locate(entry: DataSet, root: Path) -> Path | None:
    """`root`, or the one folder below it that holds the set where `root` itself does not look like it; or None.

    Raises BadInput where several folders do; where none does, the set's reader says what is missing.
    """
    if not root.is_dir() or entry.is_in(root):
        return root
    found = [place for place in folders(root) if place.is_dir() and entry.is_in(place)]
    outer = [
        place for place in found if not any(place.is_relative_to(other) for other in found if other != place)
    ]
    if len(outer) > 1 and not entry.many:
        told = ", ".join(relative(place, root) for place in outer)
        raise BadInput(f"{root} holds {entry.name} {len(outer)} times, in {told}; give one of these folders")
    return outer[0] if len(outer) == 1 else None


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
    path: Path, what: str, left: LeftOut, root: Path, values: Sequence[str]
) -> list[tuple[int, str, str]]:
    """Line (from 1), name and value of each line "name value" or "name,value"; further columns are said, not read.

    Lines of another form are left out with the reason; a header (a first line whose name has no suffix, and whose
    value is no number) is passed over; the first of several lines on one name counts. values: what the second of
    three or more columns can be called. Raises BadInput where it is called otherwise, or most lines have another form.
    """
    lines = read_lines(path, what)
    told, wrong, more = relative(path, root), 0, 0
    seen: dict[str, int] = {}
    found = []
    for place, (number, text, words) in enumerate(lines):
        if place == 0 and len(words) >= 2 and "." not in words[0] and not words[1].isdecimal():
            if len(words) > 2 and len(lines) > 1 and words[1].lower() not in values:
                raise BadInput(
                    f"{path}, line {number}: the second column is {words[1]}, where {values[0]} is wanted; give {what}"
                    " with a name and that column alone"
                )
            continue
        if len(words) < 2 or (len(words) > WIDEST):
            left.add(told, f'"{text[:60]}" is not a name and a value', number)
            wrong += 1
        elif words[0] in seen:
            left.add(told, f"{words[0]} is listed in line {seen[words[0]]} already", number)
        else:
            more += len(words) > 2
            seen[words[0]] = number
            found.append((number, words[0], words[1]))
    if wrong > len(found):
        raise BadInput(
            f"{path} is not {what}: {wrong} lines are not a name and a value; take the set's own file"
        )
    if more:
        left.add(told, f"{more} lines have a third column or more, which is not read")
    return found


def relative(path: Path, root: Path) -> str:
    """How `path` is called in reports and in the column file: below `root` where it is, else in full."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


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


def by_stem(files: dict[str, str]) -> dict[str, str]:
    """File name in small letters and without suffix -> path, where one file alone has it."""
    stems: dict[str, list[str]] = {}
    for name, path in files.items():
        stems.setdefault(stem_of(name), []).append(path)
    return {stem: paths[0] for stem, paths in stems.items() if len(paths) == 1}


def stem_of(name: str) -> str:
    """A file's name without folders and suffix, in small letters: what is compared where suffixes were changed."""
    return plain(name.rsplit("/", 1)[-1]).rsplit(".", 1)[0].casefold()


def match(
    labels: pd.DataFrame, files: Iterable[str], label_file: str, left: LeftOut, what: str, root: Path
) -> pd.DataFrame:
    """Rows of `labels` whose image is there, with `file` set to its path, in the order of the labels.

    labels: name (the image's file name), line (of the label file), and labels. Names are compared as they stand, then
    without suffix and capitals. Rows without an image and images without a row go to `left`. Raises BadInput where no
    row names an image: a label file of another set.
    """
    at = places(files, left)
    stems = by_stem(at)
    exact = labels["name"].map(plain).map(at)
    loose = labels["name"].map(stem_of).map(stems)
    paths = exact.where(exact.notna(), loose.where(~loose.isin(set(exact.dropna()))))
    found = labels.assign(file=paths).dropna(subset="file")
    if not len(found):
        first = labels["name"].iloc[0] if len(labels) else "none"
        raise BadInput(
            f"{label_file}: none of its {len(labels)} rows names one of the {len(at)} images found (the first is"
            f" {first}); give {what} and the images it belongs to{still_packed(root)}"
        )
    again = found["file"].duplicated()
    for line, name in zip(found["line"][again], found["name"][again], strict=True):
        left.add(label_file, f"{name} is an image that another line names", int(line))
    for line, name in zip(labels["line"][paths.isna()], labels["name"][paths.isna()], strict=True):
        left.add(label_file, f"{name} is not among the images", int(line))
    left.extend(sorted(set(at.values()) - set(found["file"])), f"no row of {label_file} names it")
    columns = ["file", *(name for name in labels if name not in ("name", "line"))]
    return found[~again][columns].reset_index(drop=True)


def check_counts(counts: Mapping[str, int], published: Mapping[str, int], where: str, wanted: str) -> None:
    """Raise BadInput where the numbers of the classes stand for others than the set's own, as their counts show.

    counts, published: images a class. Decided where the set is nearly whole; a part of it may have any counts. One
    class may differ, for it can be lost; two that do have changed places. wanted: what to do.
    """
    have, whole = sum(counts.values()), sum(published.values())
    if abs(have - whole) > WHOLE * whole:
        return
    odd = [name for name, count in published.items() if abs(counts.get(name, 0) - count) > OFTEN * count]
    if len(odd) > 1:
        told = ", ".join(f"{counts.get(name, 0):,} of {name} for {published[name]:,}" for name in odd)
        raise BadInput(
            f"{where}: the whole set is here, but with {told} as published: somebody has numbered the classes in"
            f" another order; {wanted}"
        )


def agreeing(
    pairs: pd.DataFrame, identity: pd.Series, files: pd.Series, path: Path, left: LeftOut
) -> pd.DataFrame:
    """`pairs` without those whose names contradict them: one person called two, or two called one; those go to `left`.

    identity, files: of the rows that the pairs name. Raises BadInput where many do: lines of the list `path` are lost
    or moved.
    """
    first, second = pairs["first"].to_numpy(), pairs["second"].to_numpy()
    people = identity.astype(str).map(plain).to_numpy()
    one = people[first] == people[second]
    wrong = one != pairs["same"].to_numpy()
    names = files.str.rsplit("/", n=1).str[-1].to_numpy()
    told = [f"{names[a]} and {names[b]}" for a, b in zip(first[wrong], second[wrong], strict=True)]
    kinds = ["two people" if known else "one person" for known in one[wrong]]
    if len(told) > ODD * len(pairs):
        raise BadInput(
            f"{path}: {len(told)} of {len(pairs)} pairs contradict their names, such as {told[0]} for {kinds[0]}: lines"
            " are lost or moved; take the set's own file"
        )
    for both, kind in zip(told, kinds, strict=True):
        left.add(path.name, f"{both} are called {kind}, which their names contradict")
    return pairs[~wrong].reset_index(drop=True)


def still_packed(root: Path) -> str:
    """A clause for a message where archives lie below `root`: "; aligned.zip is still packed: ..."; else nothing."""
    packed = [relative(path, root) for path in archives_below(root)] if root.is_dir() else []
    if not packed:
        return ""
    told = ", ".join(packed[:3]) + (", ..." if len(packed) > 3 else "")
    return f"; still packed: {told}. Unpack there and try again"


def sizes(root: Path, files: Iterable[str]) -> list[tuple[int, int] | None]:
    """Width and height of each file by its header alone; None where it cannot be opened, which is told later."""
    found: list[tuple[int, int] | None] = []
    for file in files:
        try:
            with Image.open(inside(root, file)) as image:
                found.append(image.size)
        except Exception:  # on corrupt bytes the decoders raise almost anything
            found.append(None)
    return found


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
