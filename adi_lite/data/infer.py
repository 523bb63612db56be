"""Guess the schema of tables whose owner wrote none. The guess is meant to be printed, read and corrected."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pyarrow as pa

from adi_lite.data.defects import Report
from adi_lite.data.ids import is_date, type_in_words
from adi_lite.data.raw_columns import MISSING_NUMBERS, NUMBER
from adi_lite.data.schema import FeatureKind
from adi_lite.data.schema_file import FeatureSpec
from adi_lite.data.side_table import DOMAIN, RESERVED, feature_columns
from adi_lite.data.sources import Source

SEPARATOR = "|"
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")


def infer_side(source: Source, side: str, report: Report) -> dict[str, FeatureSpec]:
    """The features of a users' or an items' table.

    By type: floats and decimals are dense, lists of floats too; other lists are bags; text, integers and booleans are
    categorical; anything else is left out with a warning. In CSV, where all is text: numbers of which one has a decimal
    point are dense, columns with a ``|`` are bags, dates are left out, all others are categorical. Columns ``name@domain``, and all columns
    of a table with a column ``domain``, are per domain.
    """
    columns = feature_columns(source, side)
    kind_of = (
        _kinds_of_text(source, [c.column for c in columns], report) if source.is_text else _kind_of_type(source, report)
    )
    kinds: dict[str, set[FeatureKind]] = {}
    forms: dict[str, set[bool]] = {}
    for column in columns:
        if (kind := kind_of(column.column)) is not None:
            kinds.setdefault(column.feature, set()).add(kind)
            forms.setdefault(column.feature, set()).add(column.domain is not None)
    specs = {}
    for name, found in kinds.items():
        if not name or "@" in name or len(name) > 256 or name in RESERVED[side]:
            message, remedy = f"{name!r} is no name for a feature, and is left out", "rename the column"
            report.add("warning", source.file, name, message, remedy)
        elif len(forms[name]) > 1:
            message = f"there is a column {name!r} and a column {name + '@…'!r}"
            report.add("error", source.file, name, message, "rename one of them")
        elif len(found) > 1 and found != {"categorical", "dense"}:
            message = f"its columns for domains are of different kinds: {', '.join(sorted(found))}"
            report.add("error", source.file, name, message, "give them one type, or say the kind in schema.yaml")
        else:
            kind = "dense" if "dense" in found else next(iter(found))
            specs[name] = FeatureSpec(kind=kind, per_domain=True in forms[name] or source.has(DOMAIN))
    return specs


def _kind_of_type(source: Source, report: Report) -> Callable[[str], FeatureKind | None]:
    def kind_of(column: str) -> FeatureKind | None:
        t, kind = pa.types, source.types[column]
        inner = kind.value_type if t.is_list(kind) else kind
        if t.is_null(inner):
            message, remedy = "has no value at all and is left out", "fill it, or ignore this"
            report.add("warning", source.file, column, message, remedy)
            return None
        if t.is_floating(inner) or t.is_decimal(inner):
            return "dense"
        if t.is_string(inner) or t.is_integer(inner) or t.is_boolean(inner):
            return "bag" if t.is_list(kind) else "categorical"
        report.add("warning", source.file, column, *_no_feature(type_in_words(kind)))
        return None

    return kind_of


def _kinds_of_text(source: Source, columns: list[str], report: Report) -> Callable[[str], FeatureKind | None]:
    counts: dict[str, Counter] = {c: Counter() for c in columns}
    for block in source.read(columns, Report()) if columns else ():  # defects are reported by the reading that follows
        for column in columns:
            for text in block.columns[column].unique().drop_null().to_pylist():
                counts[column][_shape_of_text(text)] += 1

    def kind_of(column: str) -> FeatureKind | None:
        seen = counts[column]
        numbers, words = seen["integer"] + seen["decimal"], seen["text"] + seen["list"] + seen["date"]
        if not numbers + words:
            message, remedy = "has no value at all and is left out", "fill it, or ignore this"
            report.add("warning", source.file, column, message, remedy)
            return None
        if seen["decimal"] and words <= seen["decimal"]:  # a few words among numbers are mistakes, reported when read
            return "dense"
        if seen["date"] == numbers + words:
            report.add("warning", source.file, column, *_no_feature("dates"))
            return None
        return "bag" if seen["list"] else "categorical"

    return kind_of


def _shape_of_text(text: str) -> str:
    if _INTEGER.fullmatch(text):
        return "integer"
    if NUMBER.fullmatch(text) or text.strip().casefold() in ("inf", "-inf", "+inf", "infinity", "-infinity"):
        return "decimal"
    if text.strip().casefold() in MISSING_NUMBERS:
        return "missing"
    if is_date(text):
        return "date"
    return "list" if SEPARATOR in text else "text"


def _no_feature(what: str) -> tuple[str, str]:
    message = f"holds {what}, which are no feature, and is left out"
    return message, "write a number, such as an age in days, or call it categorical in schema.yaml"
