"""Alignment by true landmarks and by detectors, on rendered faces whose landmarks are known."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from skimage.transform import estimate_transform

from pcl_lib.data.crop import find_eyes
from pcl_lib.data.rendered import RenderedFaces
from pcl_lib.faces.factors import POSE
from pcl_lib.faces.mesh import LANDMARKS
from pcl_lib.reproduce import alignment, beyond, longer
from pcl_lib.utils import BadInput


@pytest.fixture(scope="module")
def faces() -> RenderedFaces:
    return beyond.strangers(64, 20, 6, cases=True)


def test_alignment_is_the_similarity_transform_of_scikit_image() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(8, 24, (8, 2))
    turned = Rotation.from_euler("z", 20, degrees=True).as_matrix()[:2, :2]
    places = (target - 16) @ turned.T * 0.8 + 15
    wanted = estimate_transform("similarity", places, target)
    dots = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    y, x = np.mgrid[:32, :32] + 0.5
    for dot, (px, py) in zip(dots, places, strict=True):
        dot[:] = torch.from_numpy(255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 4)).byte()
    aligned = alignment.align(dots, np.repeat(places[None], 8, 0), target).float().mean(1).numpy()
    for found, point in zip(aligned, places, strict=True):
        centre = np.array([(found * x).sum(), (found * y).sum()]) / found.sum()
        assert np.allclose(centre, wanted(point)[0], atol=0.15)


def test_an_image_without_landmarks_stays_as_it_is(faces: RenderedFaces) -> None:
    places = beyond.landmarks(faces)[:, :2]
    places[3] = np.nan
    aligned = alignment.Aligned(faces, places)
    same = (aligned.images([2, 3]) == faces.images([2, 3])).flatten(1).all(1)
    assert same.tolist() == [False, True]
    with pytest.raises(BadInput, match="no landmarks were found in any training image of rendered strangers"):
        alignment.Aligned(faces, np.full_like(places, np.nan))


def test_eyes_are_found_where_the_renderer_put_them(faces: RenderedFaces) -> None:
    wanted = beyond.landmarks(faces)[:, :2]
    frontal = np.flatnonzero((faces.table["yaw"].abs() < 15) & (faces.table["glasses"] == 0))[:24]
    found = alignment.by_opencv(faces.images(frontal))
    off = np.linalg.norm(found - wanted[frontal], axis=2)  # pixels of 64
    assert np.isfinite(off).all(1).mean() > 0.6
    assert np.nanmedian(off) < 2 and np.nanmax(off) < 6


def test_where_there_is_no_face_there_are_no_eyes() -> None:
    assert find_eyes(Image.new("RGB", (200, 200), (90, 120, 60))) is None
    assert np.isnan(alignment.by_opencv(torch.full((2, 3, 64, 64), 100, dtype=torch.uint8))).all()


def stub(points: list[np.ndarray | None]) -> ModuleType:
    """A facenet_pytorch that finds `points` one image after the other, and checks what it is given."""
    module, rest = ModuleType("facenet_pytorch"), iter(points)

    class MTCNN:
        def __init__(self, select_largest: bool) -> None:
            assert select_largest

        def detect(self, pictures: list[Image.Image], landmarks: bool) -> tuple[None, None, list]:
            assert landmarks and {picture.size for picture in pictures} == {(256, 256)}
            return None, None, [None if (p := next(rest)) is None else p[None] for _ in pictures]

    module.MTCNN = MTCNN  # type: ignore[attr-defined]
    return module


def test_points_of_mtcnn_are_in_pixels_of_the_small_image(monkeypatch: pytest.MonkeyPatch) -> None:
    known = np.random.default_rng(0).uniform(0, 64, (100, 5, 2))
    monkeypatch.setitem(sys.modules, "facenet_pytorch", stub([*(4 * known[:99]), None]))
    found = alignment.by_mtcnn(torch.zeros(100, 3, 64, 64, dtype=torch.uint8))  # more than one batch
    assert np.allclose(found[:99], known[:99]) and np.isnan(found[99]).all()


def test_a_pose_of_a_detector_is_that_of_its_landmarks_and_the_mean_without(faces: RenderedFaces) -> None:
    places = beyond.landmarks(faces)[:, :5]
    places[7] = np.nan
    truth = faces.table[list(POSE)].to_numpy(float)
    angles = alignment.found_pose("known", places, faces).angles
    assert np.allclose(angles[7], truth[faces.split("train")].mean(0))
    rest = np.arange(len(faces)) != 7
    assert np.abs(angles - truth)[rest].mean() < 3 < np.abs(truth - truth.mean(0)).mean()


def test_what_is_found_is_counted_by_case(faces: RenderedFaces) -> None:
    assert LANDMARKS[:5] == ("right_eye", "left_eye", "nose_tip", "right_mouth", "left_mouth")
    places = beyond.landmarks(faces)[:, :5] + (3, 4)
    places[faces.split("60 degrees")[1:]] = np.nan
    row = alignment.found_table("known", places, faces)
    assert row["test images"] == 1 and row["60 degrees"] == 1 / len(faces.split("60 degrees"))
    assert row["pixels off"] == pytest.approx(5)


def test_detectors_at_smoke_with_a_package_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "facenet_pytorch", None)
    out = tmp_path / "runs" / "smoke-beyond"
    (out / "tables").mkdir(parents=True)
    kept = pd.DataFrame(
        {"way": ["conditional GAN", "align by OpenCV's eyes, then pixels"], "seconds": [7.0, 1]}
    )
    kept.to_csv(out / "tables" / "longer_ways.csv", index=False)
    longer.main(["--preset", "smoke", "--only", "detectors", "--out", str(out)])
    assert "pip install --no-deps facenet-pytorch" in capsys.readouterr().out
    ways = pd.read_csv(out / "tables" / "longer_ways.csv")
    assert ways["way"].tolist() == ["conditional GAN"] + [
        f"align by OpenCV's eyes, then {what}" for what in ("pixels", "SimCLR")
    ]
    assert ways["seconds"][0] == 7 and ways["yaw MAE"][1:].between(0, 90).all()
    (found,) = pd.read_csv(out / "tables" / "detectors.csv").to_dict("records")
    assert found["detector"] == "OpenCV's eyes" and found["60 degrees"] < found["test images"] < 1


def test_without_any_detector_what_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(_: torch.Tensor) -> np.ndarray:
        raise BadInput("OpenCV comes without its face detector")

    monkeypatch.setattr(alignment, "DETECTORS", {"OpenCV's eyes": missing})
    out = tmp_path / "runs" / "smoke-beyond"
    longer.main(["--preset", "smoke", "--only", "detectors", "--out", str(out)])
    assert "without its face detector. The rows of OpenCV's eyes are left out." in capsys.readouterr().out
    assert not list((out / "tables").glob("*.csv"))
