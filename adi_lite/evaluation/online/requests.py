"""Simulated requests for ads: who asks, in which domain, on which day."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adi_lite.data.simulation.truth import Truth
from adi_lite.data.simulation.world import draw_users, num_blocks, stream

_STREAM = 1_000
"""Key of the random numbers of requests, apart from those of the simulator's own parts."""


@dataclass(frozen=True)
class Requests:
    """Simulated ad requests; all columns are (q,) int64.

    Attributes:
        user: row of the user.
        domain: number of the domain.
        day: day of the test, from 1.
    """

    user: np.ndarray
    domain: np.ndarray
    day: np.ndarray

    def __post_init__(self) -> None:
        if not self.user.shape == self.domain.shape == self.day.shape == (len(self.user),):
            raise ValueError(
                f"columns of requests differ in shape: {self.user.shape}, {self.domain.shape} and {self.day.shape}"
            )

    def __len__(self) -> int:
        return len(self.user)


def draw_requests(truth: Truth, *, days: int = 14, volume: float = 1.0, seed: int = 0) -> Requests:
    """Draw the requests of some days, sorted by day.

    A user who is active in a domain sends a Poisson number of requests there each day. Its mean is ``volume`` times the
    mean of her records on the simulator's test day, so that (user, domain) are distributed as in the test records of as
    many replicates. Days are alike but for chance: users neither come nor go, and the models stay as they are.

    Args:
        truth: the simulated world.
        days: days of the test; the paper's took two weeks.
        volume: requests for each record that a test day would have.
        seed: of the draw; the same world and seed give the same requests.

    Raises:
        ValueError: fewer than one day, or a volume that is not positive.
    """
    if days < 1:
        raise ValueError(f"a test takes at least 1 day, got {days}")
    if not (np.isfinite(volume) and volume > 0):
        raise ValueError(f"volume must be positive, got {volume!r}")
    config, mean = truth.config, truth.config.records_per_user()
    parts: list[list[np.ndarray]] = [[] for _ in range(days)]
    for index in range(num_blocks(config)):
        block = draw_users(truth.world, index)
        user, domain = np.nonzero(block.active)
        rate = volume * config.test_ratio * (1 + (mean[domain] - 1) * block.activity[user])
        for day, part in enumerate(parts):
            count = stream(seed, _STREAM, truth.world.seed, day, index).poisson(rate)
            part.append(np.stack([user + block.start, domain]).repeat(count, axis=1))
    joined = [np.concatenate(part, axis=1) for part in parts]
    user, domain = np.concatenate(joined, axis=1).astype(np.int64)
    return Requests(user, domain, np.arange(1, days + 1).repeat([part.shape[1] for part in joined]))
