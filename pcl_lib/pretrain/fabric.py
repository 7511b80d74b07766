"""Lightning Fabric on the best device there is: processes, precision, and what its errors mean."""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING

import torch

from pcl_lib.presets import Preset
from pcl_lib.utils import BadInput, has_fast_bf16

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def fabric_class() -> type[Fabric]:
    """Lightning Fabric, from the package lightning-fabric or from lightning, which holds it too.

    Imported only where something is trained: it takes a second or two. Raises BadInput where neither is installed.
    """
    for package in ("lightning_fabric", "lightning.fabric"):
        try:
            found: type[Fabric] = importlib.import_module(package).Fabric
            return found
        except ModuleNotFoundError as error:
            if error.name not in (package, package.partition(".")[0]):
                raise
    raise BadInput("training needs Lightning Fabric: install lightning-fabric, or lightning, which holds it")


def start_fabric(preset: Preset, devices: int = 1) -> Fabric:
    """A Fabric on the best device there is, with the preset's precision; the progress bar of `fit` names both."""
    kind = fabric_class()
    # Its notes look like errors in a notebook.
    logging.getLogger(kind.__module__.removesuffix(".fabric")).setLevel(logging.WARNING)
    check_devices(preset, devices)
    precision = preset.train.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_fast_bf16() else "32-true"
    nodes = 1
    if "TORCHELASTIC_RUN_ID" in os.environ:  # started by torchrun, which knows how many
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    fabric = kind(
        accelerator="auto",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def check_devices(preset: Preset, devices: int) -> None:
    """Raises BadInput where a preset's batches cannot be shared by so many processes, or GPUs are too few."""
    train = preset.train
    most = min(train.pdd_batch, train.face_batch, train.pose_batch)
    if not 1 <= devices <= most:
        raise BadInput(
            f"--devices is {devices}: it must be from 1 to {most}, the smallest batch of the preset"
        )
    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise BadInput(f"--devices is {devices}, and this machine has {torch.cuda.device_count()} GPUs")


def is_full(error: RuntimeError) -> bool:
    """Whether an error of PyTorch means that a GPU or the main memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
