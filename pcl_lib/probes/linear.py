"""Linear probes of frozen features: exact penalty paths, thresholds and weighted scores.

Every fit minimises mean loss(z W + b, y) + penalty/2 |W|^2 (b is free) over standardised features, for a grid
of penalties. z are the features in the eigenbasis of their own covariance: a rotation, so nothing is lost,
and there ridge is a division and L-BFGS needs some ten steps instead of hundreds (`probes.solver`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.probes.solver import Loss, minimise
from pcl_lib.probes.tasks import Split

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0001)
SOFT = 0.05  # standard deviations of the target within which an absolute error is rounded
RIDGE_PENALTIES = tuple(float(p) for p in np.logspace(3, -5, 25))


@dataclass(frozen=True)
class Whitening:
    """Standardisation and eigenbasis of training features. mean, scale: [D]; vectors: [D, K]; values: [K]."""

    mean: Tensor
    scale: Tensor
    vectors: Tensor
    values: Tensor

    def coordinates(self, x: Tensor) -> Tensor:
        """x: [n, D] features -> [n, K] float32 coordinates, whose training variances are `values`."""
        return ((x - self.mean) / self.scale) @ self.vectors


def whitening(x: Tensor) -> Whitening:
    """The eigenbasis of standardised training features x: [n, D] float32, n >= 2.

    K = min(n, D) less the directions without variance (below 1e-7 of the largest), in which penalised weights
    are zero anyway. Constant features get scale 1.
    """
    scale, mean = torch.std_mean(x.double(), 0, correction=0)
    scale = torch.where(scale > 1e-6 * mean.abs().clamp_min(1e-6), scale, torch.ones_like(scale))
    standard = (x - mean.float()) / scale.float()
    n, d = standard.shape
    if d <= n:
        values, vectors = torch.linalg.eigh((standard.T @ standard).double() / n)
    else:  # the same eigenvalues from the smaller matrix
        values, left = torch.linalg.eigh((standard @ standard.T).double() / n)
        vectors = standard.T.double() @ left / (n * values.clamp_min(1e-12)).sqrt()
    keep = values > 1e-7 * values[-1].clamp_min(1e-12)
    return Whitening(mean.float(), scale.float(), vectors[:, keep].float(), values[keep].float())


class Weights(NamedTuple):
    """A linear map z -> z @ weight + bias. weight: [K, C]; bias: [C]; penalty: [C], one per output."""

    weight: Tensor
    bias: Tensor
    penalty: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        """z: [n, K] -> [n, C] float32."""
        return z @ self.weight + self.bias


def ridge_path(
    z: Tensor, y: Tensor, values: Tensor, penalties: Iterable[float] = RIDGE_PENALTIES
) -> Iterator[Weights]:
    """Minima of mean |z W + b - y|^2 / 2 + penalty/2 |W|^2, in closed form.

    z: [n, K], the coordinates of the very images that `values` [K] come from; y: [n, C].
    """
    bias = y.double().mean(0)
    slope = z.double().T @ (y.double() - bias) / len(z)
    for penalty in penalties:
        weight = slope / (values.double()[:, None] + penalty)
        yield Weights(weight.float(), bias.float(), torch.full_like(bias, penalty).float())


def descent_path(
    z: Tensor,
    loss: Loss,
    values: Tensor,
    start: Weights,
    penalties: Sequence[float] = PENALTIES,
    curvature: float = 0.25,
    *,
    jointly: bool = False,
) -> list[Weights]:
    """Minima of loss(z W + b) + penalty/2 |W|^2 for all penalties at once, by `solver.minimise`.

    z: [n, K]; loss: convex, such as `softmax_loss`; values: [K] variances of z; start: where to begin, [K, C].
    curvature: see `minimise`. jointly: whether the loss ties the C outputs together; else each is a problem of its
    own, whose number is penalty's * C + output's. Returns one `Weights` per penalty, in order.
    """
    outputs, count = len(start.bias), len(penalties)
    groups = outputs if jointly else 1
    weight = start.weight.T.repeat(count, 1).unflatten(0, (-1, groups))  # [problems, G, K]
    bias = start.bias.repeat(count).unflatten(0, (-1, groups))
    strengths = torch.tensor(penalties, dtype=z.dtype, device=z.device).repeat_interleave(outputs // groups)
    weight, bias = minimise(z, loss, values, weight, bias, strengths, curvature)
    return [
        Weights(w.T, b, torch.full_like(b, penalty))
        for w, b, penalty in zip(
            weight.reshape(count, outputs, -1), bias.reshape(count, outputs), penalties, strict=True
        )
    ]


def softmax_loss(target: Tensor) -> Loss:
    """Cross-entropy of C outputs and classes target int64 [n]; the C are one problem."""
    rows = torch.arange(len(target), device=target.device)

    def loss(out: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        top = out.amax(1, keepdim=True)
        slope = (out - top).exp_()
        total = slope.sum(1, keepdim=True)
        value = (total.log() + top)[:, 0] - out[:, target, rows]
        slope /= total
        slope[:, target, rows] -= 1
        return value.mean(1, dtype=torch.float64), slope.div_(len(target))

    return loss


def logistic_loss(target: Tensor) -> Loss:
    """Binary cross-entropy of single outputs; target: [n, C] of 0 and 1, a problem a column."""
    columns = target.T.contiguous()

    def loss(out: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        y = columns[number % len(columns)][:, None]
        value = F.softplus(out).addcmul_(y, out, value=-1)
        return value.mean((1, 2), dtype=torch.float64), out.sigmoid().sub_(y).div_(len(target))

    return loss


def soft_absolute_loss(target: Tensor) -> Loss:
    """Absolute error of single outputs, rounded within `SOFT` of zero (Huber's loss over `SOFT`); target: [n, C]."""
    columns = target.T.contiguous()

    def loss(out: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        error = out - columns[number % len(columns)][:, None]
        slope = (error / SOFT).clamp_(-1, 1)
        value = (error - SOFT / 2 * slope).mul_(slope)
        return value.mean((1, 2), dtype=torch.float64), slope.div_(len(target))

    return loss


def zeros(z: Tensor, outputs: int) -> Weights:
    """All-zero initial weights. z: [n, K] -> weights [K, outputs]."""
    return Weights(z.new_zeros(z.shape[1], outputs), z.new_zeros(outputs), z.new_zeros(outputs))


def select_penalty(
    path: Iterable[Weights], loss: Callable[[Weights], np.ndarray | float], patience: int = 3
) -> Weights:
    """The weights of the lowest loss on validation data along a path from strong to weak penalties.

    loss: weights -> scalar, or [C] to choose a penalty for each output. A path is left once no output has got
    better for `patience` penalties: validation loss along it falls, then rises, and weak penalties cost most.
    """
    best: Weights | None = None
    lowest, since = np.empty(0), 0
    for candidate in path:
        losses = np.broadcast_to(np.asarray(loss(candidate), dtype=float), candidate.bias.shape)
        if best is None:
            best, lowest = candidate, losses
            continue
        better = losses < lowest
        since = 0 if better.any() else since + 1
        if since == patience:
            break
        mask = torch.from_numpy(better).to(candidate.bias.device)
        best = Weights(*(torch.where(mask, new, old) for new, old in zip(candidate, best, strict=True)))
        lowest = np.minimum(losses, lowest)
    if best is None:
        raise ValueError("the penalty path is empty; give at least one penalty")
    return best


def best_threshold(scores: np.ndarray, positive: np.ndarray, criterion: str) -> float:
    """The threshold t whose rule `score >= t` is best on these data, over all distinct rules.

    scores: [n] float; positive: [n] bool; criterion: "accuracy" or "f1". Thresholds lie halfway between
    neighbouring distinct scores, or 1 beyond the ends; the lowest of equally good ones is returned.
    """
    order = np.argsort(scores, kind="stable")
    ordered, truth = scores[order].astype(float), positive[order].astype(float)
    starts = np.flatnonzero(np.r_[True, np.diff(ordered) > 0])  # first place of each distinct score
    cuts = np.r_[starts, len(ordered)]  # everything from cut on is called positive
    caught = truth.sum() - np.r_[0.0, np.cumsum(truth)][cuts]
    called = len(ordered) - cuts
    if criterion == "f1":
        merit = 2 * caught / np.maximum(called + truth.sum(), 1)
    else:
        merit = caught + (cuts - (truth.sum() - caught))
    best = int(np.argmax(merit))
    if best == 0:
        return float(ordered[0] - 1)
    if best == len(starts):
        return float(ordered[-1] + 1)
    return float((ordered[starts[best] - 1] + ordered[starts[best]]) / 2)


def weighted_mean(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """x: [n]; weights: [R, n] -> [R], NaN where a row of weights is all zero."""
    total = weights.sum(1)
    return np.divide(weights @ x.astype(float), total, out=np.full(len(weights), np.nan), where=total > 0)


def weighted_f1(predicted: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """F1. predicted, positive: [n] or [n, C] bool; weights: [R, n] -> [R] or [R, C].

    0 where nothing is positive, NaN where a row of weights is all zero.
    """
    hit, both = (weights @ x for x in ((predicted & positive) * 2.0, predicted * 1.0 + positive))
    empty = np.zeros_like(hit)
    empty[weights.sum(1) == 0] = np.nan
    return np.divide(hit, both, out=empty, where=both > 0)


def weighted_auc(scores: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, ties counted half. scores: [n]; positive: [n] bool; weights: [R, n] -> [R].

    NaN where a row of weights leaves one class empty.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    up = np.add.reduceat(weights[:, order] * positive[order], starts, axis=1)
    down = np.add.reduceat(weights[:, order] * ~positive[order], starts, axis=1)
    won = (up * (np.cumsum(down, axis=1) - down / 2)).sum(1)
    pairs = up.sum(1) * down.sum(1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def verify(similarity: np.ndarray, same: np.ndarray, fold: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Same or different by a threshold that the other folds choose (LFW's protocol).

    similarity: [n] float, higher is more alike; same: [n] bool; fold: [n] int, two values or more.
    Returns whether each pair was judged rightly [n] bool, and the threshold of each fold.
    """
    right, thresholds = np.zeros(len(same), dtype=bool), []
    for part in np.unique(fold):
        held = fold == part
        thresholds.append(best_threshold(similarity[~held], same[~held], "accuracy"))
        right[held] = (similarity[held] >= thresholds[-1]) == same[held]
    return right, np.array(thresholds)


class CachedFeatures:
    """One feature of some images, by row number of the table; whitened once per split."""

    def __init__(self, x: Tensor, rows: np.ndarray, size: int) -> None:
        self.x = x
        self.place = np.full(size, -1)
        self.place[rows] = np.arange(len(rows))
        self._whitened: dict[tuple[bytes, ...], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    def at(self, rows: np.ndarray) -> Tensor:
        """[len(rows), D] features of these rows of the table."""
        return self.x[torch.from_numpy(self.place[rows]).to(self.x.device)]

    def whitened(self, split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Coordinates of train, validation and test images [n, K], and the variances [K] on train."""
        key = tuple(rows.tobytes() for rows in split)
        if key not in self._whitened:
            train = self.at(split.train)
            own = whitening(train)
            validation, test = (own.coordinates(self.at(rows)) for rows in split[1:])
            self._whitened[key] = own.coordinates(train), validation, test, own.values
        return self._whitened[key]


def predict_classes(cached: CachedFeatures, split: Split, y: np.ndarray) -> tuple[np.ndarray, float]:
    """Multinomial logistic regression. y: [rows of the table] classes from 0 on, read on the split's rows only.

    Returns the predicted classes of the test rows and the penalty of the lowest validation loss.
    """
    train, validation, test, values = cached.whitened(split)
    target, truth = (torch.from_numpy(y[rows].astype(np.int64)).to(train.device) for rows in split[:2])
    start = zeros(train, int(max(y[rows].max() for rows in split[:2])) + 1)  # classes that no test label adds
    path = descent_path(train, softmax_loss(target), values, start, jointly=True)
    best = select_penalty(path, lambda w: float(F.cross_entropy(w(validation), truth)))
    return best(test).argmax(1).cpu().numpy(), float(best.penalty[0])


def predict_presence(
    cached: CachedFeatures, split: Split, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """One logistic regression a column. y: [rows of the table, C] bool.

    Returns the logits of the validation and of the test rows, [n, C] each, and the penalty of each column.
    """
    train, validation, test, values = cached.whitened(split)
    target, truth = (torch.from_numpy(y[rows]).to(train) for rows in split[:2])
    bce = F.binary_cross_entropy_with_logits
    start = zeros(train, y.shape[1])
    path = descent_path(train, logistic_loss(target), values, start)
    best = select_penalty(path, lambda w: bce(w(validation), truth, reduction="none").mean(0).cpu().numpy())
    return best(validation).cpu().numpy(), best(test).cpu().numpy(), best.penalty.tolist()


def predict_values(
    cached: CachedFeatures, split: Split, y: np.ndarray, robust: bool = False
) -> tuple[np.ndarray, list[float]]:
    """Linear regression of y: [rows of the table, C]. Returns predictions of the test rows [n, C], penalties [C].

    Ridge in closed form; robust: the absolute error instead, as in the paper's pose probe, minimised from the
    best ridge fit on. Penalties are chosen by validation error of the same kind.
    """
    train, validation, test, values = cached.whitened(split)
    spread = y[split.train].std(0).clip(1e-9)
    target, truth = (torch.from_numpy(y[rows] / spread).to(train) for rows in split[:2])

    def loss(w: Weights) -> np.ndarray:
        error = (w(validation) - truth).abs()
        return (error if robust else error.square()).mean(0).cpu().numpy()

    best = select_penalty(ridge_path(train, target, values), loss)
    if robust:
        path = descent_path(train, soft_absolute_loss(target), values, best, curvature=1.0)
        best = select_penalty(path, loss)
    return best(test).cpu().numpy() * spread, best.penalty.tolist()
