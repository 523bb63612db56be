"""Softmax losses of retrieval (paper, Eq. 2-5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def full_softmax(logits: Tensor, target: Tensor) -> Tensor:
    """Negative log likelihood over a whole catalogue (Eq. 2, 3).

    Args:
        logits: (b, n) scores of all items.
        target: (b,) column of the positive.

    Returns:
        (b,) losses.
    """
    return F.cross_entropy(logits, target, reduction="none")


def sampled_softmax(
    positive: Tensor,
    users: Tensor,
    negatives: Tensor,
    log_q: Tensor,
    hits: Tensor,
    log_q_positive: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Sampled softmax with the log Q correction (Eq. 4, 5).

    ``log_q`` is the log of how often the proposal is *expected* to draw each negative. Then the sum over corrected
    negatives estimates the sum over the catalogue without bias, and the loss tends to the full softmax loss as the draw
    grows. For that the positive keeps its plain score, and a negative that is the positive (an accidental hit) is
    masked, or it would be counted twice.

    Args:
        positive: (b,) scores of the positives.
        users: (b, w) vectors of the rows' users.
        negatives: (m, w) vectors of the shared negatives; a row's scores are its inner products with them, and ``bias``.
        log_q: (m,) log of each negative's expected count in a draw; zeros leave the correction out.
        hits: (k, 2) int64 pairs (row, column) where the negative is that row's positive.
        log_q_positive: (b,) the same for the positives: the letter of Eq. (5), which corrects them as well. Then the
            negatives must be distinct, and ``log_q`` is the log of the chance that a draw holds an item at all: with
            expected counts instead, the optimum would favour popular items wherever the draw is large.
        bias: (m,) what each negative's score has on top of its inner product. ``positive`` has its own already.

    Returns:
        (b,) losses.
    """
    if len(users) != len(positive) or negatives.shape != (len(log_q), users.shape[1]):
        raise ValueError(
            f"{len(positive)} positives and {len(log_q)} values of log_q need users ({len(positive)}, w) and negatives "
            f"({len(log_q)}, w), got {tuple(users.shape)} and {tuple(negatives.shape)}"
        )
    if log_q_positive is not None:
        positive = positive - log_q_positive
    if torch.is_autocast_enabled(users.device.type):  # it does not look into operations of our own
        users, negatives = (t.to(torch.get_autocast_dtype(users.device.type)) for t in (users, negatives))
    return _SampledSoftmax.apply(positive, users, negatives, log_q if bias is None else log_q - bias, hits)


BLOCK = 2**20
"""Numbers of the matrix of scores that a CPU makes at a time: 4 MiB, which its caches hold."""


