"""Writes safetensors files a block at a time, so that no tensor has to be in memory whole.

The library's own ``save_file`` wants every tensor in memory at once. The format is simple: the length of a JSON header
(8 bytes, little-endian), the header with each tensor's type, shape and place, and the bare numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

BLOCK_BYTES = 2**24

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by their names in the format."""

_NAMES = {dtype: name for name, dtype in TYPES.items()}


@dataclass(frozen=True)
class Blocks:
    """A tensor whose numbers come in order, as flat tensors."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    blocks: Iterable[Tensor]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def blocks_of(tensor: Tensor) -> Blocks:
    """A tensor in blocks, which are views of it."""
    return Blocks(tensor.dtype, tuple(tensor.shape), _split(tensor))


def _split(tensor: Tensor) -> Iterator[Tensor]:
    flat = tensor.detach().contiguous().view(-1)
    if len(flat):
        yield from flat.split(BLOCK_BYTES // tensor.dtype.itemsize)


def in_order(tensors: Mapping[str, Blocks]) -> list[str]:
    """The names in the order of the file: wider types first, so that every tensor begins at a multiple of its width."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def write(path: Path, tensors: Mapping[str, Blocks], metadata: Mapping[str, str]) -> None:
    """Write a file that the safetensors library reads. Blocks are taken one at a time, in the order of :func:`in_order`.

    Raises:
        ValueError: a type that is not written, or blocks that do not make up their tensor.
    """
    header, offset = {"__metadata__": dict(metadata)}, 0
    for name in in_order(tensors):
        t = tensors[name]
        if t.dtype not in _NAMES:
            raise ValueError(f"{name} is of {t.dtype}, which is not written")
        header[name] = {
            "dtype": _NAMES[t.dtype],
            "shape": list(t.shape),
            "data_offsets": [offset, offset + t.num_bytes],
        }
        offset += t.num_bytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in in_order(tensors):
            start = file.tell()
            for block in tensors[name].blocks:
                file.write(block.cpu().view(torch.uint8).numpy())
            if file.tell() - start != tensors[name].num_bytes:
                raise ValueError(f"{name} has {file.tell() - start} bytes, its shape {tensors[name].num_bytes}")
