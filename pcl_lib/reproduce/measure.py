"""The measurements that notebooks share: features of the trained methods, and the result rows made from them.

Each function says what a set could not be asked for and why, instead of failing on sets with few labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pcl_lib import disentangle, probes, tables
from pcl_lib.data import FaceSet, resize_images
from pcl_lib.data.labels import EXPRESSION_NAMES, expression_codes, identity_codes
from pcl_lib.disentangle import swap_truth
from pcl_lib.methods import Method
from pcl_lib.models import PCL
from pcl_lib.probes import FEATURES, FeatureModel, FrozenFeatures, linear, stored, tasks
from pcl_lib.probes.features import feature_device
from pcl_lib.probes.handcrafted import LBP, HoG
from pcl_lib.probes.tasks import plan
from pcl_lib.reproduce.run import Run
from pcl_lib.utils import PACKAGE, BadInput, library_hash, spent

METHODS = ("random", "masked", "simclr", "simclr_noflip", "pcl", "pcl_plus")
SWAPPED = ("pcl", "pcl_plus")  # those of them that can decode swaps
COMPONENTS = ("even", "odd")  # of the general feature, which `probes.EvenOdd` adds
CONTROL_FEATURES = ("general", *COMPONENTS)
# What needs no training: the controls of every table, and the hand-crafted rows of the paper's.
CONTROLS: dict[str, Callable[[], FeatureModel]] = {
    "raw pixels": probes.RawPixels,
    "HoG": partial(HoG, 48, 8),  # 900 numbers
    "LBP": partial(LBP, 48, 4),  # 944 numbers
}
REFERENCE = PACKAGE / "reproduce" / "reference_results.csv"


@dataclass(frozen=True)
class Swaps:
    """Donors and swapped reconstructions: faces [R, 3, S, S], poses [C, 3, S, S], pictures [R, C, 3, S, S].

    labels: the true yaw of each pose donor, "" where it is not known.
    """

    faces: Tensor
    poses: Tensor
    pictures: Tensor
    labels: list[str]


@dataclass(frozen=True)
class Encoded:
    """Features of every image of the run's faces (those that the method trains), the precision, and the model.

    mark: a hash of weights, images and code that the features come from. stored: whether an earlier run computed them.
    """

    features: FrozenFeatures
    precision: str
    model: FeatureModel
    mark: str
    stored: bool

    @property
    def names(self) -> list[str]:
        """The features that there are, of `probes.FEATURES`."""
        return [name for name in FEATURES if getattr(self.features, name) is not None]


def encode(run: Run, methods: Sequence[str] = (*CONTROLS, *METHODS)) -> dict[str, Encoded]:
    """The features of all images by each of `CONTROLS` and methods asked for, the latter trained or loaded first.

    They are computed once and kept in out/features (`probes.stored`); prints which were loaded from there. Shows its
    progress. Raises as `Run.trained` and `probes.extract`.
    """
    encoded: dict[str, Encoded] = {}
    names: tuple[str, ...]
    for method in tqdm(methods, desc="encoding", unit="method"):
        if method in CONTROLS:
            control = CONTROLS[method]()
            mark = str(vars(control))
            encoded[method] = _encoded(run, method, control, mark, CONTROL_FEATURES, "32-true")
            continue
        training = run.trained(method)
        mark, names = stored.weights_hash(training.model), (*training.method.features, *COMPONENTS)
        encoded[method] = _encoded(run, method, training.model, mark, names, training.precision)
    if loaded := [method for method, own in encoded.items() if own.stored]:
        print(f"Stored features were loaded from {run.out / 'features'}: {', '.join(loaded)}.")
    return encoded


def _encoded(
    run: Run, method: str, inner: FeatureModel, mark: str, names: Sequence[str], precision: str
) -> Encoded:
    """The features `names` of the run's faces. mark: what tells this model from others of the same method."""
    faces, model = run.sized(), probes.EvenOdd(inner)
    key = (method, mark, run.faces.content_hash, str(faces.image_size))
    computed = []

    def compute() -> FrozenFeatures:
        computed.append(method)
        return probes.extract(model, faces)

    folder = run.out / "features"
    features = stored.extract_once(compute, folder, method, key, names, feature_device(model))
    return Encoded(features, precision, model, stored.mark(key), not computed)


