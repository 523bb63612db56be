"""Shared and domain-specific networks (Section 4.1.2, Eq. 8-10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from adi_lite.nn.stacked import Norm, StackedLinear, StackedMLP

GateKind = Literal["softmax", "linear"]


class SharedNetworks(nn.Module):
    """K networks that see the rows of all domains, mixed by a gate on the domain (Eq. 8, 9).

    Args:
        gate: ``softmax`` normalises the gate's outputs by a softmax. ``linear`` is the letter of Eq. (8), a division by
            their plain sum, which can come near zero or turn negative; see the book's page *Reading the paper*.

    Shapes: x (b, in) or (b, K, in), f_domain (b, gate_size) -> (b, out).
    """

    def __init__(
        self,
        networks: int,
        sizes: Sequence[int],
        gate_size: int,
        norm: Norm,
        *,
        gate: GateKind,
        **options,
    ) -> None:
        super().__init__()
        self.mlp = StackedMLP(networks, sizes, norm, **options)
        self.gate = StackedLinear(networks, gate_size, 1)
        self.kind = gate

    def weights(self, f_domain: Tensor) -> Tensor:
        """(b, K) mixing weights; they sum to 1."""
        scores = self.gate(f_domain).squeeze(-1)
        return torch.softmax(scores, 1) if self.kind == "softmax" else scores / scores.sum(1, keepdim=True)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        out = self.mlp(x, counts)  # (b, K, out)
        if out.shape[1] == 1:
            return out[:, 0]  # one network: its weight is 1 whatever the gate says
        return torch.einsum("bk,bkh->bh", self.weights(f_domain), out)


class SpecificNetworks(StackedMLP):
    """One network for each domain, which sees the rows of its domain only (Eq. 10). Shapes: (b, in) -> (b, out)."""

    def __init__(self, num_domains: int, sizes: Sequence[int], norm: Norm, **options) -> None:
        super().__init__(num_domains, sizes, norm, routed=True, **options)
