"""``python -m benchmarks.packing``: tables packed on disk beside tables loaded into memory, as JSON.

For more and more records: seconds and peak anonymous memory (what the system cannot drop and read again) of packing, of
loading, and of an epoch of training from either. Each is measured in a process of its own. Users and items stay as they are,
so that what grows grows with the records.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from adi_lite.data import batches
from adi_lite.data.packed import load_packed, pack
from adi_lite.data.tables import load_folder
from benchmarks.memory import anonymous_mib
from benchmarks.report import finish, machine, output_options, published, table
from benchmarks.steps import library_step, settings

SIDES = ("pack", "load", "train_packed", "train_in_memory")
"""``pack`` and ``load``: of the tables; ``train_…``: some steps, or an epoch, with the data opened before."""
BATCH = 1024
_BLOCK = 500_000  # records that are drawn together


@dataclass(frozen=True)
class World:
    """Random records of users and items in domains; only the number of records varies."""

    users: int = 100_000
    items: int = 20_000
    domains: int = 3

    def write(self, folder: Path, records: int) -> None:
        """Write ``folder/interactions/``, a Parquet file for each block of records."""
        target = folder / "interactions"
        target.mkdir(parents=True)
        for n, start in enumerate(range(0, records, _BLOCK)):
            rng, count = np.random.default_rng([0, n]), min(_BLOCK, records - start)
            columns = {
                "user_id": rng.integers(0, self.users, count),
                "item_id": (self.items * rng.random(count) ** 2).astype(np.int64),
                "domain": pa.array(rng.integers(0, self.domains, count)).cast(pa.string()),
                "timestamp": rng.integers(1_700_000_000, 1_710_000_000, count),
            }
            pq.write_table(pa.table(columns), target / f"part-{n:05d}.parquet")


def measure_side(side: str, tables: Path, packed: Path, block: int = 0, steps: int = 0) -> dict[str, float]:
    """Run one side in a process of its own: its seconds and the MiB by which its anonymous memory grew.

    Args:
        side: one of :data:`SIDES`.
        block: records that an epoch shuffles together; 0 for the library's own.
        steps: of training; 0 for an epoch.

    Raises:
        RuntimeError: it failed; its process wrote to standard error why.
    """
    context = multiprocessing.get_context("forkserver")  # its processes start with the modules read, and with no data
    context.set_forkserver_preload(["benchmarks.packing", "torch._dynamo"])  # which optimizers read
    here, there = context.Pipe()
    arguments = (there, side, tables, packed, block, steps, torch.get_num_threads())
    child = context.Process(target=_measured, args=arguments)
    child.start()
    there.close()
    try:
        before = peak = here.recv()
        while not here.poll(0.005):
            with suppress(OSError):  # it has just ended
                peak = max(peak, anonymous_mib(child.pid))
        seconds, after = here.recv()
    except EOFError:
        raise RuntimeError(f"the side {side} failed") from None
    finally:
        child.join()
    return {"seconds": round(seconds, 3), "anonymous_mib": round(max(peak, after) - before, 1)}


def _measured(there: Connection, side: str, tables: Path, packed: Path, block: int, steps: int, threads: int) -> None:
    torch.set_num_threads(threads)
    batches.SHUFFLE_BLOCK = block or batches.SHUFFLE_BLOCK
    torch.nn.Linear(8, 8)(torch.zeros(2, 8)).sum().backward()  # what torch sets up at its first use
    there.send(anonymous_mib())
    started = time.perf_counter()
    _run(side, tables, packed, steps)
    there.send((time.perf_counter() - started, anonymous_mib()))


def _run(side: str, tables: Path, packed: Path, steps: int) -> None:
    if side == "pack":
        pack(tables, packed)
        return
    data = load_packed(packed) if side == "train_packed" else load_folder(tables)
    if side == "load":
        return
    # Row-wise Adagrad keeps one number a row: the moments of Adam would hide what the data take.
    sparse = {"sparse_embeddings": True, "optimizer": "rowwise_adagrad"}
    config = settings("dnn", width=16, batch_size=BATCH, num_negatives=256, **sparse)
    step = library_step(data, config)
    for _ in range(steps or len(data.train) // BATCH):
        step()


def measure(sizes: list[int], world: World, folder: Path, block: int, steps: int) -> dict[str, dict]:
    """All sides at each number of records, the time that opening the packed data takes, and their size."""
    points = {}
    for records in sizes:
        tables, packed = folder / f"tables{records}", folder / f"packed{records}"
        world.write(tables, records)
        points[str(records)] = {s: measure_side(s, tables, packed, block, steps) for s in SIDES}
        started = time.perf_counter()
        load_packed(packed)
        points[str(records)]["seconds_to_open"] = round(time.perf_counter() - started, 3)
        points[str(records)]["disk_mib"] = round(sum(f.stat().st_size for f in packed.iterdir()) / 2**20, 1)
    return points


def main(argv: list[str] | None = None) -> None:
    """Measure, print the JSON object on standard output and a table on standard error, and write the object to a file."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    world = World(args.users, args.items, args.domains)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        points = measure(args.records, world, Path(folder), args.block, args.steps)
    result = {"about": {**machine(), **asdict(world), "block": args.block, "steps": args.steps}, "records": points}
    finish(result, args.out, *([published("packing")] if args.publish else []))
    rows = [
        [f"{int(n):,}", *(f"{point[s]['seconds']:,.1f} s, {point[s]['anonymous_mib']:,.0f} MiB" for s in SIDES)]
        for n, point in points.items()
    ]
    Console(stderr=True).print(table("Packing: seconds, anonymous memory", ["records", *SIDES], rows))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.packing", description=__doc__)
    parser.add_argument("--records", type=int, nargs="+", default=[1_250_000, 5_000_000, 20_000_000])
    for name, default in asdict(World()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--block", type=int, default=0, help="records shuffled together (default: the library's own)")
    parser.add_argument("--steps", type=int, default=0, help="steps of training (default: an epoch)")
    parser.add_argument(
        "--work", type=Path, default=None, help="where tables are written (default: for temporary files)"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    output_options(parser, "packing")
    args = parser.parse_args(argv)
    if args.smoke:
        args.records, args.users, args.items, args.steps = [5000], 200, 100, 1
    for name in ("users", "items", "domains", "threads"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} must be more than 0, got {getattr(args, name)}")
    if min(args.records) < 2 * BATCH:
        parser.error(f"--records must be at least {2 * BATCH}, got {min(args.records)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
