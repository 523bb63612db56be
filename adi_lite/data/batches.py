"""From columns to what a tower reads, and from records to batches that are sorted by domain.

A batch holds records of all domains, sorted by domain once, so that every layer can take the rows of a domain as one
contiguous slice (see :mod:`adi_lite.nn.stacked`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from adi_lite.data.schema import Column, Feature, MultiDomainDataset, Ragged

Side = Literal["user", "item"]
HISTORY = "history"
"""Name of the field that holds a user's past items."""
SHUFFLE_BLOCK = 2**24
"""Records that an epoch holds in memory, 32 bytes each and as much again while they are picked."""
_PIECES = 256
"""Of so many pieces, from anywhere, the records in memory are made up where there are more than fit."""


@dataclass(frozen=True)
class Bag:
    """A bag of codes for each row, with a weight for each code; a row's weights sum to 1, or the row is empty."""

    codes: Tensor  # (nnz,) int64
    offsets: Tensor  # (b + 1,) int64
    weights: Tensor  # (nnz,) float32

    def to(self, device: torch.device) -> Bag:
        return Bag(self.codes.to(device), self.offsets.to(device), self.weights.to(device))


@dataclass(frozen=True)
class Inputs:
    """What one tower reads for ``b`` rows, sorted by domain: rows of domain 0 first, then of domain 1, and so on."""

    domain: Tensor  # (b,) int64, non-decreasing
    counts: tuple[int, ...]  # (D,) rows of each domain
    features: dict[str, Tensor | Bag]

    def __len__(self) -> int:
        return len(self.domain)

    def to(self, device: torch.device) -> Inputs:
        """The same on a device; itself, where it is there already."""
        if self.domain.device == device:
            return self
        return Inputs(self.domain.to(device), self.counts, {n: c.to(device) for n, c in self.features.items()})


@dataclass(frozen=True)
class Batch:
    """Positive records sorted by domain."""

    user: Tensor  # (b,)
    item: Tensor  # (b,)
    domain: Tensor  # (b,)
    counts: tuple[int, ...]
    record: Tensor  # (b,) row of each record in the training data; -1 for a pseudo-label

    def __len__(self) -> int:
        return len(self.user)


def sort_by_domain(user: Tensor, item: Tensor, domain: Tensor, record: Tensor, num_domains: int) -> Batch:
    """Sort records by domain, keeping the order inside a domain."""
    order = torch.argsort(domain, stable=True)
    counts = torch.bincount(domain, minlength=num_domains).tolist()
    return Batch(user[order], item[order], domain[order], tuple(counts), record[order])


def iterate_batches(
    data: MultiDomainDataset,
    batch_size: int,
    generator: torch.Generator,
    *,
    shuffle: bool = True,
    block: int | None = None,
) -> Iterator[Batch]:
    """One epoch over the training records, in random order, as batches of all domains together.

    The last batch may be smaller. The whole epoch is permuted once and then cut: slicing is free, gathering is not.

    Where there are more records than ``block`` (:data:`SHUFFLE_BLOCK` by default), the shuffle has two levels: pieces of
    neighbouring records in random order, and the records of some pieces at a time, ``block`` in all, permuted. Every
    record still comes once, but one in the same piece as another comes within the same ``block`` of records.
    """
    train, left = data.train, torch.zeros(0, dtype=torch.int64)
    for order in _orders(len(train), generator, shuffle, block or SHUFFLE_BLOCK):
        order = torch.cat([left, order]) if len(left) else order
        whole = len(order) - len(order) % batch_size
        yield from _batches(data, order[:whole], batch_size)
        left = order[whole:].clone()  # not a view, which would keep the whole block
    yield from _batches(data, left, batch_size)


