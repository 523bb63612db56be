"""Encoders fitted on the training part: vocabularies and scales, kept as JSON, that also encode new users and items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from adi_lite.data.chunks import chunks
from adi_lite.data.defects import Report
from adi_lite.data.ids import IdTable
from adi_lite.data.raw_columns import RawCodes, RawNumbers
from adi_lite.data.schema import Column, Feature, Ragged
from adi_lite.data.schema_file import FeatureSpec
from adi_lite.data.side_table import SideTable, read_side
from adi_lite.data.sources import open_frame

MAX_DEVIATIONS = 1e6
"""A dense value further from the mean than this many standard deviations is set to it, so that it stays a float32."""


@dataclass(frozen=True)
class Scaler:
    """How a dense feature is standardised: ``(value - mean) / std``, a missing value becomes 0, which is the mean.

    Attributes:
        mean, std: one number for each place of the vector, from the training rows that have the feature; a std of 1
            where the training values do not differ.
        indicator: whether one more column says that the value is missing: if it is for some training row.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    indicator: bool

    @classmethod
    def fit(cls, values: np.ndarray) -> Scaler:
        """Fit on (rows, width) float64 values of training rows; a missing row is NaN."""
        missing = np.isnan(values).all(1)
        known = values[~missing]
        if not len(known):
            return cls((0.0,) * values.shape[1], (1.0,) * values.shape[1], len(values) > 0)
        mean, std = known.mean(0), known.std(0)
        std = np.where(std > 1e-12 * np.maximum(np.abs(mean), np.finfo(np.float64).tiny), std, 1.0)
        return cls(tuple(map(float, mean)), tuple(map(float, std)), bool(missing.any()))

    @property
    def size(self) -> int:
        return len(self.mean) + self.indicator

    def transform(self, values: np.ndarray) -> np.ndarray:
        """(rows, width) to (rows, size) float32."""
        missing = np.isnan(values).all(1)
        scaled = (np.where(missing[:, None], self.mean, values) - self.mean) / self.std
        scaled = np.clip(scaled, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        return np.concatenate([scaled, missing[:, None]] if self.indicator else [scaled], 1).astype(np.float32)


class IdTexts(Sequence[str]):
    """The first ``count`` of an array of ids, as text that is made when it is asked for."""

    def __init__(self, ids: np.ndarray, count: int) -> None:
        self._ids = ids[:count]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        return tuple(map(str, self._ids[place].tolist())) if isinstance(place, slice) else str(self._ids[place])

    def __iter__(self) -> Iterator[str]:
        for part in chunks(len(self)):
            yield from self[part]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | IdTexts):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None


