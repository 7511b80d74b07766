"""FaceCycle: a mean face, changed by an identity into a neutral face, changed by a motion into an image."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib import distributed
from pcl_lib.data import FaceSet, ImageSource
from pcl_lib.losses import reconstruction, structural_similarity
from pcl_lib.methods.flow import FlowDecoder, warp
from pcl_lib.methods.frame_pairs import OfFrames, feature_size
from pcl_lib.models import PCL
from pcl_lib.models.encoder import SLOPE, as_float, scaled
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput

# Weights next to an L1 of weight 1: of structural similarity; of the symmetry of warped and of painted neutral faces.
STRUCTURE, WARPED_SYMMETRY, PAINTED_SYMMETRY = 5.0, 0.5, 1.5
SEEN = 0.8  # weight of the image that a re-painted neutral face is warped back into


class FaceCycle(OfFrames):
    """FaceCycle: take the motion off a face, then the identity, and put both on again.

    All that differs between a face and the neutral face of its identity is its motion (expression and head pose
    alike), all that differs between a neutral face and the mean face of everybody its identity. Motion cycle: a motion
    code gives the flow that warps an image into its neutral face, which must be symmetric, and the flow back; from the
    neutral face of another frame of the identity the way back must give the image all the same. Identity cycle: the
    features of a neutral face lose their identity by re-normalisation, their channel statistics being replaced by ones
    that the identity code tells, and are painted as a face; the mean of these faces over the batch is the mean face.
    Its features, re-normalised by the identity code, must give the neutral face again. Motion code and identity code
    are evaluated; here they are the pose-related and the face-aware feature.

    The authors' code (github.com/JiaRenChang/FaceCycle) and what differs here:

    - network (models/models.py): images of 64 pixels; two encoders, one for each code, of 256 numbers after tanh. PCL's
      encoder is built after them. Here one encoder with two branches.
    - flow (models/models.py): one flow of 16 x 16, up-sampled, within half a side after tanh; the flow back is minus
      that flow, warped by itself. Here so too, at the size of the images.
    - neutral faces (models/models.py): a generator paints them from warped features of VGG-19, pre-trained on ImageNet,
      next to the image that the flow warps. Here they are the warped image alone: the kit takes nothing pre-trained.
    - motion loss (train_expression.py): L1, structural similarity (5 times as heavy) and the Gram matrices of VGG-19
      features (0.01), of images that come back by the generator and by warping, and the neutral faces' asymmetry. Here
      those of warping alone, in the code's ratios, without VGG-19.
    - re-normalisation (models/models.py): instance norm of VGG-19 features at a quarter of the size, scaled and shifted
      as a linear map of the identity code tells. Here of features of two convolutions that are trained.
    - identity loss (train_id.py): L1 of the neutral face, L1 and structural similarity of the image it is warped back
      into, by generator (1) and by warping (0.8), asymmetry (1.5), and L1 between mean face and neutral faces. Here
      those of warping, without VGG-19.
    - order (train_id.py): the identity cycle is trained after the motion cycle, whose networks are frozen. Here both
      at once; no gradient of the identity cycle reaches the flows.
    - frames (dataloader/Voxall.py): an image and, in half the cases, its mirror image, else another one of the same
      stretch of a video; weak crops, colours and flips at random. Here the same pairs, of one video where the set
      names videos, else of one identity, without crops and colours.
    - optimiser: Adam, betas 0.5 and 0.999, 1e-5 to 5e-5, 16 pairs, 40 epochs for motion; 1e-5 to 1e-4, 20 epochs, for
      identity. Here that of all methods.
    Source: Chang, Chen and Chiu, ICCV 2021 (arXiv 2108.03427), and their code.
    """

    name = "facecycle"
    features = ("general", "face", "pose")

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """As `OfFrames.auxiliary`; also refuses a set of one identity with BadInput."""
        modules = super().auxiliary(model, faces)
        if self.index.person_count[0] == len(self.index.rows):
            raise BadInput(f"{faces.name} has one identity to train on, and method facecycle compares two")
        return modules

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """The flow to the neutral face, and what takes identities off and puts them on."""
        size = feature_size(config)
        return {
            "flow": FlowDecoder(config, config.pose_dim or size),
            "identity": Renormaliser(config, size),
        }

    def take(self, source: ImageSource, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The images of these rows, each with its mirror image or, in half the cases, another frame."""
        draws = self.draws(rows, rng)
        images = source.take(self.index.draw(rows, draws).flatten()).unflatten(0, (-1, self.frames))
        mirrored = torch.from_numpy(draws[:, 2] < 0.5).to(images.device)[:, None, None, None]
        second = torch.where(mirrored, images[:, 0].flip(3), images[:, 1])
        return torch.stack([images[:, 0], second], 1)

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """The two cycles."""
        seen = as_float(images).transpose(0, 1).flatten(0, 1)  # first frames, then second frames
        _, face, pose = model.features(seen)
        to_neutral = self.auxiliary_modules["flow"](pose)[:, 0]
        back = -warp(to_neutral, to_neutral)
        neutral = warp(seen, to_neutral)
        swapped = neutral.roll(len(images), 0)  # two frames of one identity have one neutral face
        parts = {"motion": likeness(warp(swapped, back), seen), "symmetry": asymmetry(neutral)}
        parts |= self.identity(face, neutral.detach(), back.detach(), seen)
        total = parts["motion"] + WARPED_SYMMETRY * parts["symmetry"]
        total = total + parts["neutral"] + SEEN * parts["seen"] + parts["mean"]
        return {"facecycle": total + PAINTED_SYMMETRY * parts["painted symmetry"], **parts}

    def identity(self, face: Tensor, neutral: Tensor, back: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """The identity cycle of neutral faces [N, 3, S, S], whose identity codes are `face` [N, D]."""
        renormaliser = self.auxiliary_modules["identity"]
        plain = renormaliser(neutral, face, "remove")
        mean_face = plain.mean(0, keepdim=True)
        if distributed.world() > 1:
            mean_face = distributed.total(mean_face) / distributed.world()
        again = renormaliser(mean_face.expand_as(neutral), face, "restore")
        return {
            "neutral": reconstruction(again, neutral),
            "seen": likeness(warp(again, back), seen),
            "painted symmetry": asymmetry(again),
            "mean": reconstruction(mean_face.expand_as(neutral), neutral),
        }


class Renormaliser(nn.Module):
    """Paints a face again after its features have got the channel statistics that an identity code tells."""

    def __init__(self, config: ModelPreset, code: int) -> None:
        super().__init__()
        low, high = scaled(64, config.width), scaled(128, config.width)
        self.maps = nn.Sequential(
            nn.Conv2d(3, low, 3, 2, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(low, high, 3, 2, 1),
            nn.LeakyReLU(SLOPE),
        )
        self.styles = nn.ModuleDict({name: nn.Linear(code, 2 * high) for name in ("remove", "restore")})
        self.painters = nn.ModuleList([nn.Conv2d(high, low, 3, 1, 1), nn.Conv2d(low, low, 3, 1, 1)])
        self.last = nn.Conv2d(low, 3, 3, 1, 1)

    def forward(self, faces: Tensor, code: Tensor, style: str) -> Tensor:
        """faces: [N, 3, S, S] in 0..1; code: [N, code]; style: "remove" or "restore" -> faces [N, 3, S, S] in 0..1."""
        spread, centre = self.styles[style](code)[:, :, None, None].chunk(2, 1)
        x = F.instance_norm(self.maps(faces)) * (1 + spread) + centre
        for layer, part in zip(self.painters, (2, 1), strict=True):
            size = [side // part for side in faces.shape[2:]]
            x = F.leaky_relu(layer(F.interpolate(x, size, mode="bilinear", align_corners=False)), SLOPE)
        return torch.sigmoid(self.last(x).float())


def likeness(found: Tensor, wanted: Tensor) -> Tensor:
    """L1 and structural dissimilarity of images [N, 3, S, S]."""
    return reconstruction(found, wanted) + STRUCTURE * (1 - structural_similarity(found, wanted))


def asymmetry(images: Tensor) -> Tensor:
    """L1 between images [N, 3, S, S] and their mirror images."""
    return reconstruction(images, images.flip(3))
