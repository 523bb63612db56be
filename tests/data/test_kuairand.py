"""KuaiRand-Pure from small files in its format, and the real one where it is at hand."""

import io
import os
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from adi_lite.data import download, kuairand_files
from adi_lite.data.click_log import DAY, HOUR, to_ms
from adi_lite.data.download import DataFileError, OutOfReachError, RemoteFile, file_hash
from adi_lite.data.kuairand import TEST_START, load_kuairand
from adi_lite.data.kuairand_files import HASHES, LOG_PART, LOGS, USERS, VIDEOS
from adi_lite.data.kuairand_sample import draw_files, load_kuairand_sample, write_sample
from adi_lite.data.registry import DATASETS, load_dataset

START = to_ms(TEST_START)
drawn = cache(draw_files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("kuairand")
    write_sample(target)
    return target


@pytest.fixture(scope="module")
def data(folder):
    return load_kuairand(root=folder)


@pytest.fixture(scope="module")
def clicks() -> pd.DataFrame:
    """Clicks of the domains, without exact duplicates, in the order of time."""
    rows = drawn()[LOG_PART].drop_duplicates()
    return rows[(rows["is_click"] == 1) & rows["tab"].isin([1, 4, 2])]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("ADI_LITE_MIRROR", raising=False)
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "kuairand-pure").mkdir(parents=True)
    return tmp_path / "cache" / "kuairand-pure"


def whole(folder: Path) -> Path:
    """The official files (two logs, uncompressed) of the drawn ones, below ``folder``/data."""
    files = dict(drawn())
    rows = files.pop(LOG_PART)
    late = rows["time_ms"] > rows["time_ms"].median()
    files |= {LOGS[0]: rows[~late], LOGS[1]: rows[late]}
    (folder / "data").mkdir(parents=True)
    for name, frame in files.items():
        frame.to_csv(folder / "data" / name, index=False)
    return folder


def same(one, other) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in (
            (one.train.item, other.train.item),
            (one.test.user, other.test.user),
            (one.as_of("test").items["trend"], other.as_of("test").items["trend"]),
            (one.users["onehot_feat3"], other.users["onehot_feat3"]),
        )
    )


def test_positives_are_the_clicks_without_duplicates(clicks, data):
    rows = drawn()[LOG_PART]
    assert rows.duplicated().sum() > 100 and (rows["is_click"] == 0).mean() > 0.3
    for split, (start, end) in {"train": (-7, -1), "valid": (-1, 0), "test": (0, 4)}.items():
        own = clicks[(clicks["time_ms"] >= START + start * DAY) & (clicks["time_ms"] < START + end * DAY)]
        own = own.drop_duplicates(["user_id", "video_id", "tab"])
        part = data.split(split)
        assert data.user_ids[part.user].tolist() == own["user_id"].tolist()
        assert data.item_ids[part.item].tolist() == own["video_id"].tolist()
        assert [(1, 4, 2).index(t) for t in own["tab"]] == part.domain.tolist()
    assert "exact duplicates dropped" in data.notes["positives"] and "CC BY-SA 4.0" in data.notes["terms"]
    assert "14 of 30 days" in data.notes["files"] and "statistic" in data.notes["left out"]


def test_statistics_come_from_the_past(clicks, data):
    past = clicks[clicks["time_ms"] < START]
    recent = past[past["time_ms"] >= START - 24 * HOUR].groupby(["video_id", "tab"]).size()
    now = data.as_of("test")
    counted = torch.expm1(now.items["clicks_24h"][:, :, 0]).round().int()
    for row, video in enumerate(data.item_ids.tolist()):
        assert counted[row].tolist() == [recent.get((video, tab), 0) for tab in (1, 4, 2)]
    alive = past[past["time_ms"] >= START - 240 * HOUR]
    for d, tab in enumerate((1, 4, 2)):
        found = data.item_ids[now.catalogues[d]].tolist()
        assert sorted(found) == sorted(alive[alive["tab"] == tab]["video_id"].unique().tolist())


