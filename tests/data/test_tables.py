"""Frames and folders become data sets: every column against a plain recount, nothing from the future, encoders to keep."""

from __future__ import annotations

import decimal
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table_worlds import Recount, good_frames, write_folder

from adi_lite.data import sources
from adi_lite.data.batches import InputBuilder
from adi_lite.data.defects import DataError
from adi_lite.data.encoders import Encoders
from adi_lite.data.schema import MultiDomainDataset, Ragged
from adi_lite.data.schema_file import TableSchema
from adi_lite.data.split import split_by_time, split_by_user
from adi_lite.data.tables import dataset_from_frames, infer_schema, load_folder


def equal_columns(a, b) -> bool:
    if isinstance(a, Ragged):
        return torch.equal(a.values, b.values) and torch.equal(a.offsets, b.offsets)
    return torch.equal(a, b)


def assert_same_data(a: MultiDomainDataset, b: MultiDomainDataset) -> None:
    assert a.schema == b.schema and a.encoders == b.encoders
    assert np.array_equal(a.user_ids.astype(str), b.user_ids.astype(str))
    assert np.array_equal(a.item_ids.astype(str), b.item_ids.astype(str))
    for side in ("users", "items"):
        left, right = getattr(a, side), getattr(b, side)
        assert left.keys() == right.keys() and all(equal_columns(left[n], right[n]) for n in left)
    for part in ("train", "valid", "test"):
        for x, y in zip(vars(a.split(part)).values(), vars(b.split(part)).values(), strict=True):
            assert x is y is None or torch.equal(x, y)
    assert all(torch.equal(x, y) for x, y in zip(a.catalogues, b.catalogues, strict=True))
    assert a.history is b.history is None or equal_columns(a.history, b.history)


@pytest.mark.parametrize("timestamps", [True, False])
@pytest.mark.parametrize("seed", [1, 2])
def test_frames_parquet_and_csv_give_the_data_set_of_the_recount(tmp_path, seed, timestamps):
    frames = good_frames(seed, timestamps=timestamps)
    data = MultiDomainDataset.from_frames(**frames)
    for form in ("parquet", "csv"):
        folder = write_folder(tmp_path / form, frames, form)
        Recount(folder).check(load_folder(folder))
        assert_same_data(data, load_folder(folder))


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_size_of_a_block_changes_nothing(tmp_path, monkeypatch, form):
    folder = write_folder(tmp_path, good_frames(), form)
    whole = load_folder(folder)
    monkeypatch.setattr(sources, "BLOCK_ROWS", 7)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 200)
    assert_same_data(whole, load_folder(folder))


def test_towers_read_the_data_set(tmp_path):
    data = dataset_from_frames(**good_frames())
    inputs = InputBuilder(data)
    for d in range(data.num_domains):
        assert len(inputs.catalogue(d)) == len(data.catalogues[d])
        assert set(inputs.users_in(torch.arange(data.num_users), d).features) == {
            *data.users,
            "history",
        }


# ---- no leakage -----------------------------------------------------------------------------------------------------


def future(frames: dict, seed: int) -> dict:
    """The same tables with other records in the time of validation and test: other users, items, domains, new ids."""
    rng = np.random.default_rng(seed)
    records = frames["interactions"].copy()
    late = records["timestamp"].rank() > 0.8 * len(records)
    users = [*frames["users"]["user_id"], "u999", "anna"]
    items = [*frames["items"]["item_id"], 55, 999]
    records.loc[late, "user_id"] = rng.choice(users, late.sum())
    records.loc[late, "item_id"] = rng.choice(items, late.sum())
    records.loc[late, "domain"] = rng.choice(["shop_a", "shop_b"], late.sum())
    records.loc[late, "timestamp"] += pd.Timedelta(days=rng.integers(0, 1000))
    return frames | {"interactions": records.sample(frac=1, random_state=seed)}


