"""``python -m benchmarks.packages``: ADI's training beside the two-tower models of packages from PyPI, as JSON.

Every side trains by its own trainer and data loader, at one width, one batch size and one number of threads, on the same
records, in turn: a few thousand of them an epoch, so that other load on the machine weighs on all sides alike. What a
record is compared with is each package's own way, and is said beside its figures. Preparing the data is timed apart.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from rich.console import Console

from adi_lite.data.registry import DATASETS, load_dataset
from adi_lite.data.schema import MultiDomainDataset
from benchmarks.learners import Learner, library_learner, plain_learner, random_part
from benchmarks.measure import interleaved
from benchmarks.memory import peak_of_module_mib, peak_of_this_process_mib
from benchmarks.peers import recbole, rechub
from benchmarks.report import add_option, added, finish, machine, output_options, published, table
from benchmarks.steps import settings
from benchmarks.time_to_recall import recall_rows, seconds_to_recall

GOAL = 5.0  # times the records/s of a package's two-tower model
TARGET = 0.60  # average Recall@10 of the validation queries
PARTS = ("speed", "memory", "recall")


@dataclass(frozen=True)
class Side:
    title: str
    build: Callable[..., Learner]
    """From the data, the width and the batch size; ``records_a_call`` may make calls of ``epoch`` parts of one."""
    package: str | None = None
    two_towers: bool = True
    share: float = 1.0
    """Of the records that an epoch of the others has: a side that takes minutes for them is timed on fewer."""


def _adi(**changes: object) -> Callable[..., Learner]:
    return lambda data, width, batch, **parts: library_learner(
        data, settings(width=width, batch_size=batch, **changes), **parts
    )


def _rechub(model: rechub.Model, **options: int) -> Callable[..., Learner]:
    return lambda data, width, batch, **parts: rechub.learner(
        data, model, width=width, batch_size=batch, **options, **parts
    )


def _recbole(model: recbole.Model, **options: int) -> Callable[..., Learner]:
    return lambda data, width, batch: recbole.learner(data, model, width=width, batch_size=batch, **options)


SIDES: dict[str, Side] = {
    "adi": Side("ADI-SE", _adi()),
    "adi_in_batch": Side("ADI-SE, in-batch", _adi(sampler="in_batch")),
    "adi_row": Side("ADI-SE, negatives of the row", _adi(fixed_negatives=True, num_negatives=20)),
    "dnn": Side("DNN of this library", _adi(method="dnn")),
    "plain_row": Side("Plain loop", lambda data, w, b, **o: plain_learner(data, settings(width=w, batch_size=b), **o)),
    "rechub_youtube_dnn": Side("YoutubeDNN", _rechub("youtube_dnn"), "torch-rechub"),
    "rechub_dssm": Side("DSSM, in-batch", _rechub("dssm"), "torch-rechub"),
    "rechub_youtube_dnn_1024": Side(
        "YoutubeDNN, 1,024 negatives", _rechub("youtube_dnn", row_negatives=1024), "torch-rechub", share=0.1
    ),
    "recbole_dssm": Side("DSSM", _recbole("DSSM"), "recbole"),
    "recbole_dssm_20": Side("DSSM, 20 negatives", _recbole("DSSM", row_negatives=20), "recbole"),
    "recbole_dssm_1024": Side("DSSM, 1,024 negatives", _recbole("DSSM", row_negatives=1024), "recbole", share=0.05),
    "recbole_bpr": Side("BPR (no towers)", _recbole("BPR"), "recbole", two_towers=False),
}


def main(argv: list[str] | None = None) -> None:
    """Measure, print the JSON object on standard output and tables on standard error, and write the object to files."""
    args = _arguments(argv)
    torch.set_num_threads(args.threads)
    if args.side:
        with contextlib.redirect_stdout(sys.stderr):
            _train(args.side, args)
        print(json.dumps({"peak_mib": peak_of_this_process_mib()}))
        return
    console = Console(stderr=True)
    data = _load(args)
    result: dict[str, object] = {"about": _about(args, data)}
    with contextlib.redirect_stdout(sys.stderr):  # packages print as they train; standard output is the JSON object
        if "speed" in args.parts:
            console.print("[dim]measuring speed …[/]")
            result["speed"] = speed(data, args)
            result["goal"] = _goal(result["speed"], args.dataset)
        if "memory" in args.parts:
            console.print("[dim]measuring memory …[/]")
            result["memory"] = {name: _memory(name, args) for name in args.sides}
        if "recall" in args.parts:
            result["recall"] = {"target": args.target}
            for name in args.recall_sides or args.sides:
                console.print(f"[dim]measuring time to Recall@10 of {args.target}: {name} …[/]")
                parts = {} if SIDES[name].package == "recbole" else {"records_a_call": args.records_a_call}
                learner = SIDES[name].build(data, args.width, args.batch_size, **parts)
                limits = {"max_epochs": args.max_epochs, "max_seconds": args.max_seconds}
                result["recall"][name] = seconds_to_recall(learner, data, args.target, **limits)
    file = published("packages" if args.dataset == "xmarket" else f"packages_{args.dataset}")
    if args.add:
        result = added(result, file)
    finish(result, args.out, *([file] if args.publish else []))
    _show(result, console)


def speed(data: MultiDomainDataset, args: argparse.Namespace) -> dict[str, dict]:
    """Records/s of each side, medians over rounds, and how many times as long as ADI's an epoch takes."""
    learners, prepared = {}, {}
    for name in args.sides:
        part = _part(name, data, args)
        SIDES[name].build(
            data.replace(train=random_part(data.train, 2 * args.batch_size)), 8, args.batch_size
        )  # imports
        started = time.perf_counter()
        learners[name] = SIDES[name].build(part, args.width, args.batch_size)
        prepared[name] = time.perf_counter() - started
    timings = interleaved({n: x.epoch for n, x in learners.items()}, rounds=args.rounds, steps_a_round=1, warm_up=1)
    out = {}
    for name, timing in timings.items():
        row = timing.summary(timings["adi"])
        out[name] = {
            "title": SIDES[name].title,
            "package": SIDES[name].package,
            "two_towers": SIDES[name].two_towers,
            "negatives": learners[name].negatives,
            "records_per_second": row["records_per_second"],
            "records_per_cpu_second": row["records_per_cpu_second"],
            "times_adi": row["times_reference"],
            "times_adi_cpu": row["times_reference_cpu"],
            "prepare_seconds": round(prepared[name], 3),
        }
    return out


