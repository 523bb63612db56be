"""What every model and every reference offers to evaluation and retrieval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Scorer(Protocol):
    """Anything that scores a domain's whole catalogue for given users."""

    def scores(self, users: Tensor, domain: int) -> Tensor:
        """(n, c) float scores, higher is better.

        Args:
            users: (n,) rows of users.
            domain: number of the domain; column ``j`` of the result is the item ``dataset.catalogues[domain][j]``.
        """
        ...


@runtime_checkable
class PreparingScorer(Scorer, Protocol):
    """A scorer that does a part of its work for many users at once, such as a tower that embeds them."""

    def prepare(self, users: Tensor, domain: int) -> Callable[[slice], Tensor]:
        """What gives the scores of a slice of ``users`` (n,), as :meth:`scores` would."""
        ...


def prepared(scorer: Scorer, users: Tensor, domain: int) -> Callable[[slice], Tensor]:
    """The scores of slices of ``users``, by the scorer's own preparation where it has one."""
    if isinstance(scorer, PreparingScorer):
        return scorer.prepare(users, domain)
    return lambda part: scorer.scores(users[part], domain)
