"""Tables as streams of blocks: a pandas frame, a Parquet file, a folder of them or a CSV file, with row numbers and plain types.

A defect goes to the report instead of being raised, so that one bad file does not hide the defects of the others. CSV
cells stay text, because a type guessed from a file's beginning may not hold at its end.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from adi_lite.data.defects import Report

BLOCK_ROWS = 65_536
BLOCK_BYTES = 4 << 20
_BROKEN = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError)
"""What pyarrow raises on a file or a column that it cannot read."""


@dataclass(frozen=True)
class Block:
    """Some rows of a table: their numbers (from 1, without the header) and a plain Arrow array for each column."""

    rows: np.ndarray
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Source:
    """One table.

    Attributes:
        file: its name in messages.
        types: plain Arrow type of each column; see :func:`plain_type`.
        is_text: every column is text that stands for something, as in CSV.
        broken: columns that are there but cannot be read; the report has them already.
        read: the named columns, block by block; what cannot be read goes to the report.
    """

    file: str
    types: dict[str, pa.DataType]
    is_text: bool
    read: Callable[[Sequence[str], Report], Iterator[Block]]
    broken: set[str] = field(default_factory=set)

    def has(self, column: str) -> bool:
        return column in self.types or column in self.broken


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without its encoding: no dictionaries, run lengths, extensions, large or view variants."""
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    return kind


def is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return any(
        test(kind) for test in (t.is_list, t.is_large_list, t.is_fixed_size_list, t.is_list_view, t.is_large_list_view)
    )


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # no chunk, or too much text for one array
            array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    array.validate(full=True)  # files may hold text that is no UTF-8, and lists whose ends lie before their starts
    want = plain_type(array.type)
    return array if array.type.equals(want) else array.cast(want)


