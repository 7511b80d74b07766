"""What a method is: a few tasks, each with its own batch and loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pcl_lib import augment, ranks
from pcl_lib.models import PCL
from pcl_lib.presets import Preset, ViewPreset, override

TaskLoss = Callable[[PCL, Tensor, torch.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Task:
    """One optimiser step of an iteration.

    batch: images it takes; loss: (model, uint8 images [batch, 3, S, S], generator) -> scalars by name;
    the one under the task's own name is minimised, the others are only logged.
    """

    name: str
    batch: int
    loss: TaskLoss


class Method:
    """Base of all methods; by itself it trains nothing (method "random").

    preset: the run's settings with the method's own `changes`; the model is built from it.
    """

    features: tuple[str, ...] = ("general", "face", "pose")  # what it gives a meaning to
    changes: Mapping[str, Any] = MappingProxyType({})  # settings in which it differs, by dotted key

    def __init__(self, preset: Preset) -> None:
        self.preset = override(preset, self.changes)
        self.tasks: tuple[Task, ...] = ()
        self.weights: dict[str, float] = {}

    def end_epoch(self, means: list[dict[str, float]]) -> None:
        """Told the mean losses of all epochs so far, by name, before the next one begins."""


def views(images: Tensor, preset: ViewPreset, generator: torch.Generator, copies: int) -> Tensor:
    """`augment.views` of this rank's block of the batch, drawn for the whole batch on every rank."""
    return augment.views(images, preset, generator, copies, (ranks.rank(), ranks.world()))


def accuracy(logits: Tensor) -> Tensor:
    """Share of rows whose positive has the largest logit."""
    return (logits.detach().argmax(1) == 0).float().mean()
