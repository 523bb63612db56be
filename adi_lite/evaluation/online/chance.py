"""Random numbers that belong to keys, not to an order of drawing.

The noise of (user, item) and the click of (request, item) must be the same in every arm, in whatever chunks they are
computed and whichever items an arm retrieves. So each is a hash of its keys, in place of the next draw of a generator.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

ARM, NOISE, CLICK = range(3)
"""What a number is for: numbers for different purposes are independent."""

_STEP = np.uint64(0x9E3779B97F4A7C15)


def uniform(seed: int, purpose: int, *keys: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in the open interval (0, 1), one for each combination of whole, non-negative ``keys``.

    Keys broadcast against each other; the result has at least one axis. The hash is the finaliser of SplitMix64
    (Steele, Lea & Flood, OOPSLA 2014), applied to one key after another.
    """
    state = np.zeros(1, dtype=np.uint64)
    for key in (seed, purpose, *keys):
        state = _mix((state ^ np.asarray(key).astype(np.uint64)) + _STEP)
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(seed: int, purpose: int, *keys: np.ndarray | int) -> np.ndarray:
    """Standard normal numbers by key, see :func:`uniform`."""
    return ndtri(uniform(seed, purpose, *keys))


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
