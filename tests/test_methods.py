"""pcl_lib.methods: losses against the oracle, where gradients reach, which negatives meet, how weights move."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from torch import Tensor, nn

from pcl_lib import augment, data, losses, methods, presets
from pcl_lib.data.labels import AU_NAMES
from pcl_lib.faces import render
from pcl_lib.faces.factors import NUMERIC, POSE_SPREAD
from pcl_lib.methods import PCLMethod
from pcl_lib.methods.pcl import take_turned
from pcl_lib.models import PCL, Features
from pcl_lib.presets import PRESETS, ModelPreset, Preset, ViewPreset
from pcl_lib.utils import BadInput

UNCHANGED = ViewPreset(crop="none", jitter=0, grey=0, blur=0, gradient=0)


def preset_of(size: int = 32, **changes: Any) -> Preset:
    model = ModelPreset(width=0.125, image_size=size, projector_hidden=16, projector_out=8)
    small = replace(PRESETS["paper"], model=model)
    train = {"train.pdd_batch": 4, "train.face_batch": 4, "train.pose_batch": 3, "train.pose_negatives": 4}
    return presets.override(small, train | changes)


def images(n: int, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("weight", [1.0, 25.0])
def test_pdd_loss_equals_the_oracle(weight: float) -> None:
    preset = preset_of(64, **{"loss.orthogonality": weight})
    model = PCL(preset.model).eval()
    batch = images(4, 64)
    with torch.no_grad():
        ours = PCLMethod(preset).pdd(model, batch, seeded(5))
        noise = 0.4 * torch.randn((8, 3, 64, 64), generator=seeded(5))
        oracle = oracles.pdd(model.state_dict(), batch / 255, (noise[:4], noise[4:]))
    assert ours["reconstruction"].item() == pytest.approx(oracle["reconstruction"].item(), rel=1e-5)
    assert ours["orthogonality"].item() == pytest.approx(oracle["orthogonality"].item(), rel=1e-4)
    wanted = oracle["reconstruction"] + weight * oracle["orthogonality"]
    assert ours["pdd"].item() == pytest.approx(wanted.item(), rel=1e-5)


class Recorder:
    """A model whose features are numbers of images, and whose picture of a pair is the image of its pose."""

    def mirror_features(self, both: Tensor) -> Features:
        self.both, number = both, torch.arange(float(len(both)))[:, None]
        return Features(number, number, number + 100)

    def decode(self, face: Tensor, pose: Tensor) -> Tensor:
        self.pairs = list(zip(face[:, 0].tolist(), (pose[:, 0] - 100).tolist(), strict=True))
        return self.both[[int(number) for _, number in self.pairs]]


def test_each_pose_is_drawn_with_both_faces_and_must_give_its_own_image() -> None:
    """An untrained decoder draws nearly the same for both faces: its loss alone would not notice a swap left out."""
    method = PCLMethod(preset_of(**{"loss.noise": 0.0}))
    model = Recorder()
    found = method.pdd(model, images(2), seeded())  # type: ignore[arg-type]
    s0, s1, f0, f1 = range(4)
    own, swapped = [(s0, s0), (s1, s1), (f0, f0), (f1, f1)], [(f0, s0), (f1, s1), (s0, f0), (s1, f1)]
    assert sorted(model.pairs) == sorted(own + swapped)
    assert found["reconstruction"] == 0  # every pair is compared with the image of its pose


def test_pdd_loss_of_pcl_plus_is_the_four_reconstructions_of_its_features() -> None:
    method = methods.build("pcl_plus", preset_of(**{"loss.noise": 0.0}))
    model = PCL(method.preset.model).eval()
    with torch.no_grad():
        ours = method.tasks[0].loss(model, images(4), seeded())
        s = images(4) / 255
        (_, face_s, pose_s), (_, face_f, pose_f) = model.features(s), model.features(s.flip(3))
        four = [
            (face_s, pose_s, s),
            (face_f, pose_f, s.flip(3)),
            (face_f, pose_s, s),
            (face_s, pose_f, s.flip(3)),
        ]
        wanted = sum((model.decode(face, pose) - target).abs().mean() for face, pose, target in four)
        apart = oracles.orthogonality(face_s, pose_s) + oracles.orthogonality(face_f, pose_f)
    assert ours["reconstruction"].item() == pytest.approx(float(wanted), rel=1e-5)
    assert ours["orthogonality"].item() == pytest.approx(apart.item(), rel=1e-4)


@pytest.mark.parametrize("even_odd", [False, True])
def test_pose_loss_against_the_batch_equals_the_oracle_on_the_same_views(even_odd: bool) -> None:
    preset = preset_of(**{"loss.negatives": "batch", "model.even_odd": even_odd})
    model = PCL(preset.model).eval()
    with torch.no_grad():
        ours = PCLMethod(preset).pose(model, images(3), seeded(2))
        same = augment.views(images(3), preset.pose_view, seeded(2), 2)
        w = model.state_dict()
        of_view, of_flip = (oracles.encode(w, x)[2] for x in (same, same.flip(3)))
        if even_odd:
            of_view, of_flip = (of_view - of_flip) / 2, (of_flip - of_view) / 2
        z, mirrored = (oracles.project(w, "pose_projector", x) for x in (of_view, of_flip))
        logits = oracles.mirror_logits(z, mirrored, 0.07)
    assert ours["pose"].item() == pytest.approx(oracles.info_nce(logits).item(), rel=1e-4)
    assert ours["pose_accuracy"].item() == pytest.approx((logits.argmax(1) == 0).double().mean().item())


def test_face_loss_equals_the_oracle_on_the_same_views() -> None:
    preset = preset_of()
    model, batch, generator = PCL(preset.model).eval(), images(4), seeded(1)
    with torch.no_grad():
        ours = PCLMethod(preset).face(model, batch, seeded(1))
        two = augment.views(batch, preset.face_view, generator, 2)
        mix = losses.draw_mix((8, 6), 1.6, "cpu", generator).double()
        permutation = torch.randperm(6, generator=generator)
        w = model.state_dict()
        z = oracles.project(w, "face_projector", oracles.encode(w, two)[1])
        logits = oracles.face_logits(z, 0.07, mix, permutation)
    assert ours["face"].item() == pytest.approx(oracles.info_nce(logits).item(), rel=1e-4)
    assert ours["face_accuracy"].item() == (logits.argmax(1) == 0).double().mean().item()


def test_simclr_loss_equals_the_oracle_on_the_same_views() -> None:
    preset = preset_of()
    model, batch = PCL(preset.model).eval(), images(4)
    with torch.no_grad():
        ours = methods.build("simclr", preset).tasks[0].loss(model, batch, seeded(1))
        two = augment.views(batch, preset.simclr_view, seeded(1), 2)
        w = model.state_dict()
        z = oracles.project(w, "face_projector", oracles.encode(w, two)[0])
    assert ours["simclr"].item() == pytest.approx(
        oracles.info_nce(oracles.plain_logits(z, 0.07)).item(), rel=1e-4
    )


class Tagged(nn.Module):
    """Features that tell which image a view is of, and whether it is mirrored: (one-hot image, mirrored)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def pose_feature(self, x: Tensor) -> Tensor:
        tag = (x[:, 0, 0, [0, -1]] * 255).round()  # the image's number is the red of its left upper corner
        mirrored = tag[:, 0] == 0
        which = torch.where(mirrored, tag[:, 1], tag[:, 0]).long() - 1
        return torch.cat([nn.functional.one_hot(which, self.count).float(), mirrored.float()[:, None]], 1)

    pose_projector = nn.Identity()


