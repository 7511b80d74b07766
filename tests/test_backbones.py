"""pcl_lib.models.backbones: timm models in place of the paper's trunk, with everything around them as it was."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_pretrain import fit
from torch import Tensor, nn

from pcl_lib import data, distributed
from pcl_lib.models import PCL, load_checkpoint, save_checkpoint
from pcl_lib.models.backbones import stage_of
from pcl_lib.models.encoder import scaled
from pcl_lib.presets import ModelPreset
from pcl_lib.utils import BadInput

TINY = ModelPreset(width=0.125, image_size=32, projector_hidden=16, projector_out=8)
CONVOLUTIONS, PATCHES, BATCH_NORM_WITH_ACTIVATION = "resnet10t", "test_vit", "test_efficientnet"


def of(backbone: str, **changes: object) -> ModelPreset:
    return replace(TINY, backbone=backbone, **changes)  # type: ignore[arg-type]


def images(n: int, *size: int) -> Tensor:
    return torch.rand(n, 3, size[0], size[-1], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("backbone", [CONVOLUTIONS, PATCHES])
@pytest.mark.parametrize(("trained", "seen"), [(32, (32,)), (64, (64,)), (32, (100,)), (32, (48, 80))])
def test_features_have_the_sizes_of_the_paper_s(backbone: str, trained: int, seen: tuple[int, ...]) -> None:
    model, paper = (PCL(of(name, image_size=trained)).eval() for name in (backbone, "paper"))
    x = images(2, *seen)
    with torch.no_grad():
        found, wanted = model.features(x), paper.features(x)
    assert [part.shape for part in found] == [part.shape for part in wanted]
    assert all(torch.isfinite(part).all() and part.std() > 0 for part in found)
    beside = {key: value.shape for key, value in paper.state_dict().items() if "encoder" not in key}
    assert beside == {key: value.shape for key, value in model.state_dict().items() if "encoder" not in key}


def test_the_stage_of_stride_16_is_the_last_and_patches_are_an_eighth_of_the_side() -> None:
    residual, patches = stage_of(CONVOLUTIONS, 64), stage_of(PATCHES, 64)
    assert residual.feature_info.reduction() == [16] and not len(residual.model.layer4)
    assert residual(images(1, 64))[0].shape == (1, 256, 4, 4)
    assert patches.model.patch_embed.patch_size == (8, 8) and patches(images(1, 64))[0].shape == (1, 64, 8, 8)


@pytest.mark.parametrize("backbone", [CONVOLUTIONS, PATCHES])
def test_gradients_reach_the_whole_backbone(backbone: str) -> None:
    model = PCL(of(backbone)).train()
    out = model.features(images(4, 32))
    (out.face.square().sum() + out.pose.square().sum()).backward()
    assert [name for name, p in model.encoder.named_parameters() if p.grad is None] == []
    first = next(model.encoder.backbone.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_every_setting_of_the_paper_s_model_holds() -> None:
    x = images(3, 32)
    model = PCL(of(PATCHES, even_odd=True, pose_dim=5, norm="group")).eval()
    with torch.no_grad():
        ours, flipped = model.features(x), model.features(x.flip(3))
        assert ours.pose.shape == (3, 5) and model.decode(ours.face, ours.pose).shape == (3, 3, 32, 32)
    torch.testing.assert_close(flipped.face, ours.face)
    torch.testing.assert_close(flipped.pose, -ours.pose)
    assert isinstance(model.encoder.bring[1], nn.GroupNorm)
    assert model.encoder.bring[0].out_channels == scaled(128, TINY.width)


@pytest.mark.parametrize("backbone", [CONVOLUTIONS, PATCHES])
def test_seed_fixes_the_weights_and_checkpoints_give_them_back(backbone: str, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    one, same, other = (PCL(of(backbone), seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    first = next(key for key in one if key.startswith("encoder.backbone") and one[key].ndim == 4)
    assert not torch.equal(one[first], other[first])
    save_checkpoint(PCL(of(backbone), 3), tmp_path / "x.safetensors")
    back = load_checkpoint(tmp_path / "x.safetensors")
    assert back.config == of(backbone)
    assert all(torch.equal(one[key], value) for key, value in back.state_dict().items())


def test_a_run_of_a_backbone_trains_it_and_goes_on(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    changes = {"model__backbone": PATCHES, "model__image_size": 32, "train__epochs": 1}
    run = fit(blobs, tmp_path, "byol", **changes)
    start = PCL(run.method.preset.model, 3).state_dict()
    moved = {key for key, value in run.model.state_dict().items() if not torch.equal(value, start[key])}
    assert {"encoder.backbone.model.patch_embed.proj.weight", "encoder.bring.0.weight"} <= moved
    again = fit(blobs, tmp_path, "byol", **changes)
    assert all(
        torch.equal(a, b) for a, b in zip(run.model.parameters(), again.model.parameters(), strict=True)
    )


def test_batch_norms_over_all_processes_keep_the_activation_that_timm_puts_into_them() -> None:
    model, x = PCL(of(BATCH_NORM_WITH_ACTIVATION)).eval(), images(3, 32)
    keys = list(model.state_dict())
    with torch.no_grad():
        before = model.general_feature(x)
        distributed.share_batch_norms(model)
        torch.testing.assert_close(model.general_feature(x), before)
    assert list(model.state_dict()) == keys
    assert any(isinstance(part, distributed.SharedBatchNorm) for part in model.encoder.backbone.modules())


def test_names_that_timm_lacks_and_models_without_a_map_are_refused() -> None:
    with pytest.raises(BadInput, match=r"unknown model.backbone 'resnet-18': timm has .*resnet18.*'paper'"):
        PCL(of("resnet-18"))
    with pytest.raises(BadInput, match="timm has no such name"):
        PCL(of("?"))
    with pytest.raises(BadInput, match=r"'crossvit_9_240' gives no map for images of 32 pixels .*resnet18"):
        PCL(of("crossvit_9_240"))


def test_the_paper_s_model_needs_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # an import would fail
    PCL(TINY)
    with pytest.raises(ImportError):
        PCL(of(PATCHES))
