"""Passes over arrays that are larger than memory: chunk by chunk, with results that do not depend on the chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

CHUNK = 1 << 17
"""Values of an array that are looked at together."""
_BINS = 1 << 16


def chunks(length: int) -> Iterator[slice]:
    """Slices of at most :data:`CHUNK` places that cover ``length`` places, in order."""
    for start in range(0, length, CHUNK):
        yield slice(start, min(start + CHUNK, length))


def value_at(values: np.ndarray, place: int) -> int:
    """What stands at ``place`` when the (n,) integers are sorted, without sorting them.

    Counts them in equal bins between the smallest and the largest, and goes on within the bin that holds the place.
    """
    low = min(int(values[part].min()) for part in chunks(len(values)))
    high = max(int(values[part].max()) for part in chunks(len(values)))
    while low < high:
        width = -(-(high - low + 1) // _BINS)
        counts = np.zeros(_BINS, dtype=np.int64)
        for part in chunks(len(values)):
            here = np.asarray(values[part])
            here = here[(here >= low) & (here <= high)]
            counts += np.bincount((here - low) // width, minlength=_BINS)
        before = np.cumsum(counts)
        found = int(np.searchsorted(before, place, side="right"))
        place -= int(before[found] - counts[found])
        low, high = low + found * width, min(high, low + (found + 1) * width - 1)
    return low


def group(rows: np.ndarray, values: np.ndarray | None, num_rows: int, out: np.ndarray) -> np.ndarray:
    """Group values by row, in their order of appearance: a counting sort in two passes, O(num_rows) memory.

    Args:
        rows: (n,) row of each value, from 0 to num_rows - 1.
        values: (n,) or None for the values' own places 0 … n - 1.
        out: (n,) takes the values, those of row 0 first.

    Returns:
        (num_rows + 1,) int64: the values of row ``i`` are ``out[offsets[i]:offsets[i + 1]]``.
    """
    offsets = np.zeros(num_rows + 1, dtype=np.int64)
    for part in chunks(len(rows)):
        np.add.at(offsets, np.asarray(rows[part]) + 1, 1)
    np.cumsum(offsets, out=offsets)
    free = offsets[:-1].copy()  # next place of each row
    for part in chunks(len(rows)):
        here = np.asarray(rows[part])
        order = np.argsort(here, kind="stable")
        distinct, first, counts = np.unique(here[order], return_index=True, return_counts=True)
        rank = np.arange(len(here)) - np.repeat(first, counts)
        out[np.repeat(free[distinct], counts) + rank] = order + part.start if values is None else values[part][order]
        free[distinct] += counts
    return offsets


def row_ranges(offsets: np.ndarray) -> Iterator[tuple[int, int]]:
    """Cut grouped rows into ranges ``first … stop - 1`` that hold about :data:`CHUNK` values (or one longer row)."""
    first, last = 0, len(offsets) - 1
    while first < last:
        stop = int(np.searchsorted(offsets, offsets[first] + CHUNK, side="right")) - 1
        stop = min(max(stop, first + 1), last)
        yield first, stop
        first = stop
