"""Linear probes of frozen features: exact penalty paths, thresholds and weighted scores.

Every fit minimises mean loss(z W + b, y) + penalty/2 |W|^2 (b is free) over standardised features, for a grid
of penalties. z are the features in the eigenbasis of their own covariance: a rotation, so nothing is lost,
and there ridge is a division and L-BFGS needs some ten steps instead of hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

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
    mean, scale = x.double().mean(0), x.double().std(0, correction=0)
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
    loss: Callable[[Tensor], Tensor],
    values: Tensor,
    start: Weights,
    penalties: Iterable[float] = PENALTIES,
    curvature: float = 0.25,
) -> Iterator[Weights]:
    """Minima of loss(z W + b) + penalty/2 |W|^2 by full-batch L-BFGS, each warm-started from the one before.

    z: [n, K]; loss: outputs [n, C] -> scalar, convex, a mean over rows; values: [K] variances of z; start:
    where to begin. curvature bounds the loss's second derivative (1/4 for logistic): it only sets the metric of the
    steps, sqrt(curvature * values + penalty) per coordinate, in which the problem is nearly round.
    """
    weight, bias = start.weight, start.bias
    for penalty in penalties:
        stretch = (curvature * values.to(z) + penalty).sqrt()[:, None]
        weight, bias = _descend(z, loss, weight * stretch, bias, stretch, penalty)
        yield Weights(weight, bias, torch.full_like(bias, penalty))


def _descend(
    z: Tensor, loss: Callable[[Tensor], Tensor], v: Tensor, b: Tensor, stretch: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """One L-BFGS solve over v = stretch * weight and b; returns weight and bias."""
    v, b = v.clone().requires_grad_(), b.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [v, b], max_iter=100, tolerance_grad=1e-4, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        solver.zero_grad()
        w = v / stretch
        value = loss(z @ w + b) + penalty / 2 * w.square().sum()
        value.backward()
        return float(value.detach())

    solver.step(closure)
    return (v / stretch).detach(), b.detach()


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
    """F1. predicted, positive: [n] bool; weights: [R, n] -> [R], 0 where nothing is positive."""
    hit = weights @ (predicted & positive).astype(float)
    both = weights @ predicted.astype(float) + weights @ positive.astype(float)
    return np.divide(2 * hit, both, out=np.zeros(len(weights)), where=both > 0)


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
    start = zeros(train, int(max(y[rows].max() for rows in split)) + 1)
    path = descent_path(train, lambda out: F.cross_entropy(out, target), values, start)
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
    path = descent_path(train, lambda out: bce(out, target) * out.shape[1], values, start)
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
        path = descent_path(train, lambda out: _soft_l1(out - target), values, best, curvature=1.0)
        best = select_penalty(path, loss)
    return best(test).cpu().numpy() * spread, best.penalty.tolist()


def _soft_l1(error: Tensor) -> Tensor:
    """Absolute error, rounded within `SOFT` of zero; summed over outputs, mean over rows."""
    return F.huber_loss(error, torch.zeros_like(error), delta=SOFT) / SOFT * error.shape[1]
