"""Files of public data sets: where they come from, where they are kept, and proof that they are the right ones.

A file is looked for in three places: the folder that ``ADI_LITE_MIRROR`` names (laid out as the cache is), the cache,
the network. With a mirror the network is never asked. Every file with a published hash is checked on every use.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

CHECKOUT = Path(__file__).resolve().parents[2]
CHUNK = 1 << 20
TIMEOUT_S = 20
_unreachable: dict[str, str] = {}  # optional files that the network did not give: asked for once a process


class DataFileError(ValueError):
    """A data file is missing, altered or wrongly shaped; the message names the file and says what would be right."""


class OutOfReachError(DataFileError):
    """A file that is in none of the mirror, the cache and the network; an altered file is never this."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        path: place below the cache and below a mirror, e.g. ``wsdm22-xmarket/s1/train_5core.tsv``.
        url: public address; "" where there is none to fetch from without a login.
        hash: ``sha256:…``, ``md5:…`` or ``git:…`` (git blob id); "" where none is known.
        hint: how to get the file by hand, added to the error when it is missing.
    """

    path: str
    url: str = ""
    hash: str = ""
    hint: str = ""


@dataclass(frozen=True)
class LocalFile:
    """A file on this disk, and what was checked about it ("sha256 as published", "no published hash known", ...)."""

    path: Path
    check: str


def cache_dir() -> Path:
    """Folder for downloaded files: ``ADI_LITE_CACHE``, else data/raw of a checkout, else the user's cache folder."""
    if chosen := os.environ.get("ADI_LITE_CACHE"):
        return Path(chosen).expanduser()
    if (CHECKOUT / "pyproject.toml").is_file() and (CHECKOUT / "data").is_dir():
        return CHECKOUT / "data" / "raw"
    return Path(pooch.os_cache("adi-lite"))


def mirror_dir() -> Path | None:
    """Folder that stands in for the network (``ADI_LITE_MIRROR``), or None. A folder that is not there is an error."""
    chosen = os.environ.get("ADI_LITE_MIRROR")
    if not chosen:
        return None
    mirror = Path(chosen).expanduser()
    if not mirror.is_dir():
        raise DataFileError(
            f"ADI_LITE_MIRROR names {chosen}, which is not a folder; name a folder of data sets, or unset it"
        )
    return mirror


def file_hash(path: Path, kind: str) -> str:
    """Hex digest of a file. ``kind`` is ``sha256``, ``md5`` or ``git`` (sha1 of ``blob <size>\\0`` and the content)."""
    if kind == "git":
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    elif kind in ("sha256", "md5"):
        digest = hashlib.new(kind, usedforsecurity=False)
    else:
        raise ValueError(f"unknown kind of hash {kind!r}; known are sha256, md5, git")
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def verify(path: Path, expected: str) -> str:
    """Check ``path`` against ``expected`` (``kind:digest`` or ""); return what was checked, in words.

    Raises:
        DataFileError: the digests differ; the message gives the file and both.
    """
    if not expected:
        return "no published hash known"
    kind, want = expected.split(":")
    found = file_hash(path, kind)
    if found != want:
        name = "git blob id" if kind == "git" else kind
        raise DataFileError(
            f"{path}: not the published file ({path.stat().st_size:,} bytes): {name} expected {want}, found {found}; "
            "it may be truncated or altered: remove it and fetch it again"
        )
    return "git blob id as published" if kind == "git" else f"{kind} as published"


def fetch(file: RemoteFile, required: bool = True) -> LocalFile | None:
    """Find ``file`` in the mirror, the cache or the network, in this order, checked against its hash.

    A file that fails its check is never kept in the cache. A mirror's file is read where it lies.

    Returns:
        The file, or None where it is not required and cannot be had.

    Raises:
        OutOfReachError: a required file cannot be had.
        DataFileError: a file is not the published one.
    """
    mirror = mirror_dir()
    if mirror and (mirror / file.path).is_file():
        return LocalFile(mirror / file.path, verify(mirror / file.path, file.hash))
    cached = cache_dir() / file.path
    if cached.is_file():
        try:
            return LocalFile(cached, verify(cached, file.hash))
        except DataFileError:
            if mirror or not file.url:
                raise
            cached.unlink()  # a bad copy of a file that can be fetched again
    if mirror:
        reason = f"the mirror {mirror} (ADI_LITE_MIRROR) does not have it, and a mirror replaces the network"
    elif not file.url:
        reason = "it cannot be downloaded without a login"
    else:
        reason = _unreachable.get(file.url, "") if not required else ""
        if not reason:
            try:
                return LocalFile(cached, _download(file, cached))
            except requests.RequestException as error:
                reason = f"{file.url} could not be fetched ({_reason(error)})"
                _unreachable[file.url] = reason
    if not required:
        return None
    raise OutOfReachError(
        f"{file.path} is missing: {reason}. {file.hint or 'Go online once'}, or put the file at {cached}, "
        f"or set ADI_LITE_MIRROR to a folder that holds {file.path}"
    )


def _download(file: RemoteFile, target: Path) -> str:
    """Download next to ``target``, check, then move into place: a reader sees a whole, right file or none."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise DataFileError(
            f"cannot write to the cache {target.parent} ({error.strerror}); set ADI_LITE_CACHE"
        ) from None
    os.close(handle)
    part = Path(name)
    try:
        pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_S)(file.url, str(part), None)
        try:
            check = verify(part, file.hash)
        except DataFileError as error:
            raise DataFileError(f"download of {file.url}: {str(error).replace(str(part), target.name)}") from None
        part.chmod(0o644)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return check


def _reason(error: requests.RequestException) -> str:
    """A few words in place of the chain of causes that the error carries."""
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_S} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
