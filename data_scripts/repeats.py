"""The same pixels more than once: a face under two names, in two splits, or with two expressions.

Only copies that are equal to the last bit once they are cut and shrunk are found; it costs next to nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

PLAIN = ""  # the digest of a picture of one colour, which is nobody's copy
TOLD = {  # column: what its two values mean, and what to do
    "identity": ("under two names", "if that is one person, give all of its pictures one name"),
    "split": ("in two splits", "scores on them are too good where one is train"),
    "expression": ("with two expressions", "one of the two labels is wrong"),
}


def digest_of(image: np.ndarray) -> str:
    """A digest of the pixels of uint8 [3, S, S]; `PLAIN` where all are the same."""
    if (image == image[:, :1, :1]).all():
        return PLAIN
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).hexdigest()


def repeats(table: pd.DataFrame, digests: Sequence[str]) -> list[str]:
    """Sentences on pictures that occur more than once with another name, split or expression, and on plain ones.

    table: file and labels, a row an image. digests: `digest_of` each. What has no name (or split, ...) is not judged.
    """
    known = pd.Series(digests, index=table.index, dtype=object)
    notes = []
    for column, (what, then) in ((name, told) for name, told in TOLD.items() if name in table):
        rows = table.assign(digest=known)[(known != PLAIN) & table[column].notna()]
        values = rows.groupby("digest")[column].nunique()
        if len(twice := values.index[values > 1]):
            pair = rows[rows["digest"] == twice[0]].drop_duplicates(column)["file"]
            notes.append(f"{_pictures(len(twice))} {what}, such as {' and '.join(pair[:2])}: {then}")
    if len(plain := table["file"][known == PLAIN]):
        notes.append(f"{_pictures(len(plain))} of one colour, such as {plain.iloc[0]}")
    return notes


def _pictures(count: int) -> str:
    return "1 picture is" if count == 1 else f"{count} pictures are"
