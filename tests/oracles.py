"""Naive restatements of METHOD.md, one sentence of it at a time, in float64 and without any code of pcl_lib.

Slow and plain on purpose: loops over samples, whole tensors, no algebra. What takes `w` reads the weights of a
`PCL` by the names in its state dict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as TF
from torch import Tensor

Weights = Mapping[str, Tensor]


# Losses -----------------------------------------------------------------------------------------------------


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())


def orthogonality(face: Tensor, pose: Tensor) -> Tensor:
    """Mean squared entry of the explicit D x P matrix; row norms are numbers, not functions of the input."""

    def rows(x: Tensor) -> Tensor:
        x = x - sum(x) / len(x)  # type: ignore[operator]
        norms = [math.sqrt(sum(v * v for v in row)) + 1e-6 for row in x.tolist()]
        return torch.stack([row / norm for row, norm in zip(x, norms, strict=True)])

    face, pose = rows(face), rows(pose)
    matrix = torch.zeros(face.shape[1], pose.shape[1], dtype=face.dtype)
    for f, p in zip(face, pose, strict=True):
        matrix = matrix + f[:, None] * p[None, :]
    return (matrix**2).mean()


def plain_logits(z: Tensor, temperature: float) -> Tensor:
    n = len(z)
    rows = []
    for i in range(n):
        partner = i + n // 2 if i < n // 2 else i - n // 2
        others = [j for j in range(n) if j not in (i, partner)]
        rows.append(torch.stack([cosine(z[i], z[j]) / temperature for j in [partner, *others]]))
    return torch.stack(rows)


def mirror_logits(z: Tensor, mirrored: Tensor, temperature: float) -> Tensor:
    flips = torch.stack([torch.stack([cosine(one, other) / temperature for other in mirrored]) for one in z])
    return torch.cat([plain_logits(z, temperature), flips], 1)


def mixed(negatives: Tensor, mix: Tensor, permutation: Tensor) -> Tensor:
    """negatives [K, D] -> [K, D]: each mixed with the one at its permuted place, before any normalisation."""
    return torch.stack(
        [a * n + (1 - a) * negatives[k] for a, n, k in zip(mix, negatives, permutation.tolist(), strict=True)]
    )


def face_logits(z: Tensor, temperature: float, mix: Tensor, permutation: Tensor) -> Tensor:
    n = len(z)
    rows = []
    for i in range(n):
        partner = i + n // 2 if i < n // 2 else i - n // 2
        negatives = torch.stack([z[j] for j in range(n) if j not in (i, partner)])
        columns = [z[partner], *mixed(negatives, mix[i], permutation)]
        rows.append(torch.stack([cosine(z[i], column) / temperature for column in columns]))
    return torch.stack(rows)


def pose_logits(z: Tensor, negatives: Tensor, temperature: float, mix: Tensor, permutation: Tensor) -> Tensor:
    batch = len(negatives)
    rows = []
    for i in range(2 * batch):
        image, partner = i % batch, (i + batch) % (2 * batch)
        columns = [z[partner], *mixed(negatives[image], mix[image], permutation)]
        rows.append(torch.stack([cosine(z[i], column) / temperature for column in columns]))
    return torch.stack(rows)


def info_nce(logits: Tensor) -> Tensor:
    """Cross-entropy with target 0."""
    return torch.stack([row.exp().sum().log() - row[0] for row in logits]).mean()


def dynamic_weights(previous: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    powers = {task: math.exp(previous[task] / before[task] / 2) for task in previous}
    return {task: 2 * power / sum(powers.values()) for task, power in powers.items()}


# The network ------------------------------------------------------------------------------------------------


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight = w[f"{name}.weight"]
    return F.conv2d(x, weight, w[f"{name}.bias"], stride=stride, padding=weight.shape[2] // 2)


def act(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 0.1 * x)


def channel_attention(w: Weights, name: str, x: Tensor) -> Tensor:
    out = []
    for sample in x:
        g, theta, phi = (
            conv(w, f"{name}.{part}", sample[None])[0].flatten(1) for part in ("g", "theta", "phi")
        )
        theta = theta.exp() / theta.exp().sum(1, keepdim=True)  # over the places
        g = g.exp() / g.exp().sum(0, keepdim=True)  # over the channels
        out.append(sample + (phi @ theta.T @ g).view_as(sample))
    return act(torch.stack(out))


def encode(w: Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Float images [B, 3, H, W] -> general, face-aware and pose-related feature, flattened, float64."""
    w, x = doubled(w), x.double()
    e = "encoder."
    x = act(conv(w, e + "stem.0.0", x, 2))
    x = act(conv(w, e + "stem.1.0", x))
    for stage, stride in (("layer1", 1), ("layer2_1", 2)):
        x = act(conv(w, f"{e}{stage}.0.0", x, stride))
        x = channel_attention(w, f"{e}{stage}.1", x)
        x = act(conv(w, f"{e}{stage}.2.0", x))
    for block in ("residual1", "residual2"):
        x = act(x + conv(w, f"{e}{block}.second.0", act(conv(w, f"{e}{block}.first.0", x))))
    for stage in ("layer2_2", "layer3_1"):
        x = act(conv(w, f"{e}{stage}.0.0", x, 2))
        x = act(conv(w, f"{e}{stage}.1.0", x))
    branches = [
        act(conv(w, f"{e}{branch}.1.0", act(conv(w, f"{e}{branch}.0.0", x))))
        for branch in ("face_branch", "pose_branch")
    ]
    general, face, pose = (part.flatten(1) for part in (x, *branches))
    return general, face, pose


