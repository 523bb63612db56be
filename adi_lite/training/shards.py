"""Checkpoints of several processes: safetensors of each, and a JSON file that says which belong together.

``torch.distributed.checkpoint`` would cut tensors anew as well, but its description of them is a file that runs code when it
is opened. Here a process writes its rows, and on loading reads the rows that are now its own from whichever files hold
them.

A folder ``resume-000003`` holds ``rank-0.safetensors`` ... of one epoch. ``resume.json`` names it, and takes the place of
the one before in one step, when all files are written: whoever is killed whenever, it names a whole checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch import distributed as dist

from adi_lite import __version__
from adi_lite.atomic import replacing
from adi_lite.nn.embedding import Zeros
from adi_lite.nn.sharded_embedding import share
from adi_lite.training import checkpoint
from adi_lite.training.checkpoint import CheckpointError
from adi_lite.training.process_group import ProcessGroup
from adi_lite.training.ranks import length
from adi_lite.training.tensor_file import TYPES, Blocks, blocks_of, in_order


def save(
    path: Path, tensors: Mapping[str, Tensor], sharded: Mapping[str, int], about: Mapping, ranks: ProcessGroup
) -> None:
    """Write a checkpoint; all processes must take part.

    Args:
        path: the manifest.
        tensors: this process's. Those that are not in ``sharded`` are equal on all processes.
        sharded: tensors cut by rows, with the number of rows of the whole.
        about: description, of which process 0's counts.
    """
    folder = path.parent / f"resume-{len(about['epochs']):06d}"
    own = {name: t for name, t in tensors.items() if ranks.rank == 0 or name in sharded}
    checkpoint.save(folder / f"rank-{ranks.rank}.safetensors", own, {"rank": ranks.rank, "world": ranks.world})
    ranks.barrier()
    if ranks.rank == 0:
        names = {"format": checkpoint.FORMAT, "version": __version__, "world": ranks.world, "folder": folder.name}
        with replacing(path) as partial:
            partial.write_text(json.dumps({**names, "sharded": dict(sharded), "about": about}))
        for old in path.parent.glob("resume-*"):
            if old != folder:
                shutil.rmtree(old)
    ranks.barrier()  # nobody begins the next checkpoint while old ones are being removed


def load(path: Path, ranks: ProcessGroup, zeros: Zeros = torch.zeros) -> tuple[dict[str, Tensor], dict]:
    """This process's part of a checkpoint that any number of processes wrote, and its description.

    Rows that are cut over processes are copied into tensors of ``zeros``.

    Raises:
        CheckpointError: it is damaged, or a file is missing.
    """
    manifest = _manifest(path)
    sharded, world, folder = manifest["sharded"], manifest["world"], path.parent / manifest["folder"]
    files = [folder / f"rank-{r}.safetensors" for r in range(world)]
    if missing := [f.name for f in files if not f.is_file()]:
        raise CheckpointError(f"{path} describes {world} processes, but {folder} lacks {', '.join(missing)}")
    tensors, filled = {}, dict.fromkeys(sharded, 0)
    for r, file in enumerate(files):
        try:
            with safe_open(file, framework="pt") as opened:
                names = list(opened.keys())
                if absent := sorted(set(sharded) - set(names)):
                    raise CheckpointError(f"{file} lacks {absent[0]}")
                for name in names:
                    if name not in sharded:
                        tensors[name] = opened.get_tensor(name)
                        continue
                    here, wanted = share(sharded[name], r, world), ranks.share(sharded[name])
                    part = opened.get_slice(name)
                    rows, *rest = part.get_shape()
                    if rows != length(here):
                        raise CheckpointError(f"{file}: {name} has {rows} rows where {length(here)} belong")
                    if name not in tensors:
                        tensors[name] = zeros(length(wanted), *rest, dtype=TYPES.get(part.get_dtype()))
                    first, last = max(here.start, wanted.start), min(here.stop, wanted.stop)
                    if first < last:
                        there = slice(first - wanted.start, last - wanted.start)
                        tensors[name][there] = part[first - here.start : last - here.start]
                        filled[name] += last - first
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged or no safetensors file: {error}") from None
    for name, rows in sharded.items():
        if filled[name] != length(ranks.share(rows)):
            raise CheckpointError(f"{path} does not hold the run that it describes: rows of {name} are missing")
    return tensors, manifest["about"]


def save_whole(
    path: Path, tensors: Mapping[str, Tensor], sharded: Mapping[str, int], about: Mapping, ranks: ProcessGroup
) -> None:
    """Write one file with all rows of all processes, as :func:`adi_lite.training.checkpoint.save` of one process does.

    Process 0 writes, and has one block of another process's rows in memory at a time. Arguments as of :func:`save`.
    """
    parts = {name: _of_all(t, sharded[name], ranks) if name in sharded else blocks_of(t) for name, t in tensors.items()}
    if ranks.rank == 0:
        checkpoint.save(path, parts, about)
    else:
        for name in in_order(parts):
            if name in sharded:
                for block in blocks_of(tensors[name]).blocks:
                    dist.send(block, 0)
    ranks.barrier()


def _of_all(own: Tensor, rows: int, ranks: ProcessGroup) -> Blocks:
    """On process 0, the blocks of each process in turn."""

    def blocks() -> Iterator[Tensor]:
        yield from blocks_of(own).blocks
        for rank in range(1, ranks.world):
            theirs = torch.empty(length(share(rows, rank, ranks.world)), *own.shape[1:], dtype=own.dtype, device="meta")
            for block in blocks_of(theirs).blocks:
                received = torch.empty_like(block, device=own.device)
                dist.recv(received, rank)
                yield received

    return Blocks(own.dtype, (rows, *own.shape[1:]), blocks())


def _manifest(path: Path) -> dict:
    try:
        manifest = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    wanted = {"format": int, "world": int, "folder": str, "sharded": dict, "about": dict}
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(k), t) for k, t in wanted.items()):
        raise CheckpointError(f"{path} is damaged: it must hold {', '.join(wanted)}")
    if manifest["format"] != checkpoint.FORMAT:
        raise CheckpointError(f"{path} has format {manifest['format']}, this version reads format {checkpoint.FORMAT}")
    if Path(manifest["folder"]).name != manifest["folder"]:
        raise CheckpointError(f"{path} is damaged: its folder {manifest['folder']!r} is not beside it")
    return manifest
