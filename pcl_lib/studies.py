"""The measurements that notebooks share: features of the trained methods, and the result rows made from them.

Each function says what a set could not be asked for and why, instead of failing on sets with few labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcl_lib import disentangle, linear, probes, tables
from pcl_lib.data import PreparedFaces
from pcl_lib.errors import BadInput
from pcl_lib.probes import Features, expression_codes
from pcl_lib.reproduce import Setup, trained
from pcl_lib.tasks import labelled, plan

METHODS = ("random", "simclr", "pcl")
PIXELS = "raw pixels"
REFERENCE = Path(__file__).with_name("reference_results.csv")


@dataclass(frozen=True)
class Encoded:
    """Features of every image of a set (those the method gives a meaning to), and the precision it trained in."""

    features: Features
    precision: str


def encode(setup: Setup, methods: Sequence[str] = METHODS) -> dict[str, Encoded]:
    """The features of all images by each method, trained or loaded first; raw pixels come before them as a control.

    Raises as `reproduce.trained` and `probes.extract`.
    """
    encoded = {PIXELS: Encoded(probes.extract(probes.RawPixels(), setup.faces), "32-true")}
    for method in methods:
        run = trained(setup, method)
        found = probes.extract(run.model, setup.faces)
        meant = {name: getattr(found, name) for name in run.method.features}
        encoded[method] = Encoded(Features(**meant), run.precision)
    return encoded


def probe_rows(setup: Setup, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """`probes.evaluate` of each method after `probes.baseline_rows` (method `tables.CONSTANT`).

    An empty table, and a printed sentence, where the set has no labels to probe for.
    """
    for sentence in probes.left_out(setup.faces):
        print(sentence)
    if not len(plan(setup.faces).rows()):
        return pd.DataFrame()
    baselines = probes.baseline_rows(setup.faces, seed=setup.seed)
    parts = [baselines.assign(method=tables.CONSTANT, precision="32-true")]
    for method, own in encoded.items():
        rows = probes.evaluate(own.features, setup.faces, seed=setup.seed)
        parts.append(rows.assign(method=method, precision=own.precision))
    return pd.concat(parts, ignore_index=True)


def readability_rows(setup: Setup, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """`disentangle.readability` of each method but raw pixels; empty, and a printed sentence, without labels."""
    parts = []
    for method, own in encoded.items():
        if method == PIXELS:
            continue
        try:  # the features are finite by now, so what can fail is a want of labels
            rows = disentangle.readability(own.features, setup.faces, setup.seed)
        except BadInput as error:
            print(error)
            return pd.DataFrame()
        parts.append(rows.assign(method=method, precision=own.precision))
    return pd.concat(parts, ignore_index=True)


def swap_rows(setup: Setup) -> pd.DataFrame:
    """`disentangle.swap_report` of PCL; empty, and printed sentences, where no factor that swaps show is labelled."""
    notes: list[str] = []
    known = [f for f in disentangle.SWAP_FACTORS if labelled(setup.faces, [f], f"Swaps by {f}", notes)]
    print(*notes, sep="\n")
    if not known:
        return pd.DataFrame()
    run = trained(setup, "pcl")
    rows = disentangle.swap_report(run.model, setup.faces, seed=setup.seed, factors=known)
    return rows.assign(method="pcl", precision=run.precision)


MAKERS: dict[str, Callable[[Setup], pd.DataFrame]] = {
    "probes": lambda setup: probe_rows(setup, encode(setup)),
    "readability": lambda setup: readability_rows(setup, encode(setup)),
    "swaps": swap_rows,
}


def rows_of(setup: Setup, name: str) -> pd.DataFrame:
    """Result rows `name` (a key of `MAKERS`) of a run: read where they were saved, else made and saved, saying which.

    Rows of another seed, preset or data set are not taken. An empty table where the set lacks the labels.
    """
    path = setup.out / "tables" / f"{name}.csv"
    if path.is_file():
        saved = pd.read_csv(path)
        own = {"preset": setup.preset.name, "seed": setup.seed, "data": setup.faces.name}
        if all((saved[column] == value).all() for column, value in own.items()):
            print(f"{name}: {len(saved)} rows read from {path}.")
            return saved
    print(f"{name}: there are no rows of this run yet, so they are made now.")
    return save(setup, name, MAKERS[name](setup))


def save(setup: Setup, name: str, found: pd.DataFrame) -> pd.DataFrame:
    """`tables.save_rows`, passing an empty table over (and saying so)."""
    if found.empty:
        print(f"{name}: nothing to save, {setup.faces.name} lacks the labels.")
        return found
    return tables.save_rows(found, setup, name)


def read_pose(faces: PreparedFaces, x: Features) -> tuple[np.ndarray, np.ndarray] | None:
    """The pose probe's test images on the general feature: true and read angles, degrees, [n, angles] each.

    The probe is that of `probes.evaluate`. None where the set has no angles.
    """
    made = plan(faces)
    if made.pose is None:
        return None
    y = faces.table[list(made.angles)].to_numpy(float)
    frozen = linear.Frozen(x.general, np.arange(len(faces)), len(faces))
    predicted, _ = linear.read_values(frozen, made.pose, y, robust=True)
    return y[made.pose.test], predicted


def read_expression(faces: PreparedFaces, x: Features) -> tuple[np.ndarray, np.ndarray] | None:
    """The expression probe's test images on the general feature: true and read classes, [n] each; None unlabelled."""
    split = plan(faces).expression
    if split is None:
        return None
    y = expression_codes(faces.table["expression"])
    frozen = linear.Frozen(x.general, np.arange(len(faces)), len(faces))
    predicted, _ = linear.read_classes(frozen, split, y)
    return y[split.test], predicted


def reference_results() -> pd.DataFrame:
    """Figures that others published for earlier methods: method, dataset, metric, value, unit, source."""
    return pd.read_csv(REFERENCE)
