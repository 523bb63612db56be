"""Records a second of training: methods beside the plain baseline, and how cost grows with D and with width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Schema
from adi_lite.models.config import Method
from adi_lite.models.two_tower import ITEM_ID, USER_ID
from benchmarks.measure import interleaved, slope
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
    num_negatives: int = 1024


SMOKE = Size(1, 1, 1, batch_sizes=(64,), widths=(8, 16), domains=(2, 4), num_negatives=32)
"""Seconds: shows that everything runs, measures nothing."""


def methods_beside_baseline(data: MultiDomainDataset, size: Size, width: int = 64) -> dict[str, dict]:
    """For each batch size: each method, and the baseline with shared (``plain_shared``) and per-row negatives."""
    out = {}
    for batch_size in size.batch_sizes:
        options = {"width": width, "batch_size": batch_size, "num_negatives": size.num_negatives}
        steps = {m: library_step(data, settings(m, **options)) for m in METHODS}
        for negatives in ("shared", "row"):
            steps[f"plain_{negatives}"] = plain_step(data, settings(**options), negatives)
        timings = interleaved(steps, rounds=size.rounds, steps_a_round=size.steps)
        out[str(batch_size)] = {name: t.summary(timings["adi"]) for name, t in timings.items()}
    return out


def growth_with_domains(size: Size, width: int = 64, batch_size: int = 1024) -> dict[str, object]:
    """ADI and the baseline at several D, at one total of negatives over all domains: 4 x ``num_negatives``.

    With a fixed number *for each domain*, item rows grow with D whatever the model does; ``adi_fixed_per_domain`` is
    that, at ``num_negatives`` each.
    """
    if len(size.domains) < 2:
        raise ValueError(f"growth needs two sizes, got {size.domains}")
    batch_size = min(batch_size, size.batch_sizes[0])
    points = {}
    for d in size.domains:
        data = synthetic(d)
        options = {"width": width, "batch_size": batch_size}
        total = settings(num_negatives=max(1, 4 * size.num_negatives // d), **options)
        steps = {
            "adi": library_step(data, total),
            "plain_shared": plain_step(data, total),
            "adi_fixed_per_domain": library_step(data, settings(num_negatives=size.num_negatives, **options)),
        }
        timings = interleaved(steps, rounds=size.growth_rounds, steps_a_round=max(1, size.steps - 1))
        points[d] = {name: t.summary(timings["adi"]) for name, t in timings.items()}
    return _with_slopes(points)


def growth_with_width(data: MultiDomainDataset, size: Size) -> dict[str, object]:
    """ADI and the baseline at several widths (fields, hidden layer and vectors alike)."""
    points = {}
    for width in size.widths:
        config = settings(width=width, batch_size=size.batch_sizes[0], num_negatives=size.num_negatives)
        steps = {"adi": library_step(data, config), "plain_shared": plain_step(data, config)}
        timings = interleaved(steps, rounds=size.growth_rounds, steps_a_round=max(1, size.steps - 1))
        points[width] = {name: t.summary(timings["adi"]) for name, t in timings.items()}
    return _with_slopes(points)


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


def _with_slopes(points: dict[int, dict[str, dict]]) -> dict[str, object]:
    names: Sequence[str] = list(next(iter(points.values())))
    cost = {n: [p[n]["cpu_ms_per_step"] for p in points.values()] for n in names}
    return {
        "points": {str(x): p for x, p in points.items()},
        "slope_of_cpu_time": {n: round(slope(list(points), c), 3) for n, c in cost.items()},
    }
