"""A masked autoencoder: paint the hidden patches of an image from those that are seen."""

from __future__ import annotations

from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib import distributed
from pcl_lib.data import FaceSet
from pcl_lib.methods.base import SingleTaskMethod, views
from pcl_lib.methods.flow import FieldDecoder
from pcl_lib.models import PCL

PATCHES, HIDDEN = 8, 0.6  # patches along a side; the share of them that is hidden


class MaskedAutoencoder(SingleTaskMethod):
    """Reconstruct the hidden patches of an image; the general feature is what the encoder makes of the others.

    Hidden patches get a learned colour, as in SimMIM, so that any trunk can take the image; a vision transformer of
    MAE leaves them out instead, which saves time and asks for `model.backbone` to be one. A small decoder paints the
    image, and the squared error counts on hidden patches alone, in pixels that are standardised patch by patch.
    Views are random crops and flips; colours stay as they are.
    Source: He et al., CVPR 2022 (arXiv 2111.06377); Xie et al., SimMIM, CVPR 2022 (arXiv 2111.09886).
    """

    name = "masked"
    changes = MappingProxyType({f"simclr_view.{key}": 0.0 for key in ("jitter", "grey", "blur", "gradient")})

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:  # noqa: ARG002
        """The decoder, and the colour of what is hidden."""
        self.decoder = FieldDecoder(model.config, model.decoder.fc.in_features, 3)
        self.colour = nn.Parameter(torch.full((3, 1, 1), 0.5))
        return nn.ModuleDict({"decoder": self.decoder, "colour": nn.ParameterList([self.colour])})

    def loss(self, model: PCL, images: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error on the hidden patches."""
        seen = views(images, self.preset.simclr_view, generator, 1)
        hidden = hidden_patches(len(images), seen.shape[-1], generator)
        feature = model.general_feature(torch.where(hidden, self.colour, seen))
        return {"masked": masked_error(self.decoder(feature).float(), seen, hidden)}


def hidden_patches(n: int, size: int, generator: torch.Generator) -> Tensor:
    """Which pixels of n images are hidden: bool [n, 1, size, size]; of each image the same number of patches."""
    draws = torch.rand(n * distributed.world(), PATCHES**2, generator=generator, device=generator.device)
    places = distributed.own(draws).argsort(1).argsort(1)
    return (places < round(HIDDEN * PATCHES**2))[:, patch_of_pixel(size, draws.device)][:, None]


def patch_of_pixel(size: int, device: torch.device) -> Tensor:
    """The number of the patch that each pixel lies in: int64 [size, size]."""
    place = torch.arange(size, device=device) * PATCHES // size
    return place[:, None] * PATCHES + place


def masked_error(painted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of painted pixels, where they are hidden, from those of standardised patches.

    painted, images: [N, 3, S, S]; hidden: bool [N, 1, S, S]. A patch is standardised over its pixels and colours.
    """
    size = images.shape[-1]
    member = F.one_hot(patch_of_pixel(size, images.device).flatten(), PATCHES**2).to(
        images
    )  # [S * S, patches]
    counts = 3 * member.sum(0)
    flat = images.flatten(2)
    mean = (flat.sum(1) @ member / counts) @ member.T
    centred = flat - mean[:, None]
    spread = ((centred.square().sum(1) @ member / counts) @ member.T + 1e-6).sqrt()
    error = (painted.flatten(2) - centred / spread[:, None]).square().mean(1)
    mask = hidden.flatten(1)
    return (error * mask).sum() / mask.sum()
