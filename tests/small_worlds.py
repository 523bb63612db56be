"""Small data sets: one random with features of every kind, one whose answers are known."""

from __future__ import annotations

import numpy as np
import torch

from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Ragged, Schema


def tiny(
    *,
    num_domains: int = 3,
    users: int = 12,
    items: int = 20,
    records: int = 90,
    seed: int = 0,
    rich: bool = False,
    history: bool = True,
    whole_catalogues: bool = False,
) -> MultiDomainDataset:
    """Random records of ``num_domains`` domains with overlapping users and items; the last 2 of each domain validate.

    Without ``whole_catalogues``, item v is missing from the catalogue of domain v % (D + 1), if there is such a domain.
    ``rich`` adds features of every kind on both sides, whole and per domain.
    """
    rng = np.random.default_rng(seed)
    catalogues = [
        [v for v in range(items) if whole_catalogues or v % (num_domains + 1) != d] for d in range(num_domains)
    ]
    domain = np.arange(records) % num_domains
    item = np.array([rng.choice(catalogues[d]) for d in domain])
    user = rng.integers(0, users, records)
    held_out = np.arange(records) >= records - 2 * num_domains

    def part(mask: np.ndarray) -> Interactions:
        return Interactions(*(torch.from_numpy(c[mask]) for c in (user, item, domain)))

    user_features, user_columns = _features(rng, users, num_domains, "user", rich)
    item_features, item_columns = _features(rng, items, num_domains, "item", rich)
    return MultiDomainDataset(
        name="tiny",
        schema=Schema(tuple(f"d{d}" for d in range(num_domains)), user_features, item_features, history),
        user_ids=np.array([f"u{i}" for i in range(users)]),
        item_ids=np.array([f"v{i}" for i in range(items)]),
        users=user_columns,
        items=item_columns,
        train=part(~held_out),
        valid=part(held_out),
        test=Interactions.empty(),
        catalogues=tuple(torch.tensor(c) for c in catalogues),
    )


def domain_checkerboard(*, size: int = 24, num_domains: int = 3) -> MultiDomainDataset:
    """Each domain follows a rule of its own: in domain d, user u takes the items v with (u + d - v) % D == 0.

    One such item of each user and domain is held out for the test, and is the only item that the user would take there
    and has not taken yet. Pooled over the domains, every user takes every item, so a model that cannot tell the domains
    apart has nothing to learn.
    """
    every = [
        (u, v, d)
        for d in range(num_domains)
        for u in range(size)
        for v in range(size)
        if (u + d - v) % num_domains == 0
    ]
    n = size // num_domains
    held_out = [i * n + (i // num_domains + i % size) % n for i in range(len(every) // n)]
    train = torch.tensor([r for i, r in enumerate(every) if i not in set(held_out)])
    test = torch.tensor([every[i] for i in held_out])
    ids = torch.arange(1, size + 1)
    return MultiDomainDataset(
        name="checkerboard",
        schema=Schema(
            tuple(f"rule{d}" for d in range(num_domains)),
            (Feature("user_id", "categorical", size + 1),),
            (Feature("item_id", "categorical", size + 1),),
        ),
        user_ids=np.arange(size),
        item_ids=np.arange(size),
        users={"user_id": ids},
        items={"item_id": ids},
        train=Interactions(*train.T),
        valid=Interactions(*test.T),
        test=Interactions(*test.T),
        catalogues=tuple(torch.arange(size) for _ in range(num_domains)),
    )


def _features(
    rng: np.random.Generator, rows: int, num_domains: int, side: str, rich: bool
) -> tuple[tuple[Feature, ...], dict]:
    def bag(n: int) -> Ragged:
        lengths = rng.integers(0, 4, n)
        return Ragged.from_pairs(
            torch.from_numpy(np.repeat(np.arange(n), lengths)), torch.from_numpy(rng.integers(0, 7, lengths.sum())), n
        )

    features = [Feature(f"{side}_id", "categorical", rows + 1)]
    columns: dict = {f"{side}_id": torch.arange(1, rows + 1)}
    if rich:
        features += [
            Feature("kind", "categorical", 5),
            Feature("level", "categorical", 4, per_domain=True),
            Feature("tags", "bag", 7),
            Feature("seen", "bag", 7, per_domain=True, table="tags"),
            Feature("size", "dense", 3),
            Feature("price", "dense", 2, per_domain=True),
        ]
        columns |= {
            "kind": torch.from_numpy(rng.integers(0, 5, rows)),
            "level": torch.from_numpy(rng.integers(0, 4, (rows, num_domains))),
            "tags": bag(rows),
            "seen": bag(rows * num_domains),
            "size": torch.from_numpy(rng.normal(size=(rows, 3))).float(),
            "price": torch.from_numpy(rng.normal(size=(rows, num_domains, 2))).float(),
        }
    return tuple(features), columns
