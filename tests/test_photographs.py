"""widgets.photographs: rendered faces placed in larger pictures are found, boxed and cut out; the rest is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from pcl_lib.faces import AUS, render, sample_factors
from pcl_lib.utils import BadInput
from pcl_lib.widgets.photographs import EXPECT, NOBODY, SHOWN, read_photograph
from pcl_lib.widgets.pictures import POSE_INK

SIZE = 64
WALL = (96, 116, 130)


def face(identity: int, side: int) -> Image.Image:
    """A frontal rendered face, `side` pixels wide."""
    factors = sample_factors(1, first_identity=identity)
    calm = factors.assign(**dict.fromkeys((*AUS, "yaw", "pitch", "roll"), 0.0))
    return Image.fromarray(render(calm, size=side)[0].permute(1, 2, 0).numpy())


def scene(*faces: tuple[int, int, int, int], size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A picture of a wall with rendered faces: identity, side, left and top of each."""
    page = Image.new("RGB", size, WALL)
    for identity, side, left, top in faces:
        page.paste(face(identity, side), (left, top))
    return page


def as_file(picture: Image.Image, kind: str = "png", **how: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **how)
    return buffer.getvalue()


def box_in(shown: np.ndarray) -> list[int]:
    """Left, top, right and bottom of what is drawn in the colour of the box."""
    y, x = np.nonzero((np.abs(shown.astype(int) - POSE_INK) < 3).all(2))
    return [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]


@pytest.mark.parametrize(("left", "top", "side"), [(300, 160, 240), (40, 60, 320)])
def test_the_face_in_a_larger_picture_is_boxed_and_cut_out(left: int, top: int, side: int) -> None:
    found = read_photograph(as_file(scene((7, side, left, top))), SIZE)
    assert found.note == EXPECT and found.face.shape == (3, SIZE, SIZE) and found.face.dtype == torch.uint8
    x0, y0, x1, y1 = (value * 640 / SHOWN for value in box_in(found.shown))
    # what is cut is about what a rendered image shows: not far from the pasted square
    assert abs((x0 + x1) / 2 - (left + side / 2)) < 0.1 * side
    assert abs((y0 + y1) / 2 - (top + side / 2)) < 0.1 * side
    assert 0.8 * side < x1 - x0 < 1.25 * side
    cut = scene((7, side, left, top)).crop(tuple(map(round, (x0, y0, x1, y1)))).resize((SIZE, SIZE))
    shown = found.face.permute(1, 2, 0).numpy().astype(int)
    assert np.abs(shown - np.asarray(cut)).mean() < 8  # the box is drawn to half a pixel of a smaller picture


def test_of_several_faces_the_largest_is_taken_and_that_is_said() -> None:
    pair = scene((7, 160, 60, 200), (7, 280, 320, 120))
    found = read_photograph(as_file(pair), SIZE)
    assert found.note.startswith("2 faces were found, and the largest") and EXPECT in found.note
    alone = read_photograph(as_file(scene((7, 280, 320, 120))), SIZE)
    assert (found.face == alone.face).all()
    assert box_in(found.shown)[0] < 60 < box_in(alone.shown)[0]  # the other one has a box as well


def test_a_picture_that_lies_on_its_side_is_set_upright() -> None:
    upright = scene((7, 240, 300, 160))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    turned = as_file(upright.rotate(90, expand=True), "jpeg", quality=95, exif=exif)
    a, b = read_photograph(turned, SIZE), read_photograph(as_file(upright, "jpeg", quality=95), SIZE)
    assert a.shown.shape == b.shown.shape
    assert (a.face.float() - b.face.float()).abs().mean() < 6


def test_a_large_photograph_is_cut_as_its_small_copy() -> None:
    small = scene((7, 240, 300, 160))
    large = as_file(small.resize((2560, 1920), Image.Resampling.BICUBIC), "jpeg", quality=95)
    a, b = read_photograph(large, SIZE), read_photograph(as_file(small), SIZE)
    assert (a.face.float() - b.face.float()).abs().mean() < 8


def test_without_a_face_the_middle_square_is_used_and_that_is_said() -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:, 16:80] = (10, 120, 240)
    for mode in ("RGB", "RGBA", "P"):
        found = read_photograph(as_file(Image.fromarray(picture).convert(mode)), SIZE)
        assert found.note == NOBODY
        middle = torch.tensor([10, 120, 240])[:, None, None]
        inside = found.face[:, 3:-3, 3:-3].int()  # at its edge a resized picture knows of what lies beyond
        assert (inside - middle).abs().max() <= (20 if mode == "P" else 1)


BAD_FILES = [
    (b"", "not a whole image"),
    (b"<svg></svg>", "not a whole image"),
    (as_file(Image.new("RGB", (99, 99)))[:60], "not a whole image"),
    (as_file(Image.new("RGB", (20, 90))), "20 x 90 pixels: 32"),
    (as_file(Image.new("L", (7000, 4000))), "28 megapixels"),
    (as_file(Image.new("RGBA", (64, 64), (0, 0, 0, 128))), "see-through"),
    (as_file(Image.new("RGB", (64, 200))), "no face was found in the picture, and its shape"),
]


@pytest.mark.parametrize(("content", "says"), BAD_FILES)
def test_bad_files_are_refused_in_a_sentence(content: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_photograph(content, SIZE)


def test_rendered_images_lie_about_their_faces_as_the_margin_says() -> None:
    """What is cut out is as large as the image that was rendered, and lies where it does, within a tenth."""
    cut = []
    for identity in range(8):
        found = read_photograph(as_file(scene((identity, 240, 200, 120))), SIZE)
        if found.note == EXPECT:
            left, top, right, bottom = (value * 640 / SHOWN for value in box_in(found.shown))
            cut.append(((right - left) / 240, (left + right - 640) / 480, (top + bottom - 480) / 480))
    assert len(cut) >= 5
    assert np.abs(np.median(cut, axis=0) - (1, 0, 0)).max() < 0.1


def test_16_bits_are_scaled_and_unknown_whites_refused() -> None:
    ramp = np.tile(np.linspace(0, 65535, 96).astype(np.uint16), (96, 1))
    content = io.BytesIO()
    Image.fromarray(ramp).save(content, format="PNG")
    shown = read_photograph(content.getvalue(), 32).face.float().mean((0, 1))
    assert shown[1] < 60 and shown[-2] > 195
    content = io.BytesIO()
    Image.fromarray(np.ones((96, 96), np.float32)).save(content, format="TIFF")
    with pytest.raises(BadInput, match="mode F, whose white is unknown"):
        read_photograph(content.getvalue(), 32)
