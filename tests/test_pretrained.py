"""A timm backbone from a file: its features are timm's own, and what is not such a file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from conftest import blob_images
from torchvision.transforms import functional

from pcl_lib.models import load_backbone
from pcl_lib.utils import BadInput

NAMES = ("resnet10t", "test_vit")


def saved(name: str, path: Path) -> torch.nn.Module:
    """A timm model with random weights and classifier, kept in a file."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save({"epoch": 3, "state_dict": model.state_dict()}, path)
    return model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["safetensors", "pth"])
def test_features_are_those_before_the_classifier(name: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{end}"
    model = saved(name, path)
    config = model.pretrained_cfg
    images = blob_images(3, 40)
    side = config["input_size"][-1]
    x = functional.resize(images.float() / 255, [side, side], antialias=True)
    x = functional.normalize(x, config["mean"], config["std"])
    loaded = load_backbone(name, path)
    with torch.no_grad():
        wanted = model.forward_head(model.forward_features(x), pre_logits=True)
        found = loaded.features(images).general
    assert not loaded.training and found.shape == (3, model.num_features)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_another_size_is_taken_by_a_convolutional_model(tmp_path: Path) -> None:
    saved("resnet10t", tmp_path / "w.pth")
    with torch.no_grad():
        assert torch.isfinite(
            load_backbone("resnet10t", tmp_path / "w.pth", 64).features(blob_images(2, 40)).general
        ).all()


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    saved("resnet10t", tmp_path / "w.safetensors")
    (tmp_path / "text.pth").write_text("no weights")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    for name, file, said in (
        ("resnet1", "w.safetensors", "timm has no model 'resnet1'"),
        ("resnet10t", "nowhere.pth", "no weights at"),
        ("resnet10t", "text.pth", "cannot be read"),
        ("resnet10t", "list.pth", "holds no table of weights"),
        ("test_vit", "w.safetensors", "does not hold the weights of timm's 'test_vit'"),
    ):
        with pytest.raises(BadInput, match=said):
            load_backbone(name, tmp_path / file)
