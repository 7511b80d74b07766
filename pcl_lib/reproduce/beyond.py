"""What notebooks 09 and 10 share: strangers whose factors are known, other ways to a head pose, a head in a clip."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib import probes
from pcl_lib.data import FaceSet, make_pairs
from pcl_lib.data.rendered import STRANGERS, RenderedFaces, gallery_table
from pcl_lib.disentangle.attributes import FACTORS, attribute_rows, swap_shares
from pcl_lib.disentangle.swap_truth import fit_probe, read
from pcl_lib.faces import camera, head_landmarks
from pcl_lib.faces.clips import sample_clips
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.faces.pnp import solve_pose
from pcl_lib.methods import changes
from pcl_lib.probes import linear
from pcl_lib.probes.tasks import Split, plan
from pcl_lib.reproduce.run import Run
from pcl_lib.utils import REPOSITORY, BadInput, spent

# The test images once more without glasses and occluder, and then with one difficulty each.
CASES: dict[str, dict[str, int]] = {
    "plain": {},
    "60 degrees": {},
    "glasses": {"glasses": 2},
    "occluder": {"occluder": 1},
}
# The trainings of notebook 09 by title: method, and the attribute that it separates.
CHOSEN = ("flip", "light", "colour", "occluder")
ATTRIBUTES = {name: ("pcl_change", name) for name in CHOSEN} | {
    f"{name}, remedy": ("pcl_change_freed", name) for name in ("flip", "occluder")
}
# Of `make beyond`: changes that only the renderer can make.
ORACLES = {name: ("pcl_change", name) for name in changes.ORACLES}
# The settings of those trainings on a processor: an encoder that is fast there, and small batches.
LIGHT: Mapping[str, dict[str, Any]] = {
    "cpu": {
        "model.backbone": "patches", "model.width": 0.5, "model.norm": "batch", "train.pdd_batch": 12,
        "train.face_batch": 24, "train.pose_batch": 12,
    },
}  # fmt: skip
OCCLUDED = 4  # one image in so many of each stranger has an occluder
CLIP = 24  # frames
SWAPS = 200  # pairs
SHARES = ("follows", "takes")
KEPT = ("accuracy", "F1 mean", "MAE yaw")  # of the tasks


def strangers(size: int, people: int, images_per_person: int, cases: bool = False) -> RenderedFaces:
    """Rendered people whom nothing was trained on, the shipped weights neither, with pairs of their test images.

    One image in `OCCLUDED` has an occluder. cases: whether the test images come again in each of `CASES`, as rows
    whose split is called so.
    """
    table = gallery_table(people, images_per_person)
    table["occluder"] = (np.arange(len(table)) // people % OCCLUDED == 0).astype(int)
    test = table[table["split"] == "test"]
    if cases:
        plain = test.assign(glasses=0, occluder=0)
        more = [plain.assign(split=name, **changes) for name, changes in CASES.items()]
        more[1]["yaw"] = 60.0 * np.sign(more[1]["yaw"])
        table = pd.concat([table, *more], ignore_index=True)
    faces = RenderedFaces(table, size)
    faces.name = "rendered strangers"
    faces.pairs = make_pairs(table, faces.split("test"), seed=STRANGERS)
    return faces


@dataclass(frozen=True)
class Way:
    """A way to the head pose, and what it found.

    angles: degrees [n, 3] of all images of a set, NaN where none was found. identity: features [n, D] whose cosine
    tells people apart, None where the way has none. seconds: of training.
    """

    name: str
    labels: str
    angles: np.ndarray
    identity: Tensor | None = None
    seconds: float = 0.0


def by_features(name: str, labels: str, model: Any, faces: FaceSet, seconds: float = 0.0) -> Way:
    """Pose by a linear probe on the even and odd components of the general feature, identity by the even one."""
    found = probes.extract(probes.EvenOdd(model), faces)
    assert found.even is not None and found.odd is not None  # EvenOdd makes them
    both = torch.cat([found.even, found.odd], 1)
    return Way(name, labels, probed_angles(both, faces), found.even, seconds)


def by_pair(name: str, labels: str, model: Any, faces: FaceSet, seconds: float = 0.0) -> Way:
    """Pose by a linear probe on the pose-related feature, identity by the face-aware one.

    Raises BadInput where the model lacks one of them.
    """
    found = probes.extract(model, faces)
    if found.pose is None or found.face is None:
        raise BadInput(f"{name} has no pair of features: judge it by its general one")
    return Way(name, labels, probed_angles(found.pose, faces), found.face, seconds)


def probed_angles(x: Tensor, faces: FaceSet) -> np.ndarray:
    """Angles in degrees [n, 3] by a linear probe on features x [n, D], NaN for the images that it is fitted on."""
    train, validation = faces.split("train"), faces.split("validation")
    rest = np.setdiff1d(np.arange(len(faces)), np.concatenate([train, validation]))
    truth, angles = faces.table[list(POSE)].to_numpy(float), np.full((len(faces), 3), np.nan)
    cached = linear.CachedFeatures(x, np.arange(len(faces)), len(faces))
    angles[rest], _ = linear.predict_values(cached, Split(train, validation, rest), truth, robust=True)
    return angles


def mean_head(faces: FaceSet) -> np.ndarray:
    """Where the landmarks of the mean training head are: [8, 3] cm. It stands in for everybody's own head."""
    return head_landmarks(faces.table[list(NUMERIC)].iloc[faces.split("train")]).mean(0)


