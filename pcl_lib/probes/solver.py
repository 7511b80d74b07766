"""Many penalised convex problems at once: L-BFGS whose evaluations share two matrix products.

A probe is fitted for ten penalties and up to ten outputs. One after the other, each evaluation is a product of all
features with a few columns, which is bound by memory; together they are one product with a hundred columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

# outputs [A, G, n] of the problems numbered [A] -> their losses float64 [A], and the gradients by outputs [A, G, n]
Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

MEMORY = 12  # steps that L-BFGS remembers
ITERATIONS = 200
TOLERANCE = 1e-8  # of the loss that is left, by the last quadratic model
SUFFICIENT = 1e-4  # of the predicted decrease, for a step to be taken (Armijo)


@dataclass
class _State:
    """The problems that are not done yet; one row (of memory: one column) each.

    number: which problem; x: where it is; value, gradient: of its loss there; direction: of the step that is tried;
    length: of that step; scale: of the first Hessian; steps, changes: of x and of the gradient; inverse: 1 over
    their products, 0 where a place of the memory is empty.
    """

    number: Tensor  # [A]
    x: Tensor  # [A, D]
    value: Tensor  # [A]
    gradient: Tensor  # [A, D]
    direction: Tensor  # [A, D]
    length: Tensor  # [A]
    scale: Tensor  # [A]
    steps: Tensor  # [A, MEMORY, D]
    changes: Tensor  # [A, MEMORY, D]
    inverse: Tensor  # [A, MEMORY]

    def keep(self, rows: Tensor) -> None:
        """Go on with these problems alone."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[rows])


def minimise(
    z: Tensor,
    loss: Loss,
    values: Tensor,
    weight: Tensor,
    bias: Tensor,
    penalty: Tensor,
    curvature: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """Minima of loss_b(W_b z + c_b) + penalty_b / 2 |W_b|^2 for B independent problems b of G outputs each.

    z: [n, K] coordinates with variances `values` [K]. loss: convex, a mean over the n rows. weight: [B, G, K] and
    bias: [B, G], where to begin; penalty: [B]. curvature: about the loss's second derivative (1/4 for logistic): it
    only sets the metric of the steps, sqrt(curvature * values + penalty), in which the problems are nearly round.
    Returns weight and bias. Source: Nocedal and Wright 2006, algorithms 7.4 and 3.1.
    """
    groups, k = weight.shape[1:]
    stretch = (curvature * values.to(z) + penalty[:, None]).sqrt()
    of_bias = stretch.new_full((len(stretch), 1), curvature**0.5)
    stretch = torch.cat([stretch, of_bias], 1)[:, None]  # [B, 1, K + 1]

    def evaluate(x: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        w = x.unflatten(1, (groups, k + 1)) / stretch[number]
        flat = w.flatten(0, 1)
        out = torch.addmm(flat[:, k:], flat[:, :k], z.T)  # [A * G, n]
        value, slope = loss(out.unflatten(0, (-1, groups)), number)
        slope = slope.flatten(0, 1)
        gradient = torch.cat([slope @ z, slope.sum(1, keepdim=True)], 1).view_as(w)
        own = penalty[number]
        gradient[..., :k] += own[:, None, None] * w[..., :k]
        value = value + own.double() / 2 * w[..., :k].square().sum((1, 2)).double()
        return value, (gradient / stretch[number]).flatten(1)

    start = (torch.cat([weight, bias[..., None]], 2) * stretch).flatten(1)
    found = (_descend(evaluate, start).unflatten(1, (groups, k + 1))) / stretch
    return found[..., :k], found[..., k]


def _descend(evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """L-BFGS with backtracking, each row of x [B, D] a problem of its own; the first step is 1, the metric's."""
    found, number = x.clone(), torch.arange(len(x), device=x.device)
    value, gradient = evaluate(x, number)
    one, memory = torch.ones_like(x[:, 0]), x.new_zeros(len(x), MEMORY, x.shape[1])
    s = _State(
        number, x, value, gradient, -gradient, one, one, memory, memory.clone(), x.new_zeros(len(x), MEMORY)
    )
    for iteration in range(ITERATIONS):
        promised = (s.gradient * s.direction).sum(1)  # slope along the direction
        going = (-promised / 2 > TOLERANCE) & (s.length > 1e-3)
        found[s.number] = s.x
        if not going.all():
            s.keep(going)
            promised = promised[going]
        if not len(s.number):
            break
        trial = s.x + s.length[:, None] * s.direction
        value, gradient = evaluate(trial, s.number)
        taken = value <= s.value + (SUFFICIENT * s.length * promised).double()
        _remember(s, iteration % MEMORY, trial, gradient, taken)
        beyond = (value - s.value - s.length * promised).float().clamp_min(1e-12)
        shorter = (-promised * s.length / (2 * beyond)).clamp(0.1, 0.5) * s.length  # the parabola's minimum
        s.length = torch.where(taken, 1.0, shorter)
        s.x = torch.where(taken[:, None], trial, s.x)
        s.value = torch.where(taken, value, s.value)
        s.gradient = torch.where(taken[:, None], gradient, s.gradient)
        s.direction = torch.where(taken[:, None], _direction(s, iteration % MEMORY), s.direction)
    found[s.number] = s.x
    return found


def _remember(s: _State, place: int, trial: Tensor, gradient: Tensor, taken: Tensor) -> None:
    """Keep the step of each problem that takes it at this place of the memory; nothing for the others."""
    step, change = trial - s.x, gradient - s.gradient
    product = (step * change).sum(1)
    good = taken & (product > 1e-12)
    s.steps[:, place], s.changes[:, place] = step, change
    s.inverse[:, place] = torch.where(good, 1 / product, 0.0)
    s.scale = torch.where(good, product / change.square().sum(1).clamp_min(1e-30), s.scale)


def _direction(s: _State, newest: int) -> Tensor:
    """Minus the gradient times the remembered inverse Hessian: the two loops of L-BFGS, for all problems."""
    q, alphas = -s.gradient, {}
    order = [(newest - back) % MEMORY for back in range(MEMORY)]
    for place in order:
        alphas[place] = s.inverse[:, place] * (s.steps[:, place] * q).sum(1)
        q = q - alphas[place][:, None] * s.changes[:, place]
    q = s.scale[:, None] * q
    for place in reversed(order):
        beta = s.inverse[:, place] * (s.changes[:, place] * q).sum(1)
        q = q + (alphas[place] - beta)[:, None] * s.steps[:, place]
    return q
