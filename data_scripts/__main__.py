"""Prepare every data set that lies below a folder; say which are missing, and where to ask for them.

    python -m data_scripts ROOT --out data

Sets are recognised by their official layout, as folders, as .zip archives, or as other archives under their
official names. Each goes to OUT/<set>; what is there already is left as it is, what was begun goes on. A set that
fails does not stop the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from data_scripts import official
from data_scripts.catalogue import AFLW2000, DATA_SETS, LP, DataSet, find
from data_scripts.prepare import standard_parser
from data_scripts.sources import archives_below, is_closed
from pcl_lib.utils import BadInput, exit_cleanly

COUNTS = ("images", "identities", "train", "validation", "test", "pairs")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_scripts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("root", type=Path, metavar="ROOT", help="the folder that holds the downloads")
    add("--out", type=Path, default=Path("data"), help="where the prepared folders go (data)")
    add("--only", type=lambda text: text.split(","), help=f"some of {','.join(DATA_SETS)} (all)")
    add("--size", default="64", help="side of the square images in pixels (64)")
    default = standard_parser(None).get_default("workers")
    add("--workers", default=str(default), help="how many work at a time (all cores)")
    add("--list", action="store_true", help="say what is there and what is missing, and end")
    options = parser.parse_args(arguments)
    if options.only and (unknown := set(options.only) - set(DATA_SETS)):
        raise BadInput(f"--only names {min(unknown)}; the sets are {', '.join(DATA_SETS)}")
    return options


def outputs(found: Sequence[tuple[DataSet, Path]], out: Path) -> list[Path]:
    """OUT/<set>; where a set lies there several times, OUT/<set>-<name of its folder>."""
    keys = [entry.key for entry, _ in found]
    names = [
        entry.key if keys.count(entry.key) == 1 else f"{entry.key}-{place.name.split('.')[0].lower()}"
        for entry, place in found
    ]
    return [
        out / (name if name not in names[:i] else f"{name}-{names[:i].count(name) + 1}")
        for i, name in enumerate(names)
    ]


def joined(entry: DataSet, found: Sequence[tuple[DataSet, Path]]) -> list[str]:
    """300W-LP takes AFLW2000 as its test split where that is there too: the paper's pose protocol in one folder."""
    tests = [place for other, place in found if other is AFLW2000 and place.is_dir()]
    return ["--aflw2000", str(tests[0])] if entry is LP and tests else []


def prepare_one(entry: DataSet, place: Path, out: Path, argv: Sequence[str]) -> dict[str, Any]:
    """A row of the summary: what came of one set. argv: options of its script."""
    row: dict[str, Any] = {"set": entry.name, "from": place.name, "to": str(out)}
    argv = [str(place), str(out), *argv]
    try:
        record = official.run(entry, entry.script.read, argv, getattr(entry.script, "add_options", None))
    except BadInput as error:
        print(f"{entry.name} failed: {error}")
        return row | {"state": "failed"}
    counts = {name: f"{record['counts'][name]:,}" for name in COUNTS if name in record["counts"]}
    return row | {"state": "prepared"} | counts | {"left out": f"{record['skipped']:,}"}


def tell_missing(found: Sequence[tuple[DataSet, Path]]) -> None:
    """Print the sets that were not found, what each is for and where to ask."""
    there = {entry.key for entry, _ in found}
    missing = [entry for entry in DATA_SETS.values() if entry.key not in there]
    if missing:
        print("\nNot found:")
    for entry in missing:
        print(f"  {entry.name}, for {entry.purpose}; {entry.counts()}.\n    Ask: {entry.ask}.")


def tell_unread(root: Path, found: Sequence[tuple[DataSet, Path]]) -> None:
    """Print the archives that were not taken for a set."""
    taken = [place for _, place in found]
    unread = [p for p in archives_below(root) if not any(p.is_relative_to(place) for place in taken)]
    for what, closed in (
        ("Archives that look like no set (give each to the script of its set)", False),
        ("Archives of forms that are not opened here (unpack each)", True),
    ):
        names = [str(path.relative_to(root)) for path in unread if is_closed(path) == closed]
        if names:
            print(f"\n{what}: {', '.join(names[:5])}{', ...' if names[5:] else ''}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Raises BadInput where nothing could be prepared."""
    options = parse(arguments)
    found = [one for one in find(options.root) if not options.only or one[0].key in options.only]
    places = outputs(found, options.out)
    print(
        f"Found {len(found)} sets below {options.root}:" if found else f"Found no set below {options.root}."
    )
    for (entry, place), out in zip(found, places, strict=True):
        print(f"  {entry.name}: {place} -> {out}")
    tell_missing(found)
    tell_unread(options.root, found)
    if options.list:
        return
    rows = []
    for (entry, place), out in zip(found, places, strict=True):
        print(f"\n== {entry.name}")
        argv = ["--size", options.size, "--workers", options.workers, *joined(entry, found)]
        rows.append(prepare_one(entry, place, out, argv))
    if not any(row["state"] == "prepared" for row in rows):
        raise BadInput(
            f"nothing below {options.root} could be prepared; see above for what is missing or wrong"
        )
    summary = pd.DataFrame(rows, columns=["set", "from", "to", "state", *COUNTS, "left out"], dtype=object)
    print("\n" + summary.fillna("-").to_string(index=False))


if __name__ == "__main__":
    exit_cleanly(main)
