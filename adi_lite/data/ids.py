"""Ids and moments of records, read block by block: text to numbers, and moments to seconds.

Ids are compared as text: 7 and "7" are one id, "07" is another. So a number never passes through a float, and a CSV
file joins a Parquet file.
"""

from __future__ import annotations

import difflib
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from adi_lite.data.defects import Report

MAX_ID_LENGTH = 256
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = range(-(2**63), 2**63)


class IdTable:
    """Numbers for ids in their order of appearance.

    Args:
        what: "user", "item" or "domain", for messages.
        known: when given, the only ids allowed; they get the first numbers.
    """

    def __init__(self, what: str, known: list[str] | None = None) -> None:
        self.what = what
        self.codes: dict[str, int] = {name: i for i, name in enumerate(known or ())}
        self.closed = known is not None
        self.text_typed = False  # whether a typed file says that the ids are text, even where they look like numbers
        self.integer_typed = False
        self._bad: dict[str, tuple[str, str, str]] = {}  # kind, message, remedy

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def mixed(self) -> bool:
        """Whether typed tables disagree on what the ids are."""
        return self.text_typed and self.integer_typed

    def accepts(self, file: str, column: str, kind: pa.DataType, is_text: bool, report: Report) -> bool:
        """Whether a column of this type can hold ids; if not, it is reported."""
        if pa.types.is_null(kind):
            report.add("error", file, column, "has no value at all", f"give every row the id of its {self.what}")
            return False
        if not (pa.types.is_string(kind) or pa.types.is_integer(kind)):
            why = "which lose digits and turn missing ids into NaN" if pa.types.is_floating(kind) else "not ids"
            message = f"holds {type_in_words(kind)}, {why}"
            remedy = "drop rows without an id and write integers or strings, e.g. with astype('int64')"
            report.add("error", file, column, message, remedy)
            return False
        self.text_typed |= pa.types.is_string(kind) and not is_text
        self.integer_typed |= pa.types.is_integer(kind)
        return True

    def encode(self, file: str, column: str, array: pa.Array, rows: np.ndarray, report: Report) -> np.ndarray:
        """(n,) int64 numbers; -1 for a missing or impossible id, which is reported."""
        encoded = (array if pa.types.is_string(array.type) else array.cast(pa.string())).dictionary_encode()
        local = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        texts = encoded.dictionary.to_pylist()
        numbers = np.array([*(self._number(t) for t in texts), -1], dtype=np.int64)
        if (missing := local < 0).any():
            report.add("error", file, column, "is empty", f"name the {self.what} or drop the row", rows[missing])
        for i in np.flatnonzero(numbers[:-1] < 0):
            kind, message, remedy = self._bad[texts[i]]
            report.add("error", file, column, message, remedy, rows[local == i], kind=kind)
        return numbers[local]

    def _number(self, text: str) -> int:
        if (code := self.codes.get(text)) is not None:
            return code
        if text not in self._bad and (why := self._defect(text)):
            self._bad[text] = why
        if text in self._bad:
            return -1
        return self.codes.setdefault(text, len(self.codes))

    def _defect(self, text: str) -> tuple[str, str, str] | None:
        if not text.strip():
            return "spaces", "holds only spaces", f"name the {self.what} or drop the row"
        if len(text) > MAX_ID_LENGTH:
            message = f"an id of {len(text):,} characters, starting {text[:20]!r}"
            return "length", message, f"ids may have {MAX_ID_LENGTH}; look for an open quote or a wrong delimiter"
        if any(ord(c) < 32 or ord(c) == 127 for c in text):
            return "control", f"a control character in {text!r}", "remove it; ids are plain text on one line"
        if self.closed:
            near = difflib.get_close_matches(text, self.codes, 1)
            hint = f"did you mean {near[0]!r}? Otherwise " if near else ""
            names = ", ".join(map(repr, list(self.codes)[:10]))
            kind = f"unknown {text}" if len(self._bad) < 10 else "unknown"  # ten of them say what there is to say
            remedy = f"{hint}add it to the domains of the schema; known are {names}"
            return kind, f"unknown {self.what} {text!r}", remedy
        return None

    def to_array(self, order: np.ndarray) -> np.ndarray:
        """Ids in the order asked for: int64 if all of them are integers and no typed file says text; else str."""
        texts = list(self.codes)
        if not self.text_typed and all(_is_integer(t) for t in texts):
            return np.array([int(t) for t in texts], dtype=np.int64)[order]
        return np.array(texts or [""])[: len(texts)][order]

    def sort_keys(self) -> np.ndarray:
        """(n,) rank of each id: integers by value, then text. Other ids do not change which of two comes first."""
        texts = list(self.codes)
        order = sorted(
            range(len(texts)), key=lambda i: (0, int(texts[i]), "") if _is_integer(texts[i]) else (1, 0, texts[i])
        )
        rank = np.empty(len(texts), dtype=np.int64)
        rank[order] = np.arange(len(texts))
        return rank


def _is_integer(text: str) -> bool:
    return _INTEGER.fullmatch(text) is not None and int(text) in _INT64


