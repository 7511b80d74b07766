"""Colours: masks painted once over the skin (the atlas), and what each image makes of them.

A mask channel becomes a layer of paint by `weight * clip(gain * (mask + bias), 0, 1)` and a colour; the layers are
laid over the skin colour in order. All light is linear; palettes are given in sRGB and linearised here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcl_lib.faces.factors import AUS, BEARDS, HAIR_STYLES, NUMERIC, SHAPE, check_factors
from pcl_lib.faces.hair import SHORT_LINE
from pcl_lib.faces.mesh import BETWEEN, EYE_ROW, EYE_X, ROWS, SKIN_V, STRIP, Head, bump_at, curve, smooth

Floats = NDArray[np.float64]
# Ordered so that each half of the face looks up a contiguous run: below the nose only, everywhere, above only.
LAYERS = (
    "lips", "lip_line", "moustache", "goatee", "nasolabial", "nostril", "occlusion", "blush", "freckles", "beard",
    "scalp", "mottle", "orbit", "brow", "furrow", "forehead", "crow", "nose_lines", "lash",
)  # fmt: skip
BELOW_ONLY, ABOVE_ONLY = LAYERS.index("occlusion"), LAYERS.index("orbit")
SPLIT_V = (EYE_ROW + STRIP + BETWEEN.index(-2.7)) / (ROWS - 1) * SKIN_V  # texture height of the divide
CHANNELS = 20  # the layers, the hair's strands, and one to fill up
STRANDS = len(LAYERS)
WIDTH, HEIGHT = 128, 256  # of the atlas; its u is 0 at the midline, both halves of the face share it
TINTS = ("skin", "hair", "iris", "frame", "background", "occluder", "key", "sky")
NUMBERS = (
    "yaw", "pitch", "roll", "shift_x", "shift_y", "zoom", "gaze_x", "gaze_y", "light_x", "light_y", "light_z",
    "halfway",
    "ambient", "jaw_drop", "shine", "gradient_x", "gradient_y", "occluder", "occluder_x", "occluder_y",
    "occluder_size", "occluder_angle", "noise", "noise_seed", "blur", "mirrored", "hairline", "part", "fringe",
    "volume", "style", "glasses",
)  # fmt: skip
SKIN_TONES = ((250, 222, 204), (240, 200, 172), (222, 174, 138), (194, 142, 106), (152, 104, 74), (112, 75, 54),
              (76, 51, 40))  # fmt: skip
HAIR_TONES = ((18, 14, 13), (42, 27, 20), (78, 50, 32), (118, 68, 38), (150, 104, 58), (204, 166, 104))
IRIS_TONES = ((44, 26, 16), (84, 52, 26), (100, 84, 46), (84, 110, 92), (92, 132, 168))


@dataclass(frozen=True)
class Packed:
    """A factor table as the renderer's numbers, one row an image.

    coefficients [n, len(SHAPE) + 10], layers [n, len(LAYERS), 6] (gain, bias, weight, r, g, b),
    colours [n, len(TINTS), 3], numbers [n, len(NUMBERS)], waves [n, 5, 4] (background: kx, ky, phase, height).
    All float32.
    """

    coefficients: NDArray[np.float32]
    layers: NDArray[np.float32]
    colours: NDArray[np.float32]
    numbers: NDArray[np.float32]
    waves: NDArray[np.float32]


def _linear(srgb: Floats | tuple) -> Floats:
    return (np.asarray(srgb, np.float64) / 255.0) ** 2.2


def _palette(at: Floats, tones: tuple) -> Floats:
    """Colour at `at` in [0, 1] along equally spaced sRGB tones: [n, 3]."""
    stops = np.linspace(0.0, 1.0, len(tones))
    srgb = np.asarray(tones, np.float64)
    return _linear(np.stack([np.interp(at, stops, srgb[:, c]) for c in range(3)], axis=-1))


def _line(x: Floats, y: Floats, points: list[tuple[float, float]], width: float) -> Floats:
    """Soft stroke along a polyline in (|x|, y)."""
    best = np.full(x.shape, 1e9)
    ax = np.abs(x)
    for (x0, y0), (x1, y1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((ax - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        best = np.minimum(best, (ax - x0 - t * dx) ** 2 + (y - y0 - t * dy) ** 2)
    return np.exp(-best / width**2)


def _noise(height: int, width: int, cells: tuple[int, int], seed: int) -> Floats:
    """Smooth value noise in [0, 1] with cells[0] x cells[1] bumps."""
    coarse = np.random.default_rng(seed).random((cells[0] + 2, cells[1] + 2))
    fy, fx = np.linspace(0, cells[0], height), np.linspace(0, cells[1], width)
    iy, ix = fy.astype(int), fx.astype(int)
    ty, tx = smooth(0, 1, fy - iy)[:, None], smooth(0, 1, fx - ix)[None]
    a, b = coarse[iy][:, ix], coarse[iy][:, ix + 1]
    c, d = coarse[iy + 1][:, ix], coarse[iy + 1][:, ix + 1]
    return (a * (1 - tx) + b * tx) * (1 - ty) + (c * (1 - tx) + d * tx) * ty


@cache
def _texels(grid_bytes: bytes, rows: int, columns: int) -> Floats:
    grid = np.frombuffer(grid_bytes).reshape(rows, columns, 3)[:, columns // 2 :]
    r = np.clip(np.linspace(0, 1, HEIGHT) / SKIN_V, 0, 1) * (rows - 1)
    c = np.linspace(0, 1, WIDTH) * (grid.shape[1] - 1)
    i, j = np.minimum(r.astype(int), rows - 2), np.minimum(c.astype(int), grid.shape[1] - 2)
    tr, tc = (r - i)[:, None, None], (c - j)[None, :, None]
    a, b, cc, d = grid[i][:, j], grid[i][:, j + 1], grid[i + 1][:, j], grid[i + 1][:, j + 1]
    return (a * (1 - tc) + b * tc) * (1 - tr) + (cc * (1 - tc) + d * tc) * tr


def atlas(head: Head) -> NDArray[np.float32]:
    """Paint the mask channels [HEIGHT, WIDTH, CHANNELS] over the mean skin."""
    p = _texels(np.ascontiguousarray(head.grid).tobytes(), *head.grid.shape[:2])
    x, y, z = p[..., 0], p[..., 1], p[..., 2]
    front = smooth(1.0, 4.0, z)
    az = np.degrees(np.arctan2(x, z))

    def bump(cx: float, cy: float, sx: float, sy: float) -> Floats:
        return bump_at(x, y, cx, cy, sx, sy) * front

    def line(points: list[tuple[float, float]], width: float) -> Floats:
        return _line(x, y, points, width) * front

    out = np.zeros((HEIGHT, WIDTH, CHANNELS))
    rough = _noise(HEIGHT, WIDTH, (64, 40), 1)
    fine = _noise(HEIGHT, WIDTH, (150, 90), 2)
    strands = 0.6 * _noise(HEIGHT, WIDTH, (6, 60), 3) + 0.4 * _noise(HEIGHT, WIDTH, (12, 120), 4)
    # Lips: a cupid's bow above, a full curve below, meeting at the corners.
    t = np.clip(x / 2.65, 0, 1)
    bow = -6.54 + 0.17 * np.exp(-(((x - 0.5) / 0.45) ** 2)) - 0.5 * t**2.2
    low = -8.1 + 1.0 * t**2.4
    lips = np.where(x < 2.65, np.minimum(bow - y, y - low), -1.0)
    # Brows: a tapering arch.
    arch = 2.2 + 0.38 * smooth(1.2, 3.6, x) - 0.5 * smooth(3.7, 5.4, x)
    thick = 0.36 * smooth(0.9, 1.6, x) * (1 - 0.75 * smooth(2.6, 5.4, x))
    brow = np.where((x > 0.85) & (x < 5.4), thick - np.abs(y - arch) + 0.14 * (fine - 0.5), -1.0)
    jaw = y - curve(
        np.clip(az, 0, 180), (0.0, -11.9), (30.0, -11.6), (60.0, -9.6), (85.0, -8.6), (180.0, -8.6)
    )
    masks = {
        "occlusion": 0.42 * bump(1.7, 0.75, 0.7, 0.8) + 0.35 * bump(1.9, -4.3, 0.35, 0.8)
        + 0.5 * bump(0, -8.6, 1.5, 0.35) + 0.3 * bump(0, -5.1, 1.0, 0.3) + 1.15 * smooth(0.25, -1.0, jaw)
        + 0.35 * bump(EYE_X, 0.95, 1.5, 0.4) + 0.3 * smooth(75, 100, az) * smooth(3, -1, y),
        "blush": bump(4.1, -3.6, 1.7, 1.5) + 0.8 * bump(0, -3.9, 1.0, 0.8) + 0.4 * bump(0, -10, 1.4, 1.0),
        "freckles": smooth(0.66, 0.85, fine) * (bump(2.8, -2.4, 2.6, 1.6) + bump(0, -1.8, 1.6, 1.2)),
        "orbit": bump(EYE_X, -0.75, 1.7, 0.7) + 0.7 * bump(EYE_X, 0.75, 1.9, 0.6) + 0.8 * bump(1.6, -0.3, 0.6, 0.8),
        "moustache": smooth(0.35, -0.1, np.abs(y + 5.95 + 0.14 * x**2) - 0.55) * smooth(3.1, 2.6, x)
        * (0.7 + 0.6 * rough),
        "goatee": smooth(2.3, 1.7, np.hypot(x, 0.75 * (y + 9.9))) * smooth(-8.0, -8.4, y) * (0.7 + 0.6 * rough)
        + 0.8 * line([(2.75, -6.6), (2.6, -8.6), (2.0, -10.0)], 0.5),
        "beard": smooth(-0.6, 0.9, curve(np.clip(x, 0, 7.5), (0, -8.3), (1.8, -8.4), (2.8, -7.2), (4.5, -5.8),
                                           (6.2, -3.2), (7.0, 0.0), (7.5, 1.0)) - y)
        * smooth(-1.2, 0.3, jaw) * smooth(88, 76, az) * (0.75 + 0.5 * rough),
        "scalp": y - curve(az, *SHORT_LINE) + 0.8 * (fine - 0.5),
        "mottle": 0.6 * _noise(HEIGHT, WIDTH, (40, 24), 5) + 0.4 * fine,
        "lips": lips,
        "lip_line": _line(x, y, [(0, -7.1), (2.75, -7.1)], 0.11) * (x < 3.2) + 0.7 * bump(2.75, -7.15, 0.3, 0.25),
        "brow": brow,
        "furrow": line([(0.62, 1.1), (0.72, 2.9)], 0.17) + 0.6 * line([(0.0, 0.9), (0.5, 0.75)], 0.14),
        "forehead": sum(line([(0, h), (2.5, h + 0.15), (4.6, h - 0.15)], 0.15) for h in (3.6, 4.5, 5.4)),
        "nasolabial": line([(1.85, -3.7), (2.5, -4.9), (3.3, -6.6), (3.45, -7.6)], 0.28),
        "crow": line([(5.0, 0.3), (6.0, 1.0)], 0.13) + line([(5.1, 0.0), (6.2, 0.1)], 0.13)
        + line([(5.0, -0.3), (6.0, -0.8)], 0.13) + 0.8 * line([(1.9, -0.75), (3.1, -1.15), (4.4, -0.75)], 0.18),
        "nose_lines": line([(0.35, 0.3), (0.95, -0.5)], 0.15) + line([(0.4, -0.5), (1.1, -1.2)], 0.15)
        + 0.5 * line([(0.0, 0.5), (0.5, 0.3)], 0.13),
    }  # fmt: skip
    lid = np.clip(1.0 - ((x - EYE_X) / 1.68) ** 2, 0, 1) ** 0.75
    edge = 0.66 * lid + 0.07 * (x - EYE_X)
    on = (np.abs(x - EYE_X) < 1.75) * front
    masks["lash"] = on * (
        np.exp(-(((y - edge - 0.07) / 0.13) ** 2)) + 0.45 * np.exp(-(((y - edge - 0.52) / 0.13) ** 2)) * lid
        + 0.45 * np.exp(-(((y + 0.48 * lid) / 0.1) ** 2))
    )  # fmt: skip
    masks["nostril"] = bump(0.7, -4.86, 0.4, 0.22)
    for k, name in enumerate(LAYERS):
        out[..., k] = masks[name]
    _paint_ear(out)
    out[..., STRANDS] = strands
    return np.ascontiguousarray(out, np.float32)


def _paint_ear(out: Floats) -> None:
    """The rows of the atlas past the skin's: ring by ring, the ear's hollow."""
    first = int(np.ceil(SKIN_V * (HEIGHT - 1))) + 1
    rho = np.linspace(0, 1, HEIGHT - first)[:, None]
    out[first:] = 0.0
    out[first:, :, LAYERS.index("brow")] = out[first:, :, LAYERS.index("lips")] = -1.0
    out[first:, :, LAYERS.index("occlusion")] = 0.9 * np.exp(-(((rho - 0.35) / 0.28) ** 2))
    out[first:, :, LAYERS.index("blush")] = 0.5


def pack(f: pd.DataFrame) -> Packed:
    """Turn a factor table into the renderer's numbers; raises BadInput as `check_factors` does."""
    check_factors(f)
    c = {name: f[name].to_numpy(np.float64) for name in NUMERIC}
    coefficients = np.stack([c[s] for s in SHAPE] + [c[a] / 5.0 for a in AUS], axis=1)
    skin = _palette(c["skin_tone"], SKIN_TONES)
    skin = skin * np.exp(0.06 * c["skin_warmth"][:, None] * np.array([0.6, 0.0, -1.0]))
    hair = _palette(c["hair_tone"], HAIR_TONES)
    hair += c["hair_grey"][:, None] * (_linear((186, 184, 182)) - hair) * 0.85
    warm = c["light_warmth"][:, None]
    key = c["light_strength"][:, None] * (1.0 + warm * np.array([0.12, 0.0, -0.16]))
    sky = 1.0 - 0.6 * warm * np.array([0.1, 0.0, -0.16])
    grey = c["glasses_tone"][:, None]
    frame = np.where(grey < 0.6, _linear((22, 20, 22)), _linear((120, 62, 36)) * (0.4 + grey))
    background = np.stack([c[f"background_{k}"] for k in "rgb"], 1) ** 2.2
    occluder = _palette(c["occluder_tone"], ((30, 30, 34), (190, 60, 50), (60, 90, 150), (215, 205, 190)))
    colours = np.stack(
        [skin, hair, _palette(c["eye_colour"], IRIS_TONES), frame, background, occluder, key, sky], 1
    )
    numbers = np.stack([_numbers(c)[name] for name in NUMBERS], axis=1)
    f32 = np.float32
    return Packed(coefficients.astype(f32), _layers(c, skin, hair).astype(f32), colours.astype(f32),
                  numbers.astype(f32), _waves(c).astype(f32))  # fmt: skip


