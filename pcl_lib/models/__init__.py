"""Encoder, decoder, PCL and their checkpoints."""

from pcl_lib.models.checkpoint import checkpoint_notes, load_checkpoint, save_checkpoint
from pcl_lib.models.pcl import PCL, Features
from pcl_lib.models.released import load_released, save_released

__all__ = [
    "PCL",
    "Features",
    "checkpoint_notes",
    "load_checkpoint",
    "load_released",
    "save_checkpoint",
    "save_released",
]
