"""The rows of text tables, by one parser for labels and pictures alike, so that the two of one row never part.

UTF-8 with or without a byte order mark, and UTF-16 with one; lines that end in LF, CR LF or CR; fields apart by
comma, semicolon or tab, in quotes where they hold one of these or a line break. Anything else is refused: a guess at
an encoding could put a wrong name next to a right label. Lines are counted as editors do, from 1.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from pcl_lib.utils import BadInput

BLOCK = 1 << 22  # bytes read at a time
LONGEST = 1 << 26  # bytes of a line: more is taken for no text
DELIMITERS = ",;\t"
BLANK = f" \r\n{DELIMITERS}"  # a line of these alone is blank
BETWEEN_WORDS = re.compile(r"[\s,;]+")


class Line(NamedTuple):
    """A line that is not blank: its number in the file, its text, its words (spaces, commas, semicolons part them)."""

    number: int
    text: str
    words: list[str]


@dataclass(frozen=True)
class Table:
    """A table with a header, indexed: where each row lies. Made by `open_table`.

    header: names without spaces around. starts, ends: int64 [rows], bytes in the file, or in `copy` where the file
    is stored as UTF-16. lines: int64 [rows], the line on which each row begins. Blank rows are none.
    """

    path: Path
    header: tuple[str, ...]
    delimiter: str
    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    copy: bytes | None

    def __len__(self) -> int:
        """Number of rows, blank ones and the header left aside."""
        return len(self.starts)

    def row(self, number: int) -> list[str]:
        """The values of row `number`, from 0, one a column. Raises BadInput where there is no such row."""
        if not 0 <= number < len(self):
            raise BadInput(f"{self.path.name} has no row {number}")
        with _opened(self.path, self.copy) as file:
            file.seek(int(self.starts[number]))
            text = file.read(int(self.ends[number] - self.starts[number])).decode()
        return _fitting(next(_parsed([text], self.delimiter)), len(self.header))

    def rows(self) -> Iterator[list[str]]:
        """The values of all rows in order."""
        with _opened(self.path, self.copy) as file:
            for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True):
                file.seek(start)
                text = file.read(end - start).decode()
                yield _fitting(next(_parsed([text], self.delimiter)), len(self.header))


def read_lines(path: Path, what: str) -> list[Line]:
    """All lines of a text file that are not blank. Raises BadInput, naming `what` and the line, where it is no text."""
    try:
        with _opened(path, _copy(path)) as file:
            lines = list(enumerate(_decoded(_physical_lines(file, path), path), 1))
    except OSError as error:
        raise BadInput(f"cannot read {path} as {what} ({error.strerror or error})") from error
    except BadInput as error:
        raise BadInput(f"cannot read {path} as {what} ({error})") from error
    found = []
    for number, text in lines:
        words = [word.strip('"') for word in BETWEEN_WORDS.split(text.strip().strip(",;"))]
        if words := [word for word in words if word]:
            found.append(Line(number, text.strip(), words))
    return found


def open_table(path: Path, wanted: Sequence[str] = ()) -> Table:
    """Index a CSV. wanted: names (small letters) that its header should have; they settle what parts the fields.

    Raises BadInput: a file that cannot be read, is no text, or is stored in another encoding; a header that lacks or
    repeats a name; a row with more or fewer values than the header; quotes that do not close. Names the line.
    """
    try:
        about = path.stat()
        return _indexed(path, about.st_size, about.st_mtime_ns, tuple(wanted))
    except OSError as error:
        raise BadInput(f"cannot read {path} ({error.strerror or error})") from error


@lru_cache(maxsize=4)
def _indexed(path: Path, _size: int, _changed: int, wanted: tuple[str, ...]) -> Table:
    copy = _copy(path)
    with _opened(path, copy) as file:
        reading = _Reading(_physical_lines(file, path), path, start=file.tell())
        header, delimiter = _header(reading, wanted)
        starts, ends, lines = [], [], []
        begin, line = reading.at, reading.line
        for values in _rows(reading, delimiter):
            if any(value.strip() for value in values):
                if len(_fitting(values, len(header))) != len(header):
                    raise BadInput(
                        f"{path}, line {line + 1}: {len(values)} values where the header has {len(header)};"
                        " the table is damaged or half copied"
                    )
                starts.append(begin)
                ends.append(reading.at)
                lines.append(line + 1)
            begin, line = reading.at, reading.line
    places, stops, numbers = (np.array(values, dtype=np.int64) for values in (starts, ends, lines))
    return Table(path, header, delimiter, places, stops, numbers, copy)


class _Reading:
    """Hands out decoded lines one by one and knows how far it is: `at` in bytes, `line` in lines."""

    def __init__(self, lines: Iterator[bytes], path: Path, start: int) -> None:
        self.at, self.line, self.path, self._lines = start, 0, path, lines

    def __iter__(self) -> _Reading:
        return self

    def __next__(self) -> str:
        raw = next(self._lines)
        self.line += 1
        self.at += len(raw)
        return _text(raw, self.path, self.line)


def _header(reading: _Reading, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The names of the first row that is not blank, and what parts the fields; Excel's line "sep=;" is heeded."""
    told = ""
    first = next((line for line in reading if line.strip(BLANK)), "")
    if found := re.fullmatch(r'"?sep=(.)"?', first.strip(), re.IGNORECASE):
        told = found[1]
        first = next((line for line in reading if line.strip(BLANK)), "")
    if not first.strip():
        raise BadInput(f"{reading.path} is empty; a header and a row a picture are needed")
    if told and told not in DELIMITERS:
        raise BadInput(f"{reading.path}, line 1: fields apart by {told!r}; use a comma, a semicolon or a tab")
    readings: dict[str, list[str]] = {}
    for delimiter in told or DELIMITERS:
        with contextlib.suppress(csv.Error):  # quotes that only another delimiter makes sense of
            readings[delimiter] = [name.strip() for name in next(_parsed([first], delimiter))]
    if not readings:
        raise BadInput(f"{reading.path}, line {reading.line}: the quotes of the header do not close")

    def fits(delimiter: str) -> tuple[int, int]:
        names = {name.lower() for name in readings[delimiter]}
        return len(names & set(wanted)), len(readings[delimiter])

    best = max(readings, key=fits)
    names = readings[best]
    low = [name.lower() for name in names]
    if again := [name for place, name in enumerate(names) if name and low.index(name.lower()) < place]:
        raise BadInput(f"{reading.path}, line {reading.line}: two columns are called {again[0]}; rename one")
    return tuple(names), best


