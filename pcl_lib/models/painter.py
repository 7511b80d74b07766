"""A decoder that draws in few operations: most of its work is matrix products and convolutions of small maps."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.models.encoder import SLOPE, scaled
from pcl_lib.presets import ModelPreset

HIDDEN = (512, 512)  # of the perceptron that joins face and pose
CHANNELS = (128, 128, 96)  # of the maps of S/16, S/8 and S/4
PATCH = 4  # pixels a side that one place of the last map draws


class Painter(nn.Module):
    """Face-aware [N, F] and pose-related [N, P] features, joined: [N, F + P] -> images [N, 3, S, S] in 0..1.

    A perceptron turns both into a map of S/16, which is doubled twice, with convolutions, to S/4; each of its places
    then draws its 4 x 4 pixels. The sizes do not depend on the encoder's width, and no layer normalises over the
    batch, so a picture in training is a picture in evaluation. Source of the last step: Shi et al. 2016
    (arXiv 1609.05158, sub-pixel convolution).
    """

    def __init__(self, config: ModelPreset, inputs: int) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.sizes = [math.ceil(config.image_size / power) for power in (16, 8, 4)]
        widths = [scaled(c, config.decoder_width) for c in CHANNELS]
        hidden = [scaled(c, config.decoder_width) for c in HIDDEN]
        layers: list[nn.Module] = []
        for a, b in zip([inputs, *hidden], [*hidden, widths[0] * self.sizes[0] ** 2], strict=True):
            layers += [_scaled_init(nn.Linear(a, b)), nn.LeakyReLU(SLOPE)]
        self.join = nn.Sequential(*layers, nn.Unflatten(1, (widths[0], self.sizes[0], self.sizes[0])))
        pairs = list(zip([widths[0], *widths], widths, strict=False))
        self.stages = nn.ModuleList(_convolution(a, b) for a, b in pairs)
        self.refine = _convolution(widths[-1], widths[-1])
        self.draw = nn.Conv2d(widths[-1], 3 * PATCH**2, 3, 1, 1)
        nn.init.normal_(self.draw.weight, std=0.01)

    def forward(self, feature: Tensor) -> Tensor:
        x = self.join(feature).contiguous(memory_format=torch.channels_last)
        for size, stage in zip(self.sizes, self.stages, strict=True):
            x = stage(F.interpolate(x, size=(size, size)) if x.shape[-1] != size else x)
        x = F.pixel_shuffle(self.draw(self.refine(x)), PATCH)
        return torch.sigmoid(x[:, :, : self.image_size, : self.image_size].float())


def _convolution(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_scaled_init(nn.Conv2d(inputs, outputs, 3, 1, 1)), nn.LeakyReLU(SLOPE))


def _scaled_init(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """He's initialisation: without normalisation, maps keep their spread from layer to layer."""
    nn.init.kaiming_normal_(layer.weight, SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
