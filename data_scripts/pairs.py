"""Verification pairs as LFW and CPLFW publish them, and the split that keeps their people out of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts.names import plain
from data_scripts.tables import read_lines
from pcl_lib.utils import BadInput

CPLFW_FOLDS = 10  # of 300 pairs of each kind; the file itself does not say so


def read_pairs(path: Path) -> tuple[pd.DataFrame, int]:
    """Pairs as LFW lists them: first and second (file stems), same, fold (0..); and how many the file announces.

    First line: number of folds, pairs of each kind; in a CSV of the same pairs the names of its columns instead. Then,
    fold by fold, "NAME i j" for two images of one person and "NAME1 i NAME2 j" for two people. Lines may be missing: a
    fold ends where positive lines follow negative. Raises BadInput that names the line. Source: LFW, README of View 2.
    """
    lines = read_lines(path, "a list of LFW pairs")
    if not lines:
        raise BadInput(f"cannot read {path} as a list of LFW pairs (it is empty)")
    (number, text, head), rows = lines[0], lines[1:]
    named = head[0].lower() == "name"
    if not named and not (len(head) == 2 and all(word.isdecimal() for word in head)):
        raise BadInput(
            f'cannot read {path} as a list of LFW pairs (line {number}: "{text[:60]}" is not the number of folds'
            " and of pairs of each kind)"
        )
    stems, same = [], []
    for number, text, words in rows:
        row = (words[0], words[1], words[0], words[2]) if len(words) == 3 else tuple(words)
        if len(row) != 4 or not (row[1].isdecimal() and row[3].isdecimal()):
            raise BadInput(
                f'cannot read {path} as a list of LFW pairs (line {number}: "{text[:60]}" is neither NAME i j nor'
                " NAME1 i NAME2 j)"
            )
        stems.append((f"{row[0]}_{int(row[1]):04d}", f"{row[2]}_{int(row[3]):04d}"))
        same.append(len(words) == 3)
    kind = np.array(same, dtype=bool)
    fold = np.cumsum(kind & ~np.roll(kind, 1)) - 1 if len(kind) and not kind[-1] else np.zeros(0, dtype=int)
    found = int(fold.max()) + 1 if len(fold) else 0
    folds = found if named else int(head[0])
    if not len(fold) or fold.min() < 0 or found != folds:
        raise BadInput(f"{path}: the first line announces {folds} folds, but its pairs do not form that many")
    announced = len(kind) if named else 2 * folds * int(head[1])
    return pd.DataFrame(stems, columns=["first", "second"]).assign(same=kind, fold=fold), announced


def read_cplfw_pairs(path: Path) -> pd.DataFrame:
    """Pairs as CPLFW lists them: first and second (file stems), same, fold (0..9).

    Two lines a pair, "NAME_i.jpg 1" (one person) or "... 0" (two people), with the same number on both. Folds are
    not marked: the pairs of each kind are cut, in their order, into ten parts, which are LFW's folds of 300 + 300
    where the file is in LFW's order. Source: CPLFW, README of the download.
    """
    lines: list[list[str]] = []
    for number, text, words in read_lines(path, "the pairs of CPLFW"):
        if len(words) != 2 or words[1] not in ("0", "1"):
            raise BadInput(f'{path}, line {number}: "{text[:60]}" is not a file name and 0 or 1')
        if len(lines) % 2 and lines[-1][1] != words[1]:
            raise BadInput(
                f"{path}, line {number}: the two lines of a pair disagree on 0 or 1; correct the file"
            )
        lines.append(words)
    if not lines or len(lines) % 2:
        raise BadInput(f"{path} has {len(lines)} lines; two lines a pair are needed")
    stems = [line[0].rsplit(".", 1)[0] for line in lines]
    same = np.array([line[1] == "1" for line in lines[::2]])
    fold = np.empty(len(same), dtype=np.int64)
    for kind in (same, ~same):
        fold[kind] = np.arange(kind.sum()) * CPLFW_FOLDS // max(1, int(kind.sum()))
    return pd.DataFrame({"first": stems[::2], "second": stems[1::2], "same": same, "fold": fold})


def stems_of(files: pd.Series) -> pd.Series:
    """File names without folder and suffix, in composed Unicode."""
    return files.str.rsplit("/", n=1).str[-1].str.rsplit(".", n=1).str[0].map(plain)


def unlocated(pairs: pd.DataFrame, files: pd.Series) -> list[str]:
    """Stems that `pairs` name (before `locate_pairs`) and `files` do not have, sorted."""
    return sorted({plain(name) for name in [*pairs["first"], *pairs["second"]]} - set(stems_of(files)))


def locate_pairs(pairs: pd.DataFrame, files: pd.Series) -> pd.DataFrame:
    """Replace file stems by row numbers of `files`; pairs with a missing image are left out."""
    pairs = pairs.assign(first=pairs["first"].map(plain), second=pairs["second"].map(plain))
    stems = stems_of(files)
    named = pd.unique(pairs[["first", "second"]].to_numpy().ravel())
    unclear = stems[stems.duplicated(keep=False) & stems.isin(named)]
    if len(unclear):
        raise BadInput(
            f"the pairs name {unclear.iloc[0]}, but {files[unclear.index[0]]} is not the only such file"
        )
    row = pd.Series(np.arange(len(files)), index=stems)
    row = row[~row.index.duplicated()]
    found = pairs.assign(first=pairs["first"].map(row), second=pairs["second"].map(row)).dropna()
    return found.astype({"first": np.int64, "second": np.int64, "fold": np.int64}).reset_index(drop=True)
