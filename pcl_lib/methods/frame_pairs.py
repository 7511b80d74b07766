"""Several frames of one identity: how they are drawn, how one is warped into another, and what predicts the warp.

The three methods that learn from them are in `motion`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib import distributed
from pcl_lib.data import FaceSet, ImageSource, identity_index
from pcl_lib.losses import reconstruction
from pcl_lib.methods.base import SingleTaskMethod
from pcl_lib.methods.flow import FieldDecoder, FlowDecoder, warp
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float, map_size, scaled
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput


class FrameIndex:
    """The training images of identities that have two or more of them, and how to draw companions of an image.

    An identity with one image has no second frame: wherever its image is asked for, a random image of the others takes
    its place, and a printed sentence says how many identities that is. Raises BadInput where all are of this kind.
    """

    def __init__(self, faces: FaceSet) -> None:
        index = identity_index(faces.table, faces.split("train"))
        counts = np.diff(index.offsets)
        alone = int((counts == 1).sum())
        if alone == len(index):
            raise BadInput(
                f"{faces.name} has no identity with two training images: choose a method that needs one, such as pcl"
            )
        if alone and distributed.rank() == 0:
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


class OfFrames(SingleTaskMethod):
    """Base of the methods that see `frames` images at a time: two of one identity, then one of another.

    Their batches are uint8 [B, frames, 3, S, S], half or a third as many identities as other methods see images.
    """

    frames = 2

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """The decoders, and who shares an identity with whom. Raises BadInput as `FrameIndex`."""
        self.index = FrameIndex(faces)
        self.auxiliary_modules = nn.ModuleDict(self.decoders(model.config))
        return self.auxiliary_modules

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """The auxiliary modules, by name."""
        raise NotImplementedError

    def take(self, source: ImageSource, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The images of these rows, each with its companions: uint8 [n, frames, 3, S, S]."""
        draws = rng.random((distributed.world(), len(rows), 3))[
            distributed.rank()
        ]  # drawn for all ranks' blocks
        companions = self.index.draw(rows, draws)[:, : self.frames]
        return source.take(companions.flatten()).unflatten(0, (-1, self.frames))


# Weights of TCAE's terms other than that of the target. Heavier cycles and sizes hold the flows at zero for good.
CYCLE, CONSISTENCY = 0.1, 0.002
UNIT_SIZE, POSE_SIZE = 0.05, 0.005  # facial actions move little
ALIKE = 0.1  # weight of the likeness of FaceCycle's mean faces; heavier, its painter paints but one face


class FAbNet(OfFrames):
    """FAb-Net: the features of two frames tell how to warp one into the other.

    The paper: a network with shared weights embeds a source and a target frame of one face track in 256 numbers each.
    A decoder gets both embeddings and predicts, for each pixel of the target, where in the source to look; the source,
    sampled there bilinearly, is compared with the target by L1. Pixels are moved and never painted, so the embedding
    need not hold colours or texture: it holds what has moved, head pose and expression. It is the embedding that is
    evaluated, by linear probes. With several source frames the decoder also predicts how far to trust each at each
    pixel, and a curriculum feeds ever harder pairs.

    Here the embedding is the general feature. Both frames serve as source and as target, so one pass of the encoder
    gives two terms. Left out: several sources with their confidence, and the curriculum.
    Source: Wiles, Koepke and Zisserman, BMVC 2018 (arXiv 1808.06882).
    """

    name = "fabnet"

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """The flow from the features of target and source."""
        return {"flow": FlowDecoder(config, 2 * feature_size(config))}

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """L1 between each frame and the other one warped into it."""
        first, second = as_float(images).unbind(1)
        target, source = torch.cat([first, second]), torch.cat([second, first])
        z = model.general_feature(target)
        flow = self.auxiliary_modules["flow"](torch.cat([z, z.roll(len(first), 0)], 1))[:, 0]
        return {"fabnet": reconstruction(warp(source, flow), target)}


