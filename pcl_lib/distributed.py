"""Several processes that train as one: the same losses, gradients and weights for any number of them.

Each process (rank) holds one block of every global batch. Random numbers are drawn for the whole batch on every rank
from one generator, and a rank uses its own rows of them. Contrastive losses, orthogonality and batch norm see the
whole batch by `gather` and `total`, whose gradients cross ranks as well. So with L_r the loss on rank r, a backward
pass gives each rank the gradient of the sum of all L_r by what it holds, and `average_gradients` that of their mean.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn


def world() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if world() > 1 else 0


def own(x: Tensor, copies: int = 1) -> Tensor:
    """This rank's rows of a tensor over the global batch, `copies` times stacked: [copies * n, ...]."""
    if world() == 1:
        return x
    return x.unflatten(0, (copies, world(), -1))[:, rank()].flatten(0, 1)


def gather(x: Tensor, copies: int = 1) -> Tensor:
    """The rows of all ranks, with gradients: [copies * b, ...] stacked copies -> [copies * b * world, ...].

    The order is that of the global batch, copy by copy. Every rank must call it, with one shape.
    """
    if world() == 1:
        return x
    parts = cast(Tensor, _Gather.apply(x.float()))  # [world, copies * b, ...]
    return parts.unflatten(1, (copies, -1)).transpose(0, 1).flatten(0, 2)


def total(x: Tensor) -> Tensor:
    """Sum of x over all ranks, with gradients."""
    return cast(Tensor, _Total.apply(x))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[rank()]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all ranks; torch.nn.SyncBatchNorm does so on GPUs alone."""

    act: nn.Module  # what follows it: some batch norms of timm hold their activation

    def _check_input_dim(self, input: Tensor) -> None:
        """Any [N, C, ...] will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.act(super().forward(x))
        places = [0, *range(2, x.ndim)]
        shape = [1, -1] + [1] * (x.ndim - 2)
        wide = x.float()
        count = world() * wide.numel() // wide.shape[1]
        mean = total(wide.sum(places)) / count
        centred = wide - mean.view(shape)
        variance = total(centred.square().sum(places)) / count
        self._follow(mean.detach(), variance.detach() * count / max(count - 1, 1))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        return self.act((y * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype))

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def share_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm below `module` by one over all ranks that holds the same tensors."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            shared = SharedBatchNorm(child.num_features, child.eps, cast(float, child.momentum))
            shared._parameters, shared._buffers = child._parameters, child._buffers
            shared.act = getattr(child, "act", nn.Identity())
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Mean of the gradients over all ranks, in one message; parameters without one stay without."""
    if world() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = mean(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean(x: Tensor) -> Tensor:
    """Mean of x over all ranks, without gradients; x may be changed."""
    if world() > 1:
        dist.all_reduce(x)
        x /= world()
    return x


def has_lost_another(error: RuntimeError) -> bool:
    """Whether an error means that another process ended in the midst of the common work."""
    told = ("Connection closed by peer", "Connection reset by peer")  # gloo's words
    return isinstance(error, dist.DistBackendError) or any(words in str(error) for words in told)
