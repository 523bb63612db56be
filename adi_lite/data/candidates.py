"""Candidate lists with one positive and uniform negatives, and the carving of one held-out record a user."""

from __future__ import annotations

import numpy as np


def draw_candidates(
    positives: np.ndarray,
    excluded_query: np.ndarray,
    excluded_item: np.ndarray,
    num_items: int,
    num_candidates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """One list of distinct items a query: its positive at a random place among uniform negatives.

    The protocol of the official candidate files of WSDM Cup 2022 (paper, Section 5.1.3: 100 candidates, one positive):
    negatives are drawn without replacement, uniform over the catalogue whatever an item's popularity, never one of the
    query's excluded items (those that its user has already) and never its positive.

    Args:
        positives: (q,) item of each query, a number in 0…num_items-1.
        excluded_query, excluded_item: (n,) pairs of query number and item that must not be drawn.
        num_items: size of the catalogue.
        num_candidates: length c of each list, the positive included.

    Returns:
        (q, c) int64 items.

    Raises:
        ValueError: a query has fewer than c - 1 items to draw from.
    """
    queries, negatives = len(positives), num_candidates - 1
    if num_candidates < 1:
        raise ValueError(f"num_candidates must be at least 1, got {num_candidates}")
    pairs = np.concatenate([np.arange(queries) * num_items + positives, excluded_query * num_items + excluded_item])
    banned = np.unique(pairs.astype(np.int64))
    free = num_items - np.bincount(banned // num_items, minlength=queries)
    if queries and free.min() < negatives:
        raise ValueError(
            f"query {int(free.argmin())} has {int(free.min())} items to draw negatives from, but lists of "
            f"{num_candidates} candidates need {negatives}; ask for at most {int(free.min()) + 1} candidates"
        )
    lists = np.empty((queries, num_candidates), dtype=np.int64)
    todo, width = np.arange(queries), negatives + negatives // 4 + 8
    while len(todo) and negatives:
        drawn, complete = _first_distinct(todo, banned, num_items, negatives, width, rng)
        lists[todo[complete], :-1] = drawn
        todo, width = todo[~complete], 2 * width  # by symmetry, drawing the short rows anew keeps items equally likely
    rows, place = np.arange(queries), rng.integers(num_candidates, size=queries)
    lists[:, -1] = lists[rows, place]
    lists[rows, place] = positives
    return lists


def _first_distinct(
    queries: np.ndarray, banned: np.ndarray, num_items: int, negatives: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``width`` items a query with replacement and keep the first distinct ones that are not banned: a uniform
    sample without replacement. Returns the items of the rows with enough of them, and which rows those are."""
    items = rng.integers(num_items, size=(len(queries), width))
    keys = (queries[:, None] * num_items + items).ravel()
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    place = np.minimum(np.searchsorted(banned, keys), len(banned) - 1)
    good = (first & (banned[place] != keys)).reshape(items.shape)
    rank = good.cumsum(1)
    complete = rank[:, -1] >= negatives
    keep = good[complete] & (rank[complete] <= negatives)
    return items[complete][keep].reshape(-1, negatives), complete


def leave_one_out(user: np.ndarray, item: np.ndarray, rng: np.random.Generator, min_records: int = 3) -> np.ndarray:
    """Mask of one random record of each user with at least ``min_records`` records.

    A record that occurs more than once is never taken: its copy would stay behind in training and give the answer away.
    """
    pair = user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item
    _, inverse, copies = np.unique(pair, return_inverse=True, return_counts=True)
    eligible = np.flatnonzero((copies[inverse] == 1) & (np.bincount(user)[user] >= min_records))
    order = eligible[np.lexsort((rng.random(len(eligible)), user[eligible]))]
    held_out = np.zeros(len(user), dtype=bool)
    held_out[order[np.unique(user[order], return_index=True)[1]]] = True
    return held_out