class TCAE(OfFrames):
    """Twin-cycle autoencoder: movements of the facial actions and of the head, told apart by two cycles.

    The paper: an encoder gives a source and a target frame of one video an AU embedding and a pose embedding each.
    From the two AU embeddings a decoder predicts the displacements that give the source the target's facial actions,
    from the two pose embeddings another those that give it the target's head pose. Nobody knows what the two changed
    faces should look like, so cycles watch over them: encoded again, the AU-changed face must have the target's AU
    embedding and still the source's pose embedding, and displacements decoded from its and the source's AU embedding
    must bring it back to the source; likewise the pose-changed face. Both movements together must give the target.
    The L1 sizes of the displacements keep them small, above all those of the facial actions, which move fewer pixels
    less far. The AU embedding is what is evaluated.

    Here the AU embedding is the face-aware feature and the pose embedding the pose-related one. The movements are
    joined by adding the two flows, where the paper learns how to blend them. Both frames serve as source for the
    target's term, the first alone for cycles and consistency: the changed faces already double the encoder's work.
    A distance of features counts in units of that between the two frames' features (`miss`), and its gradient goes
    to the flows and not to the encoder: as long as the flows are near zero the encoder would else answer it by giving
    both frames one feature. For the same reason the terms other than the target's weigh little.
    Source: Li, Zeng, Shan and Chen, "Self-supervised Representation Learning from Videos for Facial Action Unit
    Detection", CVPR 2019.
    """

    name = "tcae"
    features = ("general", "face", "pose")

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """One flow from two AU embeddings, one from two pose embeddings."""
        face, pose = feature_size(config), config.pose_dim or feature_size(config)
        return {"face": FlowDecoder(config, 2 * face), "pose": FlowDecoder(config, 2 * pose)}

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Target, cycles, consistency of features and size of flows, weighted by the constants above."""
        source, target = as_float(images).unbind(1)
        both, half = torch.cat([source, target]), len(source)
        _, face, pose = model.features(both)
        by_face = self.flow("face", face, face.roll(half, 0))
        by_pose = self.flow("pose", pose, pose.roll(half, 0))
        changed = torch.cat([warp(source, by_face[:half]), warp(source, by_pose[:half])])
        with held(model):
            _, face_c, pose_c = model.features(changed)
        face_back = self.flow("face", face_c[:half], face[:half])
        pose_back = self.flow("pose", pose_c[half:], pose[:half])
        parts = {
            "target": reconstruction(warp(both, by_face + by_pose), both.roll(half, 0)),
            "cycle": reconstruction(
                warp(changed, torch.cat([face_back, pose_back])), source.repeat(2, 1, 1, 1)
            ),
            "consistency": miss(face_c, face.roll(half, 0), face) + miss(pose_c, pose, pose.roll(half, 0)),
            "size": UNIT_SIZE * by_face.abs().mean() + POSE_SIZE * by_pose.abs().mean(),
        }
        total = parts["target"] + CYCLE * parts["cycle"] + CONSISTENCY * parts["consistency"] + parts["size"]
        return {"tcae": total, **parts}

    def flow(self, name: str, old: Tensor, new: Tensor) -> Tensor:
        """The flow [B, 2, S, S] that gives an image of feature `old` what `new` tells."""
        flow: Tensor = self.auxiliary_modules[name](torch.cat([old, new], 1))[:, 0]
        return flow


class FaceCycle(OfFrames):
    """FaceCycle: a face is a mean face, changed by an identity into a neutral face, changed by a motion into an image.

    The paper calls all that differs between a face and the neutral face of its identity its motion (expression and
    head pose alike), and all that differs between a neutral face and the mean face of everybody its identity, and
    takes both off and puts both on again. Motion cycle: an encoder's motion code gives the flow that warps the image
    into its neutral face and the flow that warps that back into the image; the neutral faces of two frames of one
    identity must be the same. Identity cycle: the features of a neutral face lose their identity by re-normalisation,
    their own channel statistics being replaced by those of the mean face, and are painted as the mean face, the same
    for everybody; the features of the mean face get the identity's statistics and must give the neutral face again.
    Motion code and identity code are evaluated by linear probes, and the identity code by comparing faces.

    Here the motion code is the pose-related feature and the identity code the face-aware feature of the neutral face,
    its statistics being mean and spread of each channel over its few places. Each of two frames is re-expressed from
    the neutral face of the other, which flows of zero cannot answer, an image of another identity from its own. One
    painter serves mean and neutral faces. The mean face of one identity must equal that of another one and, so that
    it is a face at all, pass for the other's neutral face. The identity cycle takes the neutral face as given (no
    gradient through it to the flows). Losses are L1 alone. The identity cycle follows the paper's abstract: its details
    are an interpretation.
    Source: Chang, Chen and Chiu, ICCV 2021 (arXiv 2108.03427).
    """

    name = "facecycle"
    features = ("general", "face", "pose")
    frames = 3

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """As `OfFrames.auxiliary`; also refuses a set of one identity with BadInput."""
        modules = super().auxiliary(model, faces)
        if self.index.count[0] == len(self.index.rows):
            raise BadInput(f"{faces.name} has one identity to train on, and method facecycle compares two")
        return modules

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """Flows to and from the neutral face; the painter of faces; the mean face's statistics."""
        size = feature_size(config)
        return {
            "flow": FlowDecoder(config, config.pose_dim or size, 2),
            "painter": FieldDecoder(config, size, 3),
            "mean": nn.GroupNorm(channels(config), channels(config)),  # its affine part: the statistics
        }

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """The two cycles, and what must be the same: neutral faces of one identity, mean faces of all."""
        seen = as_float(images).transpose(0, 1).flatten(0, 1)  # first frames, second frames, other identities
        to_neutral, from_neutral = self.auxiliary_modules["flow"](model.pose_feature(seen)).unbind(1)
        neutral = warp(seen, to_neutral)
        first, second, other = neutral.chunk(3)
        swapped = torch.cat([second, first, other])  # two frames of one identity have one neutral face
        parts = {
            "motion": reconstruction(warp(swapped, from_neutral), seen),
            "neutral": reconstruction(first, second),
        }
        parts |= self.identity(model, neutral.detach())
        total = (
            parts["motion"] + parts["neutral"] + parts["identity"] + parts["anybody"] + ALIKE * parts["mean"]
        )
        return {"facecycle": total, **parts}

    def identity(self, model: PCL, neutral: Tensor) -> dict[str, Tensor]:
        """The identity cycle of neutral faces [3B, 3, S, S], first and second frames and other identities."""
        own = self.by_channel(model, neutral)
        mean_face = self.paint(self.auxiliary_modules["mean"](own))
        again = self.paint(restyled(self.by_channel(model, mean_face), own))
        first, second, other = mean_face.chunk(3)
        neutral_first, _, neutral_other = neutral.chunk(3)
        return {
            "identity": reconstruction(again, neutral),
            "mean": reconstruction(torch.cat([first, second]), other.repeat(2, 1, 1, 1)),
            "anybody": reconstruction(torch.cat([first, other]), torch.cat([neutral_other, neutral_first])),
        }

    def paint(self, feature: Tensor) -> Tensor:
        """Faces [N, 3, S, S] in 0..1 from features [N, C, places]."""
        return torch.sigmoid(self.auxiliary_modules["painter"](feature.flatten(1)).float())

    @staticmethod
    def by_channel(model: PCL, images: Tensor) -> Tensor:
        """The face-aware features of images as [N, C, places]."""
        return model.face_feature(images).float().unflatten(1, (channels(model.config), -1))


