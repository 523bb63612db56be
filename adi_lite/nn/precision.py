"""Mixed precision: products of matrices in bfloat16 (``torch.autocast``), all else in the precision of the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 if a product in bfloat16 gave it, else as it is.

    For what bfloat16's 8 bits are too few for: statistics of normalisation, softmax, scores in a loss.
    """
    return x.float() if x.dtype == torch.bfloat16 else x


def exactly(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``layer(x)`` without bfloat16: for a sum that is divided by, which 8 bits can make exactly zero."""
    if not torch.is_autocast_enabled(x.device.type):
        return layer(x)
    with torch.autocast(x.device.type, enabled=False):
        return layer(wide(x))
