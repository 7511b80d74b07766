"""Random damage: of bytes, of JSON, and of what torch, pandas and SciPy write. All drawn from one random.Random."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch

Random = random.Random
NUMBERS = (
    0,
    1,
    -1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**62,
    2**63,
    2**64 - 1,
)
TEXTS = (b"\0", b"\r", b"\n\n", b"\xef\xbb\xbf", b"\xff\xfe", b'"', b"'", b",", b";", b"\t", b"../", b"..\\", b"/etc/",
         b"%s%n", b"{}", b"[]", b"null", b"NaN", b"1e999", b"-1", b"9" * 20, b"\xc3\x28", b"=cmd|", b"#")  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 10**9, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "x", "../x",
    "/x", "\0", "\ud800", "7", [], {}, [0], [None], {"a": 1}, [[[[]]]], "a" * 5000,
)  # fmt: skip


def bytes_of(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """One to four small edits of `content`; now and then a part of `other` is spliced in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(EDITS)(data, rng, other)
    return bytes(data)


def _place(data: bytearray, rng: Random) -> int:
    """Somewhere, and often near the start or the end, where headers and indices lie."""
    edge = min(len(data), 256)
    return rng.choice(
        (rng.randrange(len(data) + 1), rng.randrange(edge + 1), len(data) - rng.randrange(edge + 1))
    )


def _flip(data: bytearray, rng: Random, _: bytes) -> None:
    if data:
        data[min(_place(data, rng), len(data) - 1)] ^= 1 << rng.randrange(8)


def _overwrite(data: bytearray, rng: Random, _: bytes) -> None:
    at = _place(data, rng)
    data[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(1, 9))


def _number(data: bytearray, rng: Random, _: bytes) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(NUMBERS) & (2 ** (8 * size) - 1)
    at = _place(data, rng)
    data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _text(data: bytearray, rng: Random, _: bytes) -> None:
    at = _place(data, rng)
    data[at : at + rng.choice((0, 0, 1, 3))] = rng.choice(TEXTS)


def _cut(data: bytearray, rng: Random, _: bytes) -> None:
    del data[_place(data, rng) :]


def _remove(data: bytearray, rng: Random, _: bytes) -> None:
    at = _place(data, rng)
    del data[at : at + rng.randrange(1, max(2, len(data) // 4))]


def _repeat(data: bytearray, rng: Random, _: bytes) -> None:
    at = _place(data, rng)
    part = data[at : at + rng.randrange(1, max(2, len(data) // 4))]
    data[at:at] = part * rng.choice((1, 2, 8))


def _splice(data: bytearray, rng: Random, other: bytes) -> None:
    start = rng.randrange(len(other) + 1)
    data[_place(data, rng) :] = other[start : start + rng.randrange(1, 4096)]


EDITS: tuple[Callable[[bytearray, Random, bytes], None], ...] = (
    _flip, _flip, _overwrite, _number, _number, _text, _text, _cut, _remove, _repeat, _splice,
)  # fmt: skip


def tree_of(tree: Any, rng: Random) -> Any:
    """A copy of nested dicts and lists with one or two leaves or branches replaced, dropped, doubled or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2))):
        node, parent, key = tree, None, None
        while isinstance(node, dict | list) and len(node) and (parent is None or rng.random() < 0.8):
            parent, key = node, rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node = parent[key]
        if parent is None:
            return copy.deepcopy(rng.choice(VALUES))
        what = rng.random()
        if what < 0.7:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        elif what < 0.85:
            del parent[key]
        elif isinstance(parent, dict):
            parent[rng.choice(("x", "", "../x", "shard"))] = parent.pop(key)
        else:
            parent.append(copy.deepcopy(node))
    return tree


def json_of(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """Damaged as JSON, or as bytes."""
    if rng.random() < 0.3:
        return bytes_of(content, rng, other)
    return json.dumps(tree_of(json.loads(content), rng)).encode("utf-8", "surrogatepass")


def safetensors_of(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """The header of a safetensors file damaged as JSON, or the file as bytes; its settings are JSON within JSON."""
    if rng.random() < 0.4:
        return bytes_of(content, rng, other)
    (length,) = struct.unpack("<Q", content[:8])
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    if rng.random() < 0.5:
        name = rng.choice(list(header["__metadata__"]))
        header["__metadata__"][name] = json.dumps(tree_of(json.loads(header["__metadata__"][name]), rng))
    else:
        header = tree_of(header, rng)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + rest


def torch_of(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """What torch.save wrote, with other values at some of its leaves, or as bytes."""
    if rng.random() < 0.4:
        return bytes_of(content, rng, other)
    tree = tree_of(torch.load(io.BytesIO(content), weights_only=True), rng)
    if rng.random() < 0.3 and isinstance(tree, dict):
        tree[rng.choice(list(tree) or ["x"])] = rng.choice(
            (torch.ones(3), torch.tensor(float("nan")), torch.zeros(2, 0), torch.ones(2, dtype=torch.int8))
        )
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def parquet_of(content: bytes, rng: Random, other: bytes = b"") -> bytes:
    """A parquet file with columns of other types or values, or as bytes."""
    if rng.random() < 0.4:
        return bytes_of(content, rng, other)
    table = pd.read_parquet(io.BytesIO(content)).astype(object)
    column = rng.choice(list(table))
    n = len(table)
    columns: tuple[Any, ...] = (
        [rng.choice(("x", "", None, "7"))] * n, [None] * n, [[1, 2]] * n, [{"a": 1}] * n, np.full(n, np.nan),
        [True] * n, np.full(n, -1), np.full(n, 2**40), np.full(n, 1e300), np.full(n, np.inf), [b"\xff"] * n,
        [pd.Timestamp("2020-01-01")] * n, pd.Categorical(["a"] * n), np.arange(n, dtype=np.uint8), np.arange(n) * 1j,
    )  # fmt: skip
    what = rng.random()
    if what < 0.6:
        table[column] = columns[rng.randrange(len(columns) - 1)]
    elif what < 0.7:
        table = table.drop(columns=column)
    elif what < 0.8:
        table = table.rename(
            columns={column: rng.choice(("yaw", "identity", "split", "au01", "expression", "row"))}
        )
        table = table.loc[:, ~table.columns.duplicated()]
    elif what < 0.9:
        table = table.iloc[: rng.randrange(n + 1)]
    else:
        table = pd.concat([table] * rng.choice((2, 3)))
    buffer = io.BytesIO()
    try:
        table.infer_objects().to_parquet(buffer, index=rng.random() < 0.2)
    except Exception:  # not every table can be written
        return bytes_of(content, rng, other)
    return buffer.getvalue()
