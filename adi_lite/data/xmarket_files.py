"""The files of one cross-market market: where they are published, and reading them with errors that name the line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from adi_lite.data.download import DataFileError, LocalFile, RemoteFile, cache_dir, fetch, mirror_dir, verify

FOLDER = "wsdm22-xmarket"
HOME = "https://raw.githubusercontent.com/hamedrab/wsdm22_cup_xmrec/main/DATA"
PUBLISHED = ("s1", "s2", "s3", "t1", "t2")
TRAIN, QREL, RUN = "train_5core.tsv", "valid_qrel.tsv", "valid_run.tsv"
COLUMNS = ["userId", "itemId", "rating"]
HASHES = {
    "s1/train_5core.tsv": "sha256:20e099564c6760299fb4266823f1e78d15a31c3bcf34e59000d5e1b2a5847400",
    "s1/valid_qrel.tsv": "sha256:c8e59e0f24e5dff4a4e3d0775bc9beead9af891ff42312cd0094d2c7e88f6e68",
    "s1/valid_run.tsv": "git:32b8fa17a0ff6b8df52038bba8dbac8cdd10ec13",
    "s2/train_5core.tsv": "sha256:ca80ec9723d0cb2864f0c7ce104ef78a722ea441dda48042bd792e997f9b3e37",
    "s2/valid_qrel.tsv": "sha256:998fabebfc1bef764de80377a493b3829007693c00b946aa4b0c05b8eed7f567",
    "s2/valid_run.tsv": "git:25563ad5a45787a6442f1ddf42757620e924bf83",
    "s3/train_5core.tsv": "sha256:844b4a0c00baed1738da0b7760e272ac05dbb46c7eefb661b2cb8a08175e9ba7",
    "s3/valid_qrel.tsv": "sha256:fc035e19278139ebba2185b4b17b37738870857d3fe8494251997c37053d4e69",
    "s3/valid_run.tsv": "sha256:507ba8f8298097f4039bcd09858fb9c37ce25849305c59ef1809a8dacbb2087d",
}


@dataclass(frozen=True)
class MarketFiles:
    """What the files of one market say, ids as they stand there.

    Attributes:
        train, test: columns userId, itemId (str) and rating (float).
        run: official candidate lists as (users (q,), items (q, c)) arrays of str, or None where the file is absent.
        check: what was verified about the files.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    run: tuple[np.ndarray, np.ndarray] | None
    check: str


def remote_file(market: str, name: str) -> RemoteFile:
    """Where a file of a market is published. A market that is not of the cup has no address and no hash."""
    url = f"{HOME}/{market}/{name}" if market in PUBLISHED else ""
    return RemoteFile(f"{FOLDER}/{market}/{name}", url, HASHES.get(f"{market}/{name}", ""))


def fetch_market(market: str, root: Path | None = None) -> dict[str, LocalFile | None]:
    """Find the files of ``market`` by name, downloading what is not here; the candidate file may be None.

    ``root`` is a folder of own files, ``root/<market>/train_5core.tsv`` and so on, in place of the published ones.

    Raises:
        DataFileError: an unknown market, or a file that is missing or altered.
    """
    return {name: _find(market, name, root) for name in (TRAIN, QREL, RUN)}


def read_market(market: str, root: Path | None = None) -> MarketFiles:
    """Find and read the files of ``market``; see :func:`fetch_market`.

    Raises:
        DataFileError: an unknown market, or a file that is missing, altered or wrongly shaped.
    """
    files = fetch_market(market, root)
    run = files[RUN]
    return MarketFiles(
        train=read_records(files[TRAIN].path),
        test=read_records(files[QREL].path),
        run=read_run(run.path) if run else None,
        check="; ".join(sorted({file.check for file in files.values() if file})),
    )


def _find(market: str, name: str, root: Path | None) -> LocalFile | None:
    file, optional = remote_file(market, name), name == RUN
    if root is not None:
        path = Path(root) / market / name
        if path.is_file():
            return LocalFile(path, _compare(path, file.hash))
        if optional:
            return None
        if not path.parent.is_dir():
            raise _unknown_market(market, [Path(root)])
        raise DataFileError(f"{path} is missing; a market needs {TRAIN} and {QREL}, and may have {RUN}")
    folders = [base / FOLDER for base in (mirror_dir(), cache_dir()) if base]
    if market not in PUBLISHED and not any((folder / market).is_dir() for folder in folders):
        raise _unknown_market(market, folders)
    return fetch(file, required=not optional)


def _compare(path: Path, published: str) -> str:
    """As verify, but own files may differ from the published ones of the same name: the data set's notes say so."""
    try:
        return verify(path, published)
    except DataFileError:
        return "own files, not the published ones"


