"""Swaps judged by the rendered truth: closed forms of the scores, the mask, and readers that know nothing of models."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import blob_images
from torch import Tensor, nn

from pcl_lib import data
from pcl_lib.disentangle import swap_truth
from pcl_lib.faces import render, sample_factors
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.utils import BadInput

SIZE = 32


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    """Rendered faces with just as many test people as are needed."""
    folder = tmp_path_factory.mktemp("truth") / "set"
    people = (80, 2, swap_truth.PEOPLE)
    return data.prepare_rendered(folder, identities=people, images_per_identity=3, size=SIZE, progress=False)


class Found(NamedTuple):
    """Features that are the image itself and where it is from."""

    face: Tensor
    pose: Tensor


class Oracle(nn.Module):
    """Knows the truth: the features are images, and decode looks the picture up.

    answer: "truth", "unturned" (the face donor's image) or "half" (half way between both).
    """

    image_size = SIZE

    def __init__(self, swaps: swap_truth.Swaps, answer: str) -> None:
        super().__init__()
        self.answer = answer
        self.truth = {
            (a.numpy().tobytes(), b.numpy().tobytes()): t
            for a, b, t in zip(swaps.shown_face, swaps.shown_pose, swaps.truth, strict=True)
        }

    def features(self, x: Tensor) -> Found:
        return Found(x, x)

    def decode(self, face: Tensor, pose: Tensor) -> Tensor:
        pictures = []
        for a, b in zip(face, pose, strict=True):
            true = self.truth.get(
                (a.numpy().tobytes(), b.numpy().tobytes()), a
            )  # plain: a and b are the truth
            share = {"truth": 1.0, "unturned": 0.0, "half": 0.5}[self.answer]
            pictures.append((share * true.float() + (1 - share) * a.float()) / 255)
        return torch.stack(pictures)


def perfect(swaps: swap_truth.Swaps) -> swap_truth.Readers:
    """Readers that look the true pictures up, and answer A unturned with A's own pose."""
    known = {t.numpy().tobytes(): i for i, t in enumerate(swaps.truth)}

    def place(pictures: Tensor) -> list[int]:
        bytes_of = (pictures.float() * (255 if pictures.is_floating_point() else 1)).round().byte()
        return [known.get(x.numpy().tobytes(), -1) for x in bytes_of]

    return swap_truth.Readers(
        lambda x: np.array([swaps.person[i] if i >= 0 else -1 for i in place(x)]),
        lambda x: np.stack([swaps.angles[i] if i >= 0 else np.full(3, 1000.0) for i in place(x)]),
    )


def values(faces: data.PreparedFaces, answer: str) -> dict[str, float]:
    swaps = swap_truth.draw_swaps(faces, SIZE, 40, 0)
    rows = swap_truth.report(Oracle(swaps, answer), faces, perfect(swaps), n=40)
    assert (rows["n"] == 40).all() and rows["measure"].is_unique
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()
    return dict(zip(rows["measure"], rows["value"], strict=True))


def test_the_truth_scores_one_and_showing_a_unturned_scores_zero(faces: data.PreparedFaces) -> None:
    truth, unturned = values(faces, "truth"), values(faces, "unturned")
    scores = [f"score {measure}{region}" for measure in ("L1", "SSIM") for region in ("", " head")]
    assert all(truth[name] == pytest.approx(1) and unturned[name] == pytest.approx(0) for name in scores)
    assert truth["identity rank-1"] == 1 and unturned["identity rank-1"] == 0
    assert all(truth[f"{angle} MAE"] == 0 for angle in POSE)
    half = values(faces, "half")
    assert half["score L1"] == pytest.approx(0.5) and half["score L1 head"] == pytest.approx(0.5)


def test_the_truth_of_a_smaller_picture_is_as_sharp_as_the_images(faces: data.PreparedFaces) -> None:
    def gradient(pictures: Tensor) -> float:
        return float(pictures.float().diff(dim=-1).square().mean())

    swaps = swap_truth.draw_swaps(faces, SIZE // 2, 200)
    assert gradient(swaps.truth) == pytest.approx(gradient(swaps.shown_face), rel=0.15)
    drawn_small = render(swap_truth.turn(faces.table, swaps.face, swaps.pose), SIZE // 2)
    assert gradient(drawn_small) > 1.3 * gradient(swaps.truth)


def test_the_scores_are_those_of_a_calculation_by_hand(faces: data.PreparedFaces) -> None:
    swaps = swap_truth.draw_swaps(faces, SIZE, 40, 0)
    noise = torch.Generator().manual_seed(0)
    plain, own = (torch.rand(swaps.truth.shape, generator=noise) * 0.02 * k for k in (1, 3))

    class Noisy(Oracle):
        def decode(self, face: Tensor, pose: Tensor) -> Tensor:
            exact = super().decode(face, pose)
            return exact + (plain if torch.equal(face, pose) else own)

    rows = swap_truth.report(Noisy(swaps, "truth"), faces, perfect(swaps), n=40).set_index("measure")
    true = swaps.truth.float() / 255
    unturned = (swaps.shown_face.float() / 255 - true).abs()
    p, o = (((true + x).clamp(0, 1) - true).abs() for x in (plain, own))
    wanted = (unturned.mean() - o.mean()) / (unturned.mean() - p.mean())
    assert rows.loc["score L1", "value"] == pytest.approx(float(wanted), rel=1e-4)
    assert rows.loc["score L1", "swapped"] == pytest.approx(float(o.mean()), rel=1e-4)
    mask = swaps.head[:, None].expand_as(true)
    inside = [float(np.mean([x[i][mask[i]].mean() for i in range(40)])) for x in (unturned, p, o)]
    wanted_head = (inside[0] - inside[2]) / (inside[0] - inside[1])
    assert rows.loc["score L1 head", "value"] == pytest.approx(wanted_head, rel=1e-4)


def test_the_truth_has_all_of_a_but_the_pose_of_b(faces: data.PreparedFaces) -> None:
    swaps = swap_truth.draw_swaps(faces, SIZE, 40, 1)
    table = faces.table
    assert (table["identity"].to_numpy()[swaps.face] != table["identity"].to_numpy()[swaps.pose]).all()
    assert set(table["split"].iloc[np.concatenate([swaps.face, swaps.pose])]) == {"test"}
    assert (swaps.numbers[swaps.person] == table["identity"].to_numpy()[swaps.face]).all()
    assert np.bincount(swaps.person).tolist() == [2] * swap_truth.PEOPLE
    turned = swap_truth.turn(table, swaps.face, swaps.pose)
    assert (turned[list(POSE)].to_numpy() == table[list(POSE)].iloc[swaps.pose].to_numpy()).all()
    rest = [name for name in NUMERIC if name not in POSE]
    assert (turned[rest].to_numpy() == table[rest].iloc[swaps.face].to_numpy()).all()
    assert torch.equal(swaps.shown_face, faces.images(swaps.face))


def test_the_mask_is_the_head_whatever_the_background() -> None:
    factors = sample_factors(12, seed=2, clutter=0.0).assign(noise=0.0, blur=0.0, occluder=0)[list(NUMERIC)]
    mask = swap_truth.head_mask(factors, 64)
    red = factors.assign(background_gradient=0.0, background_contrast=0.0)
    red = red.assign(background_r=1.0, background_g=0.0, background_b=0.0)
    blue = red.assign(background_r=0.0, background_b=1.0)
    differs = (render(red, 64).int() - render(blue, 64).int()).abs().amax(1)
    inside = (
        differs < 64
    )  # what a background of other colours leaves as it is; pixels of the outline may differ
    assert (inside == mask).float().mean() > 0.99
    assert (differs[mask] == 0).float().mean() > 0.99 and mask[:, 32, 32].all()
    assert 0.4 < mask.float().mean() < 0.9


def test_readers_learn_pose_and_people_from_rendered_pictures(
    faces: data.PreparedFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swap_truth, "STEPS", 60)
    monkeypatch.setattr(swap_truth, "PICTURES", 40)
    readers = swap_truth.fit_probes(faces, SIZE)
    swaps = swap_truth.draw_swaps(faces, SIZE, 100, 0)
    found = readers.pose(swaps.truth)
    assert found.shape == (100, 3)
    assert np.corrcoef(found[:, 0], swaps.angles[:, 0])[0, 1] > 0.6
    assert (readers.identity(swaps.truth) == swaps.person).mean() > 0.25  # chance is .05


def test_what_has_no_truth_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "few"
    few = data.prepare_rendered(folder, identities=(2, 2, 3), images_per_identity=2, size=16, progress=False)
    with pytest.raises(BadInput, match="3 test people"):
        swap_truth.draw_swaps(few, 16)
    table = few.table[["identity"]].reset_index(drop=True)
    data.write_prepared(tmp_path / "blobs", blob_images(len(table), 16), table, name="blobs", source="tests")
    with pytest.raises(BadInput, match="only swaps of rendered faces"):
        swap_truth.draw_swaps(data.PreparedFaces(tmp_path / "blobs"), 16)
