"""Fusion of the domain-specific and the shared representation (Section 4.1.3, Eq. 11-17)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adi_lite.nn.precision import wide
from adi_lite.nn.stacked import StackedLinear, by_domain, route


class ConcatFusion(nn.Module):
    """CONCAT (Eq. 11-13): ``[b1 * E_spec, b1 * E_spec * b2 * E_shared, b2 * E_shared]``, b1 and b2 gated by domain.

    Args:
        gate_size: width of the gate's input f_domain.
        width: width h of both representations.
        per_feature: b1 and b2 weigh each of the h features (the paper's "feature weights"); else one scalar each.
        gate_rows: f_domain differs from row to row, and is given for each; else once for each domain.

    Shapes: E_spec, E_shared (b, h), f_domain (D, gate_size) or, with ``gate_rows``, (b, gate_size), rows sorted by
    domain -> (b, 3 h).
    """

    def __init__(
        self, num_domains: int, gate_size: int, width: int, *, per_feature: bool = True, gate_rows: bool = False
    ) -> None:
        super().__init__()
        self.gate_rows = gate_rows
        self.out_size = 3 * width
        units = width if per_feature else 1
        self.gate_specific = StackedLinear(num_domains, gate_size, units)
        self.gate_shared = StackedLinear(num_domains, gate_size, units)

    def forward(self, specific: Tensor, shared: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        a = _weights(self.gate_specific, f_domain, counts, self.gate_rows) * specific
        b = _weights(self.gate_shared, f_domain, counts, self.gate_rows) * shared
        return torch.cat([a, a * b, b], dim=1)


class SumFusion(nn.Module):
    """SUM (Eq. 14, 15): ``a * E_spec + (1 - a) * E_shared``, ``a`` gated by domain. Shapes as above -> (b, h)."""

    def __init__(
        self, num_domains: int, gate_size: int, width: int, *, per_feature: bool = False, gate_rows: bool = False
    ) -> None:
        super().__init__()
        self.gate_rows = gate_rows
        self.out_size = width
        self.gate = StackedLinear(num_domains, gate_size, width if per_feature else 1)

    def forward(self, specific: Tensor, shared: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        return torch.lerp(shared, specific, _weights(self.gate, f_domain, counts, self.gate_rows))


def _weights(gate: StackedLinear, f_domain: Tensor, counts: Sequence[int], each_row: bool) -> Tensor:
    """(b, units) in (0, 1); where f_domain is the domain's alone, the gate is evaluated once for each domain."""
    if each_row:
        return torch.sigmoid(wide(gate.routed(f_domain, counts)))
    return by_domain(torch.sigmoid(wide(gate.routed(f_domain, (1,) * gate.networks))), counts)


class StarLinear(nn.Module):
    """Network-Mul, the star topology layer (Eq. 16): ``(W_shared * W_spec[d]) x + b_shared + b_spec[d]``.

    The domain's factor starts at one and its bias at zero, so that all domains start as the shared network.

    Shapes: x (b, in), rows sorted by domain -> (b, out).
    """

    def __init__(self, num_domains: int, in_size: int, out_size: int) -> None:
        super().__init__()
        self.shared = StackedLinear(1, in_size, out_size)
        self.weight = nn.Parameter(torch.ones(num_domains, in_size, out_size))
        self.bias = nn.Parameter(torch.zeros(num_domains, out_size))

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return route(x, counts, self.shared.weight * self.weight, self.shared.bias + self.bias)
