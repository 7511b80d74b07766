"""PCL, and PCL with features that are parted by construction.

Its parts come off by settings: a part of weight 0 is left out, and its images go to the others.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from pcl_lib import distributed, losses
from pcl_lib.augment import rotate
from pcl_lib.data import FaceSet, ImageSource, resize_images
from pcl_lib.methods.base import Method, Take, Task, accuracy, take_images, views
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import Preset
from pcl_lib.utils import BadInput

TURNS = (20.0, 60.0)  # degrees, either way, of a rotation in the plane


class PCLMethod(Method):
    """The three tasks of PCL: PDD, face contrast and pose contrast (notebooks/method.md, sections 3 to 6)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train, loss = self.preset.train, self.preset.loss
        self._check(loss.pose_change, loss.negatives)
        weights = {"pdd": loss.pdd, "face": loss.face, "pose": loss.pose}
        batches = {"pdd": train.pdd_batch, "face": train.face_batch, "pose": train.pose_batch}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        kept = sum(batches[name] for name in self.weights)
        self.tasks = tuple(
            Task(name, batches[name] * sum(batches.values()) // kept, getattr(self, name), self._take(name))
            for name in self.weights
        )

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """None, but the model is told with what noise its decoder is trained."""
        if "pdd" in self.weights:
            model.decoder_noise = self.preset.loss.noise
        return super().auxiliary(model, faces)

    @staticmethod
    def _check(change: str, negatives: str) -> None:
        if negatives == "batch" and change != "flip":
            raise BadInput(
                f"loss.negatives 'batch' knows flips alone: set loss.pose_change to flip, not {change}"
            )

    def _take(self, task: str) -> Take:
        return take_turned if task == "pose" and self.preset.loss.pose_change == "turn" else take_images

    def pdd(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Four reconstructions with swapped pose-related features, and orthogonality. Paper section 3.2."""
        preset = self.preset.loss
        clean = self.pairs(images, generator)
        shape = (len(clean) * distributed.world(), *clean.shape[1:])
        noise = torch.randn(shape, device=clean.device, generator=generator)
        _, face, pose = model.mirror_features(clean + preset.noise * distributed.own(noise, 2))
        (face_s, face_f), (pose_s, pose_f) = face.chunk(2), pose.chunk(2)
        if not self.preset.model.even_odd:  # else both have one face, and swaps would be the same pictures
            face, pose = torch.cat([face, face_f, face_s]), torch.cat([pose, pose_s, pose_f])
            clean = torch.cat([clean, clean])
        # Each of the four is the mean over its batch; their sum is four times the mean over all.
        reconstruction = 4 * losses.reconstruction(model.decode(face, pose), clean)
        face_s, pose_s, face_f, pose_f = map(distributed.gather, (face_s, pose_s, face_f, pose_f))
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
        z = distributed.gather(z, 2)
        logits = losses.face_logits(z, preset.temperature, mixing=preset.mixing, generator=generator)
        return {"face": losses.info_nce(logits), "face_accuracy": accuracy(logits)}

    def pose(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two photometric views against views with another pose, on the pose branch. Paper section 3.3.

        With loss.pose_change "turn", images are those of `take_turned`: [2 * batch, 3, S, S].
        """
        draw = self._batch_logits if self.preset.loss.negatives == "batch" else self._flip_logits
        logits = draw(model, images, generator)
        return {"pose": losses.info_nce(logits), "pose_accuracy": accuracy(logits)}

    def _flip_logits(self, model: PCL, images: Tensor, generator: torch.Generator) -> Tensor:
        preset, count = self.preset.loss, self.preset.train.pose_negatives
        same = self.positives(images, generator)
        changed = self.negatives(images, count, generator)
        z = model.pose_projector(model.pose_feature(torch.cat([same, changed])))
        z, negatives = distributed.gather(z[: len(same)], 2), distributed.gather(z[len(same) :], count)
        if preset.negatives == "own_flip":
            negatives = negatives.unflatten(0, (count, -1)).transpose(0, 1)
        else:  # "released_code": chunked as if ordered [sample][k]
            negatives = negatives.unflatten(0, (-1, count))
        return losses.pose_logits(z, negatives, preset.temperature, mixing=preset.mixing, generator=generator)

    def pairs(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The PDD's images in 0..1, and after them the other image of each pair: [2N, 3, S, S]."""
        clean = as_float(images)
        return torch.cat([clean, self.counterpart(clean, generator)])

    def counterpart(self, images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The other image of the PDD's pair: the flip, whatever the pose contrast takes."""
        return images.flip(3)

    def positives(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Two photometric views of each image."""
        return views(self._changed(images)[0], self.preset.pose_view, generator, 2)

    def negatives(self, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Views of each image with another pose, ordered [k][sample]."""
        changed = views(self._changed(images)[1], self.preset.pose_view, generator, count)
        return self._rotated(changed, count, generator)

    def _changed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images, and for each the one to make its negatives of."""
        change = self.preset.loss.pose_change
        if change == "turn":
            images, turned = images.chunk(2)
            return images, turned
        return images, images if change == "rotate" else images.flip(3)

    def _rotated(self, changed: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Each of `count` views of each image turned in its plane, where the pose change is a rotation."""
        if "rotate" not in self.preset.loss.pose_change:
            return changed
        shape = (len(changed) * distributed.world(), 2)
        draws = distributed.own(torch.rand(shape, device=changed.device, generator=generator), count)
        degrees = TURNS[0] + (TURNS[1] - TURNS[0]) * draws[:, 0]
        return rotate(changed, degrees * torch.where(draws[:, 1] < 0.5, -1.0, 1.0))

    def _batch_logits(self, model: PCL, images: Tensor, generator: torch.Generator) -> Tensor:
        same = views(images, self.preset.pose_view, generator, 2)
        pose = model.mirror_features(torch.cat([same, same.flip(3)])).pose
        z, mirrored = (distributed.gather(part, 2) for part in model.pose_projector(pose).chunk(2))
        return losses.mirror_logits(z, mirrored, self.preset.loss.temperature)

    def on_epoch_end(self, means: list[dict[str, float]]) -> None:
        """Dynamic weights from the third epoch on. Paper, dynamic weighting."""
        preset = self.preset.loss
        if not preset.dynamic or len(means) < 2 or not {"face", "pose"} <= self.weights.keys():
            return
        # A saturated loss can be 0 in float32, and has no ratio then.
        last, before = (
            {name: max(epoch[name], 1e-8) for name in ("face", "pose")} for epoch in (means[-1], means[-2])
        )
        dynamic = losses.dynamic_weights(last, before)
        self.weights |= {"face": preset.face * dynamic["face"], "pose": preset.pose * dynamic["pose"]}


def take_turned(source: ImageSource, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Images of rendered faces, then the same faces, light and background with the head turned elsewhere.

    Returns uint8 [2 * len(rows), 3, S, S]. An oracle: only who renders the faces can turn them. The angles are drawn
    as those of the set, from normal distributions. Raises BadInput where the set is not of rendered faces.
    """
    from pcl_lib.faces.factors import POSE_SPREAD

    factors = factors_of(source, rows, "loss.pose_change 'turn'")
    for angle, (spread, most) in POSE_SPREAD.items():
        drawn = rng.normal(0, spread, (distributed.world(), len(factors)))  # of all ranks' blocks
        factors[angle] = np.clip(drawn[distributed.rank()], -most, most)
    return with_renderings(source, rows, factors)


def factors_of(source: ImageSource, rows: np.ndarray, setting: str) -> pd.DataFrame:
    """What the renderer draws these rows of a set from. setting: whose, for the refusal of other sets (BadInput)."""
    from pcl_lib.faces.factors import NUMERIC

    factors = source.faces.table.iloc[rows]
    if missing := [name for name in NUMERIC if name not in factors]:
        raise BadInput(
            f"{setting} renders faces anew, but {source.faces.name} has no {missing[0]}: choose flip"
        )
    return factors[list(NUMERIC)].reset_index(drop=True)


def with_renderings(source: ImageSource, rows: np.ndarray, factors: pd.DataFrame) -> Tensor:
    """Images of rendered faces, then one rendered from each row of `factors`: uint8 [2 * len(rows), 3, S, S]."""
    from pcl_lib.faces import render  # numba takes seconds to import

    # drawn and made smaller as the set's images were, or a copy could be told by its sharpness
    copies = render(factors, source.faces.image_size, device=source.device)
    return torch.cat([source.take(rows), resize_images(copies, source.size)])


class PCLPlus(PCLMethod):
    """PCL whose two features are parted by construction: the even and the odd part under a flip.

    The flip is all that PCL knows of pose. `pcl` asks for two features that part under it by losses, and a linear
    probe still finds yaw in both (RESULTS.md). Here the face-aware feature is what a flip leaves and the pose-related
    feature what it turns over (`PCL.mirror_features`). The four reconstructions become two, the orthogonality term is
    zero over any batch that holds the flip of each image, and the flips of the pose contrast cost nothing, so that
    the whole batch can be its negatives (`losses.mirror_logits`). What a flip does not change (pitch, how far a head
    is turned) stays in the face-aware feature. Downstream tasks read best from the same two parts of the general
    feature (`probes.EvenOdd`), which any encoder has: compare with those.
    """

    changes = MappingProxyType({"model.even_odd": True, "loss.negatives": "batch"})
