"""Feature columns of users and items as they were known at a moment of a click log (Table 1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adi_lite.data.click_log import HOUR, Attributes, ClickLog, Window
from adi_lite.data.schema import Column, Feature, Ragged
from adi_lite.data.simulation.columns import ITEM, ITEM_DOMAIN, USER, USER_DOMAIN

SHARE_UNIT = 1e4
"""Shares of a domain's clicks are taken per ten thousand, so that their logarithm is of the size of the others."""


@dataclass(frozen=True)
class Rows:
    """Rows of users or items: the ids of the rows, of which the first ``known`` have a code, and the row of each click.

    ``row`` is (n,) int64, -1 for a click of an id without a row.
    """

    ids: np.ndarray
    known: int
    row: np.ndarray

    @classmethod
    def of(cls, column: np.ndarray, known: np.ndarray, everything: np.ndarray) -> Rows:
        """Rows for the ids ``known``, then for the others of ``everything``, both sorted."""
        ids = np.concatenate([known, np.setdiff1d(everything, known)])
        return cls(ids, len(known), pd.Index(ids).get_indexer(column).astype(np.int64))

    def __len__(self) -> int:
        return len(self.ids)

    def codes(self) -> Tensor:
        """(rows,) row + 1, or 0 for rows that are not known."""
        row = torch.arange(1, len(self) + 1)
        return torch.where(row <= self.known, row, 0)


