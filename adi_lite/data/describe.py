"""How large a data set is, how far its domains overlap, how skewed they are: Tables 4 and 5 and what they leave out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
from torch import Tensor

from adi_lite.data.paper import paper_table
from adi_lite.data.schema import Interactions, MultiDomainDataset

BEFORE_TEST = ("train", "valid")
"""Splits that are counted by default: validation records are carved from the training file, as the paper counts it."""


def table4(dataset: MultiDomainDataset, splits: Sequence[str] = BEFORE_TEST) -> pd.DataFrame:
    """The paper's Table 4, one row: distinct users and items over all domains, and records by domain, in ``splits``."""
    records = _records(dataset, splits)
    by_domain = np.bincount(records.domain, minlength=dataset.num_domains)
    return pd.DataFrame(
        {
            "dataset": [dataset.name],
            "users": [len(np.unique(records.user))],
            "items": [len(np.unique(records.item))],
            **{f"records {name}": [int(n)] for name, n in zip(dataset.domains, by_domain, strict=True)},
        }
    )


def table5(dataset: MultiDomainDataset, splits: Sequence[str] = BEFORE_TEST) -> pd.DataFrame:
    """The paper's Table 5 in long form: users and items that two domains share; a domain with itself gives its own.

    Columns: domain, other_domain, users, items.
    """
    records = _records(dataset, splits)
    users, items = _present(records.user, records, dataset), _present(records.item, records, dataset)
    pairs = combinations_with_replacement(range(dataset.num_domains), 2)
    rows = [
        (dataset.domains[a], dataset.domains[b], *(len(np.intersect1d(s[a], s[b], True)) for s in (users, items)))
        for a, b in pairs
    ]
    return pd.DataFrame(rows, columns=["domain", "other_domain", "users", "items"])


def compare_with_paper(dataset: MultiDomainDataset, paper_name: str = "WSDM Cross-Market") -> pd.DataFrame:
    """Tables 4 and 5 figure by figure: what the paper prints, what is counted here, and whether the two are equal.

    The data set's domains are the paper's D1, D2, D3 in this order.

    Columns: table, quantity, domain, other_domain, paper, here, difference, equal.
    """
    labels = [f"D{d + 1}" for d in range(dataset.num_domains)]
    if len(labels) != 3:
        raise ValueError(
            f"the paper's tables have 3 domains, this data set has {len(labels)}: {', '.join(dataset.domains)}"
        )
    four, five = table4(dataset).iloc[0], table5(dataset)
    here = {("users", "all", ""): four["users"], ("items", "all", ""): four["items"]}
    here |= {("records", d, ""): four[f"records {name}"] for d, name in zip(labels, dataset.domains, strict=True)}
    label = dict(zip(dataset.domains, labels, strict=True))
    for row in five.itertuples():
        here |= {(q, label[row.domain], label[row.other_domain]): getattr(row, q) for q in ("users", "items")}
    printed = pd.concat([paper_table(n).assign(table=n) for n in (4, 5)], ignore_index=True)
    printed = printed[printed["dataset"] == paper_name].fillna({"other_domain": ""})
    if printed.empty:
        known = ", ".join(sorted(paper_table(4)["dataset"].unique()))
        raise ValueError(f"the paper describes no data set {paper_name!r}; it describes {known}")
    rows = printed[["table", "quantity", "domain", "other_domain"]].assign(paper=printed["value"].astype(int))
    rows["here"] = [int(here[key]) for key in zip(rows["quantity"], rows["domain"], rows["other_domain"], strict=True)]
    rows["difference"] = rows["here"] - rows["paper"]
    return rows.assign(equal=rows["difference"] == 0).reset_index(drop=True)


def describe(dataset: MultiDomainDataset, splits: Sequence[str] = BEFORE_TEST) -> dict:
    """Sizes, overlaps, density, history lengths and popularity skew of a data set, as plain JSON-able values. Records are
    sorted in memory.

    Users, items, records, density and Gini are counted in ``splits``. ``density`` is the share of a domain's user-item
    pairs that occur; ``popularity_gini`` is taken over the whole catalogue, items without a record included (0: all
    items equally popular, towards 1: one item has all records); ``history`` is the number of past items, when the test
    begins, of the users that have test records in the domain; ``test_positives_without_training`` counts test records whose item has no
    training record in the domain.
    """
    records = _records(dataset, splits)
    return {
        "name": dataset.name,
        "counted_splits": list(splits),
        "users": len(np.unique(records.user)),
        "items": len(np.unique(records.item)),
        "records": len(records),
        "split_records": {s: len(dataset.split(s)) for s in ("train", "valid", "test")},
        "domains": {name: _describe_domain(dataset, d, records) for d, name in enumerate(dataset.domains)},
        "overlaps": [row for row in table5(dataset, splits).to_dict("records") if row["domain"] != row["other_domain"]],
        "features": {side: [f.name for f in getattr(dataset.schema, side)] for side in ("user", "item")},
        "notes": dict(dataset.notes),
    }


def gini(counts: np.ndarray) -> float:
    """Gini coefficient of non-negative counts (0 where they are all zero)."""
    ordered = np.sort(np.asarray(counts, dtype=np.float64))
    n, total = len(ordered), ordered.sum()
    if total == 0:
        return 0.0
    return float(2 * (np.arange(1, n + 1) * ordered).sum() / (n * total) - (n + 1) / n)


def _describe_domain(dataset: MultiDomainDataset, domain: int, records: Interactions) -> dict:
    here = records.take(records.domain == domain)
    user, item = here.user.numpy(), here.item.numpy()
    users, items = len(np.unique(user)), len(np.unique(item))
    pairs = len(np.unique(user * np.int64(dataset.num_items) + item))
    catalogue = dataset.catalogues[domain].numpy()
    counts = np.bincount(item, minlength=dataset.num_items)[catalogue]
    test = dataset.test.take(dataset.test.domain == domain)
    past = dataset.as_of("test").history
    trained = dataset.train.item[dataset.train.domain == domain].numpy()
    return {
        "users": users,
        "items": items,
        "catalogue": len(catalogue),
        "records": len(here),
        "repeated_records": len(here) - pairs,
        "split_records": {s: int((dataset.split(s).domain == domain).sum()) for s in ("train", "valid", "test")},
        "density": pairs / (users * items) if pairs else 0.0,
        "records_per_user": _spread(np.bincount(user)[np.unique(user)] if users else np.zeros(0)),
        "records_per_item": _spread(counts),
        "popularity_gini": gini(counts),
        "history": None if past is None else _spread(past.lengths()[test.user.unique()].numpy()),
        "test_positives_without_training": int((~np.isin(test.item.numpy(), trained)).sum()),
    }


def _spread(values: np.ndarray) -> dict[str, float] | None:
    """Mean, median, 90th percentile and extremes; None of nothing."""
    if len(values) == 0:
        return None
    low, median, p90, high = np.quantile(values, [0, 0.5, 0.9, 1])
    return {
        "mean": float(values.mean()),
        "min": float(low),
        "median": float(median),
        "p90": float(p90),
        "max": float(high),
    }


def _records(dataset: MultiDomainDataset, splits: Sequence[str]) -> Interactions:
    if not splits:
        raise ValueError("name at least one split to count: train, valid, test")
    return Interactions.concat([dataset.split(s) for s in splits])


def _present(column: Tensor, records: Interactions, dataset: MultiDomainDataset) -> list[np.ndarray]:
    return [np.unique(column[records.domain == d].numpy()) for d in range(dataset.num_domains)]
