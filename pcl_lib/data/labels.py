"""Names and ranges of the labels that a table of faces may carry, and the check that holds them to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from pcl_lib.utils import BadInput

EXPRESSION_NAMES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
AU_NAMES = tuple(f"au{unit:02d}" for unit in (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26))  # BP4D, DISFA, ours
PAPER_UNITS = ("au01", "au02", "au04", "au06", "au09", "au12", "au25", "au26")  # those usual on DISFA
ANGLE_NAMES = ("yaw", "pitch", "roll")
SPLITS = ("train", "validation", "test")
ATTRIBUTE = "attr_"  # begins the name of a yes/no label, such as CelebA's attr_smiling: 1, 0 or not given
NUMBER_RANGES = {name: (0.0, 5.0) for name in AU_NAMES} | {name: (-180.0, 180.0) for name in ANGLE_NAMES}
NUMBER_RANGES["fold"] = (0.0, 9.0)  # of a cross-validation that keeps people apart, such as DISFA's
WORDS = {"expression": EXPRESSION_NAMES, "split": SPLITS}
LOST = 2.0**53  # from here on a float is no longer every whole number: two people could become one
FEWEST = 3  # people that three splits need
NOBODY = (
    "who is on the images is not known, so that one person could come into two splits: all images are train, to"
    " pre-train on and not to probe; give a column split, or a column identity (a name of its own for each image where"
    " no two show the same person)"
)
KNOWN_LABELS = ("identity", *WORDS, *NUMBER_RANGES, "video", "clip")


def number_ranges(columns: Iterable[str]) -> dict[str, tuple[float, float]]:
    """The range of each known numeric label among `columns`; attributes are 0 to 1."""
    attributes = {name: (0.0, 1.0) for name in columns if str(name).startswith(ATTRIBUTE)}
    return {name: NUMBER_RANGES[name] for name in columns if name in NUMBER_RANGES} | attributes


def check_labels(table: pd.DataFrame, where: str, lines: Sequence[int] | np.ndarray | None = None) -> None:
    """Hold the known label columns of `table` to their ranges; other columns pass, NaN means "not given".

    Angles: degrees within +-180. Action units: 0 to 5. fold: 0 to 9. attr_*: 0 to 1. expression and split: the
    names in `WORDS`; every row needs a split where there is such a column. identity: no numbers that lost digits.
    lines: of the file `where`, one a row, to be named instead of rows.
    Raises BadInput that names `where` (a file), the row or line, the column and the value.
    """
    floats = "identity" in table and pd.api.types.is_float_dtype(table["identity"])
    if floats and (table["identity"].abs() >= LOST).any():
        raise BadInput(
            f"{where}: column identity holds numbers of 16 digits or more as fractions, which can no longer be"
            " told apart; read it as text"
        )
    for name, (low, high) in number_ranges(table.columns).items():
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise BadInput(f"{where}: column {name} holds text; give numbers from {low:g} to {high:g}")
        values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        _refuse(
            where,
            table[name],
            ~np.isnan(values) & ~((values >= low) & (values <= high)),
            f"{low:g}..{high:g}",
            lines,
        )
    for name in table.columns.intersection(list(WORDS)):
        wrong = ~table[name].isin(WORDS[name])
        if name != "split":
            wrong &= table[name].notna()
        _refuse(where, table[name], wrong.to_numpy(), "one of " + ", ".join(WORDS[name]), lines)


def _refuse(
    where: str,
    column: pd.Series,
    wrong: np.ndarray,
    wanted: str,
    lines: Sequence[int] | np.ndarray | None,
) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        place = f"row {row}" if lines is None else f"line {lines[row]}"
        raise BadInput(
            f"{where}, {place}: {column.name} is {column.iloc[row]}, not {wanted}"
            f" ({int(wrong.sum())} such rows); correct the labels"
        )


def identity_codes(table: pd.DataFrame) -> np.ndarray:
    """Number the identities of `table` 0, 1, ... by first appearance: int64 [rows].

    A row without an identity (NaN, or no such column) is an identity of its own.
    """
    if "identity" not in table.columns:
        return np.arange(len(table))
    codes, names = pd.factorize(table["identity"])
    codes = codes.astype(np.int64)
    missing = codes < 0
    codes[missing] = len(names) + np.arange(int(missing.sum()))
    return codes


def hashed_split(table: pd.DataFrame, fractions: tuple[float, float] = (0.15, 0.15)) -> pd.Series:
    """Split rows into train, validation and test so that no identity lies in two of them.

    Identities are put in the order of a hash of their name and cut; `fractions` are the shares of identities for
    validation and test, each at least one identity where it is not 0. The same table gives the same split
    everywhere; the order of its rows plays no part. A row without an identity could show anybody, so it is in no
    split (None); where no row has one, all are train. Raises BadInput where there are too few identities.
    """
    named = table["identity"] if "identity" in table.columns else pd.Series(index=table.index, dtype=object)
    codes, people = pd.factorize(named)
    if not len(people):
        return pd.Series("train", index=table.index, name="split", dtype=object)
    order = np.argsort([hashlib.sha256(str(name).encode()).hexdigest() for name in people])
    held_out = [max(1, round(share * len(people))) if share else 0 for share in fractions]
    if sum(held_out) >= len(people):
        raise BadInput(f"{len(people)} identities are too few to split into train, validation and test")
    split_of = np.array(
        ["train"] * len(people) + [None], dtype=object
    )  # code -1, somebody unknown, is the last
    split_of[order[: held_out[0]]] = "validation"
    split_of[order[held_out[0] : sum(held_out)]] = "test"
    return pd.Series(split_of[codes], index=table.index, name="split", dtype=object)


def split_by_people(table: pd.DataFrame) -> tuple[pd.Series, list[str]]:
    """`hashed_split` into 70, 15 and 15% of the people, and sentences on what it had to leave out.

    Nobody is put into two splits on the guess that two images show two people: where fewer than three people are
    known, all images are train.
    """
    known = table["identity"].notna() if "identity" in table.columns else pd.Series(False, index=table.index)
    people = int(table["identity"].nunique()) if known.any() else 0
    if not people:
        return hashed_split(table), [NOBODY]
    if people < FEWEST:
        who = "1 person is" if people == 1 else f"{people} people are"
        told = f"{who} too few for three splits: all images are in train, to pre-train on and not to probe"
        return pd.Series("train", index=table.index, name="split", dtype=object), [told]
    unknown = int((~known).sum())
    told = f"{unknown} images show somebody unknown, who may be one of the {people} people known: they are in no split"
    return hashed_split(table), [told] if unknown else []


PRESENT = 2.0  # an action unit is present from this intensity on (DISFA's usual rule)
LARGEST_ANGLE = 99.0  # degrees; the paper's protocol leaves larger angles out


def expression_codes(names: pd.Series) -> np.ndarray:
    """[rows] 0 to 6 in the order of `labels.EXPRESSION_NAMES`, -1 where there is no label."""
    return pd.Categorical(names, categories=EXPRESSION_NAMES).codes.astype(np.int64)
