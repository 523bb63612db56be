"""Random damage to good files: always a sentence that names the file, or exactly what a plain recount says."""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_worlds import Recount, good_frames, write_folder, write_table

from adi_lite.data.defects import DataError
from adi_lite.data.tables import check_folder, load_folder

FRAMES = good_frames()
ODD_VALUES = [
    None,
    "",
    " ",
    "abc",
    "ünïcödé 🚀",
    "a\nb",
    "a\0b",
    'say "x"',
    "x,y",
    "p|q",
    "x" * 5000,
    "NaN",
    "inf",
    "now",
    "2026-13-45",
    "12/31/2026",
    "2026-02-03",
    "shop_A",
    "shop_c",
    "1e400",
    True,
    0,
    -1,
    7,
    2**53 + 1,
    2**63,
    2**70,
    10**15,
    0.5,
    -1e39,
    1e300,
    float("nan"),
    float("inf"),
    dt.datetime(1, 1, 1),
    dt.date(9999, 12, 31),
    b"\xff\xfe",
    ["red"],
    [1, 2],
    [1.5, None],
    [],
]
NEW_TYPES = {
    "text": lambda s: s.astype(str),
    "float": lambda s: pd.Series(np.linspace(0, 1, len(s))),
    "float with gaps": lambda s: pd.Series(np.where(np.arange(len(s)) % 3, np.nan, 1.0)),
    "infinite": lambda s: pd.Series(np.full(len(s), -np.inf)),
    "bool": lambda s: pd.Series(np.arange(len(s)) % 2 == 0),
    "int": lambda s: pd.Series(np.arange(len(s))),
    "constant": lambda s: pd.Series(np.full(len(s), 3.25)),
    "empty": lambda s: pd.Series([None] * len(s), dtype=object),
    "moments": lambda s: pd.Series(pd.Timestamp("1600-01-01") + pd.to_timedelta(np.arange(len(s)), unit="D")),
    "bytes": lambda s: pd.Series([b"x"] * len(s)),
    "lists": lambda s: pd.Series([[v] for v in s]),
    "categories": lambda s: s.astype(str).astype("category"),
}
Step = tuple  # (name of the damage, its arguments)

tables = st.sampled_from(list(FRAMES))
share = st.integers(0, 9_999).map(lambda i: i / 10_000)
steps = st.one_of(
    st.tuples(st.just("cell"), tables, share, share, st.sampled_from(ODD_VALUES)),
    st.tuples(st.just("type"), tables, share, st.sampled_from(list(NEW_TYPES))),
    st.tuples(st.just("drop column"), tables, share),
    st.tuples(st.just("rename"), tables, share, st.sampled_from(["", "userid", "Item_ID", "price", "x@shop_z", "age"])),
    st.tuples(st.just("double row"), tables, share),
    st.tuples(st.just("drop rows"), tables, share, st.sampled_from([0, 1, 5])),
    st.tuples(st.just("shuffle"), tables, st.integers(0, 9)),
    st.tuples(st.just("truncate"), tables, share),
    st.tuples(st.just("flip"), tables, share, st.integers(1, 255)),
    st.tuples(st.just("insert"), tables, share, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("delimiter"), tables, st.sampled_from([";", "\t", "|"])),
    st.tuples(st.just("encoding"), tables, st.sampled_from(["utf-16", "latin-1", "utf-8-sig"])),
    st.tuples(st.just("remove"), tables),
)


def at(values, where: float) -> int:
    return int(where * len(values))


def put_cell(frame: pd.DataFrame, row: float, column: float, value) -> pd.DataFrame:
    frame = frame.astype(object)
    frame.iat[at(frame, row), at(frame.columns, column)] = value
    return frame


FRAME_DAMAGE = {
    "cell": put_cell,
    "type": lambda f, c, kind: f.assign(**{f.columns[at(f.columns, c)]: NEW_TYPES[kind](f.iloc[:, at(f.columns, c)])}),
    "drop column": lambda f, c: f.drop(columns=f.columns[at(f.columns, c)]),
    "rename": lambda f, c, name: f.rename(columns={f.columns[at(f.columns, c)]: name}),
    "double row": lambda f, row: pd.concat([f, f.iloc[[at(f, row)]]], ignore_index=True),
    "drop rows": lambda f, _, kept: f.iloc[:kept],
    "shuffle": lambda f, seed: f.sample(frac=1, random_state=seed).reset_index(drop=True),
}


def as_writable(series: pd.Series) -> pd.Series:
    """A column that Parquet can hold: text where the values do not fit one type."""
    try:
        pa.array(series, from_pandas=True)
    except (pa.ArrowException, OverflowError, ValueError):
        return series.map(lambda v: None if v is None else str(v))
    return series


def damage_bytes(raw: bytes, step: Step) -> bytes:
    match step:
        case "truncate", _, where:
            return raw[: int(where * len(raw))]
        case "flip", _, where, mask if raw:
            place = int(where * len(raw))
            return raw[:place] + bytes([raw[place] ^ mask]) + raw[place + 1 :]
        case "insert", _, where, extra:
            place = int(where * len(raw))
            return raw[:place] + extra + raw[place:]
        case "delimiter", _, mark:
            return raw.replace(b",", mark.encode())
        case "encoding", _, name:
            return raw.decode("utf-8", "ignore").encode(name, "ignore")
    return raw


def damaged_folder(folder: Path, form: str, damage: list[Step]) -> Path:
    frames = {name: frame.copy() for name, frame in FRAMES.items()}
    for name, table, *arguments in damage:
        if name in FRAME_DAMAGE and len(frames[table]) and len(frames[table].columns):
            frames[table] = FRAME_DAMAGE[name](frames[table], *arguments)
    for name, frame in frames.items():
        path = folder / f"{name}.{form}"
        if form == "parquet" and frame.columns.is_unique:
            frame = pd.DataFrame({c: as_writable(frame[c]) for c in frame})
        try:
            write_table(path, frame)
        except ValueError:  # Parquet of pandas refuses two columns of one name
            pa.parquet.write_table(pa.table([pa.array([1])] * 2, names=["a", "a"]), path)
    for step in damage:
        path = folder / f"{step[1]}.{form}"
        if path.exists():
            if step[0] == "remove":
                path.unlink()
            else:
                path.write_bytes(damage_bytes(path.read_bytes(), step))
    return folder


def judge(folder: Path) -> bool:
    """Whether the folder loads; fails where it neither loads right nor says what is wrong."""
    report = check_folder(folder)
    try:
        data = load_folder(folder)
    except DataError as error:
        assert not report.ok
        assert [str(d) for d in error.report.defects] == [str(d) for d in report.defects]
        for defect in report.errors:
            assert defect.file.split(".")[0] in FRAMES
            assert defect.message and defect.remedy and str(defect).removeprefix("error: ") in str(error)
            assert list(defect.rows) == sorted(defect.rows) and min(defect.rows, default=1) >= 1
        return False
    assert report.ok
    Recount(folder).check(data)
    facts = report.facts
    assert facts["records"] == len(data.train) + len(data.valid) + len(data.test)
    assert (facts["users"], facts["items"], facts["domains"]) == (data.num_users, data.num_items, data.num_domains)
    return True


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(form=st.sampled_from(["csv", "parquet"]), damage=st.lists(steps, min_size=1, max_size=2))
def test_a_corrupted_folder_gives_a_clear_error_or_the_right_result(form, damage):
    folder = Path(tempfile.mkdtemp())
    try:
        judge(damaged_folder(folder, form, damage))
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_good_folder_loads_as_the_recount_says(tmp_path, form):
    assert judge(write_folder(tmp_path, FRAMES, form))
