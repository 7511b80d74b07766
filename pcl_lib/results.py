"""Result rows: every value with where it came from, and the summary of several seeds."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcl_lib.errors import BadInput

PACKAGES = ("torch", "numpy", "pandas", "scikit-learn")
# Columns that belong to one seed, or only say how a row came about; rows that differ in others are not one result.
PER_SEED = ("value", "low", "high", "chosen", "chance", "seed")
PROVENANCE = ("device", "precision", "versions", "commit")


@cache
def versions() -> str:
    """The versions of Python and the packages that numbers depend on, as one line."""
    return ", ".join(
        [f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in PACKAGES)]
    )


@cache
def commit() -> str:
    """The git commit of this library, with "-dirty" where files have changed since; "unknown" outside git."""
    folder = Path(__file__).parent
    git = ["git", "-C", str(folder)]
    try:
        subprocess.run(
            [*git, "ls-files", "--error-unmatch", Path(__file__).name], check=True, capture_output=True
        )
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=10"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def result_rows(
    table: pd.DataFrame, *, preset: str, method: str, seed: int, device: str, precision: str, **more: Any
) -> pd.DataFrame:
    """A table of `evaluate`, `readability` or `swap_report` with the columns that say where its values came from.

    Adds method and preset in front; seed, device, precision, everything in `more` (data="...", say), versions and
    commit behind. protocol is "validation" where the table does not name its own. Returns a new table.
    """
    rows = table.copy()
    if "protocol" not in rows:
        rows["protocol"] = "validation"
    context: dict[str, Any] = {"seed": seed, "device": device, "precision": precision} | more
    clash = [name for name in ("method", "preset", *context) if name in rows]
    if clash:
        raise BadInput(f"the result table has a column {clash[0]!r} already; rename that column")
    rows.insert(0, "method", method)
    rows.insert(1, "preset", preset)
    return rows.assign(**context, versions=versions(), commit=commit())


def summarise(tables: pd.DataFrame | Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean and spread over seeds of rows that differ in nothing but seed and value.

    tables: rows of `result_rows`, as one table or several. Returns their columns with value = mean over seeds,
    std = sample standard deviation (NaN for one seed), n_seeds and seeds ("0 1 2"); where devices, precisions,
    versions or commits differ, all are named. Raises BadInput where a seed stands twice for one row.
    """
    rows = tables if isinstance(tables, pd.DataFrame) else pd.concat(tables, ignore_index=True)
    if "seed" not in rows or "value" not in rows:
        raise BadInput(
            "only tables with the columns value and seed can be summarised; make them with result_rows"
        )
    keys = [name for name in rows if name not in PER_SEED and name not in PROVENANCE]
    found = []
    for key, group in rows.groupby(keys, sort=False, dropna=False):
        if group["seed"].duplicated().any():
            twice = group["seed"][group["seed"].duplicated()].iloc[0]
            raise BadInput(f"seed {twice} stands twice for {', '.join(map(str, key))}; keep one")
        seeds = sorted(group["seed"])
        spread = group["value"].std(ddof=1) if len(group) > 1 else np.nan
        found.append(
            dict(zip(keys, key, strict=True))
            | {"value": group["value"].mean(), "std": spread}
            | {"n_seeds": len(seeds), "seeds": " ".join(map(str, seeds))}
            | {name: "; ".join(map(str, group[name].unique())) for name in PROVENANCE if name in rows}
        )
    return pd.DataFrame(found)