def test_profiles_and_videos(data):
    files = drawn()
    users = files[USERS].set_index("user_id")
    for name in ("user_active_degree", "is_live_streamer", "onehot_feat17"):
        words = sorted(users.loc[data.user_ids[data.users["user_id"] > 0], name].unique().tolist())
        expected = [words.index(users.loc[u, name]) + 1 for u in data.user_ids]
        assert data.users[name].tolist() == expected
    videos = files[VIDEOS].set_index("video_id")
    listed = np.isin(data.item_ids, videos.index)
    known = [v for v in data.item_ids[data.items["item_id"] > 0] if v in videos.index]
    words = sorted({int(t) for v in known for t in videos.loc[v, "tag"].split(",")})
    music = sorted(videos.loc[known, "music_type"].dropna().unique())
    for row, video in enumerate(data.item_ids.tolist()):
        if not listed[row]:
            assert data.items["tags"].row(row).tolist() == [] and int(data.items["author"][row]) == 0
            continue
        tags = [int(t) for t in videos.loc[video, "tag"].split(",")]
        assert data.items["tags"].row(row).tolist() == [words.index(t) + 1 if t in words else 0 for t in tags]
        seconds = np.nan_to_num(videos.loc[video, "video_duration"]) / 1000
        assert float(data.items["duration"][row, 0]) == pytest.approx(np.log1p(seconds), rel=1e-5)
        kind = videos.loc[video, "music_type"]
        assert int(data.items["music_type"][row]) == (music.index(kind) + 1 if kind in music else 0)
        hours = (START - to_ms(videos.loc[video, "upload_dt"] + "T00:00+08:00")) / HOUR
        assert data.as_of("test").items["age"][row].tolist() == pytest.approx([np.log1p(hours), 0], rel=1e-5)
    assert not all(listed) and {len(data.items["tags"].row(r)) for r in np.flatnonzero(listed)} == {1, 2}


def test_the_future_changes_nothing(folder, data, tmp_path):
    files = dict(drawn())
    rows = files[LOG_PART].copy()
    late = (rows["time_ms"] >= START).to_numpy()
    rows.loc[late, ["user_id", "video_id", "tab"]] = rows.loc[late, ["user_id", "video_id", "tab"]].to_numpy()[::-1]
    files[LOG_PART] = rows
    for name, frame in files.items():
        frame.to_csv(tmp_path / name, index=False)
    other = load_kuairand(root=tmp_path)
    assert not np.array_equal(other.user_ids[other.test.user], data.user_ids[data.test.user])
    for split in ("train", "valid", "test"):
        one, two = data.as_of(split), other.as_of(split)
        for side, ids, new in (("items", data.item_ids, other.item_ids), ("users", data.user_ids, other.user_ids)):
            row = {i: n for n, i in enumerate(new.tolist())}
            here = torch.tensor([n for n, i in enumerate(ids.tolist()) if i in row])
            there = torch.tensor([row[i] for i in ids.tolist() if i in row])
            for name, column in getattr(one, side).items():
                if isinstance(column, torch.Tensor):
                    assert torch.equal(column[here], getattr(two, side)[name][there]), (split, name)
        assert all(
            np.array_equal(np.sort(data.item_ids[a]), np.sort(other.item_ids[b]))
            for a, b in zip(one.catalogues, two.catalogues, strict=True)
        )


def test_official_files_are_read_where_they_are(tmp_path, data, folder):
    other = load_kuairand(root=whole(tmp_path))
    assert same(other, data) and "the whole standard log" in other.notes["files"]
    (tmp_path / "data" / VIDEOS).unlink()
    with pytest.raises(DataFileError, match="lacks files of KuaiRand-Pure: it needs user_features_pure.csv"):
        load_kuairand(root=tmp_path)


