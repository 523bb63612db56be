"""In which domains a user or an item occurs: a distribution over the non-empty sets of domains, fitted to Table 5."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from scipy.optimize import nnls

MAX_DOMAINS = 16
"""The sets of domains are enumerated, 2^D - 1 of them."""


@dataclass(frozen=True)
class Overlap:
    """How many users (or items) domains share, as in Table 5; any common unit, counts or shares.

    Attributes:
        shared: D rows of D numbers: on the diagonal a domain's own, elsewhere what two domains have in common.
        total: size of the union over all domains, if it is known (Table 4).
    """

    shared: tuple[tuple[float, ...], ...]
    total: float | None = None

    def __post_init__(self) -> None:
        table = np.asarray(self.shared, dtype=np.float64)
        if table.ndim != 2 or table.shape[0] != table.shape[1] or not len(table):
            raise ValueError(f"an overlap is a square table, a row for each domain; got shape {table.shape}")
        if not np.array_equal(table, table.T):
            raise ValueError("an overlap must be symmetric: what A shares with B, B shares with A")
        if not np.isfinite(table).all() or (table < 0).any() or (np.diag(table) <= 0).any():
            raise ValueError("an overlap needs finite numbers, positive on the diagonal, none negative")


USERS_TABLE5 = Overlap(
    ((78_336_157, 6_840_732, 7_043_405), (6_840_732, 11_147_803, 5_551_052), (7_043_405, 5_551_052, 13_099_654)),
    total=92_664_693,
)
ITEMS_TABLE5 = Overlap(
    ((1_735_326, 1_295_028, 1_525_081), (1_295_028, 1_383_050, 1_279_533), (1_525_081, 1_279_533, 1_998_209)),
    total=2_240_723,
)


@dataclass(frozen=True)
class Patterns:
    """A distribution over the non-empty sets of D domains.

    Attributes:
        members: (2^D - 1, D) bool, which domains are in each set.
        probability: (2^D - 1,), sums to 1.
    """

    members: np.ndarray
    probability: np.ndarray

    def shared(self) -> np.ndarray:
        """(D, D) share of all users (or items) that occur in both domains; the diagonal is each domain's own share."""
        member = self.members.astype(np.float64)
        return member.T @ (self.probability[:, None] * member)

    def draw(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """(size, D) bool: the domains of each of ``size`` users (or items), drawn independently."""
        return self.members[np.searchsorted(np.cumsum(self.probability)[:-1], rng.random(size), side="right")]


def all_sets(num_domains: int) -> np.ndarray:
    """(2^D - 1, D) bool, every non-empty set of domains."""
    codes = np.arange(1, 2**num_domains)
    return (codes[:, None] >> np.arange(num_domains)) & 1 == 1


def fit_patterns(overlap: Overlap) -> Patterns:
    """The distribution over sets of domains that has the given singles, pairs and, as far as possible, the union.

    For D = 3 singles, pairs and union determine the share of the triple. Where they contradict each other (the users
    of Table 5 with the total of Table 4 do), singles and pairs hold and the union comes as near as it can: a
    non-negative least squares in which the union weighs a thousandth. For D > 3 the solution is not unique; the one
    found has few sets.

    Raises:
        ValueError: no distribution has these singles and pairs.
    """
    shared = np.asarray(overlap.shared, dtype=np.float64)
    num_domains = len(shared)
    members = all_sets(num_domains).astype(np.float64)
    pairs = list(combinations_with_replacement(range(num_domains), 2))
    unit = shared.max()
    rows = [members[:, a] * members[:, b] for a, b in pairs]
    wanted = [shared[a, b] / unit for a, b in pairs]
    if overlap.total is not None:
        rows.append(np.full(len(members), 1e-3))
        wanted.append(1e-3 * overlap.total / unit)
    found, _ = nnls(np.array(rows), np.array(wanted))
    off = [abs(rows[i] @ found - wanted[i]) for i in range(len(pairs))]
    if max(off) > 1e-3:
        a, b = pairs[int(np.argmax(off))]
        raise ValueError(
            f"no population has these overlaps: domains {a + 1} and {b + 1} would share "
            f"{rows[int(np.argmax(off))] @ found * unit:g}, not {shared[a, b]:g}"
        )
    return Patterns(members.astype(bool), found / found.sum())


def independent_patterns(active: np.ndarray) -> Patterns:
    """Each domain on its own with probability ``active`` (D,), given that at least one is chosen."""
    members = all_sets(len(active))
    probability = np.where(members, active, 1 - active).prod(1)
    return Patterns(members, probability / probability.sum())