def by_landmarks(faces: FaceSet, noise: float, seed: int = 0) -> Way:
    """PnP on the renderer's eight landmarks, hidden ones too, moved by Gaussian noise of so many pixels."""
    places = landmarks(faces)
    places = places + noise * np.random.default_rng(seed).standard_normal(places.shape)
    angles = solve_pose(places, mean_head(faces), faces.image_size)
    return Way(f"landmarks, {noise:g} px off, PnP", "8 landmarks of every image, a 3D head", angles)


def trained_network(
    faces: FaceSet, targets: np.ndarray, steps: int, seed: int = 0
) -> tuple[np.ndarray, float]:
    """What a small network trained on the training images finds in all images: [n, C] as `targets`, and seconds."""
    start, train = time.perf_counter(), faces.split("train")
    mean, spread = targets[train].mean(0), targets[train].std(0)
    wanted = torch.from_numpy((targets[train] - mean) / spread).float()
    network = fit_probe(faces.images(train), wanted, targets.shape[1], F.l1_loss, seed, steps)
    seconds = time.perf_counter() - start
    return read(network, faces.images(np.arange(len(faces)))).double().numpy() * spread + mean, seconds


def landmarks(faces: FaceSet) -> np.ndarray:
    """Where the renderer's eight landmarks are in every image, hidden ones too: [n, 8, 2] pixels."""
    table = faces.table[list(NUMERIC)]
    return camera.project(table, head_landmarks(table), faces.image_size)[
        0
    ]  # which are seen would cost a depth map


def stored(run: Run, name: str) -> Path | None:
    """The CSV that `make beyond` left: for this preset if it ran here, else the kit's own record; says which.

    name: of a file in tables, such as "longer_ways"; its Markdown stands next to it. None where there is neither.
    """
    own = run.out.parent / f"{run.preset.name}-beyond" / "tables" / f"{name}.csv"
    record = REPOSITORY / "figures" / "tables" / f"{name}.csv"
    for path, said in ((own, "of this machine"), (record, "on record, of the kit's own run")):
        if path.is_file():
            print(f"{name}: stored rows {said}; nothing is trained here.")
            return path
    print(f"{name}: there are no rows yet; make beyond PRESET={run.preset.name} makes them.")
    return None


