"""Features without a network: histograms of gradients and local binary patterns, the paper's hand-crafted rows, and
eigenfaces.

Each has `features(x)` as a model has, so that every probe of `pcl_lib.probes` takes it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.data import FaceSet
from pcl_lib.probes.features import FrozenFeatures
from pcl_lib.utils import BadInput

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
NEIGHBOURS, RADIUS = (
    8,
    1.0,
)  # of the binary patterns: 58 uniform ones and one for all others (Ojala et al. 2002)
PATTERNS = NEIGHBOURS * (NEIGHBOURS - 1) + 3


def grey(x: Tensor, size: int) -> np.ndarray:
    """x: uint8 or float in [0, 1], [N, 3, H, W] -> [N, size, size] float32 luma in 0..255, antialiased."""
    if x.ndim != 4 or x.shape[1] != 3:
        raise BadInput(f"images must be [N, 3, H, W], not {list(x.shape)}")
    values = x.float() if x.dtype == torch.uint8 else x.float() * 255
    luma = (values * torch.tensor(GREY, device=x.device)[None, :, None, None]).sum(1, keepdim=True)
    if luma.shape[-2:] != (size, size):
        luma = F.interpolate(luma, (size, size), mode="bilinear", antialias=True)
    return luma[:, 0].cpu().numpy()


class HoG:
    """Histograms of oriented gradients (Dalal and Triggs 2005): 9 orientations, blocks of 2 x 2 cells, L2-Hys.

    size: pixels a side that images are resized to; cell: pixels a side of a cell. D = 36 (size / cell - 1)^2.
    """

    def __init__(self, size: int = 48, cell: int = 6) -> None:
        if cell < 2 or size % cell or size < 2 * cell:
            raise BadInput(
                f"size {size} must be a multiple of cell {cell}, at least twice as large, cell at least 2"
            )
        self.size, self.cell = size, cell

    def features(self, x: Tensor) -> FrozenFeatures:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> general [N, D] on the device of x."""
        from skimage.feature import hog  # a second to import

        rows = [
            hog(image, orientations=9, pixels_per_cell=(self.cell, self.cell), cells_per_block=(2, 2))
            for image in grey(x, self.size)
        ]
        return FrozenFeatures(torch.from_numpy(np.stack(rows).astype(np.float32)).to(x.device))


class LBP:
    """Uniform local binary patterns (Ojala et al. 2002): their histogram in each of grid x grid cells, square roots.

    D = 59 grid^2; the root makes a distance of histograms out of the Euclidean one (Hellinger).
    """

    def __init__(self, size: int = 48, grid: int = 6) -> None:
        if grid < 1 or size % grid:
            raise BadInput(f"size {size} must be a multiple of grid {grid}")
        self.size, self.grid = size, grid

    def features(self, x: Tensor) -> FrozenFeatures:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> general [N, D] on the device of x."""
        rows = [self._histograms(image) for image in grey(x, self.size).round().astype(np.uint8)]
        return FrozenFeatures(torch.from_numpy(np.stack(rows)).to(x.device))

    def _histograms(self, image: np.ndarray) -> np.ndarray:
        from skimage.feature import local_binary_pattern  # a second to import

        codes = local_binary_pattern(image, NEIGHBOURS, RADIUS, "nri_uniform").astype(np.int64)
        at = np.arange(self.size) * self.grid // self.size
        cell = at[:, None] * self.grid + at
        counts = np.bincount((cell * PATTERNS + codes).ravel(), minlength=self.grid**2 * PATTERNS)
        return np.sqrt(counts * (self.grid**2 / self.size**2)).astype(np.float32)


class Eigenfaces:
    """Principal components of the grey training images of a set (Turk and Pentland 1991), each scaled to variance 1.

    faces: the set, of whose training split at most `IMAGES` evenly spaced ones are used; size: pixels a side that
    images are resized to; components: their number, at most. Cosines between such features are the "PCA + cosine" of
    the face recognition literature. Raises BadInput where there are fewer than two training images.
    """

    IMAGES = 6000

    def __init__(self, faces: FaceSet, size: int = 32, components: int = 150) -> None:
        from sklearn.decomposition import PCA

        rows = faces.split("train")
        if len(rows) < 2:
            raise BadInput(f"eigenfaces need two training images, and {faces.name} has {len(rows)}")
        self.size = size
        seen = rows[:: -(-len(rows) // self.IMAGES)]
        pixels = grey(faces.images(seen), size).reshape(len(seen), -1)
        most = min(components, len(seen) - 1, size * size)
        self.pca = PCA(most, whiten=True, svd_solver="full").fit(pixels.astype(np.float64))

    def features(self, x: Tensor) -> FrozenFeatures:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> general [N, components] on the device of x."""
        projected = self.pca.transform(grey(x, self.size).reshape(len(x), -1).astype(np.float64))
        return FrozenFeatures(torch.from_numpy(projected.astype(np.float32)).to(x.device))
