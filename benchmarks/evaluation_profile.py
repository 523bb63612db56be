"""How near the evaluation over a whole corpus comes to what this machine can do: operations and bytes counted, rates measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import Tower, TwoTower
from benchmarks.measure import Timing
from benchmarks.step_profile import Rates, clock

PARTS = ("item vectors", "user vectors", "scores and ranks")


def profile_evaluation(
    model: TwoTower, data: MultiDomainDataset, k: int, rounds: int
) -> tuple[Timing, dict[str, object]]:
    """Time of Recall@k of the test split over each domain's catalogue, and of its parts, and the bound.

    The records of the first, round by round, are the queries.

    The bound of a part is the time of its multiplications (counted) at the rate of a large one here, plus the time of the
    bytes that cannot be avoided at the bandwidth of scaling a large array in place:

    - vectors: each field of each row is read once from its table;
    - scores and ranks: each score is written once and read once.

    Times are medians of rounds, with the rates measured between them.
    """
    rates = Rates(2**24)
    seconds: dict[str, list[float]] = {name: [] for name in PARTS}
    wall, cpu = [], []
    for _ in range(rounds):
        rates.measure()
        scorer = _TimedScorer(dict.fromkeys(range(data.num_domains), model), data)
        started, by_wall, by_cpu = clock(), time.perf_counter(), time.process_time()
        evaluation = evaluate(scorer, data, "test", "corpus", (k,), exclude_seen=False)
        scorer.seconds["scores and ranks"] = clock() - started - sum(scorer.seconds.values())
        wall.append(time.perf_counter() - by_wall)
        cpu.append(time.process_time() - by_cpu)
        for name in PARTS:
            seconds[name].append(scorer.seconds[name])
    rates.measure()
    domain, user = torch.from_numpy(evaluation.domain), torch.from_numpy(evaluation.user)
    rows = {"item": sum(len(c) for c in data.catalogues), "user": len(user)}
    scores = sum(int((domain == d).sum()) * len(c) for d, c in enumerate(data.catalogues))
    untimed = ModelScorer(scorer.models, data)
    flops = dict.fromkeys(PARTS, 0)
    with FlopCounterMode(display=False) as counter:
        for d in range(data.num_domains):
            untimed.item_vectors(d)
    flops["item vectors"] = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        for d in range(data.num_domains):
            untimed.user_vectors(user[domain == d], d)
    flops["user vectors"] = counter.get_total_flops()
    flops["scores and ranks"] = 2 * scores * untimed.item_vectors(0).shape[1]
    moved = {
        "item vectors": 4 * rows["item"] * _numbers_of_a_row(model.item),
        "user vectors": 4 * rows["user"] * _numbers_of_a_row(model.user),
        "scores and ranks": 2 * 4 * scores,
    }
    parts = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    bound = {name: flops[name] / rates.flops_per_second + moved[name] / rates.bytes_per_second for name in PARTS}
    return Timing(wall, cpu, len(user)), {
        "flops": flops,
        "bytes": moved,
        **rates.rounded(),
        "seconds": {name: round(value, 4) for name, value in parts.items()},
        "bound_seconds": {name: round(value, 4) for name, value in bound.items()},
        "share_of_bound": round(sum(bound.values()) / sum(parts.values()), 4),
    }


class _TimedScorer(ModelScorer):
    """The same scorer, with the seconds of its parts."""

    def __init__(self, models: dict[int, TwoTower], data: MultiDomainDataset) -> None:
        super().__init__(models, data)
        self.seconds = dict.fromkeys(("item vectors", "user vectors"), 0.0)

    def item_vectors(self, domain: int) -> Tensor:
        with self._counting("item vectors"):
            return super().item_vectors(domain)

    def user_vectors(self, users: Tensor, domain: int) -> Tensor:
        with self._counting("user vectors"):
            return super().user_vectors(users, domain)

    @contextmanager
    def _counting(self, part: str) -> Iterator[None]:
        started = clock()
        yield
        self.seconds[part] += clock() - started


def _numbers_of_a_row(tower: Tower) -> int:
    return tower.embedding.num_fields * tower.embedding.dim
