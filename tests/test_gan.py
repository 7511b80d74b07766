"""The conditional GAN: its losses by hand, where gradients go, what it learns, what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import blob_images
from torch import Tensor

from pcl_lib import data, methods, presets, pretrain
from pcl_lib.methods.gan import DRGAN, RECONSTRUCTION, shuffled
from pcl_lib.methods.supervised import Labelled
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS
from pcl_lib.utils import BadInput

SIZE, PEOPLE = 16, 12
PRESET = presets.override(
    PRESETS["smoke"],
    {"model.image_size": SIZE, "train.pdd_batch": 16, "train.face_batch": 8, "train.pose_batch": 8},
)


def prepared(folder: Path, table: pd.DataFrame) -> data.PreparedFaces:
    images = blob_images(len(table), SIZE)
    data.write_prepared(folder, images, table, name="labelled blobs", source="drawn by the tests")
    return data.PreparedFaces(folder)


def labels(n: int = 8 * PEOPLE) -> pd.DataFrame:
    """Angles are where the blob lies, so that they can be learnt: `blob_images` draws its places first."""
    places = np.random.default_rng(0)
    x, y = (places.uniform(0.3, 0.7, (n, 1, 1)).ravel() for _ in range(2))
    table = pd.DataFrame({"identity": np.arange(n) % PEOPLE, "yaw": 100 * (x - 0.5), "pitch": 50 * (y - 0.5)})
    return table.assign(roll=np.random.default_rng(1).normal(0, 5, n), split="train")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    return prepared(tmp_path_factory.mktemp("gan") / "set", labels())


@pytest.fixture
def built(faces: data.PreparedFaces) -> tuple[DRGAN, PCL, Labelled]:
    method = methods.build("drgan", PRESET)
    assert isinstance(method, DRGAN)
    model = PCL(method.preset.model).train()
    method.auxiliary(model, faces).train()
    source = data.ImageSource(faces, faces.split("train"))
    return method, model, method.take(source, np.arange(6), np.random.default_rng(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def cross_entropy(logits: Tensor, target: list[int]) -> float:
    x = logits.detach().double().numpy()
    chosen = x[np.arange(len(x)), target]
    return float(np.mean(np.log(np.exp(x).sum(1)) - chosen))


def test_batches_have_person_and_standard_angles(built: tuple[DRGAN, PCL, Labelled]) -> None:
    method, _, batch = built
    table = labels()
    assert batch.targets[:, 0].tolist() == list(range(6))
    yaw = table["yaw"].to_numpy()
    assert np.allclose(batch.targets[:, 1].numpy(), ((yaw - yaw.mean()) / yaw.std())[:6], atol=1e-5)
    assert method.people == PEOPLE


def test_losses_are_those_of_the_discriminators_answers(
    built: tuple[DRGAN, PCL, Labelled], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, model, batch = built
    answers: list[tuple[Tensor, Tensor]] = []
    own = method.discriminator.forward

    def heard(images: Tensor) -> tuple[Tensor, Tensor]:
        answers.append(own(images))
        return answers[-1]

    monkeypatch.setattr(method.discriminator, "forward", heard)
    people, angles = list(range(6)), batch.targets[:, 1:]
    found = method.discriminate(model, batch, seeded())
    (true, true_angles), (drawn, _) = answers
    wanted = cross_entropy(true, people) + cross_entropy(drawn, [PEOPLE] * 6)
    wanted += float((true_angles - angles).abs().mean().detach())
    assert found["discriminator"].item() == pytest.approx(wanted, rel=1e-4)
    answers.clear()
    found = method.generate(model, batch, seeded())
    ((drawn, drawn_angles),) = answers
    code = shuffled(angles, seeded())
    parts = cross_entropy(drawn, people) + float((drawn_angles - code).abs().mean().detach())
    parts += found["own pose"].item() + RECONSTRUCTION * found["reconstruction"].item()
    assert found["generator"].item() == pytest.approx(parts, rel=1e-4)
    assert sorted(code.flatten().tolist()) == sorted(angles.flatten().tolist()) and not torch.equal(
        code, angles
    )


def test_each_step_moves_its_own_side_alone(built: tuple[DRGAN, PCL, Labelled]) -> None:
    method, model, batch = built
    method.discriminate(model, batch, seeded())["discriminator"].backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in method.discriminator.parameters())
    method.discriminator.zero_grad(set_to_none=True)
    method.generate(model, batch, seeded())["generator"].backward()
    assert all(p.grad is None and p.requires_grad for p in method.discriminator.parameters())
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert moved == {"encoder", "pose_squeeze", "face_squeeze", "decoder"}


def test_it_learns_to_draw_and_to_tell_the_angles(faces: data.PreparedFaces, tmp_path: Path) -> None:
    longer = presets.override(
        PRESET, {"train.epochs": 6, "train.iterations_per_epoch": 20, "train.frames_per_identity": 60}
    )
    done = pretrain.fit("drgan", preset=longer, faces=faces, out=tmp_path, progress=False)
    first, last = done.history.iloc[0], done.history.iloc[-1]
    for name in ("reconstruction", "own pose"):
        assert last[name] < 0.8 * first[name], name
    found = done.model.features(faces.images(np.arange(10)))
    assert found.pose.shape == (10, 3) and done.model.decode(found.face, found.pose).shape == (
        10,
        3,
        SIZE,
        SIZE,
    )


@pytest.mark.parametrize("change", [{"yaw": np.nan}, {"identity": None}])
def test_images_without_both_labels_are_refused(tmp_path: Path, change: dict[str, float]) -> None:
    table = labels(24)
    name, value = next(iter(change.items()))
    table = table.drop(columns=name) if value is None else table.assign(**{name: [value, *table[name][1:]]})
    faces = prepared(tmp_path / "set", table)
    method = methods.build("drgan", PRESET)
    with pytest.raises(BadInput, match=r"labelled blobs has (no labels for identity|some without): choose"):
        method.auxiliary(PCL(method.preset.model), faces)
