"""The head: one mesh (skin, ears, hair, spectacles) and linear bases for identity and expression.

Head frame in centimetres: origin between the eyes' level and the head's axis, x towards the right edge of the image
of a frontal face, y up, z out of the face. Chin at y = -11.5, eyes at (+-3.15, 0), nose tip near (0, -3.9, 11).
The skin is a grid of rows (from crown to neck) and columns (by azimuth); two rows are split open into strips, the
eye slits and the mouth. A displacement is a smooth field in space, so ears, hair and spectacles follow the skin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pcl_lib.faces.accessories import ear_patch, frames
from pcl_lib.faces.factors import AUS, HAIR_STYLES, SHAPE
from pcl_lib.faces.hair import hair_shells
from pcl_lib.faces.mesh import (
    ABOVE,
    BELOW,
    BETWEEN,
    EAR,
    EYE,
    EYE_RADIUS,
    EYE_ROW,
    EYE_X,
    EYE_Z,
    HAIR,
    MOUTH,
    MOUTH_ROW,
    MOUTH_Y,
    ROWS,
    SKIN,
    SKIN_V,
    STRIP,
    Floats,
    Head,
    azimuths,
    bump_at,
    curve,
    grid_faces,
    section,
    smooth,
)


def _lid_shape(x: Floats) -> Floats:
    """Height profile of the eye slit over |x|: 1 at the highest point, 0 beyond the corners."""
    t = (np.abs(x) - EYE_X) / 1.6
    return np.clip(1.0 - t * t, 0.0, 1.0) ** 0.75


def _mouth_shape(x: Floats) -> Floats:
    return np.clip(1.0 - (x / 2.55) ** 2, 0.0, 1.0)


def _face_relief(p: Floats) -> Floats:
    """What the face adds to the skull's z (brow, sockets, nose, cheeks, lips, chin), at skull points p."""
    x, y = p[..., 0], p[..., 1]
    ax = np.abs(x)
    ridge = curve(y, (2.6, 0.0), (1.5, 0.1), (0.5, 0.5), (-1.0, 1.2), (-2.2, 1.85), (-3.2, 2.5), (-3.75, 2.8),
                   (-4.2, 2.6), (-4.6, 1.6), (-4.9, 0.55), (-5.3, 0.1), (-5.8, 0.0))  # fmt: skip
    width = curve(y, (2.0, 1.0), (0.5, 0.72), (-1.5, 0.8), (-3.0, 1.0), (-3.9, 1.2), (-4.6, 1.25))
    nose = ridge * np.exp(-((ax / width) ** 2.2)) + 0.75 * bump_at(x, y, 1.35, -4.05, 0.42, 0.5)
    nose -= 0.35 * bump_at(x, y, 0.62, -4.75, 0.3, 0.2)
    brow = 0.5 * bump_at(x, y, 2.6, 1.95, 2.2, 0.7) + 0.25 * bump_at(x, y, 0.0, 1.9, 1.4, 0.9)
    socket = -0.75 * bump_at(x, y, 2.9, 0.15, 1.9, 1.1) - 0.35 * bump_at(x, y, 1.5, 0.3, 0.6, 0.8)
    cheek = 0.45 * bump_at(x, y, 4.2, -2.4, 1.8, 1.6) - 0.25 * bump_at(x, y, 4.4, -6.0, 1.3, 1.5)
    muzzle = 0.45 * bump_at(x, y, 0.0, -6.9, 2.6, 1.6) - 0.12 * bump_at(x, y, 0.0, -5.8, 0.35, 0.7)
    corner = np.clip(1.0 - (ax / 2.9) ** 2, 0.0, 1.0)
    lips = corner * (curve(y, (-6.0, 0.0), (-6.45, 0.28), (-6.75, 0.45), (-7.1, 0.08))
                     * (y > MOUTH_Y) + curve(y, (-7.1, 0.08), (-7.5, 0.48), (-7.9, 0.35), (-8.4, 0.0))
                     * (y <= MOUTH_Y))  # fmt: skip
    chin = 0.6 * bump_at(x, y, 0.0, -10.2, 1.7, 1.1) - 0.35 * bump_at(x, y, 0.0, -8.75, 1.8, 0.45)
    return nose + brow + socket + cheek + muzzle + lips + chin


