"""PCL: encoder, decoder and the two projectors in one module (paper figure 2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcl_lib.models.decoder import Decoder
from pcl_lib.models.encoder import Encoder, as_float, map_size, scaled
from pcl_lib.presets import ModelPreset


class Features(NamedTuple):
    """Flat features of a batch: general [B, D], face-aware [B, D], pose-related [B, D or pose_dim]."""

    general: Tensor
    face: Tensor
    pose: Tensor


def projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, Linear, batch norm (METHOD.md 4)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.BatchNorm1d(outputs)
    )


class PCL(nn.Module):
    """The network of Pose-disentangled Contrastive Learning.

    Holds no optimiser and no loss; needs only its own few fields. At width 1 and 64 pixels it is the
    paper's, with features of 2048. `seed` fixes the initial weights without touching the global state.
    """

    def __init__(self, config: ModelPreset, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        size = scaled(128, config.width) * map_size(config.image_size) ** 2
        pose_size = config.pose_dim or size
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU too
            self.encoder = Encoder(config)
            self.pose_squeeze = nn.Linear(size, pose_size) if config.pose_dim else nn.Identity()
            self.pose_expand = nn.Linear(pose_size, size) if config.pose_dim else nn.Identity()
            self.decoder = Decoder(config, size)
            self.face_projector = projector(size, config.projector_hidden, config.projector_out)
            self.pose_projector = projector(pose_size, config.projector_hidden, config.projector_out)

    def features(self, images: Tensor) -> Features:
        """images: uint8, or float in [0, 1], [B, 3, H, W] -> flat features.

        Any H, W of 16 or more work; branches feed the decoder and projectors only at the trained size.
        Raises ValueError on another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 16:
            raise ValueError(f"images {tuple(images.shape)} must be [B, 3, H, W] with H, W >= 16")
        general, face, pose = self.encoder(self._prepared(images))
        return Features(general.flatten(1), face.flatten(1), self._squeezed(pose))

    def general_feature(self, images: Tensor) -> Tensor:
        """The general feature alone, [B, D]; the branches are not run."""
        return self.encoder.trunk(self._prepared(images)).flatten(1)

    def face_feature(self, images: Tensor) -> Tensor:
        """The face-aware feature alone, [B, D]."""
        return self.encoder.face_branch(self.encoder.trunk(self._prepared(images))).flatten(1)

    def pose_feature(self, images: Tensor) -> Tensor:
        """The pose-related feature alone, [B, D or pose_dim]."""
        return self._squeezed(self.encoder.pose_branch(self.encoder.trunk(self._prepared(images))))

    def decode(self, face: Tensor, pose: Tensor) -> Tensor:
        """Image [N, 3, S, S] of the trained size from face-aware and pose-related features, [N, D] each."""
        y: Tensor = self.decoder(face + self.pose_expand(pose))
        return y

    def _squeezed(self, pose: Tensor) -> Tensor:
        y: Tensor = self.pose_squeeze(pose.flatten(1))
        return y

    def _prepared(self, images: Tensor) -> Tensor:
        return as_float(images).contiguous(memory_format=torch.channels_last)
