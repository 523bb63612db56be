"""Proposal distributions Q for the sampled softmax (paper, Eq. 4): which items serve as negatives, and how often.

Negatives are drawn once for all rows of a domain in a batch, from that domain's catalogue, with replacement. Every
sampler also knows the *expected count* of each item in a draw, ``num_negatives * Q(item)``: its logarithm is what the
correction subtracts.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset

SamplerKind = Literal["uniform", "popularity", "log_uniform"]


class NegativeSampler:
    """Draws negatives of each domain.

    Args:
        data: gives the catalogues, and the popularity of items in the training records of each domain.
        kind: ``uniform`` over the catalogue; ``popularity``: proportional to (training count + 1) ** ``alpha``;
            ``log_uniform``: Q(rank) = log((rank + 2) / (rank + 1)) / log(n + 1) over items by falling popularity, as
            word2vec-style candidate samplers use.
        num_negatives: size of one draw.
        alpha: exponent of ``popularity``.
    """

    def __init__(
        self, data: MultiDomainDataset, kind: SamplerKind = "uniform", *, num_negatives: int, alpha: float = 0.75
    ) -> None:
        if num_negatives < 1:
            raise ValueError(f"num_negatives must be at least 1, got {num_negatives}")
        if kind not in ("uniform", "popularity", "log_uniform"):
            raise ValueError(f"unknown sampler {kind!r}; choose uniform, popularity or log_uniform")
        self.kind, self.num_negatives = kind, num_negatives
        self.catalogues = data.catalogues
        self._q: list[Tensor] = []  # (n_d,) float64, over the catalogue
        self._cdf: list[Tensor] = []
        counts = None if kind == "uniform" else popularity(data)  # a pass over all records
        for domain, catalogue in enumerate(data.catalogues):
            shown = torch.zeros(len(catalogue)) if counts is None else counts[domain, catalogue]
            q = _proposal(kind, shown, alpha)
            self._q.append(q)
            self._cdf.append(torch.cumsum(q, 0))

    def sample(self, domain: int, generator: torch.Generator) -> Tensor:
        """(num_negatives,) item rows drawn with replacement from the domain's catalogue."""
        size = len(self.catalogues[domain])
        if self.kind == "uniform":
            return self.catalogues[domain][torch.randint(size, (self.num_negatives,), generator=generator)]
        # The cumulative sum stays in float64: in float32 the tail of a large catalogue would never be drawn.
        u = torch.rand(self.num_negatives, generator=generator, dtype=torch.float64) * self._cdf[domain][-1]
        return self.catalogues[domain][torch.searchsorted(self._cdf[domain], u, right=True).clamp(max=size - 1)]

    def probability(self, domain: int, items: Tensor) -> Tensor:
        """(n,) float64: Q of each of ``items``. An item outside the catalogue is never drawn: 0."""
        return _lookup(self.catalogues[domain], self._q[domain], items)

    def log_expected(self, domain: int, items: Tensor) -> Tensor:
        """(n,) log of the expected number of times that each of ``items`` occurs in one draw."""
        return torch.log(self.num_negatives * self.probability(domain, items)).float()


def popularity(data: MultiDomainDataset) -> Tensor:
    """(D, num_items) float64: training records of each item in each domain."""
    counts = torch.zeros(data.num_domains * data.num_items, dtype=torch.int64)
    for part in data.train.chunks():
        place = part.domain * data.num_items + part.item
        counts.index_add_(0, place, torch.ones_like(place))
    return counts.view(data.num_domains, data.num_items).double()


def in_batch_frequency(data: MultiDomainDataset) -> list[Tensor]:
    """For each domain, (num_items,) float64: the chance that *another* training record of the domain shows the item.

    This is Q of in-batch negatives, where the other rows' positives serve as negatives: given a row with another item,
    ``count / (records - 1)``. An item that the domain never showed, which a pseudo-label may bring in, counts as shown
    once.
    """
    counts = popularity(data).unbind(0)
    return [(c.clamp(min=1) / (c.sum() - 1).clamp(min=1)).clamp(max=1) for c in counts]


def _proposal(kind: SamplerKind, counts: Tensor, alpha: float) -> Tensor:
    n = len(counts)
    if kind == "uniform":
        return torch.full((n,), 1.0 / n, dtype=torch.float64)
    if kind == "popularity":
        weight = (counts + 1.0) ** alpha
        return weight / weight.sum()
    rank = torch.empty(n, dtype=torch.float64)
    rank[torch.argsort(counts, descending=True, stable=True)] = torch.arange(n, dtype=torch.float64)
    return torch.log1p(1.0 / (rank + 1.0)) / math.log(n + 1)


def _lookup(catalogue: Tensor, values: Tensor, items: Tensor) -> Tensor:
    where = torch.searchsorted(catalogue, items).clamp(max=len(catalogue) - 1)
    return torch.where(catalogue[where] == items, values[where], 0.0)
