"""The rolling protocol: retrieval as a portal does it, with an index that is refreshed as the day goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from adi_lite.data.schema import Interactions, MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.evaluation.scorer import Scorer

Refresh = Callable[[MultiDomainDataset], Scorer]
"""Gives a scorer over the columns and catalogues of a moment: ``trained.scorer.on``, or ``RecentPopularity(3).fit``."""


def evaluate_by_the_hour(
    methods: Mapping[str, Refresh],
    hours: Iterable[tuple[MultiDomainDataset, Interactions]],
    ks: Sequence[int] = (100,),
    *,
    exclude_seen: bool = False,
) -> pd.DataFrame:
    """Recall@k over each domain's whole catalogue, hour by hour, with what is known when the hour begins.

    Models are not trained again: only what they read is refreshed.

    Args:
        methods: by name, what makes a scorer of an hour's data.
        hours: see :func:`~adi_lite.data.globo.globo_hours`.
        ks: cutoffs.
        exclude_seen: leaves out what users took before the test began; what they took since stays.

    Returns:
        A row for each hour, method and domain with queries: ``start`` (first second of the hour, seconds since 1970),
        method, domain, queries, and a column for each metric.
    """
    rows = []
    for data, records in hours:
        start = int(records.timestamp.min()) // 3600 * 3600
        for name, refresh in methods.items():
            evaluation = evaluate(refresh(data), data, "test", "corpus", ks, exclude_seen)
            queries = np.bincount(evaluation.domain, minlength=data.num_domains)
            for domain, means in evaluation.per_domain().items():
                recalls = {f"recall@{k}": means[f"recall@{k}"] for k in ks}
                count = int(queries[data.domains.index(domain)])
                rows.append({"start": start, "method": name, "domain": domain, "queries": count, **recalls})
    return pd.DataFrame(rows)


def over_all_hours(hourly: pd.DataFrame) -> pd.DataFrame:
    """Mean over the queries of all hours, a row for each method and domain (every query of an hour counts the same)."""
    metrics = [c for c in hourly.columns if c.startswith("recall@")]
    weighted = hourly.assign(**{m: hourly[m] * hourly["queries"] for m in metrics})
    sums = weighted.groupby(["method", "domain"], sort=False)[["queries", *metrics]].sum()
    return sums[metrics].div(sums["queries"], axis=0).assign(queries=sums["queries"])
