"""CPU geometry: numba kernels that deform, project and rasterise one head after another.

Smooth normals of the deformed mesh, z-buffer, two by two samples a pixel. float32 throughout, no fastmath and no
BLAS, so that pixels do not depend on the machine.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pcl_lib.faces.camera import DISTANCE, HALF_VIEW, PIVOT
from pcl_lib.faces.mesh import FRAME, HAIR, LENS, MOUTH
from pcl_lib.faces.paint import NUMBERS
from pcl_lib.faces.shade import SAMPLES, _compose, _develop, _paint, _paint_features
from pcl_lib.utils import kept_if_possible

_N = {name: k for k, name in enumerate(NUMBERS)}
YAW, PITCH, ROLL = _N["yaw"], _N["pitch"], _N["roll"]
SHIFT_X, SHIFT_Y, ZOOM, STYLE, GLASSES = (_N[k] for k in ("shift_x", "shift_y", "zoom", "style", "glasses"))
PIVOT_Y, PIVOT_Z = PIVOT[1:]
F32 = NDArray[np.float32]
Ints = NDArray[np.int32] | NDArray[np.int64]
Bytes = NDArray[np.uint8]
Scalar = Any  # a number; numba settles its width
one = np.float32(1.0)


@njit(nogil=True)
def _deform(basis: F32, first: Ints, last: Ints, coefficients: F32, v: F32) -> None:
    """v [g, 3V] += coefficients [g, K] times basis [K, 3V], over the part of each row that is not zero.

    Blocks of a row stay in the cache while all g images take their share.
    """
    step = 1024
    for start in range(0, v.shape[1], step):
        for i in range(len(v)):
            for k in range(len(basis)):
                a = coefficients[i, k]
                for j in range(max(start, first[k]), min(start + step, last[k])):
                    v[i, j] += a * basis[k, j]


@njit(nogil=True)
def _normals(v: F32, triangles: Ints, n: F32) -> None:
    """Area-weighted vertex normals n [V, 3] (unit length) of v [V, 3]."""
    n[:] = 0.0
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = v[b, 0] - v[a, 0], v[b, 1] - v[a, 1], v[b, 2] - v[a, 2]
        wx, wy, wz = v[c, 0] - v[a, 0], v[c, 1] - v[a, 1], v[c, 2] - v[a, 2]
        x, y, z = uy * wz - uz * wy, uz * wx - ux * wz, ux * wy - uy * wx
        for i in (a, b, c):
            n[i, 0] += x
            n[i, 1] += y
            n[i, 2] += z
    for i in range(len(n)):
        s = n[i, 0] * n[i, 0] + n[i, 1] * n[i, 1] + n[i, 2] * n[i, 2]
        r = one / math.sqrt(s + np.float32(1e-20))
        n[i, 0] *= r
        n[i, 1] *= r
        n[i, 2] *= r


@njit(nogil=True)
def _rotation(p: F32, r: F32) -> None:
    """r [3, 3] = Rx(pitch) Ry(yaw) Rz(roll): yaw > 0 turns to -x, pitch > 0 up, roll > 0 clockwise in the image."""
    a, b, c = math.radians(float(p[PITCH])), math.radians(float(p[YAW])), math.radians(float(p[ROLL]))
    ca, sa, cb, sb, cc, sc = math.cos(a), math.sin(a), math.cos(b), math.sin(b), math.cos(c), math.sin(c)
    r[0, 0], r[0, 1], r[0, 2] = cb * cc, cb * sc, -sb
    r[1, 0], r[1, 1], r[1, 2] = -ca * sc + sa * sb * cc, ca * cc + sa * sb * sc, sa * cb
    r[2, 0], r[2, 1], r[2, 2] = sa * sc + ca * sb * cc, -sa * cc + ca * sb * sc, ca * cb


@njit(nogil=True)
def _project(v: F32, n: F32, p: F32, side: Scalar, screen: F32) -> None:
    """Turn normals n [V, 3] into the camera frame in place; screen [V, 3] = x, y in samples (y down), 1 / depth."""
    r = np.empty((3, 3), np.float32)
    _rotation(p, r)
    half = np.float32(0.5) * side
    scale = half * p[ZOOM] * np.float32(DISTANCE / HALF_VIEW)
    for i in range(len(v)):
        x, y, z = v[i, 0], v[i, 1] - np.float32(PIVOT_Y), v[i, 2] - np.float32(PIVOT_Z)
        w = one / (np.float32(DISTANCE) - (r[2, 0] * x + r[2, 1] * y + r[2, 2] * z))
        screen[i, 0] = half + half * p[SHIFT_X] + scale * w * (r[0, 0] * x + r[0, 1] * y + r[0, 2] * z)
        screen[i, 1] = half + half * p[SHIFT_Y] - scale * w * (r[1, 0] * x + r[1, 1] * y + r[1, 2] * z)
        screen[i, 2] = w
        x, y, z = n[i, 0], n[i, 1], n[i, 2]
        n[i, 0] = r[0, 0] * x + r[0, 1] * y + r[0, 2] * z
        n[i, 1] = r[1, 0] * x + r[1, 1] * y + r[1, 2] * z
        n[i, 2] = r[2, 0] * x + r[2, 1] * y + r[2, 2] * z


@njit(nogil=True)
def _shown(kind: int, p: F32) -> bool:
    """Whether this image has such triangles at all."""
    if kind == FRAME:
        return p[GLASSES] > 0
    if kind == LENS:
        return p[GLASSES] > 1
    if kind == HAIR:
        return p[STYLE] > 1  # neither bald nor buzz
    return True


@njit(nogil=True)
def _rasterise(
    screen: F32,
    triangles: Ints,
    material: Ints,
    mask: F32,
    hair_start: int,
    p: F32,
    side: Scalar,
    depth: F32,
    owner: Ints,
    bary: F32,
) -> None:
    """Nearest triangle at each sample: depth [side, side] (1 / distance), owner (-1: none), bary (two weights)."""
    depth[:] = 0.0
    owner[:] = -1
    for t in range(len(triangles)):
        kind = material[t]
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by, cx, cy = (
            screen[a, 0], screen[a, 1], screen[b, 0], screen[b, 1], screen[c, 0], screen[c, 1]
        )  # fmt: skip
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0 or (kind <= MOUTH and area > 0.0) or not _shown(kind, p):
            continue  # y points down, so a positive area is seen from behind
        half = np.float32(0.5)
        x0, x1 = max(0, math.ceil(min(ax, bx, cx) - half)), min(side - 1, math.floor(max(ax, bx, cx) - half))
        y0, y1 = max(0, math.ceil(min(ay, by, cy) - half)), min(side - 1, math.floor(max(ay, by, cy) - half))
        inv = one / area
        for yy in range(y0, y1 + 1):
            py = np.float32(yy) + half
            for xx in range(x0, x1 + 1):
                px = np.float32(xx) + half
                u = ((cx - bx) * (py - by) - (cy - by) * (px - bx)) * inv
                w = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) * inv
                q = one - u - w
                if u < 0.0 or w < 0.0 or q < 0.0:
                    continue
                z = u * screen[a, 2] + w * screen[b, 2] + q * screen[c, 2]
                if z <= depth[yy, xx]:
                    continue
                if kind == HAIR and (
                    u * mask[a - hair_start] + w * mask[b - hair_start] + q * mask[c - hair_start] < 0.0
                ):
                    continue
                depth[yy, xx] = z
                owner[yy, xx] = t
                bary[yy, xx, 0] = u
                bary[yy, xx, 1] = w


@njit(nogil=True)
def _gather(
    n: F32,
    uv: F32,
    triangles: Ints,
    material: Ints,
    owner: Ints,
    bary: F32,
    kind: Ints,
    normal: F32,
    place: F32,
) -> None:
    """At each sample: material (-1: none), unit normal towards the camera [S, 3], texture coordinates [S, 2]."""
    for i in range(len(owner)):
        t = owner[i]
        if t < 0:
            kind[i] = -1
            continue
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        u, w = bary[i, 0], bary[i, 1]
        q = one - u - w
        x = u * n[a, 0] + w * n[b, 0] + q * n[c, 0]
        y = u * n[a, 1] + w * n[b, 1] + q * n[c, 1]
        z = u * n[a, 2] + w * n[b, 2] + q * n[c, 2]
        r = one / math.sqrt(x * x + y * y + z * z + np.float32(1e-12))
        if material[t] > MOUTH and z < 0.0:
            r = -r
        kind[i] = material[t]
        normal[i, 0], normal[i, 1], normal[i, 2] = x * r, y * r, z * r
        place[i, 0] = u * uv[a, 0] + w * uv[b, 0] + q * uv[c, 0]
        place[i, 1] = u * uv[a, 1] + w * uv[b, 1] + q * uv[c, 1]


def _fingerprint() -> int:
    """Changes with any source file here: the kernels freeze constants of all of them."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return int(hashlib.sha256(b"".join(p.read_bytes() for p in sources)).hexdigest()[:12], 16)


