"""Networks of the same shape in one parameter, and the two ways to run rows through them.

``routed``: rows are sorted by domain, and each row runs only through the network of its own domain, so that the cost
does not grow with the number of domains. ``forward``: every row runs through every network (shared networks, experts).
A loop over D contiguous slices is as fast as padding on a CPU and needs no copy; a gather of weights by row is not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.nn.dropout import dropout

Norm = Callable[[int], nn.Module]
"""Makes a normalisation layer for a number of features; see :mod:`adi_lite.nn.normalization`."""


class StackedLinear(nn.Module):
    """``networks`` linear layers, stored as weight (networks, in, out) and bias (networks, out).

    Example::

        >>> layer = StackedLinear(3, 8, 4)
        >>> layer.routed(torch.randn(10, 8), counts=(5, 0, 5)).shape
        torch.Size([10, 4])
        >>> layer(torch.randn(10, 8)).shape
        torch.Size([10, 3, 4])
    """

    def __init__(self, networks: int, in_size: int, out_size: int) -> None:
        super().__init__()
        self.networks, self.in_size, self.out_size = networks, in_size, out_size
        bound = 1.0 / math.sqrt(in_size)  # as torch.nn.Linear, and different in every network
        self.weight = nn.Parameter(torch.empty(networks, in_size, out_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(networks, out_size).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Every network on every row: x (b, in), or (b, networks, in) for an input of its own -> (b, networks, out)."""
        if x.dim() == 2:
            flat = self.weight.transpose(0, 1).reshape(self.in_size, -1)  # (in, networks * out): one multiplication
            return torch.addmm(self.bias.flatten(), x, flat).unflatten(1, (self.networks, self.out_size))
        if self.networks == 1:
            return torch.addmm(self.bias[0], x[:, 0], self.weight[0]).unsqueeze(1)
        return torch.baddbmm(self.bias.unsqueeze(1), x.transpose(0, 1), self.weight).transpose(0, 1)

    def routed(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Each row through the network of its domain: x (b, in), sorted by domain -> (b, out)."""
        return route(x, counts, self.weight, self.bias)


def route(x: Tensor, counts: Sequence[int], weight: Tensor, bias: Tensor) -> Tensor:
    """x (b, in) sorted by domain, weight (D, in, out), bias (D, out) -> (b, out)."""
    if len(counts) != len(weight):
        raise ValueError(f"rows of {len(counts)} domains for {len(weight)} networks")
    # unbind, not indexing: its gradient is one stack, where indexing would fill a zero tensor for every domain.
    parts = [
        torch.addmm(b, rows, w)
        for rows, w, b in zip(x.split(list(counts)), weight.unbind(0), bias.unbind(0), strict=True)
    ]
    return torch.cat(parts)


def by_domain(parameter: Tensor, counts: Sequence[int]) -> Tensor:
    """One row of ``parameter`` (D, ...) for each row of a batch that is sorted by domain -> (b, ...)."""
    return torch.cat([p.expand(n, *p.shape) for p, n in zip(parameter.unbind(0), counts, strict=True)])


class StackedMLP(nn.Module):
    """``networks`` perceptrons of layer widths ``sizes`` = (in, h1, ..., out): Linear, norm, ReLU, dropout.

    The last layer is linear only, unless ``final_activation``. ``routed`` says whether row r runs through the network
    of its domain only (then ``networks`` is the number of domains), or through all of them.
    """

    def __init__(
        self,
        networks: int,
        sizes: Sequence[int],
        norm: Norm,
        *,
        routed: bool = False,
        dropout: float = 0.0,
        final_activation: bool = False,
    ) -> None:
        super().__init__()
        self.networks, self.is_routed, self.dropout, self.final_activation = (
            networks,
            routed,
            dropout,
            final_activation,
        )
        self.layers = nn.ModuleList(StackedLinear(networks, i, o) for i, o in itertools.pairwise(sizes))
        width = 1 if routed else networks
        last = len(sizes) - 1 if final_activation else len(sizes) - 2
        self.norms = nn.ModuleList(norm(width * o) for o in sizes[1 : last + 1])

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Routed: (b, in) -> (b, out). Else: (b, in) or (b, networks, in) -> (b, networks, out)."""
        for i, layer in enumerate(self.layers):
            x = layer.routed(x, counts) if self.is_routed else layer(x)
            if i < len(self.norms):
                shape = x.shape
                x = F.relu(self.norms[i](x.flatten(1), counts)).view(shape)
                x = dropout(x, self.dropout, self.training)
        return x
