"""Cutting faces out: by the image itself, a box, five points or OpenCV's detector; always to a square.

Places are continuous: x right, y down, 0 at the image's corner, pixel i covers i to i + 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_scripts.images import Side
from data_scripts.listing import Recipe
from pcl_lib.data.crop import Box, check_square, cut_box, find_faces
from pcl_lib.utils import BadInput


def side_of(recipe: Recipe, place: Sequence[float]) -> Side:
    """How large a square `recipe` cuts out of an image of given width and height, as far as that is known."""
    grow = 1 + 2 * recipe.margin
    if recipe.how == "as_is":
        return lambda width, height: grow * min(width, height)
    if recipe.how == "box":
        left, top, right, bottom = place
        return lambda *_: grow * max(right - left, bottom - top)
    if recipe.how == "five_points":
        return lambda *_: 1 / abs(similarity(_points(place), template(recipe))[0])
    return lambda *_: math.nan


def cut(image: Image.Image, scale: float, recipe: Recipe, place: Sequence[float], size: int) -> np.ndarray:
    """The square that `recipe` asks for: uint8 [3, size, size].

    image: RGB, upright, `scale` of its pixels a pixel of the file. place: what CROP_COLUMNS names, in pixels of the
    file. Shrinking is antialiased. Raises BadInput where the place makes no sense in this image.
    """
    if recipe.how == "five_points":
        return _chw(cut_points(image, _points(place) * scale, recipe, size))
    if recipe.how == "as_is":
        left, top = (image.width - min(image.size)) / 2, (image.height - min(image.size)) / 2
        box: Sequence[float] = (left, top, left + min(image.size), top + min(image.size))
    else:
        box = [value * scale for value in place]
    return _chw(cut_box(image, box, recipe.margin, size))


def _chw(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1)


def _points(place: Sequence[float]) -> np.ndarray:
    return np.asarray(place, dtype=np.float64).reshape(5, 2)


def template(recipe: Recipe) -> np.ndarray:
    """Where the five points go in a square of side 1, its margin included: float [5, 2]."""
    return 0.5 + (np.array(recipe.template) - 0.5) / (1 + 2 * recipe.margin)


def similarity(source: np.ndarray, target: np.ndarray) -> tuple[complex, complex]:
    """Turn a and shift b (x + iy) for which a * source + b is nearest to `target`, both [n, 2], in least squares.

    A similarity transform without mirroring, in closed form: seen as complex numbers, a is the regression of the
    centred targets on the centred sources. Raises BadInput where the points coincide or are not finite.
    """
    x, y = source @ (1, 1j), target @ (1, 1j)
    spread = x - x.mean()
    if not np.isfinite(x).all() or (power := float(np.vdot(spread, spread).real)) < 1e-6:
        raise BadInput("five points that coincide or are missing")
    a = complex(np.vdot(spread, y - y.mean()) / power)
    if abs(a) < 1e-9:
        raise BadInput("five points that lie like no face")
    return a, complex(y.mean() - a * x.mean())


def cut_points(image: Image.Image, points: np.ndarray, recipe: Recipe, size: int) -> Image.Image:
    """Turn, scale and shift the image so that `points` [5, 2] come nearest to the template; cut its square out.

    Where that shrinks, the neighbourhood is first resized with an antialiasing filter, then turned at its own scale.
    """
    a, b = similarity(points, size * template(recipe))
    corners = (np.array([0, size, size * 1j, size * (1 + 1j)]) - b) / a  # of the square, in the image
    middle, side = corners.mean(), size / abs(a)
    check_square(image, middle.real - side / 2, middle.imag - side / 2, side)
    at, zoom = (0, 0), np.ones(2)
    if abs(a) < 1:
        reach = 2 / abs(a)  # what a bilinear filter may touch beyond the square
        left, top = (
            max(0, math.floor(corners.real.min() - reach)),
            max(0, math.floor(corners.imag.min() - reach)),
        )
        right = min(image.width, math.ceil(corners.real.max() + reach))
        bottom = min(image.height, math.ceil(corners.imag.max() + reach))
        if right <= left or bottom <= top:
            raise BadInput(f"a face outside the image of {image.width}x{image.height}")
        fewer = max(1, round((right - left) * abs(a))), max(1, round((bottom - top) * abs(a)))
        at, zoom = (left, top), np.array(fewer) / (right - left, bottom - top)
        image = image.resize(fewer, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    back, start = 1 / a, -b / a  # output x + iy -> image: back * (x + iy) + start
    rows = (
        zoom[0] * back.real, -zoom[0] * back.imag, zoom[0] * (start.real - at[0]),
        zoom[1] * back.imag, zoom[1] * back.real, zoom[1] * (start.imag - at[1]),
    )  # fmt: skip
    return image.transform((size, size), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)


def find_face(image: Image.Image) -> Box:
    """The box of the largest face of `crop.find_faces`, in the pixels of an RGB image. Raises BadInput without one."""
    found = find_faces(image)
    if not found:
        raise BadInput("no face found")
    return found[0]
