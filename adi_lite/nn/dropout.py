"""Dropout with cheap random numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_PART: ContextVar[tuple[int, int] | None] = ContextVar("part of a batch", default=None)


@contextmanager
def part_of_batch(first: int, total: int) -> Iterator[None]:
    """Inside, the rows of a layer's input are rows ``first``... of a batch of ``total`` rows that several processes share.

    Random decisions are then drawn for the whole batch, so that they do not depend on the number of processes.
    """
    token = _PART.set((first, total))
    try:
        yield
    finally:
        _PART.reset(token)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements of x with probability p, and scale the rest so that the mean stays.

    p is rounded to the nearest 1/256: eight decisions come out of one 64-bit random number, because drawing one for
    each element costs more on a CPU than the layer itself (a sixth of a training step, where this is a fiftieth).
    """
    if not training or p == 0.0:
        return x
    cut = min(255, max(1, round(p * 256)))
    first, total = _PART.get() or (0, x.shape[0])
    width = math.prod(x.shape[1:])
    words = torch.empty(-(-total * width // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    mask = words.view(torch.uint8)[first * width :][: x.numel()].view(x.shape) >= cut
    return x * mask.to(x.dtype).mul_(256.0 / (256 - cut))
