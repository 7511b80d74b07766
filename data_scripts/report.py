"""The summary at the end of a script: what was made, and what was left out and why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from data_scripts.sources import printable
from pcl_lib.utils import replace_atomically

SKIPPED = "skipped.csv"
TOP = 8  # reasons that the summary shows
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")


def skipped_csv(out: Path, left_out: pd.DataFrame) -> None:
    """Write all of `left_out` (file, line, reason) to OUT/skipped.csv. BadInput where the disk refuses."""
    printed = left_out.assign(file=left_out["file"].map(printable), reason=left_out["reason"].map(printable))
    with replace_atomically(out / SKIPPED) as temporary:
        printed.to_csv(temporary, index=False)


def reasons(left_out: pd.DataFrame) -> pd.DataFrame:
    """count, reason, example of each kind of reason (numbers in it do not matter), most frequent first."""
    kinds = left_out["reason"].str.replace(NUMBER, "N", regex=True)
    first = left_out[~kinds.duplicated()]
    where = [
        printable(file) + ("" if pd.isna(line) else f", line {line}")
        for file, line in zip(first["file"], first["line"], strict=True)
    ]
    counts = kinds.map(kinds.value_counts())[first.index]
    table = pd.DataFrame({"count": counts, "reason": first["reason"], "example": where})
    return table.sort_values("count", ascending=False, kind="stable").reset_index(drop=True)


def report(
    out: Path, record: dict[str, Any], left_out: pd.DataFrame, pairs_lost: int, worked: int, seconds: float
) -> None:
    """Print counts, what was left out with its reasons, and the set's notes. worked: images tried in this run."""
    counts = ", ".join(f"{value} {name}" for name, value in record["counts"].items())
    print(f"{out}: {counts} ({worked / seconds:.0f} images/s)")
    if len(left_out):
        print(f"Skipped {len(left_out)} files or lines, all in {out / SKIPPED}:")
        table = reasons(left_out)
        for line in table.head(TOP).itertuples():
            print(f"  {line.count:7} {line.reason}  (first: {line.example})")
        if len(table) > TOP:
            print(f"  and {len(table) - TOP} other reasons")
    if told := record.get("pairs"):  # {"announced", "listed"}: what the set's own list says
        print(
            f"Pairs: {record['counts']['pairs']} of the {told['announced']} announced:"
            f" {told['announced'] - told['listed']} are not in the file,"
            f" {told['listed'] - record['counts']['pairs']} lack an image"
        )
    elif pairs_lost:
        print(f"Pairs: {pairs_lost} were left out, because one of their images cannot be used")
    for note in record.get("notes", []):
        print(printable(note))
