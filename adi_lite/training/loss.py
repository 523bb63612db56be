"""Softmax losses of retrieval (paper, Eq. 2-5)."""

from __future__ import annotations

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
) -> Tensor:
    """Sampled softmax with the log Q correction (Eq. 4, 5).

    ``log_q`` is the log of how often the proposal is *expected* to draw each negative. Then the sum over corrected
    negatives estimates the sum over the catalogue without bias, and the loss tends to the full softmax loss as the draw
    grows. For that the positive keeps its plain score, and a negative that is the positive (an accidental hit) is
    masked, or it would be counted twice.

    Args:
        positive: (b,) scores of the positives.
        users: (b, w) vectors of the rows' users.
        negatives: (m, w) vectors of the shared negatives; a row's scores are its inner products with them.
        log_q: (m,) log of each negative's expected count in a draw; zeros leave the correction out.
        hits: (k, 2) int64 pairs (row, column) where the negative is that row's positive.
        log_q_positive: (b,) the same for the positives: the letter of Eq. (5), which corrects them as well. Then the
            negatives must be distinct, and ``log_q`` is the log of the chance that a draw holds an item at all: with
            expected counts instead, the optimum would favour popular items wherever the draw is large.

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
    return _SampledSoftmax.apply(positive, users, negatives, log_q, hits)


BLOCK = 2**20
"""Numbers of the matrix of scores that a CPU makes at a time: 4 MiB, which its caches hold."""


class _SampledSoftmax(torch.autograd.Function):
    """Scores and their cross-entropy, a block of rows at a time, whose probabilities are all that is kept of them.

    Composed of ready-made operations it would go through the (b, m) matrix of scores a dozen times, and take two
    exponentials of each.
    """

    @staticmethod
    def forward(ctx, positive: Tensor, users: Tensor, negatives: Tensor, log_q: Tensor, hits: Tensor) -> Tensor:  # noqa: ANN001
        losses, probabilities = torch.empty_like(positive), []
        rows, m = _rows_of_a_block(users, negatives), len(negatives)
        for start in range(0, len(users), rows):
            own = slice(start, start + rows)
            # Rows of a multiple of 64 bytes: a product that is written to other rows takes up to twice as long.
            logits = positive.new_empty(len(positive[own]), 16 * (m // 16 + 1))
            if logits.dtype == users.dtype:
                torch.mm(users[own], negatives.T, out=logits[:, :m])
            else:
                logits[:, :m] = users[own] @ negatives.T
            logits[:, :m] -= log_q
            logits[:, m] = positive[own]
            logits[:, m + 1 :] = -torch.inf
            of_block = hits if rows >= len(users) else hits[(hits[:, 0] >= start) & (hits[:, 0] < start + rows)]
            logits[of_block[:, 0] - start, of_block[:, 1]] = -torch.inf
            p = torch.softmax(logits, 1)
            # The largest probability is 1 / sum(exp(logits - largest logit)): the positive's own may be too small for a log.
            torch.sub(logits.amax(1) - positive[own], p.amax(1).log(), out=losses[own])
            probabilities.append(p)
        ctx.save_for_backward(users, negatives, *probabilities)
        return losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        users, negatives, *probabilities = ctx.saved_tensors
        m, sizes = len(negatives), [len(p) for p in probabilities]
        of_positive, of_users = torch.empty_like(grad), torch.empty_like(users)
        of_negatives = negatives.new_zeros(negatives.shape[1], len(negatives))  # this way round a third faster
        blocks = (t.split(sizes) for t in (grad, users, of_positive, of_users))
        for p, g, u, to_positive, to_users in zip(probabilities, *blocks, strict=True):
            of_logits = p * g.unsqueeze(1)
            torch.sub(of_logits[:, m], g, out=to_positive)
            of_scores = of_logits[:, :m].to(users.dtype)
            torch.mm(of_scores, negatives, out=to_users)
            of_negatives += u.T @ of_scores
        return of_positive, of_users, of_negatives.T, None, None


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
