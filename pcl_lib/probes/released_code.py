"""Probes as the released code trains them (notebooks/method.md, section 7).

300 epochs of Adam, and the score of the best TEST epoch.

Choosing the epoch on the test images makes the score optimistic; it is here to be compared with numbers that
were made that way.
Features are extracted once, which changes nothing: the encoder is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.probes.linear import CachedFeatures
from pcl_lib.probes.tasks import Split

EPOCHS, BATCH = 300, 256


def predict_classes(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, int]:
    """A linear layer by cross-entropy, Adam at 1e-2. y: [rows of the table] classes from 0 on.

    Returns the predicted classes of the test rows in the epoch (from 1 on) of their best accuracy, and that epoch.
    """
    layer = _linear(cached.x.shape[1], int(max(y[rows].max() for rows in split)) + 1)
    train, truth = (torch.from_numpy(y[rows].astype(np.int64)) for rows in (split.train, split.test))
    adam = torch.optim.Adam(layer.parameters(), lr=1e-2)
    best, epoch = _best_epoch(
        cached, split, train, layer, adam, F.cross_entropy,
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
        cached, split, train, layer, adam, F.binary_cross_entropy_with_logits, lambda out: _mean_f1(out >= 0, truth)
    )  # fmt: skip
    return best.numpy(), epoch


def predict_values(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, int]:
    """Batch norm and a linear layer by absolute error, AdamW at 1e-3. y: [rows of the table, C].

    Returns the predictions of the test rows [n, C] in the epoch of their least mean error, and that epoch.
    """
    size = cached.x.shape[1]
    layer = nn.Sequential(nn.BatchNorm1d(size), _linear(size, y.shape[1]))
    train, truth = (torch.from_numpy(y[rows]).float() for rows in (split.train, split.test))
    adam = torch.optim.AdamW(layer.parameters(), lr=1e-3)
    best, epoch = _best_epoch(
        cached, split, train, layer, adam, F.l1_loss, lambda out: -float((out - truth).abs().mean())
    )  # fmt: skip
    return best.numpy(), epoch


def _linear(inputs: int, outputs: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return nn.Linear(inputs, outputs)


def _mean_f1(predicted: Tensor, truth: Tensor) -> float:
    hits = (predicted & truth).sum(0).double()
    return float((2 * hits / (predicted.sum(0) + truth.sum(0)).clamp_min(1)).mean())


def _best_epoch(
    cached: CachedFeatures,
    split: Split,
    target: Tensor,
    layer: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor],
    score: Callable[[Tensor], float],
) -> tuple[Tensor, int]:
    """Train for `EPOCHS` in shuffled batches with a cosine schedule; outputs of the test rows in their best epoch."""
    x, test = cached.at(split.train).cpu(), cached.at(split.test).cpu()
    order = torch.Generator().manual_seed(0)
    start = optimizer.param_groups[0]["lr"]
    best, highest, when = torch.empty(0), -math.inf, 0
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = start * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        layer.train()
        for rows in torch.randperm(len(x), generator=order).split(BATCH):
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
