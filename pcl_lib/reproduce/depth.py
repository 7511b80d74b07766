"""Does depth make pose easier, or identity? The renderer's depth as a network's input, and as its target."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.data.rendered import RenderedFaces
from pcl_lib.faces import render_depth
from pcl_lib.faces.depth import BEHIND
from pcl_lib.faces.factors import NUMERIC, POSE
from pcl_lib.methods.flow import FieldDecoder
from pcl_lib.methods.supervised import standard_angles, training_people
from pcl_lib.models.encoder import as_float, convolution
from pcl_lib.models.patches import PATCH
from pcl_lib.presets import ModelPreset
from pcl_lib.probes.tasks import plan
from pcl_lib.reproduce.beyond import probed_angles
from pcl_lib.reproduce.judge import verification
from pcl_lib.tables import Estimate
from pcl_lib.utils import spent

CHANNELS = (64, 96, 128)  # of the network, at strides 4, 8 and 16
FEATURE = 128  # numbers that experiments with a target squeeze an image into
BATCH, LR = 96, 2e-3
COLOUR, DEPTH = [0, 1, 2], [3]
PARTS = {"colour": COLOUR, "depth": DEPTH, "colour and depth": COLOUR + DEPTH}
JUDGED = {
    "yaw MAE": 1,
    "pitch MAE": 1,
    "roll MAE": 1,
    "verification": 3,
    "cross-pose verification": 3,
}  # digits


def with_depth(faces: RenderedFaces) -> Tensor:
    """Colours and depth of a rendered set: float32 [n, 4, S, S] in 0..1; depth 0 is the background."""
    depth = render_depth(faces.table[list(NUMERIC)], faces.image_size)
    scaled = (1 - depth / BEHIND) / 2  # the pivot of the head is at 0.5
    return torch.cat([as_float(faces.images(np.arange(len(faces)))), scaled], 1).clamp(0, 1)


def encoder(channels: int, outputs: int, size: int, seed: int) -> nn.Sequential:
    """A small network from [N, channels, S, S] to [N, outputs]; its last layer is linear, the one before flat maps."""
    widths = [channels * PATCH**2, *CHANNELS]
    flat = CHANNELS[-1] * (size // (4 * PATCH)) ** 2
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        layers = [
            convolution(a, b, "batch", stride)
            for (a, b), stride in zip(pairwise(widths), (1, 2, 2), strict=True)
        ]
        return nn.Sequential(nn.PixelUnshuffle(PATCH), *layers, nn.Flatten(), nn.Linear(flat, outputs))


@spent("train")
def train(
    network: nn.Module, x: Tensor, y: Tensor, error: Callable[[Tensor, Tensor], Tensor], steps: int, seed: int
) -> None:
    """Fit a network from x [n, ...] to y [n, ...] by `steps` of Adam on random batches, and put it in eval mode."""
    optimizer = torch.optim.Adam(network.parameters(), LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    network.to(memory_format=torch.channels_last).train()
    for _ in range(steps):
        rows = torch.randint(len(x), (BATCH,), generator=generator)
        loss = error(network(x[rows].contiguous(memory_format=torch.channels_last)), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


@torch.inference_mode()
def outputs_of(network: nn.Module, x: Tensor) -> Tensor:
    """What a network makes of x [n, ...]: [n, D]."""
    return torch.cat([network(part) for part in x.split(256)])


def depth_input(faces: RenderedFaces, pictures: Tensor, steps: int, seed: int) -> pd.DataFrame:
    """Networks that get colour, depth or both, told the angles or who is who; a row per input.

    faces: with pairs, and with different people in train and test; pictures: of `with_depth`. Returns input, the
    errors of the angles in degrees on test people, by the network that was told angles, and verification of test
    people by the cosine of the last maps of the network that was told the training people.
    """
    train_rows = torch.from_numpy(faces.split("train"))
    angles = torch.from_numpy(standard_angles(faces))[train_rows]
    people = torch.from_numpy(training_people(faces))[train_rows]
    truth = faces.table[list(POSE)].to_numpy(float)[train_rows]
    rows = []
    for name, channels in PARTS.items():
        x = pictures[:, channels]
        told_angles = encoder(len(channels), len(POSE), faces.image_size, seed)
        train(told_angles, x[train_rows], angles, F.l1_loss, steps, seed)
        told_people = encoder(len(channels), int(people.max()) + 1, faces.image_size, seed)
        train(told_people, x[train_rows], people, F.cross_entropy, steps, seed)
        found = outputs_of(told_angles, x).double().numpy() * truth.std(0) + truth.mean(0)
        rows.append({"input": name} | judged(faces, found, outputs_of(told_people[:-1], x)))
    return pd.DataFrame(rows)


def depth_target(faces: RenderedFaces, pictures: Tensor, steps: int, seed: int) -> pd.DataFrame:
    """Features learnt by painting the image, its depth or both from its colours, without labels; a row per target.

    faces, pictures: as for `depth_input`. An encoder squeezes the colours into `FEATURE` numbers, from which a decoder
    paints the target (L1). Returns target ("nothing" is the untrained encoder) and the same columns as `depth_input`:
    angles by a linear probe on the frozen feature, verification by its cosine.
    """
    train_rows, colours = torch.from_numpy(faces.split("train")), pictures[:, COLOUR]
    config = ModelPreset(image_size=faces.image_size, norm="batch", width=0.5)
    rows = []
    for name, channels in {"nothing": [], **PARTS}.items():
        network = encoder(len(COLOUR), FEATURE, faces.image_size, seed)
        if channels:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                painter = nn.Sequential(network, FieldDecoder(config, FEATURE, len(channels)))
            train(painter, colours[train_rows], pictures[train_rows][:, channels], F.l1_loss, steps, seed)
        feature = outputs_of(network.eval(), colours)
        rows.append({"target": name} | judged(faces, probed_angles(feature, faces), feature))
    return pd.DataFrame(rows)


def judged(faces: RenderedFaces, angles: np.ndarray, identity: Tensor) -> dict[str, Any]:
    """`JUDGED` on the test people: angles [n, 3] in degrees and features of identity [n, D] of all images."""
    test, made = faces.split("test"), plan(faces)
    error = np.abs(angles - faces.table[list(POSE)].to_numpy(float))[test].mean(0)
    row: dict[str, Any] = {f"{angle} MAE": value for angle, value in zip(POSE, error, strict=True)}
    for task, pairs in (("verification", made.pairs), ("cross-pose verification", made.cross_pose)):
        row[task] = np.nan if pairs is None else verification(identity, pairs)
    return row


def summary(rows: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Rows of several seeds (column seed) as one row per `kind` ("input" or "target"): mean and sample deviation."""
    table = []
    for name, part in rows.groupby(kind, sort=False):
        row: dict[str, Any] = {kind: name, "seeds": part["seed"].nunique()}
        for column, digits in JUDGED.items():
            row[column] = Estimate(float(part[column].mean()), std=float(part[column].std()), digits=digits)
        table.append(row)
    return pd.DataFrame(table)
