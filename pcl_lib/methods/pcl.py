"""PCL, and PCL with features that are parted by construction."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from pcl_lib import losses, ranks
from pcl_lib.errors import BadInput
from pcl_lib.methods.base import Method, Task, accuracy, views
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import Preset


class PCLMethod(Method):
    """The three tasks of PCL: PDD, face contrast and pose contrast (METHOD.md 3 to 6)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train, loss = self.preset.train, self.preset.loss
        self.tasks = (
            Task("pdd", train.pdd_batch, self.pdd),
            Task("face", train.face_batch, self.face),
            Task("pose", train.pose_batch, self.pose),
        )
        self.weights = {"pdd": loss.pdd, "face": loss.face, "pose": loss.pose}

    def pdd(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Four reconstructions with swapped pose-related features, and orthogonality. Paper section 3.2."""
        preset = self.preset.loss
        clean = as_float(images)
        clean = torch.cat([clean, clean.flip(3)])
        shape = (len(clean) * ranks.world(), *clean.shape[1:])
        noise = torch.randn(shape, device=clean.device, generator=generator)
        _, face, pose = model.mirror_features(clean + preset.noise * ranks.own(noise, 2))
        (face_s, face_f), (pose_s, pose_f) = face.chunk(2), pose.chunk(2)
        if (
            not self.preset.model.parity
        ):  # with parity both have one face: the swaps would be the same pictures
            face, pose = torch.cat([face, face_f, face_s]), torch.cat([pose, pose_s, pose_f])
            clean = torch.cat([clean, clean])
        # Each of the four is the mean over its batch; their sum is four times the mean over all.
        reconstruction = 4 * losses.reconstruction(model.decode(face, pose), clean)
        face_s, pose_s, face_f, pose_f = map(ranks.gather, (face_s, pose_s, face_f, pose_f))
        orthogonality = losses.orthogonality(face_s, pose_s) + losses.orthogonality(face_f, pose_f)
        return {
            "pdd": reconstruction + preset.orthogonality * orthogonality,
            "reconstruction": reconstruction,
            "orthogonality": orthogonality,
        }

    def face(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two crops with mixed negatives, on the face branch. Paper section 3.3."""
        preset = self.preset.loss
        z = model.face_projector(model.face_feature(views(images, self.preset.face_view, generator, 2)))
        z = ranks.gather(z, 2)
        logits = losses.face_logits(z, preset.temperature, mixing=preset.mixing, generator=generator)
        return {"face": losses.info_nce(logits), "face_accuracy": accuracy(logits)}

    def pose(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two photometric views against views of the flip, on the pose branch. Paper section 3.3."""
        draw = self._batch_logits if self.preset.loss.negatives == "batch" else self._flip_logits
        logits = draw(model, images, generator)
        return {"pose": losses.info_nce(logits), "pose_accuracy": accuracy(logits)}

    def _flip_logits(self, model: PCL, images: Tensor, generator: torch.Generator) -> Tensor:
        preset, count = self.preset.loss, self.preset.train.pose_negatives
        view = self.preset.pose_view
        same = views(images, view, generator, 2)
        changed = views(images.flip(3), view, generator, count)  # ordered [k][sample]
        z = model.pose_projector(model.pose_feature(torch.cat([same, changed])))
        z, negatives = ranks.gather(z[: len(same)], 2), ranks.gather(z[len(same) :], count)
        if preset.negatives == "own_flip":
            negatives = negatives.unflatten(0, (count, -1)).transpose(0, 1)
        elif preset.negatives == "released_code":  # chunked as if ordered [sample][k]
            negatives = negatives.unflatten(0, (-1, count))
        else:
            raise BadInput(
                f"unknown loss.negatives '{preset.negatives}': choose own_flip, released_code or batch"
            )
        return losses.pose_logits(z, negatives, preset.temperature, mixing=preset.mixing, generator=generator)

    def _batch_logits(self, model: PCL, images: Tensor, generator: torch.Generator) -> Tensor:
        same = views(images, self.preset.pose_view, generator, 2)
        pose = model.mirror_features(torch.cat([same, same.flip(3)])).pose
        z, mirrored = (ranks.gather(part, 2) for part in model.pose_projector(pose).chunk(2))
        return losses.mirror_logits(z, mirrored, self.preset.loss.temperature)

    def end_epoch(self, means: list[dict[str, float]]) -> None:
        """Dynamic weights from the third epoch on. Paper, dynamic weighting."""
        preset = self.preset.loss
        if not preset.dynamic or len(means) < 2:
            return
        # A saturated loss can be 0 in float32, and has no ratio then.
        last, before = (
            {name: max(epoch[name], 1e-8) for name in ("face", "pose")} for epoch in (means[-1], means[-2])
        )
        dynamic = losses.dynamic_weights(last, before)
        self.weights |= {"face": preset.face * dynamic["face"], "pose": preset.pose * dynamic["pose"]}


class PCLPlus(PCLMethod):
    """PCL whose two features are parted by construction: the even and the odd part under a flip.

    The flip is all that PCL knows of pose. `pcl` asks for two features that part under it by losses, and a linear
    reader still finds yaw in both (README). Here the face-aware feature is what a flip leaves and the pose-related
    feature what it turns over (`PCL.mirror_features`). The four reconstructions become two, the orthogonality term is
    zero over any batch that holds the flip of each image, and the flips of the pose contrast cost nothing, so that
    the whole batch can be its negatives (`losses.mirror_logits`). What a flip does not change (pitch, how far a head
    is turned) stays in the face-aware feature.
    """

    changes = MappingProxyType({"model.parity": True, "loss.negatives": "batch"})
