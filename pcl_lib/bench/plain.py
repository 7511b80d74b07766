"""The straightforward forms that `pcl_lib.bench` measures against; nothing else may use them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF  # type: ignore[import-untyped]
from PIL import Image, ImageFilter
from torch import Tensor

from pcl_lib import losses
from pcl_lib.augment import Draw
from pcl_lib.models import PCL
from pcl_lib.presets import ModelPreset


class PlainPCL(PCL):
    """The network in the default memory format."""

    def __init__(self, config: ModelPreset, seed: int = 0) -> None:
        super().__init__(config, seed)
        self.memory_format = torch.contiguous_format
        self.to(memory_format=self.memory_format)


def pil_view(image: Image.Image, view: Draw, row: int, out_size: int, own_blur: bool = False) -> Tensor:
    """One view as loaders make it: torchvision on PIL images, one by one, then a tensor [3, out_size, out_size].

    own_blur: PIL's blur instead of torchvision's, which goes through a tensor.
    """
    box = [int(part[row]) for part in (view.top, view.left, view.height, view.width)]
    image = TF.resized_crop(image, *box, [out_size, out_size])
    if view.flip[row]:
        image = TF.hflip(image)
    if view.jitter[row]:
        colour = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
        for kind in view.order[row].tolist():
            image = colour[kind](image, float(view.factors[row, kind]))
    if view.grey[row]:
        image = TF.to_grayscale(image, 3)
    if view.blur[row]:
        sigma = float(view.sigma[row])
        fast = ImageFilter.GaussianBlur(sigma)  # three box blurs that come near a Gaussian
        image = image.filter(fast) if own_blur else TF.gaussian_blur(image, [7, 7], [sigma, sigma])
    if view.gradient[row]:
        padded = np.pad(np.asarray(image.convert("L"), dtype=np.float32), 1, mode="edge")
        dx, dy = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
        grey = Image.fromarray(np.hypot(dx, dy).clip(0, 255).astype(np.uint8))
        image = Image.merge("RGB", (grey, grey, grey))
    return TF.to_tensor(image)


def tensor_face_logits(z: Tensor, temperature: float, mix: Tensor, permutation: Tensor) -> Tensor:
    """Mixed negatives as one [2B, 2B-2, D] tensor, as released code has it: what `losses.face_logits` saves."""
    n = len(z)
    negatives = z[losses.negative_index(n, z.device)]
    mixed = mix[..., None] * negatives + (1 - mix[..., None]) * negatives[:, permutation]
    unit = F.normalize(z, dim=1)
    positives = (unit * unit.roll(n // 2, 0)).sum(1, keepdim=True)
    dots = torch.einsum("nd,nkd->nk", unit, F.normalize(mixed, dim=2))
    return torch.cat([positives, dots], 1) / temperature


def tensor_pose_logits(
    z: Tensor, negatives: Tensor, temperature: float, mix: Tensor, permutation: Tensor
) -> Tensor:
    """Mixed negatives repeated for both views of an image, [2B, K, D]."""
    mixed = mix[..., None] * negatives + (1 - mix[..., None]) * negatives[:, permutation]
    unit = F.normalize(z, dim=1)
    positives = (unit * unit.roll(len(z) // 2, 0)).sum(1, keepdim=True)
    dots = (unit[:, None] * F.normalize(mixed, dim=2).repeat(2, 1, 1)).sum(2)
    return torch.cat([positives, dots], 1) / temperature


def tensor_orthogonality(face: Tensor, pose: Tensor) -> Tensor:
    """By the whole matrix face^T pose, [D, D]."""
    face, pose = face - face.mean(0), pose - pose.mean(0)
    face, pose = (x / (x.norm(dim=1, keepdim=True).detach() + 1e-6) for x in (face, pose))
    return (face.T @ pose).square().mean()
