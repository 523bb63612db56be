"""The paper's log (Table 4) planned from measured costs: memory, machines, hours and price of one pass over it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from adi_lite.data.paper import paper_table

GIB = 2**30
OPTIMIZERS = {"Adam": "adi", "row-wise Adagrad": "adi_rowwise"}
"""Optimizers of the tables, and the side of the benchmark ``items`` that measures each."""


@dataclass(frozen=True)
class Workload:
    """Distinct users and items over all domains, records of one training day, and the number of domains."""

    users: int
    items: int
    records: int
    domains: int

    @property
    def rows(self) -> int:
        """Rows of the embedding tables: users, items, and items once more as past items of histories."""
        return self.users + 2 * self.items


@dataclass(frozen=True)
class Assumptions:
    """What the plan takes as given. None of it is measured."""

    width: int = 64
    """Of an embedding; the benchmark's."""
    epochs: float = 1.0
    """Passes over the records."""
    bytes_a_number: int = 4
    memory_gib: float = 24.0
    """Of one machine."""
    usable: float = 0.7
    """Share of it that tables and optimizer may take; the rest is for batches, histories and the system."""
    efficiency: float = 0.7
    """Records/s of m machines over m times those of one: the exchange of rows and gradients, and waiting."""
    price: float = 1.0
    """Of a machine for an hour, in any currency; put in your own."""


def table4(dataset: str = "Alibaba Production") -> Workload:
    """The size of a log of Table 4.

    Raises:
        ValueError: the table has no such data set.
    """
    table = paper_table(4)
    part = table[table["dataset"] == dataset]
    if part.empty:
        raise ValueError(f"Table 4 has {', '.join(table['dataset'].unique())}, not {dataset!r}")
    of = part[part["domain"] == "all"].set_index("quantity")["value"]
    records = part[part["quantity"] == "records"]
    return Workload(int(of["users"]), int(of["items"]), int(records["value"].sum()), len(records))


def memory(work: Workload, given: Assumptions) -> pd.DataFrame:
    """By optimizer, GiB of the tables, of the optimizer's state, and of the gradient that a step holds.

    Adam keeps two moments of each number and has a gradient of every row; row-wise Adagrad keeps one number a row, and
    its gradients are those of a batch's rows, next to nothing. The item bias of each domain goes with the tables.
    """
    numbers = work.rows * given.width + work.items * work.domains
    state = {"Adam": 2 * numbers, "row-wise Adagrad": work.rows + work.items * work.domains}
    gradient = {"Adam": numbers, "row-wise Adagrad": 0}
    table = pd.DataFrame({"tables": numbers, "optimizer state": state, "gradients": gradient})
    table = table.loc[list(OPTIMIZERS)] * given.bytes_a_number / GIB
    return table.assign(all=table.sum(axis=1))


def step_cost(benchmarks: dict, optimizer: str) -> tuple[float, float]:
    """Milliseconds of a step that do not depend on the tables, and those for each million rows.

    The line through the measured steps over more and more items (least squares, never falling). A line and not a power of the rows, whose
    slope is too small as long as the constant part is most of the time.
    """
    points = benchmarks["items"]["points"]
    rows = np.array([max(100, int(x) // 2) + 2 * int(x) for x in points]) / 1e6
    ms = np.array([p[OPTIMIZERS[optimizer]]["cpu_ms_per_step"] for p in points.values()])
    slope, constant = np.polyfit(rows, ms, 1)
    return (float(constant), float(slope)) if slope > 0 else (float(ms.mean()), 0.0)


def records_a_second(benchmarks: dict, work: Workload, optimizer: str, batch: int) -> float:
    """Of one core with tables as large as those of ``work``, at the benchmark's batch size ``batch``."""
    constant, each = step_cost(benchmarks, optimizer)
    return batch / (constant + each * work.rows / 1e6) * 1e3


def plan(
    benchmarks: dict, work: Workload, given: Assumptions, batch: int, machines: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
) -> pd.DataFrame:
    """For each optimizer and number of machines that holds its tables: hours and price of training.

    One core of each machine is counted, as the step was measured on one.
    """
    needs, rows = memory(work, given)["all"], []
    for optimizer in OPTIMIZERS:
        least = math.ceil(needs[optimizer] / (given.usable * given.memory_gib))
        rate = records_a_second(benchmarks, work, optimizer, batch)
        for m in sorted({least, *(n for n in machines if n > least)}):
            speed = rate if m == 1 else rate * m * given.efficiency
            hours = given.epochs * work.records / speed / 3600
            rows.append((optimizer, m, needs[optimizer] / m, speed, hours, hours * m * given.price))
    columns = ["optimizer", "machines", "GiB a machine", "records/s", "hours", "price"]
    return pd.DataFrame(rows, columns=columns).set_index(["optimizer", "machines"])


def assumptions_table(given: Assumptions) -> pd.DataFrame:
    """The assumptions with what they mean."""
    meaning = {
        "width": "width of an embedding",
        "epochs": "passes over the records",
        "bytes_a_number": "bytes of a number (float32)",
        "memory_gib": "memory of one machine, GiB",
        "usable": "share of it for tables and optimizer",
        "efficiency": "records/s of m machines over m times those of one",
        "price": "price of a machine for an hour (a parameter)",
    }
    return pd.DataFrame({"value": {meaning[k]: v for k, v in asdict(given).items()}})
