"""How one frame is warped into another, and the decoders that predict the warp."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.models.encoder import convolution, map_size, scaled
from pcl_lib.presets import ModelPreset

REACH = 0.5  # a warp looks at most so far along an axis, in sides of the image: tanh, as in the authors' code
STAGES = (128, 64, 32, 32)  # channels of a field decoder at width 1
STILL = 0.01  # standard deviation of a flow decoder's last weights at the start


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


class BlendedFlowDecoder(FieldDecoder):
    """Features [N, inputs] -> a flow as of `FlowDecoder`, [N, 2, S, S], and a mask in -1..1, [N, 1, S, S]."""

    def __init__(self, config: ModelPreset, inputs: int) -> None:
        super().__init__(config, inputs, 3)
        nn.init.normal_(self.last.weight, std=STILL)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x = torch.tanh(super().forward(feature).float())
        return REACH * x[:, :2], x[:, 2:]


def blended(flows: list[Tensor], masks: list[Tensor]) -> Tensor:
    """Mean of flows [N, 2, S, S], weighted at each pixel by the softmax of their masks [N, 1, S, S]."""
    weights = torch.stack(masks).softmax(0)
    return (weights * torch.stack(flows)).sum(0)
