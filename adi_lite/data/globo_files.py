"""The files of Globo.com's news portal: where users get them, proof that they are the right ones, and reading them.

Only clicks and article metadata are read. The log of 3 million clicks is parsed once and kept as Parquet in the cache.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from adi_lite.atomic import replacing
from adi_lite.data.click_log import Attributes
from adi_lite.data.download import DataFileError, RemoteFile, cache_dir, fetch, file_hash, mirror_dir

FOLDER = "globo"
CLICKS, CLICKS_FOLDER = "clicks.zip", "clicks"
METADATA, METADATA_PART = "articles_metadata.csv", "articles_metadata_partial.csv"
TERMS = (
    "academic use only, no redistribution; cite Moreira, Ferreira & da Cunha (DLRS 2018) and Moreira, Jannach & "
    "da Cunha (IEEE Access 2019, arXiv 1904.10367)"
)
HINT = (
    "Globo.com's log needs a Kaggle login: take clicks.zip (and articles_metadata.csv) from "
    "https://www.kaggle.com/datasets/gspmoreira/news-portal-user-interactions-by-globocom under its terms "
    f"({TERMS}), and pass their folder as root"
)
CLICKS_HASH = "284d6fdc09869a65db4496723781dff9845367aa916d58a2d4ff0d0d8cf4d81a"
METADATA_HASH = "c17732bd4a01a06117ca3b9e37f19b5774e60fa9"
"""Git blob id of articles_metadata.csv with LF line ends; Kaggle's file has CRLF."""
COUNTS = {"clicks": 2_988_181, "users": 322_897, "articles": 46_033}
CONTEXT = {
    "environment": "click_environment",
    "device": "click_deviceGroup",
    "os": "click_os",
    "country": "click_country",
    "region": "click_region",
}
"""Features of the request, and their columns."""
COLUMNS = {
    "user": ("user_id", pa.int32()),
    "item": ("click_article_id", pa.int32()),
    "referrer": ("click_referrer_type", pa.int16()),
    "time": ("click_timestamp", pa.int64()),
    **{name: (column, pa.int16()) for name, column in CONTEXT.items()},
}


@dataclass(frozen=True)
class GloboFiles:
    """The clicks as columns (names of :data:`COLUMNS`), the articles' attributes, and what was checked."""

    clicks: Mapping[str, np.ndarray]
    articles: Attributes
    check: str


def read_globo(root: Path | None = None) -> GloboFiles:
    """Find, check and read the files.

    Args:
        root: folder of own files in the same format, in place of the published ones; their content is not compared.

    Raises:
        OutOfReachError: the clicks are nowhere; the message says how to get them.
        DataFileError: a file is not the published one, or cannot be read.
    """
    table, check = _read_clicks(root)
    articles, about = _read_articles(root)
    columns = {name: table[name].to_numpy() for name in COLUMNS}
    return GloboFiles(columns, articles, f"clicks: {check}; articles: {about}")


def _read_clicks(root: Path | None) -> tuple[pa.Table, str]:
    path = _find_clicks(root)
    if path.is_dir():
        table, check = parse_clicks(path), ""
    else:
        digest = file_hash(path, "sha256")
        table, check = _parsed(path, digest), "sha256 as known" if digest == CLICKS_HASH else ""
    if check:
        return table, check
    found = count(table)
    if found == COUNTS:
        return table, "counts as published"
    if root is not None:
        return table, "own files, not the published ones"
    differ = ", ".join(f"{found[n]:,} {n} (expected {COUNTS[n]:,})" for n in COUNTS if found[n] != COUNTS[n])
    raise DataFileError(
        f"{path}: not the published log: it holds {differ}; it may be truncated or altered: remove it and fetch it again"
    )


def count(table: pa.Table) -> dict[str, int]:
    """What is published about the log: clicks, users, articles."""
    distinct = {n: pc.count_distinct(table[column]).as_py() for n, column in (("users", "user"), ("articles", "item"))}
    return {"clicks": len(table), **distinct}


def _find_clicks(root: Path | None) -> Path:
    """clicks.zip, or the folder ``clicks`` that it unpacks to."""
    folders = [Path(root)] if root is not None else [f / FOLDER for f in (mirror_dir(), cache_dir()) if f]
    for folder in folders:
        for path in (folder / CLICKS, folder / CLICKS_FOLDER):
            if path.is_file() or (path.is_dir() and any(path.glob("*.csv"))):
                return path
    if root is not None:
        raise DataFileError(
            f"{root} holds neither {CLICKS} nor a folder {CLICKS_FOLDER} with clicks_hour_*.csv. {HINT}"
        )
    return fetch(RemoteFile(f"{FOLDER}/{CLICKS}", hint=HINT)).path