def open_frame(file: str, frame: pd.DataFrame, report: Report) -> Source:
    """A pandas frame; NaN and NA of pandas mean missing."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(f"{file} must be a pandas DataFrame, got {type(frame).__name__}")
    names = [str(c) for c in frame.columns]
    twice = _report_twice(file, names, report)
    arrays: dict[str, pa.Array] = {}
    broken = set(twice)
    for place, name in enumerate(names):
        if name in twice:
            continue
        series = frame.iloc[:, place]
        try:
            arrays[name] = _plain(pa.array(series, from_pandas=True))
        except _BROKEN as error:
            _report_unreadable_series(file, name, series, error, report)
            broken.add(name)

    def read(columns: Sequence[str], report: Report) -> Iterator[Block]:
        for start in range(0, len(frame), BLOCK_ROWS):
            rows = np.arange(start, min(start + BLOCK_ROWS, len(frame))) + 1
            yield Block(rows, {c: arrays[c].slice(start, len(rows)) for c in columns})

    return Source(file, {n: a.type for n, a in arrays.items()}, False, read, broken)


def _report_unreadable_series(file: str, name: str, series: pd.Series, error: Exception, report: Report) -> None:
    present = series[series.notna().to_numpy()] if series.dtype == object else series[:0]
    types = [type(v).__name__ for v in present]
    if len(set(types)) > 1:
        usual = max(sorted(set(types)), key=types.count)
        rows = np.flatnonzero(series.notna().to_numpy())[[t != usual for t in types]] + 1
        other = next(t for t in types if t != usual)
        message, remedy = f"mixes {usual} and {other}", "convert the column to one type, e.g. with astype(str)"
        report.add("error", file, name, message, remedy, rows)
    else:
        message = f"cannot be read as a column of one plain type ({_first_line(error)})"
        report.add("error", file, name, message, "convert it to strings, numbers, booleans or lists of these")


def open_parquet(path: Path, report: Report, name: str = "") -> Source | None:
    """A Parquet file, read in batches: memory holds one batch of the columns asked for. ``name`` is its name in messages."""
    name = name or path.name
    if not _has_bytes(path, report, name):
        return None
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            types = {column: plain_type(schema.field(i).type) for i, column in enumerate(schema.names)}
            names = list(schema.names)
    except _BROKEN as error:
        _report_bad_parquet(name, error, report)
        return None
    twice = _report_twice(name, names, report)

    def read(columns: Sequence[str], report: Report) -> Iterator[Block]:
        done = 0
        try:
            # With a buffer, memory holds pages of a row group and not the whole of it.
            with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=1 << 20) as file:
                for batch in file.iter_batches(BLOCK_ROWS, columns=list(columns), use_threads=False):
                    rows = np.arange(done, done + batch.num_rows) + 1
                    block = _decode(name, rows, batch, report)
                    if block is None:
                        return
                    yield block
                    done += batch.num_rows
                if done != file.metadata.num_rows:
                    raise ValueError(f"{done:,} rows found, {file.metadata.num_rows:,} promised")
        except _BROKEN as error:
            _report_bad_parquet(name, error, report, done)

    return Source(name, {n: t for n, t in types.items() if n not in twice}, False, read, twice)


def parquet_parts(folder: Path) -> list[Path]:
    """The Parquet files of a folder in the order of their names, without hidden ones and marks such as ``_SUCCESS``."""
    return sorted(p for p in folder.glob("*.parquet") if p.name[0] not in "._")


def open_parquet_parts(folder: Path, report: Report) -> Source | None:
    """A folder of Parquet files with the same columns, as other systems write large tables: read one after the other.

    Rows are counted through all files, in the order of their names.
    """
    if inner := sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"):
        message = f"holds the folder {inner[0]!r}, and only the files of one folder are read"
        report.add("error", folder.name, "", message, "write one folder of files, with the domain as a column")
        return None
    parts = [open_parquet(p, report, f"{folder.name}/{p.name}") for p in parquet_parts(folder)]
    if None in parts:
        return None
    first = parts[0]
    for part in parts[1:]:
        if part.types != first.types or part.broken != first.broken:
            message = f"has other columns or types than {first.file}: {_types(part)} where that has {_types(first)}"
            report.add("error", part.file, "", message, "write all files of the folder with one schema")
            return None

    def read(columns: Sequence[str], report: Report) -> Iterator[Block]:
        before = 0
        for part in parts:
            done = 0
            for block in part.read(columns, report):
                yield Block(block.rows + before, block.columns)
                done += len(block)
            before += done

    return Source(folder.name, first.types, False, read, first.broken)


def _types(source: Source) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in list(source.types.items())[:10])


def _decode(file: str, rows: np.ndarray, batch: pa.RecordBatch, report: Report) -> Block | None:
    columns = {}
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = _plain(array)
        except _BROKEN as error:
            message = f"cannot be decoded ({_first_line(error)})"
            remedy = f"look at rows {rows[0]} to {rows[-1]} and write the column again; text must be UTF-8"
            report.add("error", file, name, message, remedy)
    return Block(rows, columns) if len(columns) == batch.num_columns else None


def _report_bad_parquet(file: str, error: Exception, report: Report, done: int = 0) -> None:
    after = f" after row {done:,}" if done else ""
    message = f"is damaged or not a Parquet file{after} ({_first_line(error)})"
    report.add("error", file, "", message, "write or copy the file again, whole", kind="damaged")


def open_csv(path: Path, report: Report) -> Source | None:
    """A CSV file: UTF-8, a header, commas, double quotes; cells are text, an empty cell is missing."""
    if not _has_bytes(path, report, path.name) or not _is_clean_text(path, report):
        return None
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            names = next(csv.reader(lines), [])
    except (csv.Error, OSError) as error:
        report.add(
            "error", path.name, "", f"has no readable header ({error})", "start it with the names of the columns"
        )
        return None
    twice = _report_twice(path.name, names, report)

    def read(columns: Sequence[str], report: Report) -> Iterator[Block]:
        return _read_csv(path, names, list(columns), report)

    return Source(path.name, {n: pa.string() for n in names if n not in twice}, True, read, twice)


def _read_csv(path: Path, names: list[str], columns: list[str], report: Report) -> Iterator[Block]:
    skipped: list[int] = []  # records with too many or too few cells, counted from 1 without the header

    def skip(row: pa_csv.InvalidRow) -> str:
        number = row.number - 1
        skipped.append(number)
        message = f"has {row.actual_columns} cells where the header has {row.expected_columns}"
        remedy = "add or remove cells, and put text with commas in double quotes"
        report.add("error", path.name, "", message, remedy, [number], kind="cells")
        return "skip"

    done = 0
    try:
        with pa_csv.open_csv(
            path,
            pa_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=columns,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        ) as reader:
            for batch in reader:
                rows = _record_numbers(done, batch.num_rows, skipped)
                block = Block(rows, dict(zip(columns, batch.columns, strict=True)))
                _report_line_breaks(path.name, block, report)
                yield block
                done += batch.num_rows
    except _BROKEN as error:
        message = f"cannot be read{f' after row {done:,}' if done else ''} ({_first_line(error)})"
        report.add("error", path.name, "", message, "look for an open double quote or a missing header")


def _record_numbers(done: int, count: int, skipped: list[int]) -> np.ndarray:
    """Numbers of the records ``done`` … ``done + count - 1`` among the good ones, when bad ones lie between."""
    good_before = np.array(skipped, dtype=np.int64) - 1 - np.arange(len(skipped))
    place = np.arange(done, done + count)
    return place + 1 + np.searchsorted(good_before, place, side="right")


def _report_line_breaks(file: str, block: Block, report: Report) -> None:
    for name, array in block.columns.items():
        for mark in "\n", "\r":
            hit = pc.match_substring(array, mark).fill_null(False).to_numpy(zero_copy_only=False)
            if hit.any():
                message, remedy = "a cell spans lines", "close the double quote, or keep such text in a Parquet file"
                report.add("error", file, name, message, remedy, block.rows[hit])
                break


def _is_clean_text(path: Path, report: Report) -> bool:
    """Whether all of the file is UTF-8 without NUL and with paired double quotes; read in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, quotes, last = 1, 0, b""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            report.add("error", path.name, "", "is UTF-16 text", "save it as UTF-8")
            return False
        file.seek(0)
        while piece := file.read(1 << 20):
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                message = f"line {line} is not UTF-8 (byte 0x{error.object[error.start]:02x})"
                report.add("error", path.name, "", message, "save the file as UTF-8")
                return False
            if (place := piece.find(b"\0")) >= 0:
                line += piece[:place].count(b"\n")
                report.add(
                    "error", path.name, "", f"line {line} holds a NUL byte", "write the file again as plain text"
                )
                return False
            line += piece.count(b"\n")
            quotes += piece.count(b'"')
            last = piece[-1:]
    if decoder.getstate()[0]:
        report.add("error", path.name, "", "ends in the middle of a character", "write or copy the file again, whole")
        return False
    if quotes % 2:
        message = f"has {quotes:,} double quotes, an odd number: one is never closed"
        report.add("error", path.name, "", message, "close it, and write a quote within a cell twice")
        return False
    if last not in (b"\n", b"\r"):
        message, remedy = "does not end with a line break", "see whether its last row was cut off"
        report.add("warning", path.name, "", message, remedy)
    return True


def _has_bytes(path: Path, report: Report, name: str) -> bool:
    try:
        if path.stat().st_size:
            with path.open("rb"):
                return True
        report.add("error", name, "", "is empty", "write the table again, with a header and rows")
    except OSError as error:
        report.add("error", name, "", f"cannot be read ({error.strerror})", "check the file and its rights")
    return False


def _report_twice(file: str, names: list[str], report: Report) -> set[str]:
    twice = {n for n in names if names.count(n) > 1}
    for name in sorted(twice):
        report.add("error", file, name, f"{names.count(name)} columns have this name", "rename all but one")
    return twice


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(" .")
