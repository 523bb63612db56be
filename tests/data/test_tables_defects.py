"""Every defect is reported at once, with its file, column, rows and remedy; what is only odd does not stop the loading."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from table_worlds import good_frames, write_folder, write_table

from adi_lite.data.defects import DataError
from adi_lite.data.schema_file import TableSchema
from adi_lite.data.tables import check_folder, dataset_from_frames, load_folder


@pytest.fixture
def frames():
    return good_frames()


def put(frame: pd.DataFrame, column: str, cells: dict) -> pd.DataFrame:
    """The frame with other cells, by row number as the reports count them."""
    values = frame[column].astype(object).tolist()
    for row, value in cells.items():
        values[row - 1] = value
    return frame.assign(**{column: pd.Series(values, dtype=object)})


def errors_of(folder) -> list[tuple]:
    report = check_folder(folder)
    with pytest.raises(DataError) as caught:
        load_folder(folder)
    assert all(str(d).removeprefix("error: ") in str(caught.value) for d in report.errors)
    return [(d.file, d.column, d.rows, f"{d.message}; {d.remedy}") for d in report.errors]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_defects_of_all_files_come_in_one_report(tmp_path, frames, form):
    records = put(frames["interactions"], "user_id", {3: None, 17: None, 80: "  "})
    records = put(records, "domain", {5: None})
    frames["interactions"] = records.rename(columns={"item_id": "itemid"})
    frames["users"] = pd.concat([put(frames["users"], "age", {2: np.inf, 4: 1e35}), frames["users"].iloc[[0, 1]]])
    frames["items"] = put(frames["items"], "domains", {6: ["shop_a", "shop_q"]})
    found = errors_of(write_folder(tmp_path, frames, form))
    want = [
        ("interactions", "item_id", (), "rename 'itemid'"),
        ("interactions", "user_id", (3, 17), "is empty"),
        ("interactions", "user_id", (80,), "only spaces"),
        ("interactions", "domain", (5,), "is empty"),
        ("users", "age", (2,), "is infinite"),
        ("users", "age", (4,), "larger than 1e+30"),
        ("users", "user_id", (21, 22), "has a row already"),
        ("items", "domains", (6,), "unknown domain 'shop_q'; did you mean 'shop_"),
    ]
    assert len(found) == len(want)
    for stem, column, rows, words in want:
        assert [1 for f, c, r, text in found if (f, c, r) == (f"{stem}.{form}", column, rows) and words in text], words


CELLS = [
    ("interactions", "timestamp", {4: "yesterday"}, "'yesterday' is not a moment"),
    ("interactions", "timestamp", {4: "now"}, "'now' is not a moment"),
    ("interactions", "timestamp", {4: "01/02/2026"}, "ISO 8601"),
    ("interactions", "timestamp", {4: "2026-01-02 10:3"}, "is not a moment"),
    ("interactions", "timestamp", {4: "1767225600"}, "mixes numbers and dates"),
    ("interactions", "timestamp", {4: None}, "drop the row or the whole column"),
    ("interactions", "domain", {9: "Shop_a"}, "has 1 item to show"),
    ("interactions", "item_id", {9: "x" * 300}, "an id of 300 characters"),
    ("interactions", "item_id", {9: "1\x07"}, "a control character"),
    ("users", "age", {7: "forty"}, "'forty'"),
    ("users", "age", {7: "inf"}, "is infinite"),
    ("users", "country", {7: "de\nfr"}, "spans lines"),
]


@pytest.mark.parametrize(("table", "column", "cells", "words"), CELLS)
def test_a_bad_cell_of_a_csv_file_is_named(tmp_path, frames, table, column, cells, words):
    frames[table] = put(frames[table], column, cells)
    (found,) = errors_of(write_folder(tmp_path, frames, "csv"))
    assert found[:3] == (f"{table}.csv", column, tuple(cells))
    assert words in found[3]


TYPES = [
    ("interactions", "user_id", lambda n: np.arange(n) / 2, "floating-point numbers, which lose digits"),
    ("interactions", "item_id", lambda n: np.arange(n) > 3, "true/false values, not ids"),
    ("interactions", "domain", lambda n: [None] * n, "no value at all"),
    ("interactions", "domain", lambda n: [["shop_a"]] * n, "lists, not ids"),
    ("interactions", "domain", lambda n: pd.date_range("2026-01-01", periods=n), "datetimes, not ids"),
    ("interactions", "timestamp", lambda n: [True] * n, "no moments"),
    ("interactions", "timestamp", lambda n: np.full(n, 1.7e12), "divide milliseconds by 1000"),
    ("interactions", "timestamp", lambda n: np.full(n, 5), "no record is early enough"),
    ("interactions", "timestamp", lambda n: np.full(n, np.inf), "not a finite number"),
    ("items", "domains", lambda n: [1.5] * n, "not lists of domain names"),
    ("items", "price@shop_z", lambda n: [1.5] * n, "no domain is called 'shop_z'"),
    ("items", "price", lambda n: [1.5] * n, "rename one of them"),
    ("users", "vector", lambda n: [[1.0, 2.0]] * (n - 1) + [[1.0]], "a list of 1 numbers where others have 2"),
    ("users", "vector", lambda n: [[1.0, None]] * n, "a number of the list is missing"),
]


@pytest.mark.parametrize(("table", "column", "values", "words"), TYPES)
def test_a_column_of_the_wrong_type_is_named(tmp_path, frames, table, column, values, words):
    frames[table] = frames[table].assign(**{column: values(len(frames[table]))})
    found = errors_of(write_folder(tmp_path, frames, "parquet"))
    assert [1 for f, c, _, text in found if f == f"{table}.parquet" and c == column and words in text], found


BYTES = [
    (lambda raw: b"", "is empty"),
    (lambda raw: raw.replace(b",", b";"), "separate columns by commas"),
    (lambda raw: raw.decode().encode("utf-16"), "is UTF-16 text"),
    (lambda raw: raw.replace("ö".encode(), b"\xf6"), "is not UTF-8 (byte 0xf6)"),
    (lambda raw: raw[:200] + b"\0" + raw[200:], "holds a NUL byte"),
    (lambda raw: raw + b'u99,"1,de,True,\n', "one is never closed"),
    (lambda raw: raw + b"u99,1,de,True,red,blue\n", "has 6 cells where the header has 5"),
    (lambda raw: raw.split(b"\n")[0] + b"\n", "has no rows"),
    (lambda raw: raw.replace(b"vip", b"age"), "2 columns have this name"),
]


@pytest.mark.parametrize(("damage", "words"), BYTES)
def test_a_csv_file_damaged_as_a_whole_is_named(tmp_path, frames, damage, words):
    path = write_folder(tmp_path, frames, "csv") / "users.csv"
    path.write_bytes(damage(path.read_bytes()))
    found = errors_of(tmp_path)
    assert all(f == "users.csv" for f, *_ in found)
    assert any(words in text for *_, text in found), found


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-100], lambda raw: raw[100:], lambda raw: b"PAR1" * 10, lambda raw: b""]
)
def test_a_damaged_parquet_file_is_named(tmp_path, frames, damage):
    path = write_folder(tmp_path, frames, "parquet") / "users.parquet"
    path.write_bytes(damage(path.read_bytes()))
    (found,) = errors_of(tmp_path)
    assert found[0] == "users.parquet" and ("damaged" in found[3] or "is empty" in found[3])


def test_rows_after_a_bad_row_keep_their_numbers(tmp_path, frames):
    frames["users"] = put(frames["users"], "age", {2: "old", 9: "older"})
    path = write_folder(tmp_path, frames, "csv") / "users.csv"
    lines = path.read_text().splitlines()
    lines.insert(5, "a,b")
    path.write_text("\n".join(lines) + "\n")
    schema = "users: {age: {kind: dense}}\n"
    (tmp_path / "schema.yaml").write_text(schema)
    assert {(c, r) for _, c, r, _ in errors_of(tmp_path)} == {("", (5,)), ("age", (2, 10))}


def test_a_folder_without_its_files_is_named(tmp_path, frames):
    assert "is not a folder" in errors_of(tmp_path / "nowhere")[0][3]
    assert errors_of(tmp_path)[0][0] == "interactions"
    write_folder(tmp_path, frames, "csv")
    write_table(tmp_path / "users.parquet", frames["users"])
    assert "keep one of them" in errors_of(tmp_path)[0][3]


def write_parts(folder, frame, name="interactions", each=40):
    (folder / name).mkdir(parents=True)
    for n, start in enumerate(range(0, len(frame), each)):
        frame.iloc[start : start + each].to_parquet(folder / name / f"part-{n}.parquet", index=False)
    (folder / name / "_SUCCESS").touch()
    (folder / name / ".part-9.parquet.crc").touch()
    return folder


@pytest.mark.parametrize("name", ["interactions", "interactions.parquet"])
def test_a_folder_of_parquet_files_is_one_table(tmp_path, frames, name):
    folder = write_parts(tmp_path / "parts", frames["interactions"], name)
    whole = load_folder(write_folder(tmp_path / "whole", {"interactions": frames["interactions"]}, "parquet"))
    data = load_folder(folder)
    assert np.array_equal(data.user_ids, whole.user_ids) and torch.equal(data.train.item, whole.train.item)
    assert data.notes["source"] == name and whole.notes["source"] == "interactions.parquet"


def test_defects_of_a_folder_of_parquet_files_are_named(tmp_path, frames):
    frame = frames["interactions"]
    bad = write_parts(tmp_path / "row", frame.assign(user_id=frame["user_id"].mask(frame.index == 77)))
    (defect,) = check_folder(bad).errors
    assert (defect.file, defect.column, defect.rows) == ("interactions", "user_id", (78,))
    other = write_parts(tmp_path / "types", frame)
    frame.assign(item_id=frame["item_id"].astype(str)).to_parquet(other / "interactions" / "part-1.parquet")
    (defect,) = check_folder(other).errors
    assert defect.file == "interactions/part-1.parquet" and "other columns or types than" in defect.message
    cut = write_parts(tmp_path / "cut", frame)
    path = cut / "interactions" / "part-2.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    (defect,) = check_folder(cut).errors
    assert defect.file == "interactions/part-2.parquet" and "damaged or not a Parquet file" in defect.message
    deep = write_parts(tmp_path / "deep", frame)
    (deep / "interactions" / "domain=shop_a").mkdir()
    assert "only the files of one folder are read" in check_folder(deep).errors[0].message
    twice = write_parts(tmp_path / "twice", frame)
    frame.to_csv(twice / "interactions.csv", index=False)
    assert "both interactions.csv and interactions are there" in check_folder(twice).errors[0].message


def test_what_is_odd_is_said_but_loads(tmp_path, frames):
    records = frames["interactions"]
    records = put(records, "timestamp", {1: pd.Timestamp("1700-01-01"), 2: records["timestamp"][1]})
    records["timestamp"] = pd.to_datetime(records["timestamp"])
    records = pd.concat([records, records.iloc[[7]]]).assign(rating=5)
    frames["interactions"] = put(records, "user_id", {6: "nobody"})
    users = frames["users"].assign(history="x", born=pd.Timestamp("1990-01-01"), void=[None] * 20)
    frames["users"] = users
    report = check_folder(write_folder(tmp_path, frames, "parquet"))
    assert report.ok and load_folder(tmp_path).num_users == 21
    said = {(d.severity, d.file.split(".")[0], d.column, d.rows): d.message for d in report.defects}
    assert "years apart" in said[("warning", "interactions", "timestamp", (1, *moments_last(records)))]
    assert "same as an earlier one" in said[("note", "interactions", "", (91,))]
    assert "1 users are not in users.parquet" in said[("warning", "interactions", "user_id", (6,))]
    assert "'rating'" in said[("note", "interactions", "", ())]
    assert "name belongs to the history" in said[("warning", "users", "history", ())]
    assert "datetimes, which are no feature" in said[("warning", "users", "born", ())]
    assert "no value at all" in said[("warning", "users", "void", ())]
    assert "have no interactions" in said[("note", "users", "user_id", ())]
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert "0 errors" in str(report) and f"{report.facts['records']} records" in str(report)


def moments_last(records: pd.DataFrame) -> list[int]:
    return [int(records["timestamp"].reset_index(drop=True).idxmax()) + 1]


def test_a_csv_file_that_may_be_cut_off_is_warned_of(tmp_path, frames):
    path = write_folder(tmp_path, frames, "csv") / "interactions.csv"
    path.write_bytes(path.read_bytes()[:-1])
    (warning,) = check_folder(tmp_path).of("warning")
    assert warning.file == "interactions.csv" and "does not end with a line break" in warning.message


def test_nan_in_parquet_is_missing_and_warned_of(tmp_path, frames):
    ages = frames["users"]["age"].fillna(np.nan).to_numpy()
    table = pa.Table.from_pandas(frames["users"].drop(columns="age"), preserve_index=False)
    write_folder(tmp_path, frames, "parquet")
    pq.write_table(table.append_column("age", pa.array(ages, from_pandas=False)), tmp_path / "users.parquet")
    report = check_folder(tmp_path)
    (warning,) = report.of("warning")
    assert report.ok and warning.column == "age" and warning.count == int(np.isnan(ages).sum())


def test_free_text_is_warned_of(tmp_path):
    n = 400
    records = pd.DataFrame({"user_id": range(n), "item_id": [i % 9 for i in range(n)], "domain": "a"})
    users = pd.DataFrame({"user_id": range(n), "story": [f"once {i}" for i in range(n)]})
    assert dataset_from_frames(records, users).schema.user[1].size == n + 1
    report = check_folder(write_folder(tmp_path, {"interactions": records, "users": users}, "csv"))
    assert [d.column for d in report.of("warning") if "different values" in d.message] == ["story"]


# ---- frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "cells", "words", "rows"),
    [
        ("user_id", {4: 7, 9: 8}, "mixes str and int", "rows 4, 9"),
        ("timestamp", {4: "x"}, "mixes Timestamp and str", "row 4"),
        ("user_id", {4: "\ud800"}, "cannot be read as a column", ""),
        ("item_id", {4: 2**70}, "cannot be read as a column", ""),
    ],
)
def test_an_object_column_of_mixed_types_is_named_with_its_rows(frames, column, cells, words, rows):
    frames["interactions"] = put(frames["interactions"], column, cells)
    with pytest.raises(DataError, match=f"interactions, column '{column}'.*{rows}.*{words}"):
        dataset_from_frames(**frames)


def test_something_else_than_a_frame_is_refused(frames):
    with pytest.raises(TypeError, match="interactions must be a pandas DataFrame, got list"):
        dataset_from_frames([1, 2])


# ---- schema ---------------------------------------------------------------------------------------------------------

SCHEMAS = [
    ("users: [", "is not YAML at line"),
    ("- 1", "is not a mapping"),
    ("", "is not a mapping"),
    ("version: 2", "version: Input should be 1"),
    ("colour: red", "colour: Extra inputs are not permitted"),
    ("users: {age: {kind: number}}", "users.age.kind"),
    ("users: {age: {kind: dense, table: x}}", "neither a table nor a min_count"),
    ("users: {domain: {kind: dense}}", "may not be a feature"),
    ("items: {price@a: {kind: dense}}", "list the name before the @"),
    ("domains: [a, a]", "occur more than once: a"),
    ("users: {age: {kind: dense}, age: {kind: bag}}", "the key 'age' occurs twice"),
    ("domains: !!python/object:os.system [a]", "is not YAML"),
]


@pytest.mark.parametrize(("text", "words"), SCHEMAS)
def test_a_bad_schema_is_named(tmp_path, frames, text, words):
    write_folder(tmp_path, frames, "csv")
    (tmp_path / "schema.yaml").write_text(text)
    ((file, column, _, message),) = errors_of(tmp_path)
    assert file == "schema.yaml" and words in f"{column}: {message}"
    with pytest.raises(ValueError):
        TableSchema.from_yaml(text)


def test_a_schema_that_the_tables_do_not_meet_is_told_column_by_column(tmp_path, frames):
    write_folder(tmp_path, frames, "csv")
    (tmp_path / "users.csv").unlink()
    (tmp_path / "schema.yaml").write_text("""
        domains: [shop_a, shop_b, shop_c]
        users: {age: {kind: dense}}
        items:
          price: {kind: dense}
          size: {kind: dense}
          brand: {kind: dense, per_domain: true}
    """)
    found = {(f, c): text for f, c, _, text in errors_of(tmp_path)}
    assert set(found) == {("users", ""), ("items.csv", "price"), ("items.csv", "size"), ("items.csv", "brand")}
    assert "'brand@shop_a'" in found[("items.csv", "brand")]


def test_a_domain_of_the_schema_without_items_or_records_is_named(tmp_path, frames):
    write_folder(tmp_path, frames, "csv")
    (tmp_path / "schema.yaml").write_text("domains: [shop_b, shop_a, shop_c]")
    ((_, column, _, text),) = errors_of(tmp_path)
    assert column == "domain" and "'shop_c' has 0 items to show" in text
    (tmp_path / "schema.yaml").write_text("domains: [shop_b]")
    ((_, column, rows, text),) = [e for e in errors_of(tmp_path) if e[1] == "domain"]
    first = np.flatnonzero(frames["interactions"]["domain"] == "shop_a")[:5] + 1
    assert rows == tuple(first) and "unknown domain 'shop_a'" in text and "'shop_b'" in text


def test_a_domain_that_only_the_future_knows_is_named(frames):
    records = frames["interactions"]
    records.loc[records["timestamp"].rank() > 80, "domain"] = "shop_new"
    with pytest.raises(DataError, match="'shop_new' has 0 items to show, from 0 training of 10 records"):
        dataset_from_frames(**frames)
