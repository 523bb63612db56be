"""Timing several things side by side, so that a machine's other load weighs on all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.steps import Step


@dataclass(frozen=True)
class Timing:
    """Of each round: seconds of wall clock and of processor time for one step, and the records of one step."""

    wall: list[float]
    cpu: list[float]
    records: int

    def summary(self, reference: Timing | None = None) -> dict[str, float]:
        """Medians. ``times_reference``: how many times as long a record takes as the reference's, the median of ratios by round.

        ``cpu_ms`` counts all threads; with one thread it is what the step takes on a machine with nothing else to do.
        """
        wall, cpu = statistics.median(self.wall), statistics.median(self.cpu)
        out = {
            "ms_per_step": 1e3 * wall,
            "ms_per_step_best": 1e3 * min(self.wall),
            "cpu_ms_per_step": 1e3 * cpu,
            "records_per_second": self.records / wall,
            "records_per_cpu_second": self.records / cpu,
        }
        if reference is not None:
            fewer = reference.records / self.records
            out["times_reference"] = fewer * _median_ratio(self.wall, reference.wall)
            out["times_reference_cpu"] = fewer * _median_ratio(self.cpu, reference.cpu)
        return {k: round(v, 3) for k, v in out.items()}


def interleaved(steps: Mapping[str, Step], *, rounds: int, steps_a_round: int, warm_up: int = 2) -> dict[str, Timing]:
    """Time each step in turn, ``rounds`` times over: A B C A B C …, after ``warm_up`` steps of each."""
    records = {}
    for name, step in steps.items():
        for _ in range(max(1, warm_up)):
            records[name] = step()
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            started, used = time.perf_counter(), time.process_time()
            for _ in range(steps_a_round):
                step()
            wall[name].append((time.perf_counter() - started) / steps_a_round)
            cpu[name].append((time.process_time() - used) / steps_a_round)
    return {name: Timing(wall[name], cpu[name], records[name]) for name in steps}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Exponent k of the least-squares fit y = c x^k: 0 where the cost does not grow, 1 where it grows in proportion."""
    lx, ly = [math.log(v) for v in x], [math.log(v) for v in y]
    mx, my = statistics.fmean(lx), statistics.fmean(ly)
    return sum((a - mx) * (b - my) for a, b in zip(lx, ly, strict=True)) / sum((a - mx) ** 2 for a in lx)


def _median_ratio(own: list[float], reference: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, reference, strict=True))
