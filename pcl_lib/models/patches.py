"""An encoder made for speed: it cuts the image into patches at once and convolves small maps of many channels."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.models.encoder import TwoBranchEncoder, convolution, scaled
from pcl_lib.presets import ModelPreset

PATCH = 4  # pixels a side
STAGES = (64, 96, 128)  # channels at strides 4, 8 and 16; the last must be that of the branches


class PatchEncoder(TwoBranchEncoder):
    """Patches of 4 x 4 pixels as 48 channels, then pairs of 3x3 convolutions at strides 4, 8 and 16.

    The paper's encoder spends most of its time at half and quarter resolution with few channels, where a processor is
    slow; this one takes a third of its time on a CPU at four times the channels. `width` scales all channels. Sides
    that are no multiple of 16 are padded at the right and at the bottom.
    """

    def build_trunk(self, config: ModelPreset) -> None:
        """Make the three pairs of convolutions."""
        widths = [scaled(c, config.width) for c in STAGES]
        layers: list[nn.Module] = [nn.PixelUnshuffle(PATCH)]
        for stage, (a, b) in enumerate(zip([3 * PATCH**2, *widths], widths, strict=False)):
            stride = 1 if stage == 0 else 2
            layers += [convolution(a, b, config.norm, stride), convolution(b, b, config.norm)]
        self.layers = nn.Sequential(*layers)

    def trunk(self, x: Tensor) -> Tensor:
        """The general feature as a map [B, 128 * width, H/16, W/16], rounded up."""
        height, width = (16 * math.ceil(side / 16) for side in x.shape[2:])
        if (height, width) != tuple(x.shape[2:]):
            x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]), mode="replicate")
        y: Tensor = self.layers(x)
        return y