@pytest.mark.parametrize("negatives", ["own_flip", "released_code"])
def test_negatives_are_those_the_setting_names(negatives: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """method.md, section 5: own flips only; or features ordered [k][sample] but chunked as if ordered [sample][k]."""
    batch, count = 3, 4
    preset = replace(preset_of(**{"loss.negatives": negatives}), pose_view=UNCHANGED)
    tagged = torch.zeros(batch, 3, 32, 32, dtype=torch.uint8)
    tagged[:, 0, 0, 0] = torch.arange(batch) + 1
    seen: list[Tensor] = []

    def spy(z: Tensor, them: Tensor, *_: object, **__: object) -> Tensor:
        seen.extend([z, them])
        return torch.zeros(len(z), 1 + count)

    monkeypatch.setattr(losses, "pose_logits", spy)
    PCLMethod(preset).pose(Tagged(batch), tagged, seeded())  # type: ignore[arg-type]
    z, them = seen
    assert z[:, :batch].argmax(1).tolist() == [0, 1, 2, 0, 1, 2] and not z[:, batch].any()
    assert them.shape == (batch, count, batch + 1) and them[:, :, batch].all()  # flips, all of them
    own = [[0] * 4, [1] * 4, [2] * 4]
    chunked = [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2]]  # 0 1 2 0 1 2 0 1 2 0 1 2 in chunks of four
    assert them[:, :, :batch].argmax(2).tolist() == (own if negatives == "own_flip" else chunked)


