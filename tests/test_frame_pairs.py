"""FAb-Net, TCAE and FaceCycle: who is drawn, what a warp does, where gradients reach, what is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images
from test_methods import images, parts_with_gradient, preset_of, seeded
from test_pretrain import tiny
from torch import Tensor, nn

from pcl_lib import data, distributed, methods, pretrain
from pcl_lib.methods.facecycle import FaceCycle, Renormaliser
from pcl_lib.methods.flow import REACH, FlowDecoder, blended, warp
from pcl_lib.methods.frame_pairs import FrameIndex
from pcl_lib.models import PCL
from pcl_lib.models.pcl import Features
from pcl_lib.utils import BadInput

NAMES = ("fabnet", "tcae", "facecycle")


def test_a_still_warp_changes_nothing_and_a_whole_pixel_one_is_a_shift() -> None:
    x = torch.rand(2, 3, 8, 10, dtype=torch.float32, generator=seeded())
    torch.testing.assert_close(warp(x, torch.zeros(2, 2, 8, 10)), x)
    for right, down in ((3, 0), (0, -2), (-1, 2)):
        flow = torch.stack([torch.full((2, 8, 10), right / 10), torch.full((2, 8, 10), down / 8)], 1)
        padded = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode="edge")
        wanted = torch.from_numpy(padded[:, :, 3 + down : 11 + down, 3 + right : 13 + right].copy())
        torch.testing.assert_close(warp(x, flow), wanted, atol=1e-5, rtol=0)
        inside = (slice(None), slice(None), slice(2, 6), slice(3, 7))
        rolled = torch.roll(x, (-down, -right), (2, 3))
        torch.testing.assert_close(warp(x, flow)[inside], rolled[inside], atol=1e-5, rtol=0)


def test_a_warp_between_pixels_is_their_mean_and_each_image_has_its_own() -> None:
    x = torch.rand(2, 1, 4, 4, generator=seeded())
    flow = torch.zeros(2, 2, 4, 4)
    flow[1, 0] = 0.5 / 4  # half a pixel to the right, in the second image alone
    y = warp(x, flow)
    torch.testing.assert_close(y[0], x[0])
    torch.testing.assert_close(y[1, :, :, :3], (x[1, :, :, :3] + x[1, :, :, 1:]) / 2)


@pytest.mark.parametrize("size", [16, 32, 40])
def test_flows_have_the_size_of_the_images_and_keep_within_reach(size: int) -> None:
    flows = FlowDecoder(preset_of(size).model, 6, fields=2)(1e3 * torch.randn(3, 6, generator=seeded()))
    assert flows.shape == (3, 2, 2, size, size)
    assert 0.5 * REACH < flows.abs().max() <= REACH


def test_a_blend_is_the_flow_of_the_larger_mask_or_the_mean_of_equal_ones() -> None:
    one, two = torch.rand(2, 3, 2, 5, 5, generator=seeded()).unbind(0)
    zero = torch.zeros(3, 1, 5, 5)
    torch.testing.assert_close(blended([one, two], [zero, zero]), (one + two) / 2)
    torch.testing.assert_close(blended([one, two], [zero + 50, zero]), one)


def named(folder: Path, identities: list[object], videos: list[str] | None = None) -> data.PreparedFaces:
    """A set of blobs of these identities, all but the last two rows for training."""
    count = len(identities)
    table = pd.DataFrame({"identity": identities, "split": ["train"] * (count - 2) + ["validation", "test"]})
    if videos:
        table["video"] = videos
    data.write_prepared(folder, blob_images(count, 16), table, name="named", source="drawn by the tests")
    return data.PreparedFaces(folder)


def test_companions_are_the_other_images_of_an_identity_all_equally_likely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = named(tmp_path / "set", ["a", "b", "a", "c", "b", "a", "b", "b", "x", "y"])
    index = FrameIndex(faces)
    assert (
        capsys.readouterr().out
        == "1 of 3 training identities have one image only: others take their place.\n"
    )
    draws = np.stack([np.zeros(84), (np.arange(84) + 0.5) / 84], 1)
    own = {0: [0, 2, 5], 1: [1, 4, 6, 7]}
    for row in (0, 5, 1, 6):
        first, second = index.draw(np.full(len(draws), row), draws).T
        assert (first == row).all()
        found, counts = np.unique(second, return_counts=True)
        assert (
            found.tolist() == [r for r in own[row in own[1]] if r != row] and len(set(counts.tolist())) == 1
        )
    replaced = index.draw(np.full(700, 3), np.tile((np.arange(700)[:, None] + 0.5) / 700, 2))[:, 0]
    assert np.unique(replaced, return_counts=True)[1].tolist() == [100] * 7 and 3 not in replaced


def test_where_videos_are_named_companions_are_of_the_same_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = ["v", "v", "w", "w", "v", "v", "u", "u", "v", "v"]
    index = FrameIndex(named(tmp_path / "set", ["a", "b", "a", "a", "b", "a", "b", "c", "x", "y"], videos))
    printed = capsys.readouterr().out
    assert printed == "2 of 5 training videos have one image only: others take their place.\n"
    draws = np.stack([np.zeros(40), (np.arange(40) + 0.5) / 40], 1)
    for row, other in ((0, 5), (5, 0), (2, 3), (3, 2), (1, 4), (4, 1)):
        assert set(index.draw(np.full(40, row), draws)[:, 1].tolist()) == {other}
    with pytest.raises(BadInput, match="named has no video with two training images"):
        FrameIndex(named(tmp_path / "single", list("aabbxy"), list("abcdef")))


def test_sets_without_two_frames_or_two_identities_are_refused(tmp_path: Path) -> None:
    single, lonely = named(tmp_path / "a", list("abcdef")), named(tmp_path / "b", list("aaaabc"))
    for name in NAMES:
        method = methods.build(name, preset_of(16))
        with pytest.raises(BadInput, match="named has no identity with two training images: choose a method"):
            method.auxiliary(PCL(method.preset.model), single)
    with pytest.raises(BadInput, match="named has one identity to train on"):
        method.auxiliary(PCL(method.preset.model), lonely)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_has_as_many_images_as_others_and_ranks_draw_it_as_one(
    name: str, blobs: data.PreparedFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = methods.build(name, preset_of(16, **{"train.pose_batch": 4}))
    method.auxiliary(PCL(method.preset.model), blobs)
    (task,) = method.tasks
    assert task.batch * task.frames == 12
    source = data.ImageSource(blobs, blobs.split("train"))
    rows = blobs.split("train")[:: len(blobs.split("train")) // task.batch][: task.batch]
    rows = rows[: 2 * (task.batch // 2)]
    whole = task.take(source, rows, np.random.default_rng(5))
    assert whole.shape == (len(rows), task.frames, 3, 16, 16) and whole.dtype == torch.uint8
    torch.testing.assert_close(whole[:, 0], source.take(rows))
    monkeypatch.setattr(distributed, "world", lambda: 2)
    parts = []
    for rank, own in enumerate(np.split(rows, 2)):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(task.take(source, own, np.random.default_rng(5)))
    assert torch.equal(torch.cat(parts), whole)


def backward(name: str, faces: data.PreparedFaces) -> tuple[PCL, nn.Module, dict[str, Tensor]]:
    """A model, what is beside it and the losses of its first backward pass."""
    method = methods.build(name, preset_of())
    model = PCL(method.preset.model).train()
    beside = method.auxiliary(model, faces).train()
    (task,) = method.tasks
    batch = images(task.batch * task.frames).unflatten(0, (-1, task.frames))
    losses = task.loss(model, batch, seeded())
    losses[name].backward()
    return model, beside, losses


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("fabnet", {"encoder"}),
        ("tcae", {"encoder", "face_branch", "pose_branch"}),
        ("facecycle", {"encoder", "face_branch", "pose_branch"}),
    ],
)
def test_gradients_reach_the_features_and_the_own_decoders_alone(
    name: str, parts: set[str], blobs: data.PreparedFaces
) -> None:
    model, beside, losses = backward(name, blobs)
    assert parts_with_gradient(model) == parts
    for key, parameter in beside.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key
    assert all(value.ndim == 0 and value.isfinite() for value in losses.values())


def test_half_of_facecycles_pairs_are_mirror_images(blobs: data.PreparedFaces) -> None:
    method = methods.build("facecycle", preset_of(16))
    assert isinstance(method, FaceCycle)
    method.auxiliary(PCL(method.preset.model), blobs)
    rows = np.repeat(blobs.split("train")[:1], 400)
    first, second = method.take(
        data.ImageSource(blobs, blobs.split("train")), rows, np.random.default_rng(0)
    ).unbind(1)
    mirrored = (first.flip(3) == second).flatten(1).all(1)
    assert 150 < mirrored.sum() < 250 and not (first == second).flatten(1).all(1).any()


def test_a_renormalised_face_has_lost_its_own_channel_statistics() -> None:
    torch.manual_seed(0)
    module = Renormaliser(preset_of(16).model, 5)
    code, other = torch.randn(2, 4, 5, generator=seeded()).unbind(0)
    seen: list[Tensor] = []
    module.painters[0].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    faces = torch.rand(4, 3, 16, 16, generator=seeded())
    for x in (faces, 0.5 * faces + 0.1):
        assert module(x, code, "remove").shape == faces.shape
    centres = [x.mean((2, 3)) for x in seen]
    torch.testing.assert_close(centres[0], module.styles["remove"](code).chunk(2, 1)[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(*centres, atol=1e-5, rtol=0)  # brightness and contrast do not tell
    assert not torch.allclose(module(faces, code, "remove"), module(faces, other, "remove"))
    assert not torch.allclose(module(faces, code, "remove"), module(faces, code, "restore"))


def test_a_symmetric_face_without_flow_has_no_motion_loss(blobs: data.PreparedFaces) -> None:
    method = methods.build("facecycle", preset_of(16))
    model = PCL(method.preset.model)
    beside = method.auxiliary(model, blobs)
    last = beside["flow"].last  # type: ignore[operator, index]
    nn.init.zeros_(last.weight)
    half = torch.rand(2, 1, 3, 16, 8, generator=seeded())
    symmetric = torch.cat([half, half.flip(4)], 4).repeat(1, 2, 1, 1, 1)
    (task,) = method.tasks
    losses = task.loss(model, symmetric, seeded())
    assert losses["motion"].item() == pytest.approx(0, abs=1e-5)
    assert losses["symmetry"].item() == pytest.approx(0, abs=1e-6)
    lopsided = torch.rand(2, 1, 3, 16, 16, generator=seeded()).repeat(1, 2, 1, 1, 1)
    assert task.loss(model, lopsided, seeded())["symmetry"].item() > 0.1


def test_no_gradient_of_tcaes_cycle_reaches_a_first_flow_by_way_of_the_changed_picture(
    blobs: data.PreparedFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With features that say nothing of an image, the picture would be the only way."""
    method = methods.build("tcae", preset_of(16))
    model = PCL(method.preset.model)
    beside = method.auxiliary(model, blobs)
    told = model.features(images(4, 16))

    def constant(_: PCL, x: Tensor) -> Features:
        return Features(*(part[:1].detach().expand(len(x), -1) for part in told))

    monkeypatch.setattr(PCL, "features", constant)
    (task,) = method.tasks
    flows: list[Tensor] = []
    beside["face"].register_forward_hook(lambda _, __, made: flows.append(made[0]))  # type: ignore[operator, index]
    losses = task.loss(model, images(8, 16).unflatten(0, (-1, 2)), seeded())
    first, back = torch.autograd.grad(losses["cycle"], flows, allow_unused=True)
    assert first is None and back is not None and back.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_losses_fall_on_a_batch_that_is_seen_again_and_again(name: str, blobs: data.PreparedFaces) -> None:
    method = methods.build(name, preset_of(16, **{"model.norm": "group"}))
    model = PCL(method.preset.model).train()
    torch.manual_seed(0)
    beside = method.auxiliary(model, blobs)
    (task,) = method.tasks
    source = data.ImageSource(blobs, blobs.split("train"))
    batch = task.take(source, blobs.split("train")[: 2 * task.batch : 2], np.random.default_rng(0))
    optimizer = torch.optim.Adam([*model.parameters(), *beside.parameters()], lr=2e-3)
    seen = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = task.loss(model, batch, seeded())[name]
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert max(seen[-5:]) < 0.995 * seen[0]  # TCAE is slow: its flows grow out of zero against the cycles


def test_a_run_counts_the_images_it_takes(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    run = pretrain.fit("fabnet", preset=tiny(train__epochs=1), faces=blobs, out=tmp_path, progress=False)
    assert run.history["images"].tolist() == [3 * 36]
    assert run.history["fabnet"].between(0, 1).all()
