"""KuaiRand-Pure: a real log of short videos that anybody can download (Gao et al., CIKM 2022; CC BY-SA 4.0).

The domains are the tabs of the app, in each of which the videos are recommended in another scenario.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from adi_lite.data.click_log import ClickLog, Validation, names_of
from adi_lite.data.click_timeline import AliveIn, cut_log
from adi_lite.data.kuairand_files import KuaiRandFiles, read_kuairand
from adi_lite.data.schema import MultiDomainDataset

DOMAINS = ("1", "4", "2")
TEST_START = "2022-05-05T00:00:00+08:00"


def load_kuairand(
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
    root: str | Path | None = None,
) -> MultiDomainDataset:
    """Clicks of KuaiRand-Pure, split by time; the interface is that of :func:`~adi_lite.data.globo.load_globo`.

    The last four days are the test. Of the ten days before it that every copy of the log has (2022-04-25 to 05-04), the
    first three or four are the past that histories and statistics of training come from; training and validation take
    the others. A training window that begins with the log would know nothing of any user or video.

    User features: code, profile (as published, without a date), clicks by domain, history. Video features: code,
    author, types, tags, length, age since the upload, clicks by domain in several windows, users, share, trend.

    Args:
        domains: numbers of tabs. 86 % of the clicks are in tab 1; tabs beside 1, 4, 2 and 0 are tiny.
        windows: hours over which a video's clicks are counted; longer than in news, as clicks are few.
        root: folder of own files under the published names, in place of the published ones.

    Other arguments are as of :func:`~adi_lite.data.globo.load_globo`.

    Raises:
        OutOfReachError: the files are not here and cannot be downloaded.
        DataFileError: a file is not the published one.
        ValueError: an option that makes no sense, or a split without clicks.
    """
    files = read_kuairand(None if root is None else Path(root))
    return cut_log(
        make_log(names_of(domains), files),
        name="kuairand",
        notes=files.notes,
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
    ).dataset()


def make_log(domains: tuple[str, ...], files: KuaiRandFiles) -> ClickLog:
    """The clicks in the tabs ``domains``."""
    clicks, place = files.clicks, pd.Index([int(d) for d in domains]).get_indexer(files.clicks["tab"])
    if absent := [d for n, d in enumerate(domains) if not bool((place == n).any())]:
        found = ", ".join(map(str, sorted(set(clicks["tab"].tolist()))))
        raise ValueError(f"no click in tab {', '.join(absent)}; the log has {found}")
    here = place >= 0
    columns = {"domain": place[here], **{name: clicks[name][here] for name in ("user", "item", "time")}}
    return ClickLog.sorted(tuple(f"tab {d}" for d in domains), columns, {}, files.users, files.videos)
