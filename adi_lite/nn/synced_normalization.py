"""Batch normalisation whose batch is spread over processes (Eq. 19, 20): the same numbers as in one process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm
from adi_lite.nn.precision import wide
from adi_lite.nn.stacked import by_domain


class SyncedBatchNorm(DomainBatchNorm):
    """A :class:`DomainBatchNorm` or :class:`BatchNorm` over the rows of all processes; it takes over their parameters.

    torch's own ``SyncBatchNorm`` refuses a CPU and knows no domains. A domain that the batch of all processes lacks, or
    shows in one row only, is treated as by :class:`DomainBatchNorm`; one that only this process lacks is an ordinary one.
    """

    def __init__(self, norm: DomainBatchNorm) -> None:
        super().__init__(*norm.weight.shape, momentum=norm.momentum, eps=norm.eps)
        self.pooled = isinstance(norm, BatchNorm)
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        x = wide(x)
        counts = (sum(counts),) if self.pooled else tuple(counts)
        if not self.training:
            return super().forward(x, counts)
        count, mean, var = _statistics(x.detach(), counts)
        moving = (count > 1).unsqueeze(1)
        unbiased = var * (count / (count - 1).clamp(min=1)).unsqueeze(1)
        mean, var = (torch.where(moving, *pair) for pair in ((mean, self.running_mean), (var, self.running_var)))
        normalised = _Normalise.apply(x, counts, mean, torch.rsqrt(var + self.eps), torch.where(moving[:, 0], count, 0))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(torch.where(moving, torch.lerp(running, new, self.momentum), running))
        return torch.addcmul(by_domain(self.bias, counts), normalised, by_domain(self.weight, counts))


def _statistics(x: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the rows of all processes: count (D,), mean and biased variance (D, features).

    Each process sends its mean and its squares about it, which are then put together (Chan, Golub and LeVeque): sums of
    squares about zero would cancel.
    """
    parts = x.split(list(counts))
    n = x.new_tensor(counts).unsqueeze(1)
    means = torch.stack([rows.sum(0) for rows in parts]) / n.clamp(min=1)
    squares = torch.stack([(rows - m).square().sum(0) for rows, m in zip(parts, means.unbind(0), strict=True)])
    own = torch.cat([n, means, squares], 1)
    every = own.new_empty(dist.get_world_size(), *own.shape)
    dist.all_gather_single(every, own.unsqueeze(0))
    n, means, squares = every.split([1, x.shape[1], x.shape[1]], 2)
    total = n.sum(0).clamp(min=1)
    mean = (n * means).sum(0) / total
    var = (squares + n * (means - mean).square()).sum(0) / total
    return n.sum((0, 2)), mean, var


class _Normalise(torch.autograd.Function):
    """(x - mean) / std, where mean and std are those of all rows of a domain, and depend on x as well."""

    @staticmethod
    def forward(ctx, x: Tensor, counts: tuple[int, ...], mean: Tensor, scale: Tensor, count: Tensor) -> Tensor:  # noqa: ANN001
        """``count`` (D,): rows that mean and scale were computed from; 0 where they are the running statistics."""
        y = (x - by_domain(mean, counts)) * by_domain(scale, counts)
        ctx.save_for_backward(y, scale, count)
        ctx.counts = counts
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        y, scale, count = ctx.saved_tensors
        parts = zip(grad.split(list(ctx.counts)), y.split(list(ctx.counts)), strict=True)
        sums = torch.stack([torch.stack([g.sum(0), (g * rows).sum(0)]) for g, rows in parts])  # (D, 2, features)
        dist.all_reduce(sums)
        means = torch.where(count[:, None, None] > 0, sums / count.clamp(min=1)[:, None, None], 0.0)
        of_grad, of_product = (by_domain(m, ctx.counts) for m in means.unbind(1))
        return by_domain(scale, ctx.counts) * (grad - of_grad - y * of_product), None, None, None, None
