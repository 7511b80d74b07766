"""PCL: encoder, decoder and the two projectors in one module (paper figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcl_lib.models.backbones import BackboneEncoder
from pcl_lib.models.decoder import Decoder
from pcl_lib.models.encoder import Encoder, TwoBranchEncoder, as_float, map_size, scaled
from pcl_lib.models.painter import Painter
from pcl_lib.models.patches import PatchEncoder
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput


class Features(NamedTuple):
    """Flat features of a batch: general [B, D], face-aware [B, D], pose-related [B, D or pose_dim]."""

    general: Tensor
    face: Tensor
    pose: Tensor


def projector(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, ReLU, Linear, batch norm (notebooks/method.md, section 4)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs), nn.BatchNorm1d(outputs)
    )


class PCL(nn.Module):
    """The network of Pose-disentangled Contrastive Learning.

    Holds no optimiser and no loss; needs only its own few fields. At width 1 and 64 pixels it is the
    paper's, with features of 2048. `seed` fixes the initial weights without touching the global state.
    `decoder_noise` is the spread of the Gaussian noise on the images whose features the decoder was trained with
    (notebooks/method.md, section 3); the method that trains it sets it, and checkpoints keep it.
    """

    def __init__(self, config: ModelPreset, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.decoder_noise = 0.0
        size = scaled(128, config.width) * map_size(config.image_size) ** 2
        pose_size = config.pose_dim or size
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed every GPU too
            kind = {"paper": Encoder, "patches": PatchEncoder}.get(config.backbone, BackboneEncoder)
            self.encoder: TwoBranchEncoder = kind(config)
            self.pose_squeeze = nn.Linear(size, pose_size) if config.pose_dim else nn.Identity()
            self.pose_expand = (
                nn.Linear(pose_size, size) if config.pose_dim and not self.paints else nn.Identity()
            )
            self.face_squeeze = nn.Linear(size, config.face_dim) if config.face_dim else nn.Identity()
            self.decoder = self._decoder(config, size)
            if config.pose_basis:
                self.motions = nn.Parameter(torch.randn(config.face_dim, config.pose_dim))
            self.face_projector = projector(
                config.face_dim or size, config.projector_hidden, config.projector_out
            )
            self.pose_projector = projector(pose_size, config.projector_hidden, config.projector_out)
        # Convolutions like channels last, group norm does not; long trainings measure it (`pretrain.formats`).
        self.use_format(torch.contiguous_format if config.norm == "group" else torch.channels_last)
        self.decoder.to(memory_format=torch.channels_last)

    @property
    def paints(self) -> bool:
        """Whether the decoder is the painter."""
        return self.config.decoder == "painter"

    def _decoder(self, config: ModelPreset, size: int) -> Any:
        if config.pose_basis and not (self.paints and config.pose_dim <= config.face_dim):
            raise BadInput(
                f"model.pose_basis needs the decoder painter and a pose_dim of at most face_dim, but the decoder is "
                f"{config.decoder}, pose_dim {config.pose_dim} and face_dim {config.face_dim}"
            )
        if config.decoder == "paper" and not config.face_dim:
            return Decoder(config, size)
        if self.paints and config.face_dim and config.pose_dim:
            return Painter(config, config.face_dim + (0 if config.pose_basis else config.pose_dim))
        raise BadInput(
            f"model.decoder '{config.decoder}' with face_dim {config.face_dim} and pose_dim {config.pose_dim}: "
            "choose paper with face_dim 0, or painter with both"
        )

    def use_format(self, memory_format: torch.memory_format) -> None:
        """Compute the encoder in this memory format; results differ by rounding alone."""
        self.memory_format = memory_format
        self.encoder.to(memory_format=memory_format)

    def features(self, images: Tensor) -> Features:
        """images: uint8, or float in [0, 1], [B, 3, H, W] -> flat features.

        Any H, W of 16 or more work; branches feed the decoder and projectors only at the trained size.
        With `config.even_odd` the encoder sees each image's flip too (see `mirror_features`); the general feature
        is that of the image alone. Raises ValueError on another shape.
        """
        if not self.config.even_odd:
            return self._encoded(images)
        return Features(*(x.chunk(2)[0] for x in self.mirror_features(torch.cat([images, images.flip(3)]))))

    def mirror_features(self, both: Tensor) -> Features:
        """Features of images and their flips, stacked: [2B, 3, H, W] -> [2B, D] each, in the same order.

        With `config.even_odd` the face-aware feature is the even part of the face branch's output under the flip,
        (h(s) + h(f)) / 2, and the pose-related feature the odd part of the pose branch's, (h(s) - h(f)) / 2: s and f
        share the one and have opposite others, by construction. Without, what `features` gives for each.
        """
        x = self._encoded(both)
        if not self.config.even_odd:
            return x
        (face_s, face_f), (pose_s, pose_f) = x.face.chunk(2), x.pose.chunk(2)
        even, odd = (face_s + face_f) / 2, (pose_s - pose_f) / 2
        return Features(x.general, even.repeat(2, 1), torch.cat([odd, -odd]))

    def general_feature(self, images: Tensor) -> Tensor:
        """The general feature alone, [B, D]; the branches are not run."""
        return self.encoder.trunk(self._prepared(images)).flatten(1)

    def face_feature(self, images: Tensor) -> Tensor:
        """The face-aware feature alone, [B, D]."""
        return self._part(images, self._face, 1.0)

    def pose_feature(self, images: Tensor) -> Tensor:
        """The pose-related feature alone, [B, D or pose_dim]."""
        return self._part(images, self._pose, -1.0)

    def decode(self, face: Tensor, pose: Tensor) -> Tensor:
        """Image [N, 3, S, S] of the trained size from face-aware and pose-related features, [N, D] each."""
        y: Tensor = self.decoder(self._joined(face, pose))
        return y

    def _joined(self, face: Tensor, pose: Tensor) -> Tensor:
        """What the decoder gets of both features."""
        if self.config.pose_basis:
            return face + pose @ self.pose_directions().T.to(pose)
        return torch.cat([face, pose], 1) if self.paints else face + self.pose_expand(pose)

    def pose_directions(self) -> Tensor:
        """Orthonormal directions in which the numbers of the pose move the face: [face_dim, pose_dim].

        With `config.pose_basis` alone. Source: Wang et al. 2022 (arXiv 2203.09043).
        """
        return torch.linalg.qr(self.motions.float()).Q

    def decoder_features(self, images: Tensor) -> Features:
        """`features` as the decoder knows them: of the images with noise of `decoder_noise`, one fixed draw for all.

        The PDD never decodes the features of a clean image in training, and draws a wrong picture of them (notebook 06
        measures it); so swaps take these. For probes take `features`.
        """
        if not self.decoder_noise:
            return self.features(images)
        x = as_float(images)
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0))
        return self.features(x + self.decoder_noise * noise.to(x))

    def recalibrated(self, images: Tensor) -> PCL:
        """A copy in eval mode whose decoder's batch norms have met these images (`Decoder.recalibrate_batch_norm`).

        For pictures in the middle of a training, or at the end of a short one.
        """
        copy = deepcopy(self).eval()
        with torch.no_grad():
            x = copy.decoder_features(images)
            if not copy.paints:
                copy.decoder.recalibrate_batch_norm(copy._joined(x.face, x.pose))
        return copy

    def _encoded(self, images: Tensor) -> Features:
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < 16:
            raise ValueError(f"images {tuple(images.shape)} must be [B, 3, H, W] with H, W >= 16")
        general = self.encoder.trunk(self._prepared(images))
        return Features(general.flatten(1), self._face(general), self._pose(general))

    def _part(self, images: Tensor, branch: Callable[[Tensor], Tensor], sign: float) -> Tensor:
        if not self.config.even_odd:
            return branch(self.encoder.trunk(self._prepared(images)))
        x, flipped = branch(self.encoder.trunk(self._prepared(torch.cat([images, images.flip(3)])))).chunk(2)
        return (x + sign * flipped) / 2

    def _face(self, general: Tensor) -> Tensor:
        y: Tensor = self.face_squeeze(self.encoder.face_branch(general).flatten(1))
        return y

    def _pose(self, general: Tensor) -> Tensor:
        y: Tensor = self.pose_squeeze(self.encoder.pose_branch(general).flatten(1))
        return y

    def _prepared(self, images: Tensor) -> Tensor:
        return as_float(images).contiguous(memory_format=self.memory_format)
