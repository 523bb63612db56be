"""The parameters of the simulator, and the sizes it comes in."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from adi_lite.data.simulation.overlap import (
    ITEMS_TABLE5,
    MAX_DOMAINS,
    USERS_TABLE5,
    Overlap,
    Patterns,
    fit_patterns,
    independent_patterns,
)

RECORDS_TABLE4 = (1_364_983_432, 167_494_696, 609_611_432)
"""Records of the three domains (Table 4)."""
ACTIVE_FIRST, ACTIVE_OTHER, ACTIVE_ITEMS = 0.85, 0.13, 0.75
"""For D other than 3: chance that a user is active in the first domain, in each other one; that an item is in one."""

PRESETS = {
    "smoke": {"num_users": 3_000, "num_items": 1_000, "num_records": 20_000},
    "quick": {"num_users": 30_000, "num_items": 5_000, "num_records": 200_000},
    "full": {"num_users": 180_000, "num_items": 20_000, "num_records": 1_200_000},
}


@dataclass(frozen=True)
class SimulatorConfig:
    """A world of users, ads and domains (book, page *The simulator*). The defaults are the ``quick`` size."""

    num_users: int = 30_000
    """Users over all domains, before ``scale``."""
    num_items: int = 5_000
    """Items over all domains, before ``scale``."""
    num_records: int = 200_000
    """Expected records of the training day (training and validation) over all domains, before ``scale``."""
    scale: float = 1.0
    """Multiplies the numbers of users, items and records; shares and overlaps stay."""
    num_domains: int = 3
    """D, from 1 to 16."""
    record_shares: tuple[float, ...] | None = None
    """Relative numbers of records by domain. Default: Table 4 for D = 3; else as the numbers of active users."""
    user_overlap: Overlap | None = None
    """Users by domain and in common. Default: Table 5 for D = 3; else independent activity, 0.85 in the first domain
    and 0.13 in each other one, given at least one."""
    item_overlap: Overlap | None = None
    """Items by domain and in common. Default: Table 5 for D = 3; else independent, 0.75 in each, given at least one."""
    test_ratio: float = 0.1
    """Expected test records (day 2) for each record of the training day (day 1)."""
    valid_share: float = 0.05
    """The last part of the training day, as a share of its seconds, that is the validation split."""
    num_categories: int = 40
    """Item categories: the topics of interest."""
    interest_dim: int = 8
    """Width of the latent space of interests and categories."""
    shared_interest: float = 0.7
    """Share of a user's latent interest (in variance) that domains have in common; the rest is each domain's own."""
    interest_strength: float = 2.0
    """Standard deviation over categories of the utility that latent interest gives to the clicks of day 0."""
    behaviours: float = 8.0
    """Expected clicks on day 0 of a user in each domain where she is active."""
    zipf: float = 0.8
    """Exponent of item popularity on day 0: the item of rank r is shown in proportion to r^-zipf."""
    domain_popularity: float = 0.7
    """Standard deviation of the log popularity that is a domain's own."""
    strength: float = 1.0
    """Multiplies the weight of every term that joins user and item; 0 leaves item effects alone."""
    emphasis: tuple[float, ...] = (1.6, 1.0, 0.4)
    """Domain-specific relevance: term number g weighs ``base[g] * emphasis[(d + g) % len(emphasis)]`` in domain d."""
    max_ctr: float = 0.2
    """Upper bound of the probability that a shown ad is clicked."""
    domain_features: Literal["own", "all"] = "own"
    """``own``: a tower reads bids, statistics and behaviours of the domain at hand (per-domain features). ``all``: one
    feature for each domain, all of them read in every domain, as the paper's Figure 5 draws them."""
    block_records: int = 200_000
    """About how many records are drawn at a time: bounds the memory. Part of the draw, as the seed is."""

    def __post_init__(self) -> None:
        for name in ("num_users", "num_items", "num_records", "num_categories", "interest_dim", "block_records"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not isinstance(self.num_domains, int) or not 1 <= self.num_domains <= MAX_DOMAINS:
            raise ValueError(f"num_domains must lie in 1…{MAX_DOMAINS}, got {self.num_domains!r}")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")
        if self.scale <= 0:
            raise ValueError(f"scale must be positive, got {self.scale!r}")
        if not self.emphasis or any(not (math.isfinite(e) and e >= 0) for e in self.emphasis):
            raise ValueError(f"emphasis needs at least one number, none negative, got {self.emphasis!r}")
        if self.domain_features not in ("own", "all"):
            raise ValueError(f"domain_features is 'own' or 'all', not {self.domain_features!r}")
        self._check_domains()

    def _check_domains(self) -> None:
        shares = self.record_shares
        if shares is not None and (len(shares) != self.num_domains or any(not s > 0 for s in shares)):
            raise ValueError(f"record_shares needs {self.num_domains} positive numbers, one a domain, got {shares!r}")
        for name in ("user_overlap", "item_overlap"):
            overlap = getattr(self, name)
            if overlap is not None and len(overlap.shared) != self.num_domains:
                raise ValueError(
                    f"{name} describes {len(overlap.shared)} domains, but num_domains is {self.num_domains}"
                )
        for d, mean in enumerate(self.records_per_user()):
            if mean < 1:
                raise ValueError(
                    f"domain {self.domains[d]} has {mean:.2f} records for each active user; every active user has at "
                    "least one: raise num_records or the domain's share, or lower num_users"
                )

    @classmethod
    def preset(cls, name: str, **changes) -> SimulatorConfig:
        """The sizes that the book uses: ``smoke`` (tests), ``quick`` (minutes), ``full`` (published tables)."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; there are {', '.join(PRESETS)}")
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"the simulator has no parameter {', '.join(unknown)}; it has {', '.join(known)}")
        return replace(cls(**PRESETS[name]), **changes)

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(f"D{d + 1}" for d in range(self.num_domains))

    @property
    def users(self) -> int:
        """Number of users, after ``scale``."""
        return max(1, round(self.num_users * self.scale))

    @property
    def items(self) -> int:
        """Number of items, after ``scale``."""
        return max(1, round(self.num_items * self.scale))

    @property
    def records(self) -> int:
        """Expected records of the training day, after ``scale``."""
        return max(1, round(self.num_records * self.scale))

    @property
    def block_users(self) -> int:
        """Users drawn at a time."""
        return max(1, min(self.users, round(self.block_records * self.users / self.records)))

    def user_patterns(self) -> Patterns:
        """Distribution of the set of domains in which a user is active."""
        if self.user_overlap is None and self.num_domains != 3:
            return independent_patterns(np.array([ACTIVE_FIRST] + [ACTIVE_OTHER] * (self.num_domains - 1)))
        return fit_patterns(self.user_overlap or USERS_TABLE5)

    def item_patterns(self) -> Patterns:
        """Distribution of the set of domains in which an item can be shown."""
        if self.item_overlap is None and self.num_domains != 3:
            return independent_patterns(np.full(self.num_domains, ACTIVE_ITEMS))
        return fit_patterns(self.item_overlap or ITEMS_TABLE5)

    def shares(self) -> np.ndarray:
        """(D,) share of all records, sums to 1."""
        shares = self.record_shares
        if shares is None:
            shares = RECORDS_TABLE4 if self.num_domains == 3 else np.diag(self.user_patterns().shared())
        return np.asarray(shares, dtype=np.float64) / np.sum(shares)

    def records_per_user(self) -> np.ndarray:
        """(D,) expected records of the training day for each user that is active in the domain."""
        return self.shares() * self.records / (self.users * np.diag(self.user_patterns().shared()))


_RANGES = (
    ("scale", 0.0, math.inf),
    ("test_ratio", 0.0, 100.0),
    ("valid_share", 0.0, 0.9),
    ("shared_interest", 0.0, 1.0),
    ("interest_strength", 0.0, 10.0),
    ("behaviours", 0.0, 1000.0),
    ("zipf", 0.0, 3.0),
    ("domain_popularity", 0.0, 5.0),
    ("strength", 0.0, 10.0),
    ("max_ctr", 1e-6, 1.0),
)
