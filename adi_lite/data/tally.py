"""What one pass over the records counts: parts, domains, and which ids occur where. A byte for each id and domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adi_lite.data.chunks import chunks
from adi_lite.data.defects import MAX_ROWS
from adi_lite.data.records import Records
from adi_lite.data.split import Split


@dataclass
class Tally:
    """Counts of the records of D domains.

    Attributes:
        parts: records of each part of the split.
        trained: (D,) training records of each domain.
        shown: (D, items) whether the domain has a training record of the item.
        occurs, learnt: by side, (ids,) whether the id occurs at all, and in the training part.
    """

    parts: dict[str, int]
    trained: np.ndarray
    shown: np.ndarray
    occurs: dict[str, np.ndarray]
    learnt: dict[str, np.ndarray]

    @classmethod
    def of(cls, records: Records, split: Split) -> Tally:
        domains, sizes = len(records.domains), {side: len(records.ids(side)) for side in ("user", "item")}
        parts = dict.fromkeys(("train", "valid", "test"), 0)
        trained = np.zeros(domains, dtype=np.int64)
        shown = np.zeros((domains, sizes["item"]), dtype=bool)
        occurs, learnt = ({side: np.zeros(n, dtype=bool) for side, n in sizes.items()} for _ in range(2))
        for part in chunks(len(records)):
            domain, train = records.domain[part], split.train[part]
            for name in parts:
                parts[name] += int(getattr(split, name)[part].sum())
            trained += np.bincount(domain[train], minlength=domains)
            shown[domain[train], records.item[part][train]] = True
            for side in sizes:
                number = getattr(records, side)[part]
                occurs[side][number] = True
                learnt[side][number[train]] = True
        return cls(parts, trained, shown, occurs, learnt)


def first_rows(records: Records, which: Callable[[slice], np.ndarray]) -> tuple[np.ndarray, int]:
    """The first rows (from 1) of the records for which ``which(part)`` is true, as a report shows them, and how many."""
    rows, count = [], 0
    for part in chunks(len(records)):
        here = np.flatnonzero(which(part))
        rows += (here[:MAX_ROWS] + part.start + 1).tolist()
        count += len(here)
    return np.array(rows[:MAX_ROWS], dtype=np.int64), count
