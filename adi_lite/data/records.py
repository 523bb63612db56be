"""Read the interactions: ids and moments as numbers, block by block, a few bytes a record."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from adi_lite.data.chunks import chunks
from adi_lite.data.defects import Report
from adi_lite.data.disk import Disk
from adi_lite.data.ids import IdTable, TimestampParser
from adi_lite.data.side_table import report_missing
from adi_lite.data.sources import Source
from adi_lite.data.split import (
    Split,
    split_by_time,
    split_by_time_on_disk,
    split_by_user,
    split_by_user_on_disk,
)

MAX_DOMAINS = 1000
"""Without a schema that lists them, more domains than this are taken for a mistake."""


class InMemory:
    """Gathers the columns of the records in memory, block by block; :class:`~adi_lite.data.disk.Disk` does so in files."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, column: str, values: np.ndarray) -> None:
        self._parts.setdefault(column, []).append(values)

    def finish(self, column: str) -> np.ndarray | None:
        """All values of the column; None if nothing was added."""
        parts = self._parts.pop(column, None)
        return None if parts is None else np.concatenate(parts)


@dataclass
class Records:
    """Interactions as numbers of their ids, in the order of the file.

    Attributes:
        user, item, domain: (n,) int32 numbers within the tables of ids.
        seconds: (n,) moments, or None.
        users, items, domains: the tables of ids.
    """

    user: np.ndarray
    item: np.ndarray
    domain: np.ndarray
    seconds: np.ndarray | None
    users: IdTable
    items: IdTable
    domains: IdTable

    def __len__(self) -> int:
        return len(self.user)

    def ids(self, side: str) -> IdTable:
        return self.users if side == "user" else self.items

    def renumber(self, names: list[str]) -> Records:
        """The same records, with domains numbered in place in the order of ``names``, and no other domain allowed."""
        table = IdTable("domain", names or None)
        number = np.array([table.codes[name] for name in self.domains.codes], dtype=np.int32)
        for part in chunks(len(self)):
            self.domain[part] = number[self.domain[part]]
        return replace(self, domains=table if names else self.domains)

    def split(self, valid: float, test: float, seed: int, disk: Disk | None = None) -> Split:
        """By time where there is time, else by user; with masks in memory, or on disk."""
        if disk is None and self.seconds is not None:
            return split_by_time(self.seconds, valid, test)
        if disk is None:
            return split_by_user(self.user, self.item, valid, test, seed)
        if self.seconds is not None:
            return split_by_time_on_disk(self.seconds, valid, test, disk.zeros)
        return split_by_user_on_disk(self.user, self.item, len(self.users), valid, test, seed, disk.zeros)


def read_interactions(
    source: Source | None, domains: list[str] | None, report: Report, disk: Disk | None = None
) -> Records:
    """Read the interactions' table; every defect goes to ``report``. Records with a defect are left out.

    Args:
        source: the table; None if it could not be opened, which was reported.
        domains: the only names allowed, or None for any.
        disk: where the columns go; in memory by default. On disk, repeated records are not looked for.
    """
    gathered = disk or InMemory()
    tables = {"user_id": IdTable("user"), "item_id": IdTable("item"), "domain": IdTable("domain", domains)}
    if source is None:
        return _join(gathered, tables)
    fine = [c for c in tables if _is_there(source, c, report) and _accepts(tables[c], source, c, report)]
    moments = None
    if "timestamp" in source.types:
        parser = TimestampParser(source.file, "timestamp", report)
        if parser.accepts(source.types["timestamp"]):
            moments = parser
    others = [c for c in source.types if c not in tables and c != "timestamp"]
    if others:
        message = f"columns that are not read: {', '.join(map(repr, others[:10]))}"
        report.add("note", source.file, "", message, "features belong into the tables users and items")
    wanted, count = [*fine, *["timestamp"] * (moments is not None)], 0
    for block in source.read(wanted, report) if wanted else ():
        columns = {c: tables[c].encode(source.file, c, block.columns[c], block.rows, report) for c in fine}
        good = np.ones(len(block), dtype=bool)
        for numbers in columns.values():
            good &= numbers >= 0
        if moments is not None:
            columns["timestamp"], parsed = moments.parse(block.columns["timestamp"], block.rows)
            good &= parsed
        for column, numbers in columns.items():
            gathered.add(column, numbers[good].astype(np.int64 if column == "timestamp" else np.int32, copy=False))
        count += len(block)
    if moments is not None:
        moments.finish()
    if wanted and not count and not report.of_file(source.file):
        report.add("error", source.file, "", "has no rows", "add interactions")
    if domains is None and len(tables["domain"]) > MAX_DOMAINS:
        message = f"{len(tables['domain']):,} different domains"
        remedy = f"look whether the column holds something else, or list more than {MAX_DOMAINS} in schema.yaml"
        report.add("error", source.file, "domain", message, remedy)
    records = _join(gathered, tables)
    if disk is None:
        _report_repeats(source.file, records, report)
    return records


def _is_there(source: Source, column: str, report: Report) -> bool:
    if column not in source.types and column not in source.broken:
        report_missing(source, column, report)
    return column in source.types


def _accepts(table: IdTable, source: Source, column: str, report: Report) -> bool:
    return table.accepts(source.file, column, source.types[column], source.is_text, report)


def _report_repeats(file: str, records: Records, report: Report) -> None:
    if report.of_file(file) or not len(records):
        return
    keys = [records.domain, records.item, records.user]
    order = np.lexsort(keys if records.seconds is None else [records.seconds, *keys])  # equal records in their order
    same = np.ones(len(order) - 1, dtype=bool)
    for column in (*keys, *[records.seconds] * (records.seconds is not None)):
        same &= column[order[1:]] == column[order[:-1]]
    if same.any():
        message, remedy = "the record is the same as an earlier one, and counts again", "drop it if that is wrong"
        report.add("note", file, "", message, remedy, np.sort(order[1:][same]) + 1)


def _join(gathered: InMemory | Disk, tables: dict[str, IdTable]) -> Records:
    """One array a column; nothing at all when a column is missing."""
    columns = {c: gathered.finish(c) for c in (*tables, "timestamp")}
    if any(columns[c] is None for c in tables):
        columns = {**{c: np.zeros(0, dtype=np.int32) for c in tables}, "timestamp": None}
    return Records(*(columns[c] for c in tables), columns["timestamp"], *tables.values())
