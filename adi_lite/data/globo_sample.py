"""A small drawn stand-in for Globo.com's log, for machines that have not got it.

Three types of referrer of unequal size with common users and articles, articles that are born and die within days, in
the format of the real files and read by the same loader. It says nothing about the real data, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from adi_lite.data.click_log import DAY, HOUR, Validation, to_ms
from adi_lite.data.click_timeline import AliveIn, Timeline
from adi_lite.data.globo import DOMAINS, TEST_START, globo_timeline
from adi_lite.data.globo_files import CLICKS_FOLDER, METADATA_PART
from adi_lite.data.schema import Interactions, MultiDomainDataset

USERS, ARTICLES, CLICKS, FACTORS = 900, 700, 14_000, 6
SHARES = {"2": 0.55, "1": 0.35, "5": 0.07, "7": 0.03}
"""Clicks by referrer type."""
DAYS_BEFORE, LIFE_HOURS = 5, 30
"""Days of the log before its test day, and the hours in which an article's appeal falls to 1/e."""
NOTE = "Drawn stand-in, not Globo.com's log: the files were out of reach."


def load_globo_sample(
    domains: Sequence[str] | str = DOMAINS,
    *,
    test_start: str = TEST_START,
    train_days: float = 1,
    valid_days: float = 1,
    test_days: float = 1,
    validation: Validation = "day",
    alive_hours: float = 48,
    alive_in: AliveIn = "domain",
    max_history: int = 50,
    refresh_hours: float | None = None,
    windows: Sequence[int] = (1, 3, 6, 24),
    sample: float | None = None,
    seed: int = 0,
) -> MultiDomainDataset:
    """The stand-in as a data set; options as of :func:`~adi_lite.data.globo.load_globo`, ``seed`` of all draws."""
    return _timeline(
        seed,
        domains=domains,
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
    ).dataset()


def globo_sample_hours(seed: int = 0, **options) -> Iterator[tuple[MultiDomainDataset, Interactions]]:
    """The stand-in hour by hour; see :func:`~adi_lite.data.globo.globo_hours`."""
    timeline = _timeline(seed, **options)
    yield from timeline.hours(timeline.dataset())


def _timeline(seed: int, **options) -> Timeline:
    with TemporaryDirectory() as folder:
        write_sample(Path(folder), seed)
        timeline = globo_timeline(root=folder, seed=seed, **options)
    timeline.name, timeline.notes = "globo-sample", {"sample": NOTE}
    return timeline


def write_sample(folder: Path, seed: int = 0) -> None:
    """Write ``clicks/clicks_hour_*.csv`` and a metadata file of part of the articles below ``folder``."""
    clicks, articles = draw_sample(seed)
    target = folder / CLICKS_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    hour = (clicks["click_timestamp"] - clicks["click_timestamp"].min()) // HOUR
    for number, part in clicks.groupby(hour):
        part.to_csv(target / f"clicks_hour_{number:03d}.csv", index=False)
    articles.to_csv(folder / METADATA_PART, index=False)


def draw_sample(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Clicks in the order of time, and the metadata of four articles in five, in the original columns.

    A user clicks an article in proportion to exp(taste + popularity in the domain - age / life) over those born by then.
    """
    rng = np.random.default_rng([seed, 20171])
    end = to_ms(TEST_START) + DAY
    start = end - (DAYS_BEFORE + 1) * DAY
    created = np.sort(rng.integers(start - DAY, end - 2 * HOUR, ARTICLES))
    created[0] = start - DAY  # somebody clicks in the first second, too
    topic = rng.normal(size=(ARTICLES, FACTORS))
    codes, shares = np.array([int(c) for c in SHARES]), np.array(list(SHARES.values()))
    appeal = rng.gumbel(size=(len(codes), ARTICLES)) * 0.7 + rng.gumbel(size=ARTICLES)
    taste = rng.normal(size=(USERS, FACTORS))
    leaning = rng.dirichlet(shares * 6, size=USERS)
    activity = rng.gamma(0.7, size=USERS)

    time = np.sort(rng.integers(start, end, CLICKS))
    user = rng.choice(USERS, CLICKS, p=activity / activity.sum())
    domain = (leaning[user].cumsum(1) < rng.random((CLICKS, 1))).sum(1).clip(max=len(codes) - 1)
    age = (time[:, None] - created) / HOUR
    score = taste[user] @ topic.T * (1.2 / np.sqrt(FACTORS)) + appeal[domain] - age / LIFE_HOURS
    score += rng.gumbel(size=score.shape)
    article = np.where(age >= 0, score, -np.inf).argmax(1)  # the largest score + Gumbel noise: one draw

    device = rng.integers(1, 4, USERS)
    clicks = pd.DataFrame(
        {
            "user_id": user,
            "session_id": time // HOUR * 10_000 + user,
            "session_start": time // HOUR * HOUR,
            "session_size": 2,
            "click_article_id": article,
            "click_timestamp": time,
            "click_environment": np.where(rng.random(CLICKS) < 0.9, 4, 2),
            "click_deviceGroup": device[user],
            "click_os": device[user] * 2,
            "click_country": np.where(rng.random(USERS) < 0.95, 1, 11)[user],
            "click_region": rng.integers(1, 28, USERS)[user],
            "click_referrer_type": codes[domain],
        }
    )
    articles = pd.DataFrame(
        {
            "article_id": np.arange(ARTICLES),
            "category_id": topic[:, :3].argmax(1) * 10 + 1,
            "created_at_ts": created,
            "publisher_id": 0,
            "words_count": rng.poisson(200, ARTICLES),
        }
    )
    return clicks, articles.iloc[np.sort(rng.permutation(ARTICLES)[: ARTICLES * 4 // 5])]