def _numbers(c: dict[str, Floats]) -> dict[str, Floats]:
    out = dict(c)
    az, el = np.radians(c["light_azimuth"]), np.radians(c["light_elevation"])
    turn = 2.399963 * c["background_seed"]  # golden angle: any direction
    out |= {"light_x": -np.sin(az) * np.cos(el), "light_y": np.sin(el), "light_z": np.cos(az) * np.cos(el)}
    out["halfway"] = 1.0 / np.sqrt(2.0 + 2.0 * out["light_z"])  # 1 / |light + view|
    out["gradient_x"] = np.cos(turn) * c["background_gradient"] * (1 - 2 * c["mirrored"])
    out["gradient_y"] = np.sin(turn) * c["background_gradient"]
    out |= {
        "jaw_drop": c["au26"] / 5.0,
        "part": c["hair_part"],
        "volume": c["hair_volume"],
        "style": c["hair_style"],
    }
    out["shine"] = 0.09 + 0.02 * c["skin_tone"]
    return out


def _waves(c: dict[str, Floats]) -> Floats:
    """Background texture: five sine waves by background_seed; kx turns over where the image is mirrored."""
    k = np.arange(5)[None]
    seed = c["background_seed"][:, None]
    angle = 2.399963 * (seed + 7 * k)
    rate = (1.5 + 9.0 * c["background_detail"][:, None]) * (0.6 + 0.8 * ((0.754877 * (seed + k)) % 1.0))
    height = np.broadcast_to(0.45 * c["background_contrast"][:, None], rate.shape)
    mirror = 1.0 - 2.0 * c["mirrored"][:, None]
    return np.stack(
        [mirror * rate * np.cos(angle), rate * np.sin(angle), (1.3 * seed * (k + 1)) % 6.2832, height], 2
    )


