"""When a batch does not fit in memory: which part of it does, tried out, and which presets are no larger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pcl_lib.presets import PRESETS, Preset


def is_full(error: RuntimeError) -> bool:
    """Whether an error of PyTorch means that a GPU or the main memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def largest(batch: Any, attempt: Callable[[Any], object]) -> int:
    """The largest of a half, a quarter, ... of the rows that `attempt` can compute; 0 if two are too many.

    batch: a tensor, or what else a task takes: it has a length and gives its first rows as `batch[:size]`.
    """
    size = len(batch) // 2
    while size >= 2:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            attempt(batch[:size])
            return size
        except RuntimeError as error:
            if not is_full(error):
                raise
        size //= 2
    return 0


def smaller(preset: Preset, batch: int) -> list[str]:
    """Names of the presets with no wider network, no larger images and no larger batch than these."""
    return [name for name, other in PRESETS.items() if within(other, preset, batch)]


def within(preset: Preset, other: Preset, batch: int) -> bool:
    """Whether a preset's network and images are no larger than another's, and no batch of it than `batch`."""
    train, model = preset.train, preset.model
    largest_batch = max(train.pdd_batch, train.face_batch, train.pose_batch)
    return (
        largest_batch <= batch
        and model.width <= other.model.width
        and model.image_size <= other.model.image_size
    )