def _skin_grid() -> tuple[Floats, Floats, Floats]:
    """Mean skin [ROWS, columns, 3] and its row weights: y before warping and strip fraction (0 above, 1 below)."""
    rows = np.r_[ABOVE, np.zeros(STRIP), BETWEEN, np.full(STRIP, MOUTH_Y), BELOW]
    azimuth = azimuths()
    y0, az = np.meshgrid(rows, azimuth, indexing="ij")
    p = section(y0, az)
    front = smooth(0.0, 0.55, np.cos(az))
    p[..., 2] += front * _face_relief(p)
    # Rows near the chin follow the jaw line up towards the ears.
    rise = 3.1 * smooth(np.radians(15), np.radians(85), np.abs(az))
    p[..., 1] += rise * smooth(-5.0, -11.0, y0) * smooth(-18.0, -12.5, y0)
    # The nose's underside: its tip droops over the lip.
    p[..., 1] -= 0.25 * bump_at(p[..., 0], y0, 0.0, -4.2, 0.9, 0.45)
    lid = _lid_shape(p[..., 0]) * front
    fraction = np.linspace(0.0, 1.0, STRIP)
    strip = np.zeros(rows.shape)
    strip[EYE_ROW : EYE_ROW + STRIP] = strip[MOUTH_ROW : MOUTH_ROW + STRIP] = fraction
    k = np.arange(ROWS)[:, None]
    upper = np.where(k <= EYE_ROW, np.clip(1 - y0 / 1.6, 0, 1), 0.0) * lid
    lower = np.where(k >= EYE_ROW + STRIP - 1, np.clip(1 + y0 / 1.3, 0, 1), 0.0) * lid
    inside = (k > EYE_ROW) & (k < EYE_ROW + STRIP - 1)
    upper = np.where(inside, (1 - strip[:, None]) * lid, upper)
    lower = np.where(inside, strip[:, None] * lid, lower)
    p[..., 1] += 0.66 * upper - 0.46 * lower + 0.07 * (np.abs(p[..., 0]) - EYE_X) * np.maximum(upper, lower)
    d2 = (np.abs(p[..., 0]) - EYE_X) ** 2 + (p[..., 1]) ** 2
    in_strip = (k >= EYE_ROW) & (k < EYE_ROW + STRIP)
    radius = np.where(inside, EYE_RADIUS, EYE_RADIUS + 0.14)
    ball = EYE_Z + np.sqrt(np.clip(radius**2 - d2, 0.0, None))
    blend = np.where(in_strip, lid > 0, np.clip(1.3 * np.maximum(upper, lower), 0, 1)) * (d2 < radius**2)
    p[..., 2] += blend * (ball - p[..., 2])
    return p, np.broadcast_to(y0, y0.shape), np.stack([upper, lower])


def _bump_and_field(p: Floats) -> tuple[Callable[..., Floats], Callable[..., Floats]]:
    """What displacements of points p [V, 3] are made of: bump(cx, cy, sx, sy), a weight [V] of a place on both sides of
    the front; field(dx, dy, dz), their displacement [V, 3] with dx away from the middle."""
    x, y, z = p.T
    side, front, zero = np.sign(x), smooth(0.0, 4.0, z), np.zeros_like(x)

    def bump(cx: float, cy: float, sx: float, sy: float) -> Floats:
        return bump_at(x, y, cx, cy, sx, sy) * front

    def field(dx: Floats | float = 0.0, dy: Floats | float = 0.0, dz: Floats | float = 0.0) -> Floats:
        return np.stack([side * dx + zero, dy + zero, dz + zero], axis=1)

    return bump, field


