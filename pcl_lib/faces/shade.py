"""CPU shading: numba kernels from what each sample sees to an 8-bit image.

Skin is painted by looking its masks up in the atlas, eyes and mouth by their place in the head; light is linear, a
wrapped Lambert key with a highlight, sky and fill. float32 throughout, no fastmath.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pcl_lib.faces.mesh import EAR, EYE, EYE_RADIUS, EYE_ROW, FRAME, HAIR, LENS, MOUTH, ROWS, SKIN_V, STRIP
from pcl_lib.faces.paint import ABOVE_ONLY, BELOW_ONLY, NUMBERS, SPLIT_V, STRANDS, TINTS

SAMPLES = 2  # a side of a pixel
_N = {name: k for k, name in enumerate(NUMBERS)}
GAZE_X, GAZE_Y, LIGHT_X, AMBIENT = _N["gaze_x"], _N["gaze_y"], _N["light_x"], _N["ambient"]
JAW_DROP, HALFWAY, SHINE = _N["jaw_drop"], _N["halfway"], _N["shine"]
GRADIENT_X, GRADIENT_Y = _N["gradient_x"], _N["gradient_y"]
OCCLUDER, OCCLUDER_X, OCCLUDER_Y = _N["occluder"], _N["occluder_x"], _N["occluder_y"]
OCCLUDER_SIZE, OCCLUDER_ANGLE = _N["occluder_size"], _N["occluder_angle"]
NOISE, NOISE_SEED, BLUR, MIRRORED = _N["noise"], _N["noise_seed"], _N["blur"], _N["mirrored"]
SKIN_C, HAIR_C, IRIS_C, FRAME_C, BACK_C, OCCLUDER_C, KEY_C, SKY_C = range(len(TINTS))
EYE_V0 = EYE_ROW / (ROWS - 1) * SKIN_V
EYE_V1 = (EYE_ROW + STRIP - 1) / (ROWS - 1) * SKIN_V
F32 = NDArray[np.float32]
Ints = NDArray[np.int32] | NDArray[np.int64]
Bytes = NDArray[np.uint8]
Scalar = Any  # a number; numba settles its width
one = np.float32(1.0)


@njit(nogil=True)
def _clip01(x: Scalar) -> Scalar:
    return min(max(x, np.float32(0.0)), one)


@njit(nogil=True)
def _eye(dx: Scalar, dy: Scalar, dz: Scalar, p: F32, v: Scalar, colours: F32, albedo: F32) -> None:
    """Eyeball colour at offset d (cm) from its centre: sclera, iris with a dark rim, pupil, shadow of the lid."""
    gx, gy = math.radians(float(p[GAZE_X])), math.radians(float(p[GAZE_Y]))
    tx = dx + np.float32(EYE_RADIUS * math.sin(gx))
    ty = dy - np.float32(EYE_RADIUS * math.sin(gy))
    tz = dz - np.float32(EYE_RADIUS)
    r = math.sqrt(tx * tx + ty * ty + np.float32(0.3) * tz * tz * (tz > 0.0))
    shade = np.float32(0.55) + np.float32(0.45) * _clip01(
        (v - np.float32(EYE_V0)) / np.float32(0.45 * (EYE_V1 - EYE_V0))
    )
    inside = _clip01((np.float32(0.74) - r) * np.float32(14.0))
    pupil = _clip01((np.float32(0.29) - r) * np.float32(14.0))
    rim = _clip01((r - np.float32(0.53)) * np.float32(6.0))
    white = np.float32(0.58), np.float32(0.53), np.float32(0.50)
    for j in range(3):
        colour = colours[IRIS_C, j] * (one - np.float32(0.75) * rim)
        colour += pupil * (np.float32(0.004) - colour)
        albedo[j] = (white[j] + inside * (colour - white[j])) * shade


@njit(nogil=True)
def _mouth(x: Scalar, y: Scalar, lip_y: Scalar, drop: Scalar, albedo: F32) -> None:
    """Inside of the mouth at head-frame x and y - lip line: teeth above and below, tongue, darkness."""
    t = y - lip_y
    cx = _clip01((np.float32(2.25) - abs(x)) * np.float32(2.0))
    upper = _clip01((t + np.float32(0.62)) * np.float32(8.0)) * cx
    low = np.float32(2.0) * drop
    lower = _clip01((-np.float32(0.45) - low - t) * np.float32(8.0)) * cx
    tongue = _clip01(np.float32(0.7) * drop * (-t - np.float32(0.9)) * (one - np.float32(0.2) * x * x))
    albedo[0] = np.float32(0.05) + np.float32(0.25) * tongue
    albedo[1] = np.float32(0.015) + np.float32(0.07) * tongue
    albedo[2] = np.float32(0.015) + np.float32(0.07) * tongue
    tooth = max(upper, np.float32(0.75) * lower) * (one - np.float32(0.08) * x * x)
    for j in range(3):
        enamel = np.float32(0.56) if j < 2 else np.float32(0.49)
        albedo[j] += tooth * (enamel - albedo[j])


@njit(nogil=True)
def _paint(kind: Ints, place: F32, layers: F32, colours: F32, atlas: F32, albedo: F32) -> None:
    """albedo [S, 3] of skin and ears (the image's layers over the skin colour), hair and spectacles."""
    h, w = atlas.shape[0], atlas.shape[1]
    for i in range(len(kind)):
        if kind[i] < 0 or kind[i] == EYE or kind[i] == MOUTH:
            continue
        fx, fy = place[i, 0] * np.float32(w - 1), place[i, 1] * np.float32(h - 1)
        ix, iy = min(int(fx), w - 2), min(int(fy), h - 2)
        tx, ty = fx - np.float32(ix), fy - np.float32(iy)
        w00, w01, w10, w11 = (one - tx) * (one - ty), tx * (one - ty), (one - tx) * ty, tx * ty
        if kind[i] == HAIR or kind[i] == FRAME or kind[i] == LENS:
            strand = w00 * atlas[iy, ix, STRANDS] + w01 * atlas[iy, ix + 1, STRANDS]
            strand += w10 * atlas[iy + 1, ix, STRANDS] + w11 * atlas[iy + 1, ix + 1, STRANDS]
            for j in range(3):
                hair = colours[HAIR_C, j] * (np.float32(0.45) + np.float32(1.1) * strand)
                frame = colours[FRAME_C, j] if kind[i] == FRAME else np.float32(0.012)
                albedo[i, j] = hair if kind[i] == HAIR else frame
            continue
        upper = place[i, 1] < np.float32(SPLIT_V)
        r, g, b = colours[SKIN_C, 0], colours[SKIN_C, 1], colours[SKIN_C, 2]
        for k in range(BELOW_ONLY if upper else 0, STRANDS if upper else ABOVE_ONLY):
            if layers[k, 2] > 0.0:
                mask = w00 * atlas[iy, ix, k] + w01 * atlas[iy, ix + 1, k]
                mask += w10 * atlas[iy + 1, ix, k] + w11 * atlas[iy + 1, ix + 1, k]
                mask = layers[k, 0] * (mask + layers[k, 1])
                if mask > 0.0:
                    m = layers[k, 2] * min(mask, one)
                    r += m * (layers[k, 3] - r)
                    g += m * (layers[k, 4] - g)
                    b += m * (layers[k, 5] - b)
        albedo[i, 0], albedo[i, 1], albedo[i, 2] = r, g, b


@njit(nogil=True)
def _paint_features(
    v: F32,
    triangles: Ints,
    owner: Ints,
    bary: F32,
    kind: Ints,
    place: F32,
    p: F32,
    colours: F32,
    anchors: F32,
    albedo: F32,
) -> None:
    """albedo of eyes and mouth, which are painted by their place in the head rather than on the skin."""
    for i in range(len(kind)):
        if kind[i] != EYE and kind[i] != MOUTH:
            continue
        t = owner[i]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        u, w = bary[i, 0], bary[i, 1]
        q = one - u - w
        x = u * v[a, 0] + w * v[b, 0] + q * v[c, 0]
        y = u * v[a, 1] + w * v[b, 1] + q * v[c, 1]
        z = u * v[a, 2] + w * v[b, 2] + q * v[c, 2]
        if kind[i] == EYE:
            e = 0 if x < 0.0 else 1
            _eye(x - anchors[e, 0], y - anchors[e, 1], z - anchors[e, 2], p, place[i, 1], colours, albedo[i])
        else:
            _mouth(x, y, anchors[2, 1], p[JAW_DROP], albedo[i])


@njit(nogil=True)
def _lit(
    r: F32,
    g: Scalar,
    b: Scalar,
    nx: Scalar,
    ny: Scalar,
    nz: Scalar,
    p: F32,
    colours: F32,
    kind: int,
    out: F32,
) -> None:
    """Light albedo r, g, b into out [3]: wrapped Lambert key (softest in red on skin), sky, fill, a highlight."""
    lx, ly, lz = p[LIGHT_X], p[LIGHT_X + 1], p[LIGHT_X + 2]
    cosine = nx * lx + ny * ly + nz * lz
    h = max(nx * lx + ny * ly + nz * (lz + one), np.float32(0.0)) * p[HALFWAY]
    h2 = h * h
    h4 = h2 * h2
    h16 = h4 * h4 * h4 * h4
    shine = p[SHINE] * h16 * (np.float32(0.6) + h16)
    if kind == EYE:
        h64 = h16 * h16 * h16 * h16
        shine = np.float32(0.8) * h64 * h64 * h64
    elif kind == HAIR:
        shine *= np.float32(0.35)
    elif kind == MOUTH:
        shine *= np.float32(0.2)
    elif kind == LENS:
        shine *= np.float32(3.0)
    else:
        shine *= r / (r + np.float32(0.06))  # hair on skin and dark skin are less glossy
    ambient = p[AMBIENT] * (np.float32(0.68) + np.float32(0.32) * ny)
    ambient += np.float32(0.22) * _clip01(np.float32(0.3) + np.float32(0.5) * nz - lx * nx)
    soft = one if kind <= EAR else np.float32(0.5)
    for j in range(3):
        wrap = soft * (np.float32(0.3) if j == 0 else (np.float32(0.14) if j == 1 else np.float32(0.1)))
        diffuse = _clip01((cosine + wrap) / (one + wrap))
        albedo = r if j == 0 else (g if j == 1 else b)
        out[j] = (
            albedo * (colours[KEY_C, j] * diffuse + colours[SKY_C, j] * ambient) + shine * colours[KEY_C, j]
        )


@njit(nogil=True)
def _waves(waves: F32, side: Scalar, table: F32) -> None:
    """table [4, k, side]: sine and cosine of each wave's phase along x and along y (y with phase and height)."""
    for k in range(len(waves)):
        for i in range(side):
            at = np.float32(2 * i + 1) / np.float32(side) - one
            ax, ay = waves[k, 0] * at, waves[k, 1] * at + waves[k, 2]
            table[0, k, i], table[1, k, i] = math.sin(ax), math.cos(ax)
            table[2, k, i], table[3, k, i] = waves[k, 3] * math.sin(ay), waves[k, 3] * math.cos(ay)


@njit(nogil=True)
def _background(xx: int, yy: int, x: Scalar, y: Scalar, p: F32, table: F32, colours: F32, out: F32) -> None:
    """A colour with a gradient and waves, at sample xx, yy, which lies at x, y in [-1, 1] (y down)."""
    g = one + p[GRADIENT_X] * x + p[GRADIENT_Y] * y
    for k in range(table.shape[1]):
        g += table[0, k, xx] * table[3, k, yy] + table[1, k, xx] * table[2, k, yy]
    for j in range(3):
        out[j] = colours[BACK_C, j] * max(g, np.float32(0.05))


@njit(nogil=True)
def _occluder(x: Scalar, y: Scalar, p: F32, colours: F32, out: F32) -> bool:
    """A rounded slab before the face; returns whether it covers x, y."""
    angle = math.radians(float(p[OCCLUDER_ANGLE]))
    c, s = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    dx, dy = x - p[OCCLUDER_X], y - p[OCCLUDER_Y]
    u, v = (c * dx + s * dy) / p[OCCLUDER_SIZE], (c * dy - s * dx) / (np.float32(0.55) * p[OCCLUDER_SIZE])
    u2, v2 = u * u, v * v
    if u2 * u2 + v2 * v2 > 1.0:
        return False
    for j in range(3):
        out[j] = colours[OCCLUDER_C, j] * (np.float32(0.75) - np.float32(0.2) * y)
    return True


@njit(nogil=True)
def _compose(kind: Ints, normal: F32, albedo: F32, p: F32, colours: F32, waves: F32, image: F32) -> None:
    """Light every sample, or show background or occluder; average into image [size, size, 3] (linear light)."""
    size = image.shape[0]
    side = SAMPLES * size
    image[:] = 0.0
    out, table = np.empty(3, np.float32), np.empty((4, len(waves), side), np.float32)
    share, occluded = np.float32(1.0 / SAMPLES**2), p[OCCLUDER] > 0.5
    _waves(waves, side, table)
    for yy in range(side):
        y = np.float32(2 * yy + 1) / np.float32(side) - one
        for xx in range(side):
            x = np.float32(2 * xx + 1) / np.float32(side) - one
            i = yy * side + xx
            if occluded and _occluder(x, y, p, colours, out):
                pass
            elif kind[i] < 0:
                _background(xx, yy, x, y, p, table, colours, out)
            else:
                _lit(albedo[i, 0], albedo[i, 1], albedo[i, 2], normal[i, 0], normal[i, 1], normal[i, 2], p, colours,
                     kind[i], out)  # fmt: skip
            for j in range(3):
                image[yy // SAMPLES, xx // SAMPLES, j] += share * out[j]


@njit(nogil=True)
def _grain(seed: int, x: int, y: int, j: int) -> Scalar:
    """Camera noise of unit variance at a pixel and channel: a hash summed like four dice."""
    h = np.uint64(seed) * np.uint64(2654435761) + np.uint64(x * 1640531513 + y * 97531 + j * 7919)
    h &= np.uint64(0xFFFFFFFF)
    for _ in range(2):
        h = ((h ^ (h >> np.uint64(15))) * np.uint64(0x2C1B3C6D)) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(16)
    total = (h & np.uint64(255)) + ((h >> np.uint64(8)) & np.uint64(255))
    total += ((h >> np.uint64(16)) & np.uint64(255)) + (h >> np.uint64(24))
    return (np.float32(total) - np.float32(510.0)) / np.float32(147.8)


@njit(nogil=True)
def _blur(source: F32, sigma: Scalar, target: F32, along_x: bool) -> None:
    """One pass of a Gaussian, edges repeated."""
    size, reach = source.shape[0], int(3.0 * sigma) + 1
    taps = np.empty(reach + 1, np.float32)
    total = 0.0
    for k in range(reach + 1):
        taps[k] = math.exp(-0.5 * (k / sigma) ** 2)
        total += taps[k] * (1 if k == 0 else 2)
    for y in range(size):
        for x in range(size):
            for j in range(3):
                s = taps[0] * source[y, x, j]
                for k in range(1, reach + 1):
                    if along_x:
                        s += taps[k] * (source[y, max(x - k, 0), j] + source[y, min(x + k, size - 1), j])
                    else:
                        s += taps[k] * (source[max(y - k, 0), x, j] + source[min(y + k, size - 1), x, j])
                target[y, x, j] = s / np.float32(total)


@njit(nogil=True)
def _develop(image: F32, p: F32, spare: F32, out: Bytes) -> None:
    """Lens blur, tone curve, camera noise; linear [size, size, 3] -> uint8 [3, size, size]."""
    size = image.shape[0]
    sigma = float(p[BLUR]) * size / 64.0
    if sigma > 0.15:
        _blur(image, sigma, spare, True)
        _blur(spare, sigma, image, False)
    for y in range(size):
        for x in range(size):
            mx = size - 1 - x if p[MIRRORED] > 0.5 else x
            for j in range(3):
                a = np.float32(1.6) * image[y, x, j]
                a = a * (one + a * np.float32(0.3)) / (one + a)
                value = np.float32(a ** np.float32(1.0 / 2.2)) if a > 0.0 else np.float32(0.0)
                value += p[NOISE] * _grain(int(p[NOISE_SEED]), mx, y, j)
                out[j, y, x] = np.uint8(_clip01(value) * np.float32(255.0) + np.float32(0.5))
