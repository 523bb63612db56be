"""The files of KuaiRand-Pure: download, proof that they are the right ones, and reading them.

Read are the standard log and the tables of users and videos. The table of video statistics is left alone: its counts are
totals over all scenarios and all of the time, so that a model that reads them knows the test.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from adi_lite.data.click_log import Attributes
from adi_lite.data.download import DataFileError, LocalFile, RemoteFile, cache_dir, fetch, verify
from adi_lite.data.schema import Ragged

FOLDER = "kuairand-pure"
ARCHIVE = RemoteFile(
    f"{FOLDER}/KuaiRand-Pure.tar.gz",
    "https://zenodo.org/records/10439422/files/KuaiRand-Pure.tar.gz",
    "md5:0820331067a3784d9691136f772b35a7",
    "Go online once (47 MB from Zenodo), or pass the folder of its files as root",
)
LOGS = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
LOG_PART = "log_standard_4_25_to_5_08_pure.csv.gz"
"""Fourteen of the thirty days: not published so, but enough for the default split."""
USERS, VIDEOS = "user_features_pure.csv", "video_features_basic_pure.csv"
HASHES = {
    LOGS[0]: "git:63cba5f8bfd8c5ff7c9b3f8026ee30efabc03ac0",
    LOGS[1]: "git:781ec289dbce48096c67801771873ea960f6d038",
    USERS: "git:3d116a62893fe31d2f30f12a4baa187b50fa699b",
    VIDEOS: "git:7bdda47cf8d14d0685cc374539e71d7ed929f635",
}
USER_FEATURES = (
    "user_active_degree",
    "is_live_streamer",
    "is_video_author",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
    *(f"onehot_feat{n}" for n in range(18)),
)
VIDEO_FEATURES = {
    "author": "author_id",
    "video_type": "video_type",
    "upload_type": "upload_type",
    "music_type": "music_type",
}
LOG_COLUMNS = ("user_id", "video_id", "time_ms", "is_click", "tab")


@dataclass(frozen=True)
class KuaiRandFiles:
    """Clicks as columns user, item, tab, time; attributes of users and videos; facts for the notes."""

    clicks: Mapping[str, np.ndarray]
    users: Attributes
    videos: Attributes
    notes: Mapping[str, str]


def read_kuairand(root: Path | None = None) -> KuaiRandFiles:
    """Find (or download), check and read the files.

    Args:
        root: folder of own files of these names, in place of the published ones; their content is not compared.

    Raises:
        OutOfReachError: the files can be had from nowhere.
        DataFileError: a file is not the published one, or cannot be read.
    """
    logs, users, videos = _find(root)
    clicks, about = read_log([log.path for log in logs])
    extent = "14 of 30 days" if logs[0].path.name == LOG_PART else "the whole standard log"
    checks = "; ".join(f"{f.path.name}: {f.check}" for f in (*logs, users, videos))
    notes = {
        "files": f"{extent}; {checks}",
        "positives": f"is_click = 1; {about}",
        "left out": "video_features_statistic: totals over all scenarios and all of the time, which give the test away",
        "terms": "KuaiRand-Pure (Gao et al., CIKM 2022), CC BY-SA 4.0",
    }
    return KuaiRandFiles(clicks, read_users(users.path), read_videos(videos.path), notes)


def _find(root: Path | None) -> tuple[tuple[LocalFile, ...], LocalFile, LocalFile]:
    """The logs (the whole one, else the part), the users and the videos."""
    if found := _at_hand(root):
        return found
    if root is not None:
        raise DataFileError(
            f"{root} lacks files of KuaiRand-Pure: it needs {USERS}, {VIDEOS} and either {' and '.join(LOGS)} "
            f"or {LOG_PART}"
        )
    extract(fetch(ARCHIVE).path, cache_dir() / FOLDER)
    found = _at_hand(None)
    if not found:
        raise DataFileError(f"{ARCHIVE.path} holds no {', '.join(HASHES)}")
    return found


def _at_hand(root: Path | None) -> tuple[tuple[LocalFile, ...], LocalFile, LocalFile] | None:
    users, videos, *whole = (_look(name, root) for name in (USERS, VIDEOS, *LOGS))
    if not users or not videos:
        return None
    if all(whole):
        return tuple(whole), users, videos
    part = _look(LOG_PART, root)
    return ((part,), users, videos) if part else None


def _look(name: str, root: Path | None) -> LocalFile | None:
    expected = HASHES.get(name, "")
    if root is None:
        return fetch(RemoteFile(f"{FOLDER}/{name}", hash=expected), required=False)
    for path in (Path(root) / name, Path(root) / "data" / name):
        if path.is_file():
            try:
                return LocalFile(path, verify(path, expected))
            except DataFileError:
                return LocalFile(path, "own file, not the published one")
    return None


def extract(archive: Path, target: Path) -> None:
    """Take the files that are read out of the archive, whatever folder they are in there; each appears whole.

    Raises:
        DataFileError: the archive cannot be read.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar, TemporaryDirectory(dir=target) as folder:
            for member in tar:
                name = Path(member.name).name
                if member.isfile() and name in HASHES:
                    tar.extract(member, folder, filter="data")
                    os.replace(Path(folder) / member.name, target / name)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataFileError(f"{archive} cannot be unpacked into {target}: {error}") from None


