"""Domain interest adaptation layers, DIAL: weigh each feature anew in each domain (Section 4.2.2, Eq. 21-26).

All take the fields of a batch sorted by domain, x (b, f, e), and give (b, f, e). ``weights`` gives what Figure 5 draws.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.nn.stacked import StackedLinear, by_domain


class NoAdaptation(nn.Module):
    """Features as they are."""

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return x


class LinearAdaptation(nn.Module):
    """Linear domain transformation, LT (Eq. 21, 22): ``W[d] * F + b[d]``, element by element. Starts as the identity."""

    def __init__(self, num_domains: int, fields: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_domains, fields, dim))
        self.bias = nn.Parameter(torch.zeros(num_domains, fields, dim))

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return torch.addcmul(by_domain(self.bias, counts), by_domain(self.weight, counts), x)

    def weights(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(b, f) mean absolute factor of each field."""
        return by_domain(self.weight.abs().mean(-1), counts)


class AttentionAdaptation(nn.Module):
    """Vanilla domain attention, VA (Eq. 23, 24): field i of domain d is scaled by ``sigmoid(<Q[d, i], F_i>)``."""

    def __init__(self, num_domains: int, fields: int, dim: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(num_domains, fields, dim) / dim**0.5)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return self.weights(x, counts).unsqueeze(-1) * x

    def weights(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(b, f) attention of each field, in (0, 1)."""
        parts = [
            torch.einsum("bfe,fe->bf", rows, q)
            for rows, q in zip(x.split(list(counts)), self.query.unbind(0), strict=True)
        ]
        return torch.sigmoid(torch.cat(parts))


class SEBlock(nn.Module):
    """Squeeze-and-excitation over fields, SE (Eq. 25, 26): squeeze by the mean, then FC, ReLU, FC, one score a field.

    Args:
        networks: number of blocks. One for each domain is the paper's 3-SE (for D = 3) and the default placement; one
            in all is 1-SE; one for each network of the backbone is 4-SE.
        fields: number of fields f.
        reduction: the hidden layer has ``max(1, f // reduction)`` units.
        sigmoid: Eq. (25) ends without the sigmoid that SE-Net has; True puts it back.

    The scores start near 1, so that training starts from the features as they are.
    """

    def __init__(self, networks: int, fields: int, *, reduction: int = 2, sigmoid: bool = False) -> None:
        super().__init__()
        hidden = max(1, fields // reduction)
        self.networks, self.sigmoid = networks, sigmoid
        self.squeeze = StackedLinear(networks, fields, hidden)
        self.excite = StackedLinear(networks, hidden, fields)
        nn.init.ones_(self.excite.bias)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return self.weights(x, counts).unsqueeze(-1) * x

    def weights(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(b, f) score of each field, from the block of the row's domain (or the only block)."""
        counts = (x.shape[0],) if self.networks == 1 else counts
        hidden = F.relu(self.squeeze.routed(x.mean(-1), counts))
        return self._finish(self.excite.routed(hidden, counts))

    def weights_of_all(self, x: Tensor) -> Tensor:
        """(b, networks, f) scores of every block for every row."""
        return self._finish(self.excite(F.relu(self.squeeze(x.mean(-1)))))

    def _finish(self, scores: Tensor) -> Tensor:
        return torch.sigmoid(scores) if self.sigmoid else scores
