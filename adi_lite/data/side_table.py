"""Read the users' or the items' table: which column holds which feature, whose row it is, and where an item is shown.

A per-domain feature is written in one of two ways. Wide: one row an item and a column ``price@shop_a`` for each domain.
Long: one row for each item and domain, named in a column ``domain``; then every feature has a value for each domain.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adi_lite.data.defects import Report
from adi_lite.data.ids import IdTable, type_in_words
from adi_lite.data.raw_columns import Collector, Place
from adi_lite.data.schema_file import ITEM_COLUMNS, USER_COLUMNS, FeatureSpec
from adi_lite.data.sources import Block, Source

DOMAIN = "domain"
"""Column that makes a table long."""
DOMAINS = "domains"
"""Column of a wide items' table: the list of domains that may show the item."""
RESERVED = {"user": USER_COLUMNS, "item": ITEM_COLUMNS}


class FeatureColumn(NamedTuple):
    """A column of the file and the feature that it holds: for all domains (None), or for one of them by name."""

    column: str
    feature: str
    domain: str | None


@dataclass
class SideTable:
    """What was read of the table.

    Attributes:
        collectors: values by feature.
        num_entities: number of distinct users or items that values may belong to.
        ids: (num_entities,) number of each entity's id, -1 where it has none.
        listed: (n,) entities that have a row, ascending.
        shown_item, shown_domain: (m,) pairs that the table names as shown.
    """

    collectors: dict[str, Collector]
    num_entities: int = 0
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    listed: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shown_item: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    shown_domain: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def feature_columns(source: Source, side: str) -> list[FeatureColumn]:
    """The columns that may hold features, in the order of the file."""
    named = [n for n in source.types if n and n not in RESERVED[side] and not n.startswith("__index_level_")]
    split = [(n, *n.rsplit("@", 1)) if "@" in n else (n, n, None) for n in named]
    return [FeatureColumn(*parts) for parts in split]


def new_collectors(specs: Mapping[str, FeatureSpec], report: Report) -> dict[str, Collector]:
    """An empty collector for each feature; those that share a table share the numbers of its texts."""
    texts: dict[str, dict[str, int]] = {}
    return {name: Collector(spec, texts.setdefault(spec.table or name, {}), report) for name, spec in specs.items()}


