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
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch import distributed as dist

from adi_lite import __version__
from adi_lite.atomic import replacing
from adi_lite.training import checkpoint
from adi_lite.training.checkpoint import CheckpointError
from adi_lite.training.process_group import ProcessGroup
from adi_lite.training.ranks import length, share


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


def load(path: Path, ranks: ProcessGroup) -> tuple[dict[str, Tensor], dict]:
    """This process's part of a checkpoint that any number of processes wrote, and its description.

    Raises:
        CheckpointError: it is damaged, or a file is missing.
    """
    manifest = _manifest(path)
    sharded, world, folder = manifest["sharded"], manifest["world"], path.parent / manifest["folder"]
    files = [folder / f"rank-{r}.safetensors" for r in range(world)]
    if missing := [f.name for f in files if not f.is_file()]:
        raise CheckpointError(f"{path} describes {world} processes, but {folder} lacks {', '.join(missing)}")
    tensors, parts = {}, {name: [] for name in sharded}
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
                    first, last = max(here.start, wanted.start), min(here.stop, wanted.stop)
                    if first < last or r == 0:  # of process 0 perhaps no row, but the shape
                        last = max(first, last)
                        parts[name].append(_rows(opened.get_slice(name), first, last, here))
        except SafetensorError as error:
            raise CheckpointError(f"{file} is damaged or no safetensors file: {error}") from None
    tensors |= {name: torch.cat(p) for name, p in parts.items()}
    for name, rows in sharded.items():
        if len(tensors[name]) != length(ranks.share(rows)):
            raise CheckpointError(f"{path} does not hold the run that it describes: rows of {name} are missing")
    return tensors, manifest["about"]


def whole(tensor: Tensor, rows: int, ranks: ProcessGroup) -> Tensor | None:
    """On process 0 all rows of a tensor that is cut by rows, on the CPU; None elsewhere. All must take part."""
    each = -(-rows // ranks.world)
    padded = torch.cat([tensor, tensor.new_zeros(each - len(tensor), *tensor.shape[1:])])
    parts = [torch.empty_like(padded) for _ in range(ranks.world)] if ranks.rank == 0 else None
    dist.gather(padded, parts)
    return torch.cat([p.cpu() for p in parts])[:rows] if parts is not None else None


def _rows(tensor, first: int, last: int, here: slice) -> Tensor:  # noqa: ANN001 - safetensors names no type for a slice
    if tensor.get_shape()[0] != length(here):
        raise CheckpointError(f"a tensor has {tensor.get_shape()[0]} rows where {length(here)} belong")
    if first == last:
        return tensor[0:0]
    return tensor[first - here.start : last - here.start]


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
