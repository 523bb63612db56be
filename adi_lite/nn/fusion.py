"""Fusion of the domain-specific and the shared representation (Section 4.1.3, Eq. 11-17)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adi_lite.nn.stacked import StackedLinear, route


class ConcatFusion(nn.Module):
    """CONCAT (Eq. 11-13): ``[b1 * E_spec, b1 * E_spec * b2 * E_shared, b2 * E_shared]``, b1 and b2 gated by domain.

    Args:
        gate_size: width of the gate's input f_domain.
        width: width h of both representations.
        per_feature: b1 and b2 weigh each of the h features (the paper's "feature weights"); else one scalar each.

    Shapes: E_spec, E_shared (b, h), f_domain (b, gate_size), rows sorted by domain -> (b, 3 h).
    """

    def __init__(self, num_domains: int, gate_size: int, width: int, *, per_feature: bool = True) -> None:
        super().__init__()
        self.out_size = 3 * width
        units = width if per_feature else 1
        self.gate_specific = StackedLinear(num_domains, gate_size, units)
        self.gate_shared = StackedLinear(num_domains, gate_size, units)

    def forward(self, specific: Tensor, shared: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        a = torch.sigmoid(self.gate_specific.routed(f_domain, counts)) * specific
        b = torch.sigmoid(self.gate_shared.routed(f_domain, counts)) * shared
        return torch.cat([a, a * b, b], dim=1)


class SumFusion(nn.Module):
    """SUM (Eq. 14, 15): ``a * E_spec + (1 - a) * E_shared``, ``a`` gated by domain. Shapes as above -> (b, h)."""

    def __init__(self, num_domains: int, gate_size: int, width: int, *, per_feature: bool = False) -> None:
        super().__init__()
        self.out_size = width
        self.gate = StackedLinear(num_domains, gate_size, width if per_feature else 1)

    def forward(self, specific: Tensor, shared: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        return torch.lerp(shared, specific, torch.sigmoid(self.gate.routed(f_domain, counts)))


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
