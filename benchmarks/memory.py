"""Peak memory of training, each side in a process of its own: ``python -m benchmarks.memory DATASET SIDE BATCH WIDTH``."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
SIDES = ("import", "data", "adi", "plain_shared", "plain_row")
"""``import``: nothing but the library; ``data``: with the data set loaded; then with some training steps."""


def peak_memory_mib(dataset: str, sides: Sequence[str], batch_size: int, width: int) -> dict[str, float]:
    """Peak resident memory in MiB of each of ``sides``, see :data:`SIDES`."""
    return {s: peak_of_module_mib("benchmarks.memory", dataset, s, str(batch_size), str(width)) for s in sides}


def peak_of_module_mib(*words: str) -> float:
    """What ``python -m`` with these words says of its peak memory, at as many threads as here.

    Raises:
        RuntimeError: it failed; the message holds what it wrote to standard error.
    """
    command = [sys.executable, "-m", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command[1:])} failed:\n{result.stderr.strip()}")
    return json.loads(result.stdout)["peak_mib"]


def peak_of_this_process_mib() -> float:
    """Peak resident memory so far.

    Linux carries ``ru_maxrss`` from a parent over into the program that its child runs, so the kernel's own high-water
    mark of this program's memory goes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def anonymous_mib(process: int | str = "self") -> float:
    """Anonymous resident memory of a process: pages of mapped files do not count. Linux only."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("this system does not tell anonymous memory apart: /proc/self/status has no RssAnon")


class AnonymousPeak:
    """Inside the block, peak of the memory that no file backs, looked at 100 times a second; ``mib`` is None off Linux."""

    def __init__(self) -> None:
        self.mib: float | None = None
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> AnonymousPeak:
        self._watcher.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        with suppress(OSError):
            while True:
                self.mib = max(self.mib or 0.0, round(anonymous_mib(), 1))
                if self._over.wait(0.01):
                    return


def _run(dataset: str, side: str, batch_size: int, width: int, steps: int = 12) -> None:
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}; the sides are {', '.join(SIDES)}")
    from adi_lite.data.registry import load_dataset
    from benchmarks.steps import library_step, plain_step, settings

    if side == "import":
        return
    data = load_dataset(dataset)
    if side == "data":
        return
    config = settings(width=width, batch_size=batch_size)
    if side == "adi":
        step = library_step(data, config)
    else:
        step = plain_step(data, config, "row" if side == "plain_row" else "shared")
    for _ in range(steps):
        step()


def main() -> None:
    dataset, side, batch_size, width = sys.argv[1:]
    _run(dataset, side, int(batch_size), int(width))
    print(json.dumps({"peak_mib": peak_of_this_process_mib()}))


if __name__ == "__main__":
    main()
