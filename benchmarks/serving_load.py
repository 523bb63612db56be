"""``python -m benchmarks.serving_load``: latency of ``examples/serve.py`` under a fixed rate of requests, as JSON.

Requests leave at their scheduled times whether or not earlier ones have come back (open loop), and latency counts from the
scheduled time, so that a service that stalls is charged for everything that the stall delayed. The client runs on the same
machine, and its own time is part of the latency.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faiss
import httpx
import numpy as np
import torch
from rich.console import Console

from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import TwoTower
from adi_lite.serving.index import write_index
from adi_lite.training.trainer import Trained
from benchmarks.memory import ROOT
from benchmarks.report import finish, machine, output_options, published, table
from benchmarks.steps import settings
from benchmarks.train_speed import synthetic

GOAL_RATE, GOAL_P99_MS = 200, 50
WIDTH = 64
WARM_UP_SECONDS = 2.0


def main(argv: list[str] | None = None) -> None:
    """Measure, print the JSON object on standard output and a table on standard error, and write the object to a file."""
    args = _arguments(argv)
    console = Console(stderr=True)
    sizes = {n: getattr(args, n) for n in ("items", "users", "domains", "kind", "k", "rate", "seconds", "runs")}
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"[dim]indexing {args.items:,} items in each of {args.domains} domains, {args.kind} …[/]")
        about = write_run(Path(folder), args.items, args.users, args.domains, args.kind)
        with service(Path(folder)) as url:
            console.print(f"[dim]{args.rate:g} requests a second, {args.runs} times {args.seconds:g} seconds …[/]")
            names = [d["name"] for d in about["domains"]]
            result: dict = {"about": {**machine(), "faiss": faiss.__version__, **sizes, "width": about["width"]}}
            result["runs"] = runs = [asyncio.run(load(url, names, args, seed)) for seed in range(args.runs)]
    result["recall_of_exact@100"] = min(d["recall_of_exact@100"] for d in about["domains"])
    rate, p99, errors = min(r["rate"] for r in runs), max(r["p99_ms"] for r in runs), sum(r["errors"] for r in runs)
    result["goal"] = {  # of the worst run
        "rate": {"goal": GOAL_RATE, "measured": rate, "reached": rate >= 0.99 * GOAL_RATE},
        "p99_ms": {"goal": GOAL_P99_MS, "measured": p99, "reached": p99 < GOAL_P99_MS},
        "errors": {"goal": 0, "measured": errors, "reached": errors == 0},
    }
    finish(result, args.out, *([published(f"serving_{args.kind}")] if args.publish else []))
    columns = ["rate", "p50_ms", "p95_ms", "p99_ms", "max_ms", "errors"]
    title = f"One user, top {args.k}, of {args.items:,} items ({args.kind}), {os.cpu_count()} cores"
    rows = [[f"run {n}", *(f"{r[c]:,g}" for c in columns)] for n, r in enumerate(runs, 1)]
    console.print(table(title, ["", *columns], rows))


def write_run(run: Path, items: int, users: int, domains: int, kind: str) -> dict:
    """An indexed run of ADI as it is before training: it costs what a trained one costs, and says nothing."""
    torch.manual_seed(0)
    data = synthetic(domains, users=users, items=items, records=20 * users)
    config = settings(width=WIDTH)
    model = TwoTower(config.model, data.schema, data.num_items)
    scorer = ModelScorer(dict.fromkeys(range(domains), model), data)
    return write_index(run, data, Trained(scorer, config), kind)


@contextmanager
def service(run: Path, patience: float = 120) -> Iterator[str]:
    """``examples/serve.py`` over a run in a process of its own; gives its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / "serve.py"), str(run), "--port", str(port)]
    process = subprocess.Popen(command, env=environment)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + patience
    try:
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the service did not start: {' '.join(command)}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


async def load(url: str, domains: list[str], args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Send requests of random users and domains at ``args.rate``, after a warm-up, and sum up their latencies."""
    rng = np.random.default_rng(seed)
    async with httpx.AsyncClient(base_url=url, timeout=30, limits=httpx.Limits(max_connections=None)) as client:

        async def one(due: float, user: int, domain: str) -> tuple[float, float, bool]:
            """Latency, time of the answer, and whether it was the right one."""
            try:
                answer = await client.post("/retrieve", json={"domain": domain, "users": [user], "k": args.k})
                now = time.perf_counter()
                right = answer.status_code == 200 and len(answer.json()["lists"][0]["items"]) == min(args.k, args.items)
            except httpx.HTTPError:
                now, right = time.perf_counter(), False
            return now - due, now, right

        async def send(count: int) -> tuple[float, list[tuple[float, float, bool]]]:
            users, places = rng.integers(0, args.users, count).tolist(), rng.integers(0, len(domains), count).tolist()
            start, tasks = time.perf_counter(), []
            for i, (user, place) in enumerate(zip(users, places, strict=True)):
                due = start + i / args.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                tasks.append(asyncio.create_task(one(due, user, domains[place])))
            return start, await asyncio.gather(*tasks)

        await send(max(1, round(args.rate * min(WARM_UP_SECONDS, args.seconds))))
        gc.collect()
        gc.freeze()  # the client's own full collections would count as the service's latency
        start, done = await send(max(1, round(args.rate * args.seconds)))
    latency = 1e3 * np.array([x for x, _, _ in done])
    p50, p95, p99 = np.percentile(latency, [50, 95, 99]).tolist()
    last = max(now for _, now, _ in done)
    return {
        "requests": len(done),
        "errors": sum(not right for _, _, right in done),
        "rate": round(len(done) / (last - start), 1),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
        "max_ms": round(float(latency.max()), 2),
    }


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).json()["ok"]
    except (httpx.HTTPError, json.JSONDecodeError):
        return False


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.serving_load", description=__doc__)
    parser.add_argument("--items", type=int, default=100_000, help="in each domain (default %(default)s)")
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--domains", type=int, default=3)
    parser.add_argument("--kind", choices=("flat", "ivf", "hnsw"), default="flat")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--rate", type=float, default=GOAL_RATE, help="requests a second (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=5, help="times that the load is measured (default %(default)s)")
    output_options(parser, "serving_load", published_as="serving_KIND")
    args = parser.parse_args(argv)
    if args.smoke:
        args.items, args.users, args.k, args.rate, args.seconds, args.runs = 500, 50, 10, 40.0, 1.0, 2
    for name in ("items", "users", "domains", "k", "rate", "seconds", "runs"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name} must be more than 0, got {getattr(args, name)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
