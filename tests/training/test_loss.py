"""Eq. (2)-(5) against scipy and loops over single rows; what masking and the correction must achieve."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch.utils.flop_counter import FlopCounterMode

from adi_lite.training import loss as loss_module
from adi_lite.training.loss import accidental_hits, double_softmax, first_of_each, full_softmax, sampled_softmax

ids = st.lists(st.integers(0, 6), max_size=12)


def of_scores(positive, negatives, *others):
    """Sampled softmax of given scores (b, m): inner products with the unit vectors."""
    return sampled_softmax(positive, negatives, torch.eye(negatives.shape[1], dtype=negatives.dtype), *others)


def int64(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_full_softmax_is_minus_log_likelihood():
    logits = torch.randn(6, 9, dtype=torch.float64) * 20
    target = int64([0, 8, 3, 3, 5, 1])
    expected = [logsumexp(logits[r].numpy()) - logits[r, t].item() for r, t in enumerate(target.tolist())]
    np.testing.assert_allclose(full_softmax(logits, target), expected)


@pytest.mark.parametrize("corrected", [False, True])
def test_sampled_softmax_equation_5_row_by_row(corrected):
    b, m = 5, 8
    positive, negatives = torch.randn(b, dtype=torch.float64) * 5, torch.randn(b, m, dtype=torch.float64) * 5
    log_q, log_q_positive = torch.randn(m, dtype=torch.float64), torch.randn(b, dtype=torch.float64)
    positive_ids, negative_ids = int64([3, 1, 9, 3, 0]), int64([1, 3, 3, 4, 5, 6, 1, 7])
    hits = accidental_hits(positive_ids, negative_ids)
    losses = of_scores(positive, negatives, log_q, hits, log_q_positive if corrected else None)
    for r in range(b):
        f = positive[r].item() - (log_q_positive[r].item() if corrected else 0)
        others = [negatives[r, c].item() - log_q[c].item() for c in range(m) if negative_ids[c] != positive_ids[r]]
        assert losses[r].item() == pytest.approx(logsumexp([f, *others]) - f)


@settings(max_examples=60, deadline=None)
@given(ids, ids)
def test_accidental_hits_are_all_pairs_of_equal_ids(positive, negative):
    hits = accidental_hits(int64(positive), int64(negative))
    assert hits.dtype == torch.int64 and hits.shape[1] == 2
    expected = {(r, c) for r, p in enumerate(positive) for c, n in enumerate(negative) if p == n}
    assert len(hits) == len(expected) and set(map(tuple, hits.tolist())) == expected


def test_ids_above_the_reach_of_floats_are_told_apart():
    big = 2**53
    assert accidental_hits(int64([big + 1]), int64([big, big + 1, big + 2])).tolist() == [[0, 1]]
    assert accidental_hits(int64([2**24 + 1]), int64([2**24, 2**24 + 2])).tolist() == []


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 4), min_size=1, max_size=10), st.integers(-30, 30))
def test_a_masked_negative_has_no_probability_and_no_gradient(rows, negative, height):
    """Whatever its score, and however often it was drawn; the others keep theirs."""
    positive_ids = int64([r % 3 for r in range(rows)])
    negatives = (torch.randn(rows, len(negative)) + height).requires_grad_()
    positive = torch.zeros(rows, requires_grad=True)
    loss = of_scores(positive, negatives, torch.zeros(len(negative)), accidental_hits(positive_ids, int64(negative)))
    loss.sum().backward()
    # The gradient of cross-entropy on a negative's score is its probability.
    for r in range(rows):
        for c, v in enumerate(negative):
            if v == positive_ids[r]:
                assert negatives.grad[r, c].abs() < 1e-6
            elif height > -5:
                assert negatives.grad[r, c] > 0
    if all(v == p for v in negative for p in positive_ids.tolist()):
        assert (loss.abs() < 1e-6).all(), "nothing left to compare with"


def test_losses_of_rows_are_independent():
    positive, negatives, log_q = torch.randn(4), torch.randn(4, 6), torch.randn(6)
    hits = accidental_hits(int64([0, 1, 2, 3]), int64([1, 1, 5, 3, 9, 9]))
    before = of_scores(positive, negatives, log_q, hits)
    positive[2], negatives[2] = 50.0, torch.randn(6) * 9
    after = of_scores(positive, negatives, log_q, hits)
    assert torch.equal(before[[0, 1, 3]], after[[0, 1, 3]]) and before[2] != after[2]


def test_no_negatives_at_all_cost_nothing():
    assert of_scores(
        torch.randn(3), torch.empty(3, 0), torch.empty(0), accidental_hits(int64([1, 2, 3]), int64([]))
    ).tolist() == [0, 0, 0]


def test_shapes_are_checked():
    none = torch.empty(0, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"negatives \(5, w\), got \(3, 2\) and \(4, 2\)"):
        sampled_softmax(torch.zeros(3), torch.zeros(3, 2), torch.zeros(4, 2), torch.zeros(5), none)
    with pytest.raises(ValueError, match=r"users \(3, w\)"):
        sampled_softmax(torch.zeros(3), torch.zeros(2, 2), torch.zeros(5, 2), torch.zeros(5), none)


def plain(positive, users, negatives, log_q, hits, bias=0.0):
    """The same, of ready-made operations."""
    scores = users @ negatives.T + bias - log_q
    masked = torch.zeros_like(scores, dtype=torch.bool)
    masked[hits[:, 0], hits[:, 1]] = True
    logits = torch.cat([positive.unsqueeze(1), scores.masked_fill(masked, -torch.inf)], 1)
    return torch.logsumexp(logits, 1) - positive


def inputs(b, m, w, dtype=torch.float64):
    tensors = [torch.randn(*shape, dtype=dtype) for shape in ((b,), (b, w), (m, w))]
    hits = accidental_hits(torch.randint(5, (b,)), torch.randint(5, (m,)))
    return [t.requires_grad_() for t in tensors], torch.randn(m, dtype=dtype), hits


@pytest.mark.parametrize("block", [1, 20, 10_000])
def test_loss_and_gradients_are_those_of_ready_made_operations(monkeypatch, block):
    """In blocks of one row, of some rows and of all, with a weight for each row."""
    monkeypatch.setattr(loss_module, "BLOCK", block)
    given, *rest = inputs(9, 6, 4)
    bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(9, dtype=torch.float64)
    results = []
    for f in (sampled_softmax, plain):
        losses = f(*given, *rest, bias=bias)
        results.append([losses, *torch.autograd.grad(losses @ weight, [*given, bias])])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_its_products_are_counted():
    """The page on speed counts them by torch's counter, which knows no product in place."""
    given, *rest = inputs(9, 6, 4)
    with FlopCounterMode(display=False) as counter:
        sampled_softmax(*given, *rest).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 9 * 6 * 4


