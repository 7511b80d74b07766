"""Probes as the authors' code trains them (notebooks/method.md, section 7): the score of the best TEST epoch.

Choosing the epoch on the test images makes the score optimistic; it is here to be compared with numbers that
were made that way.
Features are extracted once, which changes nothing: the encoder is frozen. Images come in a new order in each epoch,
where the code keeps that of its list for expression and action units: a prepared folder may be sorted by class.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.probes.linear import CachedFeatures
from pcl_lib.probes.tasks import Split

EPOCHS, BATCH = 300, 256
POSE_BATCH = 128
# The PCFRL code calls an action unit present where its probability exceeds 0.0005; this is that probability's logit.
PCFRL_LOGIT = math.log(0.0005 / 0.9995)
# Size and margin of the PCFRL code's face recognition: its configuration file of that task is not public, so that
# these two, and the learning rate of both tasks (its expression probe's), are our choice.
PAIR_SIZE, MARGIN = 512, 0.5


def predict_classes(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, int]:
    """A linear layer by cross-entropy, Adam at 1e-2, weights from N(0, 0.01). y: [rows of the table] classes from 0 on.

    Returns the predicted classes of the test rows in the epoch (from 1 on) of their best accuracy, and that epoch.
    """
    layer = _linear(cached.x.shape[1], int(max(y[rows].max() for rows in split)) + 1, spread=0.01)
    train, truth = (torch.from_numpy(y[rows].astype(np.int64)) for rows in (split.train, split.test))
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    best, epoch = _best_epoch(
        _inputs(cached, split), train, layer, adam, F.cross_entropy,
        lambda out: float((out.argmax(1) == truth).float().mean()),
    )  # fmt: skip
    return best.argmax(1).numpy(), epoch


def predict_presence(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, int]:
    """A linear layer by binary cross-entropy, Adam at 1e-2. y: [rows of the table, C] bool.

    Returns the logits of the test rows [n, C] (present from 0 on) in the epoch of their best mean F1, and that epoch.
    """
    layer = _linear(cached.x.shape[1], y.shape[1])
    train, truth = torch.from_numpy(y[split.train]).float(), torch.from_numpy(y[split.test])
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    best, epoch = _best_epoch(
        _inputs(cached, split), train, layer, adam, F.binary_cross_entropy_with_logits,
        lambda out: _mean_f1(out >= 0, truth),
    )  # fmt: skip
    return best.numpy(), epoch


def predict_presence_pcfrl(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, int]:
    """Batch norm and a linear layer by binary cross-entropy, Adam at 1e-2. y: [rows of the table, C] bool.

    Returns the logits of the test rows [n, C] (present above `PCFRL_LOGIT`) in the epoch of their best mean F1, and
    that epoch. Batch norm gathers its statistics in the first epoch alone: the code then calls `eval()` and never
    `train()` again.
    Source: the PCFRL code, main_au.py.
    """
    size = cached.x.shape[1]
    layer = nn.Sequential(nn.BatchNorm1d(size), _linear(size, y.shape[1]))
    train, truth = torch.from_numpy(y[split.train]).float(), torch.from_numpy(y[split.test])
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    best, epoch = _best_epoch(
        _inputs(cached, split), train, layer, adam, F.binary_cross_entropy_with_logits,
        lambda out: _mean_f1(out > PCFRL_LOGIT, truth), norm_epochs=1,
    )  # fmt: skip
    return best.numpy(), epoch


def predict_values(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, int]:
    """Batch norm and a linear layer by absolute error, AdamW at a constant 1e-3. y: [rows of the table, C].

    Returns the predictions of the test rows [n, C] in the epoch of their least mean error, and that epoch.
    """
    size = cached.x.shape[1]
    layer = nn.Sequential(nn.BatchNorm1d(size), _linear(size, y.shape[1]))
    train, truth = (torch.from_numpy(y[rows]).float() for rows in (split.train, split.test))
    adam = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    best, epoch = _best_epoch(
        _inputs(cached, split), train, layer, adam, F.l1_loss, lambda out: -float((out - truth).abs().mean()),
        batch=POSE_BATCH, decay=False,
    )  # fmt: skip
    return best.numpy(), epoch


class _OfPairs(nn.Module):
    """A layer on both images of pairs, one after the other: [n, 2, D] -> [n, 2, C]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.layer(x[:, 0]), self.layer(x[:, 1])], 1)


