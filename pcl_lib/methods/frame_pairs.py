"""Several frames of one identity: how they are drawn, and the methods that warp one into the other.

FAb-Net and TCAE are here, FaceCycle is in `facecycle`. All three follow their authors' public code where the kit's
size allows it; each class lists how it differs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pcl_lib import distributed
from pcl_lib.data import FaceSet, ImageSource, identity_index
from pcl_lib.losses import reconstruction
from pcl_lib.methods.base import SingleTaskMethod, held
from pcl_lib.methods.flow import BlendedFlowDecoder, FlowDecoder, blended, warp
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float, map_size, scaled
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput


class FrameIndex:
    """The training images that have a companion, and how to draw companions of an image.

    A companion is another image of the same video where the table has that column, else of the same identity. In place
    of an image without one a random image of the others is taken, and a printed sentence says how many videos or
    identities that is. Raises BadInput where all are of this kind.
    """

    def __init__(self, faces: FaceSet) -> None:
        index = identity_index(faces.table, faces.split("train"))
        person = np.repeat(np.arange(len(index)), np.diff(index.offsets))
        what, clip = "identities", np.zeros(len(person), dtype=np.int64)
        if "video" in faces.table:
            what, clip = (
                "videos",
                np.unique(faces.table["video"].astype(str).to_numpy()[index.rows], return_inverse=True)[1],
            )
        order = np.lexsort((clip, person))
        rows, person, clip = index.rows[order], person[order], clip[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(person) != 0) | (np.diff(clip) != 0)])
        counts = np.diff(np.r_[starts, len(rows)])
        alone = int((counts == 1).sum())
        if alone == len(counts):
            one = {"identities": "identity", "videos": "video"}[what]
            raise BadInput(
                f"{faces.name} has no {one} with two training images: choose a method that needs one, such as pcl"
            )
        if alone and distributed.rank() == 0:
            print(f"{alone} of {len(counts)} training {what} have one image only: others take their place.")
        several = np.repeat(counts > 1, counts)
        self.rows = rows[several]  # identity by identity, and there video by video
        self.first, self.count = _runs(counts[counts > 1])
        _, self.person_count = _runs(np.unique(person[several], return_counts=True)[1])
        self.place = np.full(len(faces), -1)
        self.place[self.rows] = np.arange(len(self.rows))

    def draw(self, rows: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """Rows of an image and of a companion: int64 [n, 2].

        rows: int [n]. draws: [n, 2 or more] uniform numbers in [0, 1); each of the possible images is equally likely.
        """
        place = self.place[rows]
        place = np.where(place < 0, _choice(draws[:, 0], len(self.rows)), place)
        first, count = self.first[place], self.count[place]
        second = first + (place - first + 1 + _choice(draws[:, 1], count - 1)) % count
        return self.rows[np.stack([place, second], 1)]


def _runs(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each element of runs of these lengths: where its run begins, and its length."""
    return np.repeat(np.cumsum(counts) - counts, counts), np.repeat(counts, counts)


