"""Changes that one can make to an image without labels, and PCL with any of them in the place of the flip.

PCL's recipe asks for a change of one attribute: a pair of images that differ in it alone, two features, swaps between
them, and a contrast. The flip changes pose; a shading ramp changes light. Which attribute can be separated follows
from what positives share: the attribute feature keeps what two views of an image have in common and its changed
copies lack. So views must leave the attribute alone, and each change says which settings of the views do not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pcl_lib import distributed, losses
from pcl_lib.augment import rotate
from pcl_lib.data import ImageSource
from pcl_lib.methods.base import Take, accuracy, views
from pcl_lib.methods.pcl import TURNS, PCLMethod, factors_of, with_renderings
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.presets import Preset, override
from pcl_lib.utils import BadInput

RAMP = (0.5, 0.9)  # how much lighter one edge is, and darker the other
CAST = 0.4  # how far a colour cast moves the three channels
OCCLUDER = (0.25, 0.45)  # side of the square, in sides of the image


@dataclass(frozen=True)
class AttributeChange:
    """A change of one attribute of an image, which needs no label.

    apply: (images [N, 3, H, W] in 0..1, uniform draws [N, draws] in [0, 1)) -> changed images of that shape and range;
    a pure function. views: settings of `ViewPreset` under which views leave the attribute alone. first: whether views
    are made of the changed image, as PCL does with flips, and not changed themselves.
    """

    name: str
    apply: Callable[[Tensor, Tensor], Tensor]
    draws: int
    views: Mapping[str, float] = field(default_factory=dict)
    first: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator, copies: int = 1) -> Tensor:
        """Changed images. images: this rank's rows of the global batch, `copies` times stacked."""
        if not self.draws:
            return self.apply(images, images.new_empty(len(images), 0))
        shape = (len(images) * distributed.world(), self.draws)
        draws = torch.rand(shape, device=images.device, generator=generator)
        return self.apply(images, distributed.own(draws, copies))


@dataclass(frozen=True)
class RenderedChange:
    """A change that only the renderer can make, to its own faces: an oracle of what a change could do at best.

    factors: columns of the set's table that a changed copy has from another training image. views: as above.
    """

    name: str
    factors: tuple[str, ...]
    views: Mapping[str, float] = field(default_factory=dict)


def flipped(images: Tensor, _: Tensor) -> Tensor:
    """Mirror images: yaw and roll change their sign."""
    return images.flip(3)


def rotated(images: Tensor, draws: Tensor) -> Tensor:
    """Turned in the plane by `TURNS` degrees, either way: roll. draws: [N, 2] how far, and which way."""
    degrees = TURNS[0] + (TURNS[1] - TURNS[0]) * draws[:, 0]
    return rotate(images, degrees * torch.where(draws[:, 1] < 0.5, -1.0, 1.0))


def relit(images: Tensor, draws: Tensor) -> Tensor:
    """Times a linear ramp around 1, as light from one side. draws: [N, 2] from where, and how strong."""
    angle = 2 * math.pi * draws[:, 0]
    strength = RAMP[0] + (RAMP[1] - RAMP[0]) * draws[:, 1]
    down, right = (torch.linspace(-1, 1, side, device=images.device) for side in images.shape[2:])
    across = (strength * angle.cos())[:, None, None] * right
    along = (strength * angle.sin())[:, None, None] * down[:, None]
    return (images * (1 + (across + along)[:, None] / math.sqrt(2))).clamp(0, 1)


def cast(images: Tensor, draws: Tensor) -> Tensor:
    """With a colour cast of the light: channel factors of mean 1, `CAST` away from it. draws: [N, 1] the hue."""
    phase = 2 * math.pi * (draws + torch.arange(3, device=images.device) / 3)
    return (images * (1 + CAST * phase.cos())[:, :, None, None]).clamp(0, 1)


def occluded(images: Tensor, draws: Tensor) -> Tensor:
    """With a square of one colour in front. draws: [N, 6] colour, side, and where its top left corner lies."""
    side = OCCLUDER[0] + (OCCLUDER[1] - OCCLUDER[0]) * draws[:, 3:4]
    left, top = ((1 - side) * draws[:, place : place + 1] for place in (4, 5))
    y, x = ((torch.arange(n, device=images.device) + 0.5) / n for n in images.shape[2:])
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, draws[:, :3, None, None].to(images), images)


STEADY_LIGHT = {"brightness": 0.0, "contrast": 0.0, "gradient": 0.0}
STEADY_COLOUR = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0, "grey": 0.0, "gradient": 0.0}
CHANGES = {
    change.name: change
    for change in (
        AttributeChange("flip", flipped, 0, first=True),
        AttributeChange("rotation", rotated, 2),
        AttributeChange("light", relit, 2, STEADY_LIGHT),
        AttributeChange("colour", cast, 1, STEADY_COLOUR),
        AttributeChange("occluder", occluded, 6),
    )
}
# Ageing is what the renderer has of it: the skin's lines and tone, and grey hair. Make-up is the colour of the lips.
ORACLES = {
    change.name: change
    for change in (
        RenderedChange("ageing", ("age", "hair_grey"), STEADY_COLOUR),
        RenderedChange("make-up", ("lip_redness",), STEADY_COLOUR),
    )
}


