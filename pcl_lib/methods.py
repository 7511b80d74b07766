"""What one training iteration does: a method is a few tasks, each with its own batch and loss.

To add a method, write one small class with `tasks` (and `end_epoch` where weights change) and put it
in `METHODS`; the loop of `pretrain.fit` does the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pcl_lib import losses
from pcl_lib.augment import views
from pcl_lib.errors import BadInput
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import Preset

TaskLoss = Callable[[PCL, Tensor, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Task:
    """One optimiser step of an iteration.

    batch: images it takes; loss: (model, uint8 images [batch, 3, S, S], generator) -> scalars by name;
    the one under the task's own name is minimised, the others are only logged.
    """

    name: str
    batch: int
    loss: TaskLoss


class Method:
    """Base of all methods; by itself it trains nothing (method "random")."""

    features: tuple[str, ...] = ("general", "face", "pose")  # what it gives a meaning to

    def __init__(self, preset: Preset) -> None:
        self.preset = preset
        self.tasks: tuple[Task, ...] = ()
        self.weights: dict[str, float] = {}

    def end_epoch(self, means: list[dict[str, float]]) -> None:
        """Told the mean losses of all epochs so far, by name, before the next one begins."""


class PCLMethod(Method):
    """The three tasks of PCL: PDD, face contrast and pose contrast (METHOD.md 3 to 6)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train, loss = preset.train, preset.loss
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
        noise = torch.randn(clean.shape, device=clean.device, generator=generator)
        _, face, pose = model.features(clean + preset.noise * noise)
        (face_s, face_f), (pose_s, pose_f) = face.chunk(2), pose.chunk(2)
        output = model.decode(torch.cat([face, face_f, face_s]), torch.cat([pose, pose_s, pose_f]))
        # Each of the four is the mean over its batch; their sum is four times the mean over all.
        reconstruction = 4 * losses.reconstruction(output, torch.cat([clean, clean]))
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
        logits = losses.face_logits(z, preset.temperature, mixing=preset.mixing, generator=generator)
        return {"face": losses.info_nce(logits), "face_accuracy": _accuracy(logits)}

    def pose(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two photometric views against views of the flip, on the pose branch. Paper section 3.3."""
        preset, count = self.preset.loss, self.preset.train.pose_negatives
        view = self.preset.pose_view
        same = views(images, view, generator, 2)
        changed = views(images.flip(3), view, generator, count)  # ordered [k][sample]
        z = model.pose_projector(model.pose_feature(torch.cat([same, changed])))
        z, negatives = z[: len(same)], z[len(same) :]
        if preset.negatives == "own_flip":
            negatives = negatives.view(count, len(images), -1).transpose(0, 1)
        elif preset.negatives == "released_code":  # chunked as if ordered [sample][k]
            negatives = negatives.view(len(images), count, -1)
        else:
            raise BadInput(f"unknown loss.negatives '{preset.negatives}': choose own_flip or released_code")
        logits = losses.pose_logits(
            z, negatives, preset.temperature, mixing=preset.mixing, generator=generator
        )
        return {"pose": losses.info_nce(logits), "pose_accuracy": _accuracy(logits)}

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


class SimCLR(Method):
    """SimCLR on the same trunk: the general feature through one projector (Chen et al. 2020).

    Its batch is the sum of PCL's three, so that both see the same number of images in an iteration.
    """

    features = ("general",)

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train = preset.train
        self.view = preset.simclr_view
        batch = train.pdd_batch + train.face_batch + train.pose_batch
        self.tasks = (Task("simclr", batch, self.contrast),)
        self.weights = {"simclr": 1.0}

    def contrast(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two random resized crops, all other views as negatives."""
        z = model.face_projector(model.general_feature(views(images, self.view, generator, 2)))
        logits = losses.plain_logits(z, self.preset.loss.temperature)
        return {"simclr": losses.info_nce(logits), "simclr_accuracy": _accuracy(logits)}


class SimCLRNoFlip(SimCLR):
    """SimCLR without flips in its views: the control for pose, which a flip teaches to ignore."""

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        self.view = dataclasses.replace(preset.simclr_view, flip=0.0)


METHODS: dict[str, type[Method]] = {
    "pcl": PCLMethod,
    "simclr": SimCLR,
    "simclr_noflip": SimCLRNoFlip,
    "random": Method,
}


def build(name: str, preset: Preset) -> Method:
    """The method of that name. Raises BadInput naming those there are."""
    if name not in METHODS:
        raise BadInput(f"unknown method '{name}': choose one of {', '.join(METHODS)}")
    return METHODS[name](preset)


def _accuracy(logits: Tensor) -> Tensor:
    """Share of rows whose positive has the largest logit."""
    return (logits.detach().argmax(1) == 0).float().mean()