@dataclass(frozen=True)
class SideEncoder:
    """Encoders of all features of users, or of items.

    Attributes:
        side: "user" or "item".
        specs: the features as the schema has them.
        vocabularies: by table, the text of code 1, 2, …; code 0 is unknown or missing.
        scalers: by dense feature.
        ids: ids of the training part as text, in the order of their rows: id ``i`` has row ``i`` and code ``i + 1``.
        id_feature: whether the id is a feature.
    """

    side: str
    specs: Mapping[str, FeatureSpec]
    vocabularies: Mapping[str, tuple[str, ...]]
    scalers: Mapping[str, Scaler]
    ids: tuple[str, ...] | IdTexts
    id_feature: bool

    @classmethod
    def fit(
        cls,
        side: str,
        specs: Mapping[str, FeatureSpec],
        raw: Mapping[str, RawCodes | RawNumbers],
        ids: Sequence[str],
        id_feature: bool,
        num_domains: int,
    ) -> SideEncoder:
        """Fit on the first ``len(ids)`` rows, which are those of the training part, and on nothing else."""
        tables: dict[str, list[tuple[FeatureSpec, RawCodes]]] = {}
        scalers = {}
        for name, spec in specs.items():
            column = raw[name]
            if isinstance(column, RawNumbers):
                known = len(ids) * (num_domains if spec.per_domain else 1)
                scalers[name] = Scaler.fit(column.values[:known])
            else:
                tables.setdefault(spec.table or name, []).append((spec, column))
        vocabularies = {table: _fit_vocabulary(parts, len(ids), num_domains) for table, parts in tables.items()}
        return cls(side, dict(specs), vocabularies, scalers, tuple(ids), id_feature)

    @property
    def id_column(self) -> str:
        return f"{self.side}_id"

    @cached_property
    def id_codes(self) -> dict[str, int]:
        """Code of each id of the training part."""
        return {text: i + 1 for i, text in enumerate(self.ids)}

    @property
    def features(self) -> tuple[Feature, ...]:
        """The features as models see them."""
        own = [Feature(self.id_column, "categorical", len(self.ids) + 1)] if self.id_feature else []
        for name, spec in self.specs.items():
            table = spec.table or name
            size = self.scalers[name].size if spec.kind == "dense" else len(self.vocabularies[table]) + 1
            own.append(Feature(name, spec.kind, size, spec.per_domain, table if spec.kind != "dense" else ""))
        return tuple(own)

    def transform(
        self, raw: Mapping[str, RawCodes | RawNumbers], id_codes: np.ndarray, num_domains: int
    ) -> dict[str, Column]:
        """Columns of tensors from raw columns and the code of each row's id (rows,)."""
        columns: dict[str, Column] = {self.id_column: torch.from_numpy(id_codes)} if self.id_feature else {}
        for name, spec in self.specs.items():
            column, shape = raw[name], (-1, *((num_domains,) if spec.per_domain else ()))
            if isinstance(column, RawNumbers):
                scaled = self.scalers[name].transform(column.values)
                columns[name] = torch.from_numpy(scaled).reshape(len(id_codes), *shape[1:], scaled.shape[1])
                continue
            codes = self._code_of_text(spec.table or name, column.texts)[column.codes]
            if spec.kind == "bag":
                columns[name] = Ragged.from_pairs(
                    torch.from_numpy(column.slots), torch.from_numpy(codes), column.num_slots
                )
            else:
                dense = np.zeros(column.num_slots, dtype=np.int64)
                dense[column.slots] = codes
                columns[name] = torch.from_numpy(dense).reshape(len(id_codes), *shape[1:])
        return columns

    def _code_of_text(self, table: str, texts: list[str]) -> np.ndarray:
        known = self._codes[table]
        return np.array([known.get(t, 0) for t in texts], dtype=np.int64)

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return {table: {t: i + 1 for i, t in enumerate(words)} for table, words in self.vocabularies.items()}

    def to_dict(self) -> dict:
        return {
            "side": self.side,
            "specs": {name: spec.model_dump(exclude_defaults=True) for name, spec in self.specs.items()},
            "vocabularies": {table: list(words) for table, words in self.vocabularies.items()},
            "scalers": {name: asdict(scaler) for name, scaler in self.scalers.items()},
            "ids": list(self.ids),
            "id_feature": self.id_feature,
        }

    @classmethod
    def from_dict(cls, raw: Mapping) -> SideEncoder:
        return cls(
            side=str(raw["side"]),
            specs={name: FeatureSpec.model_validate(spec) for name, spec in raw["specs"].items()},
            vocabularies={table: tuple(words) for table, words in raw["vocabularies"].items()},
            scalers={
                name: Scaler(tuple(s["mean"]), tuple(s["std"]), bool(s["indicator"]))
                for name, s in raw["scalers"].items()
            },
            ids=tuple(raw["ids"]),
            id_feature=bool(raw["id_feature"]),
        )


