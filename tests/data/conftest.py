"""Small files in the cross-market format, and the published ones where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adi_lite.data.download import DataFileError, cache_dir, fetch
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.data.xmarket import load_xmarket
from adi_lite.data.xmarket_files import QREL, RUN, TRAIN, remote_file


@pytest.fixture
def write_market() -> Callable[..., Path]:
    return _write_market


def _write_market(
    folder: Path, market: str, seed: int = 0, users: int = 30, items: int = 40, run_length: int = 0, prefix: bool = True
) -> Path:
    """A market with 3 to 8 records a user, one test record each, and official lists of ``run_length`` (0: no file).

    Returns its folder, ``folder/market``.
    """
    rng = np.random.default_rng(seed)
    train, qrel, run = [], [], []
    for u in range(users):
        user = f"{market if prefix else ''}U{u:03d}"
        order = rng.permutation(items)
        n = int(rng.integers(3, 9))
        train += [f"{user}\tP{i:03d}\t1.0" for i in order[:n]]
        qrel.append(f"{user}\tP{order[n]:03d}\t1")
        run.append(f"{user}\t" + ",".join(f"P{i:03d}" for i in rng.permutation(order[n : n + run_length])))
    target = folder / market
    target.mkdir(parents=True)
    header = "userId\titemId\trating"
    (target / TRAIN).write_text("\n".join([header, *rng.permutation(train)]) + "\n")
    (target / QREL).write_text("\n".join([header, *qrel]) + "\n")
    if run_length:
        (target / RUN).write_text("\n".join(run) + "\n")
    return target


@pytest.fixture(scope="session")
def real_xmarket() -> MultiDomainDataset:
    """The published markets s1, s2, s3; the test is skipped where they are not here without asking the network."""
    files = [remote_file(m, name) for m in ("s1", "s2", "s3") for name in (TRAIN, QREL)]
    if not os.environ.get("ADI_LITE_MIRROR") and not all((cache_dir() / f.path).is_file() for f in files):
        pytest.skip("the published cross-market files are not here: set ADI_LITE_MIRROR or fill the cache")
    try:
        for file in files:
            fetch(file)
    except DataFileError as error:
        pytest.skip(f"the published cross-market files are not here: {error}")
    return load_xmarket()