def test_a_positive_without_any_probability_has_a_finite_loss():
    loss = of_scores(torch.tensor([-300.0]), torch.tensor([[300.0, 0.0]]), torch.zeros(2), torch.empty(0, 2).long())
    assert loss.item() == pytest.approx(600.0)


def test_scores_in_bfloat16_give_losses_in_float32():
    given, *rest = inputs(9, 6, 4, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = sampled_softmax(*given, *rest)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain(*given, *rest), rtol=0.05, atol=0.05)
    gradients = torch.autograd.grad(loss.sum(), given)
    assert [g.dtype for g in gradients] == [torch.float32] * 3
    for ours, theirs in zip(gradients, torch.autograd.grad(plain(*given, *rest).sum(), given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05)


def test_double_softmax_by_hand_and_its_bounds():
    positive, negatives = torch.randn(5, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    losses = double_softmax(positive, negatives)
    for r in range(5):
        e = [math.exp(s) for s in [positive[r].item(), *negatives[r].tolist()]]
        p = [x / sum(e) for x in e]
        assert losses[r].item() == pytest.approx(-math.log(math.exp(p[0]) / sum(math.exp(x) for x in p)))
    perfect = double_softmax(torch.tensor([1000.0]), torch.zeros(1, 7))
    assert perfect.item() == pytest.approx(math.log(1 + 7 / math.e))
    wrong = torch.tensor([-30.0], requires_grad=True)
    double_softmax(wrong, torch.zeros(1, 7)).sum().backward()
    assert wrong.grad.abs() < 1e-6, "the gradient fades where the model is wrong"


@settings(max_examples=40, deadline=None)
@given(ids)
def test_first_of_each(values):
    where = first_of_each(int64(values)).tolist()
    assert where == [values.index(v) for v in sorted(set(values))]


def optimum(p: torch.Tensor, q: torch.Tensor, m: int, mode: str) -> torch.Tensor:
    """Fit one score an item by sampled softmax alone; return the softmax of the scores, which ought to be ``p``."""
    s = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([s], lr=0.05)
    steps, mean = 1000, torch.zeros_like(p)
    for step in range(steps):
        positive = torch.multinomial(p, 256, replacement=True)
        negative = torch.multinomial(q, m, replacement=True)
        log_q = torch.log(m * q)
        if mode in ("distinct", "flipped"):
            negative = negative[first_of_each(negative)]
            log_q = torch.log(1 - (1 - q) ** m) * (-1 if mode == "flipped" else 1)
        hits = accidental_hits(positive, negative)
        correct = None if mode == "plain" else log_q[positive]
        loss = of_scores(s[positive], s[negative].expand(256, -1), log_q[negative], hits, correct).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= steps // 2:
            mean += s.detach() / (steps // 2)
    return torch.softmax(mean, 0)


@pytest.mark.parametrize(
    ("m", "mode", "right"),
    [(8, "distinct", True), (60, "distinct", True), (60, "plain", True), (60, "counts", False), (60, "flipped", False)],
)
def test_optimum_of_a_tabular_problem(m, mode, right):
    """With the positive corrected, distinct negatives and the chance of being drawn have the right optimum; expected
    counts in their place have not (``counts``), and neither has the other sign."""
    p = 1 / torch.arange(1, 21, dtype=torch.float64)
    p /= p.sum()
    q = p**0.75 / (p**0.75).sum()
    distance = (optimum(p, q, m, mode) - p).abs().sum().item() / 2
    assert distance < 0.03 if right else distance > 0.06