def test_pose_loss_equals_the_oracle_on_the_same_views() -> None:
    preset = preset_of()
    model, batch, generator = PCL(preset.model).eval(), images(3), seeded(2)
    with torch.no_grad():
        ours = PCLMethod(preset).pose(model, batch, seeded(2))
        same = augment.views(batch, preset.pose_view, generator, 2)
        flips = augment.views(batch.flip(3), preset.pose_view, generator, 4)
        mix = losses.draw_mix((3, 4), 1.6, "cpu", generator).double()
        permutation = torch.randperm(4, generator=generator)
        w = model.state_dict()
        z, n = (oracles.project(w, "pose_projector", oracles.encode(w, x)[2]) for x in (same, flips))
        by_image = torch.stack([torch.stack([n[k * 3 + image] for k in range(4)]) for image in range(3)])
        logits = oracles.pose_logits(z, by_image, 0.07, mix, permutation)
    assert ours["pose"].item() == pytest.approx(oracles.info_nce(logits).item(), rel=1e-4)


def parts_with_gradient(model: PCL) -> set[str]:
    """Names of the parts that got a gradient other than zero; each part has it everywhere or nowhere."""
    found: dict[str, set[bool]] = {}
    for name, parameter in model.named_parameters():
        first, second = name.split(".")[:2]
        part = second if first == "encoder" and second.endswith("branch") else first
        found.setdefault(part, set()).add(parameter.grad is not None)
        if parameter.grad is not None and name.endswith("weight"):
            assert parameter.grad.abs().sum() > 0, name
    assert all(len(states) == 1 for states in found.values()), found
    return {part for part, states in found.items() if True in states}


@pytest.mark.parametrize(
    ("method", "task", "parts"),
    [
        ("pcl", "pdd", {"encoder", "face_branch", "pose_branch", "decoder"}),
        ("pcl", "face", {"encoder", "face_branch", "face_projector"}),
        ("pcl", "pose", {"encoder", "pose_branch", "pose_projector"}),
        ("pcl_plus", "pdd", {"encoder", "face_branch", "pose_branch", "decoder"}),
        ("pcl_plus", "face", {"encoder", "face_branch", "face_projector"}),
        ("pcl_plus", "pose", {"encoder", "pose_branch", "pose_projector"}),
        ("simclr", "simclr", {"encoder", "face_projector"}),
        ("simclr_noflip", "simclr", {"encoder", "face_projector"}),
    ],
)
def test_gradients_reach_the_parts_of_the_task_and_no_other(method: str, task: str, parts: set[str]) -> None:
    built = methods.build(method, preset_of())
    model = PCL(built.preset.model).train()
    (chosen,) = (t for t in built.tasks if t.name == task)
    chosen.loss(model, images(chosen.batch), seeded())[task].backward()
    assert parts_with_gradient(model) == parts


def test_narrow_pose_feature_is_trained_by_the_tasks_that_read_it() -> None:
    preset = preset_of(**{"model.pose_dim": 3})
    for task, extra in ((0, {"pose_squeeze", "pose_expand"}), (1, set()), (2, {"pose_squeeze"})):
        model = PCL(preset.model).train()
        chosen = PCLMethod(preset).tasks[task]
        chosen.loss(model, images(chosen.batch), seeded())[chosen.name].backward()
        assert {
            part for part in parts_with_gradient(model) if part.startswith("pose_s") or "expand" in part
        } == extra


def test_tasks_take_the_batches_of_the_preset_and_repeat_with_their_generator() -> None:
    preset = preset_of()
    method = methods.build("pcl", preset)
    assert [(task.name, task.batch) for task in method.tasks] == [("pdd", 4), ("face", 4), ("pose", 3)]
    model = PCL(preset.model).eval()
    state = torch.get_rng_state()
    with torch.no_grad():
        for task in method.tasks:
            values = [
                task.loss(model, images(task.batch), seeded(seed))[task.name].item() for seed in (1, 1, 2)
            ]
            assert values[0] == values[1] != values[2]
    assert torch.equal(state, torch.get_rng_state())


