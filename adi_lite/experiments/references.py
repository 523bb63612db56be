"""Non-neural references by name."""

from __future__ import annotations

from adi_lite.evaluation.ials import IALS
from adi_lite.evaluation.recent import RecentPopularity
from adi_lite.evaluation.reference import EASE, ItemKNN, Popularity, Reference

REFERENCES: dict[str, type[Reference]] = {
    "popularity": Popularity,
    "item_knn": ItemKNN,
    "ease": EASE,
    "ials": IALS,
}
OF_LOGS: dict[str, type[Reference]] = {"recent_popularity": RecentPopularity}
"""For data sets that count clicks over time."""


def build_reference(name: str, settings: dict) -> Reference:
    """The reference called ``name`` with ``settings``.

    Raises:
        ValueError: an unknown name or setting.
    """
    known = REFERENCES | OF_LOGS
    if name not in known:
        raise ValueError(f"unknown reference {name!r}; choose {', '.join(known)}")
    try:
        return known[name](**settings)
    except TypeError as error:
        raise ValueError(f"reference {name!r}: {error}") from None
