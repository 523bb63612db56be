"""Exact draws from a softmax over a catalogue, in two stages: first the category, then the item.

The utility of an item is h[u, category] + g[kind of user, item]: what is personal depends on the category alone, and
what is the item's own depends on the user's kind alone. So the softmax factors without any approximation,

    p(v | u) = p(c | u) p(v | c, kind),   p(c | u) ∝ exp(h[u, c]) sum_{v in c} exp(g[kind, v]),

and the sums over a category are made once. Single items may gain on top of it (those of the user's past): exp(s + x) =
exp(s) + exp(s) (exp(x) - 1), so each of them is one more part of a mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Gains:
    """Items whose utility gains ``value`` > 0 for one user: one entry for each (row, item), sorted by row."""

    row: np.ndarray  # (e,) row of the user among those drawn for
    item: np.ndarray  # (e,) item
    value: np.ndarray  # (e,) added utility


class CategorySampler:
    """Draws items of one catalogue.

    Args:
        catalogue: (n,) items, by row.
        category: (number of all items,) category of each.
        num_categories: K.
        log_weight: (kinds, n) g, in the catalogue's order.
    """

    def __init__(
        self, catalogue: np.ndarray, category: np.ndarray, num_categories: int, log_weight: np.ndarray
    ) -> None:
        order = np.argsort(category[catalogue], kind="stable")
        self.items = catalogue[order]
        self.category = category
        self.position = np.full(len(category), -1, dtype=np.int32)
        self.position[self.items] = np.arange(len(self.items))
        self.weight = np.exp(log_weight[:, order].astype(np.float64) - log_weight.max(1, keepdims=True))
        total = np.cumsum(self.weight, axis=1)
        before = np.concatenate([np.zeros((len(total), 1)), total], axis=1)
        bounds = np.searchsorted(category[self.items], np.arange(num_categories + 1))
        self.first, self.last = bounds[:-1], bounds[1:] - 1
        self.start = before[:, bounds[:-1]]
        self.mass = before[:, bounds[1:]] - self.start
        # one increasing array for all kinds: kind k occupies (k, k + 1]
        self.scale = total[:, -1]
        self.steps = (total / self.scale[:, None] + np.arange(len(total))[:, None]).ravel()

    def draw(
        self,
        rng: np.random.Generator,
        kind: np.ndarray,
        personal: np.ndarray,
        counts: np.ndarray,
        gains: Gains | None = None,
    ) -> np.ndarray:
        """Independent draws, ``counts[i]`` of them for row ``i``.

        Args:
            kind: (p,) kind of user.
            personal: (p, K) h, utility of each category.
            counts: (p,) number of draws.
            gains: items that gain for a row.

        Returns:
            (sum of counts,) items, those of row 0 first.
        """
        tilt = np.exp(personal - personal.max(1, keepdims=True), dtype=np.float64)
        parts = np.cumsum(tilt * self.mass[kind], axis=1)
        plain = parts[:, -1].copy()
        row = np.repeat(np.arange(len(kind)), counts)
        point = rng.random(len(row))
        if gains is not None and len(gains.row):
            extra = tilt[gains.row, self.category[gains.item]] * np.expm1(gains.value)
            extra *= self.weight[kind[gains.row], self.position[gains.item]]
            total = plain + np.bincount(gains.row, extra, minlength=len(kind))
            point *= (total / plain)[row]  # beyond 1 lies the part of the gaining items
        plainly = point < 1
        items = np.empty(len(row), dtype=np.int32)
        chosen = row[plainly]
        category = _step(parts / plain[:, None], chosen, point[plainly])
        items[plainly] = self._within(rng, kind[chosen], category)
        if not plainly.all():
            chosen = row[~plainly]
            steps = np.cumsum(extra / plain[gains.row])
            bounds = np.searchsorted(gains.row, np.arange(len(kind) + 1))
            before = np.concatenate([[0.0], steps])[bounds[:-1]]
            entry = np.searchsorted(steps, before[chosen] + point[~plainly] - 1, side="right")
            items[~plainly] = gains.item[np.clip(entry, bounds[chosen], bounds[chosen + 1] - 1)]
        return items

    def _within(self, rng: np.random.Generator, kind: np.ndarray, category: np.ndarray) -> np.ndarray:
        point = self.start[kind, category] + rng.random(len(kind)) * self.mass[kind, category]
        place = np.searchsorted(self.steps, point / self.scale[kind] + kind, side="right") - kind * len(self.items)
        return self.items[np.clip(place, self.first[category], self.last[category])]


def _step(steps: np.ndarray, row: np.ndarray, point: np.ndarray) -> np.ndarray:
    """For each point in [0, 1) the column of its row's increasing steps that it falls into."""
    columns = steps.shape[1]
    flat = (steps + np.arange(len(steps))[:, None]).ravel()
    # rounding up to the next row, once in 1e10 points, must not leave the row
    return np.clip(np.searchsorted(flat, point + row, side="right") - row * columns, 0, columns - 1)
