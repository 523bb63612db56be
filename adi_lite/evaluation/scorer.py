"""What every model and every reference offers to evaluation and retrieval."""

from __future__ import annotations

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
