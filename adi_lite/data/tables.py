"""Your own domains: from tables of interactions, users and items to a :class:`MultiDomainDataset`.

**Interactions** have ``user_id``, ``item_id``, ``domain`` (a name) and perhaps ``timestamp`` (seconds, datetimes or ISO
8601 text). Every row is a positive record; a record that occurs twice counts twice. **Users** have ``user_id``, **items**
``item_id``, and feature columns; :mod:`adi_lite.data.infer` says what kind a column is taken for, and
:class:`~adi_lite.data.schema_file.TableSchema` how to say it yourself; :mod:`adi_lite.data.side_table` how a feature has
a value for each domain.

Rows of the data set: first the users (items) of the training part, sorted by id, then those of the users' (items')
table, then the rest. Vocabularies, means and deviations come from the first of these alone; an unknown or missing value
is code 0, or the mean. A domain can show the items of its training records, and those that the items' table names for
it: by a list in the column ``domains``, or by the rows of a long table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from adi_lite.data.coverage import report_columns, report_coverage
from adi_lite.data.defects import Report
from adi_lite.data.disk import Disk
from adi_lite.data.encoders import Encoders, SideEncoder
from adi_lite.data.infer import infer_side
from adi_lite.data.records import Records, read_interactions
from adi_lite.data.schema import Column, Interactions, MultiDomainDataset, Schema
from adi_lite.data.schema_file import TableSchema, read_schema_file
from adi_lite.data.side_table import SideTable, read_side
from adi_lite.data.sources import Source, open_csv, open_frame, open_parquet, open_parquet_parts, parquet_parts
from adi_lite.data.split import Split, check_shares
from adi_lite.data.tally import Tally, first_rows

SIDES = ("user", "item")


def dataset_from_frames(
    interactions: pd.DataFrame,
    users: pd.DataFrame | None = None,
    items: pd.DataFrame | None = None,
    schema: TableSchema | None = None,
    *,
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    name: str = "tables",
) -> MultiDomainDataset:
    """A data set from pandas frames; see the module for what they hold.

    Args:
        interactions, users, items: the tables.
        schema: domains and features; inferred when absent (:func:`infer_schema` shows it).
        valid, test: shares of the latest records. Without timestamps, one record of each user with 3 or more goes to
            either part whose share is above 0.
        seed: of the draw without timestamps.
        name: of the data set.

    Raises:
        DataError: the tables cannot be loaded; it lists every defect.
    """
    report = Report()
    tables = _open_frames(interactions, users, items, report)
    data = _build(tables, schema, report, valid=valid, test=test, seed=seed, name=name)
    report.raise_errors()
    return data


def _open_frames(
    interactions: pd.DataFrame, users: pd.DataFrame | None, items: pd.DataFrame | None, report: Report
) -> _Tables:
    named = {"interactions": interactions, "users": users, "items": items}
    return _Tables(*(None if f is None else open_frame(file, f, report) for file, f in named.items()))


def infer_schema(
    interactions: pd.DataFrame, users: pd.DataFrame | None = None, items: pd.DataFrame | None = None
) -> TableSchema:
    """The schema that frames without one get; print ``.to_yaml()``, correct it and pass it on.

    Raises:
        DataError: a column cannot be read.
    """
    report = Report()
    tables = _open_frames(interactions, users, items, report)
    schema = _infer(tables, report)
    domains = read_interactions(tables.interactions, None, report).domains
    report.raise_errors()
    return schema.model_copy(update={"domains": sorted(domains.codes)})


def load_folder(
    folder: str | Path, *, valid: float = 0.1, test: float = 0.1, seed: int = 0, name: str = ""
) -> MultiDomainDataset:
    """The data set of a folder: ``interactions``, optional ``users`` and ``items`` (each ``.parquet`` or ``.csv``) and
    optional ``schema.yaml``. In place of a file there may be a folder of Parquet files, ``interactions/`` or
    ``interactions.parquet/``, which are read in the order of their names.

    Files are read block by block. Memory holds the numbers of the records, the distinct ids and the encoded
    features, never the text of a file: about 130 bytes a record at the peak, of which the data set keeps 40.
    :func:`adi_lite.data.packed.pack` makes a data set whose records stay on disk.

    Args:
        folder: where the files are.
        valid, test, seed: as for :func:`dataset_from_frames`.
        name: of the data set; by default the folder's.

    Raises:
        DataError: the tables cannot be loaded; it lists every defect.
    """
    data, report = _read_folder(Path(folder), valid=valid, test=test, seed=seed, name=name)
    report.raise_errors()
    return data


def check_folder(folder: str | Path, *, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Report:
    """Every defect of the files that :func:`load_folder` would read; the report is ``ok`` exactly if it would load them."""
    return _read_folder(Path(folder), valid=valid, test=test, seed=seed, name="")[1]


@dataclass
class _Tables:
    interactions: Source | None
    users: Source | None = None
    items: Source | None = None

    def side(self, side: str) -> Source | None:
        return self.users if side == "user" else self.items


def _read_folder(
    folder: Path, *, valid: float, test: float, seed: int, name: str
) -> tuple[MultiDomainDataset | None, Report]:
    report = Report()
    if (opened := open_folder(folder, report)) is None:
        return None, report
    name = name or folder.resolve().name
    return _build(*opened, report, valid=valid, test=test, seed=seed, name=name), report


def open_folder(folder: Path, report: Report, disk: Disk | None = None) -> tuple[_Tables, TableSchema | None] | None:
    """The tables of a folder and its schema, if it has one; None if nothing can be made of them, which is reported."""
    if not folder.is_dir():
        remedy = "name the folder that holds interactions.parquet or interactions.csv"
        report.add("error", str(folder), "", "is not a folder", remedy)
        return None
    tables = _Tables(*(_open(folder, stem, report) for stem in ("interactions", "users", "items")))
    schema, path = None, folder / "schema.yaml"
    if path.exists() and (schema := read_schema_file(path, report)) is None:
        read_interactions(
            tables.interactions, None, report, disk
        )  # its defects as well, before the schema is corrected
        return None
    return tables, schema


def table_paths(folder: Path, stem: str) -> list[Path]:
    """The files, or folders of Parquet files, that a folder has for one table: one, if all is well."""
    files = [path for suffix in (".parquet", ".csv") if (path := folder / f"{stem}{suffix}").exists()]
    return [*files, *[folder / stem] * bool((folder / stem).is_dir() and parquet_parts(folder / stem))]


def _open(folder: Path, stem: str, report: Report) -> Source | None:
    found = table_paths(folder, stem)
    if len(found) > 1:
        report.add("error", stem, "", f"both {found[0].name} and {found[1].name} are there", "keep one of them")
        return None
    if not found:
        if stem == "interactions":
            message = f"no interactions.parquet or interactions.csv in {folder}"
            report.add("error", stem, "", message, "put it there, or a folder interactions of Parquet files")
        return None
    if found[0].is_dir():
        return open_parquet_parts(found[0], report)
    return open_parquet(found[0], report) if found[0].suffix == ".parquet" else open_csv(found[0], report)


def _infer(tables: _Tables, report: Report) -> TableSchema:
    features = {}
    for side in SIDES:
        source = tables.side(side)
        features[f"{side}s"] = {} if source is None else infer_side(source, side, report)
    return TableSchema(**features)


def _build(
    tables: _Tables, schema: TableSchema | None, report: Report, *, valid: float, test: float, seed: int, name: str
) -> MultiDomainDataset | None:
    """The data set, or None when the report has errors."""
    read = prepare(tables, schema, report, valid=valid, test=test, seed=seed)
    return None if read is None else _dataset(name, read)


@dataclass
class Side:
    """Users or items of the data set: ids and columns by row, and where each id's row is."""

    ids: np.ndarray
    row_of: np.ndarray
    encoder: SideEncoder
    columns: dict[str, Column]


