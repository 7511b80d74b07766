"""Several frames of one identity: how they are drawn, how one is warped into another, and what predicts the warp.

The three methods that learn from them are in `motion`.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib import ranks
from pcl_lib.batches import ImageSource, identity_index
from pcl_lib.data import PreparedFaces
from pcl_lib.errors import BadInput
from pcl_lib.methods.base import OnGeneral
from pcl_lib.models import PCL
from pcl_lib.models.encoder import convolution, map_size, scaled
from pcl_lib.presets import ModelPreset

REACH = 0.25  # a warp looks at most so far along an axis, in sides of the image
STAGES = (128, 64, 32, 32)  # channels of a field decoder at width 1
STILL = 0.01  # standard deviation of a flow decoder's last weights at the start


class FrameIndex:
    """The training images of identities that have two or more of them, and how to draw companions of an image.

    An identity with one image has no second frame: wherever its image is asked for, a random image of the others takes
    its place, and a printed sentence says how many identities that is. Raises BadInput where all are of this kind.
    """

    def __init__(self, faces: PreparedFaces) -> None:
        index = identity_index(faces.table, faces.split("train"))
        counts = np.diff(index.offsets)
        alone = int((counts == 1).sum())
        if alone == len(index):
            raise BadInput(
                f"{faces.name} has no identity with two training images: choose a method that needs one, such as pcl"
            )
        if alone and ranks.rank() == 0:
            print(
                f"{alone} of {len(index)} training identities have one image only: others take their place."
            )
        several = np.repeat(counts > 1, counts)
        counts = counts[counts > 1]
        self.rows = index.rows[several]  # identity by identity
        self.first = np.repeat(np.cumsum(counts) - counts, counts)  # place of the identity's first image
        self.count = np.repeat(counts, counts)
        self.place = np.full(len(faces), -1)
        self.place[self.rows] = np.arange(len(self.rows))

    def draw(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Rows of an image, of another frame of its identity and of an image of another identity: int64 [n, 3].

        rows: int [n]. draws: [n, 3] uniform numbers in [0, 1); each of the possible images is equally likely.
        Where there is but one identity, so is the third's.
        """
        place = self.place[rows]
        place = np.where(place < 0, _choice(draws[:, 0], len(self.rows)), place)
        first, count = self.first[place], self.count[place]
        second = first + (place - first + 1 + _choice(draws[:, 1], count - 1)) % count
        apart = len(self.rows) - count  # these images follow the identity's own, round the end
        other = (first + count + _choice(draws[:, 2], apart)) % len(self.rows)
        return self.rows[np.stack([place, second, other], 1)]


def _choice(draws: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    return np.floor(draws * count).astype(np.int64)


class OfFrames(OnGeneral):
    """Base of the methods that see `frames` images at a time: two of one identity, then one of another.

    Their batches are uint8 [B, frames, 3, S, S], half or a third as many identities as other methods see images.
    """

    frames = 2

    def attach(self, model: PCL, faces: PreparedFaces) -> nn.Module:
        """The decoders, and who shares an identity with whom. Raises BadInput as `FrameIndex`."""
        self.index = FrameIndex(faces)
        self.beside = nn.ModuleDict(self.decoders(model.config))
        return self.beside

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """What is trained beside the model, by name."""
        raise NotImplementedError

    def take(self, source: ImageSource, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The images of these rows, each with its companions: uint8 [n, frames, 3, S, S]."""
        draws = rng.random((ranks.world(), len(rows), 3))[ranks.rank()]  # drawn for all ranks' blocks
        companions = self.index.draw(rows, draws)[:, : self.frames]
        return source.take(companions.flatten()).unflatten(0, (-1, self.frames))


def warp(images: Tensor, flow: Tensor) -> Tensor:
    """Each pixel of the result looks in `images` where `flow` points, between pixels bilinearly: [N, C, H, W].

    images: float [N, C, H, W]. flow: [N, 2, H, W], how far to the right and how far down, in sides of the image.
    Beyond the border the nearest pixel counts. Computed in float32 under autocast.
    """
    height, width = images.shape[2:]
    down, right = (
        torch.arange(size, device=images.device) * (2 / size) + (1 / size - 1) for size in (height, width)
    )
    still = torch.stack(torch.meshgrid(right, down, indexing="xy"), 2)
    grid = still + 2 * flow.float().permute(0, 2, 3, 1)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


class FieldDecoder(nn.Module):
    """Features [N, inputs] -> unbounded maps [N, outputs, S, S] of the trained size.

    A linear layer gives maps of the encoder's size, which are up-sampled bilinearly to S/8, S/4, S/2 and S, with a
    convolution as in the encoder after each but the last, and a plain one at the end. A third as wide as the decoder
    of the PDD: movements are smoother than pictures, and these methods decode several times in an iteration.
    """

    def __init__(self, config: ModelPreset, inputs: int, outputs: int) -> None:
        super().__init__()
        channels = [scaled(c, config.width) for c in STAGES]
        side = map_size(config.image_size)
        self.sizes = [math.ceil(config.image_size / 2**power) for power in range(3, -1, -1)]
        self.start = nn.Sequential(
            nn.Linear(inputs, channels[0] * side**2), nn.Unflatten(1, (channels[0], side, side))
        )
        self.convolutions = nn.ModuleList(convolution(a, b, config.norm) for a, b in pairwise(channels))
        self.last = nn.Conv2d(channels[-1], outputs, 3, 1, 1)

    def forward(self, feature: Tensor) -> Tensor:
        x = self.start(feature)
        for size, layer in zip(self.sizes, [*self.convolutions, self.last], strict=True):
            x = layer(F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False))
        return x


class FlowDecoder(FieldDecoder):
    """Features [N, inputs] -> `fields` flows for `warp`, [N, fields, 2, S, S], each number within +-`REACH`.

    It starts with flows near zero: random ones would first have to be unlearnt.
    """

    def __init__(self, config: ModelPreset, inputs: int, fields: int = 1) -> None:
        super().__init__(config, inputs, 2 * fields)
        nn.init.normal_(self.last.weight, std=STILL)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, feature: Tensor) -> Tensor:
        flow: Tensor = REACH * torch.tanh(super().forward(feature).float())
        return flow.unflatten(1, (-1, 2))