def restyled(plain: Tensor, style: Tensor) -> Tensor:
    """Maps [N, C, places] with the mean and spread of each channel taken from `style`, of the same shape."""
    spread, centre = torch.std_mean(style, 2, correction=0, keepdim=True)
    return F.group_norm(plain, plain.shape[1]) * spread + centre


@contextmanager
def held(model: PCL) -> Iterator[None]:
    """What is computed inside gives gradients to its inputs, none to the model."""
    model.requires_grad_(False)
    try:
        yield
    finally:
        model.requires_grad_(True)


def miss(found: Tensor, wanted: Tensor, unwanted: Tensor) -> Tensor:
    """How far features [N, D] are from those wanted, in units of how far these are from the unwanted ones.

    Mean over rows of L1 distances' ratio: 0 where all is as wanted, 1 where `found` is `unwanted`. Only `found` is
    pulled at.
    """
    wanted, unwanted = wanted.detach().float(), unwanted.detach().float()
    gap = (wanted - unwanted).abs().sum(1).clamp_min(1e-6)
    return ((found.float() - wanted).abs().sum(1) / gap).mean()


def channels(config: ModelPreset) -> int:
    """Channels of the encoder's maps."""
    return scaled(128, config.width)


def feature_size(config: ModelPreset) -> int:
    """Length of the general and the face-aware feature."""
    return channels(config) * map_size(config.image_size) ** 2