def _choice(draws: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    return np.floor(draws * count).astype(np.int64)


class OfFrames(SingleTaskMethod):
    """Base of the methods that see two images of an identity at a time.

    Their batches are uint8 [B, 2, 3, S, S], half as many identities as other methods see images.
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
        """The images of these rows, each with its companion: uint8 [n, 2, 3, S, S]."""
        companions = self.index.draw(rows, self.draws(rows, rng))
        return source.take(companions.flatten()).unflatten(0, (-1, self.frames))

    @staticmethod
    def draws(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Three uniform numbers for each of these rows, drawn for the blocks of all ranks."""
        return rng.random((distributed.world(), len(rows), 3))[distributed.rank()]


class FAbNet(OfFrames):
    """FAb-Net: the features of two frames tell how to warp one into the other.

    A network with shared weights embeds a source and a target frame. A decoder gets both embeddings and predicts, for
    each pixel of the target, where in the source to look; the source, sampled there bilinearly, is compared with the
    target by L1. Pixels are moved and never painted, so the embedding need not hold colours or texture: it holds what
    has moved, head pose and expression. It is the embedding that is evaluated, by linear probes; here it is the
    general feature.

    The authors' code (github.com/oawiles/FAb-Net, folder FAb-Net/code) and what differs here:

    - network (models_multiview.py): images of 256 pixels, eight convolutions of stride 2 with 32 to 256 channels and
      batch norm, an embedding of 256; eight more, after bilinear up-sampling, to the flow. Here the kit's encoder, and
      a decoder of its size.
    - flow: tanh, so that a pixel looks at most half a side away, along each axis; the same here.
    - frames (VoxCelebData_withmask.py): two of one track of a video, cropped at random by some pixels. Here of one
      video where the set names videos, else of one identity, and not cropped.
    - loss (train_attention_curriculum.py): L1 of the target alone. Here both frames serve as source and as target, so
      that one pass of the encoder gives two terms.
    - curriculum: the images of a batch are sorted by their loss, and only those between two percentiles count, at first
      the easier half. Whenever validation has not improved for 15 epochs the percentiles rise by 0.1, until the upper
      one has passed 0.85. Left out: the kit's runs are too short for it.
    - sources: one by default; with several, a second decoder weighs them at each pixel. Here one.
    - optimiser: SGD at 1e-4 with momentum 0.9, batches of 128 pairs, up to 10,000 epochs. Here that of all
      methods.
    Source: Wiles, Koepke and Zisserman, BMVC 2018 (arXiv 1808.06882), and their code.
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


# Weights of TCAE's terms other than that of the target, whose weight is 1. CONSISTENCY is the kit's own.
CYCLE, CONSISTENCY, UNIT_SIZE = 0.1, 0.002, 0.02


class TCAE(OfFrames):
    """Twin-cycle autoencoder: movements of the facial actions and of the head, told apart by two cycles.

    An encoder gives a source and a target frame of one video an AU embedding and a pose embedding each. From the two
    AU embeddings a decoder predicts the displacements that give the source the target's facial actions, from the two
    pose embeddings another those that give it the target's head pose. Nobody knows what the two changed faces should
    look like, so cycles watch over them: encoded again, the AU-changed face must have the target's AU embedding and
    still the source's pose embedding, and displacements decoded from its and the source's AU embedding must bring it
    back to the source; likewise the pose-changed face. Both movements together must give the target, also in its
    embeddings. The L1 size of the AU displacements keeps them small: facial actions move fewer pixels less far.
    The AU embedding is what is evaluated; here it is the face-aware feature, and the pose embedding the pose-related
    one.

    The authors' code (github.com/mysee1989/TCAE) and what differs here:

    - network (models_multiview.py): images of 256 pixels, five shared convolutions of stride 2 and three for each
      embedding, 256 numbers each, batch norm throughout. Here the kit's encoder with its two branches, and smaller
      decoders.
    - movements (self_supervised_train_TCAE.py): each decoder also gives a mask, and the joint flow is the mean of the
      two, weighted at each pixel by the softmax of the masks; flows reach half a side. The same here.
    - weights: 10 for the target's L1; 1 for each cycle's L1, through which no gradient reaches the first flow by way
      of the changed picture; 0.1 for the size of the AU flow, none for that of the pose flow. The same ratios here.
    - consistency: six squared distances of embeddings at 1 each, with gradients to all that they compare. Here each
      counts in units of the distance between the two frames' features (`miss`), weighs 0.002, and its gradient goes
      to the flows and not to the encoder: the code's batch norm keeps embeddings apart, and the kit's encoder, which
      may have none, would else answer by giving both frames one feature.
    - curriculum: FAb-Net's, for each term by itself. Left out.
    - frames (TCAE_data.py): as FAb-Net's. Both serve as source for the target's term here, the first alone for the
      rest.
    - optimiser: SGD at 1e-3 with momentum 0.9, batches of 64 pairs, 2,000 epochs. Here that of all methods.
    Source: Li, Zeng, Shan and Chen, "Self-supervised Representation Learning from Videos for Facial Action Unit
    Detection", CVPR 2019, and their code.
    """

    name = "tcae"
    features = ("general", "face", "pose")

    def decoders(self, config: ModelPreset) -> dict[str, nn.Module]:
        """One flow from two AU embeddings, one from two pose embeddings."""
        face, pose = feature_size(config), config.pose_dim or feature_size(config)
        return {"face": BlendedFlowDecoder(config, 2 * face), "pose": BlendedFlowDecoder(config, 2 * pose)}

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Target, cycles, consistency of features and size of the AU flow, weighted by the constants above."""
        source, target = as_float(images).unbind(1)
        both, half = torch.cat([source, target]), len(source)
        _, face, pose = model.features(both)
        by_face, face_mask = self.flow("face", face, face.roll(half, 0))
        by_pose, pose_mask = self.flow("pose", pose, pose.roll(half, 0))
        found = warp(both, blended([by_face, by_pose], [face_mask, pose_mask]))
        changed = torch.cat([warp(source, by_face[:half]), warp(source, by_pose[:half])])
        with held(model):
            _, face_c, pose_c = model.features(torch.cat([changed, found[:half]]))
        face_back, _ = self.flow("face", face_c[:half], face[:half])
        pose_back, _ = self.flow("pose", pose_c[half : 2 * half], pose[:half])
        back = warp(changed.detach(), torch.cat([face_back, pose_back]))
        (f0, f1), (p0, p1) = face.chunk(2), pose.chunk(2)  # of source and target
        parts = {
            "target": reconstruction(found, both.roll(half, 0)),
            "cycle": 2 * reconstruction(back, source.repeat(2, 1, 1, 1)),
            "consistency": 3 * miss(face_c, torch.cat([f1, f0, f1]), torch.cat([f0, f1, f0]))
            + 3 * miss(pose_c, torch.cat([p0, p1, p1]), torch.cat([p1, p0, p0])),
            "size": by_face.abs().mean(),
        }
        total = parts["target"] + CYCLE * parts["cycle"]
        total = total + CONSISTENCY * parts["consistency"] + UNIT_SIZE * parts["size"]
        return {"tcae": total, **parts}

    def flow(self, name: str, old: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """The flow [B, 2, S, S] that gives an image of feature `old` what `new` tells, and its mask [B, 1, S, S]."""
        flow, mask = self.auxiliary_modules[name](torch.cat([old, new], 1))
        return flow, mask


def miss(found: Tensor, wanted: Tensor, unwanted: Tensor) -> Tensor:
    """How far features [N, D] are from those wanted, in units of how far these are from the unwanted ones.

    Mean over rows of L1 distances' ratio: 0 where all is as wanted, 1 where `found` is `unwanted`. Only `found` is
    pulled at.
    """
    wanted, unwanted = wanted.detach().float(), unwanted.detach().float()
    gap = (wanted - unwanted).abs().sum(1).clamp_min(1e-6)
    return ((found.float() - wanted).abs().sum(1) / gap).mean()


def feature_size(config: ModelPreset) -> int:
    """Length of the general and the face-aware feature."""
    return scaled(128, config.width) * map_size(config.image_size) ** 2
