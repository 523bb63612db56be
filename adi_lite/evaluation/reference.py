"""References that any neural model must face: popularity, ItemKNN and EASE, with iALS from a file of its own.

Most neural recommenders lose to simple methods once these are tuned (Ferrari Dacrema, Cremonesi & Jannach, RecSys 2019),
so each has the few settings that matter. All are fitted on the training records alone, domain by domain; ``pooled``
fits one item-item model on the records of all domains together and then scores each domain's catalogue with it.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from scipy.linalg import lapack
from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.fitting import FittedReference, PerDomain, Reference, UserScores
from adi_lite.evaluation.ials import IALS
from adi_lite.evaluation.records import domain_matrix, pooled_matrix

__all__ = ["EASE", "IALS", "ItemKNN", "PerDomain", "Popularity", "Reference"]


@dataclass(frozen=True)
class Popularity(Reference):
    """An item's score is the number of users who took it in the domain, the same for everybody."""

    def fit_domain(self, dataset: MultiDomainDataset, domain: int) -> UserScores:
        counts = torch.from_numpy(domain_matrix(dataset, domain).sum(0))
        return lambda users: counts.expand(len(users), -1)


class ItemItem(Reference):
    """Scores are the user's row of records times a matrix of item-item weights."""

    pooled: bool

    @abstractmethod
    def weights(self, records: sp.csr_array) -> np.ndarray | sp.csc_array:
        """(items, items) float32 weights from (users, items) records; row: the item taken, column: the item scored."""

    def fit(self, dataset: MultiDomainDataset) -> FittedReference:
        if not self.pooled:
            return super().fit(dataset)
        records = pooled_matrix(dataset)
        weights = self.weights(records)
        return FittedReference(tuple(_times(records, weights[:, c.numpy()]) for c in dataset.catalogues))

    def fit_domain(self, dataset: MultiDomainDataset, domain: int) -> UserScores:
        if self.pooled:
            records = pooled_matrix(dataset)
            return _times(records, self.weights(records)[:, dataset.catalogues[domain].numpy()])
        records = domain_matrix(dataset, domain)
        return _times(records, self.weights(records))


@dataclass(frozen=True)
class ItemKNN(ItemItem):
    """Cosine similarity of items by the users who took them (Sarwar et al., WWW 2001).

    ``similarity(i, j) = |U_i ∩ U_j| / (√|U_i| √|U_j| + shrinkage)``, and an item is scored by the sum over the user's
    items that are among its nearest.

    Attributes:
        neighbours: nearest items kept for each item that is scored; None keeps all.
        shrinkage: pulls the similarity of rarely taken items towards 0.
        pooled: fit on the records of all domains together.
    """

    neighbours: int | None = None
    shrinkage: float = 0.0
    pooled: bool = False

    def __post_init__(self) -> None:
        if self.neighbours is not None and self.neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, or None for all; got {self.neighbours}")
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage must not be negative, got {self.shrinkage}")

    def weights(self, records: sp.csr_array) -> sp.csc_array:
        norm = np.sqrt(records.sum(0))
        together = sp.coo_array(records.T @ records)
        row, column = together.coords
        off = row != column
        row, column, count = row[off], column[off], together.data[off]
        similarity = (count / (norm[row] * norm[column] + self.shrinkage)).astype(np.float32)
        if self.neighbours is not None:
            order = np.lexsort((row, -similarity, column))  # equal similarities: the first item in the catalogue
            row, column, similarity = row[order], column[order], similarity[order]
            first = np.searchsorted(column, column)
            near = np.arange(len(column)) - first < self.neighbours
            row, column, similarity = row[near], column[near], similarity[near]
        return sp.csc_array((similarity, (row, column)), shape=together.shape)


@dataclass(frozen=True)
class EASE(ItemItem):
    """Linear autoencoder in closed form (Steck, WWW 2019).

    ``min ‖X - X B‖² + λ ‖B‖²`` with a zero diagonal, solved by ``B = I - P / diag(P)`` with ``P = (XᵀX + λ I)⁻¹``.
    Memory is one (items, items) matrix in float64 and time is cubic in items: for catalogues up to some 20,000.

    Attributes:
        regularization: λ.
        pooled: fit on the records of all domains together.
    """

    regularization: float = 200.0
    pooled: bool = False

    def __post_init__(self) -> None:
        if self.regularization <= 0:
            raise ValueError(f"regularization must be positive, got {self.regularization}")

    def weights(self, records: sp.csr_array) -> np.ndarray:
        taken = np.flatnonzero(records.sum(0))  # an item without records has zeros in its row and its column
        gram = (records[:, taken].T @ records[:, taken]).astype(np.float64)  # while it is sparse: one matrix, not two
        dense = gram.toarray(order="C")
        del gram  # as large as a third of the dense one
        inverse = _inverse(dense, self.regularization)
        inverse /= -inverse.diagonal()[None, :]
        np.fill_diagonal(inverse, 0)
        weights = np.zeros((records.shape[1],) * 2, dtype=np.float32)
        for start in range(0, len(taken), 1024):  # by blocks: an assignment at once would copy the whole matrix first
            rows = taken[start : start + 1024]
            weights[np.ix_(rows, taken)] = inverse[start : start + 1024]
        return weights


def _inverse(gram: np.ndarray, regularization: float) -> np.ndarray:
    """Inverse of a symmetric positive definite matrix plus λ I, by Cholesky, in the matrix's own memory."""
    gram[np.diag_indices_from(gram)] += regularization
    factor, failed = lapack.dpotrf(gram.T, overwrite_a=True, clean=False)  # LAPACK wants columns: the transpose is one
    inverse, failed_too = lapack.dpotri(factor, overwrite_c=True)
    if failed or failed_too:
        raise ValueError(f"XᵀX + λ I cannot be inverted with λ = {regularization}; choose a larger λ")
    upper = inverse.T  # the upper triangle of columns is the lower one of rows
    for start in range(0, len(upper), 1024):  # by blocks, so that no second matrix is made
        stop = min(start + 1024, len(upper))
        upper[:start, start:stop] = upper[start:stop, :start].T
        block = np.tril(upper[start:stop, start:stop])
        upper[start:stop, start:stop] = block + np.tril(block, -1).T
    return upper


def _times(records: sp.csr_array, weights: np.ndarray | sp.csc_array) -> UserScores:
    def scores(users: Tensor) -> Tensor:
        product = records[users.numpy()] @ weights
        return torch.from_numpy(product.toarray() if sp.issparse(product) else product)

    return scores
