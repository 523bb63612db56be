"""The generalised second-price auction that all arms of a simulated online test share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Auction:
    """Who won the slots of b auctions, and what a click costs; both arrays are (b, slots), the best slot first.

    Attributes:
        winner: int64 column of the candidate, -1 for a slot that stays empty.
        price: float64 payment for each click; 0 for an empty slot.
    """

    winner: np.ndarray
    price: np.ndarray


def hold_auction(bid: np.ndarray, pctr: np.ndarray, slots: int, present: np.ndarray | None = None) -> Auction:
    """Sell ``slots`` slots to the candidates with the largest ``bid * pctr``, and charge generalised second prices.

    A winner pays for a click the least with which it keeps its slot, ``score of the next candidate / own pctr``, and
    never more than its bid (Edelman, Ostrovsky & Schwarz, American Economic Review 2007, with quality scores as in
    Varian, 2007). There is no reserve price: a winner that nobody follows pays 0. Of equal scores, the candidate in the
    lower column comes first.

    Args:
        bid: (b, m) offers for a click.
        pctr: (b, m) estimated click probabilities; only their ratios matter.
        slots: number of slots, at least 1; with fewer candidates some stay empty.
        present: (b, m) bool, which candidates take part; by default all.

    Raises:
        ValueError: shapes differ, or a candidate that takes part has a negative or infinite bid or estimate.
    """
    bid, pctr = np.asarray(bid, dtype=np.float64), np.asarray(pctr, dtype=np.float64)
    present = np.ones(bid.shape, dtype=bool) if present is None else np.asarray(present, dtype=bool)
    if bid.ndim != 2 or not bid.shape == pctr.shape == present.shape:
        raise ValueError(
            f"bid, pctr and present must have one shape (b, m), got {bid.shape}, {pctr.shape} and {present.shape}"
        )
    if slots < 1:
        raise ValueError(f"an auction sells at least 1 slot, got {slots}")
    for name, values in (("bid", bid), ("pctr", pctr)):
        if (wrong := present & ~(np.isfinite(values) & (values >= 0))).any():
            row, column = np.argwhere(wrong)[0]
            raise ValueError(
                f"{name} of candidate {column} in auction {row} is {values[row, column]}; it must be finite, at least 0"
            )
    score = np.where(present, bid * pctr, -np.inf)
    order = np.argsort(-score, axis=1, kind="stable")[:, : slots + 1]
    missing = ((0, 0), (0, slots + 1 - order.shape[1]))
    ranked = np.pad(np.take_along_axis(score, order, 1), missing, constant_values=-np.inf)
    winner = np.where(ranked > -np.inf, np.pad(order, missing, constant_values=-1), -1)[:, :slots]
    filled = winner >= 0
    own_bid, own_pctr = (_of_winner(values, winner) for values in (bid, pctr))
    following = np.maximum(ranked[:, 1:], 0.0)
    # Without a chance of a click, score and price are 0.
    price = np.divide(following, own_pctr, out=np.zeros_like(following), where=filled & (own_pctr > 0))
    return Auction(winner, np.minimum(price, own_bid))


def _of_winner(values: np.ndarray, winner: np.ndarray) -> np.ndarray:
    """(b, slots) value of each winner, 0 in empty slots."""
    if not values.shape[1]:
        return np.zeros(winner.shape)
    return np.where(winner >= 0, np.take_along_axis(values, winner.clip(min=0), 1), 0.0)
