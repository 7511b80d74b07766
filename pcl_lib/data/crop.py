"""Where faces are in a picture, by OpenCV's detector, and the square that is cut out about one.

Places are continuous: x right, y down, 0 at the image's corner, pixel i covers i to i + 1.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pcl_lib.utils import BadInput

LARGEST = 8.0  # a square of more times the image's longer side is taken for a slip in the labels
SMALLEST = 4.0  # pixels
SEARCHED = 320  # pixels of the longer side in which faces are looked for: enough for portraits
FACE = 0.12  # least share of the shorter side that a face takes
CASCADES = (
    "haarcascade_frontalface_alt2",
    "haarcascade_frontalface_default",
    "haarcascade_profileface",
    "haarcascade_eye",
)
EYE = 0.12, 0.45  # least and largest share of the face's width that the detector's square about an eye takes
UPPER = 0.6  # the part of a face, from its top, in which eyes are looked for

Box = tuple[float, float, float, float]  # left, top, right, bottom
Eyes = tuple[tuple[float, float], tuple[float, float]]


def square_about(box: Sequence[float], margin: float) -> Box:
    """The square about the middle of a box, as wide as the box's longer side and `margin` of that more at each edge."""
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)) or right <= left or bottom <= top:
        raise BadInput(f"a box from {left:g}, {top:g} to {right:g}, {bottom:g}")
    side = (1 + 2 * margin) * max(right - left, bottom - top)
    left, top = (left + right - side) / 2, (top + bottom - side) / 2
    return left, top, left + side, top + side


def cut_box(image: Image.Image, box: Sequence[float], margin: float, size: int) -> Image.Image:
    """`square_about` the box, resized to `size` pixels; black where the image does not reach."""
    left, top, right, bottom = square_about(box, margin)
    check_square(image, left, top, right - left)
    if left >= 0 and top >= 0 and right <= image.width and bottom <= image.height:
        return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    x, y = math.floor(left), math.floor(top)
    wider = image.crop((x, y, math.ceil(right), math.ceil(bottom)))  # black where there is no image
    return wider.resize(
        (size, size), Image.Resampling.BILINEAR, box=(left - x, top - y, right - x, bottom - y)
    )


def check_square(image: Image.Image, left: float, top: float, side: float) -> None:
    """Raise BadInput where a square is tiny, huge or outside of the image."""
    if side < SMALLEST:
        raise BadInput(f"a face of only {side:.1f} pixels")
    if side > LARGEST * max(image.size):
        raise BadInput(f"a face of {side:.0f} pixels in an image of {image.width}x{image.height}")
    if left >= image.width or top >= image.height or left + side <= 0 or top + side <= 0:
        raise BadInput(f"a face outside the image of {image.width}x{image.height}")


_LOADED = threading.local()  # a cascade must not be used by two threads at a time


def _cascades() -> list[Any]:
    if not hasattr(_LOADED, "cascades"):
        import cv2  # only where faces have to be found

        cv2.setNumThreads(1)  # where there are workers, they take the cores already
        paths = [Path(cv2.__file__).with_name("data") / f"{name}.xml" for name in CASCADES]
        if not hasattr(cv2, "CascadeClassifier") or not all(path.exists() for path in paths):
            raise BadInput(f"OpenCV {cv2.__version__} comes without its face detector; install one before 5")
        _LOADED.cascades = [cv2.CascadeClassifier(str(path)) for path in paths]
    return _LOADED.cascades


def find_faces(image: Image.Image) -> list[Box]:
    """The boxes of the faces that OpenCV's Haar cascades find in an RGB image, in its pixels; the largest first.

    Upright frontal faces; where there are none, profiles to either side; empty where there are none of them either.
    """
    grey = image.convert("L")
    zoom = min(1.0, SEARCHED / max(grey.size))
    if zoom < 1:
        grey = grey.resize(tuple(max(1, round(n * zoom)) for n in grey.size), Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    pixels = np.asarray(grey)
    least = max(20, round(FACE * min(grey.size)))
    *frontal, profile, _ = _cascades()
    for cascade, mirrored in [(cascade, False) for cascade in frontal] + [(profile, False), (profile, True)]:
        view = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
        boxes = cascade.detectMultiScale(view, scaleFactor=1.1, minNeighbors=4, minSize=(least, least))
        found = sorted(map(tuple, np.asarray(boxes).tolist()), key=lambda box: (box[2], box), reverse=True)
        if found:
            fx, fy = image.width / grey.width, image.height / grey.height
            starts = [grey.width - x - width if mirrored else x for x, _, width, _ in found]
            return [
                (x * fx, y * fy, (x + width) * fx, (y + height) * fy)
                for x, (_, y, width, height) in zip(starts, found, strict=True)
            ]
    return []


def find_eyes(image: Image.Image) -> Eyes | None:
    """The middles of the eyes of the largest face that OpenCV's Haar cascades find in an RGB image, in its pixels.

    The eye on the image's left comes first. None where there is no face, or no eye in a half of its upper part.
    """
    faces = find_faces(image)
    if not faces:
        return None
    left, top, right, _ = faces[0]
    width = right - left
    area = (max(0, round(left)), max(0, round(top)), round(right), round(top + UPPER * width))
    upper = np.ascontiguousarray(image.convert("L").crop(area))
    least, largest = (max(1, round(share * width)) for share in EYE)
    squares = _cascades()[-1].detectMultiScale(
        upper, scaleFactor=1.1, minNeighbors=3, minSize=(least, least), maxSize=(largest, largest)
    )
    middle = (left + right) / 2 - area[0]
    best: dict[bool, tuple[float, float, float]] = {}
    for x, y, side, _ in np.asarray(squares, float).reshape(-1, 4).tolist():
        found = (side, area[0] + x + side / 2, area[1] + y + side / 2)
        half = x + side / 2 >= middle
        best[half] = max(best.get(half, found), found)
    return (best[False][1:], best[True][1:]) if len(best) == 2 else None
