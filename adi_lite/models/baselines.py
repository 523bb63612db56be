"""The networks that ADI is compared with (Section 5.1.2), each a tower body of the same shapes.

All take fields (b, f, e), the embedded domains f_domain (D, e) and the rows of each domain in a batch sorted by domain,
and give (b, out_dim). Where a method's paper leaves room, the reading is stated with the class and listed in the book.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.models.config import ModelConfig
from adi_lite.nn.dropout import dropout
from adi_lite.nn.fusion import StarLinear
from adi_lite.nn.precision import wide
from adi_lite.nn.stacked import Norm, StackedLinear, StackedMLP

_HIDDEN = {"final_activation": True}  # every network ends in ReLU, because a linear layer follows


class DNN(nn.Module):
    """One network for the rows of all domains (YouTube DNN). DNN-Single is this, trained domain by domain."""

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        sizes = (fields * config.dim, *hidden)
        self.input_norm = norm(sizes[0])
        self.network = StackedMLP(1, sizes, norm, dropout=config.dropout, **_HIDDEN)
        self.head = StackedLinear(1, hidden[-1], config.out_dim)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        return self.head(self.network(self.input_norm(x.flatten(1), counts), counts)).squeeze(1)


class SharedBottom(nn.Module):
    """One network for all, then a tower of each domain: a hidden layer and the output (Caruana's hard sharing)."""

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        sizes = (fields * config.dim, *hidden)
        self.input_norm = norm(sizes[0])
        self.bottom = StackedMLP(1, sizes, norm, dropout=config.dropout, **_HIDDEN)
        self.top = StackedMLP(num_domains, (hidden[-1], hidden[-1], config.out_dim), norm, routed=True)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        return self.top(
            self.bottom(self.input_norm(x.flatten(1), counts), counts).squeeze(1),
            counts,
        )


class CrossStitch(nn.Module):
    """D networks, and after each layer a learned D x D mixture of their outputs (one unit a layer).

    Reading: one scalar for each pair of networks, starting near the identity: 0.9 for the own network, the rest shared
    among the others. Every row needs all D networks, since they mix after each layer; the cost grows with D by design.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        sizes = (fields * config.dim, *hidden)
        self.input_norm, self.dropout = norm(sizes[0]), config.dropout
        self.layers = nn.ModuleList(StackedLinear(num_domains, i, o) for i, o in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(norm(num_domains * o) for o in hidden)
        off = 0.1 / max(1, num_domains - 1)
        start = torch.full((num_domains, num_domains), off).fill_diagonal_(0.9 if num_domains > 1 else 1.0)
        self.units = nn.ParameterList(nn.Parameter(start.clone()) for _ in hidden)
        self.head = StackedLinear(num_domains, hidden[-1], config.out_dim)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        h = self.input_norm(x.flatten(1), counts)
        for layer, norm, unit in zip(self.layers, self.norms, self.units, strict=True):
            h = layer(h)  # (b, D, out)
            h = F.relu(norm(h.flatten(1), counts)).view(h.shape)
            h = dropout(torch.einsum("ij,bjh->bih", unit, h), self.dropout, self.training)
        return self.head.routed(own_network(h, counts), counts)


class MMoE(nn.Module):
    """N experts that see all rows; each domain mixes them by its own softmax gate on the input, then its own output.

    Reading: N = D + K, the number of networks that ADI and PLE have (Section 5.1.4).
    """

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        sizes = (fields * config.dim, *hidden)
        experts = num_domains + config.num_shared
        self.input_norm = norm(sizes[0])
        self.experts = StackedMLP(experts, sizes, norm, dropout=config.dropout, **_HIDDEN)
        self.gate = StackedLinear(num_domains, sizes[0], experts)
        self.head = StackedLinear(num_domains, hidden[-1], config.out_dim)

    def gate_weights(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        """(b, N) weights of the experts, for normalised inputs x (b, in)."""
        return torch.softmax(wide(self.gate.routed(x, counts)), 1)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        x = self.input_norm(x.flatten(1), counts)
        mixed = torch.einsum("bn,bnh->bh", self.gate_weights(x, counts), self.experts(x, counts))
        return self.head.routed(mixed, counts)


class PLE(nn.Module):
    """Progressive layered extraction: D specific and K shared experts a level, gates that separate the two.

    Reading: the gate of a domain mixes its own expert and the K shared ones, fed by the domain's stream; the shared
    gate, on all levels but the last, mixes all D + K experts, fed by the shared stream, as the paper's text has it
    (Section 4.2 there). On the last level a row runs through its own domain's expert and the shared ones only. A level
    before the last needs the other domains' experts for the shared gate, and costs D-fold.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        in_size = fields * config.dim
        self.input_norm = norm(in_size)
        self.levels = nn.ModuleList()
        for level in range(config.levels):
            sizes = (in_size if level == 0 else hidden[-1], *hidden)
            self.levels.append(
                _PLELevel(
                    config,
                    num_domains,
                    sizes,
                    norm,
                    last=level == config.levels - 1,
                    first=level == 0,
                )
            )
        self.head = StackedLinear(num_domains, hidden[-1], config.out_dim)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        x = self.input_norm(x.flatten(1), counts)
        own = shared = x
        streams: Tensor | None = None
        for level in self.levels:
            own, streams, shared = level(own, streams, shared, counts)
        return self.head.routed(own, counts)


class _PLELevel(nn.Module):
    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        sizes: Sequence[int],
        norm: Norm,
        *,
        first: bool,
        last: bool,
    ) -> None:
        super().__init__()
        self.last = last
        options = {"dropout": config.dropout, **_HIDDEN}
        self.specific = StackedMLP(num_domains, sizes, norm, routed=last, **options)
        self.shared = StackedMLP(config.num_shared, sizes, norm, **options)
        self.gate = StackedLinear(num_domains, sizes[0], 1 + config.num_shared)
        self.shared_gate = None if last else StackedLinear(1, sizes[0], num_domains + config.num_shared)

    def forward(
        self, own: Tensor, streams: Tensor | None, shared: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """own (b, in): the row's own domain's stream. streams (b, D, in): every domain's, None while all are equal."""
        from_shared = self.shared(shared, counts)  # (b, K, h)
        if self.last:
            experts = torch.cat([self.specific(own, counts).unsqueeze(1), from_shared], 1)
            return _mix(self.gate.routed(own, counts), experts), None, shared
        of_domains = self.specific(own if streams is None else streams, counts)  # (b, D, h)
        gates = self.gate(own if streams is None else streams)  # (b, D, 1 + K)
        weights = torch.softmax(wide(gates), -1)
        next_streams = weights[..., :1] * of_domains + torch.einsum("bdk,bkh->bdh", weights[..., 1:], from_shared)
        everything = torch.cat([of_domains, from_shared], 1)
        next_shared = _mix(self.shared_gate(shared).squeeze(1), everything)
        return own_network(next_streams, counts), next_streams, next_shared


class StarNetwork(nn.Module):
    """Star layers of widths ``sizes``, each with norm, ReLU and dropout: x (b, in), sorted by domain -> (b, out)."""

    def __init__(self, num_domains: int, sizes: Sequence[int], norm: Norm, *, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(StarLinear(num_domains, i, o) for i, o in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(norm(o) for o in sizes[1:])

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = dropout(F.relu(norm(layer(x, counts), counts)), self.dropout, self.training)
        return x


class STAR(nn.Module):
    """Star topology: each layer's weights are shared weights times the domain's, element by element.

    Reading: partitioned normalisation is DSBN, so ``norm="dsbn"`` is its own; under Section 5.1.4 of the ADI paper all
    comparing methods have BN, which is the default here. The auxiliary network on the domain is left to the domain
    field, which every method has. No ReLU on the output.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        sizes = (fields * config.dim, *hidden)
        self.input_norm = norm(sizes[0])
        self.network = StarNetwork(num_domains, sizes, norm, dropout=config.dropout)
        self.head = StarLinear(num_domains, hidden[-1], config.out_dim)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        return self.head(self.network(self.input_norm(x.flatten(1), counts), counts), counts)


def own_network(x: Tensor, counts: Sequence[int]) -> Tensor:
    """x (b, D, h), rows sorted by domain -> (b, h): of each row, the output of its own domain's network."""
    return torch.cat([rows[:, d] for d, rows in enumerate(x.split(list(counts)))])


def _mix(scores: Tensor, experts: Tensor) -> Tensor:
    """Softmax of scores (b, n) over experts (b, n, h) -> (b, h)."""
    return torch.einsum("bn,bnh->bh", torch.softmax(wide(scores), 1), experts)
