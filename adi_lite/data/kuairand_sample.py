"""A small drawn stand-in for KuaiRand-Pure, for machines that have neither the network nor the files.

The clicks are those of the stand-in for Globo.com's log, stretched over fourteen days and written in KuaiRand's format,
with views that were no clicks and rows that occur twice among them. It says nothing about the real data, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from adi_lite.data.click_log import DAY, Validation, to_ms
from adi_lite.data.click_timeline import AliveIn
from adi_lite.data.globo_sample import draw_sample
from adi_lite.data.kuairand import DOMAINS, TEST_START, load_kuairand
from adi_lite.data.kuairand_files import LOG_PART, USER_FEATURES, USERS, VIDEOS
from adi_lite.data.schema import MultiDomainDataset

TABS = {2: 1, 1: 4, 5: 2, 7: 0}
"""Tab that each type of referrer of the other stand-in becomes."""
DAYS, TEST_DAYS = 14, 4
NOTE = "Drawn stand-in, not KuaiRand-Pure: the files were out of reach."


def load_kuairand_sample(
    domains: Sequence[str] | str = DOMAINS,
    *,
    test_start: str = TEST_START,
    train_days: float = 6,
    valid_days: float = 1,
    test_days: float = 4,
    validation: Validation = "day",
    alive_hours: float = 240,
    alive_in: AliveIn = "domain",
    max_history: int = 50,
    refresh_hours: float | None = None,
    windows: Sequence[int] = (6, 24, 72),
    sample: float | None = None,
    seed: int = 0,
) -> MultiDomainDataset:
    """The stand-in; options as of :func:`~adi_lite.data.kuairand.load_kuairand`, ``seed`` of all draws."""
    with TemporaryDirectory() as folder:
        write_sample(Path(folder), seed)
        data = load_kuairand(
            domains,
            test_start=test_start,
            train_days=train_days,
            valid_days=valid_days,
            test_days=test_days,
            validation=validation,
            alive_hours=alive_hours,
            alive_in=alive_in,
            max_history=max_history,
            refresh_hours=refresh_hours,
            windows=windows,
            sample=sample,
            seed=seed,
            root=folder,
        )
    real = ("files", "left out", "terms")
    return data.replace(
        name="kuairand-sample", notes={"sample": NOTE, **{k: v for k, v in data.notes.items() if k not in real}}
    )


def write_sample(folder: Path, seed: int = 0) -> None:
    """Write a log of fourteen days and the tables of users and videos below ``folder``."""
    for name, frame in draw_files(seed).items():
        frame.to_csv(folder / name, index=False)


def draw_files(seed: int = 0) -> dict[str, pd.DataFrame]:
    """The files by name, in the original columns."""
    rng = np.random.default_rng([seed, 20222])
    clicks, articles = draw_sample(seed)
    end = to_ms(TEST_START) + TEST_DAYS * DAY
    time, span = clicks["click_timestamp"].to_numpy(), int(np.ptp(clicks["click_timestamp"])) + 1
    time = end - DAYS * DAY + (time - time.min()) * DAYS * DAY // span
    rows = pd.DataFrame(
        {
            "user_id": clicks["user_id"],
            "video_id": clicks["click_article_id"],
            "date": pd.to_datetime(time + 8 * 3_600_000, unit="ms").strftime("%Y%m%d").astype(int),
            "time_ms": time,
            "is_click": (rng.random(len(clicks)) < 0.6).astype(int),
            "play_time_ms": rng.integers(0, 60_000, len(clicks)),
            "tab": clicks["click_referrer_type"].map(TABS),
        }
    )
    rows = pd.concat([rows, rows.sample(frac=0.02, random_state=seed)]).sort_values("time_ms", kind="stable")
    users = {"user_id": np.arange(rows["user_id"].max() + 1)}
    users |= {name: rng.integers(0, 5, len(users["user_id"])) for name in USER_FEATURES}
    users["user_active_degree"] = np.array(["full_active", "high_active", "UNKNOWN"])[users["onehot_feat0"] % 3]
    count = len(articles)
    videos = {
        "video_id": articles["article_id"],
        "author_id": rng.integers(0, 200, count),
        "video_type": np.where(rng.random(count) < 0.9, "NORMAL", "AD"),
        "upload_dt": np.array(["2022-04-09", "2022-04-10", "2022-04-11"])[rng.integers(0, 3, count)],
        "upload_type": np.array(["LongImport", "Kmovie"])[rng.integers(0, 2, count)],
        "video_duration": np.where(rng.random(count) < 0.95, rng.integers(5_000, 300_000, count), np.nan),
        "music_type": np.where(rng.random(count) < 0.9, rng.integers(4, 9, count), np.nan),
        "tag": articles["category_id"].astype(str) + np.where(rng.random(count) < 0.3, ",7", ""),
    }
    return {LOG_PART: rows, USERS: pd.DataFrame(users), VIDEOS: pd.DataFrame(videos)}
