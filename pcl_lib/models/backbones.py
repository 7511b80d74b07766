"""Encoders whose trunk is a model of timm, by name; branches, decoder and projectors are those of the paper's."""

from __future__ import annotations

import difflib
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.models.encoder import STRIDE, TwoBranchEncoder, convolution, map_size, scaled
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput

PATCHES = 8  # a side, of a vision transformer


class BackboneEncoder(TwoBranchEncoder):
    """The last map of a timm model whose stride is 16 or less, and the two branches.

    Later stages are left out (of a ResNet the fourth). A vision transformer gives the patch tokens of its last block
    as a map; whatever patch size its name says, images are cut into 8 x 8 patches. A 1x1 convolution with the encoder's
    normalisation and activation brings the map to the paper's channels; adaptive pooling to the paper's size where it
    has another. `width` scales neither depth nor channels of the timm model itself. Its weights start at random:
    nothing is downloaded. Convolutional models and vision transformers take images of other sizes than the trained one.
    Raises BadInput on a name that timm does not know, naming near ones, and on a model without maps for that size.
    """

    def build_trunk(self, config: ModelPreset) -> None:
        """Make the timm model and what brings its map to the paper's channels."""
        self.backbone = stage_of(config.backbone, config.image_size)
        (channels,) = self.backbone.feature_info.channels()
        self.bring = convolution(channels, scaled(128, config.width), config.norm, kernel=1)

    def trunk(self, x: Tensor) -> Tensor:
        """The general feature as a map [B, 128 * width, H/16, W/16], rounded up."""
        (found,) = self.backbone(x)
        size = (map_size(x.shape[2]), map_size(x.shape[3]))
        return F.adaptive_avg_pool2d(self.bring(found), size)


def stage_of(name: str, size: int) -> Any:
    """A timm model that gives one map, that of its last stage with a stride of 16 or less, for images of that size."""
    import timm  # takes seconds, and most runs do without

    known = timm.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 4)
        raise BadInput(
            f"unknown model.backbone '{name}': timm has {'no such name' if not near else ', '.join(near)}; "
            "'paper' is the paper's own"
        )
    given: dict[str, Any] = {"features_only": True, "feature_cls": "getter"} | sizes(name, size)
    try:
        strides = timm.create_model(name, **given).feature_info.reduction()
        place = next((place for place in range(1, len(strides) + 1) if strides[-place] <= STRIDE), 1)
        model = timm.create_model(name, **given, out_indices=(-place,))
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size))  # some can be built and not run
        return model.train()
    except (TypeError, ValueError, AttributeError, AssertionError, RuntimeError) as error:
        raise BadInput(
            f"model.backbone '{name}' gives no map for images of {size} pixels ({error}): choose another, such as "
            "resnet18"
        ) from None


def sizes(name: str, size: int) -> dict[str, Any]:
    """What a timm model must be told of the images it will see."""
    import timm

    if name in timm.list_models(module="vision_transformer"):
        patch = math.ceil(size / PATCHES)
        return {"img_size": size, "patch_size": patch, "dynamic_img_size": True, "dynamic_img_pad": True}
    return {"img_size": size} if timm.get_pretrained_cfg(name).fixed_input_size else {}