class _SampledSoftmax(torch.autograd.Function):
    """Scores and their cross-entropy, a block of rows at a time, of which one matrix and its sums of rows are kept.

    Composed of ready-made operations it would go through the (b, m) matrix of scores a dozen times, and take two
    exponentials of each. Scores are in units of log 2: a CPU takes an exponential of 2 in half the time of one of e.
    """

    @staticmethod
    def forward(ctx, positive: Tensor, users: Tensor, negatives: Tensor, log_q: Tensor, hits: Tensor) -> Tensor:  # noqa: ANN001
        losses, kept = torch.empty_like(positive), []
        rows, m = _rows_of_a_block(users, negatives), len(negatives)
        mixed = positive.dtype != users.dtype  # vectors in bfloat16, which are not to be rounded once more
        right, shift = positive / math.log(2), log_q / math.log(2)
        scaled = users if mixed else users / math.log(2)
        for start in range(0, len(users), rows):
            own = slice(start, start + rows)
            # Rows of a multiple of 64 bytes: a product that is written to other rows takes up to twice as long.
            powers = positive.new_empty(len(right[own]), 16 * (m // 16 + 1))
            if mixed:
                torch.div(scaled[own] @ negatives.T, math.log(2), out=powers[:, :m])
            else:
                torch.mm(scaled[own], negatives.T, out=powers[:, :m])
            powers[:, :m] -= shift
            powers[:, m] = right[own]
            powers[:, m + 1 :] = -torch.inf
            of_block = hits if rows >= len(users) else hits[(hits[:, 0] >= start) & (hits[:, 0] < start + rows)]
            powers[of_block[:, 0] - start, of_block[:, 1]] = -torch.inf
            largest = powers.amax(1)
            torch.exp2(powers.sub_(largest.unsqueeze(1)), out=powers)
            total = powers.sum(1)
            torch.sub(total.log2() + largest, right[own], out=losses[own])
            kept += [powers, total]
        ctx.save_for_backward(users, negatives, *kept)
        return losses.mul_(math.log(2))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        users, negatives, *kept = ctx.saved_tensors
        blocks, totals, m = kept[::2], kept[1::2], len(negatives)
        of_positive, of_users = torch.empty_like(grad), torch.empty_like(users)
        of_negatives = torch.zeros_like(negatives)
        of_log_q = grad.new_zeros(m) if ctx.needs_input_grad[3] else None
        parts = (t.split([len(b) for b in blocks]) for t in (grad, users, of_positive, of_users))
        for powers, total, g, u, to_positive, to_users in zip(blocks, totals, *parts, strict=True):
            of_scores = powers * (g / total).unsqueeze(1)  # by each row's probabilities
            torch.sub(of_scores[:, m], g, out=to_positive)
            of_scores = of_scores[:, :m]
            if of_log_q is not None:
                of_log_q -= of_scores.sum(0)
            of_scores = of_scores.to(users.dtype)
            torch.mm(of_scores, negatives, out=to_users)
            of_negatives += of_scores.T @ u
        return of_positive, of_users, of_negatives, of_log_q, None


def _rows_of_a_block(users: Tensor, negatives: Tensor) -> int:
    """All at once elsewhere than on a CPU, and in bfloat16, which is too coarse to add up gradients of blocks."""
    if users.device.type != "cpu" or users.dtype == torch.bfloat16:
        return max(1, len(users))
    return max(1, BLOCK // (1 + len(negatives)))


def double_softmax(positive: Tensor, negatives: Tensor) -> Tensor:
    """Cross-entropy of an output that is a softmax already: a mistake of public code, kept to measure what it costs.

    Its loss cannot fall below log(1 + m / e) and its gradient fades where the model is wrong.

    Args:
        positive: (b,) scores. negatives: (b, m) scores of each row's own negatives.

    Returns:
        (b,) losses.
    """
    probabilities = torch.softmax(torch.cat([positive.unsqueeze(1), negatives], 1), 1)
    return F.cross_entropy(
        probabilities,
        probabilities.new_zeros(len(positive), dtype=torch.int64),
        reduction="none",
    )


def accidental_hits(positive_ids: Tensor, negative_ids: Tensor) -> Tensor:
    """Where a shared negative is a row's own positive.

    Args:
        positive_ids: (b,). negative_ids: (m,), may repeat.

    Returns:
        (k, 2) int64 pairs (row, column), found by sorting: no (b, m) matrix of comparisons.
    """
    ordered, column = torch.sort(negative_ids)
    left = torch.searchsorted(ordered, positive_ids)
    count = torch.searchsorted(ordered, positive_ids, right=True) - left
    row = torch.repeat_interleave(torch.arange(len(positive_ids)), count)
    within = torch.arange(len(row)) - torch.repeat_interleave(count.cumsum(0) - count, count)
    return torch.stack([row, column[left[row] + within]], 1)


def first_of_each(ids: Tensor) -> Tensor:
    """Where each distinct id occurs first: (k,) positions in ``ids`` (m,), in the order of the ids."""
    ordered, where = torch.sort(ids, stable=True)
    new = torch.ones(len(ids), dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return where[new]
