"""From a table of factors to images, in bounded batches, on the CPU (numba) or any torch device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pcl_lib.errors import BadInput
from pcl_lib.faces import raster
from pcl_lib.faces.factors import check_factors
from pcl_lib.faces.geometry import MOUTH_ROW, STRIP, Head, head
from pcl_lib.faces.hair import hair_fields
from pcl_lib.faces.paint import NUMBERS, Packed, atlas, pack

F32 = NDArray[np.float32]
TORCH_SAMPLES = 32 * 64**2  # pixels that the torch renderer draws at a time
CHUNK = 16  # images a thread draws at a time: bounds memory, and the unit of work


@dataclass(frozen=True)
class Scene:
    """What every image shares, laid out for the kernels.

    basis [K, 3V]: shape then action units; first, last [K]: the part of each row that is not zero; hair_fields
    [styles, H, 6]: x, y, z by volume, mask by fringe, hairline and parting; anchors: vertices of both eyeballs'
    centres and of the lip line, which painting is told of.
    """

    head: Head
    basis: F32
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    hair_fields: F32
    atlas: F32
    anchors: NDArray[np.int64]


@cache
def scene() -> Scene:
    """Build the shared arrays once a process."""
    h = head()
    basis = np.concatenate([h.shape, h.au]).reshape(len(h.shape) + len(h.au), -1)
    basis = np.where(np.abs(basis) < 1e-3, np.float32(0), basis)  # a hundredth of a millimetre
    used = [np.flatnonzero(row) for row in basis]
    columns = h.grid.shape[1]
    lip = (MOUTH_ROW + STRIP // 2) * columns + columns // 2
    return Scene(
        h, np.ascontiguousarray(basis), np.array([u[0] for u in used]), np.array([u[-1] + 1 for u in used]),
        hair_fields(h).astype(np.float32), atlas(h), np.array([h.landmark[0], h.landmark[1], lip]),
    )  # fmt: skip


def prepare(p: Packed) -> tuple[F32, F32, F32]:
    """Mean heads with each row's hair [n, V, 3], hair masks [n, H], and the anchors' places [n, 3, 3]."""
    s = scene()
    h, number = s.head, dict(zip(NUMBERS, p.numbers.T, strict=True))
    style = number["style"].astype(np.int64)
    fields = s.hair_fields[style]
    v = np.repeat(h.mean[None], len(style), axis=0)
    v[:, h.hair_start :] = h.hair[style] + (number["volume"][:, None, None] - 1) * fields[..., :3]
    mask = h.hair_mask[style].copy()
    for k, name in enumerate(("fringe", "hairline", "part"), start=3):
        mask += fields[..., k] * number[name][:, None]
    # The anchors follow identity, not expression.
    shape = p.coefficients[:, : len(h.shape)]
    anchors = h.mean[s.anchors] + np.einsum("nk,kaj->naj", shape, h.shape[:, s.anchors])
    return v, mask, anchors.astype(np.float32)


def _draw_chunk(f: pd.DataFrame, out: NDArray[np.uint8]) -> None:
    s, p = scene(), pack(f)
    raster.draw(
        *prepare(p), s.basis, s.first, s.last, s.head.uv, s.head.triangles, s.head.material, s.atlas, p.coefficients,
        p.layers, p.colours, p.numbers, p.waves, out,
    )  # fmt: skip


def render(
    f: pd.DataFrame, size: int = 64, device: str | torch.device = "cpu", backend: str | None = None
) -> torch.Tensor:
    """Draw the faces that a table of factors describes.

    f: a table as `sample_factors` makes it (`identity` and `expression` are not read: looks and AUs are).
    size: side in pixels, 16 to 512. backend: "numba" (CPU) or "torch" (any device); None takes numba on a CPU.
    Returns uint8 [len(f), 3, size, size], RGB, on `device`. An image depends on its row alone: same factors, same
    pixels whatever the batch, the threads (torch.get_num_threads()) and the machine; torch differs by rounding.
    Raises BadInput where a factor is missing, not finite or out of range, or an argument is.
    """
    device = torch.device(device)
    backend = backend or ("numba" if device.type == "cpu" else "torch")
    if not 16 <= size <= 512:
        raise BadInput(f"render draws 16 to 512 pixels a side, but size={size} was asked for.")
    if backend not in ("numba", "torch"):
        raise BadInput(f'backend must be "numba" or "torch", but is "{backend}".')
    if backend == "torch":
        return _render_torch(f, size, device)
    check_factors(f)
    out = np.empty((len(f), 3, size, size), np.uint8)
    starts = range(0, len(f), CHUNK)
    scene()
    threads = min(torch.get_num_threads(), max(len(starts), 1))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: _draw_chunk(f.iloc[i : i + CHUNK], out[i : i + CHUNK]), starts))
    return torch.from_numpy(out).to(device)


def _render_torch(f: pd.DataFrame, size: int, device: torch.device) -> torch.Tensor:
    from pcl_lib.faces import render_torch

    check_factors(f)
    out = torch.empty((len(f), 3, size, size), dtype=torch.uint8, device=device)
    # A chunk's samples and candidates stay within some hundred megabytes at any size.
    step = max(1, TORCH_SAMPLES // size**2)
    for i in range(0, len(f), step):
        out[i : i + step] = render_torch.draw(scene(), pack(f.iloc[i : i + step]), size, device)
    return out
