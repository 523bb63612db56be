"""Packed data sets: folders of arrays that training reads in place, for more records than memory holds.

``packed.json`` describes the folder and is written last; every array is an ``.npy`` file, little-endian, mapped into memory
when it is opened. The system reads the pages that are asked for and drops them when memory is short.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from adi_lite import __version__
from adi_lite.data.chunks import chunks, group
from adi_lite.data.defects import Report
from adi_lite.data.disk import Disk, NpyWriter, map_npy, new_npy
from adi_lite.data.encoders import Encoders, IdTexts, SideEncoder
from adi_lite.data.fingerprint import fingerprint, records_fingerprint
from adi_lite.data.schema import Column, Interactions, MultiDomainDataset, Ragged, Schema, Stamp
from adi_lite.data.sources import parquet_parts
from adi_lite.data.tables import Prepared, load_folder, open_folder, prepare, table_paths

FORMAT = 1
DESCRIPTION = "packed.json"
PARTS = ("train", "valid", "test")
COLUMNS = ("user", "item", "domain", "timestamp")
_AGAIN = "copy the folder again, whole, or pack the tables again"


class PackedError(ValueError):
    """A folder that cannot be packed into, or is no sound packed data set; the message says which file and what to do."""


class ArrayFile(BaseModel):
    """One array: its file, numpy's name of its type, its shape, and the SHA-256 of the file."""

    file: str
    kind: str
    shape: list[int]
    sha256: str


class SourceFile(BaseModel):
    """One of the files that were packed, as it was then."""

    file: str
    size: int
    modified_ns: int


class Description(BaseModel):
    """What ``packed.json`` says.

    Attributes:
        format: of this folder, :data:`FORMAT`.
        version: of the library that wrote it.
        name, data_schema, notes: of the data set.
        encoders: as :meth:`Encoders.to_dict` has them, without the ids, which are the first of the users and items.
        known: by side, how many ids the encoders know.
        options: valid, test and seed.
        facts, table_schema: what the report of the tables says.
        tables, sources: the folder that was packed, and its files.
        arrays: by name, such as ``train/user``; ``item/2`` is the item feature of this number.
        stamp: hashes of the data set.
    """

    format: int
    version: str
    name: str
    data_schema: dict
    notes: dict[str, str]
    encoders: dict
    known: dict[str, int]
    options: dict[str, float]
    facts: dict[str, int]
    table_schema: str
    tables: str
    sources: list[SourceFile]
    arrays: dict[str, ArrayFile]
    stamp: Stamp | None = None


def is_packed(folder: str | Path) -> bool:
    """Whether a folder is a packed data set, be it a damaged one."""
    return (Path(folder) / DESCRIPTION).exists() or (Path(folder) / _file("train/user")).exists()


def load_own(folder: str | Path, *, name: str = "", **options: float) -> MultiDomainDataset:
    """The data set of a packed folder, or of a folder of tables with the ``options`` of :func:`load_folder`."""
    return load_packed(folder, name=name) if is_packed(folder) else load_folder(folder, name=name, **options)


# ---- packing ---------------------------------------------------------------------------------------------------------


def pack(
    tables: str | Path, packed: str | Path, *, valid: float = 0.1, test: float = 0.1, seed: int = 0, name: str = ""
) -> Report:
    """Pack a folder of tables: :func:`load_packed` of the result equals :func:`load_folder` of the tables, value by value.

    Memory holds the distinct ids and their features (as Python text: 100 to 200 bytes an id, and D bytes an item), and a
    block of records at a time, however many there are. On the disk a record takes 40 bytes (32 without a timestamp), and 24 more
    while it is packed. Unlike :func:`load_folder`, it does not look for repeated records, and all of them count.

    Args:
        tables: folder of the tables.
        packed: folder to be made; it may be there if it is empty. Until all is written it is called ``PACKED.part``.
        valid, test, seed, name: as for :func:`load_folder`.

    Returns:
        What is to be said of the tables: facts, warnings and notes.

    Raises:
        DataError: the tables cannot be loaded; it lists every defect.
        PackedError: ``packed`` is not free, or the tables changed meanwhile.
    """
    tables, packed, report = Path(tables), Path(packed), Report()
    with _new_folder(packed) as folder:
        before = _sources(tables)
        work = folder / "working"
        work.mkdir()
        disk = Disk(work)
        try:
            opened = open_folder(tables, report, disk)
            read = opened and prepare(*opened, report, valid=valid, test=test, seed=seed, disk=disk)
        finally:
            disk.close()
        report.raise_errors()
        if changed := _changed(before, _sources(tables)):
            raise PackedError(f"{tables / changed[0]} changed while it was read; pack the tables again")
        written = _write(folder, read)
        shutil.rmtree(work)
        encoders = replace(read.encoders, **{s: replace(getattr(read.encoders, s), ids=()) for s in ("user", "item")})
        about = Description(
            format=FORMAT,
            version=__version__,
            name=name or tables.resolve().name,
            data_schema=read.schema.to_dict(),
            notes=read.notes,
            encoders=encoders.to_dict(),
            known={side: len(getattr(read.encoders, side).ids) for side in ("user", "item")},
            options={"valid": valid, "test": test, "seed": seed},
            facts=report.facts,
            table_schema=report.schema,
            tables=str(tables.resolve()),
            sources=before,
            arrays={name: _describe_array(folder, name) for name in written},
        )
        data = _open(folder, about, "")  # without a stamp, so that it is checked
        about.stamp = Stamp(fingerprint(data), records_fingerprint(data))
        (folder / DESCRIPTION).write_text(about.model_dump_json(indent=1))
    return report