def _rows(reading: _Reading, delimiter: str) -> Iterator[list[str]]:
    begin = reading.line
    try:
        for values in _parsed(reading, delimiter):
            yield values
            begin = reading.line
    except csv.Error as error:
        raise BadInput(
            f"{reading.path}, line {begin + 1}: {error} (quotes that do not close?); correct that line"
        ) from error


def _parsed(lines: Sequence[str] | _Reading, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _fitting(values: list[str], columns: int) -> list[str]:
    """The values without empty ones beyond the last column, which spreadsheets like to add."""
    while len(values) > columns and not values[-1].strip():
        values = values[:-1]
    return values


def _copy(path: Path) -> bytes | None:
    """The whole file as UTF-8 where it is stored as UTF-16; None where it can be read as it lies."""
    with open(path, "rb") as file:
        start = file.read(4)
        if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            raise BadInput(f"{path} is stored as UTF-32; save it as UTF-8")
        if not start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return None
        try:
            return (start + file.read()).decode("utf-16").encode()
        except UnicodeError as error:
            raise BadInput(f"{path} begins as UTF-16 and goes on as something else ({error})") from error


def _opened(path: Path, copy: bytes | None) -> IO[bytes]:
    """The text as UTF-8, behind a byte order mark."""
    file: IO[bytes] = open(path, "rb") if copy is None else io.BytesIO(copy)  # noqa: SIM115 - the caller closes
    if file.read(3) != codecs.BOM_UTF8:
        file.seek(0)
    return file


def _physical_lines(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """Lines with their ends: LF, CR LF or CR, and nothing else."""
    rest = b""
    while block := file.read(BLOCK):
        *lines, rest = (rest + block).splitlines(
            keepends=True
        )  # the last may lack its end, or the LF of a CR LF
        if len(rest) > LONGEST:
            raise BadInput(f"{path} has a line of more than {LONGEST >> 20} MB; it is no table")
        yield from lines
    yield from rest.splitlines(keepends=True)


def _decoded(lines: Iterator[bytes], path: Path) -> Iterator[str]:
    for number, raw in enumerate(lines, 1):
        yield _text(raw, path, number)


def _text(raw: bytes, path: Path, number: int) -> str:
    if b"\0" in raw:
        raise BadInput(f"{path}, line {number}: zero bytes, as of UTF-16 without a mark; save it as UTF-8")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        wrong = raw[error.start]
        raise BadInput(f"{path}, line {number}: byte 0x{wrong:02x} is not UTF-8; save it as UTF-8") from None
