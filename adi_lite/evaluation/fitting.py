"""What all non-neural references share: settings that are fitted domain by domain, and the scorer that comes of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset

UserScores = Callable[[Tensor], Tensor]
"""Rows of users (n,) to their scores (n, size of the catalogue) in one domain."""


@dataclass(frozen=True)
class FittedReference:
    """A :class:`~adi_lite.evaluation.scorer.Scorer` that asks the function of the domain."""

    by_domain: tuple[UserScores, ...]

    def scores(self, users: Tensor, domain: int) -> Tensor:
        return self.by_domain[domain](users)


class Reference(ABC):
    """Settings of a method without gradient descent; :meth:`fit` gives its scorer."""

    def fit(self, dataset: MultiDomainDataset) -> FittedReference:
        """Fit each domain on ``dataset.train``."""
        return FittedReference(tuple(self.fit_domain(dataset, d) for d in range(dataset.num_domains)))

    @abstractmethod
    def fit_domain(self, dataset: MultiDomainDataset, domain: int) -> UserScores:
        """Fit one domain."""


@dataclass(frozen=True)
class PerDomain(Reference):
    """Settings of its own for each domain, as a search on each domain's validation records gives them."""

    settings: tuple[Reference, ...]

    def fit_domain(self, dataset: MultiDomainDataset, domain: int) -> UserScores:
        if len(self.settings) != dataset.num_domains:
            raise ValueError(f"{len(self.settings)} settings for {dataset.num_domains} domains")
        return self.settings[domain].fit_domain(dataset, domain)
