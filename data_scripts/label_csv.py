"""A CSV of labels: its columns under the kit's names, each value with the line it stands on, joined to the images."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts.listing import LeftOut
from data_scripts.names import EXPRESSION_WORDS, plain
from data_scripts.sources import SUFFIXES
from data_scripts.tables import Table, open_table
from pcl_lib.data.labels import ANGLE_NAMES, AU_NAMES, KNOWN_LABELS, WORDS, check_labels, number_ranges
from pcl_lib.utils import BadInput

UNIT = re.compile(r"(?:au|action_unit)_?0*(\d{1,2})")
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
NOT_GIVEN = ("", "na", "n/a", "nan", "null", "none")  # in numbers and words; people can be called None
SIDEWAYS = 100.0  # degrees: heads that turn further show no face
FEW = 8  # values, of which too few tell nothing of their unit
RESERVED = {"shard", "row"}  # names of the prepared folder


@dataclass(frozen=True)
class Labels:
    """Labels as a CSV gives them. table: `file` as written, then a column a label. lines: of the file, one a row.

    others: columns that are no labels of the kit, kept as text. notes: sentences on how the file was read.
    """

    path: Path
    table: pd.DataFrame
    lines: np.ndarray
    others: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def given(self) -> list[str]:
        """The columns that are labels of the kit."""
        return [str(name) for name in self.table if name != "file" and name not in self.others]


def canonical(name: str) -> str:
    """A column's name as the kit writes it: "AU1", "au 1" and "au01" are au01, "Yaw" is yaw."""
    low = re.sub(r"[\s\-]+", "_", name.strip().lower())
    unit = UNIT.fullmatch(low)
    return f"au{int(unit[1]):02d}" if unit else low


def is_label(name: str) -> bool:
    """Whether the kit reads a column of that name."""
    return name in KNOWN_LABELS or bool(number_ranges([name]))


def read_labels(path: Path) -> Labels:
    """A CSV with a column `file` and label columns, checked. Raises BadInput naming line, column and value.

    Identities, videos and clips are text as written, whatever they look like; angles, action units, folds and
    attributes numbers; expressions and splits the kit's words in capitals or not (or one of `EXPRESSION_WORDS`). Other
    columns are kept as text and named.
    """
    table = open_table(path, ("file", *KNOWN_LABELS))
    names = _columns(path, table)
    rows = list(table.rows())
    if not rows:
        raise BadInput(f"{path} has a header and no rows; give a row for every picture that has labels")
    columns = {name: [values[place].strip() for values in rows] for name, place in names.items()}
    frame = pd.DataFrame({"file": _files(path, columns.pop("file"), table.lines)})
    for name, values in columns.items():
        frame[name] = pd.Series(_typed(path, name, values, table.lines), dtype=_dtype(name))
    check_labels(frame.drop(columns="split", errors="ignore"), str(path), lines=table.lines)
    if "split" in frame:
        given = frame["split"].notna().to_numpy()
        check_labels(frame.loc[given, ["split"]], str(path), lines=table.lines[given])
    others = [name for name in columns if not is_label(name)]
    notes = [_of_other(path, name) for name in others] + _renamed(path, table, names)
    notes += _other_words(path, columns.get("expression", ())) + _doubtful(path, frame)
    return Labels(path, frame, table.lines, others, notes)


def _columns(path: Path, table: Table) -> dict[str, int]:
    """Place of each column by its canonical name. BadInput where file or any label is missing, or stands twice."""
    places: dict[str, int] = {}
    for place, written in enumerate(table.header):
        name = canonical(written)
        if not name:
            name = f"column_{place + 1}"  # what pandas writes as an index has no name
        elif name in RESERVED:
            raise BadInput(f"{path}: column {written} is a name of the prepared folder; rename it")
        if name in places:
            first = table.header[places[name]]
            raise BadInput(f"{path}: columns {first} and {written} are both {name}; keep one of them")
        places[name] = place
    if "file" not in places:
        raise BadInput(f"{path} has no column file; its columns are {', '.join(table.header)}")
    if not any(is_label(name) for name in places):
        raise BadInput(
            f"{path} has none of the columns {', '.join(KNOWN_LABELS)} or attr_...; rename its columns"
        )
    return places


