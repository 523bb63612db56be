"""Metrics of a simulated online test, their lifts, and intervals over users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from adi_lite.evaluation.intervals import Interval, resampled_means
from adi_lite.evaluation.online.outcomes import FIGURES, Outcomes

METRICS = {
    "RPM": ("revenue", "impressions", 1000.0),
    "PPC": ("revenue", "clicks", 1.0),
    "CTR": ("clicks", "impressions", 1.0),
}
"""Numerator, denominator and unit of each metric: revenue per mille impressions (ads shown, not requests), pay per click
in units of money, and click-through rate as a share."""
DESIGNS, CLICKS = ("A/B", "paired"), ("drawn", "expected")
SOURCE = "simulated"
"""Stands in every row of every table, so that no figure can be taken for one of a real system."""


def lifts(
    outcomes: Outcomes,
    control: str | None = None,
    *,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Relative lifts over the control, by domain, as Table 9 has them, of a *simulated* test.

    Users are drawn again with replacement, with all their requests in the domain (a user's requests are not
    independent). Intervals are Student's on the logarithm of the ratio of the arms' metrics, with the standard error of
    the resamples, and are not corrected for their number. They count the chance in users and clicks, with the trained
    models as they are; they do not count the chance in training.

    Args:
        outcomes: from :func:`run_auctions`, of at least two arms.
        control: the arm that others are compared with; by default the first.
        confidence, num_resamples, seed: of the intervals.

    Returns:
        A row for each design ("A/B": each user in one arm; "paired": every arm answers every request), kind of clicks
        ("drawn", or "expected": without the chance in clicks), arm other than the control, domain and metric (RPM, PPC,
        CTR). Columns: source ("simulated"), design, clicks, arm, domain, metric, control_value, value, lift, low, high
        (percent), p (two-sided, of no lift), users (with a request in the domain). A metric without a denominator, or a
        lift over 0, is NaN; bounds are NaN where some resample has no click or revenue, or there is one user only.
        ``attrs["caption"]`` says what was simulated.

    Raises:
        ValueError: fewer than two arms, or an unknown control.
    """
    control = outcomes.arms[0] if control is None else control
    if len(outcomes.arms) < 2:
        raise ValueError(f"a lift needs two arms, got {', '.join(outcomes.arms)} alone")
    if control not in outcomes.arms:
        raise ValueError(f"unknown control {control!r}; the arms are {', '.join(outcomes.arms)}")
    samples = {
        (arm, domain): _resample(outcomes, arm, here, num_resamples, seed)
        for domain, here in _domains(outcomes)
        for arm in outcomes.arms
    }
    others = [(arm, domain) for arm, domain in samples if arm != control]
    others.sort(key=lambda pair: outcomes.arms.index(pair[0]))  # stable: domains stay in order
    rows = []
    for design, clicks, (arm, domain), metric in product(DESIGNS, CLICKS, others, METRICS):
        ours, base = samples[arm, domain], samples[control, domain]
        value, draws = ours.metric(metric, design, clicks)
        base_value, base_draws = base.metric(metric, design, clicks)
        users = min(ours.users[design], base.users[design])
        interval = _log_interval(value, draws, users, confidence, base_value, base_draws)
        lift, low, high = 100 * np.expm1([interval.estimate, interval.low, interval.high])
        about = (SOURCE, design, clicks, arm, domain, metric)
        rows.append((*about, base_value, value, lift, low, high, interval.p_value, base.users["paired"]))
    names = ["source", "design", "clicks", "arm", "domain", "metric", "control_value", "value", "lift", "low", "high"]
    table = pd.DataFrame(rows, columns=[*names, "p", "users"])
    table.attrs["caption"] = f"{outcomes.describe()}. Lift over {control} in percent."
    return table


