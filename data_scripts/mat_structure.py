"""Whether a MATLAB 5 file is whole, before SciPy reads it: on some damaged files SciPy's reader ends the process.

Source: MathWorks, "MAT-File Format" (level 5): a header of 128 bytes, then elements, each with a tag of kind and size.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator

import numpy as np

HEADER, MATRIX, COMPRESSED = 128, 14, 15
LARGEST = 1 << 28  # bytes of a decompressed matrix: more is no label of a face
BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}  # of a number, by kind of element
NUMERIC = range(6, 16)  # array classes of numbers: double, single, and whole numbers of 8 to 64 bits
COMPLEX = 0x0800


def check(content: bytes) -> None:
    """Raise ValueError where a file of level 5 is not whole; files of other levels pass.

    Sizes must add up, and a matrix of numbers must hold as many as its dimensions say.
    """
    if content[124:128] not in (b"\0\1IM", b"\1\0MI"):
        return
    order = "<" if content[126:128] == b"IM" else ">"
    at = HEADER
    while at < len(content):
        kind, size = struct.unpack(order + "II", _take(content, at, 8))
        _check_element(kind, _take(content, at + 8, size), order)
        at += 8 + size


def _take(content: bytes, start: int, size: int) -> bytes:
    part = content[start : start + size]
    if len(part) != size:
        raise ValueError("the file ends early")
    return part


def _check_element(kind: int, content: bytes, order: str) -> None:
    if kind == COMPRESSED:
        opened = zlib.decompressobj()
        content = opened.decompress(content, LARGEST)
        if not opened.eof:
            raise ValueError("a compressed matrix is not whole, or too large")
        kind, size = struct.unpack(order + "II", _take(content, 0, 8))
        content = _take(content, 8, size)
    if kind != MATRIX:
        raise ValueError(f"an element of kind {kind}")
    parts = list(_parts(content, order))
    if [kind for kind, _ in parts[:3]] != [6, 5, 1] or len(parts[0][1]) != 8:  # flags, dimensions, name
        raise ValueError("a matrix without flags, dimensions and name")
    (flags,) = struct.unpack(order + "I", parts[0][1][:4])
    if flags & 0xFF not in NUMERIC:
        return  # a text, struct or cell: of another name than those that are read
    dimensions = np.frombuffer(parts[1][1], dtype=order + "i4").tolist()
    if len(dimensions) < 2 or min(dimensions) < 0 or len(parts) != 3 + (2 if flags & COMPLEX else 1):
        raise ValueError("a matrix of no shape")
    for kind, numbers in parts[3:]:
        if kind not in BYTES or len(numbers) != BYTES[kind] * math.prod(dimensions):
            raise ValueError("a matrix of another size than its dimensions")


def _parts(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Kind and content of the parts of a matrix; parts of up to 4 bytes may share the 8 bytes of their tag."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack(order + "II", _take(content, at, 8))
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ValueError("a part that does not fit its tag")
            yield kind, _take(content, at + 4, size)
            at += 8
        else:
            yield kind, _take(content, at + 8, size)
            at += 8 + (size + 7) // 8 * 8
