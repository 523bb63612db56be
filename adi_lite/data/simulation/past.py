"""What is known at the end of day 0: the statistics of items, and the behaviours of users."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adi_lite.data.simulation.terms import BAGS
from adi_lite.data.simulation.world import (
    BASE_CTR,
    IMPRESSIONS,
    KINDS,
    UserBlock,
    World,
    draw_users,
    num_blocks,
    stream,
)

PRIOR_CLICKS = 5.0
"""Clicks at the median rate that are added to each item's own before the rate is taken."""
PRICE_PAID = 0.8
"""Share of the bid that a click of day 0 costs on average (second price)."""


def bag_means(world: World, block: UserBlock) -> np.ndarray:
    """(b, 3 + D, r) mean topic of the categories that each user clicked, carted, paid, and clicked in each domain."""
    config = world.config
    category = world.attributes["category"][block.item]
    size, k, num_domains = len(block), config.num_categories, config.num_domains
    everywhere = block.user * k + category
    by_domain = (block.user * num_domains + block.domain) * k + category
    counts = np.concatenate(
        [
            np.bincount(keys, minlength=size * rows * k).reshape(size, rows, k)
            for keys, rows in (
                (everywhere, 1),
                (everywhere[block.cart], 1),
                (everywhere[block.pay], 1),
                (by_domain, num_domains),
            )
        ],
        axis=1,
    ).astype(np.float32)
    return counts @ world.topics.astype(np.float32) / np.maximum(counts.sum(2, keepdims=True), 1)


def domain_means(means: np.ndarray, domain: int) -> np.ndarray:
    """(b, 4, r) the bags that domain ``domain`` reads, in the order of BAGS, out of :func:`bag_means`."""
    return means[:, [0, 1, 2, len(BAGS) - 1 + domain]]


@dataclass(frozen=True)
class Past:
    """Day 0 in sums; n items, D domains, r the width of the space of interests."""

    clicks: np.ndarray  # (n, D)
    impressions: np.ndarray  # (n, D)
    payments: np.ndarray  # (n, D)
    cost: np.ndarray  # (n, D)
    kinds: np.ndarray  # (D, kinds) active users of each kind
    moments: np.ndarray  # (D, 4, r, r) sum over active users of the outer product of each bag's mean

    def statistics(self, bids: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
        """Table 1's statistics of items by domain: each (n, D) in logarithms, standardised over all items and domains.

        The scale is that of day 0. Domains share it, so that they keep their different levels and spreads. An item that
        a domain does not have reads 0 there.
        """
        rate = (self.clicks + PRIOR_CLICKS) / (self.impressions + PRIOR_CLICKS / BASE_CTR)
        raw = {
            "bid": np.log(np.where(member, bids, 1.0)),
            "ctr": np.log(rate),
            "click": np.log1p(self.clicks),
            "cost": np.log1p(self.cost),
            "paynum": np.log1p(self.payments),
        }
        return {name: np.where(member, standardise(v, v[member]), 0.0) for name, v in raw.items()}


def standardise(values: np.ndarray, sample: np.ndarray) -> np.ndarray:
    """``values`` in standard deviations of ``sample`` from its mean; all 0 where it does not vary."""
    spread = sample.std()
    return (values - sample.mean()) / spread if spread > 1e-12 else np.zeros_like(values)


def sum_past(world: World) -> Past:
    """Run through day 0 once, block by block."""
    config = world.config
    n, num_domains, r = config.items, config.num_domains, config.interest_dim
    clicks, payments = (np.zeros(n * num_domains, dtype=np.int64) for _ in range(2))
    kinds = np.zeros((num_domains, KINDS), dtype=np.int64)
    moments = np.zeros((num_domains, len(BAGS), r, r))
    for index in range(num_blocks(config)):
        block = draw_users(world, index)
        key = block.item.astype(np.int64) * num_domains + block.domain
        clicks += np.bincount(key, minlength=len(clicks))
        payments += np.bincount(key[block.pay], minlength=len(clicks))
        means = bag_means(world, block)
        for d in range(num_domains):
            rows = block.active[:, d]
            bags = domain_means(means[rows], d).astype(np.float64)
            kinds[d] += np.bincount(block.kind[rows], minlength=KINDS)
            moments[d] += np.einsum("ubi,ubj->bij", bags, bags)
    clicks, payments = clicks.reshape(n, num_domains), payments.reshape(n, num_domains)
    rng = stream(world.seed, IMPRESSIONS)
    missed = rng.negative_binomial(clicks + 1, world.click_rate)
    cost = PRICE_PAID * world.bids * clicks
    return Past(clicks, clicks + missed, payments, cost, kinds, moments)