def _shape_fields(p: Floats) -> Floats:
    """Displacement of one standard deviation of each SHAPE factor at mean points p [V, 3]: [K, V, 3]."""
    x, y, z = p.T
    ax, front = np.abs(x), smooth(0.0, 4.0, z)
    bump, field = _bump_and_field(p)

    low = smooth(-2.0, -8.5, y) * smooth(-18, -12, y)  # jaw region
    chin = smooth(-8.3, -11.0, y) * smooth(-17, -12.5, y)
    nose = smooth(1.5, -3.6, y) * smooth(-5.6, -4.6, y) * np.exp(-((ax / 1.5) ** 2)) * front
    eye = bump(EYE_X, 0.0, 1.9, 1.2)
    return np.stack([
        field(dx=0.045 * ax),  # face_width
        field(dy=0.038 * (y - 0.0) * smooth(0.0, -3.0, y)),  # face_length
        field(dz=-0.05 * np.clip(-z, 0, None)),  # head_depth
        field(dy=0.05 * np.clip(y - 3.0, 0, None), dz=0.25 * bump(0, 5.5, 6, 2.5)),  # forehead_height
        field(dx=0.085 * ax * low),  # jaw_width
        field(dy=-0.42 * chin),  # chin_length
        field(dz=0.42 * bump(0, -10.5, 3.0, 2.2)),  # chin_forward
        field(dx=0.22 * bump(5.0, -1.8, 1.8, 1.6), dz=0.3 * bump(4.6, -1.8, 1.6, 1.4)),  # cheekbones
        field(dx=0.3 * bump_at(x, y, 5.2, -5.4, 2.2, 2.6), dz=0.38 * bump(4.0, -5.4, 1.8, 2.2)),  # cheek_fullness
        field(dz=0.3 * bump(2.2, 1.9, 2.8, 0.8)),  # brow_ridge
        field(dy=0.24 * bump(2.9, 2.2, 2.6, 1.0)),  # brow_height
        field(dy=0.2 * bump(3.6, 2.2, 0.9, 0.9) - 0.2 * bump(1.6, 2.1, 0.8, 0.9)),  # brow_arch
        field(dx=0.17 * bump(EYE_X, 0.2, 2.6, 2.2)),  # eye_spacing
        field(dx=0.07 * (ax - EYE_X) * eye, dy=0.14 * y * eye),  # eye_size
        field(dy=0.09 * (ax - EYE_X) * eye),  # eye_tilt
        field(dz=-0.16 * bump(EYE_X, 0.2, 1.9, 1.3)),  # eye_depth
        field(dy=-0.3 * nose - 0.12 * bump(0, -5.5, 2.5, 0.8)),  # nose_length
        field(dx=0.17 * ax * bump(0, -4.0, 1.9, 1.2)),  # nose_width
        field(dz=0.3 * bump(0, -0.6, 0.9, 1.6)),  # nose_bridge
        field(dy=0.22 * bump(0, -4.0, 0.9, 0.7)),  # nose_tip
        field(dz=0.3 * bump(0, -3.7, 1.3, 1.2), dx=0.06 * ax * bump(0, -3.8, 1.6, 1.2)),  # nose_size
        field(dx=0.09 * ax * bump(0, -7.1, 3.4, 1.5)),  # mouth_width
        field(dy=0.22 * bump(0, -7.1, 3.4, 1.4)),  # mouth_height
        field(dy=0.22 * bump(0, -6.5, 2.0, 0.45) - 0.25 * bump(0, -7.95, 1.9, 0.6),
              dz=0.2 * bump(0, -6.8, 2.0, 0.5) + 0.2 * bump(0, -7.6, 1.9, 0.5)),  # lip_fullness
        zero3 := field(),  # ear_size, ear_flare: set for the ears alone
        zero3,
        field(dx=0.07 * ax * smooth(-8.5, -13.0, y)),  # neck_width
    ])  # fmt: skip