def _memory(name: str, args: argparse.Namespace) -> float:
    """Peak resident memory in MiB of a process that prepares the same records and trains one epoch."""
    words = ["benchmarks.packages", "--side", name, "--dataset", args.dataset]
    for option in ("preset", "records", "batch_size", "width", "threads"):
        words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
    return peak_of_module_mib(*words)


def _train(name: str, args: argparse.Namespace) -> None:
    data = _load(args)
    SIDES[name].build(_part(name, data, args), args.width, args.batch_size).epoch()


def _load(args: argparse.Namespace) -> MultiDomainDataset:
    return load_dataset(args.dataset, **({"preset": args.preset} if args.dataset == "simulator" else {}))


def _part(name: str, data: MultiDomainDataset, args: argparse.Namespace) -> MultiDomainDataset:
    """The records of an epoch that is timed: whole batches, so that a side with fewer has no smaller ones."""
    records = round(args.records * SIDES[name].share)
    whole = max(1, records // args.batch_size) * args.batch_size
    return data.replace(train=random_part(data.train, min(whole, args.records)))


def _about(args: argparse.Namespace, data: MultiDomainDataset) -> dict[str, object]:
    packages = {}
    for name in sorted({SIDES[s].package for s in args.sides} - {None}):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        **machine(),
        **packages,
        "dataset": args.dataset,
        "records": min(args.records, len(data.train)),
        "batch_size": args.batch_size,
        "width": args.width,
        "rounds": args.rounds,
        "features": {"user": len(data.schema.user), "item": len(data.schema.item)},
    }


def _goal(speed: dict[str, dict], dataset: str) -> dict[str, dict]:
    """For each two-tower model of a package: whether ADI trains on so many times as many records a second."""
    where = "" if dataset == "xmarket" else f", {dataset}"
    return {
        f"times_package/{row['title']} ({row['package']}){where}": {
            "goal": GOAL,
            "measured": row["times_adi"],
            "reached": row["times_adi"] >= GOAL,
        }
        for row in speed.values()
        if row["package"] and row["two_towers"]
    }


def _show(result: dict, console: Console) -> None:
    about = result["about"]
    if "speed" in result:
        header = ["", "package", "negatives of a record", "records/s", "times ADI's", "prepare, s"]
        rows = [
            [
                r["title"],
                r["package"] or "",
                r["negatives"],
                f"{r['records_per_second']:,.0f}",
                f"{r['times_adi']:.2f}",
                f"{r['prepare_seconds']:.1f}",
            ]
            for r in result["speed"].values()
        ]
        console.print(table(f"Training, {about['dataset']}, {about['threads']} thread(s)", header, rows))
    if "memory" in result:
        rows = [[name, f"{peak:,.0f}"] for name, peak in result["memory"].items()]
        console.print(table("Peak memory of a process", ["", "MiB"], rows))
    if "recall" in result:
        target = result["recall"]["target"]
        rows = recall_rows(result["recall"])
        console.print(table(f"Seconds until Recall@10 of {target}", ["", "s", "best", "epochs"], rows))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.packages", description=__doc__)
    parser.add_argument("--dataset", choices=sorted(DATASETS), default="xmarket", help="default %(default)s")
    parser.add_argument("--preset", default="full", help="size of the simulator's log (default %(default)s)")
    parser.add_argument(
        "--sides", nargs="+", choices=SIDES, default=tuple(SIDES), metavar="SIDE", help=", ".join(SIDES)
    )
    parser.add_argument(
        "--recall-sides", nargs="+", choices=SIDES, metavar="SIDE", help="sides that train to the target (default: all)"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--records", type=int, default=20_480, help="of an epoch that is timed (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--batch-size", type=int, default=1024, help="default %(default)s")
    parser.add_argument("--width", type=int, default=64, help="default %(default)s")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch (default %(default)s)")
    parser.add_argument("--target", type=float, default=TARGET, help="Recall@10 to reach (default %(default)s)")
    parser.add_argument("--max-epochs", type=int, default=12, help="towards it (default %(default)s)")
    parser.add_argument("--max-seconds", type=float, default=60.0, help="towards it (default %(default)s)")
    parser.add_argument(
        "--records-a-call",
        type=int,
        help="towards the target, between two validations (default: an epoch; RecBole's models always)",
    )
    parser.add_argument("--side", choices=SIDES, help="train this one alone and print the peak memory of the process")
    output_options(parser, "packages")
    add_option(parser)
    args = parser.parse_args(argv)
    if args.smoke:
        args.records, args.rounds, args.batch_size, args.width = 256, 1, 64, 8
        args.max_epochs, args.max_seconds, args.preset = 2, 5.0, "smoke"
    for name in ("records", "rounds", "batch_size", "width", "threads", "max_epochs"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    if args.sides[0] != "adi":
        args.sides = ("adi", *(s for s in args.sides if s != "adi"))
    return args


if __name__ == "__main__":
    sys.exit(main())
