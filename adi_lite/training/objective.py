"""The loss of one batch: which items each domain's rows are compared with, and one pass through both towers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adi_lite.data.batches import Batch, InputBuilder
from adi_lite.data.negatives import NegativeSampler, in_batch_frequency
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import TrainConfig
from adi_lite.training.loss import (
    accidental_hits,
    double_softmax,
    first_of_each,
    full_softmax,
    sampled_softmax,
)


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
    """

    def __init__(self, data: MultiDomainDataset, config: TrainConfig) -> None:
        self.data, self.config = data, config
        self.inputs = InputBuilder(data, history_dropout=config.history_dropout)
        self.in_batch = config.sampler in ("in_batch", "mixed")
        kind = "uniform" if self.in_batch else config.sampler
        self.sampler = NegativeSampler(data, kind, num_negatives=config.num_negatives, alpha=config.sampler_alpha)
        self.frequency = in_batch_frequency(data) if self.in_batch else None
        _check_shown(data)

    def __call__(self, model: TwoTower, batch: Batch, generator: torch.Generator) -> Tensor:
        """(b,) losses, in the order of the batch."""
        users = model.user_vectors(self.inputs.users_of(batch, generator))
        compared = [self._compare(d, generator) if n else None for d, n in enumerate(batch.counts)]
        vectors = self._item_vectors(model, batch, compared)
        losses = []
        parts = zip(*(t.split(list(batch.counts)) for t in (users, batch.item, batch.record)), strict=True)
        for d, (u, ids, record) in enumerate(parts):
            if compared[d] is not None:
                losses.append(self._domain_loss(d, u, ids, record, vectors[d], compared[d]))
        return torch.cat(losses)

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

    def _item_vectors(self, model: TwoTower, batch: Batch, compared: list[_Comparison | None]) -> list[Tensor]:
        """For each domain, the vectors of its rows' positives (unless full) and of what they are compared with."""
        rows = []
        for ids, c in zip(batch.item.split(list(batch.counts)), compared, strict=True):
            rows.append(ids if c is None else c.items if c.full else torch.cat([ids, c.items]))
        counts = tuple(len(r) for r in rows)
        domain = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        vectors = model.item_vectors(self.inputs.items(torch.cat(rows), domain, counts))
        return list(vectors.split(list(counts)))

    def _domain_loss(
        self, domain: int, users: Tensor, ids: Tensor, record: Tensor, vectors: Tensor, compared: _Comparison
    ) -> Tensor:
        if compared.full:
            return full_softmax(users @ vectors.T, torch.searchsorted(self.data.catalogues[domain], ids))
        n, real = len(ids), record >= 0
        negatives, items = vectors[n:], compared.items
        if self.in_batch:
            negatives, items = vectors, torch.cat([ids, items])
            if not bool(real.all()):  # pseudo-labels are no draw from Q
                shared = torch.cat([real, torch.ones(len(compared.items), dtype=torch.bool)])
                negatives, items = negatives[shared], items[shared]
        if self.config.correct_positive:
            one = first_of_each(items)
            negatives, items = negatives[one], items[one]
        log_q, correct = torch.zeros(len(items)), None
        if self.config.log_q:
            log_q = self._log_q(domain, items, int(real.sum()))
            if self.config.correct_positive:
                correct = self._log_q(domain, ids, int(real.sum()))
        return sampled_softmax(
            (users * vectors[:n]).sum(1), users @ negatives.T, log_q, accidental_hits(ids, items), correct
        )


class FixedNegativesObjective:
    """As the public code trained: every record keeps the negatives that it was given before the first epoch.

    Uniform over its domain's catalogue, and no log Q, whose correction would be the same for all of them.
    """

    def __init__(self, data: MultiDomainDataset, config: TrainConfig, generator: torch.Generator) -> None:
        self.config = config
        self.inputs = InputBuilder(data, history_dropout=config.history_dropout)
        _check_shown(data)
        self.negatives = torch.empty(len(data.train), config.num_negatives, dtype=torch.int64)
        for d, catalogue in enumerate(data.catalogues):
            rows = (data.train.domain == d).nonzero().squeeze(1)
            drawn = torch.randint(len(catalogue), (len(rows), config.num_negatives), generator=generator)
            self.negatives[rows] = catalogue[drawn]

    def __call__(self, model: TwoTower, batch: Batch, generator: torch.Generator) -> Tensor:
        """(b,) losses."""
        users = model.user_vectors(self.inputs.users_of(batch, generator))
        rows = torch.cat([batch.item.unsqueeze(1), self.negatives[batch.record]], 1)  # (b, 1 + m)
        each = rows.shape[1]
        counts = tuple(c * each for c in batch.counts)
        items = model.item_vectors(self.inputs.items(rows.flatten(), batch.domain.repeat_interleave(each), counts))
        scores = torch.einsum("bw,bnw->bn", users, items.unflatten(0, rows.shape))
        if self.config.double_softmax:
            return double_softmax(scores[:, 0], scores[:, 1:])
        scores = torch.cat(
            [
                scores[:, :1],
                scores[:, 1:].masked_fill(rows[:, 1:] == rows[:, :1], -torch.inf),
            ],
            1,
        )
        return full_softmax(scores, torch.zeros(len(rows), dtype=torch.int64))


def _check_shown(data: MultiDomainDataset) -> None:
    """A positive outside its domain's catalogue has no place in a softmax over it."""
    for d, catalogue in enumerate(data.catalogues):
        items = data.train.item[data.train.domain == d]
        outside = items[~torch.isin(items, catalogue)]
        if len(outside):
            raise ValueError(
                f"domain {data.domains[d]!r}: {len(outside)} training records show items that its catalogue lacks, "
                f"first {data.item_ids[int(outside[0])]!r}; add the items to the catalogue or drop the records"
            )