def _au_fields(p: Floats, upper: Floats, lower: Floats, jaw: Floats, lip: Floats) -> Floats:
    """Displacement of each action unit at intensity 5, at mean points p [V, 3]: [10, V, 3].

    upper, lower: weights of the eyelids; jaw: 0 above the mouth line to 1 below it; lip: signed weight of the
    lips (+1 upper edge, -1 lower edge). Facial Action Coding System: which way each unit moves the skin.
    """
    ax, front = np.abs(p[:, 0]), smooth(0.0, 4.0, p[:, 2])
    bump, field = _bump_and_field(p)

    corner = bump(2.6, -7.1, 1.3, 1.3)
    inner, outer = bump(1.4, 2.2, 1.3, 1.1), bump(4.2, 2.4, 1.5, 1.2)
    drop = jaw * front
    return np.stack([
        field(dy=1.0 * inner + 0.16 * upper),  # au01 inner brow raiser
        field(dy=1.0 * outer + 0.2 * upper + 0.2 * inner),  # au02 outer brow raiser
        field(dx=-0.4 * bump(1.6, 2.2, 1.4, 1.0), dy=-0.85 * bump(1.3, 2.1, 1.7, 1.0) - 0.22 * upper,
              dz=0.2 * bump(0.9, 1.9, 0.9, 0.8)),  # au04 brow lowerer
        field(dx=0.15 * bump(4.0, -2.6, 1.8, 1.5), dy=0.6 * bump(3.8, -2.4, 1.8, 1.4) + 0.28 * lower - 0.12 * upper,
              dz=0.3 * bump(3.8, -2.0, 1.6, 1.2)),  # au06 cheek raiser
        field(dx=0.15 * bump(1.4, -4.1, 0.8, 0.8), dy=0.5 * bump(1.3, -4.2, 1.2, 1.0) - 0.35 * bump(1.2, 2.0, 1.2, 0.9)
              + 0.6 * bump(1.4, -6.4, 1.5, 0.9) + 0.22 * lower - 0.15 * upper,
              dz=0.2 * bump(1.0, -1.5, 0.7, 1.2)),  # au09 nose wrinkler
        field(dx=0.95 * corner + 0.25 * bump(3.9, -4.6, 1.6, 1.5),
              dy=1.15 * corner + 0.4 * bump(3.8, -4.2, 1.7, 1.6), dz=-0.5 * corner + 0.35 * bump(3.9, -4.2, 1.4, 1.4)),
        field(dx=0.15 * corner, dy=-0.85 * corner + 0.12 * bump(0, -7.4, 1.2, 0.8),
              dz=0.2 * bump(0, -9.9, 1.4, 0.8)),  # au15 lip corner depressor
        field(dx=1.15 * corner, dy=-0.3 * corner, dz=-0.6 * corner - 0.15 * bump(0, -7.2, 2.0, 1.0)),  # au20 stretcher
        field(dy=0.34 * np.clip(lip, 0, 1) - 0.6 * np.clip(-lip, 0, 1)),  # au25 lips part
        field(dy=-2.1 * drop, dz=-0.55 * drop, dx=-0.12 * np.minimum(ax, 3) * drop * bump(0, -7.4, 3.5, 1.6)),  # au26
    ])  # fmt: skip