MAX_SECONDS = 253_402_300_799
"""The last second of the year 9999."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII)
"""Stricter than pandas, which takes the cut-off 10:30:0 for a moment."""
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


class TimestampParser:
    """Moments as whole seconds since 1970 in UTC: from numbers of seconds, from datetimes, or from ISO 8601 text."""

    def __init__(self, file: str, column: str, report: Report) -> None:
        self.file, self.column, self.report = file, column, report
        self._text_kind = ""
        self.first = self.last = (0, 0)  # (seconds, row) of the earliest and the latest moment

    def accepts(self, kind: pa.DataType) -> bool:
        """Whether a column of this type can hold moments; if not, it is reported."""
        t = pa.types
        fine = (t.is_string, t.is_integer, t.is_floating, t.is_decimal, t.is_timestamp, t.is_date)
        if any(test(kind) for test in fine):
            return True
        remedy = "write seconds since 1970, datetimes, or drop the column"
        self._error(f"holds {type_in_words(kind)}, which are no moments", remedy, ())
        return False

    def parse(self, array: pa.Array, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(n,) int64 seconds and (n,) whether each is good; bad ones are reported."""
        present = array.is_valid().to_numpy(zero_copy_only=False)
        if not present.all():
            self._error("is empty", "give every record a moment, or drop the row or the whole column", rows[~present])
        kind = array.type
        if pa.types.is_string(kind):
            seconds, good = self._from_text(array, rows, present)
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            unit = kind.unit if pa.types.is_timestamp(kind) else "s"
            whole = array.cast(pa.timestamp("s")) if pa.types.is_date(kind) else array
            seconds = whole.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False) // _UNITS[unit]
            good = present.copy()
        elif pa.types.is_integer(kind):
            fits = array if not pa.types.is_uint64(kind) else pc.min_element_wise(array, pa.scalar(2**63 - 1, kind))
            seconds, good = fits.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), present.copy()
        else:
            seconds, good = self._from_floats(array.cast(pa.float64()).to_numpy(zero_copy_only=False), rows, present)
        far = good & ((seconds > MAX_SECONDS) | (seconds < -MAX_SECONDS))
        if far.any():
            message = "lies beyond the year 9999 when counted in seconds"
            remedy = "divide milliseconds by 1000, microseconds by 1000000"
            self.report.add("error", self.file, self.column, message, remedy, rows[far])
        good &= ~far
        self._extend(seconds, rows, good)
        return seconds, good

    def finish(self) -> None:
        """Warn about moments so far apart that one of them is likely wrong."""
        years = (self.last[0] - self.first[0]) / (365.25 * 86_400)
        if years > 100:
            message = f"the earliest and the latest moment lie {years:,.0f} years apart"
            remedy = "look at these two rows; a wrong moment puts its record into the wrong split"
            self.report.add("warning", self.file, self.column, message, remedy, sorted((self.first[1], self.last[1])))

    def _extend(self, seconds: np.ndarray, rows: np.ndarray, good: np.ndarray) -> None:
        if not good.any():
            return
        seconds, rows = seconds[good], rows[good]
        low, high = int(seconds.argmin()), int(seconds.argmax())
        ends = (int(seconds[low]), int(rows[low])), (int(seconds[high]), int(rows[high]))
        started = self.first[1] > 0
        self.first = min(self.first, ends[0]) if started else ends[0]
        self.last = max(self.last, ends[1]) if started else ends[1]

    def _from_text(self, array: pa.Array, rows: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        texts = pd.Series(array.to_pylist(), dtype=object)
        number, iso = _matches(_NUMBER, texts), _matches(_ISO, texts)
        moments = pd.to_datetime(texts.where(iso), format="ISO8601", utc=True, errors="coerce")
        iso &= moments.notna().to_numpy()
        if neither := (present & ~number & ~iso).nonzero()[0].tolist():
            message = f"{texts[neither[0]][:40]!r} is not a moment"
            remedy = "write seconds since 1970 or ISO 8601 such as 2026-01-31T18:00:00"
            self.report.add("error", self.file, self.column, message, remedy, rows[neither], kind="not a moment")
        if not self._text_kind and (number | iso).any():
            self._text_kind = "numbers" if number[(number | iso).argmax()] else "dates"
        usual, other = (number, iso) if self._text_kind == "numbers" else (iso, number)
        if other.any():
            self._error(f"mixes numbers and dates (it starts with {self._text_kind})", "use one of them", rows[other])
        seconds, good = np.zeros(len(rows), dtype=np.int64), usual.copy()
        if self._text_kind == "dates":
            seconds[iso] = pd.DatetimeIndex(moments[iso]).as_unit("s").asi8
            return seconds, good
        whole = _matches(_WHOLE, texts)
        seconds[whole] = texts[whole].astype("int64")
        rest = number & ~whole
        values = np.zeros(len(rows))
        values[rest] = texts[rest].astype("float64")
        floats, fine = self._from_floats(values, rows, rest)
        seconds[rest] = floats[rest]
        return seconds, good & (fine | ~rest)

    def _from_floats(self, values: np.ndarray, rows: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        finite = np.isfinite(values)
        if (bad := present & ~finite).any():
            self._error("is not a finite number", "give every record a moment, or drop the row", rows[bad])
        limit = 2.0 * MAX_SECONDS  # still beyond the range, so that the caller reports it
        whole = np.floor(np.where(finite, np.clip(values, -limit, limit), 0.0))
        return whole.astype(np.int64), present & finite

    def _error(self, message: str, remedy: str, rows: np.ndarray | tuple) -> None:
        self.report.add("error", self.file, self.column, message, remedy, rows)


def is_date(text: str) -> bool:
    """Whether the text is an ISO 8601 date, with or without a time."""
    return _ISO.fullmatch(text) is not None


def _matches(pattern: re.Pattern, texts: pd.Series) -> np.ndarray:
    return np.array([isinstance(t, str) and pattern.fullmatch(t) is not None for t in texts], dtype=bool)


def type_in_words(kind: pa.DataType) -> str:
    """An Arrow type as it stands in a message."""
    t = pa.types
    words = {
        t.is_boolean: "true/false values",
        t.is_floating: "floating-point numbers",
        t.is_decimal: "decimals",
        t.is_timestamp: "datetimes",
        t.is_date: "dates",
        t.is_list: "lists",
        t.is_binary: "bytes",
    }
    return next((name for test, name in words.items() if test(kind)), f"values of type {kind}")
