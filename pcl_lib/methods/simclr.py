"""SimCLR with the same encoder, with and without flips in its views."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from pcl_lib import losses, ranks
from pcl_lib.methods.base import Method, Task, accuracy, views
from pcl_lib.models import PCL
from pcl_lib.presets import Preset


class SimCLR(Method):
    """SimCLR on the same trunk: the general feature through one projector (Chen et al. 2020).

    Its batch is the sum of PCL's three, so that both see the same number of images in an iteration.
    """

    features = ("general",)

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train = self.preset.train
        batch = train.pdd_batch + train.face_batch + train.pose_batch
        self.tasks = (Task("simclr", batch, self.contrast),)
        self.weights = {"simclr": 1.0}

    def contrast(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two random resized crops, all other views as negatives."""
        z = model.face_projector(model.general_feature(views(images, self.preset.simclr_view, generator, 2)))
        logits = losses.plain_logits(ranks.gather(z, 2), self.preset.loss.temperature)
        return {"simclr": losses.info_nce(logits), "simclr_accuracy": accuracy(logits)}


class SimCLRNoFlip(SimCLR):
    """SimCLR without flips in its views: the control for pose, which a flip teaches to ignore."""

    changes = MappingProxyType({"simclr_view.flip": 0.0})
