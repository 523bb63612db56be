"""Records a second of training: methods beside the plain baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Schema
from adi_lite.models.config import Method
from adi_lite.models.two_tower import ITEM_ID, USER_ID
from benchmarks.measure import interleaved
from benchmarks.steps import library_step, plain_step, settings

METHODS: tuple[Method, ...] = ("adi", "dnn", "ple", "mmoe")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int = 9
    steps: int = 3
    """Steps of each side in a round."""
    growth_rounds: int = 5
    batch_sizes: tuple[int, ...] = (1024, 4096)
    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    domains: tuple[int, ...] = (2, 4, 8, 16)
    records: tuple[int, ...] = (15_000, 30_000, 60_000, 120_000)
    items: tuple[int, ...] = (5_000, 20_000, 80_000, 320_000)
    shared: tuple[int, ...] = (1, 2, 4, 8)
    num_negatives: int = 1024


SMOKE = Size(
    1,
    1,
    1,
    batch_sizes=(64,),
    widths=(8, 16),
    domains=(2, 4),
    records=(100, 200),
    items=(200, 400),
    shared=(1, 2),
    num_negatives=32,
)
"""Seconds: shows that everything runs, measures nothing."""


def methods_beside_baseline(data: MultiDomainDataset, size: Size, width: int = 64) -> dict[str, dict]:
    """For each batch size: each method, and the baseline with shared (``plain_shared``) and per-row negatives.

    ``adi_row`` is ADI with 20 negatives of each row's own, the loss of ``plain_row``.
    """
    out = {}
    for batch_size in size.batch_sizes:
        options = {"width": width, "batch_size": batch_size, "num_negatives": size.num_negatives}
        steps = {m: library_step(data, settings(m, **options)) for m in METHODS}
        steps["adi_row"] = library_step(data, settings(**{**options, "num_negatives": 20}, fixed_negatives=True))
        for negatives in ("shared", "row"):
            steps[f"plain_{negatives}"] = plain_step(data, settings(**options), negatives)
        timings = interleaved(steps, rounds=size.rounds, steps_a_round=size.steps)
        out[str(batch_size)] = {name: t.summary(timings["adi"]) for name, t in timings.items()}
    return out


def synthetic(
    num_domains: int, *, users: int = 8000, items: int = 6000, records: int = 30_000, seed: int = 0
) -> MultiDomainDataset:
    """Random records, equally many in each domain, over one catalogue that all domains share. For speed only."""
    rng = np.random.default_rng(seed)
    part = Interactions(
        torch.from_numpy(rng.integers(0, users, records)),
        torch.from_numpy((items * rng.random(records) ** 2).astype(np.int64)),  # some items far more often than others
        torch.arange(records) % num_domains,
    )
    schema = Schema(
        domains=tuple(f"d{d}" for d in range(num_domains)),
        user=(Feature(USER_ID, "categorical", users + 1),),
        item=(Feature(ITEM_ID, "categorical", items + 1),),
    )
    return MultiDomainDataset(
        name=f"synthetic, {num_domains} domains",
        schema=schema,
        user_ids=np.arange(users),
        item_ids=np.arange(items),
        users={USER_ID: torch.arange(1, users + 1)},
        items={ITEM_ID: torch.arange(1, items + 1)},
        train=part,
        valid=Interactions.empty(),
        test=Interactions.empty(),
        catalogues=tuple(torch.arange(items) for _ in range(num_domains)),
    )
