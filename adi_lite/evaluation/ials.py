"""Implicit alternating least squares, the matrix factorization reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.fitting import Reference, UserScores
from adi_lite.evaluation.records import domain_matrix

_CHUNK_FLOATS = 1 << 22  # gathered vectors or matrices of one batch of solves


@dataclass(frozen=True)
class IALS(Reference):
    """Weighted matrix factorization of implicit feedback (Hu, Koren & Volinsky, ICDM 2008).

    In the parametrisation of Rendle, Krichene, Zhang & Koren (RecSys 2022, Eq. 1-4), with S the records and ``ŷ = w·h``:
    ``Σ_S (ŷ - 1)² + α Σ_{u,i} ŷ² + λ (Σ_u (|I_u| + α|I|)^ν ‖w_u‖² + Σ_i (|U_i| + α|U|)^ν ‖h_i‖²)``.

    Attributes:
        width: length of the vectors.
        unobserved_weight: α.
        regularization: λ.
        frequency_exponent: ν; 1 scales the regularisation with the number of terms, 0 is the plain one.
        iterations: sweeps over users and items.
        init_scale: σ of the initial vectors, whose entries are N(0, σ²/width).
        seed: of the initial vectors.
    """

    width: int = 64
    unobserved_weight: float = 0.1
    regularization: float = 0.003
    frequency_exponent: float = 1.0
    iterations: int = 16
    init_scale: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.iterations < 1:
            raise ValueError(f"width and iterations must be at least 1, got {self.width} and {self.iterations}")
        if self.unobserved_weight <= 0 or self.regularization <= 0:
            raise ValueError(
                "unobserved_weight and regularization must be positive, got "
                f"{self.unobserved_weight} and {self.regularization}"
            )

    def fit_domain(self, dataset: MultiDomainDataset, domain: int) -> UserScores:
        records = domain_matrix(dataset, domain)
        active = np.flatnonzero(np.diff(records.indptr))  # users without records here keep the zero vector
        users, items = torch.zeros(len(dataset.user_ids), self.width), torch.zeros(records.shape[1], self.width)
        if len(active):
            users[torch.from_numpy(active)], items = self.factorize(records[active])
        return lambda rows: users[rows] @ items.T

    def factorize(self, records: sp.csr_array) -> tuple[Tensor, Tensor]:
        """(users, width) and (items, width) vectors of a binary (users, items) matrix."""
        generator = torch.Generator().manual_seed(self.seed)
        scale = self.init_scale / self.width**0.5
        users, items = (torch.randn(n, self.width, generator=generator) * scale for n in records.shape)
        columns = sp.csr_array(records.T)
        for _ in range(self.iterations):
            users = self.solve(records, items)
            items = self.solve(columns, users)
        return users, items

    def solve(self, records: sp.csr_array, others: Tensor) -> Tensor:
        """Best vectors (rows, width) of one side, given those of the other: one ridge regression a row.

        With V the vectors of a row's records and D the rest of its normal matrix, the answer is (D + VᵀV)⁻¹ Vᵀ1. In the
        basis where all D are diagonal it equals D⁻¹Vᵀ (I + V D⁻¹Vᵀ)⁻¹ 1, whose system is as small as the row is short.
        """
        values, basis = torch.linalg.eigh(self.unobserved_weight * others.T @ others)
        counts = torch.from_numpy(np.diff(records.indptr)).long()
        ridge = self.regularization * (counts + self.unobserved_weight * len(others)) ** self.frequency_exponent
        rotated = torch.cat([others @ basis, others.new_zeros(1, self.width)])
        result = torch.zeros(records.shape[0], self.width)
        for rows, taken in _batches(records, self.width):
            vectors = rotated[taken]  # (b, longest, width), zero where a row is shorter
            diagonal = values.clamp_min(0) + ridge[rows, None]
            if taken.shape[1] < self.width:
                scaled = vectors / diagonal[:, None]
                system = vectors @ scaled.transpose(1, 2)
                system.diagonal(dim1=1, dim2=2).add_(1)
                answer = torch.cholesky_solve(vectors.new_ones(*taken.shape, 1), torch.linalg.cholesky(system))
                result[rows] = (scaled.transpose(1, 2) @ answer).squeeze(2)
            else:
                system = vectors.transpose(1, 2) @ vectors
                system.diagonal(dim1=1, dim2=2).add_(diagonal)
                answer = torch.cholesky_solve(vectors.sum(1)[:, :, None], torch.linalg.cholesky(system))
                result[rows] = answer.squeeze(2)
        return result @ basis.T


def _batches(records: sp.csr_array, width: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of like length, and the columns (b, longest) of their records, padded with the number of columns."""
    lengths = np.diff(records.indptr)
    order = np.argsort(lengths, kind="stable")[::-1]
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        rows = order[start : start + max(1, _CHUNK_FLOATS // (width * max(longest, width)))]
        place = np.arange(longest)
        inside = place < lengths[rows, None]
        source = np.where(inside, records.indptr[rows, None] + place, 0)
        taken = np.full(inside.shape, records.shape[1], dtype=np.int64)
        taken[inside] = records.indices[source[inside]]
        yield torch.from_numpy(rows.copy()), torch.from_numpy(taken)
        start += len(rows)
