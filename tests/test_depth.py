"""Depth of rendered faces against the camera's own geometry; experiments on pictures whose content is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from pcl_lib.disentangle.swap_truth import head_mask
from pcl_lib.faces import camera, head_landmarks, mirror_factors, render_depth, sample_factors
from pcl_lib.faces.depth import BEHIND
from pcl_lib.reproduce import beyond, depth, longer
from pcl_lib.utils import BadInput

SIZE = 16


def bald(n: int) -> pd.DataFrame:
    """Frontal heads on which nothing hides eyes, nose, mouth and chin."""
    table = sample_factors(n, seed=5).assign(yaw=0.0, pitch=0.0, roll=0.0, hair_style=0, glasses=0)
    return table.assign(shift_x=0.0, shift_y=0.0, zoom=0.7)


def test_depth_at_landmarks_is_their_distance() -> None:
    table = bald(4)
    places, away = camera.project(table, head_landmarks(table), 256)
    found = render_depth(table, 256)[:, 0].numpy()
    column, row = np.floor(places).astype(int).transpose(2, 0, 1)
    at = found[np.arange(4)[:, None], row, column]
    assert np.abs(at - (camera.DISTANCE - away)).max() < 0.8  # cm
    assert np.abs(at - (camera.DISTANCE - away)).mean() < 0.3


def test_depth_of_the_mirror_image_is_mirrored() -> None:
    table = sample_factors(3, seed=1)
    flipped = render_depth(mirror_factors(table), 64).flip(3)
    apart = (render_depth(table, 64) - flipped).abs() > 0.2
    assert apart.float().mean() < 0.01  # the outline, by rounding


def test_depth_is_where_the_head_is_and_a_zoom_moves_no_surface() -> None:
    table = sample_factors(6, seed=2)
    found = render_depth(table, 64)[:, 0]
    head = found > BEHIND
    assert (head == head_mask(table, 64)).float().mean() > 0.97
    assert found[head].min() > BEHIND + 2 and found.max() < 15
    near, far = (render_depth(bald(1).assign(zoom=zoom), 64)[0, 0] for zoom in (1.3, 0.9))
    assert (near > BEHIND).sum() > (far > BEHIND).sum()
    assert near.max() == pytest.approx(far.max().item(), abs=0.2)


def test_depth_of_another_size_is_refused() -> None:
    with pytest.raises(BadInput, match="16 to 512 pixels a side, but size=8"):
        render_depth(sample_factors(1), 8)


def test_pictures_have_colours_and_depth_between_0_and_1() -> None:
    faces = beyond.strangers(SIZE, 5, 2)
    pictures = depth.with_depth(faces)
    assert pictures.shape == (10, 4, SIZE, SIZE) and pictures.min() >= 0 and pictures.max() <= 1
    assert torch.equal(pictures[:, :3], faces.images(np.arange(10)).float() / 255)
    centimetres = render_depth(faces.table, SIZE)[:, 0]
    assert torch.corrcoef(torch.stack([pictures[:, 3].flatten(), centimetres.flatten()]))[0, 1] > 0.9999
    corner = pictures[:, 3, 0, 0]
    assert (corner == 0).float().mean() > 0.5  # mostly background


@pytest.fixture(scope="module")
def known() -> tuple[beyond.RenderedFaces, torch.Tensor]:
    """Strangers whose pictures are replaced: colours tell who it is, depth tells the yaw."""
    faces = beyond.strangers(SIZE, 30, 8)
    n, rng = len(faces), torch.Generator().manual_seed(0)
    look = torch.rand(30, 3, generator=rng)[faces.table["identity"].to_numpy() % 30]
    yaw = torch.from_numpy(faces.table["yaw"].to_numpy(np.float32)) / 150 + 0.5
    level = torch.cat([look, yaw[:, None]], 1)[:, :, None, None].expand(-1, -1, SIZE, SIZE)
    return faces, (level + 0.02 * torch.randn(n, 4, SIZE, SIZE, generator=rng)).clamp(0, 1)


def test_what_is_in_the_depth_is_found_by_those_who_get_it(
    known: tuple[beyond.RenderedFaces, torch.Tensor],
) -> None:
    rows = depth.depth_input(*known, steps=60, seed=0).set_index("input")
    assert list(rows.index) == ["colour", "depth", "colour and depth"]
    assert rows.loc["depth", "yaw MAE"] < 0.5 * rows.loc["colour", "yaw MAE"]
    assert rows.loc["colour and depth", "yaw MAE"] < 0.5 * rows.loc["colour", "yaw MAE"]
    assert rows.loc["colour", "verification"] > rows.loc["depth", "verification"] + 0.1


def test_a_feature_learns_what_it_has_to_paint(known: tuple[beyond.RenderedFaces, torch.Tensor]) -> None:
    faces, pictures = known
    shown = pictures.clone()
    shown[:, 0] = pictures[:, 3]  # red tells the yaw as well, so that colours can be turned into depth
    rows = depth.depth_target(faces, shown, steps=40, seed=0).set_index("target")
    assert list(rows.index) == ["nothing", "colour", "depth", "colour and depth"]
    assert np.isfinite(rows.to_numpy()).all()
    assert rows.loc["depth", "yaw MAE"] < 0.5 * np.abs(faces.table["yaw"]).mean()


def test_seeds_are_summed_up() -> None:
    rows = pd.DataFrame({"input": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1]})
    rows = rows.assign(**{name: [1.0, 3.0, 5.0, 5.0] for name in depth.JUDGED})
    table = depth.summary(rows, "input")
    assert table["input"].tolist() == ["a", "b"] and table["seeds"].tolist() == [2, 2]
    assert str(table["yaw MAE"][0]) == "2.0 ± 1.4"


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(
        BadInput,
        match="there is no part 'hologan', choose some of attributes, oracles, gan, detectors, depth",
    ):
        longer.main(["--only", "hologan"])
