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
KNOWN_LABELS = ("identity", *WORDS, *NUMBER_RANGES, "video")


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

    Identities are put in the order of a hash of their name (of the row number where they have none) and cut;
    `fractions` are the shares of identities for validation and test, each at least one identity where it is
    not 0. The same table gives the same split everywhere; the order of its rows plays no part where
    identities are named.
    """
    codes = identity_codes(table)
    firsts = np.unique(codes, return_index=True)[1]
    named = table["identity"] if "identity" in table.columns else pd.Series(index=table.index, dtype=object)
    names = [
        f"row {row}" if pd.isna(name) else str(name)
        for row, name in zip(firsts, named.iloc[firsts], strict=True)
    ]
    order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in names])
    held_out = [max(1, round(share * len(names))) if share else 0 for share in fractions]
    if sum(held_out) >= len(names):
        raise BadInput(f"{len(names)} identities are too few to split into train, validation and test")
    split_of = np.full(len(names), "train", dtype=object)
    split_of[order[: held_out[0]]] = "validation"
    split_of[order[held_out[0] : sum(held_out)]] = "test"
    return pd.Series(split_of[codes], index=table.index, name="split", dtype=object)


PRESENT = 2.0  # an action unit is present from this intensity on (DISFA's usual rule)
LARGEST_ANGLE = 99.0  # degrees; the paper's protocol leaves larger angles out


def expression_codes(names: pd.Series) -> np.ndarray:
    """[rows] 0 to 6 in the order of `labels.EXPRESSION_NAMES`, -1 where there is no label."""
    return pd.Categorical(names, categories=EXPRESSION_NAMES).codes.astype(np.int64)
