"""Globo.com's news portal: a real log with several domains, whose users and items overlap (Moreira et al., 2018).

The domains are types of referrer, by which a click came; what their codes mean is not published. News is a hard case:
articles are born and die within a day or two. Terms: academic use only, no redistribution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from adi_lite.data.click_log import Attributes, ClickLog, Validation, names_of
from adi_lite.data.click_timeline import AliveIn, Timeline, cut_log
from adi_lite.data.globo_files import CONTEXT, TERMS, GloboFiles, read_globo
from adi_lite.data.schema import Interactions, MultiDomainDataset

DOMAINS = ("2", "1", "5")
TEST_START = "2017-10-10T03:00:00Z"
"""Midnight in Brasília."""


def load_globo(
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
    root: str | Path | None = None,
) -> MultiDomainDataset:
    """Globo.com's clicks, split by time as the paper's log is: train on some days, test on the next.

    No column reads what comes after the start of its split (see :class:`~adi_lite.data.click_timeline.Timeline` and
    :meth:`~adi_lite.data.schema.MultiDomainDataset.as_of`), but for the request context of users (device, os, country,
    region, environment), which comes with the first request of the split itself.

    User features: code, request context, clicks by domain, history. Item features: code, category and words (0 where no
    metadata is known), age, clicks by domain in several windows, users, share of the domain's clicks, trend. There are
    no impressions in this log, so no click-through rates.

    Args:
        domains: codes of referrer types, e.g. ``("2", "1", "5")``, or one string with commas. Clicks by others are not
            read at all.
        test_start: where the test begins, ISO 8601 in UTC.
        train_days, valid_days, test_days: lengths of the splits.
        validation: "day": ``valid`` lies between training and test; None: there is none, and training lies right before
            the test.
        alive_hours: a domain's catalogue holds the items clicked in it in so many hours before the split.
        alive_in: "any" counts clicks in any of ``domains`` instead of those in the domain itself.
        max_history: latest distinct items of a user's history.
        refresh_hours: training records learn from what was known at the beginning of their period of so many hours, 24
            for each day by what was known at its start; None: from what was known when training begins.
        windows: hours over which an item's clicks are counted.
        sample: share of the users whose records are kept, for quick trials; None keeps all. Catalogues and the statistics
            of items stay those of everybody.
        seed: of the choice of these users.
        root: folder of own files of the same format, in place of the published ones.

    Raises:
        OutOfReachError: the files are not here; the message says where to get them, and the terms.
        DataFileError: a file is not the published one.
        ValueError: an option that makes no sense, or a split without clicks.
    """
    return globo_timeline(
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
        root=root,
    ).dataset()


def globo_hours(**options) -> Iterator[tuple[MultiDomainDataset, Interactions]]:
    """The rolling protocol: for each hour of the test, the data as they are known when it begins, and its records.

    Catalogues, histories and statistics are refreshed from the past only, while rows and codes are those of
    :func:`load_globo` with the same ``options``, so that a model trained there scores here as it is::

        for data, _ in globo_hours():
            evaluate(ModelScorer(trained.scorer.models, data), data, "test", "corpus", ks=(100,))
    """
    timeline = globo_timeline(**options)
    yield from timeline.hours(timeline.dataset())


def globo_timeline(
    domains: Sequence[str] | str = DOMAINS,
    *,
    root: str | Path | None = None,
    **options,
) -> Timeline:
    """The log and its splits; arguments and errors as of :func:`load_globo`."""
    files = read_globo(None if root is None else Path(root))
    log = make_log(names_of(domains), files)
    notes = {"files": files.check, "terms": TERMS, "domains": "types of referrer; the codes' meaning is not published"}
    return cut_log(log, name="globo", notes=notes, **{"test_start": TEST_START, **options})


def make_log(domains: tuple[str, ...], files: GloboFiles) -> ClickLog:
    """The clicks by the referrer types ``domains``."""
    referrer = files.clicks["referrer"]
    place = pd.Index([int(d) for d in domains]).get_indexer(referrer)
    if absent := [d for n, d in enumerate(domains) if not bool((place == n).any())]:
        found = ", ".join(map(str, np.unique(referrer)))
        raise ValueError(f"no click by referrer type {', '.join(absent)}; the log has {found}")
    here = place >= 0
    columns = {"domain": place[here], **{name: files.clicks[name][here] for name in ("user", "item", "time")}}
    context = {name: files.clicks[name][here] for name in CONTEXT}
    return ClickLog.sorted(tuple(f"referrer {d}" for d in domains), columns, context, Attributes(), files.articles)
