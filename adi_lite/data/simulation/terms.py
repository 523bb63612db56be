"""What makes a record likely: the terms of the utility, the features they join, and their weights by domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from adi_lite.data.simulation.config import SimulatorConfig


@dataclass(frozen=True)
class Term:
    """One summand of the utility.

    Attributes:
        name: name of the term.
        user: the user feature that it reads, or None for a term of the item alone.
        item: the item feature that it reads.
        base: weight before the domain's emphasis. Terms have unit variance over users and items, ``history`` excepted.
        part: ``click``, the user's part, or ``exposure``, the system's part (what the auction shows).
    """

    name: str
    user: str | None
    item: str
    base: float
    part: Literal["click", "exposure"] = "click"


TERMS = (
    Term("gender x category", "gender", "category", 0.4),
    Term("age x creative_format", "age", "creative_format", 0.4),
    Term("city x price_level", "city", "price_level", 0.4),
    Term("gender x advertiser_kind", "gender", "advertiser_kind", 0.4),
    Term("click_categories x category", "click_categories", "category", 0.6),
    Term("cart_categories x category", "cart_categories", "category", 0.4),
    Term("pay_categories x category", "pay_categories", "category", 0.4),
    Term("domain_clicks x category", "domain_clicks", "category", 0.6),
    Term("history x item_id", "history", "item_id", 8.0),
    Term("popularity", None, "item_id", 0.2, "exposure"),
    Term("bid", None, "bid", 0.3, "exposure"),
    Term("ctr", None, "ctr", 0.3),
    Term("click", None, "click", 0.15, "exposure"),
    Term("cost", None, "cost", 0.15, "exposure"),
    Term("paynum", None, "paynum", 0.15, "exposure"),
)
"""The order is part of the model: it decides which domain stresses which term."""

PROFILE_TERMS = ("gender x category", "age x creative_format", "city x price_level", "gender x advertiser_kind")
BAGS = ("click_categories", "cart_categories", "pay_categories", "domain_clicks")
STATISTICS = ("bid", "ctr", "click", "cost", "paynum")
HISTORY_SHRINKAGE = 5.0
"""The history term of an item is its count in the user's past over (length of the past + 5)."""


def weights(config: SimulatorConfig) -> np.ndarray:
    """(D, terms) weight of each term in each domain: base * emphasis, * ``strength`` where it reads a user feature."""
    base = np.array([t.base * (config.strength if t.user else 1.0) for t in TERMS])
    turn = (np.arange(config.num_domains)[:, None] + np.arange(len(TERMS))) % len(config.emphasis)
    return base * np.asarray(config.emphasis)[turn]


def number(name: str) -> int:
    """Position of the term called ``name``."""
    return [t.name for t in TERMS].index(name)
