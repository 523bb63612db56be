"""Results of one evaluation: a row for each query, kept so that intervals and tests can be made later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from adi_lite.atomic import replacing

FORMAT = "adi-lite evaluation 1"

DEFINITION = (
    "recall@k: mean over queries (user, domain) of positives in the first k / positives of the query; "
    "ndcg@k: binary gain 1/log2(rank + 1) over that of the best list; mrr: 1/rank of the first positive; "
    "ties: expectation over random orders; average: mean over domains"
)


@dataclass(frozen=True)
class Evaluation:
    """Metrics of each query, in ascending order of domain and user whatever the order of the records.

    Two evaluations of the same split and protocol have the same rows, so that they can be compared query by query.

    Attributes:
        dataset: name of the data set.
        domains: names of its domains.
        split, protocol: what was ranked: "candidates" or "corpus".
        exclude_seen: whether items of the user's past were left out (corpus only; candidate lists are ranked as given).
        domain, user, num_positives: (q,) int64 columns; users are rows of the data set.
        metrics: (q,) float64 by name, such as "recall@10".
        skipped: (user, domain) pairs known to the data set without a positive in the split; metrics are undefined there.
        unreachable: positives outside their domain's catalogue; corpus: they are misses; candidates: ranked last.
        outside: items of the candidate lists outside the catalogue (positives included), ranked last as one tie.
    """

    dataset: str
    domains: tuple[str, ...]
    split: str
    protocol: str
    exclude_seen: bool
    domain: np.ndarray
    user: np.ndarray
    num_positives: np.ndarray
    metrics: Mapping[str, np.ndarray]
    skipped: int = 0
    unreachable: int = 0
    outside: int = 0

    @property
    def counted(self) -> int:
        """Queries (user, domain) that the metrics are means of."""
        return len(self.user)

    def per_domain(self) -> dict[str, dict[str, float]]:
        """Mean over the queries of each domain; a domain without any query is left out (and named by `describe`)."""
        masks = {name: self.domain == d for d, name in enumerate(self.domains)}
        return {
            name: {metric: float(values[mask].mean()) for metric, values in self.metrics.items()}
            for name, mask in masks.items()
            if mask.any()
        }

    def average(self) -> dict[str, float]:
        """Macro mean: every domain counts the same, as in the average columns of the paper's tables."""
        each = list(self.per_domain().values())
        return {metric: float(np.mean([d[metric] for d in each])) for metric in self.metrics}

    def micro(self) -> dict[str, float]:
        """Mean over all queries: every query counts the same, so that large domains dominate."""
        return {metric: float(values.mean()) for metric, values in self.metrics.items()}

    def describe(self) -> str:
        """One line: what was measured, how, over how many queries, and what was left out."""
        queries = np.bincount(self.domain, minlength=len(self.domains))
        parts = [
            f"{self.dataset}, {self.split} split, {self._protocol()}",
            f"{self.counted} queries ({', '.join(f'{n} {q}' for n, q in zip(self.domains, queries, strict=True))})",
            f"{int(self.num_positives.sum())} positives, {self.unreachable} of them outside the catalogue",
            f"{self.skipped} (user, domain) pairs without a positive skipped",
        ]
        if self.protocol == "candidates":
            parts.append(f"{self.outside} candidates outside the catalogue ranked last")
        return "; ".join([*parts, DEFINITION])

    def _protocol(self) -> str:
        if self.protocol == "candidates":
            return "ranked within candidate lists"
        return "ranked over the domain's whole catalogue" + (" without items seen before" if self.exclude_seen else "")

    def to_frame(self) -> pd.DataFrame:
        """One row a query: domain (name), user (row), num_positives and a column for each metric."""
        names = np.asarray(self.domains, dtype=object)[self.domain]
        columns = {"domain": names, "user": self.user, "num_positives": self.num_positives, **self.metrics}
        return pd.DataFrame(columns)

    def save(self, path: str | Path) -> None:
        """Write a parquet file, which appears whole or not at all."""
        about = {
            "format": FORMAT,
            **{k: getattr(self, k) for k in ("dataset", "split", "protocol", "exclude_seen")},
            **{k: getattr(self, k) for k in ("domains", "skipped", "unreachable", "outside")},
        }
        columns = {"domain": self.domain, "user": self.user, "num_positives": self.num_positives, **self.metrics}
        table = pa.table(dict(columns)).replace_schema_metadata({"adi_lite": json.dumps(about)})
        coded = [name for name in table.column_names if name != "user"]  # users ascend: their steps are small
        with replacing(path) as partial:
            pq.write_table(
                table,
                partial,
                compression="zstd",
                compression_level=12,
                use_dictionary=coded,
                column_encoding={"user": "DELTA_BINARY_PACKED"},
            )

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is not parquet, or holds something else.
        """
        try:
            table = pq.read_table(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is not a parquet file that can be read: {error}") from None
        raw = json.loads((table.schema.metadata or {}).get(b"adi_lite", b"{}"))
        if raw.pop("format", None) != FORMAT:
            raise ValueError(f"{path} does not hold an evaluation of this version ({FORMAT!r})")
        columns = {name: table[name].to_numpy() for name in table.column_names}
        keys = {name: columns.pop(name) for name in ("domain", "user", "num_positives")}
        return cls(**{**raw, "domains": tuple(raw["domains"])}, **keys, metrics=columns)
