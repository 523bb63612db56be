"""What came of each simulated request in each arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from adi_lite.evaluation.online.chance import ARM, uniform

FIGURES = ("impressions", "clicks", "revenue", "expected_clicks", "expected_revenue")


@dataclass(frozen=True)
class Outcomes:
    """Simulated outcomes of q requests in a arms. Every arm answers every request, as only a simulator allows.

    In the *paired* design all answers count. In the *A/B* design, a request counts for the arm of its user only, as in
    a test on a live system.

    Attributes:
        arms: names of the arms.
        domains: names of the domains.
        user, domain, day: (q,) the requests.
        group: (q,) number of the arm that the request's user is assigned to.
        impressions: (a, q) ads shown.
        clicks, revenue: (a, q) clicks that were drawn, and the sum of their prices.
        expected_clicks, expected_revenue: (a, q) their expectation given the ads that are shown.
        settings: how the auctions were held.
    """

    arms: tuple[str, ...]
    domains: tuple[str, ...]
    user: np.ndarray
    domain: np.ndarray
    day: np.ndarray
    group: np.ndarray
    impressions: np.ndarray
    clicks: np.ndarray
    revenue: np.ndarray
    expected_clicks: np.ndarray
    expected_revenue: np.ndarray
    settings: Mapping[str, float] = field(default_factory=dict)

    def describe(self) -> str:
        """One line for a caption: that this is simulated, how large it is, and how the auctions were held."""
        settings = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        return (
            f"Simulated online test, no figure of a real system: {' against '.join(self.arms)}, "
            f"{len(np.unique(self.day))} days, {len(self.user):,} requests of {len(np.unique(self.user)):,} users"
            + (f" ({settings})" if settings else "")
        )


def assign_arms(user: np.ndarray, num_arms: int, seed: int) -> np.ndarray:
    """(q,) number of each user's arm: a hash of user and seed, so that a user always meets the same arm."""
    return (uniform(seed, ARM, user) * num_arms).astype(np.int64)
