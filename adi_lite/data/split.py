"""Split records into training, validation and test: by time where there is time, else one record of each user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adi_lite.data.candidates import leave_one_out
from adi_lite.data.chunks import chunks, group, row_ranges, value_at


@dataclass(frozen=True)
class Split:
    """Masks (n,) of the three parts, and one sentence that says how they were cut."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    how: str


def split_by_time(seconds: np.ndarray, valid: float, test: float) -> Split:
    """Cut at two moments for all users and domains: everything from a moment on is later than all before it.

    The last ``test`` of the records are the test, the ``valid`` before them the validation. Records of one second stay
    together, on the later side, so the shares may be larger than asked for.

    Args:
        seconds: (n,) moment of each record.
        valid, test: shares of the records, at least 0, together below 1.
    """
    check_shares(valid, test)
    ordered = np.sort(seconds)
    valid_from, test_from = _cuts(lambda place: int(ordered[place]), len(seconds), valid, test)
    return Split(*_parts(seconds, valid_from, test_from, valid, test), _describe(valid_from, test_from, valid, test))


def _cuts(at: Callable[[int], int], count: int, valid: float, test: float) -> tuple[int, int]:
    """The moments from which records are validation and test; ``at`` gives the moment at a place in the order of time."""

    def moment(share: float) -> int:
        return at(min(int(np.floor(count * share + 1e-9)), count - 1))

    test_from = moment(1 - test)
    return min(moment(1 - test - valid), test_from), test_from


def _parts(
    seconds: np.ndarray, valid_from: int, test_from: int, valid: float, test: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    is_test = seconds >= test_from if test else np.zeros(len(seconds), dtype=bool)
    is_train = seconds < valid_from if valid or test else np.ones(len(seconds), dtype=bool)
    return is_train, ~is_train & ~is_test, is_test


def _describe(valid_from: int, test_from: int, valid: float, test: float) -> str:
    parts = [f"validation from {_utc(valid_from)}"] * (valid > 0) + [f"test from {_utc(test_from)}"] * (test > 0)
    return f"by time: {', '.join(parts)} (UTC)" if parts else "all records are training records"


def _utc(seconds: int) -> str:
    return str(np.datetime64(seconds, "s"))


def split_by_user(user: np.ndarray, item: np.ndarray, valid: float, test: float, seed: int) -> Split:
    """Without time: one random record of each user with 3 or more for the test, then another for the validation.

    A record that a user has twice is never taken. A share of 0 leaves its part empty; otherwise the shares do not matter.

    Args:
        user, item: (n,) numbers.
        seed: of the draw.
    """
    check_shares(valid, test)
    rng = np.random.default_rng(seed)
    none = np.zeros(len(user), dtype=bool)
    is_test = leave_one_out(user, item, rng) if test else none
    is_valid = none.copy()
    if valid:
        rest = np.flatnonzero(~is_test)
        is_valid[rest[leave_one_out(user[rest], item[rest], rng)]] = True
    return Split(~is_test & ~is_valid, is_valid, is_test, _how(seed))


def _how(seed: int) -> str:
    return (
        f"no timestamps: one record of each user with 3 or more, at random (seed {seed}), which looks into the future"
    )


# ---- the same splits of records that are larger than memory -----------------------------------------------------------

Space = Callable[[str, type, int], np.ndarray]
"""Gives an array on disk of zeros: ``space(name, dtype, length)``."""


def split_by_time_on_disk(seconds: np.ndarray, valid: float, test: float, space: Space) -> Split:
    """:func:`split_by_time` in bounded memory, with masks on disk."""
    check_shares(valid, test)
    valid_from, test_from = _cuts(lambda place: value_at(seconds, place), len(seconds), valid, test)
    masks = [space(f"is_{part}", np.bool_, len(seconds)) for part in ("train", "valid", "test")]
    for part in chunks(len(seconds)):
        for mask, here in zip(masks, _parts(seconds[part], valid_from, test_from, valid, test), strict=True):
            mask[part] = here
    return Split(*masks, _describe(valid_from, test_from, valid, test))


def split_by_user_on_disk(
    user: np.ndarray, item: np.ndarray, num_users: int, valid: float, test: float, seed: int, space: Space
) -> Split:
    """:func:`split_by_user` with the same draw, with masks on disk. Memory: 25 bytes a user, and the records of one user."""
    check_shares(valid, test)
    rng = np.random.default_rng(seed)
    is_train, is_valid, is_test = (space(f"is_{part}", np.bool_, len(user)) for part in ("train", "valid", "test"))
    for part in chunks(len(user)):
        is_train[part] = True
    once = space("once", np.bool_, len(user))
    _mark_once(user, item, num_users, once, space)
    for share, mask in ((test, is_test), (valid, is_valid)):
        if share:
            drawn = _draw_one_of_each(user, num_users, once, is_train, rng)
            mask[drawn], is_train[drawn] = True, False
    return Split(is_train, is_valid, is_test, _how(seed))


def _mark_once(user: np.ndarray, item: np.ndarray, num_users: int, once: np.ndarray, space: Space) -> None:
    """Mark the records whose user has their item only once."""
    places = space("by_user", np.int64, len(user))
    offsets = group(user, None, num_users, places)
    for first, stop in row_ranges(offsets):
        here = np.sort(places[offsets[first] : offsets[stop]])
        if not len(here):
            continue
        order = np.lexsort((item[here], user[here]))
        users, items = user[here][order], item[here][order]
        same = (users[1:] == users[:-1]) & (items[1:] == items[:-1])
        once[here[order]] = ~(np.append(same, False) | np.append(False, same))


def _draw_one_of_each(
    user: np.ndarray, num_users: int, once: np.ndarray, left: np.ndarray, rng: np.random.Generator, min_records: int = 3
) -> np.ndarray:
    """As :func:`~adi_lite.data.candidates.leave_one_out` of the records that are ``left``: the places that it takes."""
    counts = np.zeros(num_users, dtype=np.int64)
    for part in chunks(len(user)):
        np.add.at(counts, user[part][left[part]], 1)
    lowest, place = np.full(num_users, np.inf), np.full(num_users, -1, dtype=np.int64)
    for part in chunks(len(user)):
        here = user[part]
        eligible = np.flatnonzero(once[part] & left[part] & (counts[here] >= min_records))
        drawn = rng.random(len(eligible))
        order = np.lexsort((drawn, here[eligible]))
        users, first = np.unique(here[eligible][order], return_index=True)
        best = order[first]
        lower = drawn[best] < lowest[users]
        lowest[users[lower]], place[users[lower]] = drawn[best][lower], eligible[best][lower] + part.start
    return np.sort(place[place >= 0])


def check_shares(valid: float, test: float) -> None:
    """Refuse shares that leave no training records."""
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid and test are shares of the records, together below 1; got {valid} and {test}")
