"""Verification pairs as LFW and CPLFW publish them, and the split that keeps their people out of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from data_scripts.official import plain, read_lines
from pcl_lib.data.labels import hashed_split
from pcl_lib.utils import BadInput

CPLFW_FOLDS = 10  # of 300 pairs of each kind; the file itself does not say so


def read_pairs(path: Path) -> tuple[pd.DataFrame, int]:
    """Pairs as LFW lists them: first and second (file stems), same, fold (0..); and how many the file announces.

    First line: number of folds, pairs of each kind. Then, fold by fold, "NAME i j" for two images of one person
    and "NAME1 i NAME2 j" for two people. Lines may be missing: a fold ends where positive lines follow negative.
    Source: LFW, README of View 2.
    """
    lines = [words for words in read_lines(path, "a list of LFW pairs") if words]
    try:
        folds, of_each_kind = map(int, lines[0])
        pairs = [(row[0], row[1], row[0], row[2]) if len(row) == 3 else tuple(row) for row in lines[1:]]
        stems = [(f"{a}_{int(i):04d}", f"{b}_{int(j):04d}") for a, i, b, j in pairs]
    except (ValueError, IndexError) as error:
        raise BadInput(f"cannot read {path} as a list of LFW pairs ({error})") from error
    same = np.array([len(row) == 3 for row in lines[1:]], dtype=bool)
    fold = np.cumsum(same & ~np.roll(same, 1)) - 1 if len(same) and not same[-1] else np.zeros(0, dtype=int)
    if not len(fold) or fold.min() < 0 or fold.max() + 1 != folds:
        raise BadInput(f"{path}: the first line announces {folds} folds, but its pairs do not form that many")
    return pd.DataFrame(stems, columns=["first", "second"]).assign(
        same=same, fold=fold
    ), 2 * folds * of_each_kind


def read_cplfw_pairs(path: Path) -> pd.DataFrame:
    """Pairs as CPLFW lists them: first and second (file stems), same, fold (0..9).

    Two lines a pair, "NAME_i.jpg 1" (one person) or "... 0" (two people), with the same number on both. Folds are
    not marked: the pairs of each kind are cut, in their order, into ten parts, which are LFW's folds of 300 + 300
    where the file is in LFW's order. Source: CPLFW, README of the download.
    """
    lines = [words for words in read_lines(path, "the pairs of CPLFW") if words]
    for number, line in enumerate(lines, 1):
        if len(line) != 2 or line[1] not in ("0", "1"):
            raise BadInput(f'{path}, line {number}: "{" ".join(line)}" is not a file name and 0 or 1')
        if number % 2 == 0 and lines[number - 2][1] != line[1]:
            raise BadInput(
                f"{path}, line {number}: the two lines of a pair disagree on 0 or 1; mend the file"
            )
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


def choose_split(
    table: pd.DataFrame, pairs: pd.DataFrame | None, how: str | None, test_folds: int | None
) -> pd.Series:
    """The split of each row of `table`.

    how: labels (the column split), official (everybody in the first `test_folds` folds of the pairs, all by
    default, is in test, 15% of the others in validation), identity (70, 15 and 15% of the identities) or all-train;
    None takes the first of labels, official and identity that can be had.
    """
    how = how or ("labels" if "split" in table else "official" if pairs is not None else "identity")
    if how == "labels":
        if "split" not in table:
            raise BadInput("--split labels needs a column split in the CSV of --labels")
        return table["split"]
    if how == "all-train":
        return pd.Series("train", index=table.index)
    if how == "identity":
        return hashed_split(table)
    if pairs is None or table["identity"].isna().any():
        raise BadInput("--split official needs --pairs and an identity for every image")
    held_out = pairs[pairs["fold"] < (test_folds or 10)]
    people = set(table["identity"].iloc[held_out["first"]]) | set(table["identity"].iloc[held_out["second"]])
    others = ~table["identity"].isin(people)
    split = pd.Series("test", index=table.index).mask(others, "train")
    if table["identity"][others].nunique() > 1:  # a single other person cannot be split
        split[others] = hashed_split(table[others], (0.15, 0.0))
    return split