def test_simclr_sees_as_many_images_as_pcl_and_its_control_never_flips() -> None:
    preset = preset_of(**{"train.pdd_batch": 5})
    for name, share in (("simclr", 0.5), ("simclr_noflip", 0.0)):
        method = methods.build(name, preset)
        assert isinstance(method, methods.SimCLR)
        assert [task.batch for task in method.tasks] == [5 + 4 + 3]
        assert method.preset.simclr_view == replace(preset.simclr_view, flip=share)
        assert replace(method.preset, simclr_view=preset.simclr_view) == preset


def test_a_part_of_weight_0_is_left_out_and_its_images_go_to_the_others() -> None:
    whole = {"train.pdd_batch": 8, "train.face_batch": 16, "train.pose_batch": 4}
    cases = [
        ({}, [("pdd", 8), ("face", 16), ("pose", 4)]),
        ({"loss.pose": 0.0}, [("pdd", 9), ("face", 18)]),  # 28 images in the proportion of 8 and 16
        ({"loss.pdd": 0.0, "loss.pose": 0.0}, [("face", 28)]),
    ]
    for changes, tasks in cases:
        method = PCLMethod(preset_of(**whole, **changes))
        assert [(task.name, task.batch) for task in method.tasks] == tasks
        method.on_epoch_end([{"pdd": 1.0, "face": 2.0, "pose": 3.0}] * 3)
        assert method.weights.keys() == {name for name, _ in tasks}


def test_a_model_knows_the_noise_of_its_decoders_training(blobs: data.PreparedFaces) -> None:
    cases = (("pcl", 1.0, 0.3), ("pcl_plus", 1.0, 0.3), ("pcl", 0.0, 0.0), ("simclr", 1.0, 0.0))
    for name, weight, noise in cases:
        preset = preset_of(**{"loss.noise": 0.3, "loss.pdd": weight})
        method = methods.build(name, preset)
        model = PCL(method.preset.model)
        method.auxiliary(model, blobs)
        assert model.decoder_noise == noise