def _renamed(path: Path, table: Table, names: dict[str, int]) -> list[str]:
    """A sentence on action units that the file writes in another way than the kit."""
    other = [(table.header[at], name) for name, at in names.items() if is_label(name)]
    told = [f"{written} is {name}" for written, name in other if written.lower() != name]
    return [f"{path.name}: column {', '.join(told)}"] if told else []


def _other_words(path: Path, expressions: Iterable[str]) -> list[str]:
    """A sentence on expressions that the file calls otherwise than the kit."""
    found = {value.lower() for value in expressions}
    told = [f"{word} is {name}" for word, name in EXPRESSION_WORDS.items() if word in found and word != name]
    return [f"{path.name}: expression {', '.join(told)}"] if told else []


def _doubtful(path: Path, table: pd.DataFrame) -> list[str]:
    """Sentences on values that all lie in range, and together look like another unit: radians, or presence."""
    notes = []
    given = [name for name in ANGLE_NAMES if name in table]
    angles = table[given].to_numpy(dtype=float)
    if np.isfinite(angles).sum() >= FEW and np.nanmax(np.abs(angles)) <= np.pi:
        notes.append(f"{path.name}: no angle is beyond 3.14; are these radians? Degrees are meant")
    for name, values in zip(given, angles.T, strict=True):
        if np.isfinite(values).sum() >= FEW and np.nanmin(values) >= 0 and np.nanmax(values) > SIDEWAYS:
            notes.append(
                f"{path.name}: {name} runs from {np.nanmin(values):g} to {np.nanmax(values):g} and is never"
                " negative; is 90 frontal here? 0 is meant, and both signs occur"
            )
    units = table[[name for name in AU_NAMES if name in table]].to_numpy(dtype=float)
    if np.isfinite(units).sum() >= FEW and set(units[np.isfinite(units)]) == {0.0, 1.0}:
        notes.append(
            f"{path.name}: action units are 0 and 1 alone; is this presence? Intensities from 0 to 5 are meant,"
            " of which 2 and more count as present"
        )
    return notes


def _of_other(path: Path, name: str) -> str:
    near = difflib.get_close_matches(name, KNOWN_LABELS, 1)
    told = f" (is it {near[0]}?)" if near else ""
    return f"{path.name}: column {name} is no label of this kit{told}; kept as text, and read by nothing"


def _dtype(name: str) -> str:
    return "float64" if number_ranges([name]) else "object"


def _files(path: Path, files: list[str], lines: np.ndarray) -> list[str]:
    first: dict[str, int] = {}
    for file, line in zip(files, lines.tolist(), strict=True):
        if not file:
            raise BadInput(f"{path}, line {line}: no file is named; correct or remove that line")
        if file in first:
            raise BadInput(
                f"{path}, line {line}: {file} has been labelled before, in line {first[file]}; keep one"
            )
        first[file] = line
    return files


def _typed(path: Path, name: str, values: list[str], lines: np.ndarray) -> list[object]:
    """The values of one column as the kit's type for it; what is not given is None (NaN among numbers)."""
    if name in WORDS:
        words = [EXPRESSION_WORDS.get(value.lower(), value.lower()) for value in values]
        return [None if word in NOT_GIVEN else word for word in words]
    if not number_ranges([name]):
        return [plain(value) or None for value in values]
    numbers: list[object] = []
    for value, line in zip(values, lines.tolist(), strict=True):
        if value.lower() in NOT_GIVEN:
            numbers.append(np.nan)
        elif NUMBER.fullmatch(value):
            numbers.append(float(value))
        else:
            comma = f"; write {value.replace(',', '.')}" if re.fullmatch(r"-?\d+,\d+", value) else ""
            raise BadInput(f"{path}, line {line}: {name} is {value}, not a number{comma}")
    return numbers


# Which image a row is of ------------------------------------------------------------------------------------


