"""A simulated data set in memory, with or without its truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from adi_lite.data.schema import Column, Interactions, MultiDomainDataset, Ragged
from adi_lite.data.simulation.columns import item_columns, make_schema, user_columns, user_history
from adi_lite.data.simulation.config import SimulatorConfig
from adi_lite.data.simulation.past import bag_means, sum_past
from adi_lite.data.simulation.truth import Truth
from adi_lite.data.simulation.utility import DAY, Records, RecordSampler, history_shares
from adi_lite.data.simulation.world import build_world, draw_users, num_blocks


def simulate(config: SimulatorConfig, seed: int, *, replicate: int = 0) -> MultiDomainDataset:
    """Simulate users, items, features and the records of a training and a test day.

    Everything that a model may read comes from day 0; ``train`` and ``valid`` are day 1, ``test`` is day 2.

    Args:
        config: parameters.
        seed: of all random numbers; the same config, seed and replicate give the same data.
        replicate: other numbers give other records of the same users, items, features and truth.

    Raises:
        ValueError: so few items that a domain has none.
    """
    return simulate_with_truth(config, seed, replicate=replicate)[0]


def simulate_with_truth(config: SimulatorConfig, seed: int, *, replicate: int = 0) -> tuple[MultiDomainDataset, Truth]:
    """:func:`simulate`, and the model that the data were drawn from."""
    world = build_world(config, seed)
    past = sum_past(world)
    sampler = RecordSampler(world, past, replicate)
    columns, histories, records, facts = [], [], [], []
    for index in range(num_blocks(config)):
        block = draw_users(world, index)
        means = bag_means(world, block)
        columns.append(user_columns(world, block))
        histories.append(user_history(block))
        records.append(sampler.draw(block, index, means))
        shares = history_shares(world, block)
        facts.append((block.active, block.kind, means, shares.user + block.start, shares.item, shares.share))
    train, valid = split_day(_interactions([r[1] for r in records]), config)
    dataset = MultiDomainDataset(
        name="simulator",
        schema=make_schema(config),
        user_ids=np.arange(config.users),
        item_ids=np.arange(config.items),
        users={name: _stack([c[name] for c in columns]) for name in columns[0]},
        items=item_columns(world, past),
        train=train,
        valid=valid,
        test=_interactions([r[2] for r in records]),
        catalogues=tuple(torch.from_numpy(rows) for rows in world.catalogues),
        history=_stack(histories),
        notes={
            "source": "simulated; no real user or advertisement",
            "seed": f"{seed}, replicate {replicate}",
            "days": "features from day 0, training and validation on day 1, test on day 2",
        },
    )
    active, kind, means, user, item, share = (np.concatenate(parts) for parts in zip(*facts, strict=True))
    past_items = Ragged.from_pairs(torch.from_numpy(user), torch.from_numpy(item), config.users)
    truth = Truth(config, world, sampler.utility, active, kind, means, past_items, torch.from_numpy(share))
    return dataset, truth


def load_simulator(
    preset: str = "quick",
    seed: int = 0,
    replicate: int = 0,
    scale: float = 1.0,
    num_domains: int = 3,
    domain_features: str = "own",
    parameters: Mapping[str, object] | None = None,
) -> MultiDomainDataset:
    """The simulated data set of a preset size: ``smoke``, ``quick`` or ``full``.

    ``parameters`` are further ones of :class:`SimulatorConfig`; the other arguments are as there and in
    :func:`simulate`.
    """
    changes = {"scale": scale, "num_domains": num_domains, "domain_features": domain_features, **(parameters or {})}
    return simulate(SimulatorConfig.preset(preset, **changes), seed, replicate=replicate)


def split_day(day: Interactions, config: SimulatorConfig) -> tuple[Interactions, Interactions]:
    """Day 1, sorted by time, cut into training and validation at the last ``valid_share`` of its seconds."""
    cut = int(torch.searchsorted(day.timestamp, valid_start(config)))
    return day.take(torch.arange(cut)), day.take(torch.arange(cut, len(day)))


def valid_start(config: SimulatorConfig) -> int:
    """The second at which the validation split starts."""
    return 2 * DAY - round(config.valid_share * DAY)


def _interactions(parts: list[Records]) -> Interactions:
    columns = [np.concatenate([getattr(p, n) for p in parts]) for n in ("user", "item", "domain", "timestamp")]
    joined = Interactions(*(torch.from_numpy(c.astype(np.int64)) for c in columns))
    return joined.take(torch.argsort(joined.timestamp, stable=True))


def _stack(parts: list[Column]) -> Column:
    """Columns of consecutive blocks as one."""
    if not isinstance(parts[0], Ragged):
        return torch.cat(parts)
    starts = np.concatenate([[0], np.cumsum([len(p.values) for p in parts])[:-1]])
    offsets = [p.offsets[:-1] + int(s) for p, s in zip(parts, starts, strict=True)]
    values = torch.cat([p.values for p in parts])
    return Ragged(values, torch.cat([*offsets, torch.tensor([len(values)])]))
