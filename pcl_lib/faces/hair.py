"""Hair: one shell of grid rows around the skull, laid out differently by each style.

A shell hugs the skull above the ears and hangs down as a curtain below; its mask (cm inside the hairline, positive
where hair grows) is interpolated over triangles and tested at each sample, which gives a smooth hairline.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pcl_lib.faces.factors import HAIR_STYLES
from pcl_lib.faces.mesh import Head, curve, grid_faces, section, smooth

Floats = NDArray[np.float64]
CROWN = np.array(
    [13.0, 12.7, 12.1, 11.3, 10.5, 9.7, 9.0, 8.4, 7.8, 7.2, 6.6, 6.0, 5.4, 4.8, 4.1, 3.4, 2.7, 2.0, 1.3, 0.6]
)
HANG = 10  # rows of the hanging part
AZIMUTH = np.radians(np.r_[np.arange(0, 100, 6), np.arange(106, 181, 12.3)])
# style: thickness above, at the sides and behind, lowest y of the curtain, hairline height by azimuth in degrees
SHORT_LINE = ((0.0, 6.5), (22.0, 6.6), (40.0, 6.0), (54.0, 3.6), (66.0, 0.6), (76.0, -0.8), (84.0, 1.6), (100.0, 2.0),
              (118.0, -2.0), (140.0, -6.0), (180.0, -7.0))  # fmt: skip
OPEN_LINE = ((0.0, 6.9), (18.0, 6.5), (34.0, 5.0), (46.0, 1.5), (55.0, -3.5), (63.0, -12.0), (72.0, -30.0),
             (180.0, -30.0))  # fmt: skip
FRINGED = ("bob", "long")
FRINGE = 3.4  # cm that a full fringe hangs below the hairline
STYLES: dict[str, tuple[float, float, float, float, tuple[tuple[float, float], ...]]] = {
    "bald": (0.0, 0.0, 0.0, -1.0, ((0.0, 40.0), (180.0, 40.0))),
    "buzz": (0.12, 0.1, 0.12, -1.0, ((0.0, 40.0), (180.0, 40.0))),
    "short": (1.1, 0.45, 0.6, -6.0, SHORT_LINE),
    "quiff": (1.9, 0.5, 0.6, -6.0, SHORT_LINE),
    "bob": (1.4, 1.9, 1.5, -10.0, OPEN_LINE),
    "long": (1.2, 1.7, 1.4, -19.0, OPEN_LINE),
    "tied": (0.7, 0.35, 0.5, -6.0, SHORT_LINE),
    "curly": (2.6, 2.3, 2.4, -4.5, ((0.0, 6.6), (26.0, 6.4), (43.0, 5.0), (56.0, 2.0), (68.0, -1.0), (95.0, -2.5),
                                    (120.0, -4.5), (180.0, -6.5))),
}  # fmt: skip


def hair_shells() -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """All styles' vertices [styles, H, 3] and masks [styles, H], shared texture coordinates and triangles."""
    azimuth = np.r_[-AZIMUTH[:0:-1], AZIMUTH]
    rows, columns = len(CROWN) + HANG, len(azimuth)
    shells, masks = zip(*(_shell(name, azimuth) for name in HAIR_STYLES), strict=True)
    u = np.abs(np.arange(columns) - columns // 2) / (columns // 2)
    uv = np.stack(np.meshgrid(u, np.arange(rows) / (rows - 1)), axis=-1).reshape(-1, 2)
    return np.stack(shells), np.stack(masks), uv, grid_faces(rows, columns)


def _shell(name: str, azimuth: Floats) -> tuple[Floats, Floats]:
    top, side, back, end, line = STYLES[name]
    hang = np.linspace(-0.2, end, HANG)
    y, az = np.meshgrid(np.r_[CROWN, hang], azimuth, indexing="ij")
    below = np.clip(-y, 0.0, None)
    turn = np.abs(np.degrees(az))
    around = curve(turn, (0.0, top), (45.0, 0.5 * (top + side)), (85.0, side), (180.0, back))
    thick = around + (top - around) * smooth(4.0, 10.0, y)
    # The curtain keeps the width of the temples; short hair stays on the neck.
    loose = 1.0 if end < -8 else 0.0
    at = np.where(loose > 0, np.maximum(y, 1.0 - 0.25 * below), y)
    p = section(at, az)
    mask = y - curve(turn, *line)
    grown = thick * smooth(-0.5, 2.2, mask + 6.0 * (y > 9))
    if name in FRINGED:  # hidden by the mask where there is no fringe
        grown = np.maximum(grown, 0.5 * smooth(-0.5, 0.8, mask + FRINGE * smooth(60.0, 35.0, turn)))
    grown -= 0.12
    normal = p * [1.0, 0.0, 1.0] / np.linalg.norm(p * [1.0, 0.0, 1.0] + 1e-9, axis=-1, keepdims=True)
    lift = smooth(5.0, 12.5, y)
    p = p + normal * (grown * np.sqrt(1 - 0.75 * lift**2))[..., None]
    p[..., 1] = y + grown * lift
    p[..., 2] -= loose * 0.05 * below * (np.cos(az) > 0)
    locks = np.sin(13 * np.abs(az) + 0.4 * y) + 0.6 * np.sin(29 * np.abs(az) - 0.7 * y)
    p += normal * (0.07 * locks * (grown > 0.2))[..., None]
    if name == "curly":
        lumps = np.sin(9 * np.abs(az) + 1.7 * y) * np.sin(2.1 * y + 3 * np.abs(az))
        p += normal * (0.22 * lumps * (mask > 1))[..., None]
    return p.reshape(-1, 3), mask.ravel()


def hair_fields(head: Head) -> Floats:
    """How volume moves hair (x, y, z a unit) and fringe, hairline and parting shift its mask: [styles, H, 6]."""
    out = np.zeros((len(HAIR_STYLES), head.hair.shape[1], 6))
    bare = head.hair[HAIR_STYLES.index("buzz")].astype(np.float64)
    for k, name in enumerate(HAIR_STYLES):
        p, mask = head.hair[k].astype(np.float64), head.hair_mask[k]
        out[k, :, :3] = (
            0.7 * (p - bare) * smooth(-1.0, 2.0, p[:, 1])[:, None] * smooth(0.0, 1.5, mask)[:, None]
        )
        turn = np.degrees(np.abs(np.arctan2(p[:, 0], p[:, 2])))
        front = smooth(60.0, 35.0, turn)
        out[k, :, 3] = front * (FRINGE if name in FRINGED else 0.6)
        out[k, :, 4] = -0.35 * front
        out[k, :, 5] = 0.16 * front * np.clip(p[:, 0], -5, 5)
    return out