def read_side(
    source: Source,
    side: str,
    specs: Mapping[str, FeatureSpec],
    ids: IdTable,
    domains: IdTable,
    report: Report,
    *,
    new_rows: bool = False,
) -> SideTable:
    """Read the table block by block; every defect goes to ``report``.

    Args:
        source: the table.
        side: "user" or "item".
        specs: its features.
        ids: numbers of the ids, to which new ones are added.
        domains: numbers of the domains, closed.
        new_rows: the rows are users or items to be encoded: a wide table's rows are their own entities, and its ids may
            repeat or be absent altogether.
    """
    table = SideTable(new_collectors(specs, report))
    long, id_column = source.has(DOMAIN), f"{side}_id"
    plan = _plan(source, side, specs, domains, long, report)
    by_row = new_rows and not long
    usable = _usable(source, id_column, ids, report, needed=not by_row)
    if long:
        usable &= _usable(source, DOMAIN, domains, report, needed=True)
    if not usable:
        return table
    extra = [DOMAINS] if side == "item" and not long and DOMAINS in source.types and not new_rows else []
    wanted = [id_column] * (id_column in source.types) + [DOMAIN] * long + extra + [c.column for c in plan]
    keys, rows, entity_ids, shown = [], [], [], []
    for block in source.read(wanted, report):
        number = np.full(len(block), -1, dtype=np.int64)
        if id_column in block.columns:
            number = ids.encode(source.file, id_column, block.columns[id_column], block.rows, report)
        domain = np.full(len(block), -1, dtype=np.int64)
        if long:
            domain = domains.encode(source.file, DOMAIN, block.columns[DOMAIN], block.rows, report)
        entity = block.rows - 1 if by_row else number
        good = np.flatnonzero((entity >= 0) & ((domain >= 0) | (not long)))
        keys.append(entity[good] * (len(domains) + 1) + domain[good] + 1)
        rows.append(block.rows[good])
        entity_ids.append(number)
        if extra:
            shown.append(_shown(source, block, number, domains, report))
        for column in plan:
            where = None
            if specs[column.feature].per_domain:
                where = domain if column.domain is None else np.full_like(entity, domains.codes[column.domain])
            place = Place(source.file, column.column, block.rows, entity, where)
            table.collectors[column.feature].add(block.columns[column.column].take(pa.array(good)), place.pick(good))
    if not sum(map(len, rows)):
        if not new_rows and not report.of_file(source.file):
            report.add("error", source.file, "", "has no rows", f"add {side}s, or remove the table")
        return table
    key, row = np.concatenate(keys), np.concatenate(rows)
    table.listed = np.unique(key // (len(domains) + 1))
    if by_row:
        table.ids = np.concatenate(entity_ids)
    else:
        _report_twice(source.file, id_column, key, row, long, report)
        table.ids = np.arange(len(ids))
    table.num_entities = len(table.ids)
    if long and side == "item":
        table.shown_item, table.shown_domain = key // (len(domains) + 1), key % (len(domains) + 1) - 1
    elif shown:
        table.shown_item, table.shown_domain = (np.concatenate(parts) for parts in zip(*shown, strict=True))
    return table


def _plan(
    source: Source,
    side: str,
    specs: Mapping[str, FeatureSpec],
    domains: IdTable,
    long: bool,
    report: Report,
) -> list[FeatureColumn]:
    """Which columns to read; a feature without its column, and a column of an unknown domain, are reported."""
    columns = [c for c in feature_columns(source, side) if c.feature in specs]
    broken = {name.rsplit("@", 1)[0] for name in source.broken}
    plan = []
    for name, spec in specs.items():
        own = [c for c in columns if c.feature == name]
        plain, wide = [c for c in own if c.domain is None], [c for c in own if c.domain is not None]
        if long and not spec.per_domain:
            message = "is one value for all domains, but the table has a column 'domain': a row for each domain"
            remedy = "say per_domain: true in the schema, or use a table with one row each"
            report.add("error", source.file, name, message, remedy)
        elif spec.per_domain and not long:
            for column in wide:
                if len(domains) and column.domain not in domains.codes:
                    message = f"no domain is called {column.domain!r}"
                    remedy = f"rename the column; the domains are {', '.join(map(repr, domains.codes))}"
                    report.add("error", source.file, column.column, message, remedy)
            plan += [c for c in wide if c.domain in domains.codes]
            if not wide and name not in broken:
                message = "is a feature of the schema, but the table has no such column for a domain"
                remedy = (
                    f"add columns such as {name + '@' + next(iter(domains.codes), 'domain')!r}, or correct the schema"
                )
                report.add("error", source.file, name, message, remedy)
        else:
            plan += plain
            if not plain and name not in broken:
                message = "is a feature of the schema, but the table has no such column"
                report.add("error", source.file, name, message, "add the column, or take it out of the schema")
    return plan


def _usable(source: Source, column: str, ids: IdTable, report: Report, *, needed: bool) -> bool:
    if column in source.types:
        return ids.accepts(source.file, column, source.types[column], source.is_text, report)
    if needed and column not in source.broken:
        report_missing(source, column, report)
    return not needed


def report_missing(source: Source, column: str, report: Report) -> None:
    """Report that a column is missing, with a guess at which one was meant."""
    names = list(source.types)
    same = [n for n in names if n.strip().casefold() == column]
    near = (same or difflib.get_close_matches(column, names, 1, 0.7))[:1]
    if near:
        remedy = f"rename {near[0]!r}"
    elif len(names) == 1 and any(mark in names[0] for mark in ";\t| "):
        remedy = f"separate columns by commas: the header is one name, {names[0][:60]!r}"
    else:
        remedy = f"add it; the columns are {', '.join(map(repr, names[:10])) or 'none'}"
    report.add("error", source.file, column, "the column is missing", remedy)


def _shown(
    source: Source, block: Block, item: np.ndarray, domains: IdTable, report: Report
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (item, domain) from the lists in the column ``domains``."""
    array, nothing = block.columns[DOMAINS], np.zeros(0, dtype=np.int64)
    if pa.types.is_string(array.type):
        array = pc.split_pattern(array, "|")
    elif pa.types.is_null(array.type):
        return nothing, nothing
    kind = array.type.value_type if pa.types.is_list(array.type) else None
    if kind is None or not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
        message = f"holds {type_in_words(array.type)}, not lists of domain names"
        report.add("error", source.file, DOMAINS, message, "write lists of names, in CSV separated by |")
        return nothing, nothing
    index = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
    names = pc.list_flatten(array)
    domain = domains.encode(source.file, DOMAINS, names, block.rows[index], report)
    good = (domain >= 0) & (item[index] >= 0)
    return item[index][good], domain[good]


def _report_twice(file: str, column: str, key: np.ndarray, row: np.ndarray, long: bool, report: Report) -> None:
    order = np.argsort(key, kind="stable")
    again = order[1:][key[order[1:]] == key[order[:-1]]]
    if len(again):
        message = "the id, with this domain, has a row already" if long else "the id has a row already"
        report.add("error", file, column, message, "keep one row", np.sort(row[again]))
