"""What the benchmarks share: the facts of the machine, and how a result is written and shown."""

from __future__ import annotations

import argparse
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.table import Table

import adi_lite
from adi_lite.atomic import replacing
from adi_lite.experiments.store import PUBLISHED
from benchmarks.memory import ROOT
from book.processor import of_cpuinfo


def machine() -> dict[str, object]:
    """When and on what a figure was measured."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "adi_lite": adi_lite.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "processor": of_cpuinfo("model name") or platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def published(name: str) -> Path:
    """Where the book takes a benchmark's result from."""
    return PUBLISHED / f"{name}.json"


def output_options(parser: argparse.ArgumentParser, name: str, published_as: str = "") -> None:
    """Options of every benchmark: its size, and where the result goes. ``published_as`` is ``name`` by default."""
    parser.add_argument("--smoke", action="store_true", help="seconds: that everything runs, no figure worth reading")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / f"{name}.json", help="default runs/…")
    words = f"write data/results/{published_as or name}.json as well"
    parser.add_argument("--publish", action="store_true", help=words)


def add_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--add", action="store_true", help="keep the published parts that are not measured now")


def added(result: dict, path: Path) -> dict:
    """What is published at ``path`` with these parts in place of its own, each of which keeps saying where it was measured.

    The sides of a ``recall`` part, seconds to a target and no ratios, take the place of their own; the others stay.
    """
    before = json.loads(path.read_text()) if path.is_file() else {}
    about, parts = result["about"], {part: value for part, value in result.items() if part != "about"}
    told, kept = {part: about for part in parts if part != "goal"}, before.get("recall", {})
    now = parts.get("recall", {})
    if now and kept.get("target") == now["target"] and kept.keys() - now.keys():
        del told["recall"]
        told |= {f"recall of {side}": about for side in now if side != "target"}
        parts["recall"] = {**kept, **now}
    whole = "recall" in told  # so that no side is as it was told before
    earlier = before.get("measured_apart", {}).items()
    told = {k: v for k, v in earlier if not (whole and k.startswith("recall of "))} | told
    return {**before, **parts, "about": before.get("about", about), "measured_apart": told}


def finish(result: dict, *files: Path) -> None:
    """Write the result to files, each whole or not at all, and print it."""
    text = json.dumps(result, indent=1)
    for path in files:
        with replacing(path) as partial:
            partial.write_text(text + "\n")
    print(text)


def table(title: str, header: list[str], rows: list[list[str]]) -> Table:
    out = Table(title=title)
    for i, name in enumerate(header):
        out.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        out.add_row(*row)
    return out
