"""Shared embedding layer (Section 4.1.1, Eq. 6, 7): features of all domains to fields of one width."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.data.batches import HISTORY, Bag, Inputs
from adi_lite.data.schema import Feature
from adi_lite.nn.stacked import by_domain

DOMAIN = "domain"
"""Name of the field that holds the domain indicator (paper, Table 1)."""


class Table(nn.Embedding):
    """An embedding table that is read for several fields at a time, by code or by bags of codes."""

    @staticmethod
    def fetch(lookups: Sequence[tuple[Table, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """For each (table, codes): rows (n, dim) among which those of the codes are, and where each code's row is."""
        return [(table.weight, codes) for table, codes in lookups]


Zeros = Callable[..., Tensor]
"""Makes a tensor of zeros of a shape, ``zeros(rows, width)``, where tables shall lie: in memory, as ``torch.zeros``, or on
disk (:class:`adi_lite.training.storage.OnDisk`)."""

MakeTable = Callable[[int, int, float, bool], Table]
"""Makes a table of (rows, width, standard deviation, sparse gradients), as :func:`whole_table` does."""

BLOCK = 2**20
"""Numbers of a table that are drawn at a time, a multiple of 16."""


def whole_table(rows: int, width: int, std: float, sparse: bool, zeros: Zeros = torch.zeros) -> Table:
    """A table with all of its rows, drawn by :func:`draw_rows`."""
    weight = zeros(rows, width)
    draw_rows(weight, slice(0, rows), rows, std)
    return Table.from_pretrained(weight, freeze=False, sparse=sparse)


def draw_rows(weight: Tensor, own: slice, rows: int, std: float) -> None:
    """Fill ``weight`` with the rows ``own`` of ``torch.randn(rows, width) * std``, whose row 0 is zero (code 0, unknown,
    starts neutral). With ``std`` 0 all stay zero, and nothing is drawn.

    All numbers are drawn, a block at a time, and the same as at once: torch makes normal numbers in groups of 16, and
    draws the last 16 anew where the count is no multiple of that, so the last block takes the rest as well.
    """
    if std == 0.0:
        return
    width, flat = weight.shape[1], weight.view(-1)
    first, last, total = own.start * width, own.stop * width, rows * width
    starts = [n * BLOCK for n in range(max(1, total // BLOCK))]
    for start, stop in zip(starts, [*starts[1:], total], strict=True):
        drawn = torch.randn(stop - start)
        a, b = max(start, first), min(stop, last)
        if a < b:
            torch.mul(drawn[a - start : b - start], std, out=flat[a - first : b - first])
    weight[: 1 if own.start == 0 else 0] = 0


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
        table: makes the tables; by default whole and in memory.

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
        table: MakeTable = whole_table,
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
        self.tables = nn.ModuleDict({name: table(size, dim, std, sparse) for name, size in tables.items()})
        self.dense = nn.ModuleDict({module_key(f.name): nn.Linear(f.size, dim) for f in features if f.kind == "dense"})
        self.domain = nn.Embedding.from_pretrained(torch.randn(num_domains, dim) * std, freeze=False)
        self.domain_field, self.reads_history = domain_field, history_items is not None

    @property
    def num_fields(self) -> int:
        return len(self.names)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        asked = [
            (self.tables[module_key(f.table)], inputs.features[f.name], f.kind == "bag")
            for f in self.features
            if f.kind != "dense"
        ]
        if self.reads_history:
            asked.append((self.tables[HISTORY], inputs.features[HISTORY], True))
        found = iter([self._field(*one, *rows) for one, rows in zip(asked, _fetched(asked), strict=True)])
        fields = [
            self.dense[module_key(f.name)](inputs.features[f.name]) if f.kind == "dense" else next(found)
            for f in self.features
        ]
        fields += found  # the history
        if self.domain_field:
            fields.append(by_domain(self.domain.weight, inputs.counts))
        return torch.stack(fields, dim=1), self.domain.weight

    def _field(self, table: Table, value: Tensor | Bag, is_bag: bool, rows: Tensor, place: Tensor) -> Tensor:
        sparse = table.sparse and rows is table.weight
        return self._bag(rows, place, value, sparse) if is_bag else F.embedding(place, rows, sparse=sparse)

    def _bag(self, rows: Tensor, place: Tensor, bag: Bag, sparse: bool) -> Tensor:
        """(b, dim) weighted sums of the rows of b bags, whose codes' rows are at ``place`` (nnz,); an empty bag gives zeros."""
        return F.embedding_bag(
            place,
            rows,
            bag.offsets,
            mode="sum",
            per_sample_weights=bag.weights,
            sparse=sparse,
            include_last_offset=True,
        )


def _fetched(asked: Sequence[tuple[Table, Tensor | Bag, bool]]) -> list[tuple[Tensor, Tensor]]:
    """What all fields read, fetched at once: where tables lie on several processes, an exchange takes its time."""
    lookups = [(table, value.codes if isinstance(value, Bag) else value) for table, value, _ in asked]
    return type(lookups[0][0]).fetch(lookups) if lookups else []


def module_key(name: str) -> str:
    """The name of a feature's or a table's module: a plain "type" or "a.b" is no name that torch would take."""
    return "feature_" + name.replace(".", "/")
