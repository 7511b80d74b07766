"""From a table of factors to images, in bounded batches, on the CPU (numba) or any torch device."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pcl_lib.faces import raster
from pcl_lib.faces.factors import check_factors
from pcl_lib.faces.paint import pack
from pcl_lib.faces.scene import prepare, scene
from pcl_lib.utils import BadInput, spent

TORCH_SAMPLES = 32 * 64**2  # pixels that the torch renderer draws at a time
CHUNK = 16  # images a thread draws at a time: bounds memory, and the unit of work


def _draw_chunk(f: pd.DataFrame, out: NDArray[np.uint8]) -> None:
    s, p = scene(), pack(f)
    raster.draw(
        *prepare(p), s.basis, s.first, s.last, s.head.uv, s.head.triangles, s.head.material, s.atlas, p.coefficients,
        p.layers, p.colours, p.numbers, p.waves, out,
    )  # fmt: skip


@spent("render")
def render(
    f: pd.DataFrame, size: int = 64, device: str | torch.device = "cpu", backend: str | None = None
) -> torch.Tensor:
    """Draw the faces that a table of factors describes.

    f: a table as `sample_factors` makes it (`identity` and `expression` are not read: looks and AUs are).
    size: side in pixels, 16 to 512. backend: "numba" (CPU) or "torch" (any device); None takes numba on a CPU.
    Returns uint8 [len(f), 3, size, size], RGB, on `device`. An image depends on its row alone: same factors, same
    pixels whatever the batch, the threads (torch.get_num_threads()) and the machine; torch differs by rounding.
    Raises BadInput where a factor is missing, not finite or out of range, or an argument is.

    >>> from pcl_lib.faces import sample_factors
    >>> images = render(sample_factors(2, seed=0), size=32)
    >>> images.dtype, tuple(images.shape)
    (torch.uint8, (2, 3, 32, 32))
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
