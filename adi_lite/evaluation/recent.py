"""Popularity in the last hours before a split: the strongest reference where items live for a day."""

from __future__ import annotations

from dataclasses import dataclass

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.fitting import Reference, UserScores

PREFIX, SUFFIX = "clicks_", "h"


@dataclass(frozen=True)
class RecentPopularity(Reference):
    """An item's score is the logarithm of its clicks in the domain in the last hours, the same for everybody.

    It reads the item feature ``clicks_<hours>h`` of a click log (see :class:`~adi_lite.data.click_columns.ItemColumns`),
    which ends when the split begins: fit it on ``data.as_of("test")`` to score the test split.

    Attributes:
        hours: one of the windows that the data set counts clicks over.
    """

    hours: int = 3

    def fit_domain(self, dataset: MultiDomainDataset, domain: int) -> UserScores:
        name = f"{PREFIX}{self.hours}{SUFFIX}"
        if name not in dataset.items:
            known = windows_of(dataset)
            has = f"it has windows of {', '.join(map(str, known))} h" if known else "it counts no clicks over time"
            raise ValueError(f"{dataset.name} has no item feature {name!r}: {has}")
        counts = dataset.items[name][dataset.catalogues[domain], domain, 0]
        return lambda users: counts.expand(len(users), -1)


def windows_of(dataset: MultiDomainDataset) -> list[int]:
    """Hours of the windows over which a data set counts the clicks of its items."""
    names = (f.name.removeprefix(PREFIX).removesuffix(SUFFIX) for f in dataset.schema.item if f.name.startswith(PREFIX))
    return sorted(int(n) for n in names if n.isdigit())
