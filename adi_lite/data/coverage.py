"""What is no error in the users' and items' tables, but good to know: columns left out, rows that do not meet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adi_lite.data.defects import Report
from adi_lite.data.encoders import SideEncoder
from adi_lite.data.records import Records
from adi_lite.data.schema_file import FeatureSpec
from adi_lite.data.side_table import DOMAIN, DOMAINS, SideTable
from adi_lite.data.sources import Source
from adi_lite.data.tally import Tally, first_rows

MANY_VALUES = 100
"""A vocabulary of up to this many values is never called large."""


def report_columns(source: Source, side: str, specs: Mapping[str, FeatureSpec], report: Report) -> None:
    """Note the columns that are not read, and warn about one whose name keeps it from being a feature."""
    taken = {f"{side}_id", DOMAIN} | ({DOMAINS} if side == "item" else set())
    unread = [c for c in source.types if c not in taken and c.rsplit("@", 1)[0] not in specs]
    if side == "user" and "history" in unread:
        unread.remove("history")
        message = "is not read: the name belongs to the history of items that the interactions give"
        report.add("warning", source.file, "history", message, "rename the column")
    if unread:
        message = f"columns that are not read: {', '.join(map(repr, unread[:10]))}"
        report.add("note", source.file, "", message, "list them in schema.yaml if they are features")


def report_coverage(
    file: str,
    source: Source | None,
    side: str,
    records: Records,
    tally: Tally,
    table: SideTable,
    encoder: SideEncoder,
    report: Report,
) -> None:
    """Compare the ids of the interactions with those of the table, and look for columns that are no categories.

    Args:
        file: of the interactions.
        source: the users' or the items' table, if there is one.
    """
    if source is None:
        return
    listed = np.zeros(len(records.ids(side)), dtype=bool)
    listed[table.listed] = True
    unknown = tally.occurs[side] & ~listed
    if unknown.any():
        number = getattr(records, side)
        rows, count = first_rows(records, lambda part: unknown[number[part]])
        message = f"{int(unknown.sum()):,} {side}s are not in {source.file}, so that they have no features"
        remedy = f"add their rows to {source.file}"
        report.add("warning", file, f"{side}_id", message, remedy, rows, count=count)
    if idle := int((listed & ~tally.occurs[side]).sum()):
        message = f"{idle:,} {side}s have no interactions"
        report.add("note", source.file, f"{side}_id", message, "nothing to do: features can still place them")
    if records.ids(side).mixed:
        message = "ids are integers in one table and text in the other; they are compared as text"
        report.add("note", source.file, f"{side}_id", message, "nothing to do, unless ids have leading zeros")
    for name, words in encoder.vocabularies.items():
        if len(words) > max(MANY_VALUES, len(encoder.ids) / 2):
            message = f"{len(words):,} different values among {len(encoder.ids):,} {side}s of the training part"
            remedy = "if it is free text or an id, take it out; min_count in schema.yaml drops rare values"
            report.add("warning", source.file, name, message, remedy)
