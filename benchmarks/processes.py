"""``python -m benchmarks.processes``: training by one process, by several, and with tables on disk, as JSON.

Every side trains the same synthetic records in processes of its own, one after the other, one thread a process. Beside
them, runs of one process each at the same time, which have nothing to say to each other: their speed together is what
this machine's cores leave for as many processes, and more than one run's is not to be had where cores share their units.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from adi_lite.training.config import Config
from adi_lite.training.distributed import fit_distributed
from adi_lite.training.process_group import process_group
from adi_lite.training.trainer import fit
from benchmarks.memory import ROOT, AnonymousPeak, peak_of_this_process_mib
from benchmarks.report import finish, machine, output_options, published, table
from benchmarks.steps import settings
from benchmarks.train_speed import synthetic

SIZES = ("domains", "users", "items", "records", "width", "batch_size", "epochs")


def main(argv: list[str] | None = None) -> None:
    """Measure, print the JSON object on standard output and a table on standard error, and write the object to a file."""
    args = _arguments(argv)
    sizes = {name: getattr(args, name) for name in SIZES} | {"batch_size": args.batch_size[0]}
    sides = _sides(args, sizes, on_disk=True)
    for batch_size in args.batch_size[1:]:
        more = _sides(args, {**sizes, "batch_size": batch_size}, on_disk=False)
        sides |= {f"{name}, batches of {batch_size:,}": side for name, side in more.items()}
    rows = sizes["users"] + 2 * sizes["items"]
    tables = {"tables_mib": round((rows * sizes["width"] + sizes["items"] * sizes["domains"]) * 4 / 2**20, 1)}
    result = {"about": {**machine(), "threads": 1, **sizes, **tables}, "sides": sides}
    finish(result, args.out, *([published("processes")] if args.publish else []))
    lines = [
        [n, f"{s['records_per_second']:,.0f}", f"{s['times_speed_of_first']:.2f}", *_greatest(s)]
        for n, s in sides.items()
    ]
    header = ["", "records/s", "times one process", "peak MiB a process", "of it anonymous"]
    title = f"{sizes['records']:,} records, tables of {tables['tables_mib']:,} MiB"
    Console(stderr=True).print(table(title, header, lines))


def _sides(args: argparse.Namespace, sizes: dict[str, int], on_disk: bool) -> dict[str, dict]:
    """The sides of one batch size, with tables in memory and, if asked for, ``on_disk``."""
    sides = {}
    for disk in (False, True)[: 1 + on_disk]:
        for processes in args.processes if not disk else args.processes[:2]:
            name = f"{processes} process{'es' * (processes > 1)}{', tables on disk' * disk}"
            sides[name] = measure(processes, disk, sizes, args.disk)
        if not disk:
            apart = max(2, os.cpu_count() or 2)
            sides[f"{apart} runs apart"] = measure(apart, disk, sizes, args.disk, apart=True)
    first = next(iter(sides.values()))
    for side in sides.values():
        side["times_speed_of_first"] = round(side["records_per_second"] / first["records_per_second"], 3)
    return sides


def measure(processes: int, on_disk: bool, sizes: dict[str, int], disk: Path, apart: bool = False) -> dict[str, object]:
    """Records/s (median of the epochs, the first apart where there are more), last loss, and of each process the peak memory:
    all of it (``peak_mib``, with pages of mapped files), and the anonymous part, which no file backs (None if unknown).

    ``apart``: as many runs of one process at the same time, whose records/s are summed.
    """
    disk.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=disk) as folder:
        runs = [Path(folder) / f"run-{r}" for r in range(processes if apart else 1)]
        started = [(r, _start(1 if apart else processes, on_disk, sizes, r)) for r in runs]
        each = [figures for folder, process in started for figures in _figures(process, folder)]
    speeds = [statistics.median(s[1:] or s) for s in ([e["records_per_second"] for e in p["epochs"]] for p in each)]
    return {
        "processes": processes,
        "apart": apart,
        "tables": "disk" if on_disk else "memory",
        "records_per_second": round(sum(speeds) if apart else speeds[0], 1),
        "loss": each[0]["epochs"][-1]["loss"],
        "peak_mib": [e["peak_mib"] for e in each],
        "anonymous_mib": [e["anonymous_mib"] for e in each],
    }


def _start(processes: int, on_disk: bool, sizes: dict[str, int], folder: Path) -> subprocess.Popen:
    folder.mkdir()
    module = ["-m", "benchmarks.processes", "--work", json.dumps(sizes), str(folder), str(int(on_disk))]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), *module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "errors.txt").open("w") as errors:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=errors)


def _figures(process: subprocess.Popen, folder: Path) -> list[dict]:
    """What each process of a run wrote, when all have ended."""
    if process.wait():
        raise RuntimeError(f"{' '.join(process.args[1:])} failed:\n{(folder / 'errors.txt').read_text().strip()}")
    return [json.loads(f.read_text()) for f in sorted(folder.glob("process-*.json"))]


def work(sizes: dict[str, int], folder: Path, on_disk: bool) -> None:
    """What each process of a side does; its figures go to ``process-R.json``."""
    torch.set_num_threads(1)
    with AnonymousPeak() as anonymous:
        data = synthetic(sizes["domains"], users=sizes["users"], items=sizes["items"], records=sizes["records"])
        options = {"out": folder / "run", "tables": folder / "tables" if on_disk else None}
        if "RANK" in os.environ:
            with process_group() as ranks:
                rank, trained = ranks.rank, fit_distributed(data, _config(sizes), ranks, **options)
        else:
            rank, trained = 0, fit(data, _config(sizes), **options)
    figures = {
        "epochs": trained.epochs,
        "peak_mib": peak_of_this_process_mib(),
        "anonymous_mib": anonymous.mib,
    }
    (folder / f"process-{rank}.json").write_text(json.dumps(figures))


def _config(sizes: dict[str, int]) -> Config:
    return settings(
        width=sizes["width"],
        batch_size=sizes["batch_size"],
        epochs=sizes["epochs"],
        optimizer="rowwise_adagrad",
        sparse_embeddings=True,
    )


def _greatest(side: dict) -> list[str]:
    known = [a for a in side["anonymous_mib"] if a is not None]
    return [f"{max(side['peak_mib']):,.0f}", f"{max(known):,.0f}" if known else "–"]


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.processes", description=__doc__)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=[1, 2, 4], help="default 1 2 4; the first two on disk"
    )
    parser.add_argument("--domains", type=int, default=4)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=500_000)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[1024, 4096], help="default 1024 4096; the first one on disk"
    )
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--disk", type=Path, default=ROOT / "runs", help="folder on a disk (default runs/)")
    output_options(parser, "processes")
    args = parser.parse_args(argv)
    if args.smoke:
        args.processes = [1, 2]
        args.domains, args.users, args.items, args.records = 2, 100, 80, 600
        args.width, args.batch_size, args.epochs = 8, [200], 2
    listed = [(name, value) for name in ("processes", "batch_size") for value in getattr(args, name)]
    for name, value in (*((n, getattr(args, n)) for n in SIZES if n != "batch_size"), *listed):
        if not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be more than 0, got {value}")
    return args


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(json.loads(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] == "1")
    else:
        main()