@dataclass
class Prepared:
    """Tables that were read, with all that a data set is made of but its records, which are numbers of ids still."""

    schema: Schema
    records: Records
    split: Split
    parts: dict[str, int]
    catalogues: list[np.ndarray]
    users: Side
    items: Side
    notes: dict[str, str]

    def columns(self, part: slice, mask: np.ndarray) -> list[np.ndarray]:
        """Columns user, item, domain, and timestamp if there is one, of those records of ``part`` that ``mask`` picks:
        int64, rows in place of numbers."""
        records = self.records
        rows = self.users.row_of[records.user[part][mask]], self.items.row_of[records.item[part][mask]]
        columns = [*rows, records.domain[part][mask].astype(np.int64)]
        return columns if records.seconds is None else [*columns, records.seconds[part][mask]]

    @property
    def encoders(self) -> Encoders:
        return Encoders(self.schema.domains, self.users.encoder, self.items.encoder)


def prepare(
    tables: _Tables,
    schema: TableSchema | None,
    report: Report,
    *,
    valid: float,
    test: float,
    seed: int,
    disk: Disk | None = None,
) -> Prepared | None:
    """Read and encode the tables. None when the report has errors; each stage reports all that it finds before the next.

    Args:
        disk: keeps what grows with the records; in memory by default.
    """
    check_shares(valid, test)
    inferred, schema = schema is None, schema or _infer(tables, report)
    records = read_interactions(tables.interactions, schema.domains, report, disk)
    names = schema.domains or sorted(records.domains.codes)
    if inferred and names:
        schema = schema.model_copy(update={"domains": names})
    report.schema = schema.to_yaml()
    records = records.renumber(names)
    read = {side: _read_side_table(tables, side, schema, records, report) for side in SIDES}
    if not report.ok:
        return None
    split = records.split(valid, test, seed, disk)
    tally = Tally.of(records, split)
    source = tables.interactions
    _report_split(source.file, tally, valid, test, report)
    catalogues = _catalogues(source.file, records, tally, read["item"], report)
    if not report.ok:
        return None
    sides = {side: _encode(side, schema, records, tally, read[side]) for side in SIDES}
    for side in SIDES:
        report_coverage(source.file, tables.side(side), side, records, tally, read[side], sides[side].encoder, report)
    report.facts = {
        "records": len(records),
        **tally.parts,
        "users": len(sides["user"].ids),
        "items": len(sides["item"].ids),
        "domains": len(names),
    }
    features = (sides[side].encoder.features for side in SIDES)
    return Prepared(
        Schema(tuple(names), *features, schema.history),
        records,
        split,
        tally.parts,
        [np.sort(sides["item"].row_of[c]) for c in catalogues],
        *sides.values(),
        _notes(tables, split, sides),
    )


