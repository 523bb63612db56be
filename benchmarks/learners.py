"""What is trained side by side, an epoch at a time, and can be asked in between how well it ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from adi_lite.data.schema import Interactions, MultiDomainDataset, Ragged
from adi_lite.evaluation.scorer import Scorer
from adi_lite.models.scorer import ModelScorer
from adi_lite.training.config import Config
from adi_lite.training.optim import build_optimizers
from adi_lite.training.trainer import _Run
from benchmarks.plain import PlainADI, PlainDataset, row_loss
from benchmarks.steps import Step, endless, update


@dataclass(frozen=True)
class Learner:
    """A model in training."""

    epoch: Step
    """One epoch over the training records, as its own trainer makes it; gives their number."""
    scorer: Callable[[], Scorer]
    """The model as it stands, in evaluation mode."""
    negatives: str
    """What a record is compared with in training, in words."""
    epochs_a_call: float = 1.0
    """How much of an epoch a call of ``epoch`` makes, where that would take too long between two validations."""


class _RunByParts(_Run):
    """A run whose epochs have ``steps`` batches: the next ones of an epoch of all records, and then of another."""

    steps: int
    _left: Iterator = iter(())

    def _batches(self, generator: torch.Generator) -> Iterator:
        for _ in range(self.steps):
            if (batch := next(self._left, None)) is None:
                self._left = super()._batches(generator)
                batch = next(self._left)
            yield batch


def library_learner(data: MultiDomainDataset, config: Config, *, records_a_call: int | None = None) -> Learner:
    """The library's training loop: epochs as :func:`adi_lite.training.trainer.fit` makes them, without validation.

    With ``records_a_call``, a call of ``epoch`` goes on for about so many records, from one epoch into the next.
    """
    run = _RunByParts(data, config.with_changes(patience=None), None, False, None)
    of_epoch = sum(p.steps for p in run.periods)
    run.steps = _steps(of_epoch, records_a_call, config)
    numbers = itertools.count()

    def epoch() -> int:
        run._epoch(next(numbers))
        return min(len(data.train), run.steps * config.train.batch_size)

    train = config.train
    kind = (
        "of the row" if train.fixed_negatives else "in-batch" if train.sampler == "in_batch" else "shared by a domain"
    )
    number = "others of its domain" if train.sampler == "in_batch" else f"{train.num_negatives:,}"
    return Learner(
        epoch,
        lambda: ModelScorer(dict.fromkeys(range(data.num_domains), run.model), data),
        f"{number}, {kind}",
        run.steps / of_epoch,
    )


def plain_learner(
    data: MultiDomainDataset,
    config: Config,
    *,
    row_negatives: int = 20,
    max_history: int = 50,
    records_a_call: int | None = None,
) -> Learner:
    """The plain loop with negatives of each row, as public code has them.

    With ``records_a_call``, a call of ``epoch`` goes on for about so many records, from one epoch into the next.
    """
    torch.manual_seed(config.train.seed)
    model = PlainADI(config.model, data)
    optimizers = build_optimizers(model, config.train)
    records = PlainDataset(data, max_history, row_negatives, config.train.seed)
    generator = torch.Generator().manual_seed(config.train.seed)
    loader = DataLoader(records, config.train.batch_size, shuffle=True, generator=generator)

    steps = _steps(len(loader), records_a_call, config)
    batches = endless(loader)

    def epoch() -> int:
        model.train()
        trained = 0
        for batch in itertools.islice(batches, steps):
            update(optimizers, row_loss(model, batch).mean())
            trained += len(batch["item"])
        return trained

    def scorer() -> Scorer:
        model.eval()
        return VectorScorer(
            lambda users, d: model.user_vectors(
                users, padded(data.history, users, None, max_history), torch.full_like(users, d)
            ),
            lambda items, d: model.item_vectors(items, torch.full_like(items, d)),
            data,
        )

    return Learner(epoch, scorer, f"{row_negatives}, of the row", steps / len(loader))


def _steps(of_epoch: int, records_a_call: int | None, config: Config) -> int:
    """Steps of a call of ``epoch``, of the ``of_epoch`` steps of an epoch."""
    if records_a_call is None:
        return of_epoch
    return min(of_epoch, max(1, round(records_a_call / config.train.batch_size)))


def random_part(records: Interactions, number: int) -> Interactions:
    """``number`` of the records, always the same (all, where there are no more), with some of every domain."""
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))
    return records.take(order[:number])


class VectorScorer:
    """Scores by the inner product of vectors that two functions give for rows (n,) of users or items in a domain."""

    def __init__(
        self,
        user_vectors: Callable[[Tensor, int], Tensor],
        item_vectors: Callable[[Tensor, int], Tensor],
        data: MultiDomainDataset,
    ) -> None:
        self.user_vectors, self.item_vectors, self.data = user_vectors, item_vectors, data
        self._items: dict[int, Tensor] = {}

    @torch.no_grad()
    def scores(self, users: Tensor, domain: int) -> Tensor:
        """(n, size of the domain's catalogue), higher is better."""
        if domain not in self._items:
            self._items[domain] = self.item_vectors(self.data.catalogues[domain], domain)
        return self.user_vectors(users, domain) @ self._items[domain].T


def padded(history: Ragged, users: Tensor, target: Tensor | None, length: int) -> Tensor:
    """(n, length) codes (row + 1) of the last past items of ``users`` (n,), 0 where there are no more.

    ``target`` (n,), the item to be predicted, is left out.
    """
    past = history.take(users)
    row = past.row_of_value()
    keep = torch.ones(len(row), dtype=torch.bool) if target is None else past.values != target[row]
    row, codes = row[keep], past.values[keep].long() + 1
    counts = torch.bincount(row, minlength=len(users))
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row] - (counts - length).clamp(min=0)[row]
    out = torch.zeros(len(users), length, dtype=torch.int64)
    out[row[place >= 0], place[place >= 0]] = codes[place >= 0]
    return out
