"""The features of Table 1 as columns: names, kinds, groups, and the values of a block of users and of all items."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from adi_lite.data.schema import Column, Feature, Ragged, Schema
from adi_lite.data.simulation.config import SimulatorConfig
from adi_lite.data.simulation.past import Past
from adi_lite.data.simulation.terms import STATISTICS
from adi_lite.data.simulation.world import ATTRIBUTES, PROFILE, UserBlock, World

USER, ITEM = "User Features", "Item Features"
USER_DOMAIN, ITEM_DOMAIN = "User Domain Features", "Item Domain Features"
"""The headings of Table 1."""


def describe_features(config: SimulatorConfig, side: str) -> Iterator[tuple[Feature, str, int | None]]:
    """Each feature of one side, with the name that the terms of the utility call it by and, where the feature holds the
    values of one domain only (``domain_features="all"``), the number of that domain."""
    categories = config.num_categories + 1
    if side == "user":
        for name, levels in PROFILE.items():
            yield Feature(name, "categorical", levels + 1, group=USER), name, None
        for name in ("click_categories", "cart_categories", "pay_categories"):
            yield Feature(name, "bag", categories, table="category", group=USER), name, None
        yield from _by_domain(config, "domain_clicks", "bag", categories, "category", USER_DOMAIN)
        return
    yield Feature("item_id", "categorical", config.items + 1, group=ITEM), "item_id", None
    yield Feature("category", "categorical", categories, group=ITEM), "category", None
    for name, levels in ATTRIBUTES.items():
        yield Feature(name, "categorical", levels + 1, group=ITEM), name, None
    for name in STATISTICS:
        yield from _by_domain(config, name, "dense", 1, "", ITEM_DOMAIN)


def _by_domain(
    config: SimulatorConfig, name: str, kind: str, size: int, table: str, group: str
) -> Iterator[tuple[Feature, str, int | None]]:
    if config.domain_features == "own":
        yield Feature(name, kind, size, per_domain=True, table=table, group=group), name, None
        return
    for d, domain in enumerate(config.domains):
        yield Feature(f"{name}_{domain}", kind, size, table=table, group=group), name, d


def make_schema(config: SimulatorConfig) -> Schema:
    """Domains and features. A user's history are her clicks of day 0."""
    sides = {side: tuple(f for f, _, _ in describe_features(config, side)) for side in ("user", "item")}
    return Schema(domains=config.domains, history=True, **sides)


def user_columns(world: World, block: UserBlock) -> dict[str, Column]:
    """Feature columns of a block of users; profiles and categories count from 1, as 0 means unknown."""
    size, num_domains = len(block), world.config.num_domains
    code = torch.from_numpy(world.attributes["category"][block.item] + 1)
    user, domain = torch.from_numpy(block.user.astype(np.int64)), torch.from_numpy(block.domain.astype(np.int64))
    columns: dict[str, Column] = {name: torch.from_numpy(v.astype(np.int64) + 1) for name, v in block.profile.items()}
    marked = {"click_categories": slice(None), "cart_categories": block.cart, "pay_categories": block.pay}
    for name, mark in marked.items():
        mark = mark if isinstance(mark, slice) else torch.from_numpy(mark)
        columns[name] = sorted_rows(user[mark], code[mark], size)
    if world.config.domain_features == "own":
        columns["domain_clicks"] = sorted_rows(user * num_domains + domain, code, size * num_domains)
        return columns
    for d, name in enumerate(world.config.domains):
        columns[f"domain_clicks_{name}"] = sorted_rows(user[domain == d], code[domain == d], size)
    return columns


def user_history(block: UserBlock) -> Ragged:
    """The items that each user of the block clicked on day 0."""
    return sorted_rows(torch.from_numpy(block.user.astype(np.int64)), torch.from_numpy(block.item), len(block))


def item_columns(world: World, past: Past) -> dict[str, Column]:
    """Feature columns of all items."""
    columns: dict[str, Column] = {"item_id": torch.arange(1, world.config.items + 1)}
    columns |= {name: torch.from_numpy(v.astype(np.int64) + 1) for name, v in world.attributes.items()}
    for name, value in past.statistics(world.bids, world.member).items():
        table = torch.from_numpy(value.astype(np.float32))[:, :, None]
        if world.config.domain_features == "own":
            columns[name] = table
            continue
        columns |= {f"{name}_{domain}": table[:, d].contiguous() for d, domain in enumerate(world.config.domains)}
    return columns


def sorted_rows(rows: torch.Tensor, values: torch.Tensor, num_rows: int) -> Ragged:
    """A :class:`Ragged` of ``values`` whose ``rows`` are sorted already."""
    offsets = torch.zeros(num_rows + 1, dtype=torch.int64)
    torch.cumsum(torch.bincount(rows, minlength=num_rows), 0, out=offsets[1:])
    return Ragged(values, offsets)
