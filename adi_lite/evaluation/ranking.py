"""From scores to ranks to metrics, with ties taken by expectation.

A positive that ``g`` items beat and that shares its score with ``t`` items (itself included) stands, when ties are
broken at random, at each of the positions ``g + 1 … g + t`` with probability ``1 / t``. Every metric here is its exact
expectation over these orders: no positive gains or loses by its place in the list, and a scorer that gives every item
the same score gets chance, never perfection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Ranking:
    """Where the positives of some queries stand among the items ranked for them. Three columns of one length ``p``.

    Attributes:
        query: (p,) int64 number of the query that the positive belongs to; no query is without a positive.
        greater: (p,) int64 items with a strictly greater score.
        ties: (p,) int64 items with the same score, itself included; 0 says that the positive is not among the ranked
            items at all, and so is a miss at every cutoff.
        num_queries: q, so that results have this length.
    """

    query: np.ndarray
    greater: np.ndarray
    ties: np.ndarray
    num_queries: int

    def __post_init__(self) -> None:
        if not len(self.query) == len(self.greater) == len(self.ties):
            raise ValueError(
                f"columns of a ranking differ in length: {len(self.query)}, {len(self.greater)}, {len(self.ties)}"
            )
        if (empty := np.flatnonzero(self.num_positives() == 0)).size:
            raise ValueError(f"query {empty[0]} has no positive, so its metrics are undefined; leave it out")

    def num_positives(self) -> np.ndarray:
        """(q,) positives of each query, those that are not ranked included."""
        return np.bincount(self.query, minlength=self.num_queries)

    def sum_by_query(self, values: np.ndarray) -> np.ndarray:
        """(q,) sums of one value a positive."""
        return np.bincount(self.query, weights=values, minlength=self.num_queries)


def count_ranks(
    scores: Tensor, row: Tensor, positive: Tensor, hidden: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """For each positive, how many scores of its row are greater, and how many are equal.

    Args:
        scores: (n, c), only read.
        row: (p,) row of each positive, ascending.
        positive: (p,) score of each positive.
        hidden: rows and scores (h,) of entries of ``scores`` that do not count.

    Returns:
        greater, equal: two (p,) int64.
    """
    greater = torch.zeros(len(row), dtype=torch.int64, device=scores.device)
    equal = torch.zeros_like(greater)
    count = torch.bincount(row, minlength=len(scores))
    first = count.cumsum(0) - count
    for j in range(int(count.max()) if len(row) else 0):  # the j-th positive of every row that has as many
        rows = (count > j).nonzero().squeeze(1)
        at = first[rows] + j
        part = scores if len(rows) == len(scores) else scores[rows]
        bar = positive[at]
        greater[at], equal[at] = _greater_and_equal(part, bar)
        if hidden is not None:
            hidden_row, hidden_score = hidden
            bars = torch.full_like(scores[:, 0], torch.nan)  # no comparison with NaN holds
            bars[rows] = bar
            above, same = hidden_score > bars[hidden_row], hidden_score == bars[hidden_row]
            greater[at] -= torch.bincount(hidden_row[above], minlength=len(scores))[rows]
            equal[at] -= torch.bincount(hidden_row[same], minlength=len(scores))[rows]
    return greater, equal


LONG_ROW = 2048
"""Scores of a row from which on a call of NumPy for each row is worth its while."""


def _greater_and_equal(scores: Tensor, bar: Tensor) -> tuple[Tensor, Tensor]:
    """How many of each row's scores (n, c) are greater than its ``bar`` (n,), and how many are equal."""
    if scores.device.type == "cpu" and scores.shape[1] >= LONG_ROW and scores.dtype in (torch.float32, torch.float64):
        # Row by row, NumPy compares and counts five times as fast as PyTorch.
        rows = zip(scores.detach().numpy(), bar.detach().numpy(), strict=True)
        counts = torch.tensor([(np.count_nonzero(r > b), np.count_nonzero(r == b)) for r, b in rows])
        return counts[:, 0], counts[:, 1]
    # A sum of booleans is six times faster in int32 than in the int64 that it defaults to.
    above, same = scores > bar[:, None], scores == bar[:, None]
    return above.sum(1, dtype=torch.int32).long(), same.sum(1, dtype=torch.int32).long()


def recall_at_k(ranking: Ranking, k: int) -> np.ndarray:
    """(q,) expected share of a query's positives among its first ``k`` items: ``hits / |I|``.

    This is the first of the six definitions in use: the denominator is the number of positives, not ``min(|I|, k)``, so
    a query with more than ``k`` positives cannot reach 1, and the mean over queries (not over positives) is reported.

    >>> recall_at_k(Ranking(np.array([0]), np.array([0]), np.array([100]), 1), 10)  # a constant scorer, 100 items
    array([0.1])
    """
    _check_cutoff(k)
    inside = np.clip(k - ranking.greater, 0, ranking.ties) / np.maximum(ranking.ties, 1)
    return ranking.sum_by_query(inside) / ranking.num_positives()


def ndcg_at_k(ranking: Ranking, k: int) -> np.ndarray:
    """(q,) expected normalised discounted cumulative gain of the first ``k`` items, with gain 1 for each positive.

    A positive at position ``r`` (from 1) earns ``1 / log2(r + 1)``; the sum is divided by that of the best possible
    list, which has ``min(|I|, k)`` positives in front (Järvelin & Kekäläinen, TOIS 2002, with binary relevance).
    """
    _check_cutoff(k)
    earned = np.concatenate([[0.0], (1 / np.log2(np.arange(2, k + 2))).cumsum()])  # by the first 0…k positions
    low, high = np.minimum(ranking.greater, k), np.minimum(ranking.greater + ranking.ties, k)
    gain = (earned[high] - earned[low]) / np.maximum(ranking.ties, 1)
    return ranking.sum_by_query(gain) / earned[np.minimum(ranking.num_positives(), k)]


def mrr(ranking: Ranking) -> np.ndarray:
    """(q,) expected reciprocal rank of a query's first positive, without a cutoff; 0 if none is ranked."""
    result = np.zeros(ranking.num_queries)
    ranked = ranking.ties > 0
    query, greater, ties = ranking.query[ranked], ranking.greater[ranked], ranking.ties[ranked]
    best = np.full(ranking.num_queries, np.iinfo(np.int64).max)
    np.minimum.at(best, query, greater)
    leads = greater == best[query]  # the first positive is one of those with the query's best score
    # Queries repeat the same three numbers, so that the expectation is worked out once for each distinct triple.
    lead_query, place, together = np.unique(query[leads], return_index=True, return_counts=True)
    triples = np.stack([greater[leads][place], ties[leads][place], together], 1)
    distinct, inverse = np.unique(triples, axis=0, return_inverse=True)
    values = np.array([_expected_reciprocal_of_first(*map(int, t)) for t in distinct])
    if len(lead_query):
        result[lead_query] = values[inverse.ravel()]
    return result


def _expected_reciprocal_of_first(greater: int, ties: int, positives: int) -> float:
    """E[1 / (g + J)], where J is the first of ``positives`` places drawn from 1…``ties`` without replacement."""
    if ties == 1:
        return 1 / (greater + 1)
    j = np.arange(1, ties - positives + 2)
    # P(J = j) = P(J ≥ j) m / (t - j + 1), and P(J > j) = P(J ≥ j) (1 - m / (t - j + 1)).
    hazard = positives / (ties - j + 1)
    at_least = np.concatenate([[1.0], np.cumprod(1 - hazard)[:-1]])
    return float((at_least * hazard / (greater + j)).sum())


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ValueError(f"the cutoff k must be at least 1, got {k}")