def _orders(records: int, generator: torch.Generator, shuffle: bool, block: int) -> Iterator[Tensor]:
    """Row numbers of all records, at most ``block`` at a time."""
    if not shuffle:
        for start in range(0, records, block):
            yield torch.arange(start, min(start + block, records))
    elif records <= block:
        yield torch.randperm(records, generator=generator)
    else:
        size = max(1, block // _PIECES)
        pieces = torch.randperm(-(-records // size), generator=generator)
        for some in pieces.split(block // size):
            order = torch.cat([torch.arange(p * size, min((p + 1) * size, records)) for p in some.tolist()])
            yield order[torch.randperm(len(order), generator=generator)]


def _batches(data: MultiDomainDataset, order: Tensor, batch_size: int) -> Iterator[Batch]:
    train = data.train
    user, item, domain = train.user[order], train.item[order], train.domain[order]
    for start in range(0, len(order), batch_size):
        part = slice(start, start + batch_size)
        yield sort_by_domain(user[part], item[part], domain[part], order[part], data.num_domains)


class InputBuilder:
    """Builds the :class:`Inputs` of users and items of one data set.

    Args:
        data: the data set whose columns and histories are read.
        history_dropout: share of the history's items left out at random in training, so that the model cannot lean on
            a single item (as denoising autoencoders do).
    """

    def __init__(self, data: MultiDomainDataset, *, history_dropout: float = 0.0) -> None:
        if not 0.0 <= history_dropout < 1.0:
            raise ValueError(f"history_dropout must lie in [0, 1), got {history_dropout}")
        self.data = data
        self.history_dropout = history_dropout

    def items(self, rows: Tensor, domain: Tensor, counts: tuple[int, ...]) -> Inputs:
        """Inputs of the item tower for items ``rows`` (b,) shown in ``domain`` (b,)."""
        return Inputs(domain, counts, self._columns("item", rows, domain))

    def users(
        self,
        rows: Tensor,
        domain: Tensor,
        counts: tuple[int, ...],
        *,
        target: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Inputs of the user tower for users ``rows`` (b,) in ``domain`` (b,).

        ``target`` (b,), the item to be predicted, is left out of the history: otherwise training would read the answer.
        A ``generator`` means training, and turns on ``history_dropout``.
        """
        features = self._columns("user", rows, domain)
        if self.data.history is not None:
            features[HISTORY] = self._history(rows, target, generator)
        return Inputs(domain, counts, features)

    def users_of(self, batch: Batch, generator: torch.Generator) -> Inputs:
        """Inputs of the user tower for a training batch: each row's target left out, history dropout on."""
        return self.users(batch.user, batch.domain, batch.counts, target=batch.item, generator=generator)

    def catalogue(self, domain: int) -> Inputs:
        """Inputs of the item tower for every item that ``domain`` can show."""
        return self.items_in(self.data.catalogues[domain], domain)

    def items_in(self, rows: Tensor, domain: int) -> Inputs:
        return self.items(rows, *self._one_domain(len(rows), domain))

    def users_in(self, rows: Tensor, domain: int) -> Inputs:
        return self.users(rows, *self._one_domain(len(rows), domain))

    def _one_domain(self, rows: int, domain: int) -> tuple[Tensor, tuple[int, ...]]:
        counts = tuple(rows if d == domain else 0 for d in range(self.data.num_domains))
        return torch.full((rows,), domain, dtype=torch.int64), counts

    def _columns(self, side: Side, rows: Tensor, domain: Tensor) -> dict[str, Tensor | Bag]:
        features = getattr(self.data.schema, side)
        columns = self.data.users if side == "user" else self.data.items
        return {f.name: _gather(f, columns[f.name], rows, domain, self.data.num_domains) for f in features}

    def _history(self, rows: Tensor, target: Tensor | None, generator: torch.Generator | None) -> Bag:
        past = self.data.history.take(rows)
        if target is None and generator is None:
            return mean_bag(past.values + 1, past.offsets)
        if target is None:
            keep = torch.ones(len(past.values), dtype=torch.bool)
        else:
            keep = past.values != torch.repeat_interleave(target, past.lengths())
        if generator is not None and self.history_dropout:
            keep &= torch.rand(len(keep), generator=generator) >= self.history_dropout
        kept_before = torch.zeros(len(keep) + 1, dtype=torch.int64)
        torch.cumsum(keep, 0, out=kept_before[1:])
        # Code 0 means unknown, so an item's code is its row + 1.
        return mean_bag(past.values[keep] + 1, kept_before[past.offsets])


def mean_bag(codes: Tensor, offsets: Tensor) -> Bag:
    """A bag in which every code of a row weighs the same."""
    lengths = offsets[1:] - offsets[:-1]
    return Bag(codes, offsets, torch.repeat_interleave(1.0 / lengths.clamp(min=1), lengths))


def _gather(feature: Feature, column: Column, rows: Tensor, domain: Tensor, num_domains: int) -> Tensor | Bag:
    if feature.kind == "bag":
        bag: Ragged = column.take(rows * num_domains + domain if feature.per_domain else rows)
        return mean_bag(bag.values.long(), bag.offsets)
    values = column[rows, domain] if feature.per_domain else column[rows]
    return values.long() if feature.kind == "categorical" else values
