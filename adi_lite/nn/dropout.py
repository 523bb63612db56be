"""Dropout with cheap random numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero elements of x with probability p, and scale the rest so that the mean stays.

    p is rounded to the nearest 1/256: eight decisions come out of one 64-bit random number, because drawing one for
    each element costs more on a CPU than the layer itself (a sixth of a training step, where this is a fiftieth).
    """
    if not training or p == 0.0:
        return x
    cut = min(255, max(1, round(p * 256)))
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
    mask = words.view(torch.uint8)[: x.numel()].view(x.shape) >= cut
    return x * mask.to(x.dtype).mul_(256.0 / (256 - cut))
