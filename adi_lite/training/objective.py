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
    full_softmax,
    sampled_softmax,
)


@dataclass(frozen=True)
class _Comparison:
    """What the rows of one domain are compared with. ``full``: with the whole catalogue, so that no positive is
    embedded apart; else with ``items``, beside the rows' own positives."""

    items: Tensor
    full: bool
    log_q: Tensor | None = None


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

    def __call__(self, model: TwoTower, batch: Batch, generator: torch.Generator) -> Tensor:
        """(b,) losses, in the order of the batch."""
        users = model.user_vectors(
            self.inputs.users(
                batch.user,
                batch.domain,
                batch.counts,
                target=batch.item,
                generator=generator,
            )
        )
        compared = [
            self._compare(d, items, generator) if len(items) else None
            for d, items in enumerate(batch.item.split(list(batch.counts)))
        ]
        vectors = self._item_vectors(model, batch, compared)
        losses = []
        for d, (u, ids) in enumerate(
            zip(
                users.split(list(batch.counts)),
                batch.item.split(list(batch.counts)),
                strict=True,
            )
        ):
            if compared[d] is not None:
                losses.append(self._domain_loss(d, u, ids, vectors[d], compared[d]))
        return torch.cat(losses)

    def _compare(self, domain: int, positives: Tensor, generator: torch.Generator) -> _Comparison:
        catalogue = self.data.catalogues[domain]
        config = self.config
        if config.loss == "full" or (not self.in_batch and config.num_negatives >= len(catalogue)):
            return _Comparison(catalogue, full=True)
        drawn = positives[:0] if config.sampler == "in_batch" else self.sampler.sample(domain, generator)
        items = torch.cat([positives, drawn]) if self.in_batch else drawn
        return _Comparison(items, full=False, log_q=self._log_q(domain, items, len(positives)))

    def _log_q(self, domain: int, items: Tensor, num_positives: int) -> Tensor:
        """(n,) log of how often a draw is expected to hold each item: of the mixture, where two sources are mixed."""
        if not self.in_batch:
            return self.sampler.log_expected(domain, items)
        expected = num_positives * self.frequency[domain][items]
        if self.config.sampler == "mixed":
            expected = expected + self.sampler.log_expected(domain, items).double().exp()
        return torch.log(expected).float()

    def _item_vectors(self, model: TwoTower, batch: Batch, compared: list[_Comparison | None]) -> list[Tensor]:
        """For each domain, the vectors of its rows' positives (unless full, or in the batch anyway) and comparisons."""
        rows = []
        for ids, c in zip(batch.item.split(list(batch.counts)), compared, strict=True):
            parts = [] if c is None else [c.items] if c.full or self.in_batch else [ids, c.items]
            rows.append(torch.cat(parts) if parts else ids)
        counts = tuple(len(r) for r in rows)
        domain = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        vectors = model.item_vectors(self.inputs.items(torch.cat(rows), domain, counts))
        return list(vectors.split(list(counts)))

    def _domain_loss(
        self,
        domain: int,
        users: Tensor,
        ids: Tensor,
        vectors: Tensor,
        compared: _Comparison,
    ) -> Tensor:
        if compared.full:
            return full_softmax(users @ vectors.T, torch.searchsorted(self.data.catalogues[domain], ids))
        n = len(ids)
        negatives = vectors if self.in_batch else vectors[n:]
        log_q = compared.log_q if self.config.log_q else torch.zeros_like(compared.log_q)
        correct = self._log_q(domain, ids, n) if self.config.correct_positive and self.config.log_q else None
        return sampled_softmax(
            (users * vectors[:n]).sum(1),
            users @ negatives.T,
            log_q,
            accidental_hits(ids, compared.items),
            correct,
        )


class FixedNegativesObjective:
    """As the public code trained: every record keeps the negatives that it was given before the first epoch.

    Uniform over its domain's catalogue, and no log Q, whose correction would be the same for all of them.
    """

    def __init__(self, data: MultiDomainDataset, config: TrainConfig, generator: torch.Generator) -> None:
        self.config = config
        self.inputs = InputBuilder(data, history_dropout=config.history_dropout)
        self.negatives = torch.empty(len(data.train), config.num_negatives, dtype=torch.int64)
        for d, catalogue in enumerate(data.catalogues):
            rows = (data.train.domain == d).nonzero().squeeze(1)
            drawn = torch.randint(len(catalogue), (len(rows), config.num_negatives), generator=generator)
            self.negatives[rows] = catalogue[drawn]

    def __call__(self, model: TwoTower, batch: Batch, generator: torch.Generator) -> Tensor:
        """(b,) losses."""
        users = model.user_vectors(
            self.inputs.users(
                batch.user,
                batch.domain,
                batch.counts,
                target=batch.item,
                generator=generator,
            )
        )
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
