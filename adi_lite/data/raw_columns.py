"""Feature columns as they were read, before anything is fitted: values of some rows, gathered block by block.

A value belongs to an entity (a user or an item) and perhaps to a domain. Values of categories are text: 7, "7" and
``True`` become "7", "7" and "True"; an empty text is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adi_lite.data.defects import Report
from adi_lite.data.ids import type_in_words
from adi_lite.data.schema_file import FeatureSpec

MAX_MAGNITUDE = 1e30
"""Numbers larger than this are refused: their squares would overflow."""
NUMBER = re.compile(r"[ \t]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t]*")
_NOT_FINITE = re.compile(r"[ \t]*[+-]?inf(inity)?[ \t]*", re.IGNORECASE)
MISSING_NUMBERS = frozenset({"", "nan", "na", "n/a", "<na>", "null", "none"})
"""Texts, in any case, that stand for a missing number. In a category, only an empty text is missing."""


class Place(NamedTuple):
    """Where a block's values come from and whom they belong to."""

    file: str
    column: str
    rows: np.ndarray  # (n,) row numbers, for messages
    entity: np.ndarray  # (n,) number of the user or item
    domain: np.ndarray | None  # (n,) or None for a feature without domains

    def pick(self, index: np.ndarray) -> Place:
        domain = None if self.domain is None else self.domain[index]
        return self._replace(rows=self.rows[index], entity=self.entity[index], domain=domain)


@dataclass(frozen=True)
class RawCodes:
    """Categories: value ``codes[i]`` (a number in ``texts``) stands in slot ``slots[i]``; a bag has several a slot."""

    slots: np.ndarray
    codes: np.ndarray
    texts: list[str]
    num_slots: int


@dataclass(frozen=True)
class RawNumbers:
    """Numbers (slots, width) float64; a missing one is a row of NaN."""

    values: np.ndarray


