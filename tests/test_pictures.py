"""widgets.pictures and probes.directions against closed forms and what the library does in other words."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pcl_lib import augment, presets
from pcl_lib.faces import render, sample_factors
from pcl_lib.models import PCL
from pcl_lib.probes.directions import fit_probe
from pcl_lib.utils import BadInput
from pcl_lib.widgets import pictures
from pcl_lib.widgets.pictures import Donor, Scale

SIZE = 32


@pytest.fixture(scope="module")
def model() -> PCL:
    model = PCL(presets.get("smoke").model, seed=1).eval()
    model.decoder_noise = 0.1
    return model


@pytest.fixture(scope="module")
def people() -> tuple[torch.Tensor, pd.DataFrame]:
    factors = sample_factors(3, seed=4)
    return render(factors, size=SIZE), factors


@pytest.fixture(scope="module")
def donors(model: PCL, people: tuple[torch.Tensor, pd.DataFrame]) -> list[Donor]:
    images, factors = people
    return [pictures.encode_donor(model, images[i], factors.iloc[[i]]) for i in range(2)]


def test_png_keeps_every_pixel() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(pictures.png(picture)))) == picture).all()


def test_rgb_is_rounded_clipped_and_channels_last() -> None:
    image = torch.tensor([0.5, 1.7, -0.1])[:, None, None].expand(3, 2, 4)
    assert pictures.to_rgb(image).shape == (2, 4, 3)
    assert pictures.to_rgb(image)[0, 0].tolist() == [128, 255, 0]


def test_sheet_places_each_image_in_its_row_and_column() -> None:
    colours = torch.tensor([[10, 60, 110], [160, 210, 250]], dtype=torch.uint8)
    images = colours[..., None, None, None].expand(2, 3, 3, 8, 8)
    page = pictures.sheet(images, [["a"] * 3] * 2, side=20)
    height, width = page.shape[0] // 2, page.shape[1] // 3
    middles = page[10::height, 10::width][:2, :3]
    assert (middles == colours.numpy()[..., None]).all()
    for captions in ([["a"] * 3], [["a"] * 2] * 2):
        with pytest.raises(BadInput, match="captions"):
            pictures.sheet(images, captions)
    with pytest.raises(BadInput, match="rows, columns"):
        pictures.sheet(images[0])


def test_the_ends_of_a_blend_are_the_four_decodings(
    model: PCL, donors: list[Donor], people: tuple[torch.Tensor, pd.DataFrame]
) -> None:
    with torch.inference_mode():
        _, face, pose = model.decoder_features(people[0][:2])
        straight = [model.decode(face[[i]], pose[[j]])[0] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1))]
        half = model.decode(face[[0]], (pose[[0]] + pose[[1]]) / 2)[0]
    ours = pictures.blends(model, *donors, [0, 0, 1, 1, 0], [0, 1, 0, 1, 0.5])
    torch.testing.assert_close(ours, torch.stack([*straight, half]), atol=1e-4, rtol=1e-4)


def test_truth_is_the_nearer_face_at_the_pose_between(
    donors: list[Donor], people: tuple[torch.Tensor, pd.DataFrame]
) -> None:
    images, factors = people
    same = pictures.blend_truth(*donors, face=0.0, pose=0.0, turn=0.0, size=SIZE)
    assert same is not None and (same == images[0]).all()
    a, b = factors.iloc[0], factors.iloc[1]
    wanted = factors.iloc[[1]].assign(**{n: 0.75 * a[n] + 0.25 * b[n] for n in ("yaw", "pitch", "roll")})
    wanted["yaw"] += 12
    moved = pictures.blend_truth(*donors, face=0.8, pose=0.25, turn=12.0, size=SIZE)
    assert moved is not None and (moved == render(wanted, size=SIZE)[0]).all()
    unknown = Donor(images[0], donors[0].face, donors[0].pose)
    assert pictures.blend_truth(unknown, donors[1], 0, 0, 0, SIZE) is None


def test_factors_that_lack_a_column_or_a_value_are_not_taken_for_the_truth(
    model: PCL, people: tuple[torch.Tensor, pd.DataFrame]
) -> None:
    images, factors = people
    for known in (factors[["yaw", "pitch"]], factors.assign(zoom=np.nan)):
        assert pictures.encode_donor(model, images[0], known.iloc[[0]]).factors is None


def test_the_matrix_shows_donors_and_the_swaps_made_so_far(donors: list[Donor]) -> None:
    a, b = donors
    swap = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    grid = pictures.swap_matrix([a, b], [b, a, b], {(1, 2): swap})
    assert grid.shape == (3, 4, 3, SIZE, SIZE)
    assert (grid[2, 3] == swap).all()
    for row, column, donor in ((1, 0, a), (2, 0, b), (0, 1, b), (0, 2, a), (0, 3, b)):
        torch.testing.assert_close(grid[row, column], donor.image / 255)
    empty = [(0, 0), *[(r, c) for r in (1, 2) for c in (1, 2, 3) if (r, c) != (2, 3)]]
    assert all((grid[place] == 1).all() for place in empty)


def test_a_reader_finds_a_linear_rule_and_turns_by_what_is_asked() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(0, 20, (400, 2))
    directions = rng.normal(size=(2, 12))
    x = torch.from_numpy(y @ directions + rng.normal(0, 0.01, (400, 12)) + 3).float()
    reader = fit_probe(x[:300], y[:300], x[300:], y[300:], ["yaw", "pitch"])
    read = reader.predict(x[300:]).numpy()
    np.testing.assert_allclose(read, y[300:], atol=0.5)
    assert min(reader.r2.values()) > 0.99
    turned = reader.turn(x[300:], "yaw", 15.0)
    np.testing.assert_allclose(reader.predict(turned)[:, 0].numpy(), read[:, 0] + 15, atol=0.05)
    # Of independent factors, the feature itself moves as the rule that made it says.
    moved = (turned - x[300:])[0].numpy()
    np.testing.assert_allclose(moved, 15 * directions[0], atol=0.15 * 15 * np.abs(directions[0]).max())
    with pytest.raises(BadInput, match="yaw, pitch, not roll"):
        reader.turn(x, "roll", 1.0)
    with pytest.raises(BadInput, match="two training"):
        fit_probe(x[:1], y[:1], x[1:], y[1:], ["yaw", "pitch"])


def test_views_of_one_line_stay_while_the_other_changes(people: tuple[torch.Tensor, pd.DataFrame]) -> None:
    image, preset = people[0][0], presets.get("paper")
    rows = pictures.view_rows(image, preset.face_view, preset.pose_view, 4, seed=3)
    assert rows.shape == (3, 4, 3, SIZE, SIZE)
    plain = presets.ViewPreset(crop="none", jitter=0, grey=0, blur=0, gradient=0)
    other = pictures.view_rows(image, plain, preset.pose_view, 4, seed=3)
    assert (other[0] == image / 255).all() and (other[1:] == rows[1:]).all()
    flipped = pictures.view_rows(image, plain, plain, 2)
    torch.testing.assert_close(flipped[2], (image.flip(2) / 255).expand(2, -1, -1, -1))
    by_hand = augment.views(image[None], preset.pose_view, torch.Generator().manual_seed(10), 4)
    torch.testing.assert_close(rows[1], by_hand)


def test_nearest_by_cosine_without_the_query_itself() -> None:
    x = 100 + torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places, cosine = pictures.nearest(x, 4, 6)
    unit = (x - x.mean(0)).numpy()
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    naive = sorted(((float(unit[4] @ unit[i]), i) for i in range(30) if i != 4), reverse=True)[:6]
    assert places.tolist() == [i for _, i in naive]
    np.testing.assert_allclose(cosine, [near for near, _ in naive], atol=1e-4)


def test_dots_stand_where_the_readings_are() -> None:
    scale = [Scale("yaw", -60, 60, "°")]

    def centre(value: float, ink: tuple[int, int, int]) -> float:
        chart = pictures.readings_chart(scale, {"yaw": 0.0}, {"pose": {"yaw": value}})
        line = chart[26 + 13, 125:415]  # the factor's line, without name and numbers
        return float(np.flatnonzero((line == ink).all(1)).mean())

    places = [centre(value, pictures.POSE_INK) for value in (-60.0, 0.0, 60.0, 600.0)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=1)
    assert places[3] == places[2] and places[1] == pytest.approx(145, abs=1.5)