@pytest.mark.parametrize("change", ["rotate", "flip_rotate"])
def test_rotated_negatives_are_the_own_image_turned(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views change nothing here, so what is rotated must be the images (or their flips), K times over."""
    preset = preset_of(**{"loss.pose_change": change, "loss.mixing": 0.0})
    preset = replace(preset, pose_view=UNCHANGED)
    seen: list[tuple[Tensor, Tensor]] = []
    turn = augment.rotate

    def watched(x: Tensor, degrees: Tensor) -> Tensor:
        seen.append((x, degrees))
        return turn(x, degrees)

    monkeypatch.setattr("pcl_lib.methods.pcl.rotate", watched)
    PCLMethod(preset).pose(PCL(preset.model).eval(), images(3), seeded())
    ((source, degrees),) = seen
    wanted = images(3) / 255
    torch.testing.assert_close(
        source, (wanted.flip(3) if change == "flip_rotate" else wanted).repeat(4, 1, 1, 1)
    )
    assert degrees.abs().min() >= 20 and degrees.abs().max() <= 60
    assert len(degrees.unique()) == 12 and (degrees < 0).any() and (degrees > 0).any()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    return data.prepare_rendered(
        tmp_path_factory.mktemp("faces") / "set", identities=(3, 1, 1), images_per_identity=4, size=32
    )


@pytest.mark.parametrize("size", [32, 16])
def test_turned_heads_are_renderings_of_the_same_face_in_another_pose(
    size: int, rendered: data.PreparedFaces, blobs: data.PreparedFaces
) -> None:
    rows = rendered.split("train")[:4]
    source = data.ImageSource(rendered, rendered.split("train"), size=size)
    both = take_turned(source, rows, np.random.default_rng(3))
    torch.testing.assert_close(both[:4], source.take(rows))
    factors = rendered.table.iloc[rows].reset_index(drop=True)[list(NUMERIC)]
    rng = np.random.default_rng(3)
    for angle, (spread, most) in POSE_SPREAD.items():
        factors[angle] = rng.normal(0, spread, 4).clip(-most, most)
    torch.testing.assert_close(both[4:], data.resize_images(render(factors, 32), size))
    with pytest.raises(BadInput, match=r"blobs has no .*: choose flip"):
        take_turned(data.ImageSource(blobs, blobs.split("train")), blobs.split("train")[:2], rng)


SELF_SUPERVISED = ("moco", "byol", "simsiam")
BOUNDS = tuple(name for name in methods.METHODS if name.startswith("supervised"))


def step(name: str, faces: data.PreparedFaces) -> tuple[methods.Method, PCL, nn.Module, Tensor]:
    """A method after its first backward pass."""
    method = methods.build(name, preset_of())
    model = PCL(method.preset.model).train()
    beside = method.auxiliary(model, faces).train()
    (task,) = method.tasks
    source = data.ImageSource(faces, faces.split("train"), size=32)
    rows = np.resize(faces.split("train"), task.batch)
    taken = task.take(source, rows, np.random.default_rng(0))
    loss = task.loss(model, taken, seeded())[task.name]
    loss.backward()
    return method, model, beside, loss


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_gradients_of_siamese_methods_stop_at_their_targets(name: str, rendered: data.PreparedFaces) -> None:
    method, model, beside, _ = step(name, rendered)
    assert parts_with_gradient(model) == {"encoder", "face_projector"}
    trained = {key.split(".")[0] for key, p in beside.named_parameters() if p.grad is not None}
    assert trained == (set() if name == "moco" else {"predictor"})
    slow = [p for key, p in beside.named_parameters() if key.startswith("slow")]
    assert all(not p.requires_grad for p in slow) and bool(slow) == (name != "simsiam")
    if slow:
        before = [p.clone() for p in slow]
        with torch.no_grad():
            for p in model.parameters():
                p += 1
        method.on_step_end(model)
        for old, new, target in zip(before, slow, model.parameters(), strict=True):
            torch.testing.assert_close(new, 0.99 * old + 0.01 * target)


def test_moco_meets_the_keys_of_earlier_batches(rendered: data.PreparedFaces) -> None:
    """The loss by hand: own key first, then the queue as it was before this batch."""
    method = methods.build("moco", preset_of())
    model = PCL(method.preset.model).train()
    beside = method.auxiliary(model, rendered)
    queue = beside["loss"].memory_bank.bank.clone()
    assert queue.shape == (2048, 8)
    loss = method.tasks[0].loss(model, images(11), seeded(1))["moco"]
    queries, others = augment.views(images(11), method.preset.simclr_view, seeded(1), 2).chunk(2)
    normal = nn.functional.normalize
    with torch.no_grad():
        q, k = (normal(model.face_projector(model.general_feature(x))) for x in (queries, others))
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.07
    assert loss.item() == pytest.approx(oracles.info_nce(logits.double()).item(), rel=1e-4)
    assert torch.equal(beside["loss"].memory_bank.bank[11:], queue[11:])
    torch.testing.assert_close(beside["loss"].memory_bank.bank[:11], k, atol=1e-5, rtol=0)


def test_byol_and_simsiam_losses_are_mean_negative_cosines(rendered: data.PreparedFaces) -> None:
    for name in ("byol", "simsiam"):
        method = methods.build(name, preset_of())
        model = PCL(method.preset.model).train()
        predictor = method.auxiliary(model, rendered)["predictor"]
        loss = method.tasks[0].loss(model, images(11), seeded(1))[name]
        both = augment.views(images(11), method.preset.simclr_view, seeded(1), 2)
        with torch.no_grad():
            z = model.face_projector(model.general_feature(both)).chunk(2)
            cosine = [nn.functional.cosine_similarity(predictor(z[i]), z[1 - i]).mean() for i in (0, 1)]
        assert loss.item() == pytest.approx(-(cosine[0] + cosine[1]).item() / 2, abs=1e-5)


@pytest.mark.parametrize("name", BOUNDS)
def test_supervised_methods_train_trunk_and_head_on_true_labels(
    name: str, rendered: data.PreparedFaces
) -> None:
    method, model, head, _ = step(name, rendered)
    assert parts_with_gradient(model) == {"encoder"}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    table, train = rendered.table, rendered.split("train")
    taken = method.tasks[0].take(data.ImageSource(rendered, train), train, np.random.default_rng(0))
    target = taken.targets.numpy()
    if name == "supervised_pose":
        angles = table[["yaw", "pitch", "roll"]].to_numpy()[train]
        np.testing.assert_allclose(target, (angles - angles.mean(0)) / angles.std(0), atol=1e-5)
    elif name == "supervised_units":
        np.testing.assert_array_equal(
            target, table[[n for n in AU_NAMES if n in table]].to_numpy()[train] >= 2
        )
    else:
        names = table["identity" if name.endswith("identity") else "expression"].to_numpy()[train]
        assert len({*zip(names, target, strict=True)}) == len(set(names)) == len(set(target))


def test_supervised_methods_leave_unlabelled_images_out(blobs: data.PreparedFaces) -> None:
    pose, units = (methods.build(f"supervised_{name}", preset_of()) for name in ("pose", "units"))
    target = torch.tensor([[1.0, float("nan")], [0.0, 1.0]])
    output = torch.tensor([[2.0, 99.0], [0.5, 1.0]])
    assert pose.error(output, target).item() == pytest.approx((1 + 0.5 + 0) / 3)
    wanted = np.log1p(np.exp(-2)) + np.log1p(np.exp(0.5)) + np.log1p(np.exp(-1))
    assert units.error(output, target).item() == pytest.approx(wanted / 3, rel=1e-5)
    with pytest.raises(BadInput, match="blobs has no labels for yaw"):
        pose.auxiliary(PCL(pose.preset.model), blobs)
    classes = methods.build("supervised_expression", preset_of())
    scores = torch.tensor([[2.0, 0.0], [9.0, 9.0], [1.0, 1.5]])
    wanted = (np.log1p(np.exp(-2)) + np.log1p(np.exp(-0.5))) / 2
    assert classes.error(scores, torch.tensor([0, -1, 1])).item() == pytest.approx(wanted, rel=1e-5)
    assert (
        classes.error(scores, torch.tensor([-1, -1, -1])).item() == 0
    )  # a batch without labels teaches nothing


def epochs(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"face": face, "pose": pose, "pdd": 1.0, "epoch": n} for n, (face, pose) in enumerate(pairs)]


def test_weights_move_from_the_third_epoch_on() -> None:
    method = PCLMethod(preset_of(**{"loss.face": 0.5, "loss.pose": 2.0, "loss.pdd": 3.0}))
    start = {"pdd": 3.0, "face": 0.5, "pose": 2.0}
    seen = epochs((5.0, 4.0), (4.0, 3.9), (3.0, 1.0))
    method.on_epoch_end(seen[:1])
    assert method.weights == start
    for count in (2, 3):
        method.on_epoch_end(seen[:count])
        previous, before = seen[count - 1], seen[count - 2]
        wanted = oracles.dynamic_weights(
            {task: previous[task] for task in ("face", "pose")},
            {task: before[task] for task in ("face", "pose")},
        )
        assert method.weights == pytest.approx(
            {"pdd": 3.0, "face": 0.5 * wanted["face"], "pose": 2 * wanted["pose"]}
        )


def test_fixed_weights_stay() -> None:
    method = PCLMethod(preset_of(**{"loss.dynamic": False}))
    method.on_epoch_end(epochs((5.0, 4.0), (4.0, 3.9), (3.0, 1.0)))
    assert method.weights == {"pdd": 1, "face": 1, "pose": 1}


def test_a_saturated_loss_does_not_end_the_run() -> None:
    """A pose loss of exactly 0, as float32 gives for logits far apart, counts as one that no longer falls."""
    method = PCLMethod(preset_of())
    method.on_epoch_end(epochs((5.0, 0.0), (5.0, 0.0)))
    assert method.weights == pytest.approx({"pdd": 1, "face": 1, "pose": 1})


def test_random_trains_nothing_and_unknown_names_are_refused() -> None:
    assert methods.build("random", preset_of()).tasks == ()
    with pytest.raises(BadInput, match="unknown method 'dino': choose one of pcl, pcl_plus"):
        methods.build("dino", preset_of())
    with pytest.raises(
        BadInput, match=r"unknown loss.negatives 'none': choose one of own_flip, released_code, batch"
    ):
        PCLMethod(preset_of(**{"loss.negatives": "none"}))
    with pytest.raises(BadInput, match=r"unknown loss.pose_change 'shear': choose one of flip, rotate"):
        PCLMethod(preset_of(**{"loss.pose_change": "shear"}))
    with pytest.raises(BadInput, match="'batch' knows flips alone"):
        methods.build("pcl_plus", preset_of(**{"loss.pose_change": "rotate"}))