class PCLOfChange(PCLMethod):
    """PCL that separates the attribute of `loss.attribute` from all else; with "flip" it is `pcl`, digit for digit.

    The pair of the PDD is an image and its changed copy, and the negatives of the contrast are changed copies. The
    attribute is held by the pose-related feature, all else by the face-aware one. With `model.even_odd` and
    `loss.negatives` "batch" and the flip it is `pcl_plus`. With one of `ORACLES` the changed copies are rendered, one
    an image. Raises BadInput on another attribute than the flip with either of these two settings, which know flips
    alone, and where loss.pose_change names another change.
    """

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        loss = self.preset.loss
        self.change = CHANGES.get(loss.attribute) or ORACLES[loss.attribute]
        if loss.pose_change != "flip":
            raise BadInput(f"loss.pose_change '{loss.pose_change}' is for pcl: set loss.attribute alone")
        if loss.attribute != "flip" and (self.preset.model.even_odd or loss.negatives == "batch"):
            raise BadInput(
                f"loss.attribute '{loss.attribute}' needs model.even_odd=False and loss.negatives other than 'batch', "
                "which know flips alone"
            )
        steady = {f"pose_view.{key}": value for key, value in self.change.views.items()}
        self.view = override(self.preset, steady).pose_view

    def _take(self, task: str) -> Take:
        change = ORACLES.get(self.preset.loss.attribute)
        return partial(take_redrawn, change=change) if change and task != "face" else super()._take(task)

    def pairs(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The images of the PDD in 0..1 and their changed copies: [2N, 3, S, S]."""
        return (
            as_float(images) if isinstance(self.change, RenderedChange) else super().pairs(images, generator)
        )

    def counterpart(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The changed copies of images in 0..1, for the PDD."""
        assert isinstance(self.change, AttributeChange)  # the renderer's come with the images
        return self.change(images, generator)

    def negatives(self, images: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Views of each image with another attribute, ordered [k][sample]."""
        if isinstance(self.change, RenderedChange):
            return views(images.chunk(2)[1], self.view, generator, count)
        if self.change.first:
            return views(self.change(images, generator), self.view, generator, count)
        return self.change(views(images, self.view, generator, count), generator, count)

    def positives(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Two views of each image with one attribute."""
        own = images.chunk(2)[0] if isinstance(self.change, RenderedChange) else images
        return views(own, self.view, generator, 2)


def take_redrawn(
    source: ImageSource, rows: np.ndarray, rng: np.random.Generator, change: RenderedChange
) -> Tensor:
    """Images of rendered faces, then each rendered with the factors of the change from another training image.

    Returns uint8 [2 * len(rows), 3, S, S]. Raises BadInput where the set is not of rendered faces.
    """
    own = factors_of(source, rows, f"loss.attribute '{change.name}'")
    drawn = rng.integers(len(source.rows), size=(distributed.world(), len(own)))[distributed.rank()]
    others = source.faces.table.iloc[source.rows[drawn]]
    own[list(change.factors)] = others[list(change.factors)].to_numpy(float)
    return with_renderings(source, rows, own)


class PCLOfFreedChange(PCLOfChange):
    """`PCLOfChange` whose positives of all else differ in the attribute too: half of these views are changed.

    What positives do not share is dropped (von Kuegelgen et al. 2021, arXiv 2106.04619), and views of all else share
    pose and occluders. Source: ours. Raises BadInput with one of `ORACLES`, as the renderer knows no views.
    """

    change: AttributeChange

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        if isinstance(self.change, RenderedChange):
            raise BadInput(
                f"loss.attribute '{self.change.name}' is changed by the renderer, and pcl_change_freed changes views: "
                f"choose pcl_change, or one of {', '.join(CHANGES)}"
            )

    def face(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """InfoNCE of two crops, half of them changed at random, on the face branch."""
        seen = views(images, self.preset.face_view, generator, 2)
        draws = torch.rand(len(seen) * distributed.world(), device=seen.device, generator=generator)
        half = distributed.own(draws, 2) < 0.5
        seen = torch.where(half[:, None, None, None], self.change(seen, generator, 2), seen)
        z = distributed.gather(model.face_projector(model.face_feature(seen)), 2)
        loss = self.preset.loss
        logits = losses.face_logits(z, loss.temperature, mixing=loss.mixing, generator=generator)
        return {"face": losses.info_nce(logits), "face_accuracy": accuracy(logits)}