@cache
def head() -> Head:
    """Build the morphable head (once a process)."""
    grid, y0, lids = _skin_grid()
    columns = grid.shape[1]
    skin = grid.reshape(-1, 3)
    n_skin = len(skin)
    v = np.repeat(np.arange(ROWS) / (ROWS - 1), columns) * SKIN_V
    u = np.tile(np.abs(np.arange(columns) - columns // 2) / (columns // 2), ROWS)
    faces = grid_faces(ROWS, columns)
    row = faces.min(axis=1) // columns
    kind = np.full(len(faces), SKIN)
    kind[(row >= EYE_ROW) & (row < EYE_ROW + STRIP - 1)] = EYE
    kind[(row >= MOUTH_ROW) & (row < MOUTH_ROW + STRIP - 1)] = MOUTH

    parts, uvs, triangles, kinds = [skin], [np.stack([u, v], 1)], [faces], [kind]

    def add(p: Floats, uv: Floats, f: NDArray[np.int64], material: int) -> int:
        start = sum(map(len, parts))
        parts.append(p)
        uvs.append(uv)
        triangles.append(f + start)
        kinds.append(np.full(len(f), material))
        return start

    ear, ear_uv, ear_faces = ear_patch()
    add(ear * [-1, 1, 1], ear_uv, ear_faces, EAR)
    ear_start = add(ear, ear_uv, ear_faces, EAR)
    for p, f, material in zip(*frames(), strict=True):
        add(p, np.zeros((len(p), 2)), f, material)
    eyes = add(
        np.array([[-EYE_X, 0, EYE_Z], [EYE_X, 0, EYE_Z]]), np.zeros((2, 2)), np.zeros((0, 3), int), SKIN
    )
    shells, masks, hair_uv, hair_faces = hair_shells()
    hair_start = add(shells[HAIR_STYLES.index("short")], hair_uv, hair_faces, HAIR)

    mean = np.concatenate(parts)
    shape = _shape_fields(mean)
    for first in (n_skin, ear_start):
        local = mean[first : first + len(ear)] - np.array([np.sign(mean[first, 0]) * 6.9, -1.5, 0.3])
        shape[:, first : first + len(ear)] = _rigid(shape[:, first : first + len(ear)])
        shape[SHAPE.index("ear_size"), first : first + len(ear)] = 0.1 * local
        shape[SHAPE.index("ear_flare"), first : first + len(ear), 0] = (
            np.sign(mean[first, 0]) * 0.16 * np.clip(0.8 - mean[first : first + len(ear), 2], 0, None)
        )
    weights = _skin_weights(grid, y0, lids, len(mean))
    au = _au_fields(mean, *weights)
    au[:, n_skin:] = 0.0  # nothing but skin moves with the face's muscles
    _open_mouth_inwards(au, grid)
    tip = int(np.argmax(np.where(np.abs(skin[:, 1] + 3.9) < 1.0, skin[:, 2], -99)))
    corner = MOUTH_ROW * columns + columns // 2
    at = int(np.argmin(np.abs(grid[MOUTH_ROW, columns // 2 :, 0] - 2.6)))
    chin = (ROWS - len(BELOW) + BELOW.index(-11.3)) * columns + columns // 2
    landmark = np.array([eyes, eyes + 1, tip, corner - at, corner + at, chin, n_skin + 55, ear_start + 55])
    f32 = np.float32
    return Head(
        mean.astype(f32), shape.astype(f32), au.astype(f32), np.concatenate(uvs).astype(f32),
        np.concatenate(triangles).astype(np.int32), np.concatenate(kinds).astype(np.int32), hair_start,
        shells.astype(f32), masks.astype(f32), grid, landmark,
    )  # fmt: skip


def _rigid(fields: Floats) -> Floats:
    """Ears move as a whole: the mean displacement of their points."""
    return np.broadcast_to(fields.mean(axis=1, keepdims=True), fields.shape).copy()


def _skin_weights(grid: Floats, y0: Floats, lids: Floats, count: int) -> list[Floats]:
    """Per-vertex weights [count] of upper lid, lower lid, jaw and lips (see `_au_fields`)."""
    k = np.arange(ROWS)[:, None]
    last = MOUTH_ROW + STRIP - 1
    fraction = np.clip((k - MOUTH_ROW) / (STRIP - 1), 0, 1)
    # The strip's inner rows stay near the lip they belong to, so that the cavity is deep.
    fraction = np.where(fraction < 0.5, 0.15 * fraction, 1 - 0.15 * (1 - fraction))
    mouth = _mouth_shape(grid[..., 0]) ** 0.6
    beside = 0.5 * smooth(-5.5, -9.5, y0) * (k <= last) + (k > last) * smooth(-6.9, -9.0, y0)
    x = np.abs(grid[..., 0])
    jaw = np.maximum(np.where(k >= MOUTH_ROW, fraction * mouth, 0.0), beside * smooth(7.0, 2.0, x))
    jaw = np.where(k > last, np.maximum(jaw, smooth(6.8, 2.2, x)), jaw) * smooth(-16.0, -12.0, y0)
    fall_up, fall_down = np.clip(1 - (y0 - MOUTH_Y) / 1.2, 0, 1), np.clip(1 - (MOUTH_Y - y0) / 1.6, 0, 1)
    lip = np.where(k <= MOUTH_ROW, fall_up, np.where(k >= last, -fall_down, 1 - 2 * fraction)) * mouth
    out = []
    for w in (lids[0], lids[1], jaw, lip):
        full = np.zeros(count)
        full[: grid[..., 0].size] = w.ravel()
        out.append(full)
    return out


def _open_mouth_inwards(au: Floats, grid: Floats) -> None:
    """Push the mouth strip's inner rows back as the lips part: teeth stand behind the lips."""
    columns = grid.shape[1]
    inner = np.arange(MOUTH_ROW + 1, MOUTH_ROW + STRIP - 1)
    index = (inner[:, None] * columns + np.arange(columns)).ravel()
    depth = _mouth_shape(grid[inner, :, 0]).ravel() * (grid[inner, :, 2].ravel() > 0)
    for name, amount in (("au25", 0.6), ("au26", 0.7)):
        au[AUS.index(name), index, 2] -= amount * depth