@pytest.mark.parametrize("seed", range(5))
def test_the_future_changes_no_training_record_feature_vocabulary_or_history(seed):
    frames = good_frames(records=120)
    now = dataset_from_frames(**frames)
    other = dataset_from_frames(**future(frames, seed))
    assert sorted(map(tuple, test_triples(now))) != sorted(map(tuple, test_triples(other)))
    assert now.encoders == other.encoders and now.schema == other.schema
    columns = [sorted(zip(*(c.tolist() for c in vars(d.train).values()), strict=True)) for d in (now, other)]
    assert columns[0] == columns[1]
    assert all(torch.equal(a, b) for a, b in zip(now.catalogues, other.catalogues, strict=True))
    for side, ids in (("users", now.user_ids), ("items", now.item_ids)):
        listed = len(frames[side])  # rows beyond belong to ids of records alone, with no feature at all
        assert list(getattr(other, f"{side[:-1]}_ids").astype(str))[:listed] == list(ids.astype(str))[:listed]
        for name, column in getattr(now, side).items():
            rows = listed * (now.num_domains if feature(now, side, name).per_domain else 1)
            if isinstance(column, Ragged):
                assert [column.row(i).tolist() for i in range(rows)] == [
                    getattr(other, side)[name].row(i).tolist() for i in range(rows)
                ]
            else:
                assert torch.equal(column[:listed], getattr(other, side)[name][:listed])
    past = [{u: sorted(d.history.row(u).tolist()) for u in range(len(frames["users"]))} for d in (now, other)]
    assert past[0] == past[1]


def test_triples(data: MultiDomainDataset) -> list:
    return torch.stack([data.test.user, data.test.item, data.test.domain], 1).tolist()


test_triples.__test__ = False


def feature(data: MultiDomainDataset, side: str, name: str):
    return next(f for f in getattr(data.schema, side[:-1]) if f.name == name)


def test_values_of_users_outside_the_training_part_are_in_no_vocabulary_and_no_mean():
    frames = good_frames()
    before = dataset_from_frames(**frames)
    idle = frames["users"]["user_id"].iloc[-1]
    assert idle not in before.encoders.user.ids
    last = frames["users"].index[-1]
    frames["users"].loc[last, ["age", "country"]] = [1e6, "atlantis"]
    frames["users"].at[last, "tags"] = ["red", "black"]
    after = dataset_from_frames(**frames)
    assert after.encoders == before.encoders
    row = list(after.user_ids).index(idle)
    assert after.users["user_id"][row] == 0 and after.users["country"][row] == 0
    assert 0 in after.users["tags"].row(row).tolist()
    assert after.users["age"][row, 0] > 1000


# ---- split ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seconds=st.lists(st.integers(-50, 50), min_size=2, max_size=60),
    valid=st.sampled_from([0.0, 0.1, 0.25]),
    test=st.sampled_from([0.0, 0.1, 0.3]),
)
def test_a_split_by_time_keeps_the_order_of_time(seconds, valid, test):
    seconds = np.array(seconds)
    split = split_by_time(seconds, valid, test)
    parts = [split.train, split.valid, split.test]
    assert np.array_equal(sum(p.astype(int) for p in parts), np.ones(len(seconds)))
    spans = [(seconds[p].min(), seconds[p].max()) for p in parts if p.any()]
    assert all(earlier[1] < later[0] for earlier, later in pairwise(spans))
    if len(set(seconds)) == len(seconds):
        n = len(seconds)
        assert split.test.sum() == n - int(n * (1 - test) + 1e-9)
        assert split.train.sum() == int(n * (1 - test - valid) + 1e-9)
    else:
        assert split.test.sum() >= test * len(seconds) - 1


def test_a_split_by_user_takes_one_record_of_each_user_for_each_part():
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 30, 300), rng.integers(0, 1000, 300)
    split = split_by_user(user, item, 0.1, 0.1, seed=3)
    for part in (split.valid, split.test):
        assert np.bincount(user[part]).max() == 1
    assert split.test.sum() == (np.bincount(user) >= 3).sum()
    assert (np.bincount(user[split.train], minlength=30)[np.bincount(user) > 0] >= 1).all()
    again, other = (split_by_user(user, item, 0.1, 0.1, seed=s) for s in (3, 4))
    assert np.array_equal(again.test, split.test) and not np.array_equal(other.test, split.test)
    assert not split_by_user(user, item, 0.0, 0.1, seed=3).valid.any()


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (0.1, 1.0), (float("nan"), 0.1)])
def test_shares_that_leave_no_training_part_are_refused(shares):
    with pytest.raises(ValueError, match="together below 1"):
        dataset_from_frames(**good_frames(), valid=shares[0], test=shares[1])


# ---- ids and moments ------------------------------------------------------------------------------------------------