def _fit_vocabulary(parts: list[tuple[FeatureSpec, RawCodes]], num_known: int, num_domains: int) -> tuple[str, ...]:
    """Sorted texts that enough of the first ``num_known`` rows have, over all features that share the table."""
    words: set[str] = set()
    for spec, column in parts:
        row = column.slots // num_domains if spec.per_domain else column.slots
        known = row < num_known
        distinct = np.unique(np.stack([row[known], column.codes[known]]), axis=1)
        counts = np.bincount(distinct[1], minlength=len(column.texts))
        words.update(column.texts[i] for i in np.flatnonzero(counts >= spec.min_count))
    return tuple(sorted(words))


@dataclass(frozen=True)
class Encoders:
    """What turns tables into the columns of one data set, fitted on its training part. Plain JSON, no pickle.

    Attributes:
        domains: names in the order of their numbers.
        user, item: encoders of the two sides.
    """

    domains: tuple[str, ...]
    user: SideEncoder
    item: SideEncoder

    def encode_users(self, frame: pd.DataFrame) -> dict[str, Column]:
        """Columns for users, old or new, from a table like the one that the data set was made of.

        A table with one row a user needs no ``user_id``, and row ``i`` of the result is row ``i`` of the frame. A long
        table (with a column ``domain``) needs it, and users come in their order of appearance. Unknown ids and values
        get code 0.

        Raises:
            DataError: a feature's column is missing, or its values are of the wrong kind.
        """
        return self._encode(self.user, frame)

    def encode_items(self, frame: pd.DataFrame) -> dict[str, Column]:
        """Columns for items, as :meth:`encode_users`."""
        return self._encode(self.item, frame)

    def encode_history(self, histories: Iterable[Iterable[str | int]]) -> Ragged:
        """Item rows for lists of item ids, one list a user; items without training records are left out.

        What a model has learnt about past items it has learnt from training items, so the others would say nothing.

        Raises:
            ValueError: an id is neither text nor an integer.
        """
        codes, lengths = [], []
        for past in histories:
            past = list(past)
            if wrong := [i for i in past if not isinstance(i, str | int | np.integer) or isinstance(i, bool)]:
                raise ValueError(f"item ids are text or integers; {wrong[0]!r} is a {type(wrong[0]).__name__}")
            known = [self.item.id_codes[str(i)] - 1 for i in past if str(i) in self.item.id_codes]
            codes += known
            lengths.append(len(known))
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
        return Ragged(torch.tensor(codes, dtype=torch.int64), torch.from_numpy(offsets))

    def _encode(self, encoder: SideEncoder, frame: pd.DataFrame) -> dict[str, Column]:
        report = Report()
        source = open_frame(f"{encoder.side}s", frame, report)
        domains, ids = IdTable("domain", list(self.domains)), IdTable(encoder.side)
        table: SideTable = read_side(source, encoder.side, encoder.specs, ids, domains, report, new_rows=True)
        report.raise_errors()
        row_of = np.arange(table.num_entities)
        raw = {n: c.finish(row_of, table.num_entities, len(self.domains)) for n, c in table.collectors.items()}
        for name, scaler in encoder.scalers.items():
            values = raw[name].values
            if values.shape[1] != len(scaler.mean) and not np.isnan(values).all():
                message = f"holds {values.shape[1]} numbers a row where the training part has {len(scaler.mean)}"
                report.add("error", source.file, name, message, "give as many")
        report.raise_errors()
        known = np.array([*(encoder.id_codes.get(text, 0) for text in ids.codes), 0], dtype=np.int64)
        return encoder.transform(raw, known[table.ids], len(self.domains))

    def to_dict(self) -> dict:
        return {"version": 1, "domains": list(self.domains), "user": self.user.to_dict(), "item": self.item.to_dict()}

    @classmethod
    def from_dict(cls, raw: Mapping) -> Encoders:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: another version.
        """
        if raw.get("version") != 1:
            raise ValueError(f"encoders of version {raw.get('version')!r}; this library reads version 1")
        return cls(tuple(raw["domains"]), SideEncoder.from_dict(raw["user"]), SideEncoder.from_dict(raw["item"]))
