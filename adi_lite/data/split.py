"""Split records into training, validation and test: by time where there is time, else one record of each user."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adi_lite.data.candidates import leave_one_out


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
    test_from = _moment(ordered, 1 - test)
    valid_from = min(_moment(ordered, 1 - test - valid), test_from)
    is_test = seconds >= test_from if test else np.zeros(len(seconds), dtype=bool)
    is_train = seconds < valid_from if valid or test else np.ones(len(seconds), dtype=bool)
    return Split(is_train, ~is_train & ~is_test, is_test, _describe(valid_from, test_from, valid, test))


def _moment(ordered: np.ndarray, share: float) -> int:
    """The moment before which the ``share`` of the records lies."""
    return int(ordered[min(int(np.floor(len(ordered) * share + 1e-9)), len(ordered) - 1)])


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
    how = f"no timestamps: one record of each user with 3 or more, at random (seed {seed}), which looks into the future"
    return Split(~is_test & ~is_valid, is_valid, is_test, how)


def check_shares(valid: float, test: float) -> None:
    """Refuse shares that leave no training records."""
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid and test are shares of the records, together below 1; got {valid} and {test}")