@contextmanager
def _new_folder(packed: Path) -> Iterator[Path]:
    """A folder beside ``packed`` that becomes it if all goes well, and is removed if not."""
    if packed.exists() and not packed.is_dir():
        raise PackedError(f"{packed} is a file; name a folder, which is made if it is not there")
    if packed.is_dir() and any(packed.iterdir()):
        what = "a packed data set" if is_packed(packed) else "other files"
        raise PackedError(f"{packed} holds {what}: remove it, or name another folder")
    folder = packed.with_name(f"{packed.name}.part")
    packed.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        raise PackedError(
            f"{folder} is there: if nothing is packing now, an earlier packing was interrupted; remove it"
        ) from None
    try:
        yield folder
        os.replace(folder, packed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sources(tables: Path) -> list[SourceFile]:
    paths = [p for stem in ("interactions", "users", "items") for p in table_paths(tables, stem)]
    files = [f for p in paths for f in (parquet_parts(p) if p.is_dir() else [p])]
    schema = tables / "schema.yaml"
    found = [(f, f.stat()) for f in [*files, *[schema] * schema.exists()]]
    return [SourceFile(file=str(f.relative_to(tables)), size=s.st_size, modified_ns=s.st_mtime_ns) for f, s in found]


def _changed(then: list[SourceFile], now: list[SourceFile]) -> list[str]:
    """Files that are there in one of the lists only, or not the same in both."""
    return sorted({f.file for f in [*then, *now] if f not in then or f not in now})


def _file(array: str) -> str:
    return array.replace("/", "_") + ".npy"


def _write(folder: Path, read: Prepared) -> list[str]:
    """Write the arrays: records in one pass over them, then histories, then all that is in memory. Gives their names."""
    names = _write_records(folder, read)
    if read.schema.history:
        user, item = (map_npy(folder / _file(f"train/{column}")) for column in ("user", "item"))
        values = new_npy(folder / _file("history/values"), np.int64, len(item))
        np.save(folder / _file("history/offsets"), group(user, item, len(read.users.ids), values))
        names += ["history/values", "history/offsets"]
    in_memory = _in_memory(read)
    for name, values in in_memory.items():
        np.save(folder / _file(name), np.ascontiguousarray(values))
    return [*names, *in_memory]


def _write_records(folder: Path, read: Prepared) -> list[str]:
    columns = COLUMNS if read.records.seconds is not None else COLUMNS[:3]
    with ExitStack() as files:
        writers = {
            part: [
                files.enter_context(NpyWriter(folder / _file(f"{part}/{column}"), np.int64, read.parts[part]))
                for column in columns
            ]
            for part in PARTS
        }
        for piece in chunks(len(read.records)):
            for part in PARTS:
                values = read.columns(piece, getattr(read.split, part)[piece])
                for writer, column in zip(writers[part], values, strict=True):
                    writer.add(column)
    return [f"{part}/{column}" for part in PARTS for column in columns]


def _in_memory(read: Prepared) -> dict[str, np.ndarray]:
    """The arrays that do not grow with the records, by name; a feature is called by its number."""
    arrays = {"user_ids": read.users.ids, "item_ids": read.items.ids}
    arrays |= {f"catalogue/{d}": rows for d, rows in enumerate(read.catalogues)}
    for side, columns in (("user", read.users.columns), ("item", read.items.columns)):
        for n, feature in enumerate(getattr(read.schema, side)):
            column = columns[feature.name]
            if isinstance(column, Ragged):
                arrays |= {f"{side}/{n}/{what}": getattr(column, what).numpy() for what in ("values", "offsets")}
            else:
                arrays[f"{side}/{n}"] = column.numpy()
    return arrays


def _describe_array(folder: Path, name: str) -> ArrayFile:
    path = folder / _file(name)
    array = map_npy(path)
    return ArrayFile(file=path.name, kind=array.dtype.str, shape=list(array.shape), sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- reading ---------------------------------------------------------------------------------------------------------


def load_packed(folder: str | Path, *, name: str = "") -> MultiDomainDataset:
    """The data set of a packed folder, in a moment, whatever its size: its arrays stay on the disk.

    Values are not read through; that was done when they were written, and :func:`check_packed` does it again. What is written
    to a tensor stays in this process. The folder must stay as it is while the data set is in use.

    Args:
        name: of the data set; by default that of the tables.

    Raises:
        PackedError: a file is missing, damaged or of another version.
    """
    about = read_description(Path(folder))
    return _open(Path(folder), about, name, about.stamp)


def check_packed(folder: str | Path) -> Report:
    """Read a packed folder through: every damaged file is an error, every table that has changed since a warning."""
    folder, report = Path(folder), Report()
    try:
        about = read_description(folder)
    except PackedError as error:
        report.add("error", DESCRIPTION, "", str(error), _AGAIN)
        return report
    for array in about.arrays.values():
        try:
            _map(folder, array)
            if _sha256(folder / array.file) != array.sha256:
                report.add("error", array.file, "", "does not hold what was packed", _AGAIN)
        except PackedError as error:
            report.add("error", array.file, "", str(error), _AGAIN)
    if report.ok:
        try:
            _open(folder, about, "", about.stamp)
        except PackedError as error:
            report.add("error", DESCRIPTION, "", str(error), _AGAIN)
    tables = Path(about.tables)
    if tables.is_dir():
        for file in _changed(about.sources, _sources(tables)):
            report.add("warning", file, "", f"has changed in {tables} since it was packed", "pack the tables again")
    report.facts, report.schema = dict(about.facts), about.table_schema
    return report


def read_description(folder: Path) -> Description:
    """What a packed folder says of itself.

    Raises:
        PackedError: there is no description, or it is damaged or of another version.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise PackedError(
            f"{folder} is no whole packed data set: it has no {DESCRIPTION}; adi-lite data pack makes one"
        )
    try:
        text = path.read_bytes()
        found = _Version.model_validate_json(text).format
        if found == FORMAT:
            return Description.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise PackedError(
            f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}; pack the tables again"
        ) from None
    raise PackedError(
        f"{path} has format {found}, this version reads format {FORMAT}: pack the tables again, or use the version of "
        f"adi-lite that packed them"
    )


class _Version(BaseModel):
    format: int


def _map(folder: Path, array: ArrayFile) -> np.ndarray:
    path = folder / array.file
    if not path.is_file():
        raise PackedError(f"{path} is missing; {_AGAIN}")
    try:
        values = map_npy(path)
    except (OSError, ValueError) as error:
        raise PackedError(f"{path} is damaged: {error}; {_AGAIN}") from None
    if (values.dtype.str, list(values.shape)) != (array.kind, array.shape):
        raise PackedError(
            f"{path} is damaged: it holds {values.dtype.str} of shape {list(values.shape)} where {DESCRIPTION} says "
            f"{array.kind} of shape {array.shape}; {_AGAIN}"
        )
    return values


def _open(folder: Path, about: Description, name: str, stamp: Stamp | None = None) -> MultiDomainDataset:
    mapped = {key: _map(folder, array) for key, array in about.arrays.items()}
    try:
        return _assemble(about, mapped.__getitem__, name, stamp)
    except (KeyError, TypeError) as error:
        raise PackedError(f"{folder / DESCRIPTION} is damaged: it lacks {error}; pack the tables again") from None


def _assemble(
    about: Description, array: Callable[[str], np.ndarray], name: str, stamp: Stamp | None
) -> MultiDomainDataset:
    schema = Schema.from_dict(about.data_schema)

    def tensor(key: str) -> torch.Tensor:
        return torch.from_numpy(array(key))

    def ragged(key: str) -> Ragged:
        return Ragged(tensor(f"{key}/values"), tensor(f"{key}/offsets"))

    def records(part: str) -> Interactions:
        timed = f"{part}/timestamp" in about.arrays
        return Interactions(*(tensor(f"{part}/{column}") for column in (COLUMNS if timed else COLUMNS[:3])))

    def columns(side: str) -> dict[str, Column]:
        keys = {f.name: (f.kind, f"{side}/{n}") for n, f in enumerate(getattr(schema, side))}
        return {f: ragged(key) if kind == "bag" else tensor(key) for f, (kind, key) in keys.items()}

    def encoder(side: str) -> SideEncoder:
        ids = IdTexts(array(f"{side}_ids"), about.known[side])
        return replace(SideEncoder.from_dict(about.encoders[side]), ids=ids)

    return MultiDomainDataset(
        name=name or about.name,
        schema=schema,
        user_ids=array("user_ids"),
        item_ids=array("item_ids"),
        users=columns("user"),
        items=columns("item"),
        train=records("train"),
        valid=records("valid"),
        test=records("test"),
        catalogues=tuple(tensor(f"catalogue/{d}") for d in range(schema.num_domains)),
        history=ragged("history") if schema.history else None,
        notes=about.notes,
        encoders=Encoders(schema.domains, encoder("user"), encoder("item")),
        stamp=stamp,
    )
