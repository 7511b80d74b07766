"""pcl_lib.augment against torchvision's functional operations, one image at a time, and against its own promises."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
import torchvision.transforms.functional as TF
from scipy import stats
from torch import Tensor

from pcl_lib import augment
from pcl_lib.augment import Draw, batched
from pcl_lib.presets import PAPER_FACE_VIEW, PAPER_POSE_VIEW, SIMCLR_VIEW, ViewPreset
from pcl_lib.utils import BadInput

MANY = 20_000
PLAIN = ViewPreset(crop="none", jitter=0, grey=0, blur=0, gradient=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, size: int, seed: int = 0) -> Tensor:
    """Soft noise with flat patches of grey, black, white and pure colours: the corner cases of hue."""
    x = torch.rand(n, 3, size // 4, size // 4, generator=seeded(seed))
    x = torch.nn.functional.interpolate(x, (size, size), mode="bicubic").clamp(0, 1)
    for place, colour in enumerate(
        ([0.5, 0.5, 0.5], [0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 1], [0.2, 0.2, 0.9])
    ):
        patch = slice(place * size // 8, (place + 1) * size // 8)
        x[:, :, patch, : size // 5] = torch.tensor(colour)[:, None, None]
    return x


def rows(view: Draw) -> list[dict[str, Tensor]]:
    names = [field.name for field in dataclasses.fields(view)]
    return [{name: getattr(view, name)[i] for name in names} for i in range(len(view.flip))]


@pytest.mark.parametrize("form", ["kernel", "tensors"])  # what a CPU runs, and what a GPU runs
@pytest.mark.parametrize(
    ("preset", "size", "out_size"),
    [
        (PAPER_FACE_VIEW, 64, 64),
        (PAPER_POSE_VIEW, 64, 64),
        (SIMCLR_VIEW, 64, 64),
        (SIMCLR_VIEW, 48, 32),  # shrinks: antialiasing at work
        (PAPER_FACE_VIEW, 33, 40),
        (ViewPreset(crop="resized", flip=0.5, jitter=1, grey=0.5, blur=1, gradient=1), 128, 128),
    ],
)
def test_every_view_equals_the_chain_of_torchvision(
    preset: ViewPreset, size: int, out_size: int, form: str
) -> None:
    """Same float operations in another order of rounding; contrast and hue can stretch a rounding error, hence 2e-5;
    half a grey level is 2e-3."""
    count = 96
    images = pictures(count, size)
    view = augment.draw(count, size, preset, seeded(1))
    apply = augment.apply_views if form == "kernel" else batched.apply
    ours = apply(images, view, out_size)
    assert ours.shape == (count, 3, out_size, out_size) and ours.dtype == torch.float32
    assert ours.min() >= 0 and ours.max() <= 1
    for image, row, mine in zip(images, rows(view), ours, strict=True):
        torch.testing.assert_close(mine, oracles.view(image, row, out_size), rtol=0, atol=2e-5, msg=str(row))


@pytest.mark.parametrize(
    ("ours", "reference", "factors"),
    [
        (augment.brightness, TF.adjust_brightness, [0, 0.2, 1, 1.8]),
        (augment.contrast, TF.adjust_contrast, [0, 0.2, 1, 1.8]),
        (augment.saturation, TF.adjust_saturation, [0, 0.2, 1, 1.8]),
        (augment.hue, TF.adjust_hue, [-0.5, -0.2, 0, 0.13, 0.5]),
    ],
)
def test_colour_operations_at_their_ends(ours, reference, factors: list[float]) -> None:  # type: ignore[no-untyped-def]
    images = pictures(len(factors), 32)
    out = ours(images.clone(), torch.tensor(factors, dtype=torch.float32))
    for image, factor, mine in zip(images, factors, out, strict=True):
        torch.testing.assert_close(mine, reference(image, factor), rtol=0, atol=2e-6)


def test_half_a_turn_of_hue_gives_the_complement() -> None:
    red, cyan = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 1])
    turned = augment.hue(red.view(1, 3, 1, 1), torch.tensor([0.5]))
    assert torch.equal(turned.flatten(), cyan)


def test_blur_of_a_point_is_the_gaussian() -> None:
    point = torch.zeros(1, 3, 64, 64)
    point[:, :, 30, 20] = 1
    blurred = augment.gaussian_blur(point, torch.tensor([1.3]))[0, 0]
    weight = np.exp(-0.5 * (np.arange(-3, 4) / 1.3) ** 2)
    weight /= weight.sum()
    np.testing.assert_allclose(blurred[27:34, 17:24], np.outer(weight, weight), atol=1e-6)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)  # kernel 7 at 64 pixels: nothing outside


def test_gradient_of_a_ramp_and_of_a_flat_image() -> None:
    ramp = (torch.arange(64) / 64).expand(1, 3, 64, 64)
    flat = torch.full((1, 3, 64, 64), 0.7)
    luma = 0.2989 + 0.587 + 0.114
    inner = augment.gradient_magnitude(ramp)[0, :, :, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 2 * luma / 64), rtol=0, atol=1e-6)
    assert augment.gradient_magnitude(flat).abs().max() < 1e-6


@pytest.mark.parametrize("box", [(0, 5, 32, 20), (5, 0, 20, 32), (0, 0, 32, 32)])
def test_crops_as_high_or_as_wide_as_the_image(box: tuple[int, int, int, int]) -> None:
    image = pictures(1, 32)
    names = ("top", "left", "height", "width")
    view = augment.draw(1, 32, PLAIN, seeded())
    view = dataclasses.replace(view, **{k: torch.tensor([v]) for k, v in zip(names, box, strict=True)})
    wanted = oracles.view(image[0], rows(view)[0], 32)
    torch.testing.assert_close(augment.apply_views(image, view)[0], wanted, rtol=0, atol=2e-6)


def test_flip_mirrors_exactly_and_no_change_changes_nothing() -> None:
    images = pictures(5, 32)
    view = augment.draw(5, 32, PLAIN, seeded())
    torch.testing.assert_close(augment.apply_views(images, view), images, rtol=0, atol=0)
    flipped = dataclasses.replace(view, flip=torch.tensor([True, False, True, True, False]))
    out = augment.apply_views(images, flipped)
    for i, turned in enumerate(flipped.flip):
        assert torch.equal(out[i], images[i].flip(2) if turned else images[i])


@pytest.mark.parametrize("size", [32, 48, 64, 100])
def test_quadrant_crops_lie_in_two_quadrants_of_the_image(size: int) -> None:
    half = 4000
    box = augment.draw(2 * half, size, PAPER_FACE_VIEW, seeded())
    side = round(0.4 * size)
    assert (box.height == side).all() and (box.width == side).all()
    for start in (box.top, box.left):
        assert start.min() == 0 and start.max() == size - side  # inside, and the whole room is used
    y, x = box.top + side / 2 - size / 2, box.left + side / 2 - size / 2
    # A centre on a middle line (whole pixels) belongs to both sides; else signs tell the quadrant.
    ours = [{(a, b) for a in signs(v) for b in signs(u)} for v, u in zip(y.tolist(), x.tolist(), strict=True)]
    for first, second in zip(ours[:half], ours[half:], strict=True):
        assert len(first | second) > 1
    sure = [next(iter(quadrants)) for quadrants in ours if len(quadrants) == 1]
    shares = [sure.count((a, b)) / len(sure) for a in (-1, 1) for b in (-1, 1)]
    assert np.abs(np.array(shares) - 0.25).max() < 0.04
    pairs = [(a, b) for a, b in zip(ours[:half], ours[half:], strict=True) if len(a) == len(b) == 1]
    assert all(a != b for a, b in pairs) and len({(*a, *b) for a, b in pairs}) == 12  # every ordered pair


def signs(v: float) -> tuple[int, ...]:
    return (-1, 1) if v == 0 else (int(math.copysign(1, v)),)


def test_resized_crops_keep_to_area_and_ratio() -> None:
    view = ViewPreset(crop="resized", crop_scale=(0.2, 0.5))  # at most 0.5: no side meets the image's
    size = 200
    box = augment.draw(MANY, size, view, seeded())
    height, width = box.height.double(), box.width.double()
    area, ratio = height * width / size**2, width / height
    rounding = 1.5 / (math.sqrt(0.2 * 3 / 4) * size)  # half a pixel in each side
    assert area.min() > 0.2 * (1 - rounding) and area.max() < 0.5 * (1 + rounding)
    assert ratio.min() > 3 / 4 * (1 - rounding) and ratio.max() < 4 / 3 * (1 + rounding)
    assert stats.kstest((area.numpy() - 0.2) / 0.3, "uniform").statistic < 0.02
    assert (
        stats.kstest(ratio.log().numpy(), stats.uniform(-math.log(4 / 3), 2 * math.log(4 / 3)).cdf).statistic
        < 0.02
    )
    for start, side in ((box.top, height), (box.left, width)):
        assert start.min() >= 0 and (start + side).max() <= size
        # The place is uniform among the whole pixels that the box leaves free.
        assert stats.kstest(((start + 0.5) / (size - side + 1)).numpy(), "uniform").statistic < 0.02


@pytest.mark.parametrize("view", [PAPER_FACE_VIEW, SIMCLR_VIEW], ids=["face", "simclr"])
def test_probabilities_and_ranges(view: ViewPreset) -> None:
    drawn = augment.draw(MANY, 64, view, seeded(2))
    for name in ("flip", "jitter", "grey", "blur", "gradient"):
        wanted, count = getattr(view, name), int(getattr(drawn, name).sum())
        assert stats.binomtest(count, MANY, wanted).pvalue > 1e-4, name
    assert stats.kstest(drawn.sigma.numpy(), stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4
    for kind, (low, high) in enumerate([(0.2, 1.8), (0.2, 1.8), (0.2, 1.8), (-0.2, 0.2)]):
        assert stats.kstest(drawn.factors[:, kind].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-4
    orders, counts = np.unique(drawn.order.numpy(), axis=0, return_counts=True)
    assert len(orders) == 24 and stats.chisquare(counts).pvalue > 1e-4


def test_each_image_has_a_draw_of_its_own() -> None:
    same = pictures(1, 32).expand(50, -1, -1, -1)
    for view in (PAPER_FACE_VIEW, SIMCLR_VIEW, PAPER_POSE_VIEW):
        out = augment.views(same, view, seeded(3), 2)
        distances = torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(100)
        # Of the pose chain about one in thirty stays untouched (neither jitter, grey, blur nor gradient).
        assert (distances < 1e-6).float().mean() < 0.01


def test_views_are_stacked_by_copy_and_repeated_by_their_generator() -> None:
    images = (255 * pictures(6, 32)).round().byte()
    assert torch.equal(augment.views(images, PLAIN, seeded(), 3), (images.float() / 255).repeat(3, 1, 1, 1))
    one, same, other = (augment.views(images, PAPER_FACE_VIEW, seeded(seed), 4) for seed in (5, 5, 6))
    assert one.shape == (24, 3, 32, 32)
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_neither_the_input_nor_the_global_state_changes() -> None:
    images, state = pictures(8, 32), torch.get_rng_state()
    before = images.clone()
    for view in (PAPER_FACE_VIEW, PAPER_POSE_VIEW, SIMCLR_VIEW):
        augment.views(images, view, seeded(), 2)
        augment.apply_views(images, augment.draw(8, 32, view, seeded()))
    assert torch.equal(images, before) and torch.equal(state, torch.get_rng_state())


def test_autocast_does_not_round_views() -> None:
    images = pictures(8, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = augment.views(images, PAPER_FACE_VIEW, seeded(), 2)
    assert torch.equal(inside, augment.views(images, PAPER_FACE_VIEW, seeded(), 2))


def test_bad_crops_are_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown view.crop 'square'"):
        augment.draw(4, 32, ViewPreset(crop="square"), seeded())
    with pytest.raises(BadInput, match="in pairs: 3 copies"):
        augment.views(pictures(2, 32), PAPER_FACE_VIEW, seeded(), 3)


def test_rotation_by_quarter_turns_is_exact_and_positive_is_against_the_clock() -> None:
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = augment.rotate(x, torch.tensor([90.0, -90.0, 0.0]))
    wanted = torch.stack([x[0].rot90(1, (1, 2)), x[1].rot90(-1, (1, 2)), x[2]])
    torch.testing.assert_close(turned, wanted, atol=1e-5, rtol=0)
