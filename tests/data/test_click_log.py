"""Data sets of click logs: columns against plain pandas, and that no column reads what comes after its moment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from click_worlds import (
    SPLIT,
    START,
    attributes,
    frame,
    item_statistics,
    log_of,
    past_items,
    timeline,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from adi_lite.data.click_columns import latest_distinct
from adi_lite.data.click_log import DAY, HOUR, ClickLog, TimeSplit, to_ms
from adi_lite.data.click_timeline import Timeline
from adi_lite.data.schema import Ragged, Snapshot
from adi_lite.training.trainer import can_tie_history

WINDOWS = (1, 3, 6, 24)
STARTS = {name: window[0] for name, window in SPLIT.windows().items()}


@pytest.fixture(scope="module")
def clicks() -> pd.DataFrame:
    return frame()


@pytest.fixture(scope="module")
def data(clicks):
    return timeline(clicks).dataset()


def by_id(data, split: str, context: bool = True) -> dict:
    """Everything that a model may read at the start of a split, keyed by original ids, so that rows may differ."""
    now, seen = data.as_of(split), {}
    for ids, columns in ((data.user_ids, now.users), (data.item_ids, now.items)):
        for name, column in columns.items():
            if name != "device" or context:
                seen |= {(name, i): value for i, value in zip(ids.tolist(), column.tolist(), strict=True)}
    for row, user in enumerate(data.user_ids.tolist()):
        seen["history", user] = data.item_ids[now.history.row(row)].tolist()
    for d, catalogue in enumerate(now.catalogues):
        seen["catalogue", d] = sorted(data.item_ids[catalogue].tolist())
    return seen


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_columns_against_counting(clicks, data, split):
    start, now = STARTS[split], data.as_of(split)
    for row, item in enumerate(data.item_ids.tolist()):
        for d in range(3):
            for name, value in item_statistics(clicks, item, d, start, WINDOWS).items():
                assert float(now.items[name][row, d, 0]) == pytest.approx(value, abs=1e-5), (name, item, d)
    counts = clicks[clicks["time"] < start].groupby(["user", "domain"]).size()
    for row, user in enumerate(data.user_ids.tolist()):
        expected = [np.log1p(counts.get((user, d), 0)) for d in range(3)]
        assert now.users["clicks"][row, :, 0].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_ages_against_counting(clicks, data, split):
    start, now = STARTS[split], data.as_of(split)
    table = attributes()
    created = {i: c for i, c in zip(table.ids.tolist(), table.created.tolist(), strict=True) if c >= 0}
    unborn = 0
    for row, item in enumerate(data.item_ids.tolist()):
        born = min(clicks[clicks["item"] == item]["time"].min(), created.get(item, 1 << 60))
        expected = [np.log1p((start - born) / HOUR), 0] if born < start else [0, 1]
        unborn += born >= start
        assert now.items["age"][row].tolist() == pytest.approx(expected, abs=1e-5)
    assert unborn > 0


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_histories_and_catalogues_against_counting(clicks, data, split):
    start, now = STARTS[split], data.as_of(split)
    known = set(data.item_ids[data.items["item_id"] > 0].tolist())
    longest = 0
    for row, user in enumerate(data.user_ids.tolist()):
        expected = [v for v in past_items(clicks, user, start) if v in known]
        longest = max(longest, len(expected))
        assert data.item_ids[now.history.row(row)].tolist() == expected[-5:]
    assert longest > 5
    end = SPLIT.train[1] if split == "train" else start
    alive = clicks[(clicks["time"] >= start - 30 * HOUR) & (clicks["time"] < end)]
    for d, catalogue in enumerate(now.catalogues):
        here = alive[alive["domain"] == d]["item"]
        assert sorted(data.item_ids[catalogue].tolist()) == sorted(here.unique().tolist())
        assert torch.equal(catalogue, catalogue.sort().values)


def test_records_are_the_first_of_each_user_item_and_domain(clicks, data):
    for split, (start, end) in SPLIT.windows().items():
        own = clicks[(clicks["time"] >= start) & (clicks["time"] < end)]
        own = own.drop_duplicates(["user", "item", "domain"])
        part = data.split(split)
        assert data.user_ids[part.user].tolist() == own["user"].tolist()
        assert data.item_ids[part.item].tolist() == own["item"].tolist()
        assert part.domain.tolist() == own["domain"].tolist()
        assert part.timestamp.tolist() == (own["time"] // 1000).tolist()


def test_codes_are_those_of_training(clicks, data):
    trained = clicks[(clicks["time"] >= SPLIT.train[0]) & (clicks["time"] < SPLIT.train[1])]
    assert set(data.user_ids[data.users["user_id"] > 0]) == set(trained["user"])
    known = data.item_ids[data.items["item_id"] > 0]
    assert set(trained["item"]) < set(known) < set(data.item_ids)
    users = trained["user"].unique()
    past = {v for u in users for v in past_items(clicks, u, SPLIT.train[0])[-5:]}
    alive = clicks[(clicks["time"] >= SPLIT.train[0] - 30 * HOUR) & (clicks["time"] < SPLIT.train[1])]["item"]
    assert set(known) == past | set(alive)
    assert can_tie_history(data) and all(can_tie_history(data.as_of(s)) for s in ("valid", "test"))


def test_attributes_have_the_codes_of_training(data):
    table = attributes()
    category = dict(zip(table.ids.tolist(), table.categorical["category"].tolist(), strict=True))
    words = dict(zip(table.ids.tolist(), table.dense["words"].tolist(), strict=True))
    known = data.item_ids[data.items["item_id"] > 0].tolist()
    values = sorted({category[i] for i in known if category.get(i, -1) >= 0})
    for row, item in enumerate(data.item_ids.tolist()):
        value = category.get(item, -1)
        assert int(data.items["category"][row]) == (values.index(value) + 1 if value in values else 0)
        assert float(data.items["words"][row, 0]) == pytest.approx(words.get(item, 0.0))
    assert any(category.get(i, -1) > values[-1] for i in data.item_ids.tolist()), "a category that only the test has"


def test_request_context_is_that_of_the_first_click_in_the_split(clicks, data):
    train = clicks[(clicks["time"] >= SPLIT.train[0]) & (clicks["time"] < SPLIT.train[1])]
    words = sorted(set(train["device"]) - {-1})
    for split, (start, end) in SPLIT.windows().items():
        own = clicks[(clicks["time"] >= start) & (clicks["time"] < end)].drop_duplicates("user").set_index("user")
        for row, user in enumerate(data.user_ids.tolist()):
            device = own["device"].get(user, -1)
            assert int(data.as_of(split).users["device"][row]) == (words.index(device) + 1 if device in words else 0)


def shuffled(clicks: pd.DataFrame, start: int, seed: int) -> pd.DataFrame:
    """Users, items, domains and contexts of the clicks from ``start`` on, each shuffled within its split."""
    rng, changed = np.random.default_rng(seed), clicks.copy()
    for low, high in SPLIT.windows().values():
        rows = np.flatnonzero((clicks["time"] >= max(low, start)) & (clicks["time"] < high))
        for name in ("user", "item", "domain", "device"):
            changed.loc[rows, name] = clicks[name].to_numpy()[rng.permutation(rows)]
    return changed


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_shuffling_the_future_changes_the_request_context_only(clicks, data, split):
    other = timeline(shuffled(clicks, STARTS[split], 1)).dataset()
    before, after = by_id(data, split), by_id(other, split)
    assert before.keys() == after.keys()
    changed = {name for name, i in before if before[name, i] != after[name, i]}
    # Training catalogues hold what is clicked in training: the negatives that its positives are told from.
    assert changed == ({"device", "catalogue"} if split == "train" else {"device"})


@pytest.mark.parametrize("split", ["valid", "test"])
def test_another_future_changes_nothing_for_the_rows_that_stay(clicks, data, split):
    start = STARTS[split]
    future = frame(seed=9, users=60, items=90)
    other = timeline(pd.concat([clicks[clicks["time"] < start], future[future["time"] >= start]])).dataset()
    for earlier in ("train", "valid", "test"):
        if STARTS[earlier] <= start:
            before, after = by_id(data, earlier, context=earlier != split), by_id(other, earlier, earlier != split)
            both = [k for k in before if k in after]
            assert len(both) > 200 and all(before[k] == after[k] for k in both)
    assert len(other.test) != len(data.test) or not torch.equal(other.test.item, data.test.item)


def test_hours_are_known_from_their_past(clicks, data):
    line = timeline(clicks)
    hours = list(line.hours(data))
    assert sum(len(records) for _, records in hours) >= len(data.test)
    later = {int(records.timestamp.min()) * 1000 // HOUR * HOUR: hour for hour, records in hours}
    assert len(later) == len(hours) > 15
    for start in list(later)[::6]:
        hour, now = later[start], line.at(start, start + HOUR)
        assert bool((hour.test.timestamp < (start + HOUR) // 1000).all()) and hour.user_ids is data.user_ids
        for d in range(3):
            item = int(hour.catalogues[d][0])
            expected = item_statistics(clicks, int(data.item_ids[item]), d, start, WINDOWS)
            assert float(hour.items["clicks_24h"][item, d, 0]) == pytest.approx(expected["clicks_24h"], abs=1e-5)
        changed = clicks.copy()
        late = changed["time"] >= start
        changed.loc[late, "item"] = changed.loc[late, "item"].sample(frac=1, random_state=0).to_numpy()
        other = timeline(changed).at(start, start + HOUR)
        assert all(torch.equal(now.items[n], other.items[n]) for n in ("clicks_1h", "clicks_24h", "trend"))
    first, records = hours[0]
    assert first.as_of("test") is first and torch.equal(first.test.item, records.item)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([-24 * HOUR - 1, -24 * HOUR, -HOUR - 1, -HOUR, -1, 0, 1]), min_size=1, max_size=12),
    st.sampled_from([1, 24]),
)
def test_a_click_at_the_start_belongs_to_the_split_one_before_to_the_past(offsets, hours):
    start = SPLIT.test[0]
    # One user clicks one item in each split, another clicks it at the offsets.
    fixed = [(1, 1, 0, window[0] + 2 * HOUR) for window in SPLIT.windows().values()]
    rows = [(2, 1, 0, start + o) for o in offsets] + fixed
    columns = dict(zip(("user", "item", "domain", "time"), map(np.array, zip(*rows, strict=True)), strict=True))
    log = ClickLog.sorted(("x",), columns, {}, attributes(), attributes())
    data = Timeline(log, SPLIT, name="one item").dataset()
    now = data.as_of("test")
    row = data.user_ids.tolist().index(2)
    inside = [o for o in offsets if -hours * HOUR <= o < 0]
    counted = float(now.items[f"clicks_{hours}h"][0, 0, 0])
    regular = sum(start - hours * HOUR <= t < start for _, _, _, t in fixed)
    assert counted == pytest.approx(np.log1p(len(inside) + regular), abs=1e-6)
    assert int((data.test.user == row).sum()) == (max(offsets) >= 0)
    assert now.history.row(row).tolist() == ([0] if min(offsets) < 0 else [])
    assert float(now.users["clicks"][row, 0, 0]) == pytest.approx(np.log1p(sum(o < 0 for o in offsets)), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40), st.integers(1, 4))
def test_latest_distinct_items(pairs, limit):
    user, item = np.array([p[0] for p in pairs], dtype=np.int64), np.array([p[1] for p in pairs], dtype=np.int64)
    found = list(zip(*(c.tolist() for c in latest_distinct(user, item, limit)), strict=True))
    expected = []
    for u in range(4):
        own = [v for w, v in pairs if w == u]
        expected += [(u, v) for v in [v for n, v in enumerate(own) if v not in own[n + 1 :]][-limit:]]
    assert found == expected


def test_splits_by_days():
    split = TimeSplit.days("2017-10-10T03:00:00Z", train_days=2, valid_days=0.5, test_days=3)
    start = to_ms("2017-10-10 03:00")
    assert split.test == (start, start + 3 * DAY) and split.valid == (start - DAY // 2, start)
    assert split.train == (start - DAY // 2 - 2 * DAY, start - DAY // 2)
    whole = TimeSplit.days("2017-10-10T00:00:00-03:00", validation=None)
    assert whole.valid is None and whole.train == (start - DAY, start) and list(whole.windows()) == ["train", "test"]


def test_without_validation_training_lies_right_before_the_test(clicks):
    whole = TimeSplit(train=SPLIT.valid, valid=None, test=SPLIT.test)
    data = Timeline(log_of(clicks), whole, name="clicks").dataset()
    assert len(data.valid) == 0 and data.as_of("valid") is data and set(data.snapshots) == {"test"}
    assert int(data.train.timestamp.min()) * 1000 >= SPLIT.valid[0]


def test_alive_in_any_domain(clicks, data):
    wide = timeline(clicks, alive_in="any").dataset()
    for split in ("train", "valid", "test"):
        union = torch.unique(torch.cat(data.as_of(split).catalogues))
        assert all(torch.equal(c, union) for c in wide.as_of(split).catalogues)


def test_a_sample_of_users_has_their_records_and_the_statistics_of_all(clicks, data):
    chosen = log_of(clicks).draw_users(0.25, seed=3)
    assert len(chosen) == round(0.25 * clicks["user"].nunique()) == len(set(chosen))
    assert set(chosen) != set(log_of(clicks).draw_users(0.25, seed=4))
    part = timeline(clicks, users=chosen).dataset()
    assert set(part.user_ids) == set(chosen) & set(data.user_ids)
    for split in ("train", "valid", "test"):
        mine, every = part.split(split), data.split(split)
        keep = torch.from_numpy(np.isin(data.user_ids, chosen))[every.user]
        assert part.user_ids[mine.user].tolist() == data.user_ids[every.user[keep]].tolist()
        assert part.item_ids[mine.item].tolist() == data.item_ids[every.item[keep]].tolist()
        now, then = part.as_of(split), data.as_of(split)
        row = {i: n for n, i in enumerate(data.item_ids.tolist())}
        there = torch.tensor([row[i] for i in part.item_ids.tolist()])
        assert all(torch.equal(now.items[n], then.items[n][there]) for n in ("age", "clicks_3h", "users_24h", "trend"))
        for mine, theirs in zip(now.catalogues, then.catalogues, strict=True):
            assert sorted(part.item_ids[mine].tolist()) == sorted(data.item_ids[theirs].tolist())
    with pytest.raises(ValueError, match="no click in the train split"):
        timeline(clicks, users=np.array([-5]))


def test_notes_say_what_is_missed_and_dropped(clicks, data):
    now, test = data.as_of("test"), data.test
    miss = [~torch.isin(test.item[test.domain == d], now.catalogues[d]) for d in range(3)]
    told = data.notes["positives outside the catalogue (misses)"]
    assert all(f"test {n} {float(m.float().mean()):.3f}" in told for n, m in zip("xyz", miss, strict=True))
    window = clicks[(clicks["time"] >= SPLIT.test[0]) & (clicks["time"] < SPLIT.test[1])]
    assert f"test {len(window) - len(test)} of the same user" in data.notes["repeated clicks"].replace(",", "")
    late = clicks[clicks["time"] >= SPLIT.train[0]]
    assert "statistics are empty in training" in timeline(late).dataset().notes["past of training"]


def test_snapshots_are_checked(data):
    good = data.snapshots["test"]
    for change, words in (
        ({"catalogues": good.catalogues[:2]}, "snapshot of test: 2 catalogues for 3 domains"),
        ({"catalogues": (good.catalogues[0][:0], *good.catalogues[1:])}, "snapshot of test: domain 'x' is empty"),
        ({"items": {**good.items, "age": torch.zeros(2, 2)}}, "snapshot of test: item feature 'age': expected shape"),
        ({"users": {}}, "snapshot of test: user feature 'user_id' is in the schema but has no column"),
        ({"history": None}, "snapshot of test: a history is needed"),
        ({"history": Ragged(torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))}, "2 rows for"),
        ({"history": Ragged(good.history.values + 10_000, good.history.offsets)}, "snapshot of test: history: values"),
    ):
        with pytest.raises(ValueError, match=words):
            data.replace(snapshots={"test": replace(good, **change)})
    with pytest.raises(ValueError, match="snapshot of 'tomorrow': the splits are"):
        data.replace(snapshots={"tomorrow": good})
    with pytest.raises(ValueError, match="unknown split 'tomorrow'"):
        data.as_of("tomorrow")
    assert isinstance(good, Snapshot)


def test_one_domain_keeps_its_snapshots(data):
    one = data.only_domain(1)
    assert torch.equal(one.as_of("test").items["trend"], data.as_of("test").items["trend"])
    assert bool((one.as_of("test").test.domain == 1).all()) and not one.as_of("test").snapshots


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alive_hours": 0}, "alive_hours must be positive"),
        ({"alive_in": "page"}, "alive_in must be 'domain' or 'any'"),
        ({"max_history": 0}, "max_history must be at least 1"),
        ({"windows": (3, 1)}, "windows must be ascending"),
    ],
)
def test_options_that_make_no_sense(clicks, options, words):
    with pytest.raises(ValueError, match=words):
        timeline(clicks, **options)


def test_logs_and_splits_that_make_no_sense(clicks):
    with pytest.raises(ValueError, match="no click in the test split, 1970-04-15 00:00 to 1970-04-16 00:00 UTC"):
        timeline(clicks[clicks["time"] < SPLIT.test[0]])
    with pytest.raises(ValueError, match="in the order of time"):
        ClickLog(("x",), *(np.array([1, 1]) for _ in range(3)), time=np.array([START, START - 1]))
    with pytest.raises(ValueError, match="differ in length"):
        ClickLog(("x",), *(np.array([1]) for _ in range(3)), time=np.array([START, START]))
    with pytest.raises(ValueError, match="no click in the domains x"):
        ClickLog(("x",), *(np.array([]) for _ in range(4)))
    with pytest.raises(ValueError, match="share of the users"):
        log_of(clicks).draw_users(1.5, 0)
    with pytest.raises(ValueError, match="'noon' is no point in time"):
        to_ms("noon")
    with pytest.raises(ValueError, match="validation must be 'day' or None"):
        TimeSplit.days("2017-10-10", validation="week")
    with pytest.raises(ValueError, match="valid_days must be positive, got 0"):
        TimeSplit.days("2017-10-10", valid_days=0)