def judge(ways: list[Way], faces: FaceSet) -> pd.DataFrame:
    """A row per way: errors in degrees on the test images and in each of `CASES`, and cross-pose verification.

    faces: `strangers` with their cases. A way without a feature of identity has NaN there.
    """
    truth, pairs = faces.table[list(POSE)].to_numpy(float), plan(faces).cross_pose
    rows = []
    for way in ways:
        error = np.abs(way.angles - truth)
        row: dict[str, Any] = {"way": way.name, "labels used": way.labels}
        row |= {f"{angle} MAE": error[faces.split("test"), i].mean() for i, angle in enumerate(POSE)}
        row |= {f"yaw, {case}": error[faces.split(case), 0].mean() for case in CASES}
        row["cross-pose verification"] = np.nan
        if way.identity is not None and pairs is not None:
            row["cross-pose verification"] = _verified(way.identity, pairs)
        rows.append(row | {"seconds": way.seconds})
    return pd.DataFrame(rows)


def _verified(identity: Tensor, pairs: pd.DataFrame) -> float:
    first, second = (
        identity[torch.tensor(pairs[end].to_numpy(int, copy=True))] for end in ("first", "second")
    )
    alike = F.cosine_similarity(first.double(), second.double()).cpu().numpy()
    right, _ = linear.verify(alike, pairs["same"].to_numpy(bool), pairs["fold"].to_numpy())
    return float(right.mean())


def attribute_tables(
    models: Mapping[str, Any],
    faces: RenderedFaces,
    seed: int = 0,
    trainings: Mapping[str, tuple[str, str]] = ATTRIBUTES,
) -> dict[str, pd.DataFrame]:
    """What notebook 09 asks of its models, a table each: features, swaps and tasks.

    models: "untrained", and those of `trainings`. faces: `strangers`. A row of features is a model and a question,
    one of swaps a model, one of tasks a model.
    """
    features, swaps, tasks = [], [], []
    for title, (_, name) in trainings.items():
        asked = {title: models[title]} | (
            {} if "remedy" in title else {f"{name}, untrained": models["untrained"]}
        )
        for said, model in asked.items():
            found = attribute_rows(model, faces, name, seed).assign(model=said)
            features.append(
                found.pivot(index=["model", "question", "metric"], columns="feature", values="value")
            )
        shares = swap_shares(models[title], faces, FACTORS[name], SWAPS, seed).set_index("picture")
        row = {"model": title}
        row |= {
            f"{picture} {share}": shares.loc[picture, share] for picture in shares.index for share in SHARES
        }
        swaps.append(row)
    for title, model in models.items():
        found = probes.evaluate(model, faces, features=["general"], seed=seed)
        found = found[found["metric"].isin(KEPT)]
        tasks.append(
            {"model": title} | dict(zip(found["task"] + " " + found["metric"], found["value"], strict=True))
        )
    return {
        "features": pd.concat(features).reset_index(),
        "swaps": pd.DataFrame(swaps),
        "tasks": pd.DataFrame(tasks),
    }


@spent("probe")
def track(model: Any, people: int, images_per_person: int, clips: int, seed: int = 0) -> pd.DataFrame:
    """Follow the yaw of heads through clips by a linear probe on the pose-related feature, frame by frame.

    The probe is fitted on still pictures of other people (`gallery_table`); nothing smooths over frames. Returns clip,
    frame, true and found (degrees of yaw) and constant: what the mean of the still pictures would say. Raises BadInput
    where the model has no pose-related feature.
    """
    size = model.config.image_size
    stills = gallery_table(people, images_per_person)
    first = STRANGERS + people
    frames = sample_clips(clips, CLIP, seed, first_identity=first, clutter=0.2).assign(split="clip")
    faces = RenderedFaces(pd.concat([stills, frames], ignore_index=True), size)
    pose = probes.extract(model, faces).pose
    if pose is None:
        raise BadInput("a head is followed by a pose-related feature, and this model has none")
    cached = linear.CachedFeatures(pose, np.arange(len(faces)), len(faces))
    split = Split(faces.split("train"), faces.split("validation"), faces.split("clip"))
    yaw = faces.table[["yaw"]].to_numpy(float)
    found, _ = linear.predict_values(cached, split, yaw)
    table = frames[["clip", "frame"]].reset_index(drop=True)
    return table.assign(true=yaw[split.test, 0], found=found[:, 0], constant=yaw[split.train, 0].mean())
