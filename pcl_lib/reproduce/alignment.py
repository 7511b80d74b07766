"""Alignment, for notebook 10: images moved so that landmarks meet, by true landmarks or by a detector's.

A detector of somebody else has learnt from labelled photographs; no label of the kit's own faces goes into it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from pcl_lib import data as sets
from pcl_lib import pretrain
from pcl_lib.data.crop import find_eyes
from pcl_lib.data.rendered import RenderedFaces
from pcl_lib.faces.factors import POSE
from pcl_lib.faces.pnp import solve_pose
from pcl_lib.presets import override
from pcl_lib.probes import RawPixels
from pcl_lib.reproduce import beyond
from pcl_lib.reproduce.run import Run
from pcl_lib.utils import BadInput

ENLARGED = 4  # times, for detectors, which look for faces of more pixels than the strangers' images have
LEARNT_AT = 32  # pixels of the images that SimCLR and raw pixels see
ITERATIONS = {"smoke": 2, "cpu": 60}  # of that SimCLR
LONG = 1000  # of the other presets
BATCH = 48  # images that a detector gets at once


def align(images: Tensor, places: np.ndarray, target: np.ndarray) -> Tensor:
    """Images turned, scaled and shifted so that landmarks come nearest to `target` in least squares.

    images: uint8 [n, 3, S, S]; places: [n, L, 2] pixels, L >= 2, NaN where none were found: such an image stays as it
    is; target: [L, 2]. As complex numbers, the transform a z + b has a = the regression of the centred target on the
    centred places. Empty corners are black.
    """
    import cv2

    aligned = []
    goal = target @ (1, 1j)
    for image, points in zip(images, places @ (1, 1j), strict=True):
        if not np.isfinite(points).all():
            aligned.append(image)
            continue
        spread = points - points.mean()
        a = np.vdot(spread, goal - goal.mean()) / np.vdot(spread, spread).real
        b = goal.mean() - a * points.mean()
        move = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
        move[:, 2] += move[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV's pixel i has its middle at i, ours at i + 0.5
        pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        aligned.append(torch.from_numpy(cv2.warpAffine(pixels, move, image.shape[:0:-1])).permute(2, 0, 1))
    return torch.stack(aligned)


class Aligned:
    """A set whose images are aligned to the mean of the places found in its training images.

    places: [n, L, 2] pixels, NaN where none were found. Table, splits and pairs are the set's own. Raises BadInput
    where no training image has any.
    """

    def __init__(self, faces: RenderedFaces, places: np.ndarray) -> None:
        self.table, self.split, self.image_size = faces.table, faces.split, faces.image_size
        self.name, self.info, self.pairs = f"aligned {faces.name}", faces.info, faces.pairs
        seen = places[faces.split("train")]
        if not np.isfinite(seen).any():
            raise BadInput(f"alignment: no landmarks were found in any training image of {faces.name}")
        target = np.nanmean(seen, axis=0)
        self._images = align(faces.images(np.arange(len(faces))), places, target)

    def __len__(self) -> int:
        return len(self._images)

    def images(self, rows: Any) -> Tensor:
        """uint8 [len(rows), 3, S, S]."""
        return self._images[torch.as_tensor(np.asarray(rows))]


def learnt(run: Run, source: Any, name: str, labels: str) -> list[beyond.Way]:
    """Two ways on the images of a set as they are: raw pixels, and SimCLR without flips, trained here for a short time.

    source: `strangers`, or the same `Aligned`; both see it at `LEARNT_AT` pixels. name: what stands before "pixels"
    and "SimCLR" in the names of the ways.
    """
    iterations = ITERATIONS.get(run.preset.name, LONG)
    settings = override(run.preset, {
        "model.image_size": LEARNT_AT, "train.epochs": 2, "train.iterations_per_epoch": iterations // 2,
        "train.frames_per_identity": 200, "train.checkpoint_every": 2,
    })  # fmt: skip
    train, few = source.split("train"), sets.SizedFaces(source, LEARNT_AT)
    with tempfile.TemporaryDirectory() as folder:
        own = source.table.iloc[train][["identity", "split"]]
        sets.write_prepared(f"{folder}/set", source.images(train), own, name=source.name, source="rendered")
        prepared = sets.PreparedFaces(f"{folder}/set")
        told = pretrain.fit(
            "simclr_noflip", preset=settings, faces=prepared, out=f"{folder}/run", seed=run.seed
        )
    return [
        beyond.by_features(f"{name}pixels", labels, RawPixels(), few),
        beyond.by_features(f"{name}SimCLR", labels, told.model, few, told.seconds),
    ]


def by_opencv(images: Tensor) -> np.ndarray:
    """The eyes that OpenCV's Haar cascades find: [n, 2, 2] pixels, the image's left eye first, NaN where not both.

    images: uint8 [n, 3, S, S].
    """
    places = np.full((len(images), 2, 2), np.nan)
    for found, picture in zip(places, _enlarged(images), strict=True):
        if eyes := find_eyes(picture):
            found[:] = eyes
    return places / ENLARGED


def by_mtcnn(images: Tensor) -> np.ndarray:
    """Eyes, nose and corners of the mouth that MTCNN finds in the largest face: [n, 5, 2] pixels, NaN without a face.

    images: uint8 [n, 3, S, S]. The order is that of the first five of the renderer's landmarks. MTCNN (Zhang et al.,
    IEEE Signal Processing Letters 2016) with the weights that the package facenet-pytorch brings. Raises BadInput
    where that package is not installed.
    """
    try:
        from facenet_pytorch import MTCNN
    except ImportError:
        raise BadInput(
            "MTCNN: the package facenet-pytorch is not installed; pip install --no-deps facenet-pytorch adds it"
            " to this environment and leaves its PyTorch as it is"
        ) from None
    network = MTCNN(select_largest=True)
    places = np.full((len(images), 5, 2), np.nan)
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        _, _, found = network.detect(_enlarged(chunk), landmarks=True)
        for i, points in enumerate(found):
            if points is not None:
                places[start + i] = points[0]
    return places / ENLARGED


def _enlarged(images: Tensor) -> list[Image.Image]:
    size = ENLARGED * images.shape[-1]
    pictures = (Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images)
    return [picture.resize((size, size), Image.Resampling.BICUBIC) for picture in pictures]


DETECTORS: Mapping[str, Callable[[Tensor], np.ndarray]] = {"OpenCV's eyes": by_opencv, "MTCNN": by_mtcnn}
ELSEWHERE = "none here; photographs elsewhere"  # of the column "labels used"


def found_pose(name: str, places: np.ndarray, faces: RenderedFaces) -> beyond.Way:
    """PnP on the landmarks that a detector found, on a mean head; the mean training angles where it found no face.

    places: [n, 5, 2] pixels, of the first five of the renderer's landmarks.
    """
    angles = faces.table[list(POSE)].to_numpy(float)
    found = np.isfinite(places).all((1, 2))
    answers = np.repeat(angles[faces.split("train")].mean(0)[None], len(faces), 0)
    answers[found] = solve_pose(places[found], beyond.mean_head(faces)[:5], faces.image_size)
    return beyond.Way(name, f"{ELSEWHERE}; a 3D head", answers)


def found_table(name: str, places: np.ndarray, faces: RenderedFaces) -> dict[str, Any]:
    """How many faces a detector finds among the test images and in each case, and how far off it is.

    Shares are of images; *pixels off* is the mean distance to the renderer's landmarks of the test images found.
    """
    found = np.isfinite(places).all((1, 2))
    off = np.linalg.norm(places - beyond.landmarks(faces)[:, : places.shape[1]], axis=2).mean(1)
    test = faces.split("test")
    row: dict[str, Any] = {"detector": name, "landmarks": places.shape[1], "test images": found[test].mean()}
    row |= {case: found[faces.split(case)].mean() for case in beyond.CASES}
    return row | {"pixels off": np.nanmean(off[test]) if found[test].any() else np.nan}


def compare(run: Run, faces: RenderedFaces) -> tuple[list[beyond.Way], pd.DataFrame]:
    """All ways by the detectors that are there, and `found_table` of each; says which detector is not there."""
    images, ways, rows = faces.images(np.arange(len(faces))), [], []
    for name, detector in DETECTORS.items():
        try:
            places = detector(images)
            aligned = Aligned(faces, places)
        except BadInput as missing:
            print(f"{missing}. The rows of {name} are left out.")
            continue
        rows.append(found_table(name, places, faces))
        ways += learnt(run, aligned, f"align by {name}, then ", ELSEWHERE)
        if places.shape[1] >= 4:
            ways.append(found_pose(f"{name}, PnP", places, faces))
    return ways, pd.DataFrame(rows)
