"""What a method is: a few tasks, each with its own batch and loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcl_lib import augment, distributed
from pcl_lib.data import FaceSet, ImageSource
from pcl_lib.models import PCL
from pcl_lib.presets import Preset, ViewPreset, override

TaskLoss = Callable[[PCL, Any, torch.Generator], dict[str, Tensor]]
Take = Callable[[ImageSource, np.ndarray, np.random.Generator], Any]


def take_images(source: ImageSource, rows: np.ndarray, _: np.random.Generator) -> Tensor:
    """The images of these rows, uint8 [len(rows), 3, S, S]: what most tasks need."""
    return source.take(rows)


@dataclass(frozen=True)
class Task:
    """One optimiser step of an iteration.

    batch: rows it takes; loss: (model, uint8 images [batch, 3, S, S], generator) -> scalars by name;
    the one under the task's own name is minimised, the others are only logged. take: (source, rows, random numbers)
    -> what the loss gets in place of images, where it needs labels or further images as well. frames: images that
    `take` makes of a row, as the log counts them.
    """

    name: str
    batch: int
    loss: TaskLoss
    take: Take = take_images
    frames: int = 1


class Method:
    """Base of all methods; by itself it trains nothing (method "random").

    preset: the run's settings with the method's own `changes`; the model is built from it.
    """

    features: tuple[str, ...] = ("general", "face", "pose")  # what it gives a meaning to
    one_process = False  # whether several, which share a batch, cannot train it as one would
    changes: Mapping[str, Any] = MappingProxyType({})  # settings in which it differs, by dotted key

    def __init__(self, preset: Preset) -> None:
        self.preset = override(preset, self.changes)
        self.tasks: tuple[Task, ...] = ()
        self.weights: dict[str, float] = {}

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:  # noqa: ARG002
        """The auxiliary modules of the method; they are trained, saved and resumed with the model. None by default.

        Called once, with the model as it starts, the faces to train on, and the run's seed set. Parameters that no
        gradient should reach have requires_grad False.
        """
        return nn.Module()

    def on_step_end(self, model: PCL) -> None:
        """Told after each optimiser step, for averages of weights."""

    def on_epoch_end(self, means: list[dict[str, float]]) -> None:
        """Told the mean losses of all epochs so far, by name, before the next one begins."""


@contextmanager
def held(module: nn.Module) -> Iterator[None]:
    """What is computed in here passes gradients through the module, and none to its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def views(images: Tensor, preset: ViewPreset, generator: torch.Generator, copies: int) -> Tensor:
    """`augment.views` of this rank's block of the batch, drawn for the whole batch on every rank."""
    return augment.views(images, preset, generator, copies, (distributed.rank(), distributed.world()))


class SingleTaskMethod(Method):
    """Base of the methods of one task that train the general feature alone.

    Its batch is the sum of PCL's three, so that both see the same number of images in an iteration; where it takes
    several `frames` of each identity, so many times fewer identities.
    """

    features: tuple[str, ...] = ("general",)
    name = ""
    frames = 1

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train = self.preset.train
        batch = train.pdd_batch + train.face_batch + train.pose_batch
        self.tasks = (Task(self.name, batch // self.frames, self.loss, self.take, self.frames),)
        self.weights = {self.name: 1.0}

    def take(self, source: ImageSource, rows: np.ndarray, rng: np.random.Generator) -> Any:
        """What `loss` gets for a batch of rows."""
        return take_images(source, rows, rng)

    def loss(self, model: PCL, images: Any, generator: torch.Generator) -> dict[str, Tensor]:
        """As `Task.loss`."""
        raise NotImplementedError


def accuracy(logits: Tensor) -> Tensor:
    """Share of rows whose positive has the largest logit."""
    return (logits.detach().argmax(1) == 0).float().mean()
