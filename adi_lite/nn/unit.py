"""Vectors of one length, for scores that are cosines."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHORTEST = 1e-12
"""A shorter vector is divided by this, as by :func:`torch.nn.functional.normalize`."""


def unit(x: Tensor, length: float = 1.0) -> Tensor:
    """Rows of x (b, w) scaled to ``length``: ``F.normalize(x) * length``, whose gradient goes through the rows half as often."""
    if not (torch.is_grad_enabled() and x.requires_grad):
        return F.normalize(x, dim=1, eps=SHORTEST) * length
    return _Unit.apply(x, length)


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, length: float) -> Tensor:  # noqa: ANN001
        scale = length / x.norm(dim=1, keepdim=True).clamp_(min=SHORTEST)
        out = x * scale
        ctx.save_for_backward(out, scale)
        ctx.length = length
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        out, scale = ctx.saved_tensors
        along = (grad * out).sum(1, keepdim=True) / -(ctx.length**2)
        return torch.addcmul(grad, out, along).mul_(scale), None
