"""Who does which part of a batch: one process, which does all of it; :mod:`adi_lite.training.process_group` has several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from adi_lite.data.batches import Inputs
from adi_lite.nn.embedding import Table, Zeros, whole_table


class LaunchError(ValueError):
    """Processes or a device that training cannot have here."""


def check_device(device: str, local: int = 0) -> None:
    """Refuse a device that process ``local`` of this machine cannot have."""
    if device not in ("cpu", "cuda"):
        raise LaunchError(f"device must be cpu or cuda, got {device!r}")
    if device == "cpu":
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not found:
        raise LaunchError("--device cuda needs an NVIDIA GPU and a PyTorch built for it; use --device cpu")
    if local >= found:
        raise LaunchError(
            f"process {local} of this machine has no GPU of its own: it has {found}; start torchrun with "
            f"--nproc-per-node {found}"
        )


class OneProcess:
    """The only process of a run: its part is the whole, and there is nothing to exchange."""

    rank, world = 0, 1

    def __init__(self, device: str = "cpu") -> None:
        """``device``: "cpu" or "cuda".

        Raises:
            LaunchError: there is no such device here.
        """
        check_device(device)
        self.device = torch.device(device)

    def table(self, rows: int, width: int, std: float, sparse: bool, zeros: Zeros = torch.zeros) -> Table:
        """An embedding table, of which a process holds its own rows only."""
        return whole_table(rows, width, std, sparse, zeros)

    def place(self, model: nn.Module) -> None:
        """Make a model with tables of :meth:`table` into this process's part of it, and move it to its device."""
        model.to(self.device)

    def share(self, rows: int) -> slice:
        """Which of ``rows`` rows are this process's."""
        return slice(0, rows)

    def part(self, inputs: Inputs, own: slice) -> Inputs:
        """The rows ``own`` of a batch's inputs."""
        return inputs

    def to_device(self, inputs: Inputs) -> Inputs:
        """Inputs where the model is."""
        return inputs.to(self.device)

    def gather(self, vectors: Tensor, rows: int) -> Tensor:
        """From the vectors of each process's share, those of all ``rows`` rows: (rows, width), with gradients."""
        return vectors

    def gather_both(self, vectors: Tensor, bias: Tensor, rows: int) -> Sequence[Tensor]:
        """The same of vectors and of their bias (n, 1)."""
        return vectors, bias

    def losses(self, of_domains: list[Tensor], users: Tensor, vectors: Tensor) -> Tensor:
        """(b,) losses of this process's rows, from those of each domain. ``users`` and ``vectors`` are what they were made from."""
        return torch.cat(of_domains)

    def sum_gradients(self, model: nn.Module) -> None:
        """After the backward pass: gradients of all processes together."""

    def total(self, value: float) -> float:
        """The sum of a number of each process."""
        return value


def cut(counts: Sequence[int], part: slice) -> list[slice]:
    """For each domain, which of its rows lie in ``part`` of a batch that is sorted by domain and has ``counts`` rows."""
    slices, start = [], 0
    for n in counts:
        first = min(max(part.start - start, 0), n)
        slices.append(slice(first, max(first, min(part.stop - start, n))))
        start += n
    return slices


def length(rows: slice) -> int:
    return rows.stop - rows.start
