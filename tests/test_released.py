"""pcl_lib.models.released against a network written with the released code's names (method.md, sections 1, 2, 9)."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.models import PCL, load_released, save_released
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput

State = dict[str, Any]


class Attention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g, self.theta, self.phi = (nn.Conv2d(channels, channels, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        g, theta, phi = (layer(x).flatten(2) for layer in (self.g, self.theta, self.phi))
        s = torch.einsum("bcn,bdn->bcd", phi, theta.softmax(2))
        out: Tensor = F.leaky_relu(x + torch.einsum("bcd,bdn->bcn", s, g.softmax(1)).view_as(x), 0.1)
        return out


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(128, 128, 3, 1, 1), nn.Conv2d(128, 128, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.conv2(F.leaky_relu(self.conv1(x), 0.1)), 0.1)


def act() -> nn.Module:
    return nn.LeakyReLU(0.1)


class ReleasedEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d
        self.conv1 = nn.Sequential(conv(3, 64, 7, 2, 3), act(), conv(64, 64, 3, 1, 1), act())
        self.layer1 = nn.Sequential(conv(64, 64, 3, 1, 1), act(), Attention(64), conv(64, 64, 3, 1, 1), act())
        self.layer2_1 = nn.Sequential(
            conv(64, 128, 3, 2, 1), act(), Attention(128), conv(128, 128, 3, 1, 1), act()
        )
        self.resblock1, self.resblock2 = Block(), Block()
        self.layer2_2 = nn.Sequential(conv(128, 128, 3, 2, 1), act(), conv(128, 128, 3, 1, 1), act())
        self.layer3_1 = nn.Sequential(conv(128, 256, 3, 2, 1), act(), conv(256, 128, 3, 1, 1), act())
        self.layer3_2_exp, self.layer3_2_pose = (
            nn.Sequential(conv(128, 128, 3, 1, 1), act(), conv(128, 128, 3, 1, 1), act()) for _ in range(2)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.resblock2(self.resblock1(self.layer2_1(self.layer1(self.conv1(x)))))
        x = self.layer3_1(self.layer2_2(x))
        return x.flatten(1), self.layer3_2_exp(x).flatten(1), self.layer3_2_pose(x).flatten(1)


class ReleasedDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2048, 512)
        channels, layers = [512, 256, 256, 256, 256, 128, 3], []
        for a, b in pairwise(channels):
            layers += [nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(a, b, 3, 1, 1)]
            layers += [nn.BatchNorm2d(b)] if b != 3 else [nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, face: Tensor, pose: Tensor) -> Tensor:
        out: Tensor = self.model(self.fc(F.normalize(face + pose, dim=1))[:, :, None, None])
        return out


class Released(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = ReleasedEncoder(), ReleasedDecoder()
        self.exp_fc, self.pose_fc = (
            nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 512), nn.BatchNorm1d(512))
            for _ in range(2)
        )


@pytest.fixture(scope="module")
def released() -> Released:
    """Weights, biases and running statistics all away from where they start."""
    generator = torch.Generator().manual_seed(5)
    network = Released().eval()
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif value.ndim == 1:
            value.copy_(0.3 + 0.2 * torch.randn(value.shape, generator=generator))
    return network


@pytest.fixture
def path(released: Released, tmp_path: Path) -> Path:
    return written(released.state_dict(), tmp_path / "best.pth")


def written(weights: State, path: Path) -> Path:
    torch.save({"epoch": 12, "state_dict": {f"module.{key}": value for key, value in weights.items()}}, path)
    return path


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize("size", [64, 100])
def test_features_are_those_of_the_released_network(released: Released, path: Path, size: int) -> None:
    model = load_released(path)
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    assert not model.training
    with torch.no_grad():
        for ours, theirs in zip(model.features(x), released.encoder(x), strict=True):
            assert_close(ours, theirs)


def test_projections_and_pictures_are_those_of_the_released_network(released: Released, path: Path) -> None:
    model = load_released(path)
    assert model.decoder_noise == 0.4  # notebooks/method.md, section 3
    face, pose = torch.randn(2, 3, 2048, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert_close(model.decode(face, pose), released.decoder(face, pose))
        assert_close(model.face_projector(face), released.exp_fc(face))
        assert_close(model.pose_projector(pose), released.pose_fc(pose))


def test_saved_weights_fit_the_released_network(tmp_path: Path) -> None:
    model = PCL(ModelPreset(), seed=4).eval()
    save_released(model, tmp_path / "ours.pth", epoch=3)
    saved = torch.load(tmp_path / "ours.pth", weights_only=True)
    assert saved.keys() == {"epoch", "state_dict"} and saved["epoch"] == 3
    network = Released().eval()
    network.load_state_dict({k.removeprefix("module."): v for k, v in saved["state_dict"].items()})
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for ours, theirs in zip(model.features(x), network.encoder(x), strict=True):
            assert_close(ours, theirs)
    back = load_released(tmp_path / "ours.pth").state_dict()
    assert all(torch.equal(value, back[key]) for key, value in model.state_dict().items())


def without(weights: State, key: str) -> State:
    return {k: v for k, v in weights.items() if k != key}


CHANGES: list[tuple[Callable[[State], State], str]] = [
    (lambda w: without(w, "exp_fc.3.running_var"), r"lacks 1 entries \(module.exp_fc.3.running_var\)"),
    (
        lambda w: w | {"encoder.fc.weight": torch.zeros(2)},
        r"also has 1 entries \(module.encoder.fc.weight\)",
    ),
    (
        lambda w: w | {"decoder.fc.weight": torch.zeros(512, 100)},
        r"holds in another shape 1 entries \(module.decoder.fc.weight \(512, 100\) instead of \(512, 2048\)\)",
    ),
    (
        lambda w: w | {"pose_fc.0.bias": torch.full((2048,), torch.nan)},
        r"holds NaN or infinite values in 1 entries \(module.pose_fc.0.bias\)",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_every_misfit_is_named(
    released: Released, tmp_path: Path, change: Callable[[State], State], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        load_released(written(change(released.state_dict()), tmp_path / "wrong.pth"))


class Runs:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "state_dict": Runs(tmp_path / "ran")}, tmp_path / "evil.pth")
    with pytest.raises(BadInput, match="cannot be read as weights alone"):
        load_released(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "ran").exists()  # it would have


def test_other_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no checkpoint at"):
        load_released(tmp_path / "none.pth")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(BadInput, match="cannot be read as weights alone"):
        load_released(path)
    torch.save({"model": {}}, path)
    with pytest.raises(BadInput, match="holds no 'state_dict' of tensors"):
        load_released(path)


def test_a_model_of_another_size_cannot_be_saved_so(tmp_path: Path) -> None:
    model = PCL(ModelPreset(width=0.125, image_size=32, projector_hidden=16, projector_out=8))
    with pytest.raises(BadInput, match=r"width is 0.125, not 1.0; image_size is 32, not 64"):
        save_released(model, tmp_path / "small.pth")
    assert not (tmp_path / "small.pth").exists()
