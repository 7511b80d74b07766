"""pcl_lib.models against a plain functional network in float64, and its checkpoints against damage."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracles
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from pcl_lib.models import PCL, checkpoint_notes, load_checkpoint, save_checkpoint
from pcl_lib.presets import PRESETS, ModelPreset
from pcl_lib.utils import BadInput

PAPER = PRESETS["paper"].model
TINY = ModelPreset(width=0.125, image_size=32, projector_hidden=16, projector_out=8)


def lively(config: ModelPreset, seed: int = 0) -> PCL:
    """A model in eval mode whose biases and batch norms are not at their start, where they would hide faults."""
    model = PCL(config, seed).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    for name, value in model.state_dict().items():
        if name.endswith(("bias", "running_mean")):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return model


def images(n: int, *size: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, size[0], size[-1], generator=torch.Generator().manual_seed(seed))


def assert_relatively_close(ours: Tensor, oracle: Tensor, error: float = 1e-5) -> None:
    assert ours.shape == oracle.shape
    assert (ours - oracle).norm() / oracle.norm() < error


@pytest.fixture(scope="module")
def paper() -> PCL:
    return lively(PAPER)


@pytest.mark.parametrize("size", [(64,), (100,), (48, 80)])
def test_paper_size_encoder_equals_the_oracle(paper: PCL, size: tuple[int, ...]) -> None:
    x = images(2, *size)
    with torch.no_grad():
        ours, oracle = paper.features(x), oracles.encode(paper.state_dict(), x)
    for one, two in zip(ours, oracle, strict=True):
        assert_relatively_close(one, two)


def test_paper_size_decoder_and_projectors_equal_the_oracle(paper: PCL) -> None:
    face, pose = torch.randn(2, 3, 2048, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert_relatively_close(paper.decode(face, pose), oracles.decode(paper.state_dict(), face, pose))
        for name, module in (
            ("face_projector", paper.face_projector),
            ("pose_projector", paper.pose_projector),
        ):
            assert_relatively_close(module(face), oracles.project(paper.state_dict(), name, face))


def test_sizes_of_the_paper(paper: PCL) -> None:
    values = paper.state_dict()
    assert len(values) == 105
    assert sum(value.numel() for value in values.values()) == pytest.approx(17.3e6, rel=0.005)
    with torch.no_grad():
        for size, wanted in ((64, 2048), (100, 6272), (256, 32768)):
            assert [part.shape for part in paper.features(images(1, size))] == [(1, wanted)] * 3


@pytest.mark.parametrize(("width", "channels"), [(0.125, 16), (0.25, 32), (0.5, 64), (2.0, 256)])
def test_width_scales_every_feature(width: float, channels: int) -> None:
    model = PCL(ModelPreset(width=width, projector_hidden=8, projector_out=4))
    with torch.no_grad():
        features = model.features(images(1, 64))
    assert [part.shape for part in features] == [(1, channels * 16)] * 3
    first = model.encoder.stem[0][0]
    assert isinstance(first, nn.Conv2d) and first.out_channels == channels // 2


@pytest.mark.parametrize("size", [16, 32, 48, 64, 100])
def test_decoded_images_have_the_trained_size(size: int) -> None:
    model = PCL(replace(TINY, image_size=size)).eval()
    with torch.no_grad():
        out = model.features(images(2, size))
        assert model.decode(out.face, out.pose).shape == (2, 3, size, size)
        assert model.face_projector(out.face).shape == model.pose_projector(out.pose).shape == (2, 8)
    assert model.image_size == size


def test_decoder_sees_only_the_direction_of_the_sum() -> None:
    model = lively(TINY)
    face, pose = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, swapped, longer = (
            model.decode(face, pose),
            model.decode(pose, face),
            model.decode(9 * face, 9 * pose),
        )
    torch.testing.assert_close(one, swapped)
    torch.testing.assert_close(one, longer)
    assert one.abs().max() <= 1


def test_a_settled_model_draws_in_eval_mode_what_the_batch_gives_in_train_mode() -> None:
    model, x = lively(TINY), images(16, 32)
    model.decoder_noise = 0.1
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settled = model.train().recalibrated(x)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training and not any(part.training for part in settled.modules())
    momentum = nn.BatchNorm2d(1).momentum
    assert all(norm.momentum == momentum for norm in settled.decoder.norms)
    with torch.no_grad():
        features = model.decoder_features(x)
        by_batch, ours = (m.decode(features.face, features.pose) for m in (model, settled))
        old = PCL(TINY).eval()
        old.load_state_dict(before)
        lagging = old.decode(features.face, features.pose)
    assert (ours - by_batch).abs().mean() < 0.1 * (
        lagging - by_batch
    ).abs().mean()  # n - 1 beside n in the variance


def test_narrow_pose_feature() -> None:
    narrow = PCL(replace(TINY, pose_dim=5)).eval()
    with torch.no_grad():
        out = narrow.features(images(3, 32))
        assert out.pose.shape == (3, 5) and out.face.shape == (3, 64)
        assert narrow.decode(out.face, out.pose).shape == (3, 3, 32, 32)
        assert narrow.pose_projector(out.pose).shape == (3, 8)


@pytest.mark.parametrize(("norm", "kind"), [("group", nn.GroupNorm), ("batch", nn.BatchNorm2d)])
def test_normalisation_follows_every_convolution_of_the_encoder(norm: str, kind: type[nn.Module]) -> None:
    plain, normed = PCL(TINY).encoder, PCL(replace(TINY, norm=norm)).encoder
    assert not any(isinstance(part, nn.GroupNorm | nn.BatchNorm2d) for part in plain.modules())
    wide = [part for part in normed.modules() if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1)]
    assert sum(isinstance(part, kind) for part in normed.modules()) == len(wide) == 18
    with torch.no_grad():
        general = normed(images(4, 32))[0]
    assert general.isfinite().all()
    with pytest.raises(BadInput, match=r"unknown model.norm 'layer'"):
        PCL(replace(TINY, norm="layer"))


def test_single_features_are_those_of_all() -> None:
    for config in (TINY, replace(TINY, pose_dim=5)):
        model, x = lively(config), images(3, 32)
        with torch.no_grad():
            whole = model.features(x)
            parts = (model.general_feature(x), model.face_feature(x), model.pose_feature(x))
        for one, two in zip(whole, parts, strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("pose_dim", [0, 5])
def test_parity_parts_the_branches_into_what_a_flip_leaves_and_turns_over(pose_dim: int) -> None:
    plain = lively(replace(TINY, pose_dim=pose_dim))
    model = PCL(replace(TINY, pose_dim=pose_dim, even_odd=True)).eval()
    model.load_state_dict(plain.state_dict())
    x = images(3, 32)
    with torch.no_grad():
        of_image, of_flip = plain.features(x), plain.features(x.flip(3))
        ours, flipped = model.features(x), model.features(x.flip(3))
        stacked = model.mirror_features(torch.cat([x, x.flip(3)]))
    torch.testing.assert_close(ours.general, of_image.general)
    torch.testing.assert_close(ours.face, (of_image.face + of_flip.face) / 2)
    torch.testing.assert_close(ours.pose, (of_image.pose - of_flip.pose) / 2)
    torch.testing.assert_close(flipped.face, ours.face)
    torch.testing.assert_close(flipped.pose, -ours.pose)
    assert ours.pose.abs().mean() > 1e-3  # not the zero that a symmetric network would give
    for both, one, other in zip(stacked, ours, flipped, strict=True):
        torch.testing.assert_close(both, torch.cat([one, other]))
    with torch.no_grad():
        torch.testing.assert_close(model.face_feature(x), ours.face)
        torch.testing.assert_close(model.pose_feature(x), ours.pose)


def test_without_parity_mirrored_features_are_those_of_each_image() -> None:
    model, x = lively(TINY), images(4, 32)
    with torch.no_grad():
        for one, two in zip(model.mirror_features(x), model.features(x), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize("even_odd", [False, True])
def test_the_decoder_is_given_features_of_images_with_its_noise(
    even_odd: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = lively(replace(TINY, even_odd=even_odd)), torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        for one, two in zip(model.decoder_features(x), model.features(x), strict=True):
            assert torch.equal(one, two)  # none, unless the method that trains the decoder says so
        model.decoder_noise = 0.3
        together, alone = model.decoder_features(x), model.decoder_features(x[1:2])
        again = model.decoder_features(x)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(model, "features", seen.append)
    model.decoder_features(x)
    noise = seen[0] - x / 255
    assert noise.std().item() == pytest.approx(0.3, rel=0.05) and abs(noise.mean().item()) < 0.02
    for pair, one, two in zip(together, alone, again, strict=True):
        torch.testing.assert_close(pair[1:2], one)  # the same draw for each image, every time
        torch.testing.assert_close(pair, two)


def test_bytes_and_floats_give_the_same_features() -> None:
    model, x = lively(TINY), torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        for one, two in zip(model.features(x), model.features(x / 255), strict=True):
            torch.testing.assert_close(one, two)


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 1, 32, 32), (2, 3, 32, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \[B, 3, H, W\]"):
        PCL(TINY).features(torch.zeros(shape))


def test_initial_weights_have_the_stated_spread() -> None:
    model = PCL(PAPER)
    for name, layer in model.encoder.named_modules():
        if isinstance(layer, nn.Conv2d):
            k, out = layer.kernel_size[0], layer.out_channels
            wanted = math.sqrt(2 / (k * k * out))
            tolerance = 5 * wanted / math.sqrt(2 * layer.weight.numel())  # five standard errors
            assert layer.weight.std().item() == pytest.approx(wanted, abs=tolerance), name
            assert layer.bias is not None and not layer.bias.any()


def test_seed_fixes_the_weights_and_no_global_state_moves() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    one, same, other = (PCL(TINY, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["decoder.fc.weight"], other["decoder.fc.weight"])
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1]) and states[2] == random.getstate()


# Checkpoints ------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "pcl.safetensors"
    save_checkpoint(lively(TINY), path, {"method": "pcl", "seed": 7})
    return path


def test_checkpoint_gives_the_model_back(saved: Path) -> None:
    model, back = lively(TINY), load_checkpoint(saved)
    assert back.config == TINY and not back.training
    ours, theirs = model.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert checkpoint_notes(saved) == {"method": "pcl", "seed": 7}
    assert back.decoder_noise == 0
    model.decoder_noise = 0.25
    save_checkpoint(model, saved)
    assert load_checkpoint(saved).decoder_noise == 0.25


def test_a_checkpoint_of_before_the_noise_was_kept_still_loads(saved: Path) -> None:
    weights = safetensors.torch.load_file(saved)
    with safetensors.safe_open(saved, "pt") as file:
        header = {key: value for key, value in file.metadata().items() if key != "decoder_noise"}
    assert len(header) == 2
    safetensors.torch.save_file(weights, saved, metadata=header)
    assert load_checkpoint(saved).decoder_noise == 0
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]  # nothing temporary stays


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], object]) -> None:
    with safetensors.safe_open(path, "pt") as file:
        header = dict(file.metadata())
    weights = safetensors.torch.load_file(path)
    change(weights, header)
    safetensors.torch.save_file(weights, path, metadata=header)


def wider(_: dict[str, Tensor], header: dict[str, str]) -> None:
    header["model"] = json.dumps(json.loads(header["model"]) | {"width": 0.25})


def unknown_setting(_: dict[str, Tensor], header: dict[str, str]) -> None:
    header["model"] = json.dumps(json.loads(header["model"]) | {"depth": 3})


DAMAGE: list[tuple[str, Callable[[Path], object], str]] = [
    ("missing", lambda p: p.unlink(), "no checkpoint at"),
    ("empty", lambda p: p.write_bytes(b""), "not a readable safetensors file"),
    ("torn", lambda p: p.write_bytes(p.read_bytes()[:-100]), "not a readable safetensors file"),
    ("text", lambda p: p.write_text("hello"), "not a readable safetensors file"),
    ("pickle", lambda p: torch.save({"epoch": 1}, p), "released code, use pcl_lib.models.load_released"),
    ("foreign", lambda p: safetensors.torch.save_file({"a": torch.ones(2)}, p), "not written by this kit"),
    ("header", lambda p: rewrite(p, lambda _, h: h.update(model="resnet50")), "not written by this kit"),
    ("list", lambda p: rewrite(p, lambda _, h: h.update(model="[1, 2]")), "not written by this kit"),
    ("lacks", lambda p: rewrite(p, lambda w, _: w.pop("decoder.fc.weight")), "lacks decoder.fc.weight"),
    ("extra", lambda p: rewrite(p, lambda w, _: w.update(more=torch.ones(1))), "unknown key more"),
    ("shape", lambda p: rewrite(p, wider), "has shape"),
    ("setting", lambda p: rewrite(p, unknown_setting), "unknown key 'model.depth'"),
]


@pytest.mark.parametrize(("damage", "said"), [d[1:] for d in DAMAGE], ids=[d[0] for d in DAMAGE])
def test_bad_checkpoints_are_refused_in_one_sentence(
    saved: Path, damage: Callable[[Path], object], said: str
) -> None:
    damage(saved)
    with pytest.raises(BadInput, match=said) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value) or "model." in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [DAMAGE[0][1], DAMAGE[2][1]], ids=["missing", "torn"])
def test_notes_of_bad_checkpoints_are_refused_too(saved: Path, damage: Callable[[Path], object]) -> None:
    damage(saved)
    with pytest.raises(BadInput, match=r"no checkpoint at|not a readable"):
        checkpoint_notes(saved)
