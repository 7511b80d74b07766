"""SimCLR with the same encoder, with and without flips in its views."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from pcl_lib import distributed, losses
from pcl_lib.methods.base import SingleTaskMethod, accuracy, views
from pcl_lib.models import PCL


class SimCLR(SingleTaskMethod):
    """SimCLR on the same trunk: the general feature through one projector (Chen et al. 2020)."""

    name = "simclr"

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two random resized crops, all other views as negatives."""
        z = model.face_projector(model.general_feature(views(images, self.preset.simclr_view, generator, 2)))
        logits = losses.plain_logits(distributed.gather(z, 2), self.preset.loss.temperature)
        return {"simclr": losses.info_nce(logits), "simclr_accuracy": accuracy(logits)}


class SimCLRNoFlip(SimCLR):
    """SimCLR without flips in its views: the control for pose, which a flip teaches to ignore."""

    changes = MappingProxyType({"simclr_view.flip": 0.0})