def _notes(tables: _Tables, split: Split, sides: dict[str, Side]) -> dict[str, str]:
    sources = [s.file for s in (tables.interactions, tables.users, tables.items) if s is not None]
    cold = {side: len(sides[side].ids) - len(sides[side].encoder.ids) for side in SIDES}
    return {
        "source": ", ".join(sources),
        "split": split.how,
        "fitted": "vocabularies and scales come from the users and items of the training part alone",
        "without training records": f"{cold['user']:,} users and {cold['item']:,} items: their id is unknown, code 0",
    }


def _read_side_table(tables: _Tables, side: str, schema: TableSchema, records: Records, report: Report) -> SideTable:
    source, specs = tables.side(side), getattr(schema, f"{side}s")
    if source is not None:
        report_columns(source, side, specs, report)
        return read_side(source, side, specs, records.ids(side), records.domains, report)
    if specs and not any(d.file.startswith(f"{side}s") for d in report.errors):
        message = f"the schema lists features of {side}s, but there is no table {side}s"
        report.add("error", f"{side}s", "", message, "add the table, or take the features out of the schema")
    return SideTable({})


def _report_split(file: str, tally: Tally, valid: float, test: float, report: Report) -> None:
    if not tally.parts["train"]:
        message = "no record is early enough for the training part"
        remedy = "ask for smaller valid and test, or drop the column if all moments are the same"
        report.add("error", file, "timestamp", message, remedy)
    for part, share in (("valid", valid), ("test", test)):
        if share and not tally.parts[part]:
            message = f"the {part} part is empty"
            report.add("warning", file, "", message, "give more records, or a larger share")


def _catalogues(file: str, records: Records, tally: Tally, items: SideTable, report: Report) -> list[np.ndarray]:
    """Items that each domain can show, by number of the id."""
    catalogues = []
    for d, name in enumerate(records.domains.codes):
        shown = np.union1d(np.flatnonzero(tally.shown[d]), items.shown_item[items.shown_domain == d])
        catalogues.append(shown)
        if len(shown) >= 2 and tally.trained[d]:
            continue
        rows, count = first_rows(records, lambda part, d=d: records.domain[part] == d)
        if len(shown) < 2:
            what = f"{len(shown)} item{'s' * (len(shown) != 1)}"
            message = f"domain {name!r} has {what} to show, from {tally.trained[d]:,} training of {count:,} records"
            remedy = "drop the domain or merge it with another, or name its items in the items' table"
            report.add("error", file, "domain", message, remedy, rows, count=count)
        else:
            message = f"domain {name!r} has no training record, so that nothing is learnt about it"
            report.add("warning", file, "domain", message, "give it records, or drop it", rows, count=count)
    return catalogues


def _encode(side: str, schema: TableSchema, records: Records, tally: Tally, table: SideTable) -> Side:
    ids = records.ids(side)
    group = np.full(len(ids), 2)
    group[table.listed] = 1
    group[tally.learnt[side]] = 0
    order = np.lexsort((ids.sort_keys(), group))
    row_of = np.empty(len(ids), dtype=np.int64)
    row_of[order] = np.arange(len(ids))
    known, num_domains = int((group == 0).sum()), len(records.domains)
    specs = getattr(schema, f"{side}s")
    raw = {name: c.finish(row_of, len(ids), num_domains) for name, c in table.collectors.items()}
    texts = list(ids.codes)
    id_feature = getattr(schema, f"{side}_id")
    encoder = SideEncoder.fit(side, specs, raw, [texts[i] for i in order[:known]], id_feature, num_domains)
    codes = np.where(np.arange(len(ids)) < known, np.arange(len(ids)) + 1, 0)
    return Side(ids.to_array(order), row_of, encoder, encoder.transform(raw, codes, num_domains))


def _dataset(name: str, read: Prepared) -> MultiDomainDataset:
    def part(mask: np.ndarray) -> Interactions:
        return Interactions(*map(torch.from_numpy, read.columns(slice(None), mask)))

    return MultiDomainDataset(
        name=name,
        schema=read.schema,
        user_ids=read.users.ids,
        item_ids=read.items.ids,
        users=read.users.columns,
        items=read.items.columns,
        train=part(read.split.train),
        valid=part(read.split.valid),
        test=part(read.split.test),
        catalogues=tuple(map(torch.from_numpy, read.catalogues)),
        notes=read.notes,
        encoders=read.encoders,
    )
