"""Metrics with ties against enumeration of all orders, without ties against pytrec_eval."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import pytrec_eval
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adi_lite.evaluation import ranking
from adi_lite.evaluation.ranking import Ranking, count_ranks, mrr, ndcg_at_k, recall_at_k


def ranking_of(scores: np.ndarray, positives: list[list[int]]) -> Ranking:
    row = torch.tensor([q for q, items in enumerate(positives) for _ in items])
    column = torch.tensor([i for items in positives for i in items])
    table = torch.from_numpy(scores)
    greater, ties = count_ranks(table, row, table[row, column])
    return Ranking(row.numpy(), greater.numpy(), ties.numpy(), len(positives))


def plain_metrics(order: tuple[int, ...], positives: set[int], k: int) -> tuple[float, float, float]:
    """Recall, NDCG and reciprocal rank of one list, straight from their definitions."""
    hits = [item in positives for item in order]
    gain = sum(hit / np.log2(r + 2) for r, hit in enumerate(hits[:k]))
    best = sum(1 / np.log2(r + 2) for r in range(min(k, len(positives))))
    return sum(hits[:k]) / len(positives), gain / best, 1 / (hits.index(True) + 1)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(0, 3), min_size=2, max_size=6),
    chosen=st.sets(st.integers(0, 5), min_size=1, max_size=4),
    k=st.integers(1, 7),
)
def test_ties_are_the_mean_over_all_orders_that_respect_the_scores(scores, chosen, k):
    positives = {i % len(scores) for i in chosen}
    orders = [o for o in permutations(range(len(scores))) if [scores[i] for i in o] == sorted(scores, reverse=True)]
    want = np.mean([plain_metrics(o, positives, k) for o in orders], axis=0)
    ranking = ranking_of(np.array([scores], dtype=float), [sorted(positives)])
    got = [recall_at_k(ranking, k)[0], ndcg_at_k(ranking, k)[0], mrr(ranking)[0]]
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
def test_without_ties_equals_pytrec_eval(k):
    rng = np.random.default_rng(0)
    scores = np.stack([rng.permutation(50) for _ in range(30)]).astype(float)
    positives = [sorted(rng.choice(50, size=rng.integers(1, 15), replace=False).tolist()) for _ in range(30)]
    ranking = ranking_of(scores, positives)
    qrel = {str(q): {str(i): 1 for i in items} for q, items in enumerate(positives)}
    run = {str(q): {str(i): float(s) for i, s in enumerate(row)} for q, row in enumerate(scores)}
    names = {f"recall_{k}": recall_at_k(ranking, k), f"ndcg_cut_{k}": ndcg_at_k(ranking, k), "recip_rank": mrr(ranking)}
    reference = pytrec_eval.RelevanceEvaluator(qrel, {f"recall.{k}", f"ndcg_cut.{k}", "recip_rank"}).evaluate(run)
    for name, values in names.items():
        np.testing.assert_allclose(values, [reference[str(q)][name] for q in range(30)], rtol=1e-6)


def test_constant_scorer_gets_chance_wherever_the_positive_stands():
    for place in (0, 57, 99):
        ranking = ranking_of(np.zeros((1, 100)), [[place]])
        assert recall_at_k(ranking, 10)[0] == pytest.approx(0.1, abs=1e-15)
        assert mrr(ranking)[0] == pytest.approx((1 / np.arange(1, 101)).mean(), rel=1e-12)


def test_better_scores_never_lower_a_metric():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (20, 12)).astype(float)
    raised = scores.copy()
    raised[:, 3] += 1
    before, after = (ranking_of(s, [[3, 7]] * 20) for s in (scores, raised))
    for metric in (lambda r: recall_at_k(r, 4), lambda r: ndcg_at_k(r, 4), mrr):
        assert (metric(after) >= metric(before) - 1e-12).all()


def test_many_tied_positives_of_long_lists_stay_accurate():
    ranking = Ranking(np.zeros(500, dtype=np.int64), np.zeros(500, int), np.full(500, 100_000), 1)
    first = np.random.default_rng(0).integers(1, 100_001, (4000, 500)).min(1)  # with replacement: nearly the same
    assert mrr(ranking)[0] == pytest.approx((1 / first).mean(), rel=0.15)
    assert recall_at_k(ranking, 1000)[0] == pytest.approx(0.01, rel=1e-12)


def test_a_positive_that_is_not_ranked_is_a_miss_and_counts():
    ranking = Ranking(np.array([0, 0, 1]), np.array([0, 0, 0]), np.array([1, 0, 0]), 2)
    np.testing.assert_allclose(recall_at_k(ranking, 10), [0.5, 0.0])
    np.testing.assert_allclose(mrr(ranking), [1.0, 0.0])
    np.testing.assert_allclose(ndcg_at_k(ranking, 10), [1 / (1 + 1 / np.log2(3)), 0.0])


def test_hidden_entries_count_neither_as_better_nor_as_tied():
    scores = torch.tensor([[3.0, 2.0, 2.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0, 5.0]])
    row, positive = torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0, 1.0])
    hidden = torch.tensor([0, 0, 1]), torch.tensor([3.0, 2.0, 5.0])
    greater, equal = count_ranks(scores, row, positive, hidden)
    assert greater.tolist() == [0, 2, 0]
    assert equal.tolist() == [2, 1, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_long_rows_are_counted_like_short_ones(monkeypatch, dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-2, 3, (40, 30), generator=generator).to(dtype)
    scores[0, 3], scores[1, 4] = torch.inf, -torch.inf
    row = torch.sort(torch.randint(0, 40, (60,), generator=generator)).values
    positive = scores[row, torch.randint(0, 30, (60,), generator=generator)]
    hidden = torch.tensor([0, 0, 7]), scores[[0, 0, 7], [1, 3, 5]]
    monkeypatch.setattr(ranking, "LONG_ROW", 31)
    short = count_ranks(scores, row, positive, hidden)
    monkeypatch.setattr(ranking, "LONG_ROW", 30)
    long = count_ranks(scores.requires_grad_(), row, positive, hidden)
    for one, other in zip(short, long, strict=True):
        assert one.dtype == other.dtype == torch.int64 and torch.equal(one, other)


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match="query 1 has no positive"):
        Ranking(np.array([0]), np.array([0]), np.array([1]), 2)
    with pytest.raises(ValueError, match="differ in length"):
        Ranking(np.array([0]), np.array([0, 1]), np.array([1]), 1)
    with pytest.raises(ValueError, match="cutoff k must be at least 1, got 0"):
        recall_at_k(Ranking(np.array([0]), np.array([0]), np.array([1]), 1), 0)