def doubled(w: Weights) -> Weights:
    return {name: value.double() for name, value in w.items()}


def batch_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    """In eval mode, of [N, C, ...]."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance, weight, bias = (
        w[f"{name}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def decode(w: Weights, face: Tensor, pose: Tensor) -> Tensor:
    """Images of 64 pixels from 1 x 1 in six doublings."""
    w = doubled(w)
    x = face.double() + pose.double()
    x = x / x.norm(dim=1, keepdim=True)
    x = (x @ w["decoder.fc.weight"].T + w["decoder.fc.bias"])[:, :, None, None]
    for stage in range(6):
        x = F.interpolate(x.clamp_min(0), scale_factor=2, mode="bilinear", align_corners=False)
        x = conv(w, f"decoder.convolutions.{stage}", x)
        if stage < 5:
            x = batch_norm(w, f"decoder.norms.{stage}", x)
    return torch.tanh(x)


def project(w: Weights, name: str, x: Tensor) -> Tensor:
    w = doubled(w)
    x = (x.double() @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"]).clamp_min(0)
    x = x @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]
    return batch_norm(w, f"{name}.3", x)


def pdd(w: Weights, clean: Tensor, noise: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """notebooks/method.md, section 3 for images s and their flips f, with the noise of each on the encoder's input."""
    s = clean.double()
    f = torch.stack([torch.stack([channel.flip(1) for channel in image]) for image in s])
    _, face_s, pose_s = encode(w, s + noise[0])
    _, face_f, pose_f = encode(w, f + noise[1])
    four = ((face_s, pose_s, s), (face_f, pose_f, f), (face_f, pose_s, s), (face_s, pose_f, f))
    reconstruction = sum((decode(w, face, pose) - target).abs().mean() for face, pose, target in four)
    orthogonal = orthogonality(face_s, pose_s) + orthogonality(face_f, pose_f)
    assert isinstance(reconstruction, Tensor)
    return {
        "reconstruction": reconstruction,
        "orthogonality": orthogonal,
        "pdd": reconstruction + orthogonal,
    }


# Views ------------------------------------------------------------------------------------------------------


def gradient_magnitude(x: Tensor) -> Tensor:
    """Central differences on luma, edges repeated, at most 1."""
    grey = (0.2989 * x[0] + 0.587 * x[1] + 0.114 * x[2]).double().numpy()
    padded = np.pad(grey, 1, mode="edge")
    dx, dy = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    length = np.minimum(np.sqrt(dx**2 + dy**2), 1)
    return torch.from_numpy(length).float().expand(3, -1, -1)


COLOUR: tuple[Callable[[Tensor, float], Tensor], ...] = (
    TF.adjust_brightness,
    TF.adjust_contrast,
    TF.adjust_saturation,
    TF.adjust_hue,
)


def view(image: Tensor, row: Mapping[str, Any], out_size: int) -> Tensor:
    """One view of one float image [3, S, S] by torchvision, from the random numbers of its row of a draw."""
    box = [int(row[name]) for name in ("top", "left", "height", "width")]
    x = TF.resized_crop(image, *box, [out_size, out_size], antialias=True)
    if row["flip"]:
        x = TF.hflip(x)
    if row["jitter"]:
        for kind in row["order"].tolist():
            x = COLOUR[kind](x, float(row["factors"][kind]))
    if row["grey"]:
        x = TF.rgb_to_grayscale(x, 3)
    if row["blur"]:
        kernel = 2 * round(3 * out_size / 64) + 1  # 7 at 64 pixels
        x = TF.gaussian_blur(x, [kernel, kernel], [float(row["sigma"])] * 2)
    if row["gradient"]:
        x = gradient_magnitude(x)
    return x
