"""Frozen features of a model, computed once: the general one, the two branches, the even and odd components."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.data import FaceSet
from pcl_lib.utils import BadInput, spent

# Of an encoder: its own, those of the two branches, and the even and odd components of its own under a flip.
FEATURES = ("general", "face", "pose", "even", "odd")
BATCH = 256  # images that are encoded at a time


class FrozenFeatures(NamedTuple):
    """Frozen features, each float32 [n, D]; controls such as raw pixels have a general feature only.

    even, odd: the components of the general feature under the flip, where `EvenOdd` made them.
    """

    general: Tensor
    face: Tensor | None = None
    pose: Tensor | None = None
    even: Tensor | None = None
    odd: Tensor | None = None


class FeatureModel(Protocol):
    """Anything that gives images features: a `PCL`, raw pixels, hand-crafted descriptors, or one of your own."""

    def features(self, images: Tensor, /) -> Any:
        """uint8 or float in [0, 1], [N, 3, H, W] -> a tuple with `general` [N, D] and what else of `FEATURES` there
        is."""


class EvenOdd(nn.Module):
    """A model, and the even and odd components of its general feature g under the flip: (g(x) ± g(flip of x)) / 2.

    The even component is the same for an image and its flip, the odd component the negative. They need no training:
    they separate what a flip changes from what it keeps in any encoder, and what `pcl_plus` learns is to be compared
    with them.
    """

    def __init__(self, model: FeatureModel) -> None:
        super().__init__()
        self.model = model
        self.general = getattr(model, "general_feature", lambda x: model.features(x).general)

    def features(self, x: Tensor) -> FrozenFeatures:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> the model's own features, even and odd [N, D] each."""
        found, flipped = self.model.features(x), self.general(x.flip(3))
        return FrozenFeatures(
            found.general,
            getattr(found, "face", None),
            getattr(found, "pose", None),
            (found.general + flipped) / 2,
            (found.general - flipped) / 2,
        )


class AsDecoded(nn.Module):
    """A model with the features that its decoder was trained on (`PCL.decoder_features`), not those of clean images."""

    def __init__(self, model: FeatureModel) -> None:
        super().__init__()
        self.model = model
        self.features = getattr(model, "decoder_features", model.features)


class RawPixels:
    """The control without a model: the image itself, small, each standardised to mean 0 and spread 1."""

    def __init__(self, size: int = 24) -> None:
        self.size = size

    def features(self, x: Tensor) -> FrozenFeatures:
        """x: uint8 or float in [0, 1], [N, 3, H, W] -> general [N, 3 * size * size]."""
        small = F.interpolate(x.float(), (self.size, self.size), mode="bilinear", antialias=True).flatten(1)
        centred = small - small.mean(1, keepdim=True)
        return FrozenFeatures(centred / centred.std(1, keepdim=True).clamp_min(1e-6))


@spent("encode")
def extract(model: FeatureModel, faces: FaceSet, rows: np.ndarray | None = None) -> FrozenFeatures:
    """Run the encoder once over images of a set.

    model: a module runs in eval mode where its parameters are, and gets its mode back. rows: row numbers of
    faces.table, all by default, and the order of the result.
    Returns float32 features on the model's device (on the CPU for Apple's mps, which lacks float64).
    Raises BadInput where there are no rows, and where a feature is NaN or infinite, naming it and the rows.
    """
    rows = np.arange(len(faces)) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(rows) == 0:
        raise BadInput("no images to extract features from; give at least one row")
    where, keep_on = device_of(model), feature_device(model)
    parts: dict[str, Tensor] = {}
    with evaluating(model):
        for start in range(0, len(rows), BATCH):
            with torch.inference_mode():
                out = model.features(faces.images(rows[start : start + BATCH]).to(where))
            for name in FEATURES:
                part = getattr(out, name, None)
                if part is None:
                    continue
                if name not in parts:
                    parts[name] = torch.empty(len(rows), part.shape[1], device=keep_on)
                parts[name][start : start + len(part)] = part
    found = FrozenFeatures(**parts)
    check_finite(found, rows)
    return found


def check_finite(features: FrozenFeatures, rows: np.ndarray) -> None:
    """Raise BadInput where a feature is NaN or infinite. rows: the row number of each feature row."""
    for name, x in zip(features._fields, features, strict=True):
        if x is None or bool(torch.isfinite(x.sum())):
            continue
        bad = rows[(~torch.isfinite(x)).any(1).cpu().numpy()]
        if len(bad):
            shown = ", ".join(str(r) for r in bad[:5]) + (", ..." if len(bad) > 5 else "")
            raise BadInput(
                f"the {name} feature is NaN or infinite for {len(bad)} of {len(rows)} images (rows {shown}); "
                "the checkpoint has diverged: train again with a lower learning rate or in 32-true precision"
            )


def device_of(model: object) -> torch.device:
    """Where a model's parameters are; the CPU for what has none."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


def feature_device(model: object) -> torch.device:
    """Where `extract` puts the features of a model: on its device, or on the CPU for Apple's mps."""
    where = device_of(model)
    return torch.device("cpu") if where.type == "mps" else where


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Put a module and its parts in eval mode for a while, then each back in the mode it had."""
    modes = [(m, m.training) for m in model.modules()] if isinstance(model, nn.Module) else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def get_features(
    model: FeatureModel | FrozenFeatures, faces: FaceSet, rows: np.ndarray
) -> tuple[FrozenFeatures, np.ndarray]:
    """Features for at least these rows, and the row number of each: extracted, or taken as given and checked."""
    if not isinstance(model, tuple):
        return extract(model, faces, rows), rows
    given = FrozenFeatures(*model)
    every = np.arange(len(faces))
    for name, x in zip(FEATURES, given, strict=True):
        if x is not None and len(x) != len(faces):
            raise BadInput(f"{len(x)} {name} features for {len(faces)} images; give extract(model, faces)")
    check_finite(given, every)
    return given, every
