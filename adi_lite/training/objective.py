"""The loss of one batch: which items each domain's rows are compared with, and one pass through both towers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adi_lite.data.batches import Batch, InputBuilder
from adi_lite.data.negatives import NegativeSampler, in_batch_frequency
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.two_tower import TwoTower
from adi_lite.nn.dropout import part_of_batch
from adi_lite.nn.precision import wide
from adi_lite.training.config import TrainConfig
from adi_lite.training.loss import (
    accidental_hits,
    double_softmax,
    first_of_each,
    full_softmax,
    sampled_softmax,
)
from adi_lite.training.ranks import OneProcess, cut, length


@dataclass(frozen=True)
class _Comparison:
    """What the rows of one domain are compared with. ``full``: with the whole catalogue, so that no positive is
    embedded apart; else with ``items``, which are embedded after the rows' own positives (``in_batch`` has none)."""

    items: Tensor
    full: bool


class Objective:
    """Computes the training loss of a model on batches sorted by domain.

    Args:
        data: the training data.
        config: loss, sampler and the rest.
        ranks: the processes that share each batch. A process embeds its part of the users and of the items, and
            compares its users with the items of all.
    """

    def __init__(self, data: MultiDomainDataset, config: TrainConfig, ranks: OneProcess | None = None) -> None:
        self.data, self.config, self.ranks = data, config, ranks or OneProcess()
        self.inputs = InputBuilder(data, history_dropout=config.history_dropout)
        self.in_batch = config.sampler in ("in_batch", "mixed")
        kind = "uniform" if self.in_batch else config.sampler
        self.sampler = NegativeSampler(data, kind, num_negatives=config.num_negatives, alpha=config.sampler_alpha)
        self.frequency = in_batch_frequency(data) if self.in_batch else None
        _check_shown(data)

    def __call__(self, model: TwoTower, batch: Batch, generator: torch.Generator) -> Tensor:
        """(b,) losses of this process's rows, in the order of the batch."""
        users, own = _of_users(self, model, batch, generator)
        compared = [self._compare(d, generator) if n else None for d, n in enumerate(batch.counts)]
        items = self._items(model, batch, compared)
        losses, rows = [], cut(batch.counts, own)
        parts = zip(*(t.split(list(batch.counts)) for t in (batch.item, batch.record)), strict=True)
        for d, (u, (ids, record)) in enumerate(zip(users.split([length(r) for r in rows]), parts, strict=True)):
            if len(u):
                losses.append(self._domain_loss(d, u, ids, record, *items[d], compared[d], rows[d]))
        return self.ranks.losses(losses, users, items[0][0])

    def _compare(self, domain: int, generator: torch.Generator) -> _Comparison:
        catalogue, config = self.data.catalogues[domain], self.config
        if config.loss == "full" or (not self.in_batch and config.num_negatives >= len(catalogue)):
            return _Comparison(catalogue, full=True)
        if config.sampler == "in_batch":
            return _Comparison(catalogue[:0], full=False)
        return _Comparison(self.sampler.sample(domain, generator), full=False)

    def _log_q(self, domain: int, items: Tensor, num_records: int) -> Tensor:
        """(n,) log of how often the negatives of a row are expected to hold each item; of the mixture, where two sources
        are mixed. ``num_records`` rows of the domain are in the batch, of which a row has the others as negatives.

        With ``correct_positive`` negatives are distinct, and it is the log of the chance that they hold the item at all.
        """
        sources = []  # (number of draws, chance of the item in each)
        if self.in_batch:
            sources.append((max(1, num_records - 1), self.frequency[domain][items]))
        if self.config.sampler != "in_batch":
            sources.append((self.config.num_negatives, self.sampler.probability(domain, items)))
        if self.config.correct_positive:
            return torch.log(-torch.expm1(sum(n * torch.log1p(-q) for n, q in sources))).float()
        return torch.log(sum(n * q for n, q in sources)).float()

    def _items(self, model: TwoTower, batch: Batch, compared: list[_Comparison | None]) -> list[tuple[Tensor, Tensor]]:
        """For each domain, vectors and bias of its rows' positives (unless full) and of what they are compared with."""
        rows = []
        for ids, c in zip(batch.item.split(list(batch.counts)), compared, strict=True):
            rows.append(ids if c is None else c.items if c.full else torch.cat([ids, c.items]))
        counts = tuple(len(r) for r in rows)
        domain = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        own = self.ranks.share(len(domain))
        inputs = self.inputs.items(torch.cat(rows)[own], domain[own], tuple(length(r) for r in cut(counts, own)))
        with part_of_batch(own.start, len(domain)):
            vectors, bias = model.encode_items(self.ranks.to_device(inputs))
        if bias is None:
            bias = vectors.new_zeros(len(vectors), 1)
        vectors, bias = self.ranks.gather_both(vectors, bias, len(domain))
        return list(zip(vectors.split(counts), bias.squeeze(1).split(counts), strict=True))

    def _domain_loss(
        self,
        domain: int,
        users: Tensor,
        ids: Tensor,
        record: Tensor,
        vectors: Tensor,
        bias: Tensor,
        compared: _Comparison,
        own: slice,
    ) -> Tensor:
        """Losses of the rows ``own`` of the domain, whose ``users`` are given; all else is of all its rows."""
        device = vectors.device
        if compared.full:
            target = torch.searchsorted(self.data.catalogues[domain], ids[own])
            return full_softmax(wide(users @ vectors.T) + bias, target.to(device))
        real = record >= 0
        sizes = [len(ids), len(compared.items)]
        (positives, negatives), (of_positives, of_negatives) = vectors.split(sizes), bias.split(sizes)
        items = compared.items
        if self.in_batch:
            negatives, of_negatives, items = vectors, bias, torch.cat([ids, items])
            if not bool(real.all()):  # pseudo-labels are no draw from Q
                shared = torch.cat([real, torch.ones(len(compared.items), dtype=torch.bool)])
                negatives, of_negatives, items = negatives[shared], of_negatives[shared], items[shared]
        if self.config.correct_positive:
            one = first_of_each(items)
            negatives, of_negatives, items = negatives[one], of_negatives[one], items[one]
        log_q, correct = torch.zeros(len(items)), None
        if self.config.log_q:
            log_q = self._log_q(domain, items, int(real.sum()))
            if self.config.correct_positive:
                correct = self._log_q(domain, ids[own], int(real.sum())).to(device)
        hits = accidental_hits(ids[own], items).to(device)
        positive = (users * positives[own]).sum(1) + of_positives[own]
        return sampled_softmax(positive, users, negatives, log_q.to(device), hits, correct, of_negatives)


