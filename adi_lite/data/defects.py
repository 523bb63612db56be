"""What is wrong with somebody's tables: every defect with its file, column, rows and remedy, gathered and not thrown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
MAX_ROWS = 5
"""Row numbers that a defect keeps; the count goes on."""


@dataclass(frozen=True)
class Defect:
    """One defect of one column of one file.

    Attributes:
        severity: ``error`` (nothing is loaded), ``warning`` (loaded, but look at it) or ``note`` (good to know).
        file: name of the file, or of the frame's argument.
        column: the column, or "" where the whole file is meant.
        message: what is wrong, with an example.
        remedy: what would be right.
        rows: the first rows that have it, counted from 1 without the header; empty where no row is to blame.
        count: how many rows have it.
    """

    severity: Severity
    file: str
    column: str
    message: str
    remedy: str
    rows: tuple[int, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        column = f", column {self.column!r}" if self.column else ""
        return f"{self.severity}: {self.file}{column}{_rows(self.rows, self.count)}: {self.message}; {self.remedy}"


def _rows(rows: tuple[int, ...], count: int) -> str:
    if not rows:
        return ""
    more = f" and {count - len(rows):,} more" if count > len(rows) else ""
    return f", row{'s' if count > 1 else ''} {', '.join(map(str, rows))}{more}"


@dataclass
class Report:
    """All defects of a set of tables, and what could be read of them.

    Attributes:
        defects: in the order in which they were found.
        facts: counts such as records, users, items and domains; complete when there is no error.
        schema: the schema that was read or inferred, as YAML text; "" if the tables were too broken for one.
    """

    defects: list[Defect] = field(default_factory=list)
    facts: dict[str, int] = field(default_factory=dict)
    schema: str = ""
    _place: dict[tuple[str, str, str], int] = field(default_factory=dict, repr=False)

    def add(
        self,
        severity: Severity,
        file: str,
        column: str,
        message: str,
        remedy: str,
        rows: Iterable[int] | np.ndarray = (),
        kind: str = "",
        count: int | None = None,
    ) -> None:
        """Note a defect. Defects of one ``kind`` (default: the message) in one column become one, with all their rows.

        Where ``rows`` are only the first ones, ``count`` says how many there are.
        """
        rows = [int(r) for r in rows]
        count = len(rows) if count is None else count
        key = (file, column, kind or message)
        if key in self._place:
            old = self.defects[self._place[key]]
            kept = (*old.rows, *rows)[:MAX_ROWS]
            self.defects[self._place[key]] = Defect(
                old.severity, file, column, old.message, old.remedy, kept, old.count + count
            )
            return
        self._place[key] = len(self.defects)
        self.defects.append(Defect(severity, file, column, message, remedy, tuple(rows[:MAX_ROWS]), count))

    def of(self, severity: Severity) -> list[Defect]:
        return [d for d in self.defects if d.severity == severity]

    def of_file(self, file: str) -> list[Defect]:
        """Errors of one file, or of the files of a folder."""
        return [d for d in self.errors if d.file == file or d.file.startswith(f"{file}/")]

    @property
    def errors(self) -> list[Defect]:
        return self.of("error")

    @property
    def ok(self) -> bool:
        """Whether the tables can be loaded."""
        return not self.errors

    def to_dict(self) -> dict:
        """Plain values for JSON."""
        return {
            "ok": self.ok,
            "facts": dict(self.facts),
            "defects": [asdict(d) for d in self.defects],
            "schema": self.schema,
        }

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.of(s))} {s}{'s' * (len(self.of(s)) != 1)}" for s in SEVERITIES)
        lines = [", ".join(f"{v:,} {k}" for k, v in self.facts.items())] if self.facts else []
        return "\n".join([*lines, *(str(d) for s in SEVERITIES for d in self.of(s)), counts])

    def raise_errors(self) -> None:
        """Raise one :class:`DataError` that lists every error, if there is one."""
        if not self.ok:
            raise DataError(self)


class DataError(ValueError):
    """Tables that cannot be loaded. The message lists every error; ``report`` has warnings and notes as well."""

    def __init__(self, report: Report) -> None:
        self.report = report
        errors = report.errors
        head = f"the tables have {len(errors)} error{'s' * (len(errors) > 1)}"
        super().__init__("\n".join([head, *(f"  {str(d).removeprefix('error: ')}" for d in errors)]))