def by_day(
    outcomes: Outcomes,
    design: str = "A/B",
    clicks: str = "drawn",
    *,
    confidence: float = 0.95,
    num_resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """The metrics of each arm by domain and day of a *simulated* test, with intervals over users as in :func:`lifts`.

    Returns:
        Columns: source ("simulated"), arm, domain, day, metric, value, low, high, users (of the arm on that day).
        ``attrs["caption"]`` says what was simulated.

    Raises:
        ValueError: an unknown design or kind of clicks.
    """
    if design not in DESIGNS or clicks not in CLICKS:
        raise ValueError(f"design is one of {DESIGNS} and clicks of {CLICKS}, got {design!r} and {clicks!r}")
    rows = []
    for domain, here in _domains(outcomes):
        for day in np.unique(outcomes.day[here]):
            for arm in outcomes.arms:
                sample = _resample(outcomes, arm, here[outcomes.day[here] == day], num_resamples, seed)
                users = sample.users[design]
                for metric in METRICS:
                    value, draws = sample.metric(metric, design, clicks)
                    interval = _log_interval(value, draws, users, confidence)
                    low, high = np.exp([interval.low, interval.high])
                    rows.append((SOURCE, arm, domain, day, metric, value, low, high, users))
    table = pd.DataFrame(rows, columns=["source", "arm", "domain", "day", "metric", "value", "low", "high", "users"])
    table.attrs["caption"] = f"{outcomes.describe()}. {design} design, {clicks} clicks."
    return table


def online_tables(
    outcomes: Outcomes, control: str | None = None, *, confidence: float = 0.95, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What a page on a *simulated* online test shows: the arms :func:`by_day` (A/B design, drawn clicks), and
    :func:`lifts`."""
    return by_day(outcomes, confidence=confidence, seed=seed), lifts(
        outcomes, control, confidence=confidence, seed=seed
    )


@dataclass(frozen=True)
class _Sample:
    """Means over users of each figure of one arm, as they are and over users drawn again."""

    point: dict[tuple[str, str], float]  # by design and figure
    draws: dict[tuple[str, str], np.ndarray]
    users: dict[str, int]  # by design, users that the arm answers

    def metric(self, metric: str, design: str, clicks: str) -> tuple[float, np.ndarray]:
        """A metric and its (resamples,) draws."""
        above, below, unit = METRICS[metric]
        prefix = "expected_" if clicks == "expected" else ""
        keys = [(design, name if name == "impressions" else prefix + name) for name in (above, below)]
        with np.errstate(divide="ignore", invalid="ignore"):
            value, draws = (unit * np.divide(values[keys[0]], values[keys[1]]) for values in (self.point, self.draws))
        return float(value), draws


def _resample(outcomes: Outcomes, arm: str, rows: np.ndarray, num_resamples: int, seed: int) -> _Sample:
    """Draw the users of some requests again. All arms get the same draws, so that arms that do the same stay equal."""
    number = outcomes.arms.index(arm)
    users, user = np.unique(outcomes.user[rows], return_inverse=True)
    own = outcomes.group[rows] == number
    counted = {"A/B": own, "paired": np.ones(len(rows), dtype=bool)}
    keys = [(design, name) for design in DESIGNS for name in FIGURES]
    columns = np.stack(
        [np.bincount(user, counted[d] * getattr(outcomes, name)[number, rows], len(users)) for d, name in keys]
    )
    point, draws = resampled_means(columns, np.arange(len(users)), np.zeros(len(users)), num_resamples, seed)
    return _Sample(
        point=dict(zip(keys, point[0], strict=True)),
        draws=dict(zip(keys, draws[:, 0].T, strict=True)),
        users={"A/B": len(np.unique(user[own])), "paired": len(users)},
    )


def _log_interval(
    value: float,
    draws: np.ndarray,
    users: int,
    confidence: float,
    base: float = 1.0,
    base_draws: np.ndarray | float = 1.0,
) -> Interval:
    """Interval of the logarithm of ``value / base``; NaN what is not defined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate, logs = np.log(np.divide(value, base)), np.log(draws / base_draws)
    if not np.isfinite(estimate):
        return Interval(np.nan, np.nan, np.nan, confidence)
    error = float(logs.std(ddof=1)) if users > 1 and np.isfinite(logs).all() else np.nan
    return Interval(float(estimate), error, users - 1, confidence)


def _domains(outcomes: Outcomes) -> Iterator[tuple[str, np.ndarray]]:
    """Name of each domain with requests, and their rows."""
    for number, name in enumerate(outcomes.domains):
        rows = np.flatnonzero(outcomes.domain == number)
        if len(rows):
            yield name, rows
