"""Shared and domain-specific networks (Section 4.1.2, Eq. 8-10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from adi_lite.nn.precision import exactly
from adi_lite.nn.stacked import Norm, StackedLinear, StackedMLP, by_domain

GateKind = Literal["softmax", "linear"]


class SharedNetworks(nn.Module):
    """K networks that see the rows of all domains, mixed by a gate on the domain (Eq. 8, 9).

    Args:
        gate: ``softmax`` normalises the gate's outputs by a softmax. ``linear`` is the letter of Eq. (8), a division by
            their plain sum, which can come near zero or turn negative; see the book's page *Reading the paper*.
        gate_rows: f_domain differs from row to row, and is given for each; else once for each domain.

    Shapes: x (b, in) or (b, K, in), rows sorted by domain, f_domain (D, gate_size) or, with ``gate_rows``,
    (b, gate_size) -> (b, out).
    """

    def __init__(
        self,
        networks: int,
        sizes: Sequence[int],
        gate_size: int,
        norm: Norm,
        *,
        gate: GateKind,
        gate_rows: bool = False,
        **options,
    ) -> None:
        super().__init__()
        self.mlp = StackedMLP(networks, sizes, norm, **options)
        self.gate = StackedLinear(networks, gate_size, 1)
        self.kind, self.gate_rows = gate, gate_rows

    def weights(self, f_domain: Tensor) -> Tensor:
        """(n, K) mixing weights for f_domain (n, gate_size); they sum to 1."""
        scores = exactly(self.gate, f_domain).squeeze(-1)
        return torch.softmax(scores, 1) if self.kind == "softmax" else scores / scores.sum(1, keepdim=True)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        out = self.mlp(x, counts)  # (b, K, out)
        if out.shape[1] == 1:
            return out[:, 0]  # one network: its weight is 1 whatever the gate says
        weights = self.weights(f_domain)
        return torch.einsum("bk,bkh->bh", weights if self.gate_rows else by_domain(weights, counts), out)


class SpecificNetworks(StackedMLP):
    """One network for each domain, which sees the rows of its domain only (Eq. 10). Shapes: (b, in) -> (b, out)."""

    def __init__(self, num_domains: int, sizes: Sequence[int], norm: Norm, **options) -> None:
        super().__init__(num_domains, sizes, norm, routed=True, **options)
