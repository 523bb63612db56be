"""The items, and what users look like: everything that is drawn before the first record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adi_lite.data.simulation.config import SimulatorConfig
from adi_lite.data.simulation.sampling import CategorySampler
from adi_lite.data.simulation.terms import PROFILE_TERMS

PROFILE = {"gender": 2, "age": 5, "city": 4, "device": 3}
"""Levels of each profile feature. ``device`` matters to nothing: a feature whose true importance is 0."""
KINDS = PROFILE["gender"] * PROFILE["age"] * PROFILE["city"]
"""Kinds of users: combinations of the profile features that matter."""
ATTRIBUTES = {
    "price_level": 5,
    "brand": 50,
    "creative_format": 6,
    "creative_layout": 8,
    "advertiser_kind": 5,
    "advertiser_region": 10,
}
"""Levels of each item attribute beside the category. ``brand``, ``creative_layout`` and ``advertiser_region`` matter to
nothing."""
CART, PAY = 0.4, 0.5
"""Chance that a click of day 0 leads to a cart, and a cart to a payment."""
BASE_CTR, CTR_SPREAD = 0.05, 0.5
"""Median click-through rate of day 0, and the standard deviation of its logarithm over items."""
WORLD, USERS, RECORDS, IMPRESSIONS = range(4)
"""The independent streams of random numbers."""


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of one part of the simulation: streams of different keys are independent."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))


def kind_profiles() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kinds,) gender, age and city of each kind of user."""
    return np.unravel_index(np.arange(KINDS), (PROFILE["gender"], PROFILE["age"], PROFILE["city"]))


@dataclass(frozen=True)
class World:
    """Items and their hidden properties; n items, D domains, K categories, r = ``interest_dim``."""

    config: SimulatorConfig
    seed: int
    attributes: dict[str, np.ndarray]  # each (n,), from 0, "category" among them
    member: np.ndarray  # (n, D) bool
    catalogues: tuple[np.ndarray, ...]  # sorted items of each domain
    topics: np.ndarray  # (K, r) place of each category in the space of interests
    popularity: np.ndarray  # (n, D) log popularity of day 0
    click_rate: np.ndarray  # (n, D) click-through rate of day 0
    bids: np.ndarray  # (n, D) price offered for a click, 0 where the item is not in the domain
    tables: dict[str, np.ndarray]  # affinity of profile levels and attribute levels, by term
    day0: tuple[CategorySampler, ...]  # who draws the clicks of day 0


def build_world(config: SimulatorConfig, seed: int) -> World:
    """Draw the items.

    Raises:
        ValueError: a domain has no item, so few are there.
    """
    rng, n, num_domains = stream(seed, WORLD), config.items, config.num_domains
    member = config.item_patterns().draw(rng, n)
    if not member.any(0).all():
        empty = config.domains[int(np.argmin(member.any(0)))]
        raise ValueError(f"domain {empty} has no item among {n}: raise num_items or scale")
    crowd = rng.gamma(2.0, size=config.num_categories)
    attributes = {"category": rng.choice(config.num_categories, n, p=crowd / crowd.sum()).astype(np.int32)}
    attributes |= {name: rng.integers(levels, size=n, dtype=np.int32) for name, levels in ATTRIBUTES.items()}
    topics = rng.normal(size=(config.num_categories, config.interest_dim))
    topics -= np.bincount(attributes["category"], minlength=config.num_categories) / n @ topics
    length = np.linalg.norm(topics, axis=1, keepdims=True)  # of one length: no category is everybody's taste
    topics *= np.sqrt(config.interest_dim) / np.maximum(length, 1e-12)
    popularity = -config.zipf * np.log(rng.permutation(n) + 1.0)[:, None]
    popularity = popularity + config.domain_popularity * rng.normal(size=(n, num_domains))
    quality = (rng.normal(size=(n, 1)) + rng.normal(size=(n, num_domains))) / np.sqrt(2)
    level = rng.normal(size=num_domains)  # domains differ in how dear they are
    price = rng.normal(size=(n, 1)) + rng.normal(size=(n, num_domains))
    tables = {}
    for name in PROFILE_TERMS:
        feature, attribute = name.split(" x ")
        levels = config.num_categories if attribute == "category" else ATTRIBUTES[attribute]
        table = rng.normal(size=(PROFILE[feature], levels))
        tables[name] = table - table.mean(0)  # a difference between users, not one more popularity
    catalogues = tuple(np.flatnonzero(member[:, d]) for d in range(num_domains))
    return World(
        config=config,
        seed=seed,
        attributes=attributes,
        member=member,
        catalogues=catalogues,
        topics=topics,
        popularity=popularity,
        click_rate=np.minimum(BASE_CTR * np.exp(CTR_SPREAD * quality), 0.5),
        bids=np.where(member, np.exp(0.5 * level + 0.5 * price), 0.0),
        tables=tables,
        day0=tuple(
            CategorySampler(rows, attributes["category"], config.num_categories, popularity[rows, d][None])
            for d, rows in enumerate(catalogues)
        ),
    )


@dataclass(frozen=True)
class UserBlock:
    """Users ``start``, ``start + 1``, … and their clicks of day 0, sorted by user, then by domain.

    b users, m clicks.
    """

    start: int
    active: np.ndarray  # (b, D) bool
    profile: dict[str, np.ndarray]  # each (b,), from 0
    activity: np.ndarray  # (b,) mean 1
    user: np.ndarray  # (m,) row in the block
    domain: np.ndarray  # (m,)
    item: np.ndarray  # (m,)
    cart: np.ndarray  # (m,) bool
    pay: np.ndarray  # (m,) bool

    def __len__(self) -> int:
        return len(self.active)

    @property
    def kind(self) -> np.ndarray:
        """(b,) kind of each user, see :func:`kind_profiles`."""
        p = self.profile
        return (p["gender"] * PROFILE["age"] + p["age"]) * PROFILE["city"] + p["city"]


def num_blocks(config: SimulatorConfig) -> int:
    return -(-config.users // config.block_users)


def draw_users(world: World, index: int) -> UserBlock:
    """Block number ``index`` of the users, with what they did on day 0. The same block each time it is drawn."""
    config = world.config
    rng = stream(world.seed, USERS, index)
    start = index * config.block_users
    size = min(config.block_users, config.users - start)
    active = config.user_patterns().draw(rng, size)
    profile = {name: rng.integers(levels, size=size) for name, levels in PROFILE.items()}
    activity = rng.gamma(2.0, 0.5, size=size)
    interest = rng.normal(size=(size, config.interest_dim))
    users, domains, items = [], [], []
    for d, sampler in enumerate(world.day0):
        rows = np.flatnonzero(active[:, d])
        own = rng.normal(size=(len(rows), config.interest_dim))
        mixed = np.sqrt(config.shared_interest) * interest[rows] + np.sqrt(1 - config.shared_interest) * own
        personal = config.interest_strength / np.sqrt(config.interest_dim) * mixed @ world.topics.T
        counts = rng.poisson(config.behaviours * activity[rows])
        items.append(sampler.draw(rng, np.zeros(len(rows), dtype=np.int64), personal, counts))
        users.append(np.repeat(rows, counts))
        domains.append(np.full(len(users[-1]), d))
    user, domain, item = (np.concatenate(parts) for parts in (users, domains, items))
    order = np.argsort(user, kind="stable")
    cart = rng.random(len(order)) < CART
    pay = cart & (rng.random(len(order)) < PAY)
    return UserBlock(start, active, profile, activity, user[order], domain[order], item[order], cart, pay)
