"""Who is in train, validation and test, so that nobody is in two of them, whatever the labels lack."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from data_scripts.listing import LeftOut, Listing
from pcl_lib.data.labels import SPLITS, hashed_split, split_by_people
from pcl_lib.utils import BadInput

VALIDATION = 0.15  # of an official training split, where there is no official validation split
UNNAMED = "the set does not say who is on an image: somebody may be in two of its splits"
UNKNOWN = "who is on it is not known, while people are known on others: they may be in another split"


def hold_out(table: pd.DataFrame, by: str = "file", share: float = VALIDATION) -> pd.Series:
    """The column split, with `share` of the names in column `by` of train given to validation, by a hash."""
    train = table["split"] == "train"
    split = table["split"].copy()
    if table[by][train].nunique() > 1:
        split[train] = hashed_split(table[train].rename(columns={by: "identity"})[["identity"]], (share, 0.0))
    return split


def settle(listing: Listing) -> Listing:
    """The listing with a column split. Where its reader made none, 70, 15 and 15% of the people, by a hash.

    Images of somebody unknown are left out where others are known; where nobody is known, all are train.
    """
    if "split" in listing.table or not len(listing.table):
        return listing
    left = LeftOut()
    table = of_known_people(listing.table, left)
    split, told = split_by_people(table)
    return replace(
        listing,
        table=table.assign(split=split),
        left_out=pd.concat([listing.left_out, left.frame()], ignore_index=True),
        notes=[*listing.notes, *told],
    )


def of_known_people(table: pd.DataFrame, left: LeftOut) -> pd.DataFrame:
    """`table` without images of somebody unknown, which go to `left`; all of it where nobody is known."""
    if "identity" not in table or table["identity"].isna().all():
        return table
    known = table["identity"].notna()
    left.extend(table["file"][~known], UNKNOWN)
    return table[known].reset_index(drop=True)


def keep_apart(table: pd.DataFrame, left: LeftOut) -> pd.DataFrame:
    """`table` without images of people who lie in a later split too (train, validation, test); those go to `left`.

    For official splits, which users cannot correct. Images of somebody unknown stay where they are.
    """
    rank = table["split"].map(SPLITS.index)
    last = rank.groupby(table["identity"]).transform("max").fillna(rank)
    clash = rank < last
    for file, who, where in zip(
        table["file"][clash], table["identity"][clash], last[clash].astype(int), strict=True
    ):
        left.add(file, f"{who} is in {SPLITS[where]} too; nobody may be in two splits")
    return table[~clash].reset_index(drop=True)


def choose_split(
    table: pd.DataFrame, pairs: pd.DataFrame | None, how: str | None, test_folds: int | None
) -> pd.Series | None:
    """The split of each row of `table`; None where `settle` is to make it of the identities.

    how: labels (the column split), official (everybody in the first `test_folds` folds of the pairs, all by default,
    is in test, 15% of the others in validation), identity (70, 15 and 15% of the identities) or all-train; None takes
    the first of labels, official and identity that can be had. Raises BadInput where that cannot be had.
    """
    official = pairs is not None and "identity" in table
    how = how or ("labels" if "split" in table else "official" if official else "identity")
    if how == "labels":
        if "split" not in table:
            raise BadInput("--split labels needs a column split in the CSV of --labels")
        return table["split"]
    if how == "all-train":
        return pd.Series("train", index=table.index, dtype=object)
    if how == "identity":
        return None
    if pairs is None or "identity" not in table or table["identity"].isna().any():
        raise BadInput("--split official needs --pairs and an identity for every image")
    held_out = pairs[pairs["fold"] < (test_folds or 10)]
    if held_out.empty:
        raise BadInput(
            "none of the pairs of the first --test-folds folds has both images: test would be empty"
        )
    people = set(table["identity"].iloc[held_out["first"]]) | set(table["identity"].iloc[held_out["second"]])
    others = ~table["identity"].isin(people)
    split = pd.Series("test", index=table.index, dtype=object).mask(others, "train")
    if table["identity"][others].nunique() > 1:  # a single other person cannot be split
        split[others] = hashed_split(table[others], (VALIDATION, 0.0))
    return split