def test_the_archive_is_downloaded_checked_and_unpacked(tmp_path, data, empty_cache, monkeypatch):
    archive = tmp_path / "made.tar.gz"
    folder = whole(tmp_path / "KuaiRand-Pure")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "KuaiRand-Pure")
        evil = tarfile.TarInfo("../../user_features_pure_2.csv")  # not asked for, and not written
        evil.size = 4
        tar.addfile(evil, io.BytesIO(b"evil"))
    asked = []

    def give(self, url, output, _):
        asked.append(url)
        Path(output).write_bytes(archive.read_bytes())

    monkeypatch.setattr(download.pooch.HTTPDownloader, "__call__", give)
    with pytest.raises(DataFileError, match=r"zenodo.org.*md5 expected 0820331067a3784d9691136f772b35a7"):
        load_kuairand()
    file = kuairand_files.ARCHIVE
    monkeypatch.setattr(kuairand_files, "ARCHIVE", RemoteFile(file.path, file.url, f"md5:{file_hash(archive, 'md5')}"))
    with pytest.raises(DataFileError, match="git blob id expected"):
        load_kuairand()
    for name in HASHES:
        monkeypatch.setitem(HASHES, name, f"git:{file_hash(folder / 'data' / name, 'git')}")
    assert same(load_kuairand(), data)
    assert len(asked) == 2 and sorted(p.name for p in empty_cache.iterdir()) == sorted(
        [*HASHES, "KuaiRand-Pure.tar.gz"]
    )
    (empty_cache / "KuaiRand-Pure.tar.gz").write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataFileError, match="cannot be unpacked"):
        kuairand_files.extract(empty_cache / "KuaiRand-Pure.tar.gz", empty_cache)


def test_files_that_are_nowhere_or_altered(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ADI_LITE_MIRROR", str(tmp_path))
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OutOfReachError, match=r"KuaiRand-Pure.tar.gz is missing.*Zenodo.*root"):
        load_kuairand()
    (tmp_path / "kuairand-pure").mkdir()
    for name in (LOG_PART, USERS, VIDEOS):
        (tmp_path / "kuairand-pure" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(
        DataFileError, match=r"user_features_pure.csv: not the published file.*git blob id expected 3d116"
    ):
        load_kuairand()


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (LOG_PART, lambda f: f.drop(columns="tab"), f"{LOG_PART}: no column tab"),
        (LOG_PART, lambda f: f.assign(time_ms="soon"), f"{LOG_PART}: column time_ms must hold whole numbers"),
        (USERS, lambda f: pd.concat([f, f[:1]]), f"{USERS}: user_id 0 has two rows"),
        (VIDEOS, lambda f: f.drop(columns=["tag", "author_id"]), f"{VIDEOS}: no column author_id, tag"),
    ],
)
def test_files_in_another_format_are_named(tmp_path, name, change, words):
    files = dict(drawn())
    files[name] = change(files[name])
    for file, frame in files.items():
        frame.to_csv(tmp_path / file, index=False)
    with pytest.raises(DataFileError, match=words):
        load_kuairand(root=tmp_path)


def test_an_unknown_tab_and_a_broken_file(folder, tmp_path):
    with pytest.raises(ValueError, match="no click in tab 9; the log has 0, 1, 2, 4"):
        load_kuairand("1,9", root=folder)
    for name in (LOG_PART, USERS, VIDEOS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / LOG_PART).write_bytes((folder / LOG_PART).read_bytes()[:-5000])
    with pytest.raises(DataFileError, match=LOG_PART):
        load_kuairand(root=tmp_path)


def test_the_stand_in_says_what_it_is(data):
    sample = load_kuairand_sample()
    assert sample.name == "kuairand-sample" and "not KuaiRand-Pure" in sample.notes["sample"] and same(sample, data)
    assert "files" not in sample.notes and len(sample.snapshots) == 2
    assert len(load_dataset("kuairand-sample", validation=None, seed=1).valid) == 0
    assert DATASETS["kuairand"] is load_kuairand


def test_the_real_log():
    mirror = os.environ.get("ADI_LITE_MIRROR", "")
    if not mirror or not (Path(mirror) / "kuairand-pure" / USERS).is_file():
        pytest.skip("KuaiRand-Pure is not here: set ADI_LITE_MIRROR to a folder that holds kuairand-pure")
    real = load_kuairand()
    assert "5,460 exact duplicates" in real.notes["positives"] or "whole" in real.notes["files"]
    assert [int((real.test.domain == d).sum()) for d in range(3)] == [20665, 2020, 1074]
    assert int(real.as_of("test").history.lengths().max()) <= 50 < real.num_users
