"""The decoder of the PDD (notebooks/method.md, section 2; paper section 3.2)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from pcl_lib.models.encoder import scaled
from pcl_lib.presets import ModelPreset

STAGES = (512, 256, 256, 256, 256, 128)


class Decoder(nn.Module):
    """Features [N, D] -> images [N, 3, S, S] in [-1, 1] (tanh; the targets lie in [0, 1]).

    Six times ReLU, bilinear up-sampling (x2 at 64 pixels), 3x3 convolution, batch norm; other sizes S
    are reached through S/32, S/16 ... S, rounded up. The input is L2-normalised per sample.
    """

    def __init__(self, config: ModelPreset, inputs: int) -> None:
        super().__init__()
        channels = [scaled(c, config.width) for c in STAGES]
        self.sizes = [math.ceil(config.image_size / 2**power) for power in range(5, -1, -1)]
        self.fc = nn.Linear(inputs, channels[0])
        outputs = [*channels[1:], 3]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1, 1) for a, b in zip(channels, outputs, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in outputs[:-1])

    def recalibrate_batch_norm(self, feature: Tensor) -> None:
        """Set the running statistics of every batch norm to those of one batch of features [N, D].

        They are averages over past steps, and lag behind weights that still change fast: pictures in eval mode are
        wrong by that. Source: Wu and Johnson, "Rethinking Batch in BatchNorm", 2021 (precise BatchNorm).
        """
        update_bn([feature], self)

    def forward(self, feature: Tensor) -> Tensor:
        x = self.fc(F.normalize(feature, dim=1))[:, :, None, None]
        for stage, (size, layer) in enumerate(zip(self.sizes, self.convolutions, strict=True)):
            x = F.interpolate(F.relu(x), size=(size, size), mode="bilinear", align_corners=False)
            x = layer(x)
            if stage < len(self.norms):
                x = self.norms[stage](x)
        return torch.tanh(x)
