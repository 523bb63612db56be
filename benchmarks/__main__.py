"""``python -m benchmarks``: speed, memory, growth and the bound of ADI's training, beside a plain loop, as JSON."""

from __future__ import annotations

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table

from adi_lite.data.download import OutOfReachError
from adi_lite.data.registry import DATASETS, load_dataset
from adi_lite.data.schema import MultiDomainDataset
from benchmarks.features import training_with_features, whole_corpus
from benchmarks.growth import (
    growth_with_domains,
    growth_with_items,
    growth_with_records,
    growth_with_shared,
    growth_with_width,
)
from benchmarks.learners import library_learner, plain_learner
from benchmarks.memory import SIDES, peak_memory_mib
from benchmarks.report import add_option, added, finish, machine, output_options, published, table
from benchmarks.step_profile import profile_step
from benchmarks.steps import settings
from benchmarks.time_to_recall import recall_rows, seconds_to_recall
from benchmarks.train_speed import SMOKE, Size, methods_beside_baseline

PARTS = (
    "speed", "memory", "domains", "width", "records", "items", "shared", "bound", "features", "whole_corpus", "recall",
)  # fmt: skip
GROWTH = {"domains": "D", "width": "width", "records": "records", "items": "items", "shared": "K"}
TARGET = 0.60
"""Average Recall@10 of the validation queries to be reached."""
GOAL_RECORDS, GOAL_MIB, GOAL_TIMES_PLAIN, GOAL_OF_BOUND = 20_000, 2048, 20, 0.5