def simple(user=None, item=None, domain=None, n: int = 12, **columns) -> pd.DataFrame:
    base = {
        "user_id": [f"u{i % 4}" for i in range(n)] if user is None else user,
        "item_id": [i % 5 for i in range(n)] if item is None else item,
        "domain": ["a"] * n if domain is None else domain,
    }
    return pd.DataFrame(base | columns)


@pytest.mark.parametrize("form", ["frame", "parquet", "csv"])
def test_integers_beyond_the_floats_stay_apart(tmp_path, form):
    ids = [2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
    frame = simple(user=[ids[i % 4] for i in range(12)])
    data = (
        dataset_from_frames(frame)
        if form == "frame"
        else load_folder(write_folder(tmp_path, {"interactions": frame}, form))
    )
    assert data.user_ids.dtype == np.int64
    assert sorted(data.user_ids.tolist()) == sorted(ids)


def test_integers_beyond_int64_are_kept_as_text():
    ids = np.array([2**64 - 1, 2**64 - 2, 5], dtype=np.uint64)
    data = dataset_from_frames(simple(user=ids[np.arange(12) % 3]))
    assert sorted(data.user_ids) == ["18446744073709551614", "18446744073709551615", "5"]


def test_an_id_is_the_same_as_integer_and_as_text_but_not_with_leading_zeros(tmp_path):
    records = simple(user=[i % 3 for i in range(12)])
    users = pd.DataFrame({"user_id": ["0", "1", "02"], "city": ["x", "y", "z"]})
    data = dataset_from_frames(records, users)
    assert data.user_ids.tolist() == ["0", "1", "2", "02"]
    words = ["", *data.encoders.user.vocabularies["city"]]
    assert [words[c] for c in data.users["city"]] == ["x", "y", "", ""]


def test_text_that_looks_like_numbers_stays_text_in_typed_files_and_becomes_integers_in_csv(tmp_path):
    frame = simple(user=[str(i % 3) for i in range(12)])
    assert dataset_from_frames(frame).user_ids.tolist() == ["0", "1", "2"]
    assert load_folder(write_folder(tmp_path, {"interactions": frame}, "csv")).user_ids.tolist() == [0, 1, 2]


MOMENTS = pd.date_range("2026-01-01", periods=12, freq="h")


@pytest.mark.parametrize(
    "column",
    [
        MOMENTS,
        MOMENTS.tz_localize("UTC").tz_convert("Asia/Tokyo"),
        MOMENTS.as_unit("s").asi8,
        MOMENTS.as_unit("s").asi8 + 0.75,
        MOMENTS.as_unit("s").asi8.astype(str),
        MOMENTS.strftime("%Y-%m-%dT%H:%M:%SZ"),
        MOMENTS.tz_localize("UTC").tz_convert("Asia/Kolkata").strftime("%Y-%m-%d %H:%M:%S%z"),
        [decimal.Decimal(int(s)) for s in MOMENTS.as_unit("s").asi8],
        pd.Series(MOMENTS).astype("datetime64[ns]"),
    ],
    ids=["datetimes", "zone", "integers", "floats", "number text", "ISO", "ISO with offset", "decimals", "nanoseconds"],
)
def test_moments_of_every_kind_are_the_same_seconds(column):
    data = dataset_from_frames(simple(timestamp=column))
    seconds = torch.cat([data.split(p).timestamp for p in ("train", "valid", "test")])
    assert seconds.tolist() == MOMENTS.as_unit("s").asi8.tolist()


def test_days_are_moments(tmp_path):
    days = pd.Series(pd.date_range("1969-12-25", periods=12)).dt.date
    data = dataset_from_frames(simple(timestamp=days))
    assert data.train.timestamp[:2].tolist() == [-7 * 86_400, -6 * 86_400]


# ---- features -------------------------------------------------------------------------------------------------------


def items_of_five(**columns) -> pd.DataFrame:
    return pd.DataFrame({"item_id": range(5)} | columns)


def test_a_long_table_says_the_same_as_a_wide_one():
    records = simple(domain=["a", "b"] * 6)
    wide = items_of_five(
        **{"price@a": [1.0, 2.0, None, 4.0, 5.0], "price@b": [None, 3.0, 1.0, 1.0, 2.0], "kind@a": list("xyxyz")},
        **{"kind@b": [None, *"yyxx"]},
        domains=[["a"], ["a", "b"], ["b"], ["a", "b"], ["a", "b"]],
    )
    long = pd.concat(
        wide[["item_id", f"price@{d}", f"kind@{d}"]]
        .set_axis(["item_id", "price", "kind"], axis=1)
        .assign(domain=d)[[d in shown for shown in wide["domains"]]]
        for d in ("b", "a")
    )
    wide.loc[2, "kind@a"] = None  # the long table has no row for item 2 in a
    assert_same_data(dataset_from_frames(records, items=wide), dataset_from_frames(records, items=long))


def test_the_catalogue_is_what_training_shows_and_what_the_table_names():
    records = simple(domain=["a"] * 6 + ["b"] * 6, item=[0, 1, 0, 1, 0, 1, 2, 3, 2, 3, 2, 3])
    assert [c.tolist() for c in dataset_from_frames(records, test=0, valid=0).catalogues] == [[0, 1], [2, 3]]
    items = pd.DataFrame({"item_id": [4, 0], "domains": [["b"], ["a", "b"]]})
    data = dataset_from_frames(records, items=items, test=0, valid=0)
    assert [data.item_ids[c].tolist() for c in data.catalogues] == [[0, 1], [0, 2, 3, 4]]


def test_vectors_lists_booleans_and_decimals_are_read_by_their_type():
    users = pd.DataFrame(
        {
            "user_id": ["u0", "u1", "u2", "u3"],
            "vector": [np.array([0.0, 1.0]), [2.0, 3.0], None, [4.0, 8.0]],
            "numbers": [[1, 2], [2], [], None],
            "flag": [True, False, None, True],
            "money": [decimal.Decimal("1.50"), None, decimal.Decimal("2.50"), decimal.Decimal("3.50")],
        }
    )
    data = dataset_from_frames(simple(), users, test=0, valid=0)
    kinds = {f.name: (f.kind, f.size) for f in data.schema.user[1:]}
    assert kinds == {"vector": ("dense", 3), "numbers": ("bag", 3), "flag": ("categorical", 3), "money": ("dense", 2)}
    assert data.users["flag"].tolist() == [2, 1, 0, 2]  # False, True in the order of their names
    assert [data.users["numbers"].row(i).tolist() for i in range(4)] == [[1, 2], [2], [], []]
    std = np.sqrt(2 / 3)
    assert data.users["money"].numpy() == pytest.approx(
        np.array([[-1 / std, 0], [0, 1], [0, 0], [1 / std, 0]]), abs=1e-6
    )
    vector = np.array([[0, 1], [2, 3], [4, 8.0]])
    scaled = (vector - vector.mean(0)) / vector.std(0)
    want = np.insert(np.column_stack([scaled, np.zeros(3)]), 2, [0, 0, 1], axis=0)
    assert data.users["vector"].numpy() == pytest.approx(want, abs=1e-6)


def test_a_schema_rules_kinds_names_order_tables_and_rare_values():
    users = pd.DataFrame(
        {
            "user_id": ["u0", "u1", "u2", "u3"],
            "level": [1, 2, 3, 10],
            "likes": ["x;y", "x", None, "z"],
            "hates": [["y"], ["x", "w"], [], ["x"]],
            "other": [1, 2, 3, 4],
        }
    )
    schema = TableSchema.from_yaml("""
        version: 1
        domains: [b, a]
        user_id: false
        users:
          level: {kind: dense}
          likes: {kind: bag, separator: ";", table: things, min_count: 2}
          hates: {kind: bag, table: things}
    """)
    data = dataset_from_frames(simple(domain=["a", "b"] * 6), users, schema=schema, test=0, valid=0)
    assert data.domains == ("b", "a") and [f.name for f in data.schema.user] == ["level", "likes", "hates"]
    assert data.encoders.user.vocabularies == {"things": ("w", "x", "y")}
    assert {f.table for f in data.schema.user if f.kind == "bag"} == {"things"}
    assert data.users["likes"].values.tolist() == [2, 3, 2, 0]
    assert data.users["hates"].values.tolist() == [3, 2, 1, 2]
    assert data.users["level"].mean().abs() < 1e-6
    assert TableSchema.from_yaml(schema.to_yaml()) == schema


def test_the_inferred_schema_is_the_one_that_is_used(tmp_path):
    frames = good_frames()
    schema = infer_schema(**frames)
    assert_same_data(dataset_from_frames(**frames), dataset_from_frames(**frames, schema=schema))
    folder = write_folder(tmp_path, frames, "csv")
    (folder / "schema.yaml").write_text(schema.to_yaml(), encoding="utf-8")
    assert_same_data(dataset_from_frames(**frames), load_folder(folder))


def test_a_constant_or_wholly_missing_number_is_zero():
    users = pd.DataFrame({"user_id": ["u0", "u1", "u2", "u3"], "same": [0.1] * 4})
    schema = TableSchema.from_yaml("users: {same: {kind: dense}, none: {kind: dense}}")
    data = dataset_from_frames(simple(), users.assign(none=[None] * 4), schema=schema, test=0, valid=0)
    assert data.users["same"].abs().max() < 1e-6
    assert data.users["none"].tolist() == [[0.0, 1.0]] * 4


# ---- encoders -------------------------------------------------------------------------------------------------------


def test_encoders_from_json_encode_the_rows_that_the_data_set_has():
    frames = good_frames()
    data = dataset_from_frames(**frames)
    encoders = Encoders.from_dict(json.loads(json.dumps(data.encoders.to_dict())))
    assert encoders == data.encoders
    for side, ids, encode in (
        ("users", data.user_ids, encoders.encode_users),
        ("items", data.item_ids, encoders.encode_items),
    ):
        frame = frames[side].set_index(f"{side[:-1]}_id").reindex(ids).reset_index()
        columns = encode(frame.iloc[::-1])
        for name, column in getattr(data, side).items():
            per_domain = feature(data, side, name).per_domain
            rows = torch.arange(len(ids)).flip(0)
            want = column.take(rows) if isinstance(column, Ragged) else column[rows]
            assert not (per_domain and isinstance(column, Ragged))
            assert equal_columns(columns[name], want)


def test_new_users_have_the_unknown_id_and_the_known_values():
    data = dataset_from_frames(**good_frames())
    frame = pd.DataFrame(
        {"age": [None, 40.0], "country": ["de", "mars"], "vip": [True, None], "tags": [["red", "pink"], None]}
    )
    columns = data.encoders.encode_users(frame)
    known = {n: ["", *words] for n, words in data.encoders.user.vocabularies.items()}
    assert columns["user_id"].tolist() == [0, 0]
    assert columns["country"].tolist() == [known["country"].index("de"), 0]
    assert columns["tags"].row(0).tolist() == [known["tags"].index("red"), 0] and not len(columns["tags"].row(1))
    assert columns["age"][0].tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match="users, column 'country'.*no such column"):
        data.encoders.encode_users(frame.drop(columns="country"))
    with pytest.raises(DataError, match="users, column 'age'.*'old' is not a number"):
        data.encoders.encode_users(frame.assign(age=["old", "3.5"]))
    assert all(len(c) == 0 for c in data.encoders.encode_users(frame.iloc[:0]).values())


