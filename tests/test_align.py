"""data_scripts/align.py: crops against geometry that is known, and against crops of whole decodings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_scripts.align import cut, find_face, side_of, similarity
from data_scripts.images import open_image
from data_scripts.listing import TEMPLATE, Recipe
from pcl_lib.faces import LANDMARKS, project_landmarks, render, sample_factors
from pcl_lib.utils import BadInput

FIVE = ("right_eye", "left_eye", "nose_tip", "right_mouth", "left_mouth")  # the person's right is on the left


def dots(places: np.ndarray, width: int, height: int, sigma: float) -> Image.Image:
    """A soft white dot at each place (x, y; 0 at the corner) on black."""
    y, x = np.mgrid[:height, :width] + 0.5
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in places)
    return Image.fromarray((250 * np.clip(light, 0, 1)).astype(np.uint8)).convert("RGB")


def centroid(image: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray:
    """Centre of light (x, y) within `reach` pixels of a place."""
    left, top = np.maximum(0, np.round(near - reach).astype(int))
    part = image[0, top : top + 2 * reach, left : left + 2 * reach].astype(float)
    y, x = np.mgrid[top : top + part.shape[0], left : left + part.shape[1]] + 0.5
    return np.array([(part * x).sum(), (part * y).sum()]) / part.sum()


def turned(points: np.ndarray, degrees: float, scale: float, shift: Sequence[float]) -> np.ndarray:
    """Rotation (x right, y down), scale and shift, as a matrix: nothing here is complex."""
    t = np.deg2rad(degrees)
    return scale * points @ np.array([[np.cos(t), np.sin(t)], [-np.sin(t), np.cos(t)]]) + shift


@pytest.mark.parametrize(
    ("degrees", "side"), [(0, 64), (20, 128), (-35, 300), (75, 200), (10, 45), (180, 90)]
)
@pytest.mark.parametrize("margin", [0.0, 0.25])
def test_marked_points_land_on_the_template(degrees: float, side: float, margin: float) -> None:
    """Five dots, moved by a known similarity, come back to where the template (shrunk by its margin) has them."""
    size, unit = 64, np.array(TEMPLATE)
    places = turned(unit - 0.5, degrees, side, (260, 240))
    recipe = Recipe("five_points", margin)
    image = dots(places, 520, 480, side / 40)
    got = cut(image, 1.0, recipe, places.ravel(), size)
    wanted = size * (0.5 + (unit - 0.5) / (1 + 2 * margin))
    assert got.shape == (3, size, size) and got.dtype == np.uint8
    for place in wanted:
        assert np.abs(centroid(got, place, 5) - place).max() < 0.25


def test_the_same_from_a_decoding_at_half_size() -> None:
    places = turned(np.array(TEMPLATE) - 0.5, 15, 256, (250, 250))
    image = dots(places, 500, 500, 6)
    half = image.resize((250, 250), Image.Resampling.BOX)
    recipe = Recipe("five_points")
    whole, fraction = (
        cut(i, s, recipe, places.ravel(), 64).astype(int) for i, s in ((image, 1.0), (half, 0.5))
    )
    assert np.abs(whole - fraction).max() <= 12 and whole.max() > 200


def test_points_off_the_template_are_met_in_least_squares() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        source, target = rng.normal(0, 30, (5, 2)), rng.normal(0, 1, (5, 2))
        x, y, one, zero = *source.T, np.ones(5), np.zeros(5)
        system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
        p, q, u, v = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
        a, b = similarity(source, target)
        np.testing.assert_allclose([a.real, a.imag, b.real, b.imag], [p, q, u, v], atol=1e-9)


def test_a_rolled_head_is_cut_like_the_upright_one() -> None:
    """The same heads upright and rolled by 30 degrees: the crops show the same face, the images do not."""
    upright = sample_factors(6, seed=3, clutter=0.0).assign(
        yaw=0.0, pitch=0.0, roll=0.0, occluder=0, noise=0.0
    )
    crops, images = [], []
    for roll in (0.0, 30.0):
        factors = upright.assign(roll=roll)
        pictures, (places, _) = render(factors, size=128), project_landmarks(factors, 128)
        five = places[:, [LANDMARKS.index(name) for name in FIVE]]
        pils = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pictures]
        recipe = Recipe("five_points", -0.15)  # well within the face
        crops.append(
            [cut(p, 1.0, recipe, q.ravel(), 48).astype(float) for p, q in zip(pils, five, strict=True)]
        )
        images.append(pictures.numpy().astype(float))
    for row in range(6):
        away = np.abs(images[0][row] - images[1][row])[:, 32:96, 32:96].mean()
        assert np.abs(crops[0][row] - crops[1][row]).mean() < 0.5 * away


def test_a_box_its_margin_and_what_lies_outside() -> None:
    image = Image.new("RGB", (90, 70), (0, 0, 255))
    image.paste((255, 0, 0), (50, 20, 90, 60))  # reaches the right edge
    box = (50, 25, 90, 55)  # its longer side is 40: the square goes from y = 20 to 60
    tight = cut(image, 1.0, Recipe("box"), box, 20)
    assert (tight[:, 1:-1, 1:-1] == np.array([255, 0, 0])[:, None, None]).all()
    wide = cut(image, 1.0, Recipe("box", 0.5), box, 40)  # 80 pixels from x = 30, y = 0
    assert (wide[:, 11:29, 11:29] == np.array([255, 0, 0])[:, None, None]).all()
    assert (wide[:, 11:29, 1:9] == np.array([0, 0, 255])[:, None, None]).all()
    assert (wide[:, :, 32:] == 0).all() and (wide[:, 37:, :] == 0).all()  # beyond x = 90, y = 70: black


@pytest.mark.parametrize("how", ["as_is", "box", "five_points"])
@pytest.mark.parametrize("degrees", [0, 90])
def test_shrinking_does_not_alias(how: str, degrees: float) -> None:
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    if degrees:
        stripes = stripes.T
    places = turned(np.array(TEMPLATE) - 0.5, degrees, 256, (128, 128)).ravel()
    place = {"as_is": (), "box": (0, 0, 256, 256), "five_points": places}[how]
    got = cut(Image.fromarray(stripes).convert("RGB"), 1.0, Recipe(how), place, 32)
    assert np.abs(got[:, 2:-2, 2:-2].astype(int) - 100).max() <= 1


BAD = {
    "reversed": ("box", (9, 0, 3, 9), "a box from 9"),
    "not given": ("box", (np.nan, 0, 3, 9), "a box from nan"),
    "outside": ("box", (200, 0, 260, 60), "outside the image of 100x80"),
    "tiny": ("box", (5, 5, 7, 7), "only 2.0 pixels"),
    "a slip": ("box", (-4000, 0, 5, 9), "4005 pixels in an image"),
    "one point": ("five_points", (5.0,) * 10, "coincide or are missing"),
    "no points": ("five_points", (np.nan,) * 10, "coincide or are missing"),
    "far points": ("five_points", turned(np.array(TEMPLATE), 0, 60, (900, 0)).ravel(), "outside the image"),
    "tiny points": ("five_points", turned(np.array(TEMPLATE), 0, 2, (50, 50)).ravel(), "only 2.0 pixels"),
    "huge points": ("five_points", turned(np.array(TEMPLATE), 0, 9000, (0, 0)).ravel(), "9000 pixels in"),
}


@pytest.mark.parametrize("fault", BAD)
def test_places_that_make_no_sense(fault: str) -> None:
    how, place, reason = BAD[fault]
    with pytest.raises(BadInput, match=reason):
        cut(Image.new("RGB", (100, 80)), 1.0, Recipe(how), place, 32)


def test_a_face_is_found_where_it_is_and_nowhere_else() -> None:
    factors = sample_factors(8, seed=1).assign(yaw=0.0, pitch=0.0, roll=0.0, occluder=0)
    pictures, (places, _) = render(factors, size=128), project_landmarks(factors, 128)
    for picture, points in zip(pictures, places[:, [LANDMARKS.index(name) for name in FIVE]], strict=True):
        canvas = Image.new("RGB", (700, 600), (128, 128, 128))  # larger than what is searched
        canvas.paste(Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((256, 256)), (300, 200))
        left, top, right, bottom = find_face(canvas)
        x, y = (2 * points + (300, 200)).T
        assert left < x.min() and x.max() < right and top < y.min() and y.max() < bottom
        assert right - left < 300
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    with pytest.raises(BadInput, match="no face found"):
        find_face(Image.fromarray(noise))


@pytest.mark.parametrize("fraction", [2, 4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("how", ["as_is", "box"])
def test_decoding_at_a_fraction_changes_only_the_rounding(
    tmp_path: Path, fraction: int, orientation: int, how: str
) -> None:
    """A large JPEG is decoded small; the crop is that of the whole decoding, its places those of the upright file."""
    size, (width, height) = 16, (40 * fraction, 33 * fraction)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / 9 + c) * np.cos(y / 13 - c) for c in range(3)]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        whole = image.convert("RGB").rotate({1: 0, 6: -90}[orientation], expand=True)
    box = (1.0, 2.0, 1.0 + 2 * 16 * fraction, 2.0 + 2 * 16 * fraction)
    recipe, place = Recipe(how), box if how == "box" else ()
    image, scale = open_image(tmp_path / "a.jpg", side_of(recipe, place), size)
    assert scale == 1 / fraction and image.width == whole.width // fraction
    if how == "as_is":
        side = min(whole.size)
        left, top = (whole.width - side) / 2, (whole.height - side) / 2
        box = (left, top, left + side, top + side)
    wanted = np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box=box)).transpose(2, 0, 1)
    assert np.abs(cut(image, scale, recipe, place, size).astype(int) - wanted).mean() < 2.5


@pytest.mark.parametrize(("width", "scale"), [(512, 1 / 8), (514, 1 / 2), (515, 1), (516, 1 / 4)])
def test_no_fraction_that_would_cut_a_block(tmp_path: Path, width: int, scale: float) -> None:
    Image.new("RGB", (width, 512)).save(tmp_path / "a.jpg")
    image, got = open_image(tmp_path / "a.jpg", side_of(Recipe(), ()), 32)
    assert got == scale and image.width == width * scale