class FixedNegativesObjective:
    """As the public code trained: every record keeps the negatives that it was given before the first epoch.

    Uniform over its domain's catalogue, and no log Q, whose correction would be the same for all of them. They are kept
    in memory: 8 bytes a record and negative.
    """

    def __init__(
        self,
        data: MultiDomainDataset,
        config: TrainConfig,
        generator: torch.Generator,
        ranks: OneProcess | None = None,
    ) -> None:
        self.config, self.ranks = config, ranks or OneProcess()
        self.inputs = InputBuilder(data, history_dropout=config.history_dropout)
        _check_shown(data)
        self.negatives = torch.empty(len(data.train), config.num_negatives, dtype=torch.int64)
        for d, catalogue in enumerate(data.catalogues):
            rows = (data.train.domain == d).nonzero().squeeze(1)
            drawn = torch.randint(len(catalogue), (len(rows), config.num_negatives), generator=generator)
            self.negatives[rows] = catalogue[drawn]

    def __call__(self, model: TwoTower, batch: Batch, generator: torch.Generator) -> Tensor:
        """(b,) losses of this process's rows."""
        users, own = _of_users(self, model, batch, generator)
        rows = torch.cat([batch.item[own].unsqueeze(1), self.negatives[batch.record[own]]], 1)  # (b, 1 + m)
        each = rows.shape[1]
        counts = tuple(length(c) * each for c in cut(batch.counts, own))
        inputs = self.inputs.items(rows.flatten(), batch.domain[own].repeat_interleave(each), counts)
        with part_of_batch(own.start * each, len(batch) * each):
            items, bias = model.encode_items(self.ranks.to_device(inputs))
        rows = rows.to(items.device)
        scores = wide(torch.einsum("bw,bnw->bn", users, items.unflatten(0, rows.shape)))
        if bias is not None:
            scores = scores + bias.view(rows.shape)
        if self.config.double_softmax:
            return double_softmax(scores[:, 0], scores[:, 1:])
        scores = torch.cat(
            [
                scores[:, :1],
                scores[:, 1:].masked_fill(rows[:, 1:] == rows[:, :1], -torch.inf),
            ],
            1,
        )
        return full_softmax(scores, torch.zeros(len(rows), dtype=torch.int64, device=rows.device))


def _of_users(
    objective: Objective | FixedNegativesObjective, model: TwoTower, batch: Batch, generator: torch.Generator
) -> tuple[Tensor, slice]:
    """Vectors of the users of this process's part of the batch, and which part that is.

    The inputs are built for all rows: which items of a history are left out must not depend on the number of processes.
    """
    own = objective.ranks.share(len(batch))
    inputs = objective.ranks.part(objective.inputs.users_of(batch, generator), own)
    with part_of_batch(own.start, len(batch)):
        return model.encode_users(objective.ranks.to_device(inputs)), own


def _check_shown(data: MultiDomainDataset) -> None:
    """A positive outside its domain's catalogue has no place in a softmax over it."""
    shown = torch.zeros(data.num_domains, data.num_items, dtype=torch.bool)
    for d, catalogue in enumerate(data.catalogues):
        shown[d, catalogue] = True
    outside, first = torch.zeros(data.num_domains, dtype=torch.int64), {}
    for part in data.train.chunks():
        wrong = ~shown[part.domain, part.item]
        domain, item = part.domain[wrong], part.item[wrong]
        outside += torch.bincount(domain, minlength=data.num_domains)
        for d in set(domain.unique().tolist()) - first.keys():
            first[d] = int(item[domain == d][0])
    if first:
        d = min(first)
        raise ValueError(
            f"domain {data.domains[d]!r}: {outside[d]} training records show items that its catalogue lacks, "
            f"first {data.item_ids[first[d]]!r}; add the items to the catalogue or drop the records"
        )
