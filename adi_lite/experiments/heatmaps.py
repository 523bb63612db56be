"""What Figure 5 is evidence of: weights of features by domain, beside their true importance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats


def average_over_seeds(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Cell by cell, of tables (features x domains) with the same rows and columns."""
    return sum(tables[1:], start=tables[0]) / len(tables)


def rank_agreement(tables: Sequence[pd.DataFrame], truth: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation over features between each seed's table and the truth: a row for each domain.

    Returns:
        Columns mean, low, high (the smallest and the largest over seeds), features. NaN where either is constant.

    Raises:
        ValueError: a feature of the truth that a table lacks.
    """
    rows = {}
    for domain in truth.columns:
        found = []
        for table in tables:
            if lost := sorted(set(truth.index) - set(table.index)):
                raise ValueError(f"no weight for the feature {lost[0]!r}")
            own, true = table.loc[truth.index, domain], truth[domain]
            constant = own.nunique() < 2 or true.nunique() < 2
            found.append(np.nan if constant else float(stats.spearmanr(own, true).statistic))
        rows[domain] = (np.mean(found), np.min(found), np.max(found), len(truth))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high", "features"])


def own_and_other(tables: Sequence[pd.DataFrame], domains: Sequence[str], statistics: Sequence[str]) -> pd.DataFrame:
    """Mean weight that each domain gives to its own statistics, and to those of the other domains; over seeds as well.

    Args:
        tables: weights with a row ``<statistic>_<domain>`` for each pair.
    """
    table, rows = average_over_seeds(tables), {}
    for domain in domains:
        own = [f"{name}_{domain}" for name in statistics]
        others = [f"{name}_{other}" for name in statistics for other in domains if other != domain]
        rows[domain] = (table.loc[own, domain].mean(), table.loc[others, domain].mean())
    return pd.DataFrame.from_dict(rows, orient="index", columns=["own", "other"])
