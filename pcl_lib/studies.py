"""The measurements that notebooks share: features of the trained methods, and the result rows made from them.

Each function says what a set could not be asked for and why, instead of failing on sets with few labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pcl_lib import disentangle, linear, probes, sets, tables
from pcl_lib.data import PreparedFaces, resize_images
from pcl_lib.errors import BadInput
from pcl_lib.handcrafted import LBP, HoG
from pcl_lib.labels import EXPRESSION_NAMES, FEATURES, identity_codes
from pcl_lib.methods import Method
from pcl_lib.models import PCL
from pcl_lib.probes import Features, expression_codes
from pcl_lib.reproduce import Setup, trained
from pcl_lib.tasks import labelled, plan

METHODS = ("random", "simclr", "simclr_noflip", "pcl", "pcl_plus")
SWAPPED = ("pcl", "pcl_plus")  # those of them that can decode swaps
# What needs no training: the controls of every table, and the hand-crafted rows of the paper's.
CONTROLS: dict[str, Callable[[], Any]] = {
    "raw pixels": probes.RawPixels,
    "HoG": partial(HoG, 48, 8),  # 900 numbers
    "LBP": partial(LBP, 48, 4),  # 944 numbers
}
REFERENCE = Path(__file__).with_name("reference_results.csv")


@dataclass(frozen=True)
class Swaps:
    """Donors and swapped reconstructions: faces [R, 3, S, S], poses [C, 3, S, S], pictures [R, C, 3, S, S].

    labels: the true yaw of each pose donor, "" where it is not known.
    """

    faces: Tensor
    poses: Tensor
    pictures: Tensor
    labels: list[str]


class SizedFaces:
    """A prepared set seen at another image size: the encoder's branches and the decoder fit the trained size alone."""

    def __init__(self, faces: PreparedFaces, size: int) -> None:
        self._faces, self.image_size = faces, size

    def __len__(self) -> int:
        return len(self._faces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._faces, name)

    def images(self, rows: Any) -> Tensor:
        """As `PreparedFaces.images`, resized."""
        return resize_images(self._faces.images(rows), self.image_size)


def sized(setup: Setup, faces: PreparedFaces | None = None) -> Any:
    """The run's faces, or another set, at the size its models are trained at."""
    faces, size = faces or setup.faces, setup.preset.model.image_size
    return faces if faces.image_size == size else SizedFaces(faces, size)


@dataclass(frozen=True)
class Encoded:
    """Features of every image of the run's faces (those the method gives a meaning to), the precision, the model."""

    features: Features
    precision: str
    model: Any = None

    @property
    def meant(self) -> list[str]:
        """The features that the method gives a meaning to."""
        return [name for name in FEATURES if getattr(self.features, name) is not None]


def encode(setup: Setup, methods: Sequence[str] = (*CONTROLS, *METHODS)) -> dict[str, Encoded]:
    """The features of all images by each of `CONTROLS` and methods asked for, the latter trained or loaded first.

    Raises as `reproduce.trained` and `probes.extract`.
    """
    faces, encoded = sized(setup), {}
    for method in methods:
        if method in CONTROLS:
            model = probes.Parts(CONTROLS[method]())
            encoded[method] = Encoded(probes.extract(model, faces), "32-true", model)
            continue
        run = trained(setup, method)
        model = probes.Parts(run.model)
        encoded[method] = Encoded(meant(probes.extract(model, faces), run.method), run.precision, model)
    return encoded


def meant(found: Features, method: Method) -> Features:
    """Of the features those that the method gives a meaning to, and the parts of the general one."""
    kept = (*method.features, "even", "odd")
    return Features(**{name: getattr(found, name) for name in kept})


def probed(setup: Setup) -> sets.Probed:
    """What the sets of a run are probed for, at the size its models are trained at."""
    return sets.probed([sized(setup, faces) for faces in setup.sets])


