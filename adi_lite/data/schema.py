"""What a multi-domain data set looks like: features, columns, interactions, splits.

Everything is columnar. A user or an item is a *row number*; a feature is one tensor with a value for each row; the
original ids are kept in two arrays. No Python object is made for a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from adi_lite.data.chunks import CHUNK, chunks

if TYPE_CHECKING:
    import pandas as pd

    from adi_lite.data.encoders import Encoders
    from adi_lite.data.schema_file import TableSchema

FeatureKind = Literal["categorical", "bag", "dense"]


@dataclass(frozen=True)
class Feature:
    """One feature of a user or of an item (paper, Table 1).

    Attributes:
        name: unique on its side (user or item).
        kind: ``categorical`` (one code a row), ``bag`` (any number of codes a row) or ``dense`` (``size`` floats a row).
        size: for codes, the number of codes *including* 0, which means unknown or missing; for dense, the width.
        per_domain: the row has one value for each domain (bid price by domain, clicks by domain, ...).
        table: name of the embedding table; features that name the same table share it. Defaults to the feature's name.
        group: heading under which the feature is shown, e.g. a row of Table 1.
    """

    name: str
    kind: FeatureKind
    size: int
    per_domain: bool = False
    table: str = ""
    group: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("categorical", "bag", "dense"):
            raise ValueError(f"feature {self.name!r}: kind {self.kind!r} is not one of categorical, bag, dense")
        if self.size < 1:
            raise ValueError(f"feature {self.name!r}: size must be at least 1, got {self.size}")
        if not self.table:
            object.__setattr__(self, "table", self.name)


@dataclass(frozen=True)
class Schema:
    """The domains by name, and the features of both sides.

    ``history`` says that a user's past items are a user feature: the model reads them as a bag of item ids, from
    :attr:`MultiDomainDataset.history`, with the item to be predicted left out.
    """

    domains: tuple[str, ...]
    user: tuple[Feature, ...]
    item: tuple[Feature, ...]
    history: bool = True

    def __post_init__(self) -> None:
        if not self.domains:
            raise ValueError("a schema needs at least one domain")
        for side, names in (
            ("domain", list(self.domains)),
            *((s, [f.name for f in getattr(self, s)]) for s in ("user", "item")),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{side} names must be unique; these occur more than once: {', '.join(twice)}")
        if self.history and any(f.name == "history" for f in self.user):
            raise ValueError("a user feature may not be called 'history' beside the history of items; rename it")

    @property
    def num_domains(self) -> int:
        return len(self.domains)

    def domain_index(self, name: str) -> int:
        """Number of the domain called ``name``."""
        try:
            return self.domains.index(name)
        except ValueError:
            raise ValueError(f"unknown domain {name!r}; the domains are {', '.join(self.domains)}") from None

    def to_dict(self) -> dict:
        return {
            "domains": list(self.domains),
            "history": self.history,
            **{side: [vars(f) for f in getattr(self, side)] for side in ("user", "item")},
        }

    @classmethod
    def from_dict(cls, raw: Mapping) -> Schema:
        return cls(
            domains=tuple(raw["domains"]),
            history=bool(raw["history"]),
            user=tuple(Feature(**f) for f in raw["user"]),
            item=tuple(Feature(**f) for f in raw["item"]),
        )


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row ``i`` is ``values[offsets[i]:offsets[i + 1]]``."""

    values: Tensor  # (nnz,)
    offsets: Tensor  # (rows + 1,) int64

    @classmethod
    def from_pairs(cls, rows: Tensor, values: Tensor, num_rows: int) -> Ragged:
        """Group ``values`` by ``rows``, in their order of appearance."""
        order = torch.argsort(rows, stable=True)
        offsets = torch.zeros(num_rows + 1, dtype=torch.int64)
        torch.cumsum(torch.bincount(rows, minlength=num_rows), 0, out=offsets[1:])
        return cls(values[order], offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> Tensor:
        return self.offsets[1:] - self.offsets[:-1]

    def row(self, i: int) -> Tensor:
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def take(self, rows: Tensor) -> Ragged:
        """The rows asked for, in that order, without a loop."""
        start, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        return self.slices(start, lengths)

    def slices(self, start: Tensor, lengths: Tensor) -> Ragged:
        """One new row for each ``values[start[i] : start[i] + lengths[i]]``."""
        offsets = torch.zeros(len(lengths) + 1, dtype=torch.int64)
        torch.cumsum(lengths, 0, out=offsets[1:])
        shift = torch.repeat_interleave(start - offsets[:-1], lengths)
        return Ragged(self.values[torch.arange(int(offsets[-1])) + shift], offsets)

    def row_of_value(self) -> Tensor:
        """(nnz,) the row that each value belongs to."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths())


Column = Tensor | Ragged
"""Categorical ``(rows,)`` or per-domain ``(rows, D)`` int64; dense ``(rows, size)`` or ``(rows, D, size)`` float32;
bag: a :class:`Ragged` with ``rows`` rows, or ``rows * D`` rows (row ``r`` in domain ``d`` is ``r * D + d``)."""


@dataclass(frozen=True)
class Interactions:
    """Positive records: who took what, where, and perhaps when. Four columns of one length ``n``."""

    user: Tensor  # (n,) int64 row of the user
    item: Tensor  # (n,) int64 row of the item
    domain: Tensor  # (n,) int64
    timestamp: Tensor | None = None  # (n,) int64 seconds

    def __post_init__(self) -> None:
        sizes = {k: len(v) for k, v in vars(self).items() if v is not None}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"interaction columns differ in length: {sizes}")

    def __len__(self) -> int:
        return len(self.user)

    def take(self, index: Tensor) -> Interactions:
        """The records that ``index`` (row numbers, or a mask) picks."""
        return Interactions(*(None if c is None else c[index] for c in vars(self).values()))

    def chunks(self) -> Iterator[Interactions]:
        """The records in pieces that share their memory, for a pass over columns that are larger than memory."""
        for part in chunks(len(self)):
            yield Interactions(*(None if c is None else c[part] for c in vars(self).values()))

    @staticmethod
    def concat(parts: list[Interactions]) -> Interactions:
        columns = [[getattr(p, name) for p in parts] for name in ("user", "item", "domain", "timestamp")]
        return Interactions(*(None if any(c is None for c in cs) else torch.cat(cs) for cs in columns))

    @staticmethod
    def empty() -> Interactions:
        return Interactions(*(torch.zeros(0, dtype=torch.int64) for _ in range(3)))


@dataclass(frozen=True)
class Candidates:
    """For some queries (user, domain), a fixed list of items to rank. One list a query, all of one length."""

    user: Tensor  # (q,)
    domain: Tensor  # (q,)
    items: Tensor  # (q, c) rows of items
    source: str = ""  # where the lists come from: "official", "drawn, seed 0", ...

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class Snapshot:
    """What is known at the beginning of a split: the columns of the same rows of users and items, at that moment.

    ``users``, ``items``, ``catalogues`` and ``history`` are as in :class:`MultiDomainDataset`.
    """

    users: Mapping[str, Column]
    items: Mapping[str, Column]
    catalogues: tuple[Tensor, ...]
    history: Ragged | None = None


@dataclass(frozen=True)
class Period:
    """A part of the training time, from ``begins`` (seconds, as timestamps are) to the next period, and what was known
    when it began. Its catalogues hold the items of its own records as well: positives and negatives must exist there."""

    begins: int
    known: Snapshot


@dataclass(frozen=True)
class Stamp:
    """What was found out about a data set when it was written: it is whole and sound, and these are its hashes.

    Attributes:
        ids, records: what :mod:`adi_lite.data.fingerprint` says of it.
    """

    ids: str
    records: str


@dataclass(frozen=True)
class MultiDomainDataset:
    """Users, items and interactions of D domains.

    Attributes:
        name: short name, shown in tables.
        schema: domains and features.
        user_ids, item_ids: the original id of each row (numpy arrays of str or int).
        users, items: feature columns by name; see :data:`Column`.
        train, valid, test: interactions of each split. ``valid`` may be empty.
        catalogues: for each domain, the sorted rows of the items that it can show.
        candidates: by split name ("valid", "test"), candidate lists where the protocol has them.
        history: for each user row, the item rows of the past that models may read (by default the training items).
        notes: facts about how the data came to be, printed with every table.
        encoders: for data sets made of tables, what encodes new users and items in the same way
            (:class:`adi_lite.data.encoders.Encoders`).
        snapshots: by split name, the columns at the beginning of that split, where they change with time; the data
            set's own columns are then those at the beginning of the training split. See :meth:`as_of`.
        periods: the training time cut into periods, in order of time, where a record shall be learnt from what was known
            at the beginning of its own period; see :meth:`train_periods`.
        stamp: of a packed data set, which was checked when it was written and is not read through to be checked again.
    """

    name: str
    schema: Schema
    user_ids: np.ndarray
    item_ids: np.ndarray
    users: Mapping[str, Column]
    items: Mapping[str, Column]
    train: Interactions
    valid: Interactions
    test: Interactions
    catalogues: tuple[Tensor, ...]
    candidates: Mapping[str, Candidates] = field(default_factory=dict)
    history: Ragged | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    encoders: Encoders | None = None
    snapshots: Mapping[str, Snapshot] = field(default_factory=dict)
    periods: tuple[Period, ...] = ()
    stamp: Stamp | None = None

    def __post_init__(self) -> None:
        if self.stamp is None:
            _check(self)
        if self.history is None and self.schema.history:
            object.__setattr__(self, "history", Ragged.from_pairs(self.train.user, self.train.item, self.num_users))

    @classmethod
    def from_frames(
        cls,
        interactions: pd.DataFrame,
        users: pd.DataFrame | None = None,
        items: pd.DataFrame | None = None,
        schema: TableSchema | None = None,
        **options,
    ) -> MultiDomainDataset:
        """A data set from your own tables; see :func:`adi_lite.data.tables.dataset_from_frames`."""
        from adi_lite.data.tables import dataset_from_frames

        return dataset_from_frames(interactions, users, items, schema, **options)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    @property
    def num_domains(self) -> int:
        return self.schema.num_domains

    @property
    def domains(self) -> tuple[str, ...]:
        return self.schema.domains

    def split(self, name: str) -> Interactions:
        if name not in ("train", "valid", "test"):
            raise ValueError(f"unknown split {name!r}; the splits are train, valid, test")
        return getattr(self, name)

    def as_of(self, split: str) -> MultiDomainDataset:
        """The data set with the columns that are known when ``split`` begins: what a model reads to score that split.

        Itself where nothing changes with time (the split has no snapshot).
        """
        self.split(split)
        if split not in self.snapshots:
            return self
        return self.replace(**vars(self.snapshots[split]), snapshots={}, periods=())

    def train_periods(self) -> list[MultiDomainDataset]:
        """The data set as training reads it: for each period with records, its records and what was known as it began.

        Itself alone where training time is not cut into periods.
        """
        if not self.periods:
            return [self]
        begins = torch.tensor([p.begins for p in self.periods])
        period = torch.searchsorted(begins, self.train.timestamp, right=True) - 1
        parts = []
        for n, each in enumerate(self.periods):
            records = self.train.take(period == n)
            if len(records):
                parts.append(self.replace(**vars(each.known), train=records, snapshots={}, periods=()))
        return parts

    def replace(self, **changes) -> MultiDomainDataset:
        """A copy with other parts, checked; a stamp does not hold for it."""
        return replace(self, **{"stamp": None, **changes})

    def some_of(self, split: str, rows: Tensor) -> MultiDomainDataset:
        """A copy with some records of a split. Part of what has been checked is not checked again, which on a packed data
        set would read all of its records.
        """
        part, records = copy(self), self.split(split).take(rows)
        object.__setattr__(part, split, records)
        object.__setattr__(part, "stamp", None)
        return part

    def only_domain(self, domain: int) -> MultiDomainDataset:
        """The same rows and ids, with the records of one domain only (for models trained one domain at a time).

        The domain keeps its number, so that results line up; the catalogues of the others stay as they are. Histories
        stay whole: they are features, and all methods share the same input (Section 5.1.4), in training as in serving.
        The records are copied, into memory.
        """
        splits = {s: self.split(s).take(self.split(s).domain == domain) for s in ("train", "valid", "test")}
        return self.replace(**splits, name=f"{self.name}/{self.domains[domain]}")


def _check(data: MultiDomainDataset) -> None:
    """Refuse a data set whose parts contradict each other, naming the part."""
    for split in ("train", "valid", "test"):
        part = getattr(data, split)
        _in_range(f"{split} users", part.user, len(data.user_ids))
        _in_range(f"{split} items", part.item, len(data.item_ids))
        _in_range(f"{split} domains", part.domain, data.schema.num_domains)
    _check_state(data, data, "")
    for split, snapshot in data.snapshots.items():
        if split not in ("train", "valid", "test"):
            raise ValueError(f"a snapshot of {split!r}: the splits are train, valid, test")
        _check_snapshot(data, snapshot, f"snapshot of {split}: ")
    for n, period in enumerate(data.periods):
        _check_snapshot(data, period.known, f"training period {n}: ")
    if data.periods:
        _check_begins(data.train, [p.begins for p in data.periods])


def _check_begins(train: Interactions, begins: list[int]) -> None:
    if train.timestamp is None:
        raise ValueError("training periods need the timestamps of the training records")
    if sorted(set(begins)) != begins:
        raise ValueError(f"training periods must be in order of time, each begin once, got {begins}")
    if len(train) and int(train.timestamp.min()) < begins[0]:
        raise ValueError(
            f"a training record at {int(train.timestamp.min())} lies before the first period, which begins at {begins[0]}"
        )


def _check_snapshot(data: MultiDomainDataset, snapshot: Snapshot, where: str) -> None:
    _check_state(data, snapshot, where)
    if data.schema.history != (snapshot.history is not None):
        raise ValueError(f"{where}a history is needed exactly where the schema has history=True")
    if snapshot.history is not None:
        if len(snapshot.history) != len(data.user_ids):
            raise ValueError(f"{where}history has {len(snapshot.history)} rows for {len(data.user_ids)} users")
        _in_range(f"{where}history", snapshot.history.values, len(data.item_ids))


def _check_state(data: MultiDomainDataset, state: MultiDomainDataset | Snapshot, where: str) -> None:
    """Check catalogues and columns: the data set's own, or those of a snapshot, which ``where`` names."""
    num_domains = data.schema.num_domains
    n = {"user": len(data.user_ids), "item": len(data.item_ids)}
    if len(state.catalogues) != num_domains:
        raise ValueError(f"{where}{len(state.catalogues)} catalogues for {num_domains} domains")
    for d, catalogue in enumerate(state.catalogues):
        name = data.schema.domains[d]
        if len(catalogue) == 0:
            raise ValueError(f"{where}domain {name!r} is empty: it has no item to retrieve")
        if len(catalogue) > 1 and not bool((catalogue[1:] > catalogue[:-1]).all()):
            raise ValueError(f"{where}catalogue of domain {name!r} must be sorted, without duplicates")
        _in_range(f"{where}catalogue of domain {name!r}", catalogue, n["item"])
    for side, columns in (("user", state.users), ("item", state.items)):
        for feature in getattr(data.schema, side):
            if feature.name not in columns:
                raise ValueError(f"{where}{side} feature {feature.name!r} is in the schema but has no column")
            _check_column(f"{where}{side}", feature, columns[feature.name], n[side], num_domains)


def _check_column(side: str, feature: Feature, column: Column, rows: int, num_domains: int) -> None:
    where = f"{side} feature {feature.name!r}"
    if feature.kind == "bag":
        want = rows * num_domains if feature.per_domain else rows
        if not isinstance(column, Ragged) or len(column) != want:
            raise ValueError(f"{where}: a bag needs a Ragged of {want} rows")
        _in_range(where, column.values, feature.size)
        return
    want_shape = (
        rows,
        *((num_domains,) if feature.per_domain else ()),
        *((feature.size,) if feature.kind == "dense" else ()),
    )
    if not isinstance(column, Tensor) or tuple(column.shape) != want_shape:
        got = tuple(column.shape) if isinstance(column, Tensor) else type(column).__name__
        raise ValueError(f"{where}: expected shape {want_shape}, got {got}")
    if feature.kind == "categorical":
        _in_range(where, column, feature.size)
    elif not all(bool(torch.isfinite(part).all()) for part in column.split(CHUNK)):
        bad = int((~torch.isfinite(column)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"{where}: NaN or infinity, first at row {bad}; fill or drop missing values before")


def _in_range(where: str, values: Tensor, size: int) -> None:
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= size):
        raise ValueError(f"{where}: values must lie in 0…{size - 1}, found {int(values.min())}…{int(values.max())}")
