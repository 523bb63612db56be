"""Where embedding tables and what belongs to their rows are kept: in memory, or in files."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from adi_lite.training.config import Config


class InMemory:
    """Tensors in memory."""

    def zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.zeros(shape, dtype=dtype)

    def copy(self, tensor: Tensor) -> Tensor:
        return tensor.clone()


class OnDisk(InMemory):
    """Tensors in files of a folder, mapped into memory: the system keeps the parts in use there, as far as memory goes.

    The files have no names, and their space is free again when their tensors are gone, whatever ended the process.
    A folder that is itself in memory (tmpfs, often ``/tmp``) saves none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def zeros(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Raises OSError where the folder has no room: later, writing to the mapping would end the process."""
        dtype, count = dtype or torch.get_default_dtype(), math.prod(shape)
        if count == 0:
            return torch.zeros(shape, dtype=dtype)
        with tempfile.NamedTemporaryFile(prefix="adi_lite-", dir=self.folder) as file:
            try:
                if hasattr(os, "posix_fallocate"):  # macOS lacks it, and finds out later
                    os.posix_fallocate(file.fileno(), 0, count * dtype.itemsize)
            except OSError as error:
                size = count * dtype.itemsize / 2**30
                raise OSError(f"{self.folder} has no room for {size:.2f} GiB of tables: {error.strerror}") from None
            return torch.from_file(file.name, shared=True, size=count, dtype=dtype).view(shape)

    def copy(self, tensor: Tensor) -> Tensor:
        return self.zeros(*tensor.shape, dtype=tensor.dtype).copy_(tensor)


def storage(config: Config, tables: Path | None, device: str) -> InMemory:
    """Where a run keeps its tables: in files in ``tables``, or, without it, in memory. Raises as :func:`check_tables`."""
    check_tables(config, tables, device)
    return InMemory() if tables is None else OnDisk(tables)


def check_tables(config: Config, tables: Path | None, device: str) -> None:
    """Refuse tables on disk for a run that they do not fit.

    Raises:
        ValueError: every step would touch all rows, or the run is on a GPU.
    """
    if tables is None:
        return
    if config.train.optimizer != "rowwise_adagrad":
        raise ValueError(
            "tables on disk need optimizer='rowwise_adagrad' and sparse_embeddings=True, whose steps touch only the "
            f"rows of a batch; got optimizer={config.train.optimizer!r}"
        )
    if device != "cpu":
        raise ValueError(f"tables on disk need --device cpu: with {device}, tables are in the GPU's memory")
