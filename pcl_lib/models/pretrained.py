"""A timm backbone that was pre-trained elsewhere, from a file, for the probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.models.encoder import as_float
from pcl_lib.utils import BadInput


class GeneralFeature(NamedTuple):
    """The one feature that a backbone has: [N, D]."""

    general: Tensor


class PretrainedBackbone(nn.Module):
    """A whole timm model without its classifier; its pooled output is the general feature.

    Images are resized to the size that the weights were made for, and standardised by their mean and spread, as timm
    keeps both for each name. So `probes.evaluate(load_backbone("resnet18", "resnet18.safetensors"), faces)` compares
    it with the kit's methods.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, backbone: Any, size: int) -> None:
        super().__init__()
        self.backbone, self.size = backbone, size
        for name, key in (("mean", "mean"), ("spread", "std")):
            self.register_buffer(name, torch.tensor(backbone.pretrained_cfg[key]).view(3, 1, 1))

    def features(self, images: Tensor) -> GeneralFeature:
        """images: uint8, or float in [0, 1], [N, 3, H, W] -> general [N, D]."""
        shape = (self.size, self.size)
        x = F.interpolate(as_float(images), shape, mode="bilinear", antialias=True, align_corners=False)
        return GeneralFeature(self.backbone((x - self.mean) / self.spread))


def load_backbone(name: str, path: Path | str, size: int = 0) -> PretrainedBackbone:
    """The timm model `name` with the weights in a file, in eval mode.

    path: a safetensors file, or one of torch.save that holds tensors alone, with timm's keys; a classifier in it is
    left out. size: side in pixels that images are resized to, 0 for that of the weights; vision transformers take that
    alone. Nothing is downloaded. Raises BadInput on a name that timm does not know, where the file is missing or
    unreadable, and where a weight is missing, unknown or of another shape.
    """
    import timm  # takes seconds, and most runs do without

    if name not in timm.list_models():
        raise BadInput(f"timm has no model '{name}': timm.list_models() names those there are")
    weights = _weights(Path(path))
    model = timm.create_model(name, num_classes=0)
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    kept = {key: value for key, value in weights.items() if key.rpartition(".")[0] not in heads}
    try:
        model.load_state_dict(kept)
    except RuntimeError as error:
        first = " ".join(str(error).splitlines()[1:2]).strip()
        raise BadInput(f"{path} does not hold the weights of timm's '{name}': {first}") from None
    return PretrainedBackbone(model, size or model.pretrained_cfg["input_size"][-1]).eval()


def _weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, by name; of a training's checkpoint those under "state_dict" or "model"."""
    if not path.is_file():
        raise BadInput(f"no weights at {path}: give the file of a timm model")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as many kinds as there are ways to be damaged
        raise BadInput(f"{path} cannot be read ({type(error).__name__}): get the file again") from None
    for key in ("state_dict", "model"):
        found = found.get(key, found) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadInput(f"{path} holds no table of weights: save the state_dict of a timm model")
    return found
