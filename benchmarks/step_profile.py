"""How near a training step of ADI comes to what this machine can do: operations and bytes counted, rates measured."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from adi_lite.data.batches import iterate_batches
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import Config
from adi_lite.training.objective import Objective
from adi_lite.training.optim import build_optimizers


def profile_step(data: MultiDomainDataset, config: Config, steps: int = 30) -> dict[str, object]:
    """Time of the parts of a step, and the bound.

    The bound is the time of the step's matrix multiplications (forward and backward, counted) at the rate of a large one
    here, plus the time of the bytes that cannot be avoided at the bandwidth of scaling in place as many numbers as the
    optimizer touches (a copy between large buffers is slower, as it also fetches what it overwrites):

    - dense Adam: reads weight, gradient and two moments, writes weight and two moments; the gradient is written once;
    - logits: written, read for the softmax, their gradient written, read by two multiplications.

    Everything else (activations, lookups, the sampler, Python) is left out: the bound is what a perfect
    implementation of the same algorithm could not beat. Rates and times are medians of interleaved rounds.
    """
    torch.manual_seed(config.train.seed)
    model = TwoTower(config.model, data.schema, data.num_items).train()
    optimizers = build_optimizers(model, config.train)
    objective = Objective(data, config.train)
    generator = torch.Generator().manual_seed(config.train.seed)
    batches = [b for b, _ in zip(iterate_batches(data, config.train.batch_size, generator), range(4), strict=False)]
    with FlopCounterMode(display=False) as counter:
        objective(model, batches[0], generator).sum().backward()
    flops = counter.get_total_flops()
    parameters = sum(p.numel() for p in model.parameters())
    logits = _logits(data, config, batches[0].counts)
    seconds: dict[str, list[float]] = {k: [] for k in ("forward", "backward", "optimizer")}
    rates = Rates(4 * parameters)  # weights, gradients, two moments
    for i in range(steps):
        loss_of: list[torch.Tensor] = []
        batch = batches[i % len(batches)]
        for optimizer in optimizers:
            optimizer.zero_grad()

        def forward(batch: object = batch, out: list[torch.Tensor] = loss_of) -> None:
            out.append(objective(model, batch, generator).sum() / len(batch))

        seconds["forward"].append(timed(forward))
        seconds["backward"].append(timed(loss_of[0].backward))
        seconds["optimizer"].append(timed(lambda: [o.step() for o in optimizers]))
        if i % 5 == 0:
            rates.measure()
    parts = {k: 1e3 * sorted(v)[len(v) // 2] for k, v in seconds.items()}
    best = {k: 1e3 * min(v) for k, v in seconds.items()}
    moved = {"adam": 4 * 8 * parameters, "logits": 4 * 5 * logits}
    bound = {
        "multiplications": 1e3 * flops / rates.flops_per_second,
        **{k: 1e3 * v / rates.bytes_per_second for k, v in moved.items()},
    }
    return {
        "flops": flops,
        "bytes": moved,
        "parameters": parameters,
        **rates.rounded(),
        "cpu_ms": {k: round(v, 3) for k, v in parts.items()},
        "cpu_ms_best": {k: round(v, 3) for k, v in best.items()},
        "bound_ms": {k: round(v, 3) for k, v in bound.items()},
        "share_of_bound": round(sum(bound.values()) / sum(parts.values()), 4),
    }


class Rates:
    """What this machine can do, measured between rounds of something else.

    Multiplications of a large matrix by another, and scaling ``numbers`` of them in place. Of each the second best round
    counts, as other load only ever takes from them.
    """

    def __init__(self, numbers: int) -> None:
        self._a, self._b, self._touched = torch.randn(1024, 1024), torch.randn(1024, 1024), torch.ones(numbers)
        self._flops: list[float] = []
        self._bytes: list[float] = []

    def measure(self) -> None:
        self._flops.append(2 * 1024**3 / timed(lambda: torch.mm(self._a, self._b)))
        self._bytes.append(2 * self._touched.nbytes / timed(lambda: self._touched.mul_(1.0)))

    @property
    def flops_per_second(self) -> float:
        return _second_best(self._flops)

    @property
    def bytes_per_second(self) -> float:
        return _second_best(self._bytes)

    def rounded(self) -> dict[str, float]:
        return {
            "gflops_per_second": round(self.flops_per_second / 1e9, 2),
            "gbytes_per_second": round(self.bytes_per_second / 1e9, 2),
        }


def _second_best(rates: list[float]) -> float:
    return sorted(rates)[-min(2, len(rates))]


def _logits(data: MultiDomainDataset, config: Config, counts: tuple[int, ...]) -> int:
    negatives = [min(config.train.num_negatives, len(c)) for c in data.catalogues]
    return sum(n * m for n, m in zip(counts, negatives, strict=True))


def timed(work: Callable[[], object]) -> float:
    """Seconds by :func:`clock`."""
    started = clock()
    work()
    return clock() - started


def clock() -> float:
    """Processor seconds of the process where it has one thread, free of what else the machine does; else wall clock."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()