def main(argv: list[str] | None = None) -> None:
    """Measure, print the JSON object on standard output and tables on standard error, and write the object to files."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    console = Console(stderr=True)
    name, data = _load(args.dataset, console)
    size = SMOKE if args.smoke else Size()
    result: dict[str, object] = {"about": _about(name, data, size)}
    kept = published("benchmarks" if args.threads > 1 else "benchmarks_one_thread")
    for part in args.parts:
        console.print(f"[dim]measuring {part} …[/]")
        result[part] = _measure(part, name, data, size, args.smoke)
    if args.add:
        result = added(result, kept)
    result["goal"] = _goal(result)
    finish(result, args.out, *([kept] if args.publish else []))
    for shown in _tables(result):
        console.print(shown)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--dataset", choices=sorted(DATASETS), help="default: xmarket, or its stand-in if out of reach")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (default %(default)s)")
    output_options(parser, "benchmarks", "benchmarks[_one_thread]")
    add_option(parser)
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f"--threads must be at least 1, got {args.threads}")
    return args


def _load(name: str | None, console: Console) -> tuple[str, MultiDomainDataset]:
    if name is not None:
        return name, load_dataset(name)
    try:
        return "xmarket", load_dataset("xmarket")
    except OutOfReachError as error:
        console.print(f"[yellow]{error}[/]\n[yellow]measuring on the stand-in xmarket-sample instead[/]")
        return "xmarket-sample", load_dataset("xmarket-sample")


def _measure(part: str, name: str, data: MultiDomainDataset, size: Size, smoke: bool) -> dict:
    if part == "speed":
        return methods_beside_baseline(data, size)
    if part == "memory":
        return peak_memory_mib(name, SIDES, size.batch_sizes[0], 64)
    if part in GROWTH:
        return _measure_growth(part, data, size)
    if part == "features":
        return (
            training_with_features("smoke", 4096, 1) if smoke else training_with_features("full", 40_960, size.rounds)
        )
    if part == "whole_corpus":
        return whole_corpus(1000, 200, 1) if smoke else whole_corpus(100_000, 10_000, 3)
    if part == "bound":
        each = {b: settings(batch_size=b, num_negatives=size.num_negatives) for b in size.batch_sizes}
        return {str(b): profile_step(data, config, steps=max(6, 4 * size.rounds)) for b, config in each.items()}
    config = settings(batch_size=size.batch_sizes[0], num_negatives=size.num_negatives)
    limits = {"max_epochs": 1 if smoke else 12, "max_seconds": 60.0}
    sides = {"adi": library_learner(data, config), "plain_row": plain_learner(data, config)}
    return {"target": TARGET, **{n: seconds_to_recall(x, data, TARGET, **limits) for n, x in sides.items()}}


def _measure_growth(part: str, data: MultiDomainDataset, size: Size) -> dict:
    if part in ("domains", "records", "items"):
        of_size = {"domains": growth_with_domains, "records": growth_with_records, "items": growth_with_items}
        return of_size[part](size)
    return growth_with_width(data, size) if part == "width" else growth_with_shared(data, size)


def _about(name: str, data: MultiDomainDataset, size: Size) -> dict[str, object]:
    return {
        **machine(),
        "dataset": name,
        "records": len(data.train),
        "users": data.num_users,
        "items": data.num_items,
        "num_negatives": size.num_negatives,
        "rounds": size.rounds,
        "steps_a_round": size.steps,
    }


def _goal(result: dict) -> dict[str, object]:
    """Whether ADI trains as fast and in as little memory as it should."""
    out: dict[str, object] = {}

    def least(name: str, measured: float, goal: float) -> None:
        out[name] = {"goal": goal, "measured": measured, "reached": measured >= goal}

    if "speed" in result:
        adi = next(iter(result["speed"].values()))["adi"]
        for clock in ("records_per_second", "records_per_cpu_second"):
            least(clock, adi[clock], GOAL_RECORDS)
        for batch_size, rows in result["speed"].items():
            least(f"times_plain_row/{batch_size}", rows["plain_row"]["times_reference"], GOAL_TIMES_PLAIN)
    if "memory" in result:
        peak = result["memory"]["adi"]
        out["peak_mib"] = {"goal": GOAL_MIB, "measured": peak, "reached": peak <= GOAL_MIB}
    if "bound" in result:
        for batch_size, bound in result["bound"].items():
            least(f"share_of_bound/{batch_size}", bound["share_of_bound"], GOAL_OF_BOUND)
    return out | {part: result[part]["goal"] for part in ("features", "whole_corpus") if part in result}


def _tables(result: dict) -> list[Table]:
    about = result["about"]
    tables = []
    for batch_size, rows in result.get("speed", {}).items():
        title = f"Training, {about['dataset']}, batches of {batch_size}, width 64, {about['threads']} thread(s)"
        tables.append(table(title, ["", *COLUMNS.values()], [[n, *_cells(r)] for n, r in rows.items()]))
    for part, of in GROWTH.items():
        if part in result:
            rows = [[x, n, *_cells(r)] for x, p in result[part]["points"].items() for n, r in p.items()]
            rows += [["slope", n, "", "", f"{s:.2f}", ""] for n, s in result[part]["slope_of_cpu_time"].items()]
            tables.append(table(f"Cost by {of}", [of, "", *COLUMNS.values()], rows))
    tables += _tables_of_features(result)
    if "memory" in result:
        rows = [[side, f"{peak:,.0f}"] for side, peak in result["memory"].items()]
        tables.append(table("Peak memory of a process", ["", "MiB"], rows))
    for batch_size, bound in result.get("bound", {}).items():
        rows = [["measured: " + k, f"{v:.2f}"] for k, v in bound["cpu_ms"].items()]
        rows += [["bound: " + k, f"{v:.2f}"] for k, v in bound["bound_ms"].items()]
        rows.append(["bound / measured", f"{bound['share_of_bound']:.0%}"])
        tables.append(table(f"One step of ADI and its bound, batches of {batch_size}", ["", "ms"], rows))
    return tables


def _tables_of_features(result: dict) -> list[Table]:
    tables = []
    if "features" in result:
        part = result["features"]
        rows = [[n, *_cells(r)] for n, r in part["methods"].items()]
        tables.append(
            table(
                f"Training with all features, an epoch of {part['records_timed']:,} records",
                ["", *COLUMNS.values()],
                rows,
            )
        )
    if "whole_corpus" in result:
        part = result["whole_corpus"]
        rows = [
            [f"{part['test_records']:,}", f"{part['items']:,}", f"{part['seconds']:.2f}", f"{part['cpu_seconds']:.2f}"]
        ]
        tables.append(table(f"Recall@{part['k']} over all items", ["records", "items", "s", "processor s"], rows))
        bound = part["bound"]
        rows = [[n, f"{s:.3f}", f"{bound['bound_seconds'][n]:.3f}"] for n, s in bound["seconds"].items()]
        tables.append(table("Its parts and their bounds", ["", "s", "bound, s"], rows))
    if "recall" in result:
        part = result["recall"]
        rows = [row[:3] for row in recall_rows(part)]
        tables.append(table(f"Seconds until Recall@10 of {part['target']}", ["", "s", "best"], rows))
    return tables


COLUMNS = {
    "records_per_second": "records/s",
    "ms_per_step": "ms a step",
    "cpu_ms_per_step": "processor ms a step",
    "times_reference": "times ADI's",
}


def _cells(row: dict[str, float]) -> list[str]:
    return [f"{row[c]:,.0f}" if c == "records_per_second" else f"{row[c]:,.2f}" for c in COLUMNS]


if __name__ == "__main__":
    sys.exit(main())
