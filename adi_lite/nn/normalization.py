"""Batch normalisation over a mixed batch (paper, Eq. 19) and domain by domain (Eq. 20)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.nn.precision import wide


class DomainBatchNorm(nn.Module):
    """Domain-specific batch normalisation, DSBN (Section 4.2.1).

    Each domain has its own scale, shift and running statistics. A domain that a batch lacks keeps its statistics. A
    domain with a single row in the batch has no variance there: the row is normalised with the running statistics,
    which are left alone.

    Shapes: x (b, features), rows sorted by domain, ``counts`` rows of each domain -> (b, features).
    """

    def __init__(
        self,
        num_domains: int,
        features: int,
        *,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(num_domains, features))
        self.bias = nn.Parameter(torch.zeros(num_domains, features))
        self.register_buffer("running_mean", torch.zeros(num_domains, features))
        self.register_buffer("running_var", torch.ones(num_domains, features))

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        x, parts = wide(x), []
        for d, (rows, w, b) in enumerate(
            zip(
                x.split(list(counts)),
                self.weight.unbind(0),
                self.bias.unbind(0),
                strict=True,
            )
        ):
            batch_statistics = self.training and rows.shape[0] > 1
            if rows.shape[0]:  # not len(), which would fix the number of rows in an exported graph
                rows = F.batch_norm(
                    rows,
                    self.running_mean[d],
                    self.running_var[d],
                    w,
                    b,
                    batch_statistics,
                    self.momentum,
                    self.eps,
                )
            parts.append(rows)
        return torch.cat(parts)


class BatchNorm(DomainBatchNorm):
    """Ordinary batch normalisation, with statistics over the rows of all domains together."""

    def __init__(self, features: int, **options: float) -> None:
        super().__init__(1, features, **options)

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return super().forward(x, (sum(counts),))


class NoNorm(nn.Module):
    """Leaves its input as it is."""

    def forward(self, x: Tensor, counts: Sequence[int]) -> Tensor:
        return x
