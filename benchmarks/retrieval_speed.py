"""``python -m benchmarks.retrieval_speed``: retrieval from a flat index beside calling faiss itself, as JSON.

Both search the same index for the same users in turn, a slice of users at a time, so that other load on the machine weighs
on both. Items and users are random: an exact search takes the same time over any vectors.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from adi_lite.data.schema import Ragged
from adi_lite.evaluation.retrieval import build_faiss, faiss_topk, save_faiss
from benchmarks.measure import Step, interleaved
from benchmarks.memory import peak_of_this_process_mib
from benchmarks.report import finish, machine, output_options, published, table

GOAL = 1.1  # times the time of faiss itself
SEEN = 50  # items that a user has taken, on average


def main(argv: list[str] | None = None) -> None:
    """Measure, print the JSON object on standard output and a table on standard error, and write the object to a file."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    result = {
        "about": {
            **machine(),
            "faiss": faiss.__version__,
            **{n: getattr(args, n) for n in ("items", "users", "k", "width", "slice")},
        }
    }
    result |= measure(args.items, args.users, args.k, args.width, args.slice)
    ratio = result["search"]["faiss_topk"]["times_faiss"]
    result["goal"] = {"times_faiss": {"goal": GOAL, "measured": ratio, "reached": ratio <= GOAL}}
    finish(result, args.out, *([published("retrieval_speed")] if args.publish else []))
    columns = ["users_per_second", "times_faiss", "times_faiss_cpu"]
    rows = [[name, *(f"{row[c]:,.3f}" for c in columns)] for name, row in result["search"].items()]
    title = f"Top {args.k:,} of {args.items:,} items, width {args.width}, {args.threads} thread(s)"
    Console(stderr=True).print(table(title, ["", "users/s", "times faiss", "processor time"], rows))


def measure(items: int, users: int, k: int, width: int, slice_: int) -> dict[str, object]:
    """Memory of the index, and speed of searching it: by faiss, by the library, and by it without items seen before."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(items, width, generator=generator)
    before = _resident_mib()
    index = build_faiss(vectors)
    memory = _memory(index, before, 4 * items * width)
    del vectors
    queries = torch.randn(users, width, generator=generator)
    seen = _histories(users, items, generator)
    sides = {
        "faiss": lambda rows: index.search(queries[rows].numpy(), k),
        "faiss_topk": lambda rows: faiss_topk(index, queries[rows], k),
        "faiss_topk_exclude_seen": lambda rows: faiss_topk(index, queries[rows], k, seen.take(rows)),
    }
    slices = torch.arange(users).split(slice_)
    # The warm-up takes a slice too; every side goes on with the one after it, so that a round has the same users.
    timings = interleaved(
        {n: _step(f, slices) for n, f in sides.items()}, rounds=len(slices), steps_a_round=1, warm_up=1
    )
    search = {}
    for name, timing in timings.items():
        summary = timing.summary(timings["faiss"])
        search[name] = {
            "users_per_second": round(users / sum(timing.wall), 3),
            "seconds": round(sum(timing.wall), 3),
            "times_faiss": summary["times_reference"],
            "times_faiss_cpu": summary["times_reference_cpu"],
        }
    few = torch.arange(min(users, 50))
    same = np.array_equal(sides["faiss"](few)[1], sides["faiss_topk"](few)[1].numpy())
    return {"memory": memory, "search": search, "same_lists": same, "peak_mib": peak_of_this_process_mib()}


def _step(search: Callable[[Tensor], object], slices: tuple[Tensor, ...]) -> Step:
    turns = itertools.cycle(slices)

    def step() -> int:
        rows = next(turns)
        search(rows)
        return len(rows)

    return step


def _histories(users: int, items: int, generator: torch.Generator) -> Ragged:
    lengths = torch.randint(0, 2 * SEEN + 1, (users,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(users), lengths)
    return Ragged.from_pairs(rows, torch.randint(0, items, (len(rows),), generator=generator), users)


def _memory(index: faiss.Index, before: float | None, vectors: int) -> dict[str, float | None]:
    """MiB of the index in memory (by what the process grew) and on disk, and of the bare vectors."""
    after = _resident_mib()
    with tempfile.TemporaryDirectory() as folder:
        save_faiss(index, Path(folder) / "index.faiss")
        on_disk = (Path(folder) / "index.faiss").stat().st_size
    return {
        "resident_mib": None if before is None or after is None else round(after - before, 1),
        "on_disk_mib": round(on_disk / 2**20, 1),
        "vectors_mib": round(vectors / 2**20, 1),
    }


def _resident_mib() -> float | None:
    """Resident memory of this process; known on Linux only."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if statm.exists() else None


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.retrieval_speed", description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--slice", type=int, default=2000, help="users searched at a time (default %(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="default %(default)s")
    output_options(parser, "retrieval_speed")
    args = parser.parse_args(argv)
    if args.smoke:
        args.items, args.users, args.k, args.slice = 2000, 60, 20, 20
    for name in ("items", "users", "k", "width", "slice", "threads"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} must be more than 0, got {getattr(args, name)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
