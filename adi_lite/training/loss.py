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
        negatives: (b, m) scores of the shared negatives.
        log_q: (m,) log of each negative's expected count in a draw; zeros leave the correction out.
        hits: (k, 2) int64 pairs (row, column) where the negative is that row's positive.
        log_q_positive: (b,) the same for the positives: the letter of Eq. (5), which corrects them as well. Then the
            negatives must be distinct, and ``log_q`` is the log of the chance that a draw holds an item at all: with
            expected counts instead, the optimum would favour popular items wherever the draw is large.

    Returns:
        (b,) losses.
    """
    if negatives.shape != (len(positive), len(log_q)):
        raise ValueError(f"negatives must be (b, m) = {(len(positive), len(log_q))}, got {tuple(negatives.shape)}")
    if log_q_positive is not None:
        positive = positive - log_q_positive
    return _SampledSoftmax.apply(positive, negatives, log_q, hits)


class _SampledSoftmax(torch.autograd.Function):
    """Cross-entropy of the positive among corrected negatives, in one buffer.

    Composed of ready-made operations it would copy the (b, m) matrix six times, and reading and writing it is a
    large part of a training step. Here it is copied once.
    """

    @staticmethod
    def forward(ctx, positive: Tensor, negatives: Tensor, log_q: Tensor, hits: Tensor) -> Tensor:  # noqa: ANN001
        logits = negatives.new_empty(len(positive), negatives.shape[1] + 1)
        logits[:, 0] = positive
        torch.sub(negatives, log_q, out=logits[:, 1:])
        logits[hits[:, 0], hits[:, 1] + 1] = -torch.inf
        logs = torch.log_softmax(logits, 1)
        ctx.save_for_backward(logs)
        return -logs[:, 0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN001
        (logs,) = ctx.saved_tensors
        scaled = torch.exp(logs).mul_(grad.unsqueeze(1))
        return scaled[:, 0] - grad, scaled[:, 1:], None, None


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