def of_method(found: FrozenFeatures, method: Method) -> FrozenFeatures:
    """Of the features those that the method trains, and the even and odd components of the general one."""
    kept = (*method.features, *COMPONENTS)
    return FrozenFeatures(**{name: getattr(found, name) for name in kept})


def probed(run: Run) -> tasks.Probed:
    """What the sets of a run are probed for, at the size its models are trained at."""
    return tasks.probed([run.sized(faces) for faces in run.sets])


def probe_rows(run: Run, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """`probes.evaluate` of each method after `probes.baseline_rows` (method `tables.CONSTANT`), set by set.

    The columns data and labels (`tasks.mark_labels`) tell the sets apart. An empty table where there is nothing to
    probe for in any of them; what is left out is printed. Shows its progress.
    """
    found = probed(run)
    for note in found.told():
        print(note)
    parts = [tasks.mark_labels(_rows_of_view(run, view, encoded), view) for view in found.views]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _rows_of_view(run: Run, view: FaceSet, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """Rows of one set, or of two joined. The run's own faces have their features already."""
    baselines = probes.baseline_rows(view, seed=run.seed)
    parts = [baselines.assign(method=tables.CONSTANT, precision="32-true")]
    for method, own in tqdm(encoded.items(), desc=f"probing on {view.name}", unit="method"):
        source = own.features if view.name == run.faces.name else own.model
        rows = probes.evaluate(source, view, features=own.names, seed=run.seed)
        parts.append(rows.assign(method=method, precision=own.precision))
    return pd.concat(parts, ignore_index=True)


def leakage(
    model: FeatureModel | FrozenFeatures, faces: FaceSet, seed: int, features: Sequence[str] = FEATURES
) -> pd.DataFrame:
    """`disentangle.leakage`; what cannot be probed is printed, and without any label the table is empty."""
    factors, identity, left_out = disentangle.leakage_plan(faces, seed)
    if not factors and not identity:
        print(*left_out, sep="\n")
        return pd.DataFrame()
    return disentangle.leakage(model, faces, seed, features=features)


def leakage_rows(run: Run, encoded: Mapping[str, Encoded]) -> pd.DataFrame:
    """`leakage` of each method but `CONTROLS`; shows its progress."""
    learnt = {method: own for method, own in encoded.items() if method not in CONTROLS}
    for note in disentangle.leakage_plan(run.faces, run.seed).left_out:
        if note.reason == "one value":  # the other notes are told with the probes
            print(note)
    parts = [
        leakage(own.features, run.faces, run.seed).assign(method=method, precision=own.precision)
        for method, own in tqdm(learnt.items(), desc="leakage", unit="method")
    ]
    return pd.concat(parts, ignore_index=True)


def swap_rows(run: Run) -> pd.DataFrame:
    """`disentangle.swap_report` of `SWAPPED`; empty where no factor of swaps is labelled. Prints what is left out."""
    known, split, left_out = disentangle.swap_plan(run.faces)
    for note in left_out:
        print(note)
    if split is None:
        return pd.DataFrame()
    parts = []
    for method in SWAPPED:
        training = run.trained(method)
        rows = disentangle.swap_report(training.model, run.sized(), seed=run.seed, factors=known)
        parts.append(rows.assign(method=method, precision=training.precision))
    return pd.concat(parts, ignore_index=True)


def truth_rows(run: Run, others: Mapping[str, PCL], n: int = 200) -> pd.DataFrame:
    """`swap_truth.scores` of `SWAPPED` and of other models, by name, on n swaps of the run's test people.

    Empty, and that is said, where nobody knows the truth: of photographs, or of too few people.
    """
    models = {method: run.trained(method).model for method in SWAPPED} | dict(others)
    try:
        drawn = {
            x.image_size: swap_truth.draw_swaps(run.faces, x.image_size, n, run.seed) for x in models.values()
        }
    except BadInput as error:
        print(f"Swaps are not judged by the truth: {error}.")
        return pd.DataFrame()
    parts = [
        swap_truth.scores(model, drawn[model.image_size], run.seed).assign(method=method)
        for method, model in models.items()
    ]
    return pd.concat(parts, ignore_index=True).assign(precision="32-true")


def donors(faces: FaceSet, count: tuple[int, int] = (5, 7)) -> tuple[np.ndarray, np.ndarray]:
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


def swap(model: PCL, faces: FaceSet, face_rows: np.ndarray, pose_rows: np.ndarray) -> Swaps:
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


def _made_from(run: Run, encoded: Mapping[str, Encoded]) -> str:
    """A hash of what rows of these features depend on: the features, all sets of the run, and the library."""
    marks = [f"{method} {own.mark}" for method, own in encoded.items()]
    parts = [*marks, *(faces.content_hash for faces in run.sets), library_hash()]
    return "sha256:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _of_features(
    make: Callable[[Run, Mapping[str, Encoded]], pd.DataFrame],
    run: Run,
    encoded: Mapping[str, Encoded] | None,
) -> pd.DataFrame:
    encoded = encoded or encode(run)
    return make(run, encoded).assign(made_from=_made_from(run, encoded))


MAKERS: dict[str, Callable[[Run, Mapping[str, Encoded] | None], pd.DataFrame]] = {
    "probes": partial(_of_features, probe_rows),
    "leakage": partial(_of_features, leakage_rows),
    "swaps": lambda run, _: swap_rows(run),
}


def rows_of(run: Run, name: str, encoded: Mapping[str, Encoded] | None = None) -> pd.DataFrame:
    """Result rows `name` (a key of `MAKERS`) of a run: read where they were stored, else made and saved, saying which.

    Rows of another seed, preset or data set are not taken. encoded: the features that they must come from, by this
    version of the library; None takes those of any. An empty table where the set lacks the labels.
    """
    path = run.out / "tables" / f"{name}.csv"
    if path.is_file():
        saved = pd.read_csv(path)
        own = {"preset": run.preset.name, "seed": run.seed}
        if encoded is not None:
            own["made_from"] = _made_from(run, encoded)
        data = {view.name for view in probed(run).views} if name == "probes" else {run.faces.name}
        if set(saved["data"]) == data and all(
            column in saved and (saved[column] == value).all() for column, value in own.items()
        ):
            print(f"{name}: {len(saved)} stored rows read from {path}; nothing is computed again.")
            return saved
    print(f"{name}: there are no rows of this run yet, so they are made now.")
    return run.save_rows(MAKERS[name](run, encoded), name)


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


@spent("probe")
def predict_pose(faces: FaceSet, x: FrozenFeatures) -> tuple[np.ndarray, np.ndarray] | None:
    """The pose probe's test images on the general feature: true and predicted angles, degrees, [n, angles] each.

    The probe is that of `probes.evaluate`. None where the set has no angles.
    """
    made = plan(faces)
    if made.pose is None:
        return None
    y = faces.table[list(made.angles)].to_numpy(float)
    cached = linear.CachedFeatures(x.general, np.arange(len(faces)), len(faces))
    predicted, _ = linear.predict_values(cached, made.pose, y, robust=True)
    return y[made.pose.test], predicted


@spent("probe")
def predict_expression(faces: FaceSet, x: FrozenFeatures) -> tuple[np.ndarray, np.ndarray] | None:
    """As `predict_pose` for expressions: true and predicted classes of the test images, [n] each."""
    split = plan(faces).expression
    if split is None:
        return None
    y = expression_codes(faces.table["expression"])
    cached = linear.CachedFeatures(x.general, np.arange(len(faces)), len(faces))
    predicted, _ = linear.predict_classes(cached, split, y)
    return y[split.test], predicted


def contact_sheet(faces: FaceSet, seed: int = 0, count: int = 8) -> tuple[np.ndarray, list[str]]:
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


def rows_of_set(rows: pd.DataFrame, faces: FaceSet) -> pd.DataFrame:
    """Those of the probe rows that are of this set; empty where it could not be probed."""
    return rows[rows["data"] == faces.name].reset_index(drop=True) if len(rows) else rows


def reference_results() -> pd.DataFrame:
    """Figures that others published for earlier methods: method, dataset, metric, value, unit, source."""
    return pd.read_csv(REFERENCE)