Kernel = Callable[..., None]


def _kernels(fingerprint: int, cache: bool) -> tuple[Kernel, Kernel]:
    """Compile `draw` and `depths`, or load them: numba keys its cache by this file and by what they close over."""

    @njit(nogil=True, cache=cache)
    def draw(
        v: F32,
        mask: F32,
        anchors: F32,
        basis: F32,
        first: Ints,
        last: Ints,
        uv: F32,
        triangles: Ints,
        material: Ints,
        atlas: F32,
        coefficients: F32,
        layers: F32,
        colours: F32,
        numbers: F32,
        waves: F32,
        out: Bytes,
    ) -> None:
        """Draw images out [n, 3, size, size] of n rows of packed factors (see render.py for what each array holds).

        v [n, V, 3] comes in as the mean head with each row's hair and leaves as the deformed head.
        """
        size, count = out.shape[2], v.shape[1]
        side = SAMPLES * size + 0 * fingerprint
        hair_start = count - mask.shape[1]
        n, screen = np.empty((count, 3), np.float32), np.empty((count, 3), np.float32)
        depth, owner, bary = (
            np.empty((side, side), np.float32),
            np.empty((side, side), np.int32),
            np.empty((side, side, 2), np.float32),
        )
        owners, weights = owner.reshape(-1), bary.reshape(-1, 2)
        kind, place = np.empty(side * side, np.int32), np.empty((side * side, 2), np.float32)
        normal, albedo = np.empty((side * side, 3), np.float32), np.empty((side * side, 3), np.float32)
        image, spare = np.empty((size, size, 3), np.float32), np.empty((size, size, 3), np.float32)
        _deform(basis, first, last, coefficients, v.reshape(len(v), -1))
        for i in range(len(out)):
            p = numbers[i]
            _normals(v[i], triangles, n)
            _project(v[i], n, p, np.float32(side), screen)
            _rasterise(screen, triangles, material, mask[i], hair_start, p, side, depth, owner, bary)
            _gather(n, uv, triangles, material, owners, weights, kind, normal, place)
            _paint(kind, place, layers[i], colours[i], atlas, albedo)
            _paint_features(v[i], triangles, owners, weights, kind, place, p, colours[i], anchors[i], albedo)
            _compose(kind, normal, albedo, p, colours[i], waves[i], image)
            _develop(image, p, spare, out[i])

    @njit(nogil=True, cache=cache)
    def depths(
        v: F32,
        mask: F32,
        basis: F32,
        first: Ints,
        last: Ints,
        triangles: Ints,
        material: Ints,
        coefficients: F32,
        numbers: F32,
        depth: F32,
    ) -> None:
        """Deform v in place and fill depth [n, side, side] with 1 / distance of the nearest surface (0: none)."""
        side = depth.shape[1] + 0 * fingerprint
        screen, n = np.empty(v.shape[1:], np.float32), np.zeros(v.shape[1:], np.float32)
        owner, bary = np.empty((side, side), np.int32), np.empty((side, side, 2), np.float32)
        _deform(basis, first, last, coefficients, v.reshape(len(v), -1))
        for i in range(len(v)):
            _project(v[i], n, numbers[i], np.float32(side), screen)
            hair_start = v.shape[1] - mask.shape[1]
            _rasterise(
                screen, triangles, material, mask[i], hair_start, numbers[i], side, depth[i], owner, bary
            )

    return draw, depths


draw, depths = kept_if_possible(lambda cache: _kernels(_fingerprint(), cache))