def probe_rows(setup: Setup, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """`probes.evaluate` of each method after `probes.baseline_rows` (method `tables.CONSTANT`), set by set.

    The columns data and labels (`sets.mark_labels`) tell the sets apart. An empty table where there is nothing to probe
    for in any of them; what is left out is printed.
    """
    found = probed(setup)
    for sentence in found.sentences():
        print(sentence)
    parts = [sets.mark_labels(_rows_of_view(setup, view, encoded), view) for view in found.views]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _rows_of_view(setup: Setup, view: Any, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """Rows of one set, or of two joined. The run's own faces have their features already."""
    baselines = probes.baseline_rows(view, seed=setup.seed)
    parts = [baselines.assign(method=tables.CONSTANT, precision="32-true")]
    for method, own in encoded.items():
        source = own.features if view.name == setup.faces.name else own.model
        rows = probes.evaluate(source, view, features=own.meant, seed=setup.seed)
        parts.append(rows.assign(method=method, precision=own.precision))
    return pd.concat(parts, ignore_index=True)


def readability(model: Any, faces: Any, seed: int, features: Sequence[str] = FEATURES) -> pd.DataFrame:
    """`disentangle.readability`; empty, and a printed sentence, where the set has no labels to read.

    model: a model, or the `Features` of all images. Raises BadInput where a feature is NaN or infinite.
    """
    found = model if isinstance(model, Features) else probes.extract(model, faces)
    try:  # the features are finite by now, so what can fail is a want of labels
        return disentangle.readability(found, faces, seed, features=features)
    except BadInput as error:
        print(error)
        return pd.DataFrame()


def readability_rows(setup: Setup, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """`readability` of each method but `CONTROLS`."""
    learnt = {method: own for method, own in encoded.items() if method not in CONTROLS}
    parts = [
        readability(own.features, setup.faces, setup.seed).assign(method=method, precision=own.precision)
        for method, own in learnt.items()
    ]
    return pd.concat(parts, ignore_index=True)


def swap_rows(setup: Setup) -> pd.DataFrame:
    """`disentangle.swap_report` of `SWAPPED`; empty, and printed sentences, where no factor of swaps is labelled."""
    notes: list[str] = []
    known = [f for f in disentangle.SWAP_FACTORS if labelled(setup.faces, [f], f"Swaps by {f}", notes)]
    for sentence in notes:
        print(sentence)
    if not known:
        return pd.DataFrame()
    parts = []
    for method in SWAPPED:
        run = trained(setup, method)
        rows = disentangle.swap_report(run.model, sized(setup), seed=setup.seed, factors=known)
        parts.append(rows.assign(method=method, precision=run.precision))
    return pd.concat(parts, ignore_index=True)


def donors(faces: PreparedFaces, count: tuple[int, int] = (5, 7)) -> tuple[np.ndarray, np.ndarray]:
    """Rows of test images to swap: face donors (different people, the most frontal), pose donors (sorted by yaw).

    count: how many of each, at most. Where yaw is not known, both are spread over the split. A set without test
    images gives training images, and that is said.
    """
    rows = faces.split("test")
    if not len(rows):
        print(f"{faces.name} has no test images: these are training images.")
        rows = faces.split("train")
    table = faces.table.iloc[rows].assign(code=identity_codes(faces.table)[rows])
    turned = table.dropna(subset=["yaw"]).sort_values("yaw") if "yaw" in table else table
    if len(turned) < sum(count):
        turned = table
    frontal = turned.iloc[turned["yaw"].abs().argsort()] if "yaw" in turned else turned
    face_rows = frontal.drop_duplicates("code").index.to_numpy()[: count[0]]
    others = turned[~turned["code"].isin(table.loc[face_rows, "code"])]
    others = others if len(others) >= count[1] else turned
    spread = np.linspace(0.02, 0.98, min(count[1], len(others))) * (len(others) - 1)
    return face_rows, others.index.to_numpy()[spread.round().astype(int)]


def swap(model: PCL, faces: PreparedFaces, face_rows: np.ndarray, pose_rows: np.ndarray) -> Swaps:
    """Every face of `face_rows` in every pose of `pose_rows`: decode(face, pose) of `PCL.decoder_features`."""
    device = next(model.parameters()).device
    shown = [
        resize_images(faces.images(rows), model.image_size).to(device) for rows in (face_rows, pose_rows)
    ]
    with torch.inference_mode():
        face, pose = model.decoder_features(shown[0]).face, model.decoder_features(shown[1]).pose
        r, c = len(face), len(pose)
        pictures = model.decode(face.repeat_interleave(c, 0), pose.repeat(r, 1)).unflatten(0, (r, c))
    yaw = faces.table["yaw"].iloc[pose_rows] if "yaw" in faces.table else pd.Series(np.nan, range(c))
    labels = ["" if np.isnan(degrees) else f"yaw {degrees:+.0f}°" for degrees in yaw]
    return Swaps(shown[0], shown[1], pictures, labels)


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
        own = {"preset": setup.preset.name, "seed": setup.seed}
        data = {view.name for view in probed(setup).views} if name == "probes" else {setup.faces.name}
        if set(saved["data"]) == data and all(
            (saved[column] == value).all() for column, value in own.items()
        ):
            print(f"{name}: {len(saved)} rows read from {path}.")
            return saved
    print(f"{name}: there are no rows of this run yet, so they are made now.")
    return save(setup, name, MAKERS[name](setup))


def save(setup: Setup, name: str, found: pd.DataFrame) -> pd.DataFrame:
    """`tables.save_rows`, passing an empty table over (and saying so)."""
    if found.empty:
        names = " and ".join(faces.name for faces in setup.sets) if name == "probes" else setup.faces.name
        print(f"{name}: nothing to save, {names} lacks the labels.")
        return found
    return tables.save_rows(found, setup, name)


def compare(values: Mapping[str, float], chance: float = 0.0, margin: float = 0.05) -> str:
    """Say which of two named values is larger, in words, if by `margin`, and above chance by that much.

    "pose", say, or "neither" (both near chance or below) or "both alike". margin is a reader's rule of thumb, no test.
    """
    (first, a), (second, b) = values.items()
    if max(a, b) < chance + margin:
        return "neither"
    if abs(a - b) < margin:
        return "both alike"
    return first if a > b else second


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


def contact_sheet(faces: PreparedFaces, seed: int = 0, count: int = 8) -> tuple[np.ndarray, list[str]]:
    """Rows of a set that show what is in it: [R, count], and a label for each of the R lines, or none.

    A line an expression where there are any; else, where yaw is known, three lines of faces sorted by yaw; else two
    lines drawn at random. Where there are too few, some are shown twice.
    """
    rng, table = np.random.default_rng(seed), faces.table
    if "expression" in table and table["expression"].notna().any():
        names = [name for name in EXPRESSION_NAMES if (table["expression"] == name).any()]
        groups = [rng.permutation(np.flatnonzero(table["expression"] == name)) for name in names]
        return np.stack([np.resize(rows, count) for rows in groups]), names
    if "yaw" in table and table["yaw"].notna().any():
        order = np.argsort(table["yaw"].to_numpy(float), kind="stable")[: table["yaw"].notna().sum()]
        parts = np.array_split(np.repeat(order, count), count)  # parts of one size, however few there are
        return np.stack([rng.choice(part, 3) for part in parts], axis=1), []
    return np.resize(rng.permutation(len(faces)), (2, count)), []


def rows_of_set(rows: pd.DataFrame, faces: PreparedFaces) -> pd.DataFrame:
    """Those of the probe rows that are of this set; empty where it could not be probed."""
    return rows[rows["data"] == faces.name].reset_index(drop=True) if len(rows) else rows


def reference_results() -> pd.DataFrame:
    """Figures that others published for earlier methods: method, dataset, metric, value, unit, source."""
    return pd.read_csv(REFERENCE)
