"""Verification pairs: how they are drawn, and the form they have."""

from __future__ import annotations

import numpy as np
import pandas as pd

from pcl_lib.data.batches import identity_index
from pcl_lib.utils import BadInput

MOST = 6000  # pairs of a set, as LFW has


def make_pairs(table: pd.DataFrame, rows: np.ndarray, *, seed: int = 0) -> pd.DataFrame | None:
    """Verification pairs in LFW's style among `rows`: half of one identity, half of two people.

    Folds are identity-disjoint: ten (fewer where there are fewer than 20 identities, so that each has two), all
    of one size: `MOST` pairs, or 20 per image, in all, or as many distinct ones as there are. No pair occurs twice.
    Returns first, second (row numbers), same, fold; None where a fold would have no pair of one identity.
    """
    rng = np.random.default_rng([seed, 0x9A125])
    index = identity_index(table, rows)
    folds = min(10, len(index) // 2)
    if folds == 0:
        return None
    wanted = max(1, min(MOST, 20 * len(rows)) // (2 * folds))
    fold_of = rng.permutation(np.arange(len(index)) % folds)
    owner = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    drawn = []
    for fold in range(folds):
        here = np.flatnonzero(fold_of[owner] == fold)
        drawn.append([_draw_pairs(here, owner, same, wanted, rng) for same in (True, False)])
    smallest = min(len(part) for both in drawn for part in both)
    if smallest == 0:
        return None
    parts = [
        pd.DataFrame(
            {
                "first": index.rows[part[:smallest, 0]],
                "second": index.rows[part[:smallest, 1]],
                "same": same,
                "fold": fold,
            }
        )
        for fold, both in enumerate(drawn)
        for same, part in zip((True, False), both, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)


def _draw_pairs(
    here: np.ndarray, owner: np.ndarray, same: bool, wanted: int, rng: np.random.Generator
) -> np.ndarray:
    """Up to `wanted` distinct pairs of positions out of `here`, of one owner or of two: int64 [n, 2]."""
    if len(here) <= 400:  # few enough to list them all
        first, second = here[np.stack(np.triu_indices(len(here), 1))]
    elif same:
        starts, sizes = np.unique(owner[here], return_index=True, return_counts=True)[1:]
        group = rng.integers(len(starts), size=4 * wanted)
        first, second = here[starts[group] + rng.integers(sizes[group], size=(2, 4 * wanted))]
    else:
        first, second = rng.choice(here, size=(2, 4 * wanted))
    keep = (first != second) & ((owner[first] == owner[second]) == same)
    found = np.unique(np.sort(np.stack([first[keep], second[keep]], axis=1), axis=1), axis=0)
    return rng.permutation(found)[:wanted]


def check_pairs(pairs: pd.DataFrame, rows: int, where: str) -> None:
    """Hold pairs to their form: first, second (rows of the table), same (bool), fold (0..9); else BadInput."""
    if missing := {"first", "second", "same", "fold"} - set(pairs.columns):
        raise BadInput(f"{where}: column {min(missing)} is missing; first, second, same and fold are needed")
    for name, high in (("first", rows), ("second", rows), ("fold", 10)):
        if not pd.api.types.is_integer_dtype(pairs[name].dtype):
            raise BadInput(f"{where}: column {name} must hold whole numbers, not {pairs[name].dtype}")
        wrong = ~pairs[name].between(0, high - 1).to_numpy()
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise BadInput(f"{where}, row {row}: {name} is {pairs[name].iloc[row]}, outside 0..{high - 1}")
    if pairs["same"].dtype != bool:
        raise BadInput(f"{where}: column same must be true or false, not {pairs['same'].dtype}")