def test_new_items_of_a_long_table_come_in_their_order_of_appearance():
    records = simple(domain=["a", "b"] * 6)
    long = pd.DataFrame({"item_id": [0, 1, 1], "domain": ["a", "a", "b"], "kind": ["x", "y", "x"]})
    data = dataset_from_frames(records, items=long)
    new = pd.DataFrame({"item_id": [77, 1, 77], "domain": ["b", "b", "a"], "kind": ["y", "q", "x"]})
    columns = data.encoders.encode_items(new)
    assert columns["kind"].tolist() == [[1, 2], [0, 0]]
    assert columns["item_id"].tolist() == [0, 2]


def test_a_history_is_encoded_as_rows_of_known_items():
    data = dataset_from_frames(**good_frames())
    known = data.item_ids[: len(data.encoders.item.ids)]
    past = data.encoders.encode_history([[known[3], str(known[0]), 10**9], [], np.array([known[1]])])
    assert [past.row(i).tolist() for i in range(3)] == [[3, 0], [], [1]]
    with pytest.raises(ValueError, match="text or integers; 1.0 is a float"):
        data.encoders.encode_history([[1.0]])


def test_encoders_of_another_version_are_refused():
    with pytest.raises(ValueError, match="encoders of version 9"):
        Encoders.from_dict({"version": 9})
