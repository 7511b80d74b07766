"""Checkpoints of the authors' released code: the same 105 tensors in another layout (notebooks/method.md, 9)."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcl_lib.models.pcl import PCL
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput, write_whole

PREFIX = "module."  # the released code trains under DataParallel
NOISE = 0.4  # what the released code trains its decoder with (notebooks/method.md, section 3)
ENCODER = {  # released name -> ours, both below "encoder."
    "conv1.0": "stem.0.0",
    "conv1.2": "stem.1.0",
    **{f"{layer}.0": f"{layer}.0.0" for layer in ("layer1", "layer2_1")},
    **{f"{layer}.2.{part}": f"{layer}.1.{part}" for layer in ("layer1", "layer2_1") for part in ("g", "theta", "phi")},
    **{f"{layer}.3": f"{layer}.2.0" for layer in ("layer1", "layer2_1")},
    **{f"resblock{n}.conv1": f"residual{n}.first.0" for n in (1, 2)},
    **{f"resblock{n}.conv2": f"residual{n}.second.0" for n in (1, 2)},
    **{f"{layer}.{place}": f"{layer}.{place // 2}.0" for layer in ("layer2_2", "layer3_1") for place in (0, 2)},
    **{f"layer3_2_exp.{place}": f"face_branch.{place // 2}.0" for place in (0, 2)},
    **{f"layer3_2_pose.{place}": f"pose_branch.{place // 2}.0" for place in (0, 2)},
}  # fmt: skip
PROJECTORS = {"exp_fc": "face_projector", "pose_fc": "pose_projector"}
TRAINED = ("weight", "bias")
NORM = (*TRAINED, "running_mean", "running_var", "num_batches_tracked")


def load_released(path: Path | str) -> PCL:
    """A `PCL` of the paper's size, in eval mode, from a checkpoint of the released code.

    Keys and shapes must all fit (notebooks/method.md, section 9). The file is read by PyTorch's weights-only loader,
    which runs no code that a pickle may hold. Raises BadInput where the file is missing, not such a checkpoint,
    holds NaN or infinite weights, or has missing, unknown or misshapen entries, naming them.
    """
    path = Path(path)
    weights = _state_dict(path)
    names = dict(_names())
    for what, keys in (
        ("lacks", names.keys() - weights.keys()),
        ("also has", weights.keys() - names.keys()),
    ):
        _refuse(path, what, sorted(keys))
    model = PCL(ModelPreset())
    model.decoder_noise = NOISE
    own = model.state_dict()
    other = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[ours].shape)}"
        for key, ours in names.items()
        if weights[key].shape != own[ours].shape
    ]
    _refuse(path, "holds in another shape", other)
    bad = [key for key in names if not torch.isfinite(weights[key]).all()]
    _refuse(path, "holds NaN or infinite values in", bad)
    model.load_state_dict({ours: weights[key] for key, ours in names.items()})
    return model.eval()


def _refuse(path: Path, what: str, entries: list[str]) -> None:
    if entries:
        raise BadInput(
            f"{path} {what} {len(entries)} entries ({', '.join(entries)}): it is not of the paper's network"
        )


def save_released(model: PCL, path: Path | str, epoch: int = 0) -> None:
    """Write `model` as the released code does: {"epoch", "state_dict"}, on the CPU, atomically.

    Raises BadInput where the model is not of the paper's size, naming the settings that differ, and where `path`
    cannot be written.
    """
    paper = ModelPreset()
    differ = [
        f"{field.name} is {getattr(model.config, field.name)!r}, not {getattr(paper, field.name)!r}"
        for field in fields(ModelPreset)
        if getattr(model.config, field.name) != getattr(paper, field.name)
    ]
    if differ:
        raise BadInput(
            f"the released code has no place for this model ({'; '.join(differ)}): use preset 'paper'"
        )
    weights = model.state_dict()
    state = {key: weights[ours].detach().cpu().contiguous() for key, ours in _names()}
    content = io.BytesIO()
    torch.save({"epoch": epoch, "state_dict": state}, content)
    write_whole(Path(path), content.getbuffer())


def _names() -> Iterator[tuple[str, str]]:
    """Each key of a released checkpoint and ours for it."""
    for released, ours in _layers():
        for part in NORM if ours.startswith("decoder.norms") or ours.endswith("projector.3") else TRAINED:
            yield f"{PREFIX}{released}.{part}", f"{ours}.{part}"


def _layers() -> Iterator[tuple[str, str]]:
    yield from ((f"encoder.{released}", f"encoder.{ours}") for released, ours in ENCODER.items())
    for released, ours in PROJECTORS.items():
        yield from ((f"{released}.{place}", f"{ours}.{place}") for place in (0, 2, 3))
    yield "decoder.fc", "decoder.fc"
    for stage in range(6):  # ReLU, up-sampling, convolution, batch norm (but after the last)
        yield f"decoder.model.{4 * stage + 2}", f"decoder.convolutions.{stage}"
        if stage < 5:
            yield f"decoder.model.{4 * stage + 3}", f"decoder.norms.{stage}"


def _state_dict(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise BadInput(f"no checkpoint at {path}: give the file that the released code saved")
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the loader raises many kinds
        raise BadInput(
            f"{path} cannot be read as weights alone ({type(error).__name__}): it is incomplete, or it would run code"
        ) from None
    weights = found.get("state_dict") if isinstance(found, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise BadInput(f"{path} holds no 'state_dict' of tensors: it was not saved by the released code")
    return weights