def latest_distinct(user: np.ndarray, item: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """The last ``limit`` distinct items of each user, sorted by user, then by their last click.

    Args:
        user, item: (n,) numbers from 0, in the order of time.
    """
    if not len(user):
        return user, item
    keep = ~pd.Series(user * (item.max() + 1) + item).duplicated(keep="last").to_numpy()
    user, item = user[keep], item[keep]
    order = np.argsort(user, kind="stable")
    user, item = user[order], item[order]
    from_the_end = np.searchsorted(user, user, side="right") - np.arange(len(user))
    return user[from_the_end <= limit], item[from_the_end <= limit]


def sorted_rows(rows: np.ndarray, values: np.ndarray, num_rows: int) -> Ragged:
    """A :class:`Ragged` of ``values`` whose ``rows`` are sorted already."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=num_rows))])
    return Ragged(torch.from_numpy(values), torch.from_numpy(offsets))


class UserColumns:
    """Columns of users: code, attributes, the context of the request, clicks by domain.

    The request context comes with the request that is to be answered, so it is that of the user's first click *in* the
    split: the only thing that is read from there. It is unknown for users without a click in the split. Values that
    training does not know have code 0.
    """

    def __init__(self, log: ClickLog, users: Rows, train: Window) -> None:
        self.log, self.users = log, users
        self.fixed: dict[str, Column] = {"user_id": users.codes()}
        features = [Feature("user_id", "categorical", users.known + 1, group=USER)]
        added, columns = attribute_columns(log.users, users, USER)
        features += added
        self.fixed |= columns
        self.context: dict[str, np.ndarray] = {}
        for name, values in log.context.items():
            words = vocabulary(values[log.between(*train)])
            self.context[name] = encode(values, words)
            features.append(Feature(name, "categorical", len(words) + 1, group=USER))
        features.append(Feature("clicks", "dense", 1, per_domain=True, group=USER_DOMAIN))
        self.features = tuple(features)

    def at(self, start: int, end: int) -> dict[str, Column]:
        past, now = self.log.before(start), self.log.between(start, end)
        columns = dict(self.fixed)
        here = self.users.row[now] >= 0
        user = self.users.row[now][here][::-1]  # backwards: a user's first click is written last, and stays
        for name, codes in self.context.items():
            column = np.zeros(len(self.users), dtype=np.int64)
            column[user] = codes[now][here][::-1]
            columns[name] = torch.from_numpy(column)
        counts = count_by_domain(self.users.row[past], self.log.domain[past], len(self.users), len(self.log.domains))
        columns["clicks"] = _dense(np.log1p(counts))
        return columns


class ItemColumns:
    """Columns of items: code, attributes, age, and statistics by domain over windows that end at the moment.

    - ``age``: log(1 + hours since the item was created or first clicked, whichever is first), and 1 where it is neither
      created nor clicked yet, as far as is known (the hours are 0 then).
    - ``clicks_3h``: log(1 + clicks in the domain in the last 3 hours), and so for each window.
    - ``users_24h``: log(1 + distinct users in the domain) in the longest window.
    - ``share_24h``: log(1 + 10,000 times the item's share of the domain's clicks) in the longest window.
    - ``trend``: log((1 + clicks in the shortest window) / (1 + what the longest window's rate gives for it)).

    Nothing was shown to anybody as far as the log says, so these are clicks, not click-through rates.
    """

    def __init__(self, log: ClickLog, items: Rows, windows: tuple[int, ...]) -> None:
        self.log, self.items, self.windows = log, items, windows
        self.fixed: dict[str, Column] = {"item_id": items.codes()}
        added, columns = attribute_columns(log.items, items, ITEM)
        self.fixed |= columns
        longest = windows[-1]
        names = [*(f"clicks_{h}h" for h in windows), f"users_{longest}h", f"share_{longest}h", "trend"]
        self.features = (
            Feature("item_id", "categorical", items.known + 1, group=ITEM),
            *added,
            Feature("age", "dense", 2, group=ITEM),
            *(Feature(name, "dense", 1, per_domain=True, group=ITEM_DOMAIN) for name in names),
        )
        self.birth = self._births()

    def _births(self) -> np.ndarray:
        """(rows,) creation or first click in the log, whichever is first; the far future where there is neither."""
        never = np.iinfo(np.int64).max
        birth = np.full(len(self.items), never)
        row = self.items.row[::-1]  # backwards: the first click is written last, and stays
        birth[row[row >= 0]] = self.log.time[::-1][row >= 0]
        if self.log.items.created is not None:
            created = _lookup(self.log.items, self.items.ids, self.log.items.created)
            birth = np.where(created >= 0, np.minimum(created, birth), birth)
        return birth

    def at(self, start: int) -> dict[str, Column]:
        num_items, num_domains = len(self.items), len(self.log.domains)
        born = self.birth < start
        hours = np.where(born, start - np.where(born, self.birth, start), 0) / HOUR
        columns = dict(self.fixed)
        columns["age"] = torch.from_numpy(np.stack([np.log1p(hours), ~born], 1).astype(np.float32))
        counts = {}
        for h in self.windows:
            part = self.log.between(start - h * HOUR, start)
            counts[h] = count_by_domain(self.items.row[part], self.log.domain[part], num_items, num_domains)
            columns[f"clicks_{h}h"] = _dense(np.log1p(counts[h]))
        shortest, longest = self.windows[0], self.windows[-1]
        part = self.log.between(start - longest * HOUR, start)
        total = np.bincount(self.log.domain[part], minlength=num_domains)
        columns[f"users_{longest}h"] = _dense(np.log1p(self._users(part)))
        columns[f"share_{longest}h"] = _dense(np.log1p(SHARE_UNIT * counts[longest] / np.maximum(total, 1)))
        expected = counts[longest] * (shortest / longest)
        columns["trend"] = _dense(np.log((1 + counts[shortest]) / (1 + expected)))
        return columns

    def _users(self, part: slice) -> np.ndarray:
        """(rows, D) distinct users of the clicks ``part``."""
        item, domain, user = self.items.row[part], self.log.domain[part], self.log.user[part]
        key = (item * len(self.log.domains) + domain) * (int(user.max(initial=0)) + 1) + user
        first = ~pd.Series(key).duplicated().to_numpy()
        return count_by_domain(item[first], domain[first], len(self.items), len(self.log.domains))


def count_by_domain(row: np.ndarray, domain: np.ndarray, num_rows: int, num_domains: int) -> np.ndarray:
    """(num_rows, D) how often each pair occurs; rows of -1 do not count."""
    here = row >= 0
    counts = np.bincount(row[here] * num_domains + domain[here], minlength=num_rows * num_domains)
    return counts.reshape(num_rows, num_domains)


def attribute_columns(table: Attributes, rows: Rows, group: str) -> tuple[list[Feature], dict[str, Column]]:
    """Features and columns of attributes; values that no known row has get code 0."""
    features, columns = [], {}
    place = pd.Index(table.ids).get_indexer(rows.ids)
    listed = place >= 0
    for name, values in table.categorical.items():
        raw = np.where(listed, values[place] if len(values) else -1, -1)
        words = vocabulary(raw[: rows.known])
        features.append(Feature(name, "categorical", len(words) + 1, group=group))
        columns[name] = torch.from_numpy(encode(raw, words))
    for name, bag in table.bags.items():
        chosen = torch.from_numpy(place[listed])
        taken = bag.take(chosen)
        row = torch.from_numpy(np.flatnonzero(listed))[taken.row_of_value()].numpy()
        words = vocabulary(taken.values.numpy()[row < rows.known])
        codes = encode(taken.values.numpy(), words)
        features.append(Feature(name, "bag", len(words) + 1, group=group))
        columns[name] = sorted_rows(row, codes, len(rows))
    for name, values in table.dense.items():
        features.append(Feature(name, "dense", 1, group=group))
        raw = np.where(listed, values[place] if len(values) else 0, 0).astype(np.float32)
        columns[name] = torch.from_numpy(raw[:, None])
    return features, columns


def vocabulary(values: np.ndarray) -> np.ndarray:
    """The distinct values from 0 on, sorted; -1 is no value."""
    return np.unique(values[values >= 0])


def encode(values: np.ndarray, words: np.ndarray) -> np.ndarray:
    """(n,) int64: 1 for the first of ``words``, and so on; 0 for what is not among them."""
    return pd.Index(words).get_indexer(values).astype(np.int64) + 1


def _lookup(table: Attributes, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    place = pd.Index(table.ids).get_indexer(ids)
    return np.where(place >= 0, values[place] if len(values) else -1, -1)


def _dense(values: np.ndarray) -> Tensor:
    """(rows, D) to a per-domain dense column of width 1."""
    return torch.from_numpy(values.astype(np.float32)[:, :, None])
