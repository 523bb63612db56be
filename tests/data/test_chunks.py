"""Passes over arrays in chunks give what one sort in memory gives, whatever the chunks."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adi_lite.data import chunks as module
from adi_lite.data.chunks import chunks, group, row_ranges, value_at
from adi_lite.data.disk import Disk, NpyWriter, map_npy, new_npy
from adi_lite.data.schema import Ragged
from adi_lite.data.split import split_by_time, split_by_time_on_disk, split_by_user, split_by_user_on_disk

SIZES = st.integers(1, 40)
SHARES = st.sampled_from([0.0, 0.1, 0.3, 0.45])


def in_memory(name, kind, length):
    return np.zeros(length, dtype=kind)


def assert_same_split(a, b):
    for part in ("train", "valid", "test"):
        assert np.array_equal(getattr(a, part), getattr(b, part)), part
    assert a.how == b.how


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(-5, 5) | st.integers(-(2**40), 2**40), min_size=1, max_size=60),
    place=st.integers(0, 59),
    size=SIZES,
)
def test_the_value_at_a_place_is_that_of_the_sorted_values(values, place, size):
    place %= len(values)
    with patch.object(module, "CHUNK", size), patch.object(module, "_BINS", 8):
        assert value_at(np.array(values), place) == sorted(values)[place]


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.integers(0, 9), max_size=80), size=SIZES)
def test_grouping_keeps_the_order_of_appearance(rows, size):
    rows = np.array(rows, dtype=np.int32)
    values = np.arange(100, 100 + len(rows))
    want = Ragged.from_pairs(torch.from_numpy(rows).long(), torch.from_numpy(values), 10)
    out, places = np.zeros((2, len(rows)), dtype=np.int64)
    with patch.object(module, "CHUNK", size):
        offsets = group(rows, values, 10, out)
        assert np.array_equal(group(rows, None, 10, places), offsets)
        ranges = list(row_ranges(offsets))
    assert offsets.tolist() == want.offsets.tolist() and out.tolist() == want.values.tolist()
    assert np.array_equal(places + 100, out)
    assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])] and ranges[-1][1] == 10
    assert all(offsets[b] - offsets[a] <= size or b == a + 1 for a, b in ranges)


@settings(max_examples=100, deadline=None)
@given(seconds=st.lists(st.integers(-20, 20), min_size=1, max_size=60), valid=SHARES, test=SHARES, size=SIZES)
def test_a_split_by_time_on_disk_is_the_one_in_memory(seconds, valid, test, size):
    seconds = np.array(seconds)
    with patch.object(module, "CHUNK", size):
        on_disk = split_by_time_on_disk(seconds, valid, test, in_memory)
    assert_same_split(on_disk, split_by_time(seconds, valid, test))


@settings(max_examples=150, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 8)), min_size=1, max_size=80),
    valid=SHARES,
    test=SHARES,
    seed=st.integers(0, 3),
    size=SIZES,
)
def test_a_split_by_user_on_disk_is_the_same_draw(pairs, valid, test, seed, size):
    user, item = np.array(pairs, dtype=np.int32).T
    with patch.object(module, "CHUNK", size):
        on_disk = split_by_user_on_disk(user, item, 9, valid, test, seed, in_memory)
    assert_same_split(on_disk, split_by_user(user, item, valid, test, seed))


def test_ties_of_the_draw_go_to_the_earlier_record(monkeypatch):
    class Flat:
        def random(self, count):
            return np.full(count, 0.5)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Flat())
    monkeypatch.setattr(module, "CHUNK", 2)
    user, item = np.repeat([0, 1], 6), np.arange(12)
    assert_same_split(
        split_by_user_on_disk(user, item, 2, 0.1, 0.1, 0, in_memory), split_by_user(user, item, 0.1, 0.1, 0)
    )


def test_chunks_cover_every_place_once(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)
    assert [(p.start, p.stop) for p in chunks(9)] == [(0, 4), (4, 8), (8, 9)] and not list(chunks(0))


def test_columns_on_disk_are_those_that_were_added(tmp_path):
    disk = Disk(tmp_path)
    for start in range(0, 10, 3):
        disk.add("a", np.arange(start, start + 3, dtype=np.int32))
    disk.add("none", np.zeros(0, dtype=np.int64))
    found = disk.finish("a")
    assert found.dtype == np.int32 and found.tolist() == list(range(12))
    found[2] = 7
    assert np.fromfile(tmp_path / "a.bin", dtype=np.int32)[2] == 7
    assert disk.finish("b") is None and len(disk.finish("none")) == 0
    assert disk.zeros("c", np.bool_, 3).tolist() == [False] * 3 and len(disk.zeros("d", np.int64, 0)) == 0
    disk.add("left open", np.zeros(1))
    disk.close()


def test_arrays_are_numpys_own_files_and_are_mapped_without_being_changed(tmp_path):
    with NpyWriter(tmp_path / "a.npy", np.int64, 5) as writer:
        writer.add(np.arange(2, dtype=np.int32))
        writer.add(np.arange(2, 5))
    assert np.load(tmp_path / "a.npy").tolist() == list(range(5))
    mapped = map_npy(tmp_path / "a.npy")
    torch.from_numpy(mapped)[0] = 99  # no warning: the array may be written to
    assert mapped[0] == 99 and np.load(tmp_path / "a.npy")[0] == 0
    new_npy(tmp_path / "b.npy", np.int64, 3)[1] = 5
    assert map_npy(tmp_path / "b.npy").tolist() == [0, 5, 0]
    for values in (np.zeros((0, 3)), np.array(["ü", "xyz"]), np.ones((2, 3, 1), dtype=np.float32)):
        np.save(tmp_path / "c.npy", values)
        assert np.array_equal(map_npy(tmp_path / "c.npy"), values)
    with pytest.raises(ValueError, match="values too few"), NpyWriter(tmp_path / "d.npy", np.int64, 2) as writer:
        writer.add(np.zeros(1))


def test_a_file_larger_than_memory_is_mapped(tmp_path):
    count = 1 << 38  # 2 TiB, of which nothing is written but the header
    path = tmp_path / "large.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<i8", "fortran_order": False, "shape": (count,)})
        start = file.tell()
    try:
        with path.open("r+b") as file:
            file.truncate(start + 8 * count)
    except OSError:
        pytest.skip("this file system has no sparse files of 2 TiB")
    mapped = map_npy(path)
    assert mapped.shape == (count,) and mapped[-1] == 0
