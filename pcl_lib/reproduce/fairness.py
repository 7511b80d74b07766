"""Scores by skin tone and age, and whom the rendered people are like: `python -m pcl_lib.reproduce.fairness`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pcl_lib import presets, probes
from pcl_lib.data import FaceSet, PreparedFaces, rendered
from pcl_lib.faces.factors import BEARDS, HAIR_STYLES
from pcl_lib.models.shipped import NOT_FOR, SHIPPED, WEIGHTS, card, shipped
from pcl_lib.tables import MAIN_COLUMNS, Estimate, Table, write_table
from pcl_lib.utils import (
    REPOSITORY,
    BadInput,
    commit,
    device_name,
    exit_cleanly,
    replace_atomically,
    versions,
)

EVERYBODY = "all test people"
THIRDS = {
    "skin_tone": (
        "lightest third of skin tones",
        "middle third of skin tones",
        "darkest third of skin tones",
    ),
    "age": ("youngest third", "middle third of ages", "oldest third"),
}
DIFFERENCES = [(parts[2], parts[0]) for parts in THIRDS.values()]
LIGHT = ("light (below 1/3)", "medium", "dark (above 2/3)")
YEARS = ("young (below 1/3)", "middle", "old (above 2/3)")


def groups(faces: FaceSet) -> dict[str, np.ndarray]:
    """Rows of `EVERYBODY` and of each of `THIRDS`, by name bool [len(faces)].

    Thirds are of the test people, by rank, so that each has as many people; other people belong to none. Raises
    BadInput where the set does not know these factors or has fewer than three test people.
    """
    test = faces.table.iloc[faces.split("test")]
    if missing := {"identity", *THIRDS} - set(faces.table):
        raise BadInput(f"{faces.name} has no column {min(missing)}: only rendered faces know it")
    if test["identity"].nunique() < 3:
        raise BadInput(
            f"{faces.name} has {test['identity'].nunique()} test people: thirds need three or more"
        )
    found = {EVERYBODY: faces.table["identity"].isin(test["identity"]).to_numpy()}
    for factor, names in THIRDS.items():
        ranked = test.groupby("identity")[factor].first().sort_values(kind="stable").index.to_numpy()
        for name, people in zip(names, np.array_split(ranked, 3), strict=True):
            found[name] = faces.table["identity"].isin(people).to_numpy()
    return found


def scores(model: probes.FeatureModel, faces: FaceSet) -> pd.DataFrame:
    """`probes.evaluate_groups` of the general feature over `groups` and `DIFFERENCES`."""
    return probes.evaluate_groups(model, faces, groups(faces), differences=DIFFERENCES, features=("general",))


def table(found: Mapping[str, pd.DataFrame], context: Mapping[str, str]) -> Table:
    """One row per method and group, one column per task; found: `scores` by method."""
    rows: list[dict[str, object]] = []
    blocks = {}
    for method, scored in found.items():
        blocks[len(rows)] = method
        for group in scored["group"].unique():
            row: dict[str, object] = {"method": method, "group": group}
            for column, (task, metric, _) in MAIN_COLUMNS.items():
                part = scored[
                    (scored["task"] == task) & (scored["metric"] == metric) & (scored["group"] == group)
                ]
                digits = 2 if "MAE" in metric else 3
                missing = Estimate(missing="n/a: not there")
                row[column] = missing if part.empty else _estimate(part.iloc[0], digits)
            rows.append(row)
    return Table(pd.DataFrame(rows), context)


def _estimate(row: pd.Series, digits: int) -> Estimate:
    return Estimate(float(row["value"]), float(row["low"]), float(row["high"]), digits=digits)


def people(faces: FaceSet) -> pd.DataFrame:
    """What the rendered people are like: how many of each split are of each kind, counted from their factors."""
    split = np.full(len(faces), "", dtype=object)
    for name in ("train", "validation", "test"):
        split[faces.split(name)] = name
    each = faces.table.assign(split=split).groupby("identity").first()
    kinds: dict[str, pd.Series] = {
        "skin tone": pd.cut(each["skin_tone"], [0, 1 / 3, 2 / 3, 1], labels=LIGHT, include_lowest=True),
        "age": pd.cut(each["age"], [0, 1 / 3, 2 / 3, 1], labels=YEARS, include_lowest=True),
        "hair": _named(each["hair_style"], HAIR_STYLES),
        "beard": _named(each["beard"], BEARDS),
        "glasses": _named(each["glasses"] == 0, ("with", "without")),
    }
    rows = []
    for factor, kind in kinds.items():
        counts = pd.crosstab(kind, each["split"]).reindex(index=list(kind.cat.categories))
        counts = counts.reindex(columns=["train", "validation", "test"]).fillna(0).astype(int)
        rows += [{"factor": factor, "kind": name} | line.to_dict() for name, line in counts.iterrows()]
    return pd.DataFrame(rows)


def _named(numbers: pd.Series, names: Sequence[str]) -> pd.Series:
    words = numbers.map(lambda number: names[int(number)])
    return words.astype(pd.CategoricalDtype(list(names)))


def write_card(method: str, scored: pd.DataFrame, data: Mapping[str, object], folder: Path = WEIGHTS) -> None:
    """Put the scores of each group into the card of shipped weights, under "groups", beside those of all people."""
    about = card(method)
    kept = scored[scored["metric"].isin([metric for _, metric, _ in MAIN_COLUMNS.values()])]
    by_group = {
        group: {
            f"general: {row['task']} {row['metric']}": np.round(
                [row["value"], row["low"], row["high"]], 4
            ).tolist()
            for row in part.to_dict("records")
        }
        for group, part in kept.groupby("group", sort=False)
    }
    about["not_for"] = list(NOT_FOR)
    about["groups"] = {"data": dict(data), "value, low and high of the 95% interval": by_group}
    with replace_atomically(folder / f"{method}.json") as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: python -m pcl_lib.reproduce.fairness."""
    parser = argparse.ArgumentParser(
        prog="python -m pcl_lib.reproduce.fairness",
        description="Score the shipped weights by thirds of the test people's skin tone and age, and count whom the "
        "rendered people are like; writes figures/tables/fairness and people and the cards in pcl_lib/weights.",
    )
    parser.add_argument("--data", type=Path, help="rendered set; without it the cpu preset's is rendered")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where rendered sets lie")
    parser.add_argument(
        "--tables", type=Path, default=REPOSITORY / "figures" / "tables", help="for the tables"
    )
    given = parser.parse_args(argv)
    faces: PreparedFaces = rendered.open_faces(given.data, presets.get("cpu"), given.runs)
    test = faces.table.iloc[faces.split("test")]
    shown = f"{faces.name}: {len(faces):,} images, {test['identity'].nunique()} test people on {len(test):,}"
    context = {"data": shown, "device": device_name(), "versions": versions(), "commit": commit()}
    found = {}
    for method in SHIPPED:
        print(f"{method}: encoding and probing {shown}")
        found[method] = scores(shipped(method), faces)
        write_card(method, found[method], {"name": shown, "hash": faces.content_hash})
    caption = (
        "Shipped weights, general feature, by thirds of the test people; one probe and one threshold for all"
    )
    write_table(table(found, context), given.tables / "fairness", caption, latex=False)
    described = "Rendered people by kind, as drawn"
    write_table(Table(people(faces), context), given.tables / "people", described, latex=False)


if __name__ == "__main__":
    exit_cleanly(main)
