"""Batch normalisation whose batch is spread over processes (Eq. 19, 20): the same numbers as in one process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm
from adi_lite.nn.precision import wide


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
        # Where the running statistics serve, nothing but the row itself depends on it: as if it were one of infinitely many.
        of = torch.where(moving, count.unsqueeze(1), torch.inf)
        out = _Normalise.apply(x, self.weight, self.bias, counts, mean, var, of, self.eps)
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.copy_(torch.where(moving, torch.lerp(running, new, self.momentum), running))
        return out


def _statistics(x: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Of the rows of all processes: count (D,), mean and biased variance (D, features).

    Each process sends its mean and its variance, which are then put together (Chan, Golub and LeVeque): sums of
    squares about zero would cancel.
    """
    own = x.new_zeros(len(counts), 1 + 2 * x.shape[1])
    for of_domain, rows in zip(own, x.split(list(counts)), strict=True):
        if len(rows):
            mean, var = torch.batch_norm_update_stats(rows, None, None, 0.0)  # var_mean takes 30 times as long
            torch.cat([rows.new_full((1,), len(rows)), mean, var], out=of_domain)
    every = own.new_empty(dist.get_world_size(), *own.shape)
    dist.all_gather_single(every, own.unsqueeze(0))
    n, means, variances = every.split([1, x.shape[1], x.shape[1]], 2)
    part = n / n.sum(0).clamp(min=1)
    mean = (part * means).sum(0)
    var = (part * (variances + (means - mean).square())).sum(0)
    return n.sum((0, 2)), mean, var


class _Normalise(torch.autograd.Function):
    """``(x - mean) / std * weight + bias``, where mean and std are those of all rows of a domain, and depend on x as well.

    torch's fused operations do both passes as if they did not; what they leave out of the gradient is added.
    """

    @staticmethod
    def forward(  # noqa: ANN205
        ctx,  # noqa: ANN001
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        counts: tuple[int, ...],
        mean: Tensor,
        var: Tensor,
        of: Tensor,
        eps: float,
    ):
        """``of`` (D, 1): rows that mean and var were computed from; infinity where they are the running statistics."""
        ctx.save_for_backward(x, weight, mean, var, of)
        ctx.counts, ctx.eps = counts, eps
        parts = zip(x.split(list(counts)), weight, bias, mean, var, strict=True)
        return torch.cat([torch.batch_norm(r, w, b, m, v, False, 0.0, eps, False) for r, w, b, m, v in parts])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        x, weight, mean, var, of = ctx.saved_tensors
        grads, rows = grad.split(list(ctx.counts)), x.split(list(ctx.counts))
        of_rows, sums = [], grad.new_zeros(2, *mean.shape)  # gradients of weight and bias
        for d, (g, r) in enumerate(zip(grads, rows, strict=True)):
            if len(r):  # torch's operation does not survive an empty one
                own, sums[0, d], sums[1, d] = torch.ops.aten.native_batch_norm_backward(
                    g, r, weight[d], mean[d], var[d], None, None, False, ctx.eps, (True, True, True)
                )
                of_rows.append(own)
            else:
                of_rows.append(g.clone())
        total = sums.clone()
        dist.all_reduce(total)
        scale = torch.rsqrt(var + ctx.eps)
        by_deviation, for_all = (weight * scale * t / of for t in (scale * total[0], total[1]))
        for g, r, m, slope, constant in zip(of_rows, rows, mean, by_deviation, for_all, strict=True):
            g.sub_(torch.addcmul(constant, r - m, slope))
        return torch.cat(of_rows), *sums, None, None, None, None, None
