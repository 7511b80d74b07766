"""A photograph as an encoder wants it: the face that OpenCV's detector finds, cut out; a pure function, no Jupyter."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from pcl_lib.data import resize_images
from pcl_lib.data.crop import Box, cut_box, find_faces, square_about
from pcl_lib.utils import BadInput
from pcl_lib.widgets.pictures import POSE_INK, RGB

SMALLEST, MOST_PIXELS, WIDEST = (
    32,
    25_000_000,
    1.6,
)  # of a photograph: side, pixels, sides' ratio without a face
MOST_BYTES = 8_000_000  # of its file; Jupyter cuts the connection at messages of 10 MiB
KEPT, SHOWN = (
    1280,
    320,
)  # pixels of the longer side: of the photograph that is cut, of the picture with the boxes
# What is added to a detected box at each edge, and by how much of its side it is moved down, so that it is framed as a
# rendered image is: medians of the boxes that are found in rendered images, 38 of 41 with a yaw of up to 30 degrees.
MARGIN, DOWN = 0.09, 0.08
EXPECT = (
    "The model has learnt from rendered faces alone: of a photograph, expect the turn of the head and whether the face"
    " is light or dark, not a likeness."
)
NOBODY = (
    "No face was found, so the middle square is used: the detector wants an upright face, turned to the camera, that"
    " fills at least an eighth of the picture."
)


@dataclass(frozen=True)
class Photograph:
    """face: uint8 [3, size, size], cut out; shown: the photograph with what was cut in a box; note: what to expect."""

    face: Tensor
    shown: RGB
    note: str


def read_photograph(content: bytes, size: int) -> Photograph:
    """The largest face in an image file, or its middle square where there is no face.

    Raises BadInput where it is not an image, too small, too large, see-through, or has neither a face nor the shape
    of a picture of one.
    """
    picture = _open(content)
    faces = find_faces(picture)
    if faces:
        left, top, right, bottom = faces[0]
        shift = DOWN * (bottom - top)
        box, margin, note = (left, top + shift, right, bottom + shift), MARGIN, EXPECT
        if len(faces) > 1:
            note = f"{len(faces)} faces were found, and the largest of them is used. {EXPECT}"
    else:
        width, height = picture.size
        if max(width, height) > WIDEST * min(width, height):
            raise BadInput(
                "no face was found in the picture, and its shape is not that of a face: crop it to a square about one"
            )
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        box, margin, note = (left, top, left + side, top + side), 0.0, NOBODY
    square = np.asarray(cut_box(picture, box, margin, max(size, round(KEPT / 4))))
    face = resize_images(torch.from_numpy(square.copy()).permute(2, 0, 1)[None], size)[0]
    return Photograph(face, _boxed(picture, square_about(box, margin), faces[1:]), note)


def _open(content: bytes) -> Image.Image:
    """An upright RGB image of at most KEPT pixels a side."""
    if len(content) > MOST_BYTES:
        raise BadInput(
            f"the upload is a file of {len(content) / 1e6:.0f} MB: choose a picture of at most"
            f" {MOST_BYTES / 1e6:.0f} MB"
        )
    try:
        picture: Image.Image = Image.open(io.BytesIO(content))
        if picture.width * picture.height > MOST_PIXELS:  # before anything is unpacked
            raise BadInput(
                f"the upload has {picture.width * picture.height / 1e6:.0f} megapixels: crop the face out of it first"
            )
        picture.draft(None, (KEPT, KEPT))  # a JPEG is decoded at a fraction
        picture.load()
        picture = ImageOps.exif_transpose(picture)  # telephones store pictures as the sensor lay
    except BadInput:
        raise
    except Image.DecompressionBombError:
        raise BadInput("the upload has over 150 megapixels: crop the face out of it first") from None
    except Exception:  # on corrupt bytes the decoders raise almost anything
        raise BadInput("the upload is not a whole image file: choose a PNG or JPEG of one face") from None
    width, height = picture.size
    if min(width, height) < SMALLEST:
        raise BadInput(f"the upload is {width} x {height} pixels: {SMALLEST} a side are needed to see a face")
    if picture.has_transparency_data and np.asarray(picture.convert("RGBA"))[..., 3].min() < 255:
        raise BadInput("the upload is see-through in places (alpha): put it on a plain background first")
    if picture.mode in ("I", "F"):
        raise BadInput(
            f"the upload's pixels are of mode {picture.mode}, whose white is unknown: save it in 8 bits"
        )
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    picture = picture.convert("RGB")
    picture.thumbnail((KEPT, KEPT))
    return picture


def _boxed(picture: Image.Image, taken: Box, others: list[Box]) -> RGB:
    """The photograph, small: a thick box about what was taken, thin ones about other faces."""
    zoom = SHOWN / max(picture.size)
    page = picture.resize(
        (max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom))), Image.Resampling.BILINEAR
    )
    pen = ImageDraw.Draw(page)
    for box, thick in [(box, 1) for box in others] + [(taken, 3)]:
        scaled = [value * zoom for value in box]
        pen.rectangle(scaled, outline="white", width=thick + 2)
        pen.rectangle([scaled[0] + 1, scaled[1] + 1, scaled[2] - 1, scaled[3] - 1], None, POSE_INK, thick)
    return np.asarray(page)
