"""Changes of one attribute: what they do to an image, and that PCL of the flip is today's PCL."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_methods import images, preset_of, seeded
from test_pretrain import assert_equal_weights, tiny, without_clock
from torch import Tensor

from pcl_lib import data, distributed, methods, presets, pretrain
from pcl_lib.faces import render
from pcl_lib.faces.factors import NUMERIC
from pcl_lib.methods.changes import CHANGES, ORACLES, cast, occluded, relit, take_redrawn
from pcl_lib.models import PCL
from pcl_lib.utils import BadInput


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_shape_and_range_and_gives_each_image_its_own(name: str) -> None:
    x = torch.rand(1, 3, 16, 20, generator=seeded()).repeat(4, 1, 1, 1)
    kept, change = x.clone(), CHANGES[name]
    changed = change(x, seeded(1))
    assert torch.equal(x, kept) and changed.shape == x.shape and changed.min() >= 0 and changed.max() <= 1
    assert (changed - x).abs().mean() > 0.02
    assert torch.equal(changed[0], changed[1]) == (change.draws == 0)
    assert torch.equal(change(x, seeded(1)), changed)


@pytest.mark.parametrize("name", CHANGES)
def test_ranks_draw_what_one_process_draws(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(8, 3, 16, 16, generator=seeded())  # two copies of a batch of four
    whole = CHANGES[name](x, seeded(1), 2).unflatten(0, (2, 4))
    monkeypatch.setattr(distributed, "world", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        own = slice(2 * rank, 2 * rank + 2)
        part = x.unflatten(0, (2, 4))[:, own].flatten(0, 1)
        assert torch.equal(CHANGES[name](part, seeded(1), 2).unflatten(0, (2, 2)), whole[:, own])


def test_light_comes_from_where_it_is_drawn() -> None:
    grey = torch.full((2, 3, 9, 9), 0.4)
    right, below = relit(grey, torch.tensor([[0.0, 0.0], [0.25, 0.0]]))[:, 0]
    wanted = 0.4 * (1 + 0.5 / math.sqrt(2) * torch.linspace(-1, 1, 9))
    torch.testing.assert_close(right, wanted.expand(9, 9))
    torch.testing.assert_close(below, wanted[:, None].expand(9, 9))


def test_a_cast_of_red_raises_red_and_keeps_the_mean() -> None:
    made = cast(torch.full((1, 3, 2, 2), 0.5), torch.zeros(1, 1))[0, :, 0, 0]
    torch.testing.assert_close(made, torch.tensor([0.7, 0.4, 0.4]))


def test_an_occluder_is_a_square_of_its_colour_at_its_place() -> None:
    draws = torch.tensor([[0.1, 0.2, 0.3, 0.0, 1.0, 0.0]])  # the smallest, right, top
    made = occluded(torch.ones(1, 3, 16, 16), draws)[0]
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[:4, 12:] = True
    torch.testing.assert_close(made[:, inside], draws[0, :3, None].expand(3, 16))
    assert (made[:, ~inside] == 1).all()


@pytest.mark.parametrize(
    ("method", "changes"),
    [("pcl", {}), ("pcl_plus", {"model__even_odd": True, "loss__negatives": "batch"})],
)
def test_pcl_of_the_flip_is_pcl_digit_for_digit(
    method: str, changes: dict[str, object], blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    one, two = (
        pretrain.fit(
            name, preset=tiny(train__epochs=2, **settings), faces=blobs, out=tmp_path, progress=False
        )
        for name, settings in ((method, {}), ("pcl_change", changes))
    )
    assert_equal_weights(one.model, two.model)
    assert without_clock(one.history).equals(without_clock(two.history))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "flip"])
def test_pairs_and_negatives_differ_from_the_image_in_the_change(name: str) -> None:
    still = {f"pose_view.{key}": 0.0 for key in ("jitter", "grey", "blur", "gradient")}
    method = methods.build("pcl_change", preset_of(32, **still, **{"loss.attribute": name}))
    assert isinstance(method, methods.changes.PCLOfChange)
    x = images(4)
    positives = method.positives(x, seeded())
    torch.testing.assert_close(positives, (x / 255).repeat(2, 1, 1, 1), atol=1e-5, rtol=0)
    for changed in (
        method.counterpart(x / 255, seeded()).repeat(4, 1, 1, 1),
        method.negatives(x, 4, seeded()),
    ):
        far = (changed - (x / 255).repeat(4, 1, 1, 1)).abs().flatten(1).mean(1)
        assert changed.shape == (16, 3, 32, 32) and (far > 0.01).all()
    losses = {
        task.name: task.loss(PCL(method.preset.model), images(task.batch), seeded()) for task in method.tasks
    }
    assert all(losses[name][name].isfinite() for name in losses) and set(losses) == {"pdd", "face", "pose"}


@pytest.mark.parametrize("name", ["light", "colour"])
def test_views_leave_the_attribute_alone(name: str) -> None:
    """A linear reading of the attribute (a ramp, the channels' ratio) is the same in both views of an image."""
    method = methods.build("pcl_change", preset_of(32, **{"loss.attribute": name, "pose_view.jitter": 1.0}))
    assert isinstance(method, methods.changes.PCLOfChange)
    smooth = (
        torch.rand(16, 3, 1, 1, generator=seeded()).mul(100).add(30).byte().expand(16, 3, 32, 32).contiguous()
    )
    first, second = method.positives(smooth, seeded(1)).chunk(2)
    if name == "light":
        sides = [
            x.mean(1)[:, :, 16:].mean((1, 2)) - x.mean(1)[:, :, :16].mean((1, 2)) for x in (first, second)
        ]
        torch.testing.assert_close(*sides, atol=1e-4, rtol=0)
    else:
        shares = [x.mean((2, 3)) / x.mean((1, 2, 3))[:, None] for x in (first, second)]
        torch.testing.assert_close(*shares, atol=1e-3, rtol=0)
        assert (first - second).abs().max() > 0.1  # brightness may change


def test_the_settings_know_every_change() -> None:
    assert presets.RANGES["LossPreset"]["attribute"] == (*CHANGES, *ORACLES)


def test_what_no_change_fits_is_one_sentence() -> None:
    for changes, said in (
        (
            {"loss.attribute": "age"},
            "unknown loss.attribute 'age': choose one of flip, rotation, light, colour, occluder, ageing",
        ),
        ({"loss.attribute": "light", "loss.negatives": "batch"}, "'light' needs model.even_odd=False"),
        ({"loss.attribute": "light", "model.even_odd": True}, "which know flips alone"),
        ({"loss.pose_change": "rotate"}, "set loss.attribute alone"),
    ):
        with pytest.raises(BadInput, match=said):
            methods.build("pcl_change", preset_of(**changes))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    folder = tmp_path_factory.mktemp("faces") / "set"
    return data.prepare_rendered(folder, identities=(6, 1, 1), images_per_identity=2, size=32)


@pytest.mark.parametrize("size", [32, 16])
@pytest.mark.parametrize("name", ORACLES)
def test_an_oracle_renders_the_same_image_with_another_ones_factors(
    name: str, size: int, rendered: data.PreparedFaces
) -> None:
    rows, change = rendered.split("train"), ORACLES[name]
    source = data.ImageSource(rendered, rows, size=size)
    own, changed = take_redrawn(source, rows[:5], np.random.default_rng(3), change).chunk(2)
    assert torch.equal(own, source.take(rows[:5]))
    factors = rendered.table.iloc[rows[:5]].reset_index(drop=True)[list(NUMERIC)]
    givers = rendered.table.iloc[rows[np.random.default_rng(3).integers(len(rows), size=5)]]
    for factor in change.factors:
        factors[factor] = givers[factor].to_numpy()
    assert torch.equal(changed, data.resize_images(render(factors, 32), size))
    assert (own != changed).any()
    same, again = take_redrawn(source, rows[:5], np.random.default_rng(3), replace(change, factors=())).chunk(
        2
    )
    assert torch.equal(same, again)  # nothing but the factors tells a copy


def test_pairs_of_an_oracle_come_with_the_images(
    rendered: data.PreparedFaces, blobs: data.PreparedFaces
) -> None:
    still = {f"pose_view.{key}": 0.0 for key in ("jitter", "grey", "blur", "gradient")}
    method = methods.build("pcl_change", preset_of(32, **still, **{"loss.attribute": "ageing"}))
    assert isinstance(method, methods.changes.PCLOfChange)
    source, rng = data.ImageSource(rendered, rendered.split("train"), size=32), np.random.default_rng(0)
    images = {task.name: task.take(source, source.rows[:4], rng) for task in method.tasks}
    assert [len(images[name]) for name in ("pdd", "face", "pose")] == [8, 4, 8]
    torch.testing.assert_close(method.pairs(images["pdd"], seeded()), images["pdd"] / 255)
    own, aged = (images["pose"] / 255).chunk(2)
    torch.testing.assert_close(method.positives(images["pose"], seeded()), own.repeat(2, 1, 1, 1))
    torch.testing.assert_close(method.negatives(images["pose"], 3, seeded()), aged.repeat(3, 1, 1, 1))
    model = PCL(method.preset.model)
    for task in method.tasks:
        assert task.loss(model, images[task.name], seeded())[task.name].isfinite()
    with pytest.raises(BadInput, match=r"'ageing' renders faces anew, but blobs has no .*: choose flip"):
        method.tasks[0].take(data.ImageSource(blobs, blobs.split("train")), blobs.split("train")[:2], rng)
    with pytest.raises(BadInput, match=r"'make-up' is changed by the renderer.*choose pcl_change"):
        methods.build("pcl_change_freed", preset_of(**{"loss.attribute": "make-up"}))


def test_positives_of_all_else_differ_in_the_attribute_half_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a change that changes nothing the freed method is the other one; one that blackens shows which half."""
    settings = preset_of(32, **{"loss.attribute": "occluder", "loss.mixing": 0.0})
    freed, plain = (methods.build(name, settings) for name in ("pcl_change_freed", "pcl_change"))
    model = PCL(settings.model).eval()
    with monkeypatch.context() as patch:
        patch.setattr(freed, "change", lambda seen, *_: seen)
        losses = [m.face(model, images(8), seeded())["face"].item() for m in (freed, plain)]
    assert losses[0] == pytest.approx(losses[1])
    shown: list[Tensor] = []
    monkeypatch.setattr(
        model, "face_feature", lambda x: shown.append(x) or x.flatten(1)[:, :128].contiguous()
    )
    model.face_projector = torch.nn.Identity()
    monkeypatch.setattr(freed, "change", lambda seen, *_: torch.zeros_like(seen))
    freed.face(model, images(200), seeded())
    black = (shown[0] == 0).flatten(1).all(1)
    assert len(black) == 400 and 160 < black.sum() < 240
    assert 60 < (black[:200] != black[200:]).sum() < 140  # of about half of the pairs, one of the two
