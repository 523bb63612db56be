"""Arrays in files: working space for what is too large for memory, and ``.npy`` files that are read in place."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

_NORESERVE = 0x4000
"""MAP_NORESERVE of Linux, which Python names from 3.13 on: a mapping larger than memory and swap is not refused."""


class Disk:
    """Working space in a folder. Its arrays are mapped: the system writes them out and drops them from memory at will.

    Args:
        folder: takes the files; whoever made it removes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, tuple[BinaryIO, np.dtype]] = {}

    def add(self, column: str, values: np.ndarray) -> None:
        """Append a block to a column, whose type is that of the first block."""
        if column not in self._open:
            self._open[column] = (self.folder / f"{column}.bin").open("wb"), values.dtype
        file, kind = self._open[column]
        file.write(np.ascontiguousarray(values, dtype=kind))

    def finish(self, column: str) -> np.ndarray | None:
        """All values of the column; None if nothing was added."""
        if column not in self._open:
            return None
        file, kind = self._open.pop(column)
        file.close()
        if not Path(file.name).stat().st_size:
            return np.zeros(0, dtype=kind)
        return np.asarray(np.memmap(file.name, dtype=kind, mode="r+"))

    def zeros(self, name: str, kind: type, length: int) -> np.ndarray:
        """A new (length,) array of zeros."""
        if not length:
            return np.zeros(0, dtype=kind)
        path = self.folder / f"{name}.bin"
        with path.open("wb") as file:
            _reserve(file, length * np.dtype(kind).itemsize)
        return np.asarray(np.memmap(path, dtype=kind, mode="r+", shape=(length,)))

    def close(self) -> None:
        for file, _ in self._open.values():
            file.close()


class NpyWriter:
    """Writes an ``.npy`` file of one dimension whose length is known, block by block. Use it as a context."""

    def __init__(self, path: Path, kind: type, length: int) -> None:
        self.kind, self.left, self._file = np.dtype(kind), length, path.open("wb")
        header = {"descr": self.kind.newbyteorder("<").str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, values: np.ndarray) -> None:
        self.left -= len(values)
        self._file.write(np.ascontiguousarray(values, dtype=self.kind))

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        self._file.close()
        if kind is None and self.left:
            raise ValueError(f"{self._file.name}: {self.left} values too few")


def new_npy(path: Path, kind: type, length: int) -> np.ndarray:
    """An ``.npy`` file of ``length`` zeros, mapped to be written to in any order."""
    if not length:
        np.save(path, np.zeros(0, dtype=kind))
        return np.load(path)
    array = np.asarray(np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=(length,)))
    with path.open("r+b") as file:
        _reserve(file, path.stat().st_size)
    return array


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the space of a file from the disk now: a full disk is an error here, but kills whoever writes to a mapping."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def map_npy(path: Path) -> np.ndarray:
    """The array of an ``.npy`` file, read in place. What is written to it stays in this process and never gets to disk.

    Raises:
        OSError, ValueError: no such file, or none of this format or of the length that its header says.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
        start, size = file.tell(), path.stat().st_size
        count = int(np.prod(shape, dtype=np.int64))
        if fortran or kind.hasobject or size != start + count * kind.itemsize:
            raise ValueError(f"{size:,} bytes where the header says {start + count * kind.itemsize:,}")
        if not count:
            return np.zeros(shape, dtype=kind)
        flags = mmap.MAP_PRIVATE | (_NORESERVE if hasattr(mmap, "MAP_POPULATE") else 0)
        mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return np.frombuffer(mapped, dtype=kind, count=count, offset=start).reshape(shape)
