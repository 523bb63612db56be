"""The queries of a split: who asks, in which domain, and what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adi_lite.data.schema import Interactions, MultiDomainDataset, Ragged

_EARLIER = {"train": (), "valid": ("train",), "test": ("train", "valid")}


@dataclass(frozen=True)
class Queries:
    """Pairs (user, domain) in ascending order of domain, then user, with their distinct positives.

    Attributes:
        domain, user: (q,) int64.
        positives: a row of item rows for each query, sorted.
    """

    dataset: MultiDomainDataset
    split: str
    domain: Tensor
    user: Tensor
    positives: Ragged

    @classmethod
    def of(cls, dataset: MultiDomainDataset, split: str) -> Queries:
        """The queries of a split.

        Raises:
            ValueError: the split has no record, or is unknown.
        """
        records = dataset.split(split)
        if not len(records):
            raise ValueError(f"the {split} split of {dataset.name} is empty: there is nothing to evaluate")
        distinct = torch.unique(_pair(dataset, records) * dataset.num_items + records.item)
        pair, item = distinct // dataset.num_items, distinct % dataset.num_items
        pairs, counts = torch.unique_consecutive(pair, return_counts=True)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        users = dataset.num_users
        return cls(dataset, split, pairs // users, pairs % users, Ragged(item, offsets))

    def __len__(self) -> int:
        return len(self.user)

    @property
    def pairs(self) -> Tensor:
        """(q,) ascending, ``domain * num_users + user``."""
        return self.domain * self.dataset.num_users + self.user

    def name(self, query: int) -> str:
        """A query in words, for messages."""
        user = self.dataset.user_ids[int(self.user[query])]
        return f"user {user} in domain {self.dataset.domains[int(self.domain[query])]!r}"

    def groups(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """Domain and query numbers of at most ``size`` queries at a time."""
        for d in range(self.dataset.num_domains):
            for group in (self.domain == d).nonzero().squeeze(1).split(size):
                if len(group):
                    yield d, group

    def seen(self) -> Ragged:
        """Distinct items that each query's user took in its domain in earlier splits, without the query's positives."""
        data, pairs = self.dataset, self.pairs
        found = [torch.zeros(0, dtype=torch.int64)]
        for part in (p for split in _EARLIER[self.split] for p in data.split(split).chunks()):
            pair = _pair(data, part)
            query = torch.searchsorted(pairs, pair).clamp(max=len(pairs) - 1)
            known = pairs[query] == pair
            found.append(torch.unique(query[known] * data.num_items + part.item[known]))
        keys = torch.unique(torch.cat(found))
        right = self.positives.row_of_value() * data.num_items + self.positives.values
        keys = keys[~torch.isin(keys, right)]
        return Ragged.from_pairs(keys // data.num_items, keys % data.num_items, len(self))

    def candidates(self) -> Tensor:
        """(q, c) list of each query.

        Raises:
            ValueError: no lists for the split, two lists or none for a query, an item twice in a list.
        """
        data, lists = self.dataset, self.dataset.candidates.get(self.split)
        if lists is None:
            raise ValueError(
                f"{data.name} has no candidate lists for the {self.split} split; use protocol='corpus' instead"
            )
        listed, order = torch.sort(lists.domain * data.num_users + lists.user)
        place = torch.searchsorted(listed, self.pairs).clamp(max=max(len(listed) - 1, 0))
        found = listed[place] == self.pairs if len(listed) else torch.zeros(len(self), dtype=torch.bool)
        if not bool(found.all()):
            raise ValueError(f"no candidate list for {self.name(_first(~found))}, a query of the {self.split} split")
        after = (place + 1).clamp(max=len(listed) - 1)
        if bool((twice := (after > place) & (listed[after] == self.pairs)).any()):
            raise ValueError(f"more than one candidate list for {self.name(_first(twice))}")
        items = lists.items[order[place]]
        ordered = items.sort(1).values
        if bool((twice := (ordered[:, 1:] == ordered[:, :-1]).any(1)).any()):
            raise ValueError(f"an item occurs twice in the candidate list of {self.name(_first(twice))}")
        return items

    def skipped(self) -> int:
        """Pairs (user, domain) with training records or a candidate list, but without a positive in the split."""
        lists = self.dataset.candidates.get(self.split)
        known = torch.zeros(self.dataset.num_domains * self.dataset.num_users, dtype=torch.bool)
        for part in self.dataset.train.chunks():
            known[_pair(self.dataset, part)] = True
        if lists is not None:
            known[lists.domain * self.dataset.num_users + lists.user] = True
        known[self.pairs] = False
        return int(known.sum())

    def unreachable(self) -> int:
        """Positives that are not in the catalogue of their domain."""
        return self._outside(self.positives.values, self.domain[self.positives.row_of_value()])

    def outside(self, lists: Tensor) -> int:
        """Items of (q, c) lists that are not in the catalogue of their query's domain."""
        return self._outside(lists, self.domain)

    def _outside(self, items: Tensor, domain: Tensor) -> int:
        return sum(
            int((~columns_of(items[domain == d], catalogue)[1]).sum())
            for d, catalogue in enumerate(self.dataset.catalogues)
        )


def columns_of(items: Tensor, catalogue: Tensor) -> tuple[Tensor, Tensor]:
    """Place of each item in a sorted catalogue, and whether it is there (elsewhere the place means nothing)."""
    column = torch.searchsorted(catalogue, items.contiguous()).clamp(max=len(catalogue) - 1)
    return column, catalogue[column] == items


def _pair(dataset: MultiDomainDataset, records: Interactions) -> Tensor:
    return records.domain * dataset.num_users + records.user


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])
