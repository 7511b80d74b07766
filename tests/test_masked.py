"""The masked autoencoder: what is hidden, what is scored, and that the loss falls."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import blob_images
from test_methods import images, parts_with_gradient, preset_of, seeded

from pcl_lib import data, distributed, methods
from pcl_lib.methods.masked import HIDDEN, PATCHES, hidden_patches, masked_error
from pcl_lib.models import PCL


@pytest.mark.parametrize("size", [16, 32, 50])
def test_the_same_share_of_whole_patches_is_hidden_in_every_image(size: int) -> None:
    hidden = hidden_patches(6, size, seeded())
    assert hidden.shape == (6, 1, size, size)
    edges = [-(-size * i // PATCHES) for i in range(PATCHES + 1)]
    counts = []
    for image in hidden[:, 0]:
        patches = [image[a:b, c:d] for a, b in pairwise(edges) for c, d in pairwise(edges)]
        assert all(bool(p.all()) or not bool(p.any()) for p in patches)
        counts.append(sum(bool(p.all()) for p in patches))
    assert counts == [round(HIDDEN * PATCHES**2)] * 6
    assert not torch.equal(hidden[0], hidden[1])


def test_ranks_draw_what_one_process_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hidden_patches(8, 16, seeded())
    monkeypatch.setattr(distributed, "world", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(hidden_patches(4, 16, seeded()))
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("size", [16, 20])
def test_error_is_that_of_a_loop_over_hidden_patches(size: int) -> None:
    x, painted = torch.rand(2, 3, 3, size, size, generator=seeded(), dtype=torch.float64).unbind(0)
    hidden = hidden_patches(3, size, seeded(1))
    edges = [-(-size * i // PATCHES) for i in range(PATCHES + 1)]
    errors = []
    for image, paint, mask in zip(x.numpy(), painted.numpy(), hidden.numpy(), strict=True):
        for a, b in pairwise(edges):
            for c, d in pairwise(edges):
                if mask[0, a, c]:
                    patch = image[:, a:b, c:d]
                    target = (patch - patch.mean()) / np.sqrt(patch.var() + 1e-6)
                    errors += ((paint[:, a:b, c:d] - target) ** 2).ravel().tolist()
    assert masked_error(painted, x, hidden).item() == pytest.approx(np.mean(errors), rel=1e-6)


def test_seen_patches_are_not_scored_and_hidden_ones_are_not_seen(
    blobs: data.PreparedFaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, painted = torch.rand(2, 3, 3, 16, 16, generator=seeded()).unbind(0)
    hidden = hidden_patches(3, 16, seeded(1))
    other = torch.where(hidden, painted, torch.rand(3, 3, 16, 16, generator=seeded(2)))
    assert torch.equal(masked_error(painted, x, hidden), masked_error(other, x, hidden))
    method = methods.build("masked", preset_of(16, **{"simclr_view.crop": "none", "simclr_view.flip": 0.0}))
    model = PCL(method.preset.model).eval()
    method.auxiliary(model, blobs)
    kept: list[torch.Tensor] = []
    batch = images(4, 16)
    size = model.decoder.fc.in_features
    monkeypatch.setattr(PCL, "general_feature", lambda _, x: (kept.append(x), x.new_zeros(len(x), size))[1])
    method.tasks[0].loss(model, batch, seeded())
    covered = (kept[0] == 0.5).all(1)
    assert (covered.flatten(1).sum(1) == 4 * round(HIDDEN * PATCHES**2)).all()
    torch.testing.assert_close(kept[0][:, 0][~covered], (batch / 255)[:, 0][~covered], atol=0.05, rtol=0)


def test_gradients_reach_the_trunk_the_decoder_and_the_colour(blobs: data.PreparedFaces) -> None:
    method = methods.build("masked", preset_of())
    model = PCL(method.preset.model).train()
    auxiliary = method.auxiliary(model, blobs)
    method.tasks[0].loss(model, images(method.tasks[0].batch), seeded())["masked"].backward()
    assert parts_with_gradient(model) == {"encoder"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in auxiliary.parameters())


@pytest.mark.parametrize("backbone", ["paper", "test_vit"])
def test_loss_falls_below_that_of_the_mean_of_each_patch(backbone: str, blobs: data.PreparedFaces) -> None:
    still = {"simclr_view.crop": "none", "simclr_view.flip": 0.0}
    method = methods.build(
        "masked", preset_of(32, **still, **{"model.norm": "group", "model.backbone": backbone})
    )
    model = PCL(method.preset.model).train()
    torch.manual_seed(0)
    auxiliary = method.auxiliary(model, blobs)
    batch = blob_images(8, 32)
    adam = torch.optim.Adam([*model.parameters(), *auxiliary.parameters()], lr=3e-3)
    losses = []
    for _ in range(60):
        adam.zero_grad()
        loss = method.tasks[0].loss(model, batch, seeded())["masked"]
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[0] > 0.9 and losses[-1] < 0.8  # zeros everywhere give 1
