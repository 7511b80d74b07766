"""Weights on disk: safetensors with the model's settings in the header, written atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from pcl_lib.models.pcl import PCL
from pcl_lib.presets import ModelPreset, from_dict, to_dict
from pcl_lib.utils import BadInput, write_whole


def save_checkpoint(model: PCL, path: Path | str, notes: Mapping[str, object] = MappingProxyType({})) -> None:
    """Write the weights of `model` to `path` (.safetensors), with its settings and `notes` in the header.

    Raises BadInput where the folder cannot be written or the disk is full; a file there before stays.
    """
    header = {
        "model": json.dumps(to_dict(model.config)),
        "decoder_noise": json.dumps(model.decoder_noise),
        "notes": json.dumps(dict(notes)),
    }
    weights: dict[str, Tensor] = {k: v.contiguous().cpu() for k, v in model.state_dict().items()}
    write_whole(Path(path), safetensors.torch.save(weights, metadata=header))


def load_checkpoint(path: Path | str, device: str = "cpu") -> PCL:
    """A `PCL` in eval mode from a file of `save_checkpoint`.

    Raises BadInput where the file is missing, incomplete, not the kit's, or does not fit its own settings.
    """
    config, noise, _ = _header(Path(path))
    own = from_dict(ModelPreset, config, "model.")
    _check_size(own, Path(path))
    model = PCL(own)
    model.decoder_noise = noise
    load_weights(model, safetensors.torch.load_file(path, device=device), str(path))
    return model.to(device).eval()


def _check_size(config: ModelPreset, path: Path) -> None:
    """Refuse settings of a model that is larger than the file's weights, before it is built and fills the memory."""
    with safetensors.safe_open(path, "pt") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in PCL(config).state_dict().items()}
    for key, shape in wanted.items():
        if key not in found:
            raise BadInput(f"{path} lacks {key}: it is of another model")
        if found[key] != shape:
            raise BadInput(f"{path}: {key} has shape {found[key]}, the model needs {shape}")


def checkpoint_notes(path: Path | str) -> dict[str, str | int | float]:
    """What `save_checkpoint` was told about the weights at `path`: method, preset, seed, data, ...

    Raises BadInput where the file is missing, incomplete or not the kit's.
    """
    return _header(Path(path))[2]


def _header(path: Path) -> tuple[dict[str, Any], float, dict[str, Any]]:
    """Model settings, `PCL.decoder_noise` and notes of a checkpoint, once it is known to be whole."""
    if not path.is_file():
        raise BadInput(f"no checkpoint at {path}: train one with python -m pcl_lib.pretrain")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        if is_torch_file(path):
            raise BadInput(
                f"{path} was saved by PyTorch, not by this kit: if it is a checkpoint of the authors' released code, "
                "use pcl_lib.models.load_released"
            ) from None
        raise BadInput(
            f"{path} is not a readable safetensors file ({error}): delete it and train again"
        ) from None
    try:
        config, notes = json.loads(header.get("model", "")), json.loads(header.get("notes", ""))
        noise = float(header.get("decoder_noise", 0))  # older checkpoints do not say
    except (ValueError, RecursionError):
        config, noise, notes = None, 0.0, None
    if not isinstance(config, dict) or not isinstance(notes, dict) or not 0 <= noise < math.inf:
        raise BadInput(f"{path} was not written by this kit: its header holds no model settings")
    return config, noise, notes


def is_torch_file(path: Path) -> bool:
    """Whether a file starts as those of torch.save do: a zip, or the pickle of versions before 1.6."""
    with open(path, "rb") as file:
        return file.read(4).startswith((b"PK\3\4", b"\x80\x02"))


def load_weights(model: PCL, weights: dict[str, Tensor], where: str) -> None:
    """Load weights strictly. Raises BadInput naming the first key that is missing, extra or of another shape."""
    own = model.state_dict()
    for kind, keys in (
        ("lacks", own.keys() - weights.keys()),
        ("has the unknown key", weights.keys() - own.keys()),
    ):
        if keys:
            raise BadInput(f"{where} {kind} {sorted(keys)[0]} ({len(keys)} in all): it is of another model")
    for key, value in own.items():
        if weights[key].shape != value.shape:
            raise BadInput(
                f"{where}: {key} has shape {tuple(weights[key].shape)}, the model needs {tuple(value.shape)}"
            )
    model.load_state_dict(weights)
