"""pcl_video: what the frames of a clip share is the face, what is left to draw one of them is its pose."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pcl_lib import distributed, losses
from pcl_lib.data import FaceSet, ImageSource, identity_index
from pcl_lib.data.labels import identity_codes
from pcl_lib.methods.base import Method, Task
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import Preset, VideoPreset
from pcl_lib.utils import BadInput

FRAMES = 3  # of a clip, in a batch
SHARE = 0.05  # of the newest batch in averages over batches


class PCLVideo(Method):
    """Reconstruct a frame of a clip from the faces of two other frames and a narrow pose code of its own.

    In a clip one person turns the head; light, background and expression stay. So what frames share is the
    face-aware feature, and whatever the reconstruction needs beyond it must come through the pose-related one:

    - reconstruction: frame i = decode(a random mixture of the faces of the other two, pose of i), by the L1 of a
      Laplacian pyramid, which is not satisfied by a blurred head on the right background;
    - contrast: InfoNCE between the face-aware features of a clip's frames, on the numbers that the decoder gets and
      not behind a projector, which would shed pose for the loss alone and leave it in the feature;
    - restaging: a share of the images that poses are taken from are the model's own pictures of other people in that
      pose, so that looks taken from there are the wrong ones. The colours of all of them are moved (jitter);
    - recognition (`video.swap`): half of the frames are drawn with the face of another clip, and in these pictures the
      encoder must find that clip's face among all of the batch, the pose donor's too. A model's own pictures carry
      whatever leaks from the pose donor, so restaging alone cannot remove it; this can, and it teaches the decoder
      to show whom it was told to show.

    `video.independence` is the price of what the pose-related feature of a frame tells of the face-aware feature of the
    clip (`losses.independence`), which is held fast; `model.pose_basis` lets the pose move the face along orthonormal
    directions instead of standing beside it (Wang et al. 2022). Both are for the search of recipes.

    `incoherence` logs how much the pose-related features of two frames have in common: poses little, looks all. As a
    loss it was tried and starved the pose-related feature, as the poses of a clip do have something in common.
    `video.person` adds the contrast between clips of a person, which needs to know identities.

    Source: ours. The reconstruction follows Burkov et al. 2020 (arXiv 2004.12000), the contrast van den Oord et al.
    2018, that positives keep what they share von Kuegelgen et al. 2021 (arXiv 2106.04619), the pyramid Bojanowski
    et al. 2018 (arXiv 1707.05776).
    """

    one_process = True  # contrast and recognition look at the clips of the whole batch
    changes = MappingProxyType(
        {
            "model.decoder": "painter",
            "model.face_dim": 128,
            "model.pose_dim": 24,
            "model.norm": "batch",
            "train.lr": 2e-3,
        }
    )

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train = self.preset.train
        batch = (train.pdd_batch + train.face_batch + train.pose_batch) // FRAMES
        if self.preset.video.independence and batch < 4:
            raise BadInput(
                f"video.independence needs batches of 4 clips ({4 * FRAMES} images), not of {batch}"
            )
        self.tasks = (Task("video", batch, self.loss, self.take, FRAMES),)
        self.weights = {"video": 1.0}
        self.begun = False

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """The averages of `Incoherence`; learns which frames are of one clip. Raises BadInput as `ClipIndex`."""
        self.index = ClipIndex(faces, FRAMES)
        if self.preset.video.person:
            self.index.find_people(faces)
        self.incoherence = Incoherence(model.config.pose_dim)
        return self.incoherence

    def take(self, source: ImageSource, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """The images of these rows with other frames of their clips: uint8 [n, FRAMES, 3, S, S]."""
        seeds = rng.integers(2**32, size=distributed.world())  # drawn for all ranks' blocks
        own = np.random.default_rng(seeds[distributed.rank()])
        if self.preset.video.person:
            rows = self.index.with_another_clip(rows[: len(rows) // 2], own)
        frames = self.index.draw(rows, own)
        return source.take(frames.flatten()).unflatten(0, (-1, FRAMES))

    def on_epoch_end(self, means: list[dict[str, float]]) -> None:
        """Swap once an eighth of the run is over: before, poses cannot be told from the model's own pictures."""
        self.begun = len(means) >= self.preset.train.epochs / 8

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Reconstruction of all frames, and the two terms that part the features."""
        video, shape = self.preset.video, images.shape[:2]
        clean = mirrored(as_float(images), video, generator).flatten(0, 1)
        general = model.encoder.trunk(model._prepared(clean))
        face = model._face(general).float()
        posed = self.restaged(model, clean, face.detach(), general.detach(), generator)
        pose = model.pose_feature(jitter(posed, video.jitter, generator)).float()
        face, pose = face.unflatten(0, shape), pose.unflatten(0, shape)
        drawn = model.decode(mixture(face, generator).flatten(0, 1), pose.flatten(0, 1))
        parts = {
            "reconstruction": losses.pyramid_l1(drawn, clean),
            "contrast": losses.clip_contrast(face, video.temperature),
            "incoherence": self.incoherence(pose),
        }
        if video.independence:
            parts["independence"] = apart(face.detach(), pose)
        if video.swap and self.begun:
            parts["swap"] = self.recognised(model, face.flatten(0, 1), pose.flatten(0, 1), generator)
        if video.person:
            # the frames of both clips of each person
            person = face.unflatten(0, (2, -1)).transpose(0, 1).flatten(1, 2)
            parts["person"] = losses.clip_contrast(person[:, :, : person.shape[2] // 2], video.temperature)
        total = (
            parts["reconstruction"]
            + video.contrast * parts["contrast"]
            + video.incoherence * parts["incoherence"]
            + video.independence * parts.get("independence", 0.0)
            + video.swap * parts.get("swap", 0.0)
            + video.person * parts.get("person", 0.0)
        )
        return {"video": total, **parts}

    @torch.no_grad()
    def restaged(
        self, model: PCL, clean: Tensor, face: Tensor, general: Tensor, generator: torch.Generator
    ) -> Tensor:
        """The images, a share of them (`video.restage`) replaced by the model's own pictures of others in their poses.

        The other is one of another clip. clean [N, 3, S, S] with their face-aware features and general maps.
        """
        if not (self.preset.video.restage and self.begun):
            return clean
        swapped = model.decode(face.roll(FRAMES, 0), model._pose(general)).float()
        chosen = torch.rand(len(clean), device=clean.device, generator=generator) < self.preset.video.restage
        return torch.where(chosen[:, None, None, None], swapped, clean)

    def recognised(self, model: PCL, face: Tensor, pose: Tensor, generator: torch.Generator) -> Tensor:
        """How badly swapped pictures show their face donors: face, pose [N, D] of the frames of clips -> scalar.

        Half of the frames lend their poses, each to the next clip's frame of that number. The faces looked for are
        held fast: else they would move towards what the pictures show.
        """
        lent = torch.randperm(len(face), device=face.device, generator=generator)[: len(face) // 2]
        donor = (lent - FRAMES) % len(face)
        read = model.face_feature(model.decode(face[donor], pose[lent]).float()).float()
        clip = torch.arange(len(face), device=face.device) // FRAMES
        same = clip[donor][:, None] == clip[None]
        return losses.recognition(read, face.detach(), same, self.preset.video.temperature)


class Incoherence(nn.Module):
    """Mean squared correlation of pose-related features [B, K, D] of different frames of a clip (`losses.coherence`).

    Correlations are averaged over past batches: those of one small batch are mostly chance. The gradient is that of
    the squared average with respect to this batch's share in it, in units of that share.
    """

    average: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(size, size))

    def forward(self, pose: Tensor) -> Tensor:
        average = torch.lerp(self.average, losses.coherence(pose), SHARE)
        self.average = average.detach()
        value = average.square().sum() / len(average)
        return value.detach() + (value - value.detach()) / SHARE


class ClipIndex:
    """Training images by clip, and how to draw further frames of an image's clip.

    Raises BadInput where the table has no column clip, where a clip shows two identities, and where no clip has
    `frames` training images; clips with fewer are left out, and a printed sentence says how many.
    """

    def __init__(self, faces: FaceSet, frames: int) -> None:
        if "clip" not in faces.table:
            raise BadInput(
                f"{faces.name} has no column clip, and method pcl_video learns from clips: prepare VoxCeleb or BIWI, "
                "give prepare_folder.py a table with a column clip, or render with --frames-per-clip 5"
            )
        rows = faces.split("train")
        clips = faces.table[["clip"]].rename(columns={"clip": "identity"})
        index = identity_index(clips, rows)
        if "identity" in faces.table:
            people = faces.table["identity"].iloc[rows].groupby(faces.table["clip"].iloc[rows]).nunique()
            if (people > 1).any():
                raise BadInput(f"{faces.name}: clip {people.idxmax()} shows two identities; mend the labels")
        counts = np.diff(index.offsets)
        if not (counts >= frames).any():
            raise BadInput(f"{faces.name} has no clip of {frames} training images, which pcl_video needs")
        if (counts < frames).any() and distributed.rank() == 0:
            print(f"{(counts < frames).sum()} of {len(counts)} clips have under {frames} frames: left out.")
        self.frames, self.rows = frames, index.rows
        self.first, self.count = index.offsets[:-1], counts
        self.clip = np.full(len(faces), -1)
        self.clip[index.rows] = np.repeat(np.arange(len(counts)), counts)
        self.long = np.flatnonzero(counts >= frames)

    def find_people(self, faces: FaceSet) -> None:
        """Find whose clips they are, for `with_another_clip`. Raises BadInput where nobody has two clips."""
        people = identity_codes(faces.table)
        self.person = people[self.rows[self.first]]  # of each clip
        self.mates = pd.Series(np.arange(len(self.person))).groupby(self.person).indices
        self.several = np.flatnonzero(np.bincount(self.person)[self.person] > 1)
        if not len(self.several):
            raise BadInput(f"{faces.name} has no person with two clips: set video.person to 0")

    def with_another_clip(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """These rows, then a row of another clip of each one's person; [2n].

        People of a single clip give their place to random others.
        """
        clip = self.clip[rows]
        alone = ~np.isin(clip, self.several)
        clip[alone] = rng.choice(self.several, int(alone.sum()))
        other = [rng.choice(mates[mates != k]) for k in clip for mates in [self.mates[self.person[k]]]]
        return self.rows[self.first[np.concatenate([clip, other])]]

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """For each row `frames` different frames of its clip (a random clip's where its own is short): [n, frames]."""
        clip = self.clip[rows]
        short = self.count[clip] < self.frames
        clip[short] = rng.choice(self.long, int(short.sum()))
        most = int(self.count[clip].max())
        keys = rng.random((len(rows), most))
        keys[np.arange(most) >= self.count[clip][:, None]] = 2.0
        return self.rows[self.first[clip][:, None] + keys.argsort(1)[:, : self.frames]]


def apart(face: Tensor, pose: Tensor) -> Tensor:
    """`losses.independence` of frames' poses from faces of other frames: [B, K, D], [B, K, P] -> scalar.

    One frame of each clip at a time: frames of a clip share their face and something of their pose.
    """
    pairs = zip(face.roll(1, 1).unbind(1), pose.unbind(1), strict=True)
    return torch.stack([losses.independence(a, b) for a, b in pairs]).mean()


def mirrored(clips: Tensor, video: VideoPreset, generator: torch.Generator) -> Tensor:
    """Clips [B, K, 3, S, S], a share of them flipped as a whole: another person, light and path."""
    flip = torch.rand(len(clips), device=clips.device, generator=generator) < video.mirror
    return torch.where(flip[:, None, None, None, None], clips.flip(4), clips)


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Images [N, 3, S, S] whose channels get a gain of 1 +- strength and an offset of +- strength / 2 each."""
    shape = (2, len(images), 3, 1, 1)
    draws = torch.rand(shape, device=images.device, generator=generator) * 2 - 1
    return (images * (1 + strength * draws[0]) + strength / 2 * draws[1]).clamp(0, 1)


def mixture(faces: Tensor, generator: torch.Generator) -> Tensor:
    """For each frame of clips [B, K, D] a random convex combination of the features of the other K - 1 frames."""
    count, frames = faces.shape[:2]
    draws = torch.rand((count, frames, frames), device=faces.device, generator=generator)
    weights = -torch.log(draws.clamp_min(1e-6))  # normalised, they are uniform on the simplex
    weights = weights * (1 - torch.eye(frames, device=faces.device))
    return (weights / weights.sum(2, keepdim=True)) @ faces