def _layers(c: dict[str, Floats], skin: Floats, hair: Floats) -> Floats:
    """Gain, bias, weight and colour of each layer: [n, len(LAYERS), 6]."""
    n = len(skin)
    out = np.zeros((n, len(LAYERS), 6))
    out[:, :, 0] = 1.0
    age, tone = c["age"], c["skin_tone"]
    dark = skin * np.array([0.42, 0.30, 0.27])
    fold = skin * np.array([0.45, 0.34, 0.31])
    red = skin * np.array([1.05, 0.68, 0.66])
    lip = skin * np.array([0.86, 0.50, 0.50]) + c["lip_redness"][:, None] * np.array([0.12, -0.015, 0.0])
    ink = np.minimum(hair * 0.8, 0.3) + 0.01

    def put(
        name: str,
        weight: Floats | float,
        colour: Floats,
        gain: Floats | float = 1.0,
        bias: Floats | float = 0.0,
    ) -> None:
        k = LAYERS.index(name)
        out[:, k, 0], out[:, k, 1], out[:, k, 2], out[:, k, 3:] = (
            gain,
            bias,
            weight,
            np.clip(colour, 0.0, 1.0),
        )

    def au(*names: str) -> Floats:
        return np.clip(sum((c[k] for k in names), np.zeros(n)) / 5.0, 0.0, 1.0)

    kind = [BEARDS[int(b)] for b in c["beard"]]
    density = c["beard_density"]

    def beard(*kinds: str) -> Floats:
        stubble = np.array([0.32 if k == "stubble" else 0.0 for k in kind])
        return density * np.maximum(stubble, np.array([0.92 if k in kinds else 0.0 for k in kind]))

    put("occlusion", 0.75, dark)
    put("blush", 0.30 + 0.1 * c["lip_redness"], red)
    put("freckles", 0.55 * c["freckles"], skin * np.array([0.6, 0.45, 0.38]))
    put("mottle", 0.22 + 0.15 * age, skin * np.array([0.82, 0.70, 0.66]))
    put("orbit", 0.22 + 0.2 * age, skin * np.array([0.6, 0.47, 0.5]))
    put("moustache", beard("moustache", "goatee", "full"), ink)
    put("goatee", beard("goatee", "full"), ink)
    put("beard", beard("full"), ink)
    scalp = np.array([0.12 if HAIR_STYLES[int(s)] == "bald" else 0.9 for s in c["hair_style"]])
    put("scalp", scalp, ink * 0.9, 0.8, 0.3 - 0.35 * c["hairline"])
    put("lips", 0.85, lip, 9.0, 0.04)
    put("lip_line", 0.75, lip * 0.22)
    put("brow", 0.88, ink * (1 - 0.35 * tone[:, None]), 7.0, 0.10 + 0.09 * c["brow_thickness"])
    put("furrow", np.clip(0.9 * au("au04") + 0.15 * age + 0.3 * au("au09"), 0, 0.85), fold)
    put("forehead", np.clip(0.5 * np.maximum(au("au01"), au("au02")) + 0.3 * age - 0.1, 0, 0.7), fold)
    put("nasolabial", np.clip(0.12 + 0.3 * age + 0.5 * au("au12", "au09") + 0.2 * au("au06"), 0, 0.75), fold)
    put("crow", np.clip(0.6 * au("au06") + 0.25 * age - 0.05, 0, 0.7), fold)
    put("nose_lines", np.clip(0.9 * au("au09"), 0, 0.8), fold)
    put("lash", 0.85, skin * 0.08 + 0.005)
    put("nostril", 0.9, skin * np.array([0.12, 0.07, 0.06]))
    return out
