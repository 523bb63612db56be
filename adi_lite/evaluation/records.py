"""Training records as sparse matrices, the form that the non-neural references are fitted on."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.queries import columns_of


def domain_matrix(dataset: MultiDomainDataset, domain: int) -> sp.csr_array:
    """(num_users, size of the catalogue) float32, 1 where the user has the item in the domain's training records.

    Columns follow the catalogue; records of items outside it are left out, and a repeated record counts once.
    """
    train, catalogue = dataset.train, dataset.catalogues[domain]
    of_domain = train.domain == domain
    column, inside = columns_of(train.item[of_domain], catalogue)
    return _binary(train.user[of_domain][inside].numpy(), column[inside].numpy(), (dataset.num_users, len(catalogue)))


def pooled_matrix(dataset: MultiDomainDataset) -> sp.csr_array:
    """(num_users, num_items) float32, 1 where the user has the item in the training records of any domain."""
    return _binary(dataset.train.user.numpy(), dataset.train.item.numpy(), (dataset.num_users, dataset.num_items))


def _binary(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sp.csr_array:
    matrix = sp.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