def verify_pcfrl(cached: CachedFeatures, train: pd.DataFrame, test: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Batch norm and a linear layer by the cosine embedding loss, Adam at a constant 1e-2.

    train, test: pairs, with first and second (rows of the table) and same. The margin of the loss is the threshold
    of the cosine from which on two images are judged to show one person.
    Returns whether each test pair was judged rightly [n] bool, in the epoch of their best accuracy, and that epoch.
    Source: the PCFRL code, main_id.py.
    """
    size = cached.x.shape[1]
    layer = _OfPairs(nn.Sequential(nn.BatchNorm1d(size), _linear(size, PAIR_SIZE)))
    same = torch.tensor(test["same"].to_numpy(bool))

    def ends(pairs: pd.DataFrame) -> Tensor:
        return torch.stack([cached.at(pairs[end].to_numpy()) for end in ("first", "second")], 1).cpu()

    target = 2 * torch.tensor(train["same"].to_numpy(np.float32)) - 1

    def right(out: Tensor) -> Tensor:
        return (F.cosine_similarity(out[:, 0], out[:, 1], eps=1e-6) >= MARGIN) == same

    best, epoch = _best_epoch(
        (ends(train), ends(test)), target, layer, torch.optim.Adam(layer.parameters(), lr=1e-2),
        lambda out, truth: F.cosine_embedding_loss(out[:, 0], out[:, 1], truth, margin=MARGIN),
        lambda out: float(right(out).float().mean()), decay=False,
    )  # fmt: skip
    return right(best).numpy(), epoch


def _inputs(cached: CachedFeatures, split: Split) -> tuple[Tensor, Tensor]:
    return cached.at(split.train).cpu(), cached.at(split.test).cpu()


def _linear(inputs: int, outputs: int, spread: float | None = None) -> nn.Linear:
    """As torch starts it; or with weights from N(0, spread) and no bias."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        layer = nn.Linear(inputs, outputs)
        if spread is not None:
            nn.init.normal_(layer.weight, 0, spread)
            nn.init.zeros_(layer.bias)
        return layer


def _mean_f1(predicted: Tensor, truth: Tensor) -> float:
    hits = (predicted & truth).sum(0).double()
    return float((2 * hits / (predicted.sum(0) + truth.sum(0)).clamp_min(1)).mean())


def _best_epoch(
    inputs: tuple[Tensor, Tensor],
    target: Tensor,
    layer: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[Tensor], float],
    *,
    batch: int = BATCH,
    decay: bool = True,
    norm_epochs: int | None = None,
) -> tuple[Tensor, int]:
    """Train for `EPOCHS` in shuffled batches; the outputs of the test inputs in their best epoch, and that epoch.

    inputs: of train and test. decay: a cosine schedule. norm_epochs: epochs in which batch norm is in training mode.
    """
    x, test = inputs
    order = torch.Generator().manual_seed(0)
    start = optimizer.param_groups[0]["lr"]
    best, highest, when = torch.empty(0), -math.inf, 0
    for epoch in range(EPOCHS):
        if decay:
            optimizer.param_groups[0]["lr"] = start * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        layer.train(norm_epochs is None or epoch < norm_epochs)
        for rows in torch.randperm(len(x), generator=order).split(batch):
            if len(rows) == 1:
                continue  # batch norm needs two
            optimizer.zero_grad()
            loss(layer(x[rows]), target[rows]).backward()
            optimizer.step()
        layer.eval()
        with torch.no_grad():
            out = layer(test)
        if (now := score(out)) > highest:
            best, highest, when = out, now, epoch + 1
    return best, when
