"""The random views of one image after the other, fused for the CPU: `augment.apply_views` in compiled code.

An image stays in the processor's cache from the crop to the gradient, where whole batches would be written to memory
and read back after every operation. The operations are those of `augment`, equal to them but for rounding.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from pcl_lib.utils import kept_if_possible

Floats = NDArray[np.float32]
CHUNK = 8  # views that a thread makes at a time
# Sums may be taken in another order; NaN and infinity keep their meaning.
FAST: dict[str, Any] = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
compiled = njit(**FAST)


def apply(images: Tensor, view: Any, out_size: int, radius: int) -> Tensor:
    """The views of float images [N, 3, H, W] on the CPU under an `augment.Draw` of N: [N, 3, out_size, out_size].

    radius: of the blur's kernel, in pixels. Shared among torch.get_num_threads() threads; a view depends on its own
    image and draw alone.
    """
    source = images.detach().to(torch.float32).contiguous().numpy()
    out = np.empty((len(source), 3, out_size, out_size), np.float32)
    box = torch.stack([view.top, view.left, view.height, view.width], 1).numpy()
    switches = torch.stack([view.flip, view.jitter, view.grey, view.blur, view.gradient], 1).numpy()
    order, factors, sigma = (
        x.contiguous().numpy() for x in (view.order, view.factors.float(), view.sigma.float())
    )

    def make(first: int) -> None:
        part = slice(first, first + CHUNK)
        _views(
            source[part],
            box[part],
            switches[part],
            order[part],
            factors[part],
            sigma[part],
            radius,
            out[part],
        )

    starts = range(0, len(source), CHUNK)
    threads = min(torch.get_num_threads(), len(starts))
    if threads < 2:
        for first in starts:
            make(first)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(make, starts))
    return torch.from_numpy(out)


def _each_view(images, box, switches, order, factors, sigma, radius, out):  # type: ignore[no-untyped-def]
    size = out.shape[2]
    grey, other = np.empty((size, size), np.float32), np.empty((size, size), np.float32)
    padded = np.empty(size + 2 * radius, np.float32)
    for i in range(len(images)):
        x = out[i]
        _crop(images[i], box[i], switches[i, 0], x)
        if switches[i, 1]:
            for place in range(4):
                _jitter(x, order[i, place], factors[i, order[i, place]], grey)
        if switches[i, 2]:
            _luma(x, grey)
            for c in range(3):
                x[c] = grey
        if switches[i, 3]:
            weight = _gaussian(sigma[i], radius)
            for c in range(3):
                _blur(x[c], weight, radius, padded, other)
        if switches[i, 4]:
            _gradient(x, grey)
        for c in range(3):
            _clamp(x[c])


@compiled
def _clamp(x):  # type: ignore[no-untyped-def]
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            x[row, column] = min(max(x[row, column], np.float32(0)), np.float32(1))


@compiled
def _taps(start, length, out_size):  # type: ignore[no-untyped-def]
    """First pixel, number and weights of an antialiased bilinear resize of [start, start + length): see `augment`."""
    scale = length / out_size
    support = max(scale, 1.0)
    most = math.ceil(2 * support) + 1
    first, count = np.empty(out_size, np.int64), np.empty(out_size, np.int64)
    weight = np.zeros((out_size, most), np.float32)
    for place in range(out_size):
        centre = (place + 0.5) * scale + start
        low = max(start, math.floor(centre - support + 0.5))
        high = min(start + length, math.ceil(centre + support - 0.5) + 1)
        total, found = 0.0, 0
        for pixel in range(low, min(high, low + most)):
            value = max(0.0, 1 - abs(pixel + 0.5 - centre) / support)
            weight[place, pixel - low] = value
            total += value
            found += 1
        first[place], count[place] = low, found
        weight[place, :found] /= np.float32(total)
    return first, count, weight


@compiled
def _crop(image, box, flip, out):  # type: ignore[no-untyped-def]
    """Crop, resize and flip one image [3, H, W] into out [3, S, S]."""
    top, left, height, width = box
    size = out.shape[1]
    if height == size and width == size:
        for c in range(3):
            for row in range(size):
                for column in range(size):
                    place = size - 1 - column if flip else column
                    out[c, row, place] = image[c, top + row, left + column]
        return
    first, count, weight = _taps(left, width, size)
    above, many, share = _taps(top, height, size)
    wide = np.zeros((height, size), np.float32)
    for c in range(3):
        for row in range(height):
            source = image[c, top + row]
            for column in range(size):
                total = np.float32(0)
                for tap in range(count[column]):
                    total += weight[column, tap] * source[first[column] + tap]
                wide[row, size - 1 - column if flip else column] = total
        for row in range(size):
            target = out[c, row]
            target[:] = np.float32(0)
            for tap in range(many[row]):
                part, line = share[row, tap], wide[above[row] - top + tap]
                for column in range(size):
                    target[column] += part * line[column]


@compiled
def _luma(x, grey):  # type: ignore[no-untyped-def]
    r, g, b = np.float32(0.2989), np.float32(0.587), np.float32(0.114)
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            grey[row, column] = r * x[0, row, column] + g * x[1, row, column] + b * x[2, row, column]


@compiled
def _jitter(x, kind, factor, grey):  # type: ignore[no-untyped-def]
    """Brightness 0, contrast 1, saturation 2 or hue 3 of one image, in place."""
    if kind == 3:
        _hue(x, factor)
        return
    if kind == 0:
        grey[:] = np.float32(0)
    else:
        _luma(x, grey)
    if kind == 1:
        grey[:] = np.float32(grey.sum() / grey.size)
    for c in range(3):
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                base = grey[row, column]
                value = base + factor * (x[c, row, column] - base)
                x[c, row, column] = min(max(value, np.float32(0)), np.float32(1))


@compiled
def _hue(x, turn):  # type: ignore[no-untyped-def]
    zero, one, six = np.float32(0), np.float32(1), np.float32(6)
    shift = np.float32(6) * turn
    for row in range(x.shape[1]):
        for column in range(x.shape[2]):
            r, g, b = x[0, row, column], x[1, row, column], x[2, row, column]
            value = max(max(r, g), b)
            chroma = value - min(min(r, g), b)
            share = one / (one if chroma == zero else chroma)
            red, green, blue = (
                (g - b) * share,
                (b - r) * share + np.float32(2),
                (r - g) * share + np.float32(4),
            )
            sector = red if value == r else (green if value == g else blue)
            sector = sector + shift
            sector = sector + six if sector < zero else sector
            sector = sector - six if sector >= six else sector
            for c in range(3):
                short = (
                    np.float32(2) - abs(sector - np.float32(3)) if c == 0
                    else abs(sector - np.float32(2 * c)) - one
                )  # fmt: skip
                x[c, row, column] = value - chroma * min(max(short, zero), one)


@compiled
def _gaussian(sigma, radius):  # type: ignore[no-untyped-def]
    weight = np.empty(2 * radius + 1, np.float32)
    total = np.float32(0)
    for tap in range(2 * radius + 1):
        weight[tap] = math.exp(-0.5 * ((tap - radius) / sigma) ** 2)
        total += weight[tap]
    return weight / total


@compiled
def _blur(x, weight, radius, padded, other):  # type: ignore[no-untyped-def]
    """Both directions of a Gaussian blur of one channel [S, S], in place; edges reflected without repetition."""
    size = x.shape[0]
    for row in range(size):
        for place in range(-radius, size + radius):
            source = abs(place)
            padded[place + radius] = x[row, 2 * size - 2 - source if source >= size else source]
        target = other[row]
        target[:] = np.float32(0)
        for tap in range(2 * radius + 1):
            share = weight[tap]
            for column in range(size):
                target[column] += share * padded[column + tap]
    for row in range(size):
        target = x[row]
        target[:] = np.float32(0)
        for tap in range(2 * radius + 1):
            source = abs(row + tap - radius)
            line, share = other[2 * size - 2 - source if source >= size else source], weight[tap]
            for column in range(size):
                target[column] += share * line[column]


@compiled
def _gradient(x, grey):  # type: ignore[no-untyped-def]
    """Length of the central-difference gradient of luma (edges repeated), at most 1, in all channels."""
    _luma(x, grey)
    size = grey.shape[0]
    for row in range(size):
        above, below = grey[max(row - 1, 0)], grey[min(row + 1, size - 1)]
        for column in range(size):
            dx = grey[row, min(column + 1, size - 1)] - grey[row, max(column - 1, 0)]
            dy = below[column] - above[column]
            length = min(np.sqrt(dx * dx + dy * dy), np.float32(1))
            x[0, row, column] = length
            x[1, row, column] = length
            x[2, row, column] = length


(_views,) = kept_if_possible(lambda cache: (njit(cache=cache, **FAST)(_each_view),))
