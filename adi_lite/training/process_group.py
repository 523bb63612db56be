"""The processes of a distributed run: start, places for a model's parts, and what they tell each other in a step.

Networks are replicated, and their gradients summed in one all-reduce. Embedding tables are cut by rows. Each batch is
drawn by every process alike, and each process embeds its part of the users and of the items; the items' vectors are
gathered, and their gradients summed and scattered back. So all that several processes compute is what one would, up to
the order of sums.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from adi_lite.data.batches import Bag, Inputs
from adi_lite.nn.embedding import Zeros
from adi_lite.nn.normalization import DomainBatchNorm
from adi_lite.nn.sharded_embedding import ShardedTable, sharded_table, share
from adi_lite.nn.synced_normalization import SyncedBatchNorm
from adi_lite.training.ranks import LaunchError, OneProcess, check_device

LAUNCH = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""

BEGUN = "adi_lite/begun"
"""Key of torchrun's store, which outlives the processes, that says that a run has begun."""

_groups = itertools.count()


@contextmanager
def process_group(device: str = "cpu", timeout: timedelta = timedelta(minutes=10)) -> Iterator[ProcessGroup]:
    """The processes that torchrun started; without torchrun, this one alone.

    Args:
        device: "cpu" (Gloo) or "cuda" (NCCL), one GPU for each process of a machine.
        timeout: how long a process waits for the others, at the start and in each exchange, before it ends with an error.

    A process that torchrun started ends when torchrun does. Else it would train on by itself, for torchrun starts each in
    a session of its own, which no signal to torchrun's group reaches, and write into a run that has been started again.

    Raises:
        LaunchError: a part of torchrun's settings is missing, or there are too few GPUs.
    """
    check_device(device)
    given = [name for name in LAUNCH if name in os.environ]
    # A batch system may set one or two of these for itself; two that only torchrun would set mean that it was meant.
    launched = {"RANK", "WORLD_SIZE"} & set(given)
    if launched and len(given) < len(LAUNCH):
        missing = ", ".join(n for n in LAUNCH if n not in given)
        raise LaunchError(
            f"{' and '.join(sorted(launched))} set, but not {missing}: start several processes with "
            "torchrun --nproc-per-node N -m adi_lite.train ..., or unset them to train in one process"
        )
    local = int(os.environ["LOCAL_RANK"]) if launched else 0
    if device == "cuda":
        check_device(device, local)
        torch.cuda.set_device(local)
    if launched:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    backend = "nccl" if device == "cuda" else "gloo"
    # torchrun's store is there before its processes are; if it is not, torchrun has died meanwhile.
    start = min(timeout, timedelta(minutes=2))
    kept, rank, world = next(dist.rendezvous("env://", timeout=start)) if launched else (dist.HashStore(), 0, 1)
    kept.set_timeout(timeout)
    # torchrun keeps one store over restarts, and a process keeps it from one group to the next, with the addresses that
    # were left before. Each group has a part of it to itself, or a process might wait for one that has gone.
    store = dist.PrefixStore(f"start-{restarts()}-group-{next(_groups)}-of-{world}", kept)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    try:
        yield ProcessGroup(kept, torch.device(device, local) if device == "cuda" else torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def restarts() -> int:
    """How often torchrun has started the processes again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)  # from this thread, whatever exchange the others wait in


class ProcessGroup(OneProcess):
    """This process among those of the default process group of torch.distributed."""

    def __init__(self, store: dist.Store, device: torch.device) -> None:
        self.store = store
        self.device, self.rank, self.world = device, dist.get_rank(), dist.get_world_size()

    def begin(self) -> None:
        """Note that these processes have found nothing to refuse, so that processes started in their place go on."""
        self.store.set(BEGUN, "")

    def goes_on(self) -> bool:
        """Whether these processes take the place of others of the same torchrun, one of which died after ``begin``.

        One that ended because its command was refused is started again as well, and must be refused again.
        """
        kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # else the store died with them
        return restarts() > 0 and (not kept or self.store.check([BEGUN]))

    def table(self, rows: int, width: int, std: float, sparse: bool, zeros: Zeros = torch.zeros) -> ShardedTable:
        """This process's rows: the same numbers as in one process, whatever the number of processes."""
        return sharded_table(rows, width, std, sparse, zeros)

    def place(self, model: nn.Module) -> None:
        """Let normalisation see the rows of all processes, and move all to the device."""
        for module in list(model.modules()):
            for name, child in module.named_children():
                if isinstance(child, DomainBatchNorm):
                    setattr(module, name, SyncedBatchNorm(child))
        model.to(self.device)

    def share(self, rows: int) -> slice:
        return share(rows, self.rank, self.world)

    def part(self, inputs: Inputs, own: slice) -> Inputs:
        domain = inputs.domain[own]
        counts = tuple(torch.bincount(domain, minlength=len(inputs.counts)).tolist())
        return Inputs(domain, counts, {name: _rows(column, own) for name, column in inputs.features.items()})

    def gather(self, vectors: Tensor, rows: int) -> Tensor:
        return _Gather.apply(vectors, rows)

    def gather_both(self, vectors: Tensor, bias: Tensor, rows: int) -> Sequence[Tensor]:
        """In one message."""
        return self.gather(torch.cat([vectors, bias], 1), rows).split([vectors.shape[1], 1], 1)

    def losses(self, of_domains: list[Tensor], users: Tensor, vectors: Tensor) -> Tensor:
        # The parts without rows keep both towers in the graph of a process that has no rows: in the backward pass, too,
        # all processes must take part in each exchange.
        return torch.cat([*of_domains, users[:0].sum(1), vectors[:0].sum(1)])

    def sum_gradients(self, model: nn.Module) -> None:
        """In one message. A parameter that no process used keeps no gradient, as in one process."""
        replicated = self.replicated(model)
        used = torch.tensor([float(p.grad is not None) for p in replicated], device=self.device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in replicated]
        flat = torch.cat([*(g.flatten() for g in grads), used])
        dist.all_reduce(flat)
        *sums, used = flat.split([*(p.numel() for p in replicated), len(replicated)])
        for p, total, by_any in zip(replicated, sums, used.tolist(), strict=True):
            p.grad = total.view_as(p) if by_any else None

    def total(self, value: float) -> float:
        return self.sum_of(torch.tensor(value, dtype=torch.float64)).item()

    def sum_of(self, values: Tensor) -> Tensor:
        values = values.to(self.device)
        dist.all_reduce(values)
        return values.cpu()

    def barrier(self) -> None:
        """Wait for the others. A sum, not torch's barrier, which for NCCL guesses the device."""
        self.total(0.0)

    @staticmethod
    def tables(model: nn.Module) -> dict[str, ShardedTable]:
        """The sharded tables by the names of their weights; a table with two names appears twice."""
        named = model.named_modules(remove_duplicate=False)
        return {f"{name}.weight": m for name, m in named if isinstance(m, ShardedTable)}

    def replicated(self, model: nn.Module) -> list[nn.Parameter]:
        sharded = {id(table.weight) for table in self.tables(model).values()}
        return [p for p in model.parameters() if id(p) not in sharded]


class _Gather(torch.autograd.Function):
    """Each process's share of rows to all rows, on every process; back, each share gets its gradients of all."""

    @staticmethod
    def forward(ctx, own: Tensor, rows: int) -> Tensor:  # noqa: ANN001
        world = dist.get_world_size()
        ctx.own, ctx.each = len(own), -(-rows // world)
        every = own.new_empty(ctx.each * world, own.shape[1])
        dist.all_gather_single(every, _padded(own, ctx.each))
        return every[:rows]  # only the last shares are padded

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        own = grad.new_empty(ctx.each, grad.shape[1])
        dist.reduce_scatter_single(own, _padded(grad, ctx.each * dist.get_world_size()))
        return own[: ctx.own], None


def _padded(rows: Tensor, to: int) -> Tensor:
    if len(rows) == to:
        return rows.contiguous()
    return torch.cat([rows, rows.new_zeros(to - len(rows), *rows.shape[1:])])


def _rows(column: Tensor | Bag, own: slice) -> Tensor | Bag:
    if isinstance(column, Tensor):
        return column[own]
    offsets = column.offsets[own.start : own.stop + 1]
    values = slice(int(offsets[0]), int(offsets[-1]))
    return Bag(column.codes[values], offsets - offsets[0], column.weights[values])
