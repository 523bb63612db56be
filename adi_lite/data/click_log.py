"""A log of clicks in several domains, column by column, and its cut into splits by time (Section 5.1.1).

What a loader of a real log hands over. :class:`~adi_lite.data.click_timeline.Timeline` makes a data set of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from adi_lite.data.schema import Ragged

SECOND, HOUR = 1000, 3_600_000
DAY = 24 * HOUR
"""Times are whole milliseconds since 1970 in UTC."""
UNKNOWN = -1
Validation = Literal["day"] | None
Window = tuple[int, int]
"""From the first millisecond up to the second, which is outside."""


@dataclass(frozen=True)
class Attributes:
    """What is known of users or of items beside their clicks, and does not change with them.

    Attributes:
        ids: (m,) sorted ids, as in the log; others are unknown.
        categorical: by name, (m,) integers, -1 where unknown.
        bags: by name, a row of integers for each id.
        dense: by name, (m,) float32; 0 where unknown.
        created: (m,) times at which items came to be, -1 where unknown.
    """

    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    categorical: Mapping[str, np.ndarray] = field(default_factory=dict)
    bags: Mapping[str, Ragged] = field(default_factory=dict)
    dense: Mapping[str, np.ndarray] = field(default_factory=dict)
    created: np.ndarray | None = None


@dataclass(frozen=True)
class ClickLog:
    """Clicks in the order of time; columns of one length n.

    Attributes:
        domains: names of the domains.
        user, item: (n,) int64 ids.
        domain: (n,) int64 number of the domain.
        time: (n,) int64 milliseconds, ascending.
        context: by name, (n,) integers that describe the request (device, country, ...), -1 where unknown.
        users, items: attributes.
    """

    domains: tuple[str, ...]
    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    time: np.ndarray
    context: Mapping[str, np.ndarray] = field(default_factory=dict)
    users: Attributes = field(default_factory=Attributes)
    items: Attributes = field(default_factory=Attributes)

    def __post_init__(self) -> None:
        columns = {n: getattr(self, n) for n in ("user", "item", "domain", "time")} | dict(self.context)
        sizes = {name: len(column) for name, column in columns.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"columns of a click log differ in length: {sizes}")
        if not len(self.time):
            raise ValueError(f"no click in the domains {', '.join(self.domains)}")
        if bool((np.diff(self.time) < 0).any()):
            raise ValueError("a click log must be in the order of time; sort it first (ClickLog.sorted)")

    @classmethod
    def sorted(
        cls,
        domains: tuple[str, ...],
        columns: Mapping[str, np.ndarray],
        context: Mapping[str, np.ndarray],
        users: Attributes,
        items: Attributes,
    ) -> ClickLog:
        """A log of ``columns`` user, item, domain, time in any order; clicks of one millisecond stay as they come."""
        order = np.argsort(columns["time"], kind="stable")
        main = {name: columns[name][order].astype(np.int64) for name in ("user", "item", "domain", "time")}
        return cls(domains, **main, context={n: c[order] for n, c in context.items()}, users=users, items=items)

    def __len__(self) -> int:
        return len(self.time)

    def before(self, time: int) -> slice:
        """The clicks before ``time``; one at ``time`` itself is not among them."""
        return slice(0, int(np.searchsorted(self.time, time)))

    def between(self, start: int, end: int) -> slice:
        """The clicks from ``start`` on and before ``end``."""
        low, high = np.searchsorted(self.time, [start, end])
        return slice(int(low), int(high))

    def draw_users(self, share: float, seed: int) -> np.ndarray:
        """The ids of a random share of the users."""
        if not 0 < share <= 1:
            raise ValueError(f"sample must be a share of the users in (0, 1], got {share}")
        ids = np.unique(self.user)
        return np.random.default_rng(seed).permutation(ids)[: max(1, round(share * len(ids)))]


@dataclass(frozen=True)
class TimeSplit:
    """Consecutive windows for training, perhaps validation, and test."""

    train: Window
    valid: Window | None
    test: Window

    @classmethod
    def days(
        cls,
        test_start: str | pd.Timestamp,
        *,
        train_days: float = 1,
        valid_days: float = 1,
        test_days: float = 1,
        validation: Validation = "day",
    ) -> TimeSplit:
        """The split of the paper, day by day: training, then (unless ``validation`` is None) validation, then test.

        Args:
            test_start: ISO 8601; without a time zone it is taken as UTC.
            train_days, valid_days, test_days: lengths. Without validation, training moves up to the test.
        """
        if validation not in ("day", None):
            raise ValueError(f"validation must be 'day' or None, got {validation!r}")
        for name, days in (("train_days", train_days), ("valid_days", valid_days), ("test_days", test_days)):
            if not days > 0:
                raise ValueError(f"{name} must be positive, got {days}")
        test = to_ms(test_start)
        cut = test - round(valid_days * DAY) if validation else test
        return cls(
            train=(cut - round(train_days * DAY), cut),
            valid=(cut, test) if validation else None,
            test=(test, test + round(test_days * DAY)),
        )

    def windows(self) -> dict[str, Window]:
        """By split name, without the validation where there is none."""
        every = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: window for name, window in every.items() if window}


def names_of(domains: Sequence[str] | str) -> tuple[str, ...]:
    """The codes of the domains that a loader was asked for: whole numbers, each once."""
    names = tuple(domains.split(",")) if isinstance(domains, str) else tuple(map(str, domains))
    names = tuple(n.strip() for n in names if n.strip())
    if not names or len(set(names)) < len(names) or not all(n.isdigit() for n in names):
        raise ValueError(f"domains must be different whole numbers, e.g. ('2', '1', '5'), got {domains!r}")
    return names


def to_ms(time: str | pd.Timestamp) -> int:
    """Milliseconds since 1970 of a point in time."""
    try:
        moment = pd.Timestamp(time)
    except ValueError:
        raise ValueError(f"{time!r} is no point in time; write it as 2017-10-10T03:00:00Z") from None
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment
    return int(moment.timestamp() * 1000)


def in_words(time: int) -> str:
    return pd.Timestamp(time, unit="ms").strftime("%Y-%m-%d %H:%M")
