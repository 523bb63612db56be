"""Shared embedding layer (Section 4.1.1, Eq. 6, 7): features of all domains to fields of one width."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.data.batches import HISTORY, Bag, Inputs
from adi_lite.data.schema import Feature
from adi_lite.nn.stacked import by_domain

DOMAIN = "domain"
"""Name of the field that holds the domain indicator (paper, Table 1)."""


class Table(nn.Embedding):
    """An embedding table that also sums the weighted rows of bags."""

    def bag(self, bag: Bag) -> Tensor:
        """(b, dim) for a bag of b rows; an empty row gives zeros."""
        return F.embedding_bag(
            bag.codes,
            self.weight,
            bag.offsets,
            mode="sum",
            per_sample_weights=bag.weights,
            sparse=self.sparse,
            include_last_offset=True,
        )


class FeatureEmbedding(nn.Module):
    """Embeds the features of one side, one field each, for all domains with the same tables.

    A categorical feature is looked up, a bag is averaged, a dense feature goes through a linear layer of its own. The
    domain indicator may be one more field.

    Args:
        features: features of this side.
        num_domains: number of domains.
        dim: width e of a field.
        history_items: number of items, when users are described by their past items as well; the history has a table
            of its own, apart from the item tower's.
        domain_field: whether the domain indicator is a field.
        sparse: sparse gradients, for optimizers that touch only the rows of a batch.
        std: standard deviation of the initial embeddings.

    Shapes: inputs of b rows -> fields (b, f, e) in the order of ``names``, and f_domain (D, e), the embedded indicator of
    each domain.
    """

    def __init__(
        self,
        features: tuple[Feature, ...],
        num_domains: int,
        dim: int,
        *,
        history_items: int | None = None,
        domain_field: bool = True,
        sparse: bool = False,
        std: float = 0.1,
    ) -> None:
        super().__init__()
        self.features, self.dim = features, dim
        tables = {}
        for feature in features:
            if feature.kind != "dense":
                key = module_key(feature.table)
                tables[key] = max(feature.size, tables.get(key, 0))
        if history_items is not None:
            tables[HISTORY] = history_items + 1
        self.names = [f.name for f in features] + [HISTORY] * (history_items is not None) + [DOMAIN] * domain_field
        if not self.names:
            raise ValueError("a tower needs at least one field: a feature, the history, or the domain indicator")
        self.tables = nn.ModuleDict({name: _table(size, dim, std, sparse) for name, size in tables.items()})
        self.dense = nn.ModuleDict({module_key(f.name): nn.Linear(f.size, dim) for f in features if f.kind == "dense"})
        self.domain = nn.Embedding.from_pretrained(torch.randn(num_domains, dim) * std, freeze=False)
        self.domain_field, self.reads_history = domain_field, history_items is not None

    @property
    def num_fields(self) -> int:
        return len(self.names)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        fields = [self._field(f, inputs) for f in self.features]
        if self.reads_history:
            fields.append(self._bag(HISTORY, inputs, HISTORY))
        if self.domain_field:
            fields.append(by_domain(self.domain.weight, inputs.counts))
        return torch.stack(fields, dim=1), self.domain.weight

    def _field(self, feature: Feature, inputs: Inputs) -> Tensor:
        if feature.kind == "dense":
            return self.dense[module_key(feature.name)](inputs.features[feature.name])
        if feature.kind == "bag":
            return self._bag(feature.name, inputs, module_key(feature.table))
        return self.tables[module_key(feature.table)](inputs.features[feature.name])

    def _bag(self, name: str, inputs: Inputs, table: str) -> Tensor:
        return self.tables[table].bag(inputs.features[name])


def module_key(name: str) -> str:
    """The name of a feature's or a table's module: a plain "type" or "a.b" is no name that torch would take."""
    return "feature_" + name.replace(".", "/")


def _table(size: int, dim: int, std: float, sparse: bool) -> Table:
    weight = torch.randn(size, dim) * std
    weight[0] = 0  # code 0, unknown, starts neutral
    return Table.from_pretrained(weight, freeze=False, sparse=sparse)