def _parsed(path: Path, digest: str) -> pa.Table:
    """The clicks of a zip file, from the cache where they were parsed before; a damaged copy is made again."""
    kept = cache_dir() / FOLDER / f"clicks-{digest[:16]}.parquet"
    if kept.is_file():
        try:
            table = pq.read_table(kept, page_checksum_verification=True)
            if table.schema.equals(_schema()):
                return table
        except (OSError, pa.ArrowException):
            pass  # parsed again below
    table = parse_clicks(path)
    try:
        with replacing(kept) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)
    except OSError:
        return table  # a cache that cannot be written to costs the next load some seconds, nothing else
    return table


def parse_clicks(path: Path) -> pa.Table:
    """Read the hourly files of clicks.zip, or of its unpacked folder, in the order of their names.

    Raises:
        DataFileError: naming the file, for one that is no zip or no such CSV, or that has an empty field.
    """
    tables = []
    for name, source in _hourly(path):
        try:
            table = pa.csv.read_csv(
                source,
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict(COLUMNS.values()), include_columns=[column for column, _ in COLUMNS.values()]
                ),
                read_options=pa.csv.ReadOptions(use_threads=False),
            )
        except (pa.ArrowException, KeyError) as error:
            raise DataFileError(f"{path}, {name}: {str(error).splitlines()[0]}; it is not as published") from None
        if empty := [c for c in table.column_names if table[c].null_count]:
            raise DataFileError(f"{path}, {name}: empty fields in {', '.join(empty)}")
        tables.append(table.rename_columns(list(COLUMNS)))
    if not tables:
        raise DataFileError(f"{path} holds no clicks_hour_*.csv")
    return pa.concat_tables(tables).combine_chunks()


def _schema() -> pa.Schema:
    return pa.schema([(name, kind) for name, (_, kind) in COLUMNS.items()])


def _hourly(path: Path) -> Iterator[tuple[str, pa.BufferReader | str]]:
    if path.is_dir():
        yield from ((file.name, str(file)) for file in sorted(path.glob("clicks_hour_*.csv")))
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if name.rsplit("/", 1)[-1].startswith("clicks_hour_"):
                    yield name, pa.BufferReader(archive.read(name))
    except zipfile.BadZipFile as error:
        raise DataFileError(f"{path}: {error}; fetch it again") from None


def _read_articles(root: Path | None) -> tuple[Attributes, str]:
    """Category, words and creation of articles: of all of them, of a part, or of none, as files are at hand."""
    for name in (METADATA, METADATA_PART):
        if root is not None:
            path = Path(root) / name
            found = path if path.is_file() else None
        else:
            local = fetch(RemoteFile(f"{FOLDER}/{name}"), required=False)
            found = local and local.path
        if found is None:
            continue
        check = _check_metadata(found, root) if name == METADATA else "a part of them, no published hash"
        articles = read_articles(found)
        return articles, f"{name}, {len(articles.ids):,} articles, {check}"
    return Attributes(), f"no {METADATA}, all attributes unknown"


def _check_metadata(path: Path, root: Path | None) -> str:
    content = path.read_bytes().replace(b"\r\n", b"\n")
    found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found == METADATA_HASH:
        return "git blob id as published"
    if root is not None:
        return "not the published file"
    raise DataFileError(
        f"{path}: not the published file: git blob id (with LF line ends) expected {METADATA_HASH}, found {found}; "
        "it may be truncated or altered: remove it and fetch it again"
    )


def read_articles(path: Path) -> Attributes:
    """Attributes of the articles of a metadata file; ``publisher_id`` is left out: it is 0 throughout."""
    names = ["article_id", "category_id", "created_at_ts", "words_count"]
    try:
        options = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.int64()), include_columns=names)
        table = pa.csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, KeyError) as error:
        raise DataFileError(f"{path}: {str(error).splitlines()[0]}; expected columns {', '.join(names)}") from None
    table = table.sort_by("article_id")
    ids, category, created, words = (pc.fill_null(table[n], -1).to_numpy() for n in names)
    if len(ids) and (ids[0] < 0 or bool((np.diff(ids) == 0).any())):
        raise DataFileError(f"{path}: an article without an id, or with two rows")
    return Attributes(
        ids=ids,
        categorical={"category": category},
        dense={"words": np.log1p(np.maximum(words, 0)).astype(np.float32)},
        created=created,
    )
