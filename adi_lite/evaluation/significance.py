"""Is one method better than another: paired tests, Holm's correction, agreement of orders, and the table of it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from adi_lite.evaluation.intervals import (
    Interval,
    interval_from,
    resampled_means,
    seed_interval,
    two_level_bootstrap,
)
from adi_lite.evaluation.results import Evaluation

__all__ = [
    "Interval",
    "PairedTest",
    "compare",
    "holm",
    "kendall_tau",
    "paired_test",
    "seed_interval",
    "two_level_bootstrap",
]

AVERAGE = "average"
"""Name of the row that holds the mean over domains."""


@dataclass(frozen=True)
class PairedTest:
    """Tests over users (``num_users`` differences); the chance in the seeds is averaged, not tested."""

    difference: float
    t_p: float
    wilcoxon_p: float
    num_users: int


def paired_test(a: np.ndarray, b: np.ndarray, users: np.ndarray | None = None) -> PairedTest:
    """Paired t and Wilcoxon signed-rank tests of the queries' differences, averaged over seeds.

    Queries of one user are not independent: they are added up, and scaled so that the mean over users is that over
    queries. Ties of the two methods stay in the ranks of Wilcoxon's test (Pratt, JASA 1959).

    Args:
        a, b: (seeds, queries) or (queries,); the numbers of seeds may differ.
        users: (queries,) user of each query; by default each query is a user of its own.
    """
    first, second = (np.atleast_2d(np.asarray(x, dtype=np.float64)).mean(0) for x in (a, b))
    if first.shape != second.shape:
        raise ValueError(f"paired methods need the same queries, got {len(first)} and {len(second)}")
    difference = first - second
    if users is not None:
        _, user = np.unique(users, return_inverse=True)
        total = np.bincount(user, weights=difference)
        difference = total * len(total) / len(user)
    if len(difference) < 2:
        raise ValueError(f"a paired test needs at least 2 users, got {len(difference)}")
    mean = float(difference.mean())
    if np.ptp(difference) == 0:  # no spread, so that t is undefined: equal methods, or one better by a constant
        t_p = 1.0 if mean == 0 else 0.0
    else:
        t_p = float(stats.ttest_1samp(difference, 0.0).pvalue)
    wilcoxon_p = float(stats.wilcoxon(difference, zero_method="pratt").pvalue) if difference.any() else 1.0
    return PairedTest(mean, t_p, wilcoxon_p, len(difference))


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P values adjusted for being tested together (Holm, 1979): reject those at or below the level.

    The i-th smallest of m is multiplied by m - i + 1, never below a smaller one's result, at most 1. NaN stands for no
    test: it stays, and does not count.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p values must lie in 0…1, got {p[(p < 0) | (p > 1)][0]}")
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def kendall_tau(ours: Mapping[str, float], theirs: Mapping[str, float]) -> tuple[float, float]:
    """Kendall's tau-b between two orders of the same methods, and its p value.

    Args:
        ours, theirs: a figure for each method; methods that only one of them has are left out.

    Raises:
        ValueError: fewer than two methods in common.
    """
    common = [name for name in ours if name in theirs]
    if len(common) < 2:
        raise ValueError(f"two orders need at least 2 methods in common, got {common}")
    result = stats.kendalltau([ours[n] for n in common], [theirs[n] for n in common])
    return float(result.statistic), float(result.pvalue)


def compare(
    evaluations: Mapping[str, Sequence[Evaluation]],
    reference: str,
    *,
    metrics: Sequence[str] | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """All methods against one, by domain and on average over domains: a row for each method, domain and metric.

    Args:
        evaluations: for each method, one evaluation a seed, all of the same split, protocol and queries.
        reference: the method that differences are taken to: method less reference.
        metrics: by default all that the evaluations have.

    Returns:
        Columns: method, domain, metric, seeds, queries, mean, std (over seeds), low, high (two-level interval of the
        mean), difference, difference_low, difference_high, p (of no difference; seeds and users), p_holm (over all
        methods and domains of one metric), p_wilcoxon and p_t (users only). NaN where there is nothing to compare.

    Raises:
        ValueError: an unknown reference, a method without evaluations, or evaluations that differ in what they ranked.
    """
    first = _check_alike(evaluations, reference)
    metrics = list(first.metrics) if metrics is None else list(metrics)
    _check_measured(evaluations, metrics)
    runs = [run for each in evaluations.values() for run in each]
    splits = np.cumsum([len(each) for each in evaluations.values()])[:-1]
    seeds = dict(zip(evaluations, np.split(np.arange(len(runs)), splits), strict=True))
    present = np.unique(first.domain)
    rows = []
    for metric in metrics:
        columns = np.stack([run.metrics[metric] for run in runs])
        point, resampled = resampled_means(columns, first.user, first.domain, num_resamples, seed)
        parts = [(first.domains[d], first.domain == d, point[i], resampled[:, i]) for i, d in enumerate(present)]
        parts.append((AVERAGE, np.ones(first.counted, dtype=bool), point.mean(0), resampled.mean(1)))
        for domain, mask, means, draws in parts:
            # On average over domains, a query weighs as much as one over the queries of its domain.
            weight = len(first.user) / (np.bincount(first.domain)[first.domain] * len(present))
            weighed = columns[:, mask] * (weight if domain == AVERAGE else 1.0)
            num_users = len(np.unique(first.user[mask]))
            for method, own in seeds.items():
                mean = interval_from(means, draws, [own], num_users, confidence)
                row = {"method": method, "domain": domain, "metric": metric, "seeds": len(own), "queries": mask.sum()}
                row |= {"mean": mean.estimate, "std": means[own].std(ddof=1) if len(own) > 1 else np.nan}
                row |= {"low": mean.low, "high": mean.high}
                if method != reference:
                    pair = [own, seeds[reference]]
                    difference = interval_from(means, draws, pair, num_users, confidence)
                    test = paired_test(weighed[own], weighed[seeds[reference]], first.user[mask])
                    row |= {"difference": difference.estimate, "difference_low": difference.low}
                    row |= {"difference_high": difference.high, "p": difference.p_value}
                    row |= {"p_wilcoxon": test.wilcoxon_p, "p_t": test.t_p}
                rows.append(row)
    names = ["method", "domain", "metric", "seeds", "queries", "mean", "std", "low", "high"]
    names += ["difference", "difference_low", "difference_high", "p", "p_holm", "p_wilcoxon", "p_t"]
    table = pd.DataFrame(rows, columns=names)
    table["p_holm"] = table.groupby("metric")["p"].transform(holm)
    return table


def _check_alike(evaluations: Mapping[str, Sequence[Evaluation]], reference: str) -> Evaluation:
    """The first evaluation, once all are known to rank the same queries in the same way."""
    if reference not in evaluations:
        raise ValueError(f"unknown reference {reference!r}; the methods are {', '.join(evaluations)}")
    if empty := [name for name, runs in evaluations.items() if not runs]:
        raise ValueError(f"method {empty[0]!r} has no evaluation")
    first = evaluations[reference][0]
    for method, runs in evaluations.items():
        for number, run in enumerate(runs):
            for part in ("dataset", "domains", "split", "protocol", "exclude_seen"):
                if getattr(run, part) != getattr(first, part):
                    raise ValueError(
                        f"evaluation {number} of {method!r} has {part} {getattr(run, part)!r}, "
                        f"the first of {reference!r} has {getattr(first, part)!r}; they cannot be compared"
                    )
            for part in ("domain", "user", "num_positives"):
                if not np.array_equal(getattr(run, part), getattr(first, part)):
                    raise ValueError(
                        f"evaluation {number} of {method!r} is of other queries than {reference!r}'s first"
                    )
    return first


def _check_measured(evaluations: Mapping[str, Sequence[Evaluation]], metrics: Sequence[str]) -> None:
    for method, runs in evaluations.items():
        for number, run in enumerate(runs):
            if missing := [m for m in metrics if m not in run.metrics]:
                raise ValueError(f"evaluation {number} of {method!r} lacks the metric {missing[0]}")


def p_equals(p: float) -> str:
    """A p value in words: "p = 0.032", or "p < 0.0001", below which digits say nothing."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
