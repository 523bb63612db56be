"""Training time cut into periods: each record with what was known at the beginning of its own period."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from click_worlds import SPLIT, START, frame, item_statistics, timeline

from adi_lite.data.click_log import DAY, HOUR
from adi_lite.data.fingerprint import records_fingerprint

WINDOWS = (1, 3, 6, 24)


@pytest.fixture(scope="module")
def clicks():
    return frame()


@pytest.fixture(scope="module")
def data(clicks):
    return timeline(clicks, refresh_hours=6).dataset()


def test_records_fall_into_their_periods(data):
    parts = data.train_periods()
    assert len(parts) == len(data.periods) == 4
    assert sum(len(p.train) for p in parts) == len(data.train)
    begins = [p.begins for p in data.periods]
    assert begins == [(SPLIT.train[0] + n * 6 * HOUR) // 1000 for n in range(4)]
    for part, low, high in zip(parts, begins, [*begins[1:], SPLIT.train[1] // 1000], strict=True):
        assert low <= int(part.train.timestamp.min()) and int(part.train.timestamp.max()) < high
        assert part.train_periods() == [part], "a period is not cut again"


def test_columns_of_a_period_are_those_of_its_beginning(clicks, data):
    for n, part in enumerate(data.train_periods()):
        start = SPLIT.train[0] + n * 6 * HOUR
        for d in range(3):
            for item in part.catalogues[d][:4].tolist():
                expected = item_statistics(clicks, int(data.item_ids[item]), d, start, WINDOWS)
                for name, value in expected.items():
                    assert float(part.items[name][item, d, 0]) == pytest.approx(value, abs=1e-5)


def test_catalogues_of_a_period_are_the_items_alive_then_and_its_own(clicks, data):
    for n, part in enumerate(data.train_periods()):
        start = SPLIT.train[0] + n * 6 * HOUR
        for d in range(3):
            seen = clicks[(clicks["domain"] == d) & clicks["time"].between(start - 30 * HOUR, start + 6 * HOUR - 1)]
            assert set(data.item_ids[part.catalogues[d].numpy()].tolist()) == set(seen["item"])
            assert bool(torch.isin(part.train.item[part.train.domain == d], part.catalogues[d]).all())


def test_a_period_reads_nothing_of_its_future(clicks, data):
    start = SPLIT.train[0] + 12 * HOUR
    changed, rows = clicks.copy(), (clicks["time"] >= start).to_numpy()
    for name in ("user", "item"):
        changed.loc[rows, name] = clicks.loc[rows, name].sample(frac=1, random_state=1).to_numpy()
    other = timeline(changed, refresh_hours=6).dataset()
    rows = {int(i): n for n, i in enumerate(other.item_ids)}
    for before, after in list(zip(data.periods, other.periods, strict=True))[:3]:
        for n, item in enumerate(data.item_ids):
            if int(item) in rows:
                for name in ("clicks_1h", "clicks_24h", "users_24h", "trend", "age"):
                    assert torch.equal(before.known.items[name][n], after.known.items[name][rows[int(item)]])


def test_one_domain_keeps_the_periods(data):
    one = data.only_domain(1)
    assert sum(len(p.train) for p in one.train_periods()) == int((data.train.domain == 1).sum())
    assert all(bool((p.train.domain == 1).all()) for p in one.train_periods())


def test_a_period_without_records_is_passed_over(data):
    late = data.train.timestamp >= data.periods[1].begins
    parts = data.replace(train=data.train.take(late)).train_periods()
    assert len(parts) == 3


def test_periods_are_part_of_what_a_run_goes_on_from(clicks, data):
    assert records_fingerprint(data) != records_fingerprint(timeline(clicks).dataset())
    moved = data.replace(periods=(data.periods[0], replace(data.periods[1], begins=data.periods[1].begins + 1)))
    assert records_fingerprint(moved) != records_fingerprint(data.replace(periods=data.periods[:2]))


def test_scoring_has_no_periods(clicks, data):
    assert not data.as_of("test").periods
    assert not next(timeline(clicks, refresh_hours=6).hours(data))[0].periods


def test_periods_that_make_no_sense(clicks, data):
    first, second = data.periods[:2]
    for change, words in (
        ({"periods": (second, first)}, "in order of time"),
        ({"periods": (second,)}, "lies before the first period"),
        ({"periods": (replace(first, known=replace(first.known, users={})),)}, "training period 0: user feature"),
        ({"train": replace(data.train, timestamp=None)}, "need the timestamps"),
    ):
        with pytest.raises(ValueError, match=words):
            data.replace(**change)
    for hours in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="refresh_hours must be"):
            timeline(clicks, refresh_hours=hours)
    assert SPLIT.train[0] == START + 2 * DAY