def locate(labels: Labels, files: Iterable[str], left: LeftOut) -> tuple[np.ndarray, list[str]]:
    """Row of `labels` for each of `files` (-1: none), and what to say of how names were matched.

    By the path below ROOT, or the file's name where only one image has it; with other capitals or another suffix
    where that leaves no doubt. If no path fits as it stands, the folders in front that all rows, or all files,
    have in common are left aside. Rows without an image go to `left`. Raises BadInput where two rows name one image,
    or none names any.
    """
    files = list(files)
    written = [_clean(name) for name in labels.table["file"]]
    cleaned, notes = [_clean(name) for name in files], []
    owners, reasons = _match(written, cleaned)
    if all(owner is None for owner in owners):
        for told, rows, images in _without_fronts(written, cleaned):
            owners, reasons = _match(rows, images)
            if any(owner is not None for owner in owners):
                notes.append(f"{labels.path.name}: {told}")
                break
    if all(owner is None for owner in owners):
        first = labels.table["file"].iloc[0]
        raise BadInput(
            f"{labels.path}: no row names an image of the folder (line {labels.lines[0]} names {first!r})"
        )
    row_of = np.full(len(files), -1, dtype=np.int64)
    for row, owner in enumerate(owners):
        if owner is None:
            told = reasons.get(row, f"there is no image {labels.table['file'].iloc[row]}")
            left.add(labels.path.name, told, int(labels.lines[row]))
        elif row_of[owner] >= 0:
            both = sorted((int(labels.lines[row_of[owner]]), int(labels.lines[row])))
            raise BadInput(
                f"{labels.path}, lines {both[0]} and {both[1]}, both name {files[owner]}; keep one"
            )
        else:
            row_of[owner] = row
    return row_of, notes


def _clean(name: str) -> str:
    name = plain(name.replace("\\", "/"))
    while name.startswith("./"):
        name = name[2:]
    return name


def _match(rows: list[str], images: list[str]) -> tuple[list[int | None], dict[int, str]]:
    """The image that each row names, and why some that look alike were not taken. Exact names come first."""
    owners: list[int | None] = [None] * len(rows)
    reasons: dict[int, str] = {}
    for key, without_folders, loose in RULES:
        at, taken = _by(images, key), set(owners)
        for row, name in enumerate(rows):
            if owners[row] is not None or (without_folders and "/" in name):
                continue
            found = at.get(key(name), [])
            if len(found) == 1 and not (loose and found[0] in taken):
                owners[row] = found[0]
            elif len(found) > 1:
                reasons[row] = f"{len(found)} images may be meant by {name}; give its path and suffix"
    return owners, reasons


def _by(names: list[str], key: Callable[[str], str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[key(name)].append(place)
    return places


def _bare(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _stem(name: str) -> str:
    folder, _, base = name.casefold().rpartition("/")
    stem, dot, suffix = base.rpartition(".")
    return f"{folder}/{stem if f'{dot}{suffix}' in SUFFIXES else base}"  # of img_0.5 nothing is a suffix


# What is compared; whether it is for rows that name no folder; whether images that have a row already are left aside.
RULES = (
    (str, False, False),
    (_bare, True, False),
    (str.casefold, False, True),
    (_stem, False, True),
    (lambda name: _stem(_bare(name)), True, True),
)


def _without_fronts(rows: list[str], images: list[str]) -> Iterable[tuple[str, list[str], list[str]]]:
    """The names again, without leading folders that all rows, or all images, share: the shortest first.

    A row keeps a folder where images lie in some: else train/1.jpg would be any folder's 1.jpg.
    """
    nested = any("/" in name for name in images)
    for whose, names in (("row", rows), ("image", images)):
        shared = _shared(names)
        if whose == "row" and nested:
            shared = shared[: min(name.count("/") for name in rows) - 1]
        for depth in range(1, len(shared) + 1):
            front = "/".join(shared[:depth]) + "/"
            shorter = [name.removeprefix(front) for name in names]
            told = f"{front} in front of every {whose}'s name was left aside"
            yield (told, shorter, images) if whose == "row" else (told, rows, shorter)


def _shared(names: list[str]) -> list[str]:
    folders = [name.split("/")[:-1] for name in names]
    shared = min(folders, key=len)
    for other in folders:
        while shared != other[: len(shared)]:
            shared = shared[:-1]
    return shared
