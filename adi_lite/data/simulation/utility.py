"""The utility of days 1 and 2: what is added up, and the records drawn from its softmax.

s_d(u, v) = sum over terms g of w[d, g] m_g(u, v),   p(v | u, d) = softmax over the catalogue of domain d.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adi_lite.data.simulation.past import Past, bag_means, domain_means, standardise
from adi_lite.data.simulation.sampling import CategorySampler, Gains
from adi_lite.data.simulation.terms import BAGS, HISTORY_SHRINKAGE, PROFILE_TERMS, STATISTICS, TERMS, number, weights
from adi_lite.data.simulation.world import RECORDS, UserBlock, World, kind_profiles, stream

DAY = 86_400
"""Seconds of a day. Day 1 starts at 86,400."""


@dataclass(frozen=True)
class DomainUtility:
    """The utility in one domain with n items; every part is already multiplied by its weight."""

    bags: np.ndarray  # (4, r, K) from the mean topic of a bag to utilities of categories
    profile: dict[str, np.ndarray]  # by term, (kinds, n)
    item: dict[str, np.ndarray]  # by term, (n,)
    history: float  # weight of an item's share of the user's past

    def log_weight(self, part: str | None = None) -> np.ndarray:
        """(kinds, n) what does not depend on the user beyond her kind; ``part`` "click" or "exposure", default both."""
        wanted = {t.name for t in TERMS if part in (None, t.part)}
        terms = [v for k, v in (*self.profile.items(), *self.item.items()) if k in wanted]
        return sum(terms) + np.zeros((len(kind_profiles()[0]), 1))


def build_utility(world: World, past: Past) -> tuple[DomainUtility, ...]:
    """The utility in each domain. Each term but the history is scaled to unit variance: over the domain's catalogue,
    averaged over its active users."""
    statistics = past.statistics(world.bids, world.member)
    table = weights(world.config)
    return tuple(_domain(world, past, statistics, d, table[d]) for d in range(world.config.num_domains))


def _domain(world: World, past: Past, statistics: dict, d: int, weight: np.ndarray) -> DomainUtility:
    rows = world.catalogues[d]
    users = max(past.kinds[d].sum(), 1)
    spread = np.atleast_2d(np.cov(world.topics[world.attributes["category"][rows]].T, bias=True))
    bags = np.empty((len(BAGS), *world.topics.T.shape))
    for b, name in enumerate(BAGS):
        variance = np.trace(spread @ past.moments[d, b]) / users
        bags[b] = weight[number(f"{name} x category")] * _over_root(world.topics.T, variance)
    profiles = dict(zip(("gender", "age", "city"), kind_profiles(), strict=True))
    profile = {}
    for name in PROFILE_TERMS:
        feature, attribute = name.split(" x ")
        match = world.tables[name][profiles[feature]][:, world.attributes[attribute][rows]]
        variance = (match.var(1) * past.kinds[d]).sum() / users
        profile[name] = weight[number(name)] * _over_root(match, variance)
    columns = {"popularity": world.popularity, **{name: statistics[name] for name in STATISTICS}}
    item = {k: weight[number(k)] * standardise(v[rows, d], v[rows, d]) for k, v in columns.items()}
    return DomainUtility(bags, profile, item, weight[number("history x item_id")])


def _over_root(values: np.ndarray, variance: float) -> np.ndarray:
    return values / np.sqrt(variance) if variance > 1e-12 else np.zeros_like(values)


def personal(utility: DomainUtility, means: np.ndarray, domain: int) -> np.ndarray:
    """(b, K) utility of each category for users with :func:`bag_means` ``means`` (b, 3 + D, r)."""
    bags = domain_means(means, domain)
    return bags.reshape(len(bags), -1) @ utility.bags.reshape(-1, utility.bags.shape[2]).astype(np.float32)


@dataclass(frozen=True)
class Shares:
    """Distinct items of each user's past and their shrunk shares of it, sorted by user."""

    user: np.ndarray
    item: np.ndarray
    share: np.ndarray


def history_shares(world: World, block: UserBlock) -> Shares:
    """count of the item / (length of the past + 5), see ``HISTORY_SHRINKAGE``."""
    n = world.config.items
    key, count = np.unique(block.user.astype(np.int64) * n + block.item, return_counts=True)
    length = np.bincount(block.user, minlength=len(block))
    user = key // n
    return Shares(user, key % n, count / (length[user] + HISTORY_SHRINKAGE))


@dataclass(frozen=True)
class Records:
    """Records of some users, sorted by time. ``user`` counts from the first user of the world."""

    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    timestamp: np.ndarray


class RecordSampler:
    """Draws the records of days 1 and 2.

    Args:
        world, past: items, and day 0.
        replicate: number of the draw; other numbers give other records of the same users, items and features.
    """

    def __init__(self, world: World, past: Past, replicate: int = 0) -> None:
        self.world, self.replicate = world, replicate
        self.utility = build_utility(world, past)
        category, k = world.attributes["category"], world.config.num_categories
        self.samplers = tuple(
            CategorySampler(rows, category, k, u.log_weight())
            for rows, u in zip(world.catalogues, self.utility, strict=True)
        )
        self.mean = world.config.records_per_user()

    def draw(self, block: UserBlock, index: int, means: np.ndarray | None = None) -> dict[int, Records]:
        """Records of block number ``index`` by day, 1 and 2.

        On day 1 each active pair of user and domain has one record and a Poisson number of further ones, in proportion
        to the user's activity; on day 2 a Poisson number with ``test_ratio`` times that mean.
        """
        config = self.world.config
        means = bag_means(self.world, block) if means is None else means
        past, kind = history_shares(self.world, block), block.kind
        prepared = [self._prepare(block, d, means, past) for d in range(config.num_domains)]
        records = {}
        for day in (1, 2):
            rng = stream(self.world.seed, RECORDS, self.replicate, day, index)
            users, items, domains = [], [], []
            for d, (rows, utility, gains) in enumerate(prepared):
                further = (self.mean[d] - 1) * block.activity[rows]
                counts = 1 + rng.poisson(further) if day == 1 else rng.poisson(config.test_ratio * (1 + further))
                items.append(self.samplers[d].draw(rng, kind[rows], utility, counts, gains))
                users.append(np.repeat(rows, counts))
                domains.append(np.full(len(users[-1]), d, dtype=np.int8))
            user, item, domain = (np.concatenate(parts) for parts in (users, items, domains))
            time = rng.integers(DAY, size=len(user), dtype=np.int32) + day * DAY
            order = np.argsort(time, kind="stable")
            records[day] = Records(user[order] + block.start, item[order], domain[order], time[order])
        return records

    def _prepare(
        self, block: UserBlock, d: int, means: np.ndarray, past: Shares
    ) -> tuple[np.ndarray, np.ndarray, Gains]:
        rows = np.flatnonzero(block.active[:, d])
        place = np.cumsum(block.active[:, d]) - 1
        here = block.active[past.user, d] & self.world.member[past.item, d]
        gains = Gains(place[past.user[here]], past.item[here], self.utility[d].history * past.share[here])
        return rows, personal(self.utility[d], means[rows], d), gains