def _unknown_market(market: str, folders: list[Path]) -> DataFileError:
    own = {p.parent.name for folder in folders for p in folder.glob(f"*/{TRAIN}")} - set(PUBLISHED)
    found = f"; also found: {', '.join(sorted(own))}" if own else ""
    places = " or ".join(str(folder / market) for folder in folders)
    return DataFileError(
        f"unknown market {market!r}: known are {', '.join(PUBLISHED)}{found}. "
        f"For a market of your own put {TRAIN} and {QREL} into {places}"
    )


def read_records(path: Path) -> pd.DataFrame:
    """Read userId, itemId, rating (tab-separated, with header); other columns are ignored.

    Raises:
        DataFileError: naming file and line, for an empty file, a missing column, a wrong delimiter, a line of another
            length, an empty id or a rating that is not a finite number.
    """
    first, *lines = _lines(path)
    header = first.split("\t")
    missing = [c for c in COLUMNS if c not in header]
    if missing:
        hint = "; the line holds no tab: the file must be tab-separated" if len(header) == 1 else ""
        raise DataFileError(f"{path}, line 1: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}{hint}")
    if len(set(header)) < len(header):
        raise DataFileError(f"{path}, line 1: column names must differ, found {', '.join(header)}")
    if not lines:
        raise DataFileError(f"{path}: no record after the header")
    frame = _table(path, lines, header, first_line=2)[COLUMNS]
    rating = pd.to_numeric(frame["rating"], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    for column in COLUMNS:
        _refuse(path, 2, frame[column] == "", f"no {column}; expected {', '.join(header)}, separated by tabs")
    bad = ~np.isfinite(rating)
    what = f"rating {frame['rating'].iloc[int(bad.argmax())]!r} is not a number" if bad.any() else ""
    _refuse(path, 2, bad, what)
    return frame.assign(rating=rating)


def read_run(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read candidate lists: a user, a tab, comma-separated items, all lists of one length; no header.

    Returns:
        users (q,) and items (q, c), arrays of str.
    """
    frame = _table(path, _lines(path), ["userId", "items"], first_line=1)
    for column in ("userId", "items"):
        _refuse(path, 1, frame[column] == "", f"no {column}; expected a user, a tab, items with commas between")
    _refuse(path, 1, frame["userId"].duplicated(), "a second list for the same user")
    lists = pc.split_pattern(pa.array(frame["items"], type=pa.large_string()), ",")
    lengths = pc.list_value_length(lists).to_numpy()
    wrong = lengths != lengths[0]
    _refuse(
        path, 1, wrong, f"{lengths[wrong.argmax()]} candidates, but line 1 has {lengths[0]}; all lists need one length"
    )
    items = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(str).reshape(len(frame), -1)
    ordered = np.sort(items, axis=1)
    _refuse(path, 1, (ordered[:, 1:] == ordered[:, :-1]).any(1), "the same candidate twice")
    _refuse(path, 1, (items == "").any(1), "an empty candidate")
    return frame["userId"].to_numpy().astype(str), items


def _lines(path: Path) -> list[str]:
    """The lines of a text file, without blank lines at its end."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise DataFileError(f"{path}, line {line}: not UTF-8 text; is the file compressed or damaged?") from None
    except OSError as error:
        raise DataFileError(f"{path} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise DataFileError(f"{path} is empty")
    if "\0" in text:
        raise DataFileError(
            f"{path}, line {text[: text.index(chr(0))].count(chr(10)) + 1}: a zero byte; the file is damaged"
        )
    return text.rstrip("\n").split("\n")


def _table(path: Path, lines: list[str], names: list[str], first_line: int) -> pd.DataFrame:
    """Tab-separated lines as columns of str; each line has as many fields as there are names, nothing is quoted."""
    text = pa.array(lines, type=pa.large_string())
    fields = pc.count_substring(text, "\t").to_numpy() + 1
    wrong = fields != len(names)
    what = f"found {fields[wrong.argmax()]} fields" if wrong.any() else ""
    _refuse(path, first_line, wrong, f"{what}, expected {len(names)}, separated by tabs: {', '.join(names)}")
    split = pc.split_pattern(text, "\t")
    return pd.DataFrame({name: pc.list_element(split, k).to_pandas() for k, name in enumerate(names)})


def _refuse(path: Path, first_line: int, bad: pd.Series | np.ndarray, what: str) -> None:
    """Raise for the first row that is bad, with its line number and how many there are."""
    bad = np.asarray(bad, dtype=bool)
    if bad.any():
        more = f" (and {int(bad.sum()) - 1} more lines like it)" if bad.sum() > 1 else ""
        raise DataFileError(f"{path}, line {int(bad.argmax()) + first_line}: {what}{more}")
