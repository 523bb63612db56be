"""From a log of clicks to a data set whose columns never read the future."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import torch

from adi_lite.data.click_columns import ItemColumns, Rows, UserColumns, latest_distinct, sorted_rows
from adi_lite.data.click_log import HOUR, SECOND, ClickLog, TimeSplit, Validation, in_words
from adi_lite.data.schema import Interactions, MultiDomainDataset, Period, Ragged, Schema, Snapshot

AliveIn = Literal["domain", "any"]


class Timeline:
    """A click log cut by a time split: the data set, and what was known at any moment.

    Rows: users with records in any split, those of the training split first; items of the training catalogues and
    histories first (the *known* ones), then those that turn up later. The code of a known row is its number plus 1;
    others have code 0, so that cold items rest on their features. A history holds known items only, as a model has
    learnt nothing of any other.

    Args:
        log: the clicks.
        split: its windows. A click at exactly the start of a window belongs to the window, not to its past.
        name, notes: of the data set.
        users: ids of the users whose records are kept, for quick trials; None keeps all. Catalogues and the statistics
            of items count the clicks of everybody, as a portal would know them.
        alive_hours: a catalogue holds the items that the domain saw clicked in so many hours before the split. The
            training catalogue also holds those of the training window itself, as its positives and negatives must
            exist there.
        alive_in: "domain": clicks in the domain itself make an item alive there; "any": clicks in any of the domains.
        max_history: past items of a user that are kept, the latest distinct ones over all domains.
        windows: hours over which an item's clicks are counted, ascending.
        refresh_hours: training is cut into periods of so many hours, and a record learns from what was known at the
            beginning of its period. None: from what was known at the beginning of training.

    Raises:
        ValueError: an option that makes no sense, or a split without clicks.
    """

    def __init__(
        self,
        log: ClickLog,
        split: TimeSplit,
        *,
        name: str,
        notes: Mapping[str, str] | None = None,
        users: np.ndarray | None = None,
        alive_hours: float = 48,
        alive_in: AliveIn = "domain",
        max_history: int = 50,
        windows: tuple[int, ...] = (1, 3, 6, 24),
        refresh_hours: float | None = None,
    ) -> None:
        _check_options(alive_hours, alive_in, max_history, windows, refresh_hours)
        self.refresh = None if refresh_hours is None else round(refresh_hours * HOUR)
        self.log, self.split, self.name, self.notes = log, split, name, dict(notes or {})
        self.alive, self.alive_in, self.max_history = round(alive_hours * HOUR), alive_in, max_history
        start, end = split.train[0], split.test[1]
        trained, everybody = (
            np.unique(ids if users is None else np.intersect1d(ids, users))
            for ids in (log.user[log.between(*split.train)], log.user[log.between(start, end)])
        )
        self.users = Rows.of(log.user, trained, everybody)
        for part, window in split.windows().items():
            if not len(self._own(*window)):
                raise ValueError(
                    f"no click in the {part} split, {in_words(window[0])} to {in_words(window[1])} UTC; the log goes "
                    f"from {in_words(int(log.time[0]))} to {in_words(int(log.time[-1]))}"
                )
        listed = log.item[log.between(start - self.alive, split.train[1])]
        learnt = np.concatenate([listed, self._past_items_of_training()])
        self.items = Rows.of(log.item, np.unique(learnt), log.item[log.between(start - self.alive, end)])
        self.user_columns = UserColumns(log, self.users, split.train)
        self.item_columns = ItemColumns(log, self.items, windows)
        self.schema = Schema(log.domains, self.user_columns.features, self.item_columns.features)

    def _past_items_of_training(self) -> np.ndarray:
        """Ids of the items in the histories of training users."""
        past = self.log.before(self.split.train[0])
        user = self.users.row[past]
        trained = (user >= 0) & (user < self.users.known)
        return latest_distinct(user[trained], self.log.item[past][trained], self.max_history)[1]

    def at(self, start: int, end: int) -> Snapshot:
        """What is known at ``start``; of what follows, only the request context of clicks before ``end`` is read.

        A catalogue is empty where the domain saw no click in time, and no data set can be made of it.
        """
        return Snapshot(
            users=self.user_columns.at(start, end),
            items=self.item_columns.at(start),
            catalogues=self._catalogues(start - self.alive, start),
            history=self._history(start),
        )

    def _catalogues(self, start: int, end: int) -> tuple[torch.Tensor, ...]:
        part = self.log.between(start, end)
        item, domain = self.items.row[part], self.log.domain[part]
        if self.alive_in == "any":
            return (torch.from_numpy(np.unique(item)),) * len(self.log.domains)
        return tuple(torch.from_numpy(np.unique(item[domain == d])) for d in range(len(self.log.domains)))

    def _history(self, start: int) -> Ragged:
        past = self.log.before(start)
        user, item = self.users.row[past], self.items.row[past]
        keep = (user >= 0) & (item >= 0) & (item < self.items.known)
        user, item = latest_distinct(user[keep], item[keep], self.max_history)
        return sorted_rows(user, item, len(self.users))

    def _own(self, start: int, end: int) -> np.ndarray:
        """Numbers of the clicks of a window by the users that are kept."""
        part = self.log.between(start, end)
        return part.start + np.flatnonzero(self.users.row[part] >= 0)

    def records(self, start: int, end: int) -> Interactions:
        """The clicks of a window in the order of time; the same user, item and domain once, at its first click."""
        part = self._own(start, end)
        user, item, domain = self.users.row[part], self.items.row[part], self.log.domain[part]
        first = ~pd.Series((domain * len(self.users) + user) * len(self.items) + item).duplicated().to_numpy()
        columns = (user[first], item[first], domain[first], self.log.time[part][first] // SECOND)
        return Interactions(*(torch.from_numpy(c) for c in columns))

    def dataset(self) -> MultiDomainDataset:
        """The data set: its own columns are those at the start of training; ``as_of`` gives those of other splits.

        The training catalogues hold the items alive before training and those of the training window.
        """
        windows = self.split.windows()
        train = self.at(*self.split.train)
        records = {split: self.records(*window) for split, window in windows.items()}
        snapshots = {split: self.at(*window) for split, window in windows.items() if split != "train"}
        periods = tuple(self._periods())
        return MultiDomainDataset(
            name=self.name,
            schema=self.schema,
            user_ids=self.users.ids,
            item_ids=self.items.ids,
            users=train.users,
            items=train.items,
            train=records["train"],
            valid=records.get("valid", Interactions.empty()),
            test=records["test"],
            catalogues=self._catalogues(self.split.train[0] - self.alive, self.split.train[1]),
            history=train.history,
            snapshots=snapshots,
            periods=periods,
            notes={**self.notes, **self._notes(records, snapshots)},
        )

    def hours(self, data: MultiDomainDataset) -> Iterator[tuple[MultiDomainDataset, Interactions]]:
        """The rolling protocol: for each hour of the test window, ``data`` as it is known when the hour begins, and the
        hour's records, which are also its test split. Rows and codes stay, so that a trained model goes on as it is.

        Hours without a click are left out.
        """
        for start in range(*self.split.test, HOUR):
            end = min(start + HOUR, self.split.test[1])
            records = self.records(start, end)
            if len(records):
                yield data.replace(**vars(self.at(start, end)), test=records, snapshots={}, periods=()), records

    def _periods(self) -> Iterator[Period]:
        """The periods of training that have records, if it is cut into any."""
        first, last = self.split.train
        for start in range(first, last, self.refresh) if self.refresh else ():
            end = min(start + self.refresh, last)
            if len(self._own(start, end)):
                known = replace(self.at(start, end), catalogues=self._catalogues(start - self.alive, end))
                yield Period(start // SECOND, known)

    def _notes(self, records: Mapping[str, Interactions], snapshots: Mapping[str, Snapshot]) -> dict[str, str]:
        log, windows = self.log, self.split.windows()
        repeats = {split: len(self._own(*window)) - len(records[split]) for split, window in windows.items()}
        past = log.before(self.split.train[0]).stop
        missing = []
        for split, snapshot in snapshots.items():
            for d, name in enumerate(log.domains):
                item = records[split].item[records[split].domain == d]
                share = float((~torch.isin(item, snapshot.catalogues[d])).float().mean()) if len(item) else 0.0
                missing.append(f"{split} {name} {share:.3f}")
        return {
            "splits": "; ".join(f"{s} {in_words(a)} to {in_words(b)} UTC" for s, (a, b) in windows.items()),
            "past of training": f"{past:,} clicks"
            + ("" if past else ": histories and statistics are empty in training; a shorter training leaves a past"),
            "catalogue": f"items clicked in {'the domain' if self.alive_in == 'domain' else 'any domain'} in the {self.alive / HOUR:g} h before the split (in training: "
            "and during it)",
            "positives outside the catalogue (misses)": ", ".join(missing),
            **({"columns of training": f"refreshed every {self.refresh / HOUR:g} h"} if self.refresh else {}),
            "repeated clicks": ", ".join(f"{s} {n:,}" for s, n in repeats.items())
            + " of the same user, item and domain within a split are dropped",
        }


def cut_log(
    log: ClickLog,
    *,
    name: str,
    notes: Mapping[str, str],
    test_start: str,
    train_days: float = 1,
    valid_days: float = 1,
    test_days: float = 1,
    validation: Validation = "day",
    sample: float | None = None,
    seed: int = 0,
    windows: Sequence[int] = (1, 3, 6, 24),
    **options,
) -> Timeline:
    """The timeline of a log by the options of its loader: lengths of the splits, a sample of the users, and the rest."""
    split = TimeSplit.days(
        test_start, train_days=train_days, valid_days=valid_days, test_days=test_days, validation=validation
    )
    users, notes = None, dict(notes)
    if sample is not None:
        users = log.draw_users(sample, seed)
        notes["sample"] = f"records of a random {sample:g} of the users (seed {seed}), statistics of all"
    return Timeline(log, split, name=name, notes=notes, users=users, windows=tuple(windows), **options)


def _check_options(
    alive_hours: float, alive_in: str, max_history: int, windows: tuple[int, ...], refresh_hours: float | None
) -> None:
    if not alive_hours > 0:
        raise ValueError(f"alive_hours must be positive, got {alive_hours}")
    if alive_in not in ("domain", "any"):
        raise ValueError(f"alive_in must be 'domain' or 'any', got {alive_in!r}")
    if refresh_hours is not None and not refresh_hours * HOUR >= SECOND:
        raise ValueError(f"refresh_hours must be at least a second's, or None, got {refresh_hours}")
    if max_history < 1:
        raise ValueError(f"max_history must be at least 1, got {max_history}")
    if not windows or list(windows) != sorted(set(windows)) or windows[0] < 1:
        raise ValueError(f"windows must be ascending numbers of hours, at least 1, got {windows}")
