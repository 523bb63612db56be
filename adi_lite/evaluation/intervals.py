"""Confidence intervals that know both sources of chance: the training seed and the test users.

A difference between two methods can come from a lucky seed or from the users that happen to be in the test. Tests over
users ignore the first, tests over seeds the second; the two-level bootstrap counts both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

_CHUNK_FLOATS = 1 << 23  # resampled counts held at a time


@dataclass(frozen=True)
class Interval:
    """An estimate with a confidence interval ``estimate ± t(dof) · standard_error``.

    A standard error of NaN says that there is nothing to estimate it from (one value), and so are the bounds then.
    """

    estimate: float
    standard_error: float
    dof: float
    confidence: float = 0.95

    @property
    def low(self) -> float:
        return self.estimate - self._reach

    @property
    def high(self) -> float:
        return self.estimate + self._reach

    @property
    def p_value(self) -> float:
        """Two-sided p of the hypothesis that the true value is 0."""
        if self.standard_error == 0:
            return 1.0 if self.estimate == 0 else 0.0
        return float(2 * stats.t.sf(abs(self.estimate) / self.standard_error, self.dof))

    @property
    def _reach(self) -> float:
        if self.standard_error == 0:
            return 0.0
        return float(stats.t.ppf((1 + self.confidence) / 2, self.dof) * self.standard_error)


def seed_interval(values: np.ndarray, confidence: float = 0.95) -> Interval:
    """Student's interval of the mean of one figure a seed. (n,) values; a single one has no interval (NaN)."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"expected a list of finite values, one a seed, got {values!r}")
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else np.nan
    return Interval(float(values.mean()), error, len(values) - 1, confidence)


def two_level_bootstrap(
    a: np.ndarray,
    b: np.ndarray | None = None,
    *,
    users: np.ndarray | None = None,
    domains: np.ndarray | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of a mean, or of the difference of two means over the same queries, over seeds and users.

    Users are drawn again with replacement, all queries of a user together and the same for both methods. What drawing
    seeds again adds to the variance is known without drawing, ``s²/S`` for each method with ``S > 1`` seeds, and exact
    for few seeds, where S draws would fall short by 1/S. Both levels also see the noise of single results, so that
    drawing both would count it up to three times (Owen, 2007, "The pigeonhole bootstrap"): it is estimated from the same
    resamples and counted once. The interval is Student's, with Satterthwaite's degrees of freedom, because percentiles
    are too narrow for five seeds. A method with a single seed has no variance between seeds to show: its users are then
    the only source.

    Args:
        a, b: (seeds, queries), or (queries,) for one seed; b may have another number of seeds.
        users: (queries,) user of each query; by default each query is a user of its own.
        domains: (queries,) domain of each query. With it, means are macro: over queries within a domain, then over
            domains.
    """
    values = [np.atleast_2d(np.asarray(x, dtype=np.float64)) for x in ((a,) if b is None else (a, b))]
    num_queries = values[0].shape[1]
    if values[-1].shape[1] != num_queries:
        raise ValueError(f"paired methods need the same queries, got {num_queries} and {values[-1].shape[1]}")
    users = np.arange(num_queries) if users is None else users
    domains = np.zeros(num_queries, dtype=np.int64) if domains is None else domains
    columns = np.concatenate(values)
    point, resampled = resampled_means(columns, users, domains, num_resamples, seed)
    seeds = np.split(np.arange(len(columns)), [len(values[0])])[: len(values)]
    return interval_from(point.mean(0), resampled.mean(1), seeds, len(np.unique(users)), confidence)


def resampled_means(
    columns: np.ndarray, users: np.ndarray, domains: np.ndarray, num_resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Means by domain of many columns, as they are and over users drawn again (the same draws for all columns).

    Args:
        columns: (c, queries).
        users, domains: (queries,) any numbers.

    Returns:
        point: (domains, c); resampled: (resamples, domains, c). Domains ascend. Draws that leave a domain without any
        user are not used, so that there may be fewer resamples than asked for.
    """
    if not columns.shape[1] == len(users) == len(domains) or not len(users):
        raise ValueError(f"{columns.shape[1]} queries, but {len(users)} users and {len(domains)} domains are given")
    if not np.isfinite(columns).all():
        raise ValueError("metrics must be finite; leave out queries without a positive")
    names, user = np.unique(users, return_inverse=True)
    parts = [np.flatnonzero(domains == d) for d in np.unique(domains)]
    rng, pieces = np.random.default_rng(seed), []
    chunk = max(1, _CHUNK_FLOATS // max(len(names), len(users)))
    for start in range(0, num_resamples, chunk):
        size = min(chunk, num_resamples - start)
        drawn = rng.integers(len(names), size=(size, len(names))) + np.arange(size)[:, None] * len(names)
        count = np.bincount(drawn.ravel(), minlength=size * len(names)).reshape(size, -1).astype(np.float64)
        weights = [count[:, user[part]] for part in parts]
        with np.errstate(invalid="ignore"):
            means = [w @ columns[:, p].T / w.sum(1, keepdims=True) for w, p in zip(weights, parts, strict=True)]
        pieces.append(np.stack(means, 1))
    resampled = np.concatenate(pieces)
    return np.stack([columns[:, p].mean(1) for p in parts]), resampled[np.isfinite(resampled).all((1, 2))]


def interval_from(
    point: np.ndarray, resampled: np.ndarray, seeds: list[np.ndarray], num_users: int, confidence: float = 0.95
) -> Interval:
    """Interval of the mean over the seeds of one method, or of the first method less the second.

    Args:
        point: (c,) mean of each column (a method and a seed).
        resampled: (resamples, c) the same over users drawn again.
        seeds: the columns of each of one or two methods.
    """
    signs = (1, -1)[: len(seeds)]
    estimate = sum(sign * point[own].mean() for sign, own in zip(signs, seeds, strict=True))
    draws = sum(sign * resampled[:, own].mean(1) for sign, own in zip(signs, seeds, strict=True))
    variance = by_users = draws.var(ddof=1)
    spread = by_users**2 / max(num_users - 1, 1)
    for own in seeds:
        count = len(own)
        if count > 1:
            between = point[own].var(ddof=1) / count
            apart = resampled[:, own] - resampled[:, own].mean(1, keepdims=True)
            noise = apart.var(0, ddof=1).sum() / (count - 1) / count  # in `between`, but in `by_users` already
            variance += max(between - noise, 0.0)
            spread += between**2 / (count - 1)
    return Interval(
        float(estimate), float(variance**0.5), float(variance**2 / spread) if spread else np.inf, confidence
    )
