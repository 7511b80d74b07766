"""The encoder of PCL: a convolutional trunk and two branches (notebooks/method.md, section 1; paper section 3.1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pcl_lib.presets import ModelPreset

SLOPE = 0.1
STRIDE = 16  # of the general feature, in pixels


def scaled(channels: int, width: float) -> int:
    """Channels of the paper's size times `width`, in multiples of 8."""
    return max(8, round(channels * width / 8) * 8)


def convolution(inputs: int, outputs: int, norm: str, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """Convolution (the paper's init), normalisation where asked for, LeakyReLU(0.1)."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    nn.init.normal_(layer.weight, std=math.sqrt(2 / (kernel * kernel * outputs)))
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    if norm == "none":
        return nn.Sequential(layer, nn.LeakyReLU(SLOPE))
    if norm == "group":
        return nn.Sequential(layer, nn.GroupNorm(outputs // 8, outputs), nn.LeakyReLU(SLOPE))
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE))


class ChannelAttention(nn.Module):
    """x + S g, S = phi softmax(theta)^T over places: channels attend to channels. [B, C, H, W] in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g, self.theta, self.phi = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        for layer in (self.g, self.theta, self.phi):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / channels))
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        theta = self.theta(x).flatten(2).softmax(dim=2)
        g = self.g(x).flatten(2).softmax(dim=1)
        attention = self.phi(x).flatten(2) @ theta.transpose(1, 2)
        y: Tensor = self.activation(x + (attention @ g).view_as(x))
        return y


class ResidualBlock(nn.Module):
    """conv, act, conv, add identity, act; [B, C, H, W] in and out."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.first = convolution(channels, channels, norm)
        self.second = convolution(channels, channels, norm)[:-1]
        self.activation = nn.LeakyReLU(SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(x + self.second(self.first(x)))
        return y


class TwoBranchEncoder(nn.Module):
    """Images [B, 3, H, W] -> maps (general, face, pose), each [B, 128 * width, H/16, W/16], rounded up.

    The trunk is a subclass's; the two branches are the paper's.
    """

    def __init__(self, config: ModelPreset) -> None:
        super().__init__()
        self.build_trunk(config)
        channels = scaled(128, config.width)
        self.face_branch, self.pose_branch = (
            nn.Sequential(*(convolution(channels, channels, config.norm) for _ in range(2))) for _ in range(2)
        )

    def build_trunk(self, config: ModelPreset) -> None:
        """Make the layers that `trunk` needs; their weights are drawn before those of the branches."""
        raise NotImplementedError

    def trunk(self, x: Tensor) -> Tensor:
        """The general feature as a map."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        general = self.trunk(x)
        return general, self.face_branch(general), self.pose_branch(general)


class Encoder(TwoBranchEncoder):
    """The paper's encoder."""

    def build_trunk(self, config: ModelPreset) -> None:
        """Make stem, layers and residual blocks."""
        norm = config.norm
        low, middle, high = (scaled(channels, config.width) for channels in (64, 128, 256))
        self.stem = nn.Sequential(convolution(3, low, norm, 2, 7), convolution(low, low, norm))
        self.layer1 = self._attended(low, low, norm, 1)
        self.layer2_1 = self._attended(low, middle, norm, 2)
        self.residual1, self.residual2 = ResidualBlock(middle, norm), ResidualBlock(middle, norm)
        self.layer2_2 = nn.Sequential(convolution(middle, middle, norm, 2), convolution(middle, middle, norm))
        self.layer3_1 = nn.Sequential(convolution(middle, high, norm, 2), convolution(high, middle, norm))

    @staticmethod
    def _attended(inputs: int, outputs: int, norm: str, stride: int) -> nn.Sequential:
        return nn.Sequential(
            convolution(inputs, outputs, norm, stride),
            ChannelAttention(outputs),
            convolution(outputs, outputs, norm),
        )

    def trunk(self, x: Tensor) -> Tensor:
        """The general feature as a map [B, C, H/16, W/16]."""
        for stage in (self.stem, self.layer1, self.layer2_1, self.residual1, self.residual2):
            x = stage(x)
        y: Tensor = self.layer3_1(self.layer2_2(x))
        return y


def map_size(image_size: int) -> int:
    """Side of the encoder's maps for square images of that side: four halvings, rounded up."""
    return math.ceil(image_size / STRIDE)


def as_float(x: Tensor) -> Tensor:
    """uint8 images to float32 in [0, 1]; float images are left as they are."""
    return x.to(torch.float32) / 255 if x.dtype == torch.uint8 else x
