"""The memory format of a training: measured once, remembered, and kept to the end of the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images

from pcl_lib import data, pretrain
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS, ModelPreset, override
from pcl_lib.pretrain import formats

SMALL = ModelPreset(width=0.125, image_size=16, projector_hidden=8, projector_out=8, norm="group")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pcl-kit" / "formats.json"


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [
        ({"contiguous": 1.0, "channels last": 0.5}, "channels last"),
        ({"contiguous": 1.0, "channels last": 0.97}, "contiguous"),  # too little to be more than noise
        ({"contiguous": 0.5, "channels last": 1.0}, "contiguous"),
    ],
)
def test_the_faster_format_is_taken_if_clearly_faster(seconds: dict[str, float], wanted: str) -> None:
    assert formats.fastest("contiguous", lambda name: seconds[name]) == wanted


def test_measuring_ends_in_time_with_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100))
    monkeypatch.setattr(formats.time, "perf_counter", lambda: float(next(now)))
    calls: list[str] = []
    assert formats.fastest("contiguous", lambda name: calls.append(name) or 0.1) == "contiguous"
    assert len(calls) <= 2


def test_a_choice_is_remembered_for_its_settings(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(formats, "fastest", lambda first, _: calls.append(first) or "channels last")
    for _ in range(2):
        assert formats.choose_format(SMALL, CPU, torch.float32) == "channels last"
    assert len(calls) == 1
    formats.choose_format(SMALL, CPU, torch.bfloat16)
    assert len(calls) == 2
    own_cache.write_text("{torn")
    formats.choose_format(SMALL, CPU, torch.float32)
    assert len(calls) == 3


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert formats.choose_format(SMALL, CPU, torch.float32) in formats.FORMATS
    assert "not remembered" in capsys.readouterr().out


def test_both_formats_give_the_same_features_and_gradients() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for kind in formats.FORMATS.values():
        model = PCL(SMALL)
        model.use_format(kind)
        features = model.features(images)
        sum(x.square().mean() for x in features).backward()
        found.append([*features, *(p.grad for p in model.encoder.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_training_that_goes_on_keeps_its_format_and_its_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed where another format would be chosen, it ends in the very weights of the uninterrupted one."""
    table = pd.DataFrame({"identity": np.arange(96) // 4, "split": "train"})
    data.write_prepared(
        tmp_path / "set", blob_images(96, 16), table, name="blobs", source="drawn by the tests"
    )
    faces = data.PreparedFaces(tmp_path / "set")
    changes = {"model.image_size": 16, "model.norm": "group", "train.epochs": 2, "train.checkpoint_every": 1}
    preset = override(PRESETS["smoke"], changes)
    monkeypatch.setattr(formats, "WORTH", 1)
    monkeypatch.setattr(formats, "choose_format", lambda *_: "channels last")
    whole = pretrain.fit("pcl", preset=preset, faces=faces, out=tmp_path / "whole", progress=False)
    part = {"preset": preset, "faces": faces, "out": tmp_path / "part", "progress": False}
    pretrain.fit("pcl", **part, callback=lambda *_: True)
    monkeypatch.setattr(formats, "choose_format", lambda *_: "contiguous")
    again = pretrain.fit("pcl", **part)
    assert whole.model.memory_format == again.model.memory_format == torch.channels_last
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
