"""Small random click logs, and the columns of a moment by slow and plain pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from adi_lite.data.click_log import DAY, HOUR, Attributes, ClickLog, TimeSplit
from adi_lite.data.click_timeline import Timeline

START = 100 * DAY
DOMAINS = ("x", "y", "z")
SPLIT = TimeSplit.days(pd.Timestamp(START + 4 * DAY, unit="ms"))
"""Training is the third day of the log, validation the fourth, the test the fifth."""


def frame(seed: int = 0, clicks: int = 900, users: int = 40, items: int = 50) -> pd.DataFrame:
    """Five days of clicks in the order of time. Ids are no row numbers, half hours repeat, some fall on a boundary."""
    rng = np.random.default_rng(seed)
    time = START + np.sort(rng.integers(0, 240, clicks)) * (HOUR // 2)
    item = rng.integers(0, items, clicks)
    device = rng.integers(-1, 4, clicks)
    device[(time >= START + 4 * DAY) & (device == 3)] = 9  # unheard of before the test
    late = rng.random(clicks) < 0.4  # items that turn up as time goes by
    item[late] = items + (time[late] - START) // (6 * HOUR)
    return pd.DataFrame(
        {
            "user": rng.integers(0, users, clicks) * 7 + 3,
            "item": item * 11 + 5,
            "domain": rng.choice(3, clicks, p=[0.6, 0.3, 0.1]),
            "time": time,
            "device": device,
        }
    )


def attributes() -> Attributes:
    """Category, words and creation of every third item; categories from 700 on are new on the last day."""
    ids = np.arange(5, 800, 33)
    return Attributes(
        ids=ids,
        categorical={"category": np.where(ids % 2, ids // 100, -1)},
        dense={"words": (ids / 100).astype(np.float32)},
        created=np.where(ids % 2, START + ids * HOUR // 8, -1),
    )


def log_of(clicks: pd.DataFrame) -> ClickLog:
    columns = {name: clicks[name].to_numpy() for name in ("user", "item", "domain", "time")}
    context = {"device": clicks["device"].to_numpy()}
    return ClickLog.sorted(DOMAINS, columns, context, Attributes(), attributes())


def timeline(clicks: pd.DataFrame, **options) -> Timeline:
    return Timeline(log_of(clicks), SPLIT, name="clicks", **{"alive_hours": 30, "max_history": 5, **options})


def item_statistics(clicks: pd.DataFrame, item: int, domain: int, start: int, windows: tuple[int, ...]) -> dict:
    """The statistics of one item in one domain at ``start``, from all clicks, by counting."""
    past = clicks[(clicks["time"] < start) & (clicks["domain"] == domain)]
    own = past[past["item"] == item]
    counts = {h: int((own["time"] >= start - h * HOUR).sum()) for h in windows}
    recent = past[past["time"] >= start - windows[-1] * HOUR]
    share = counts[windows[-1]] / len(recent) if len(recent) else 0.0
    people = recent[recent["item"] == item]["user"].nunique()
    rate = counts[windows[-1]] * windows[0] / windows[-1]
    return {
        **{f"clicks_{h}h": np.log1p(n) for h, n in counts.items()},
        f"users_{windows[-1]}h": np.log1p(people),
        f"share_{windows[-1]}h": np.log1p(10_000 * share),
        "trend": np.log((1 + counts[windows[0]]) / (1 + rate)),
    }


def past_items(clicks: pd.DataFrame, user: int, start: int) -> list[int]:
    """All distinct items of a user before ``start``, the latest last."""
    own = clicks[(clicks["user"] == user) & (clicks["time"] < start)]["item"].tolist()
    return [v for n, v in enumerate(own) if v not in own[n + 1 :]]
