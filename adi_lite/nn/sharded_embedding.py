"""Embedding tables whose rows are spread over processes.

Why not a DTensor with Shard(0), which the rows are laid out as: of the lookups it knows ``embedding`` only, not bags and
not sparse gradients, and every process would look up the codes of all and all-reduce vectors that are mostly zeros. Here
each distinct row travels once, from its owner to the process that asked, and its gradient travels back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from adi_lite.nn.embedding import Table, Zeros, draw_rows


class ShardedTable(Table):
    """This process's rows of a table, and lookups in all of it, in which all processes must take part.

    ``weight`` holds the rows ``first`` ... ``first + len(weight)`` of ``num_embeddings``; its gradient is that of the
    rows, summed over all processes.
    """

    def __init__(self, rows: int, own: Tensor, sparse: bool) -> None:
        """``own``: this process's rows, as :func:`own_rows` cuts them, of a table of ``rows`` rows."""
        super().__init__(*own.shape, _weight=own, _freeze=False, sparse=sparse)
        self.num_embeddings, self.rows_each = rows, -(-rows // dist.get_world_size())
        self.first = own_rows(rows).start

    def forward(self, codes: Tensor) -> Tensor:
        ((rows, place),) = self.fetch([(self, codes)])
        return F.embedding(place, rows)

    @staticmethod
    def fetch(lookups: Sequence[tuple[ShardedTable, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """For each (table, codes): the distinct rows that are asked of the table, by all lookups in it, and where each
        code's row is among them. All tables' rows travel together, so they must be of one width and type."""
        tables = list({id(table): table for table, _ in lookups}.values())
        asked, place = [], {}
        for table in tables:
            own = [n for n, (t, _) in enumerate(lookups) if t is table]
            codes = [lookups[n][1] for n in own]
            distinct, where = torch.unique(torch.cat(codes), return_inverse=True)
            if len(distinct) and not 0 <= int(distinct[0]) <= int(distinct[-1]) < table.num_embeddings:
                raise IndexError(
                    f"codes from {int(distinct[0])} to {int(distinct[-1])} in a table of {table.num_embeddings} rows"
                )
            asked.append(distinct)
            place |= dict(zip(own, where.split([len(c) for c in codes]), strict=True))
        rows = dict(zip(map(id, tables), _Fetch.apply(tables, asked, *(t.weight for t in tables)), strict=True))
        return [(rows[id(table)], place[n]) for n, (table, _) in enumerate(lookups)]


def sharded_table(rows: int, width: int, std: float, sparse: bool, zeros: Zeros = torch.zeros) -> ShardedTable:
    """This process's rows of what :func:`~adi_lite.nn.embedding.whole_table` makes; no process holds the whole."""
    own = own_rows(rows)
    weight = zeros(own.stop - own.start, width)
    draw_rows(weight, own, rows, std)
    return ShardedTable(rows, weight, sparse)


def own_rows(rows: int) -> slice:
    """This process's rows of a table."""
    return share(rows, dist.get_rank(), dist.get_world_size())


def share(rows: int, rank: int, world: int) -> slice:
    """Rows of process ``rank`` of ``world``: equal contiguous parts, the last ones shorter (as a DTensor's Shard(0))."""
    each = -(-rows // world)
    return slice(min(rank * each, rows), min((rank + 1) * each, rows))


class _Fetch(torch.autograd.Function):
    """Rows of several tables, each from its owner: one exchange of numbers, one of codes, one of rows, and back one of
    gradients. What travels is sorted by process first, then by table."""

    @staticmethod
    def forward(ctx, tables: list[ShardedTable], codes: list[Tensor], *weights: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN001
        world = dist.get_world_size()
        each = [torch.bincount(c // t.rows_each, minlength=world) for t, c in zip(tables, codes, strict=True)]
        asked = torch.stack(each, 1)  # (world, tables)
        wanted = torch.empty_like(asked)
        dist.all_to_all_single(wanted, asked)
        ctx.asked, ctx.wanted = asked.tolist(), wanted.tolist()
        local = _by_table(_exchange(_by_process(codes, ctx.asked), ctx.asked, ctx.wanted), ctx.wanted)
        local = [rows - t.first for t, rows in zip(tables, local, strict=True)]
        ctx.save_for_backward(*local)
        ctx.shapes, ctx.sparse = [w.shape for w in weights], [t.sparse for t in tables]
        found = _by_process([w[rows] for w, rows in zip(weights, local, strict=True)], ctx.wanted)
        return tuple(_by_table(_exchange(found, ctx.wanted, ctx.asked), ctx.asked))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN001
        back = _by_table(_exchange(_by_process(grads, ctx.asked), ctx.asked, ctx.wanted), ctx.wanted)
        parts = zip(ctx.saved_tensors, back, ctx.shapes, ctx.sparse, strict=True)
        return None, None, *(_gradient(*part) for part in parts)


def _gradient(rows: Tensor, of_rows: Tensor, shape: torch.Size, sparse: bool) -> Tensor:
    """That of a process's part of a table, from those of ``rows`` (n,), which may repeat."""
    if sparse:
        return torch.sparse_coo_tensor(rows.unsqueeze(0), of_rows, shape, check_invariants=False)
    return of_rows.new_zeros(shape).index_add_(0, rows, of_rows)


def _by_process(of_tables: Sequence[Tensor], sizes: list[list[int]]) -> Tensor:
    """From rows by table, each table's sorted by process, to rows by process; ``sizes`` (world, tables) of the parts."""
    parts = [rows.split([own[t] for own in sizes]) for t, rows in enumerate(of_tables)]
    return torch.cat([part for of_process in zip(*parts, strict=True) for part in of_process])


def _by_table(of_processes: Tensor, sizes: list[list[int]]) -> list[Tensor]:
    """The way back: rows by process to rows by table."""
    parts = iter(of_processes.split([size for own in sizes for size in own]))
    by_process = [[next(parts) for _ in own] for own in sizes]
    return [torch.cat(of_table) for of_table in zip(*by_process, strict=True)]


def _exchange(rows: Tensor, send: list[list[int]], receive: list[list[int]]) -> Tensor:
    """Send ``sum(send[r])`` rows to each process r, in order, and receive ``sum(receive[r])`` rows from it."""
    sent, received = [sum(s) for s in send], [sum(r) for r in receive]
    out = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), received, sent)
    return out
