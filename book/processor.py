"""On which processor the notebooks' stored outputs were made: ``python -m book.processor`` says how to compare with them.

Processors round differently, and tiny training runs with them. Outputs are compared on one like that of the stored ones;
elsewhere every cell must still run to its end.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch

STORED = Path(__file__).resolve().parents[1] / "tests" / "nbval_processor.txt"


def processor() -> str:
    """What rounding depends on: the vector instructions that torch uses, and the maker, by which MKL chooses its kernels."""
    return f"{torch.backends.cpu.get_cpu_capability()} {of_cpuinfo('vendor_id') or platform.machine()}"


def of_cpuinfo(field: str) -> str:
    """What Linux says of its first processor, "" elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "")


def stored() -> str:
    return STORED.read_text().strip() if STORED.exists() else ""


def nbval_option() -> str:
    """``--nbval`` compares outputs, ``--nbval-lax`` does not."""
    return "--nbval" if processor() == stored() else "--nbval-lax"


if __name__ == "__main__":
    print(nbval_option())
