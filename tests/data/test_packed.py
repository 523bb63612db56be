"""A packed folder is the data set that the tables load to, read in place, in memory that does not grow with the records."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_worlds import Recount, good_frames, write_folder
from test_tables import assert_same_data

from adi_lite.data import chunks, packed
from adi_lite.data.defects import DataError
from adi_lite.data.encoders import Encoders
from adi_lite.data.fingerprint import fingerprint, records_fingerprint
from adi_lite.data.packed import PackedError, check_packed, is_packed, load_own, load_packed, pack
from adi_lite.data.tables import check_folder, load_folder
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit
from benchmarks.packing import World, measure_side


def assert_equal(folder: Path, there: Path, **options) -> None:
    """The packed folder equals the loaded tables in every value, note, encoder and hash."""
    loaded, read = load_folder(folder, **options), load_packed(there)
    assert_same_data(loaded, read)
    assert read.encoders == loaded.encoders
    assert (read.name, read.notes) == (loaded.name, loaded.notes)
    assert loaded.user_ids.dtype == read.user_ids.dtype and loaded.item_ids.dtype == read.item_ids.dtype
    for side in ("users", "items"):
        for name, column in getattr(loaded, side).items():
            if isinstance(column, torch.Tensor):
                assert column.dtype == getattr(read, side)[name].dtype
    assert read.stamp is not None and loaded.stamp is None
    assert fingerprint(loaded) == fingerprint(read) and records_fingerprint(loaded) == records_fingerprint(read)


@pytest.fixture
def shop(tmp_path):
    return write_folder(tmp_path / "shop", good_frames(), "parquet")


@pytest.mark.parametrize("size", [7, 1 << 19])
@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_it_is_what_the_tables_load_to(tmp_path, monkeypatch, form, timestamps, size):
    monkeypatch.setattr(chunks, "CHUNK", size)
    folder = write_folder(tmp_path / "shop", good_frames(2, timestamps=timestamps), form)
    report = pack(folder, tmp_path / "packed")
    assert_equal(folder, tmp_path / "packed")
    Recount(folder).check(load_packed(tmp_path / "packed"))
    assert report.ok and report.facts["records"] == 90
    assert sorted(p.name for p in tmp_path.iterdir()) == ["packed", "shop"]


def test_a_folder_of_parquet_files_a_schema_and_shares(tmp_path):
    frames = good_frames(3)
    folder = write_folder(tmp_path / "shop", {k: v for k, v in frames.items() if k != "interactions"}, "csv")
    (folder / "interactions").mkdir()
    for n, start in enumerate(range(0, 90, 40)):
        part = frames["interactions"].iloc[start : start + 40]
        part.to_parquet(folder / "interactions" / f"part-{n}.parquet", index=False)
    (folder / "schema.yaml").write_text(
        "domains: [shop_b, shop_a]\nhistory: false\nuser_id: false\n"
        "users: {country: {kind: categorical, table: t}, tags: {kind: bag, table: t}}\n"
        "items: {price: {kind: dense, per_domain: true}}\n"
    )
    for n, options in enumerate(({}, {"valid": 0.0}, {"valid": 0.3, "test": 0.0})):
        pack(folder, tmp_path / str(n), **options)
        assert_equal(folder, tmp_path / str(n), **options)
    assert load_packed(tmp_path / "0").history is None


FEW = st.integers(0, 5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    records=st.lists(st.tuples(FEW, FEW, st.sampled_from(["a", "b", "c"]), st.integers(0, 9)), max_size=50),
    timed=st.booleans(),
    valid=st.sampled_from([0.0, 0.1, 0.4]),
    test=st.sampled_from([0.0, 0.1, 0.4]),
    listed=st.lists(FEW, unique=True, max_size=6),
    size=st.integers(1, 30),
)
def test_whatever_the_records_it_loads_or_fails_as_the_tables_do(records, timed, valid, test, listed, size):
    frame = pd.DataFrame(records, columns=["user_id", "item_id", "domain", "timestamp"])
    items = pd.DataFrame({"item_id": listed, "price": np.arange(len(listed)) / 2, "domains": [["a"]] * len(listed)})
    frames = {"interactions": frame if timed else frame.drop(columns="timestamp")}
    frames |= {"items": items} if listed else {}
    with tempfile.TemporaryDirectory() as name, patch.object(chunks, "CHUNK", size):
        folder, there = write_folder(Path(name) / "shop", frames, "parquet"), Path(name) / "packed"
        try:
            load_folder(folder, valid=valid, test=test)
        except DataError as error:
            with pytest.raises(DataError) as found:
                pack(folder, there, valid=valid, test=test)
            assert str(found.value) == str(error) and os.listdir(name) == ["shop"]
        else:
            pack(folder, there, valid=valid, test=test)
            assert_equal(folder, there, valid=valid, test=test)


def test_the_report_is_that_of_the_tables_but_for_repeated_records(tmp_path):
    frames = good_frames()
    frames["interactions"] = pd.concat([frames["interactions"], frames["interactions"].iloc[:2]])
    frames["users"] = frames["users"].iloc[4:]
    folder = write_folder(tmp_path / "shop", frames, "parquet")
    with pytest.raises(DataError):
        load_folder(tmp_path)
    whole, said = check_folder(folder), pack(folder, tmp_path / "packed")
    assert said.defects == [d for d in whole.defects if "the same as an earlier" not in d.message]
    assert len(said.defects) == len(whole.defects) - 1 and any("are not in users" in d.message for d in said.defects)
    assert said.facts == whole.facts and said.schema == whole.schema


@pytest.mark.parametrize("method, changes", [("adi", {"patience": 1}), ("dnn_single", {"optimizer": "adamw"})])
def test_a_trained_model_has_the_same_bits(shop, tmp_path, method, changes):
    pack(shop, tmp_path / "packed")
    small = {"dim": 4, "out_dim": 4, "hidden": (4,), "batch_size": 16, "epochs": 3, "num_negatives": 5, "user": "both"}
    config = Config().with_changes(method=method, **small, **changes)
    runs = [
        fit(data, config, out=tmp_path / f"run{n}")
        for n, data in enumerate((load_folder(shop), load_packed(tmp_path / "packed")))
    ]
    for d in range(2):
        a, b = (run.scorer.models[d].state_dict() for run in runs)
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    again = fit(load_packed(tmp_path / "packed"), config, out=tmp_path / "run0", resume=True)
    assert len(again.epochs) == len(runs[0].epochs), "a run on the tables goes on with the packed data"


def test_the_encoders_make_text_of_ids_when_asked(shop, tmp_path):
    pack(shop, tmp_path / "packed")
    loaded, read = load_folder(shop).encoders, load_packed(tmp_path / "packed").encoders
    assert read.item.ids[0] == loaded.item.ids[0] and read.item.ids[1:3] == loaded.item.ids[1:3]
    assert list(read.user.ids) == list(loaded.user.ids) and read.user.ids != loaded.user.ids[1:]
    assert read.user.ids != 3 and read.user.id_codes == loaded.user.id_codes
    assert Encoders.from_dict(json.loads(json.dumps(read.to_dict()))) == loaded
    frame = good_frames()["users"]
    assert torch.equal(read.encode_users(frame)["country"], loaded.encode_users(frame)["country"])


def test_it_is_read_in_place_and_never_written_to(shop, tmp_path):
    pack(shop, tmp_path / "packed")
    before = {p.name: p.read_bytes() for p in (tmp_path / "packed").iterdir()}
    data = load_packed(tmp_path / "packed")
    data.train.user[0] = 3
    data.users["age"].zero_()
    assert {p.name: p.read_bytes() for p in (tmp_path / "packed").iterdir()} == before
    maps = Path("/proc/self/maps").read_text()
    assert all(str(tmp_path / "packed" / f"train_{c}.npy") in maps for c in packed.COLUMNS)


def test_opening_reads_no_value(shop, tmp_path, monkeypatch):
    pack(shop, tmp_path / "packed")

    def refuse(*_):
        raise AssertionError("the values were read through")

    monkeypatch.setattr("adi_lite.data.schema._check", refuse)
    data = load_packed(tmp_path / "packed", name="other")
    assert data.name == "other" and fingerprint(data) == data.stamp.ids
    with pytest.raises(AssertionError, match="read through"):
        data.only_domain(0)
    monkeypatch.undo()
    assert data.only_domain(0).stamp is None
    assert records_fingerprint(data.only_domain(0)) != records_fingerprint(data)


# ---- folders that are not what they should be ------------------------------------------------------------------------


@pytest.fixture
def there(shop, tmp_path):
    pack(shop, tmp_path / "packed")
    return tmp_path / "packed"


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda f: (f / "train_user.npy").unlink(), "train_user.npy is missing; copy the folder again"),
        (lambda f: (f / "packed.json").unlink(), "no whole packed data set: it has no packed.json"),
        (lambda f: os.truncate(f / "history_values.npy", 300), "history_values.npy is damaged: 300 bytes where"),
        (lambda f: os.truncate(f / "history_values.npy", 3), "history_values.npy is damaged"),
        (lambda f: (f / "item_ids.npy").write_bytes(b"x" * 200), "item_ids.npy is damaged"),
        (lambda f: np.save(f / "user_0.npy", np.zeros(20)), "user_0.npy is damaged: it holds <f8 of shape"),
        (lambda f: os.truncate(f / "packed.json", 900), "packed.json is damaged"),
        (lambda f: (f / "packed.json").write_text("[]"), "packed.json is damaged"),
        (lambda f: edit(f, format=2), "has format 2, this version reads format 1: pack the tables again"),
        (lambda f: edit(f, arrays={}), "packed.json is damaged: it lacks 'user_ids'"),
        (lambda f: edit(f, stamp={}), "packed.json is damaged"),
    ],
)
def test_damage_is_said_in_a_sentence(there, damage, message):
    damage(there)
    assert is_packed(there)
    with pytest.raises(PackedError, match=message):
        load_own(there)
    report = check_packed(there)
    assert not report.ok


def edit(folder: Path, **changes) -> None:
    path = folder / "packed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_check_reads_every_byte_and_looks_at_the_tables(there, shop):
    assert check_packed(there).defects == [] and check_packed(there).facts["records"] == 90
    with (there / "test_item.npy").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1")
    load_packed(there)
    assert [d.file for d in check_packed(there).errors] == ["test_item.npy"]
    os.utime(shop / "users.parquet")
    (shop / "items.parquet").unlink()
    assert [d.file for d in check_packed(there).of("warning")] == ["items.parquet", "users.parquet"]
    shutil.rmtree(shop)
    assert not check_packed(there).of("warning"), "the tables are not needed any more"


def test_only_a_free_folder_is_packed_into(there, shop, tmp_path):
    with pytest.raises(PackedError, match="packed holds a packed data set: remove it, or name another"):
        pack(shop, there)
    with pytest.raises(PackedError, match="shop holds other files"):
        pack(shop, shop)
    with pytest.raises(PackedError, match="is a file"):
        pack(shop, shop / "users.parquet")
    (tmp_path / "new").mkdir()
    pack(shop, tmp_path / "new")
    assert_equal(shop, tmp_path / "new")
    with pytest.raises(DataError, match="nowhere.*is not a folder"):
        pack(tmp_path / "nowhere", tmp_path / "other")
    with pytest.raises(ValueError, match="together below 1"):
        pack(shop, tmp_path / "other", valid=0.6, test=0.6)
    assert sorted(os.listdir(tmp_path)) == ["new", "packed", "shop"]


def test_tables_that_change_meanwhile_are_refused(shop, tmp_path, monkeypatch):
    right = packed.prepare

    def change(*args, **options):
        os.utime(shop / "interactions.parquet")
        return right(*args, **options)

    monkeypatch.setattr(packed, "prepare", change)
    with pytest.raises(PackedError, match="interactions.parquet changed while it was read"):
        pack(shop, tmp_path / "packed")
    assert os.listdir(tmp_path) == ["shop"]


def test_a_full_disk_is_an_error_and_leaves_nothing(shop, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left"):
        pack(shop, tmp_path / "packed")
    assert os.listdir(tmp_path) == ["shop"]


def _pack_slowly(shop: Path, target: Path) -> None:
    with patch.object(packed, "_describe_array", lambda *_: time.sleep(60)):
        pack(shop, target)


def test_a_killed_packing_leaves_nothing_that_looks_finished(shop, tmp_path):
    child = multiprocessing.get_context("fork").Process(target=_pack_slowly, args=(shop, tmp_path / "packed"))
    child.start()
    while not (tmp_path / "packed.part" / "user_ids.npy").exists():
        assert child.is_alive()
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not (tmp_path / "packed").exists()
    with pytest.raises(PackedError, match="it has no packed.json"):
        load_own(tmp_path / "packed.part")
    with pytest.raises(PackedError, match="packed.part is there: .* interrupted; remove it"):
        pack(shop, tmp_path / "packed")
    shutil.rmtree(tmp_path / "packed.part")
    pack(shop, tmp_path / "packed")


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_records(tmp_path):
    grown = {}
    for records in (200_000, 1_000_000):
        tables, there = tmp_path / f"tables{records}", tmp_path / f"packed{records}"
        World(users=10_000, items=2000).write(tables, records)
        sides = {"pack": 0, "train_packed": 4}
        grown[records] = {s: measure_side(s, tables, there, 1 << 16, n)["anonymous_mib"] for s, n in sides.items()}
    few, many = grown.values()
    assert all(many[side] < 60 for side in many), grown
    assert all(many[side] - few[side] < 15 for side in many), grown
    assert measure_side("load", tables, there)["anonymous_mib"] > 80, "what it takes in memory"
