"""MoCo v2, BYOL and SimSiam on the same trunk, budget and views; losses, heads and averages are lightly's.

What differs from the papers: the encoder and the projector are the kit's (notebooks/method.md, sections 1 and 4),
the views those of `preset.simclr_view`, and momenta are those of short runs: at the papers' .999 and .996 the
average of the weights would still be near its start after some hundred iterations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pcl_lib import distributed
from pcl_lib.data import FaceSet
from pcl_lib.methods.base import SingleTaskMethod, views
from pcl_lib.models import PCL

BANK = 2048  # keys that MoCo's queue holds
MOMENTUM = 0.99


# lightly is imported where it is used: it brings in PyTorch Lightning, which takes seconds.


class _Siamese(SingleTaskMethod):
    """Two views, each predicted from the other one's target; `targets` has no gradient."""

    def two(self, model: PCL, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Two views, stacked, and the projections of both: [2B, 3, S, S], [B, D], [B, D]."""
        both = views(images, self.preset.simclr_view, generator, 2)
        first, second = project(model, both).chunk(2)
        return both, first, second


class MoCo(_Siamese):
    """MoCo v2: keys of a slowly following encoder, negatives from a queue of `BANK` earlier keys.

    Batches are not shuffled between devices for batch norm, of which the projector has one layer (its last).
    Source: Chen et al. 2020 (arXiv 2003.04297), He et al. 2020 (arXiv 1911.05722).
    """

    name = "moco"

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:  # noqa: ARG002
        """The momentum encoder, and the queue."""
        from lightly.loss import NTXentLoss

        self.slow, bank = frozen_copy(model), (BANK, model.config.projector_out)
        loss = NTXentLoss(self.preset.loss.temperature, bank)
        for name in ("bank", "bank_ptr"):  # lightly leaves the queue out of checkpoints
            loss.memory_bank.register_buffer(name, getattr(loss.memory_bank, name))
        self.auxiliary_modules = nn.ModuleDict({"slow": self.slow, "loss": loss})
        return self.auxiliary_modules

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of queries against the keys of the other view and of the queue, one way round."""
        queries, others = views(images, self.preset.simclr_view, generator, 2).chunk(2)
        with torch.no_grad():
            keys = distributed.gather(project(self.slow, others))
        queries = distributed.gather(project(model, queries))
        with torch.autocast(images.device.type, enabled=False):
            return {"moco": self.auxiliary_modules["loss"](queries.float(), keys.float())}

    def on_step_end(self, model: PCL) -> None:
        """Let the momentum encoder follow."""
        follow(model, self.slow)


class BYOL(_Siamese):
    """BYOL: a predictor on top of one encoder meets the projections of its slow average; there are no negatives.

    Source: Grill et al. 2020 (arXiv 2006.07733), equation 2, both ways round.
    """

    name = "byol"

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:  # noqa: ARG002
        """The momentum encoder, and the predictor."""
        from lightly.models.modules.heads import BYOLPredictionHead

        config = model.config
        head = BYOLPredictionHead(config.projector_out, config.projector_hidden, config.projector_out)
        self.slow = frozen_copy(model)
        self.auxiliary_modules = nn.ModuleDict({"slow": self.slow, "predictor": head})
        return self.auxiliary_modules

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Negative cosine between predictions and the other view's slow projections."""
        both, first, second = self.two(model, images, generator)
        with torch.no_grad():
            slow_first, slow_second = project(self.slow, both).chunk(2)
        return {
            "byol": symmetric(self.auxiliary_modules["predictor"], first, second, slow_first, slow_second)
        }

    def on_step_end(self, model: PCL) -> None:
        """Let the momentum encoder follow."""
        follow(model, self.slow)


class SimSiam(_Siamese):
    """SimSiam: BYOL with the encoder itself as its target, behind a stop-gradient.

    Source: Chen and He 2021 (arXiv 2011.10566), algorithm 1.
    """

    name = "simsiam"

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:  # noqa: ARG002
        """The predictor."""
        from lightly.models.modules.heads import SimSiamPredictionHead

        size = model.config.projector_out
        self.auxiliary_modules = nn.ModuleDict(
            {"predictor": SimSiamPredictionHead(size, max(8, size // 4), size)}
        )
        return self.auxiliary_modules

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Negative cosine between predictions and the other view's projections, which get no gradient."""
        _, first, second = self.two(model, images, generator)
        targets = first.detach(), second.detach()
        return {"simsiam": symmetric(self.auxiliary_modules["predictor"], first, second, *targets)}


def project(model: PCL, images: Tensor) -> Tensor:
    """General feature and face projector: [B, 3, S, S] -> [B, projector_out]."""
    z: Tensor = model.face_projector(model.general_feature(images))
    return z


def frozen_copy(model: PCL) -> PCL:
    """A copy that no gradient reaches."""
    slow = copy.deepcopy(model)
    return slow.requires_grad_(False)


def follow(model: PCL, slow: PCL) -> None:
    """Move the weights of the copy a little towards the model's."""
    from lightly.models.utils import update_momentum

    update_momentum(model, slow, MOMENTUM)


def symmetric(
    predictor: Callable[[Tensor], Tensor], first: Tensor, second: Tensor, to_first: Tensor, to_second: Tensor
) -> Tensor:
    """Mean negative cosine of the predictions from each view to the target of the other; in -1..1."""
    from lightly.loss import NegativeCosineSimilarity

    error = NegativeCosineSimilarity()
    one, other = predictor(first).float(), predictor(second).float()
    loss: Tensor = (error(one, to_second.float()) + error(other, to_first.float())) / 2
    return loss
