"""Mixed precision: products of matrices in bfloat16 (``torch.autocast``), all else in the precision of the weights."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """``x`` in float32 if a product in bfloat16 gave it, else as it is.

    For what bfloat16's 8 bits are too few for: statistics of normalisation, softmax, scores in a loss.
    """
    return x.float() if x.dtype == torch.bfloat16 else x