def read_log(paths: list[Path]) -> tuple[dict[str, np.ndarray], str]:
    """The clicks of log files, without exact duplicates of whole rows, and how many rows there were."""
    rows = pd.concat([_read(path, LOG_COLUMNS) for path in paths], ignore_index=True)
    twice = rows.duplicated()
    clicks = rows[~twice & (rows["is_click"] == 1)]
    names = {"user": "user_id", "item": "video_id", "tab": "tab", "time": "time_ms"}
    about = f"{len(rows):,} rows, {int(twice.sum()):,} exact duplicates dropped, {len(clicks):,} clicks left"
    return {name: clicks[column].to_numpy(dtype=np.int64) for name, column in names.items()}, about


def read_users(path: Path) -> Attributes:
    """Profiles, as categories. Numbers are read as the ranges that are published beside them."""
    frame = _sorted(path, _read(path, ("user_id", *USER_FEATURES)), "user_id")
    return Attributes(
        ids=frame["user_id"].to_numpy(dtype=np.int64), categorical={n: _codes(frame[n]) for n in USER_FEATURES}
    )


def read_videos(path: Path) -> Attributes:
    """Author, types, tags (a bag), length, and the day of the upload as the time of creation."""
    names = ("video_id", *VIDEO_FEATURES.values(), "upload_dt", "video_duration", "tag")
    frame = _sorted(path, _read(path, names), "video_id")
    tags = frame["tag"].astype("str").str.split(",").explode()
    tags = pd.to_numeric(tags, errors="coerce").dropna().astype(np.int64)
    uploaded = pd.to_datetime(frame["upload_dt"], errors="coerce").dt.tz_localize("Asia/Shanghai")
    seconds = frame["video_duration"].fillna(0).to_numpy(dtype=np.float64) / 1000
    return Attributes(
        ids=frame["video_id"].to_numpy(dtype=np.int64),
        categorical={name: _codes(frame[column]) for name, column in VIDEO_FEATURES.items()},
        bags={"tags": Ragged.from_pairs(torch.tensor(tags.index), torch.tensor(tags.to_numpy()), len(frame))},
        dense={"duration": np.log1p(np.maximum(seconds, 0)).astype(np.float32)},
        created=np.where(uploaded.notna(), uploaded.map(lambda t: 0 if pd.isna(t) else int(t.timestamp() * 1000)), -1),
    )


def _codes(column: pd.Series) -> np.ndarray:
    """(m,) a number for each distinct value, -1 where it is missing."""
    return pd.factorize(column, sort=True)[0].astype(np.int64)


def _read(path: Path, needed: tuple[str, ...]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except (ValueError, OSError, EOFError) as error:
        raise DataFileError(f"{path}: {str(error).splitlines()[0]}") from None
    if missing := [c for c in needed if c not in frame.columns]:
        raise DataFileError(f"{path}: no column {', '.join(missing)}; it is not as published")
    if empty := [c for c in LOG_COLUMNS if c in needed and not pd.api.types.is_integer_dtype(frame[c])]:
        raise DataFileError(f"{path}: column {', '.join(empty)} must hold whole numbers")
    return frame


def _sorted(path: Path, frame: pd.DataFrame, key: str) -> pd.DataFrame:
    if not frame[key].is_unique:
        raise DataFileError(f"{path}: {key} {frame[key][frame[key].duplicated()].iloc[0]} has two rows")
    return frame.sort_values(key, ignore_index=True)
