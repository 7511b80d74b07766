"""Each method learns: its loss falls, and a linear reader finds more in its features than in the untrained encoder's.

The faces are drawn here, for speed: 16 pixels, and all that is read has a place in them. What a method should win at
is yaw where it is not blind to it, and its own labels where it has some.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from pcl_lib import data, disentangle, methods, presets, pretrain, probes
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS, Preset

PEOPLE, EACH, SIZE = {"train": 60, "validation": 10, "test": 30}, 8, 16
MOUTHS = {"neutral": (0.08, 0.04), "happy": (0.22, 0.04), "surprise": (0.08, 0.12)}  # half width, half height


def factors(rng: np.random.Generator) -> pd.DataFrame:
    n = EACH * sum(PEOPLE.values())
    angles = {
        name: rng.normal(0, std, n).clip(-60, 60) for name, std in (("yaw", 20), ("pitch", 8), ("roll", 6))
    }
    split = np.repeat(list(PEOPLE), [EACH * count for count in PEOPLE.values()])
    mouth, brow = rng.choice(list(MOUTHS), n), rng.uniform(0, 5, n)
    return pd.DataFrame(
        {"identity": np.arange(n) // EACH, "split": split, **angles, "expression": mouth, "au01": brow}
    )


def spots(x: np.ndarray, y: np.ndarray, width: np.ndarray | float, height: np.ndarray | float) -> np.ndarray:
    """Soft ellipses around 0."""
    return np.exp(-((x / width) ** 2 + (y / height) ** 2) / 2)


def drawn_heads(table: pd.DataFrame, rng: np.random.Generator) -> Tensor:
    """Heads whose features move as they turn; skin and hair are a person's, ground, place and light an image's."""
    n = len(table)
    look = rng.uniform(0, 1, (n // EACH, 6, 1, 1)).repeat(EACH, 0)
    turn, nod, roll, brow = table[["yaw", "pitch", "roll", "au01"]].to_numpy().T[:, :, None, None]
    turn, nod, roll = turn / 180, nod / 120, np.deg2rad(roll)
    y, x = (np.indices((SIZE, SIZE))[:, None] + 0.5) / SIZE - 0.5 + rng.uniform(-0.06, 0.06, (2, n, 1, 1))
    x, y = np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x
    head = 1 / (1 + np.exp(40 * (np.hypot(x, 0.85 * y) - 0.36)))
    hair = head / (1 + np.exp(40 * (y + nod + 0.28)))
    x, y = x + turn, y + nod
    width, height = np.array([MOUTHS[name] for name in table["expression"]]).T[:, :, None, None]
    eyes = sum(spots(x + side, y + 0.05, 0.05, 0.04) for side in (-0.14, 0.14))
    brows = sum(brow / 5 * spots(x + side, y + 0.2, 0.1, 0.06) for side in (-0.14, 0.14))
    image = rng.uniform(0, 0.6, (n, 3, 1, 1)) * np.ones((n, 3, SIZE, SIZE))
    for mask, colour in (
        (head, 0.45 + 0.5 * look[:, :3]),
        (hair, 0.4 * look[:, 3:]),
        (np.minimum(eyes + brows, 1), 0.05),
        (spots(x, y - 0.17, width, height), np.array([0.5, 0.05, 0.1])[:, None, None]),
    ):
        image += mask[:, None] * (colour - image)
    image = image * rng.uniform(0.7, 1.05, (n, 1, 1, 1)) + rng.normal(0, 0.02, image.shape)
    return torch.from_numpy((255 * image.clip(0, 1)).astype(np.uint8))


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    rng = np.random.default_rng(0)
    table = factors(rng)
    folder = tmp_path_factory.mktemp("heads") / "set"
    data.write_prepared(folder, drawn_heads(table, rng), table, name="heads", source="drawn by the tests")
    return data.PreparedFaces(folder)


def preset_of(name: str) -> Preset:
    """25 iterations an epoch; gentle views, which for labels leave colours as they are: skin tells who somebody is."""
    view = {"gradient": 0.0, "blur": 0.0, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
    view |= {"jitter": 0.0, "grey": 0.0} if name.startswith("supervised") else {}
    crop = {"crop": "resized", "crop_scale": (0.4, 1.0)}
    views = {"face_view": view | crop, "pose_view": view, "simclr_view": view | crop}
    epochs = METHODS[name].epochs
    # With group norm supervised expressions are at chance after 350 iterations still.
    norm = "batch" if name.startswith("supervised") else "group"
    few = {"model.image_size": SIZE, "model.width": 0.25, "model.norm": norm, "loss.temperature": 0.1}
    few |= {"loss.noise": 0.1, "train.lr": 2e-3, "train.weight_decay": 1e-6, "train.epochs": epochs}
    few |= {
        "train.iterations_per_epoch": 25,
        "train.frames_per_identity": 8,
        "train.checkpoint_every": epochs,
    }
    few |= {f"{place}.{key}": value for place, changes in views.items() for key, value in changes.items()}
    return presets.override(PRESETS["smoke"], few)


def read(model: PCL, faces: data.PreparedFaces, what: str) -> float:
    """How well a linear reader of the general feature does on test people: R2, accuracy or AUC."""
    if what == "au01":
        table = probes.evaluate(model, faces)
        chosen = (table["feature"] == "general") & (table["metric"] == "AUC au01")
    else:
        table = disentangle.leakage(model, faces, features=("general",))
        chosen = table["factor"] == what
    return float(table.loc[chosen, "value"].item())


class Case(NamedTuple):
    """What a method should read better than the untrained encoder, by how much, and after how many epochs."""

    what: str = "yaw"
    more: float = 0.1
    epochs: int = 6


# Gains found with seeds 0 to 3, not every seed with every method: yaw .26 to .47, expression .42 to .48, au01 .13
# and .17, identity .13 and .14; yaw (seeds 0 and 1) of fabnet .27 and .41, of tcae .22 and .41, of facecycle .18
# and .38.
METHODS = {
    "simclr": Case(epochs=12),
    "simclr_noflip": Case(),
    "moco": Case(),
    "byol": Case(),
    "simsiam": Case(),
    "masked": Case(epochs=12),
    "fabnet": Case(epochs=12),
    "tcae": Case(epochs=12),
    "facecycle": Case(),
    "pcl": Case(epochs=4),
    "pcl_plus": Case(epochs=4),
    "pcl_change": Case(epochs=4),  # of the flip, which is pcl
    "pcl_change_freed": Case(epochs=4),
    "supervised_pose": Case(),
    "supervised_expression": Case("expression", epochs=8),
    "supervised_identity": Case("identity", 0.05, epochs=12),
    "supervised_units": Case("au01", 0.05),
}


def test_every_method_that_trains_is_tested() -> None:
    elsewhere = {"pcl_video", "drgan"}  # of clips, and of two labels at once: test_video.py, test_gan.py
    assert METHODS.keys() == methods.METHODS.keys() - {"random"} - elsewhere


@pytest.mark.parametrize("name", METHODS)
def test_losses_fall_and_the_probe_beats_the_untrained_encoder(
    name: str, heads: data.PreparedFaces, tmp_path: Path
) -> None:
    run = pretrain.fit(name, preset=preset_of(name), faces=heads, out=tmp_path, seed=0, progress=False)
    for task in run.method.tasks:
        losses = run.history[task.name]
        assert losses.iloc[-1] < losses.iloc[0], task.name
    what, more, _ = METHODS[name]
    untrained = PCL(run.model.config, seed=0).eval()
    assert read(run.model, heads, what) > read(untrained, heads, what) + more
