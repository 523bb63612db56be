"""A small data set with known records, and scorers made of plain matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adi_lite.data.schema import Candidates, Feature, Interactions, MultiDomainDataset, Schema


class Fixed:
    """Scores looked up in one (users, items) matrix."""

    def __init__(self, table: Tensor, data: MultiDomainDataset) -> None:
        self.table, self.data = table, data

    def scores(self, users: Tensor, domain: int) -> Tensor:
        return self.table[users][:, self.data.catalogues[domain]]


def records(*rows: tuple[int, int, int]) -> Interactions:
    """Interactions from triples (user, item, domain)."""
    columns = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).T
    return Interactions(*columns.contiguous())


def world(
    train: Interactions,
    test: Interactions,
    *,
    valid: Interactions | None = None,
    num_users: int,
    num_items: int,
    catalogues: tuple[Tensor, ...],
    candidates: dict[str, Candidates] | None = None,
) -> MultiDomainDataset:
    return MultiDomainDataset(
        name="world",
        schema=Schema(
            tuple(f"d{d}" for d in range(len(catalogues))),
            (Feature("user_id", "categorical", num_users + 1),),
            (Feature("item_id", "categorical", num_items + 1),),
        ),
        user_ids=np.array([f"u{i}" for i in range(num_users)]),
        item_ids=np.array([f"i{i}" for i in range(num_items)]),
        users={"user_id": torch.arange(1, num_users + 1)},
        items={"item_id": torch.arange(1, num_items + 1)},
        train=train,
        valid=valid if valid is not None else Interactions.empty(),
        test=test,
        catalogues=catalogues,
        candidates=candidates or {},
    )


def random_world(seed: int, *, num_users: int = 40, num_items: int = 30, c: int = 8) -> MultiDomainDataset:
    """Two domains with overlapping catalogues, several positives a query, and lists that hold all positives."""
    rng = np.random.default_rng(seed)
    catalogues = (torch.arange(0, 22), torch.arange(10, num_items))

    def draw(n: int) -> Interactions:
        domain = rng.integers(0, 2, n)
        item = np.where(domain == 0, rng.integers(0, 22, n), rng.integers(10, num_items, n))
        return records(*zip(rng.integers(0, num_users, n), item, domain, strict=True))

    train, valid, test = draw(300), draw(40), draw(110)
    pairs = sorted({(int(u), int(d)) for u, d in zip(test.user, test.domain, strict=True)})
    lists = []
    for u, d in pairs:
        right = {int(i) for i in test.item[(test.user == u) & (test.domain == d)]}
        others = [int(i) for i in rng.permutation(catalogues[d].numpy()) if int(i) not in right]
        lists.append(rng.permutation([*right, *others[: c - len(right)]]))
    users, domains = torch.tensor(pairs).T
    candidates = Candidates(users.contiguous(), domains.contiguous(), torch.from_numpy(np.stack(lists)))
    return world(
        train,
        test,
        valid=valid,
        num_users=num_users,
        num_items=num_items,
        catalogues=catalogues,
        candidates={"test": candidates},
    )