class Collector:
    """Gathers the values of one feature.

    Args:
        spec: the feature.
        texts: numbers of the texts seen so far; features that share a table share it.
        report: takes the defects.
    """

    def __init__(self, spec: FeatureSpec, texts: dict[str, int], report: Report) -> None:
        self.spec, self.texts, self.report = spec, texts, report
        self.width = 0  # of a dense feature; 0 until a value was seen
        self._entity: list[np.ndarray] = []
        self._domain: list[np.ndarray] = []
        self._values: list[np.ndarray] = []

    def add(self, array: pa.Array, place: Place) -> None:
        """Add the (n,) values of a block."""
        if self.spec.kind == "dense":
            values, index = self._numbers(array, place)
        elif self.spec.kind == "bag":
            values, index = self._bag(array, place)
        else:
            values, index = self._codes(array, place)
        self._values.append(values)
        self._entity.append(place.entity[index])
        if place.domain is not None:
            self._domain.append(place.domain[index])

    def finish(self, row_of: np.ndarray, num_rows: int, num_domains: int) -> RawCodes | RawNumbers:
        """All values, entity ``e`` in row ``row_of[e]``; a per-domain value in slot ``row * D + domain``."""
        slots = row_of[np.concatenate([np.zeros(0, dtype=np.int64), *self._entity])]
        if self.spec.per_domain:
            slots = slots * num_domains + np.concatenate([np.zeros(0, dtype=np.int64), *self._domain])
        num_slots = num_rows * num_domains if self.spec.per_domain else num_rows
        if self.spec.kind != "dense":
            codes = np.concatenate([np.zeros(0, dtype=np.int64), *self._values])
            return RawCodes(slots, codes, list(self.texts), num_slots)
        values = np.full((num_slots, max(self.width, 1)), np.nan)
        if len(slots):
            values[slots] = np.concatenate([v for v in self._values if len(v)])
        return RawNumbers(values)

    # Each of the following returns the present values and which of the n rows they belong to.

    def _codes(self, array: pa.Array, place: Place) -> tuple[np.ndarray, np.ndarray]:
        codes = self._encode(self._text(array, place))
        present = np.flatnonzero(codes >= 0)
        return codes[present], present

    def _bag(self, array: pa.Array, place: Place) -> tuple[np.ndarray, np.ndarray]:
        if pa.types.is_string(array.type):
            array = pc.split_pattern(array, self.spec.separator)
        elif not pa.types.is_list(array.type):
            if not pa.types.is_null(array.type):
                self._refuse(array, place, "lists", "write a list for each row, or call it categorical in the schema")
            return _NOTHING
        index = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
        codes = self._encode(self._text(pc.list_flatten(array), place.pick(index)))
        present = codes >= 0
        return codes[present], index[present]

    def _text(self, array: pa.Array, place: Place) -> pa.Array:
        t, kind = pa.types, array.type
        if t.is_string(kind):
            return array
        if t.is_boolean(kind):
            return pc.if_else(array, "True", "False")
        if t.is_floating(kind):
            values = array.to_numpy(zero_copy_only=False).astype(np.float64)
            whole = (values == np.floor(values)) & (np.abs(values) <= 2**53)
            if (bad := ~whole & ~np.isnan(values)).any():
                message = f"{values[bad][0]!r} is not a category"
                remedy = "call the feature dense in the schema, or round the values to integers"
                self.report.add("error", place.file, place.column, message, remedy, place.rows[bad], kind="category")
            array = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
        elif not (
            t.is_integer(kind) or t.is_decimal(kind) or t.is_date(kind) or t.is_timestamp(kind) or t.is_null(kind)
        ):
            self._refuse(array, place, "categories", "write strings, integers or booleans, or leave the column out")
            return pa.nulls(len(array), pa.string())
        return array.cast(pa.string())

    def _encode(self, array: pa.Array) -> np.ndarray:
        """(n,) numbers of the texts, -1 for a missing or empty one."""
        encoded = array.dictionary_encode()
        texts = self.texts
        codes = [texts.setdefault(t, len(texts)) if t else -1 for t in encoded.dictionary.to_pylist()]
        local = encoded.indices.fill_null(len(codes)).to_numpy(zero_copy_only=False)
        return np.array([*codes, -1], dtype=np.int64)[local]

    def _numbers(self, array: pa.Array, place: Place) -> tuple[np.ndarray, np.ndarray]:
        if pa.types.is_list(array.type):
            return self._vectors(array, place)
        if self.width > 1:
            message, remedy = "holds a number where other rows have lists", "write lists of one length everywhere"
            self.report.add("error", place.file, place.column, message, remedy, place.rows[array.is_valid()])
            return _no_numbers(self.width)
        self.width = 1
        values = self._floats(array, place)
        present = np.flatnonzero(~np.isnan(values))
        return values[present, None], present

    def _vectors(self, array: pa.Array, place: Place) -> tuple[np.ndarray, np.ndarray]:
        lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
        if not self.width and lengths.any():
            self.width = int(lengths[lengths > 0][0])
        if (bad := (lengths > 0) & (lengths != self.width)).any():
            message, remedy = f"a list of {lengths[bad][0]} numbers where others have {self.width}", "use one length"
            self.report.add("error", place.file, place.column, message, remedy, place.rows[bad], kind="length")
        index = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
        flat = self._floats(pc.list_flatten(array), place.pick(index))
        if (gaps := np.isnan(flat)).any():
            message, remedy = "a number of the list is missing", "fill it, or leave out the whole list"
            self.report.add("error", place.file, place.column, message, remedy, np.unique(place.rows[index[gaps]]))
        good = np.flatnonzero((lengths == self.width) & (lengths > 0))
        keep = np.isin(index, good)
        return flat[keep].reshape(-1, max(self.width, 1)), good

    def _floats(self, array: pa.Array, place: Place) -> np.ndarray:
        """(n,) float64, NaN where there is no number; what is neither a number nor missing is reported."""
        t, kind = pa.types, array.type
        if t.is_string(kind):
            values = self._parse(array, place)
        elif t.is_boolean(kind):
            values = array.cast(pa.int8()).to_numpy(zero_copy_only=False).astype(np.float64)
        elif t.is_integer(kind) or t.is_floating(kind) or t.is_null(kind) or t.is_decimal(kind):
            values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
            written = np.isnan(values) & array.is_valid().to_numpy(zero_copy_only=False)
            if written.any():
                message, remedy = "is NaN, which is read as missing", "write null where a number is missing"
                self.report.add("warning", place.file, place.column, message, remedy, place.rows[written])
        else:
            self._refuse(array, place, "numbers", "write numbers, or leave the column out of the schema")
            return np.full(len(array), np.nan)
        far = np.abs(values) > MAX_MAGNITUDE
        for bad, message in (
            (np.isinf(values), "is infinite"),
            (far & np.isfinite(values), f"is larger than {MAX_MAGNITUDE:g}"),
        ):
            if bad.any():
                remedy = "write the right number, or nothing where it is missing"
                self.report.add("error", place.file, place.column, message, remedy, place.rows[bad])
        return np.where(far, np.nan, values)

    def _parse(self, array: pa.Array, place: Place) -> np.ndarray:
        encoded = array.dictionary_encode()
        texts = encoded.dictionary.to_pylist()
        kinds = np.array([_kind_of(text) for text in texts] + ["missing"])
        numbers = np.array(
            [float(t) if k != "missing" and k != "text" else np.nan for t, k in zip(texts, kinds, strict=False)]
            + [np.nan]
        )
        local = encoded.indices.fill_null(len(texts)).to_numpy(zero_copy_only=False)
        if (bad := kinds[local] == "text").any():
            message = f"{texts[local[bad][0]][:40]!r} is not a number"
            remedy = "write a number, or nothing where it is missing, or call the column categorical in schema.yaml"
            self.report.add("error", place.file, place.column, message, remedy, place.rows[bad], kind="not a number")
        return numbers[local]

    def _refuse(self, array: pa.Array, place: Place, wanted: str, remedy: str) -> None:
        message = f"holds {type_in_words(array.type)}, not {wanted}"
        self.report.add("error", place.file, place.column, message, remedy)


def _kind_of(text: str) -> str:
    if NUMBER.fullmatch(text) or _NOT_FINITE.fullmatch(text):
        return "number"
    return "missing" if text.strip().casefold() in MISSING_NUMBERS else "text"


_NOTHING = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def _no_numbers(width: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((0, width)), _NOTHING[1]
