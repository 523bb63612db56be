"""Embedding tables whose rows are spread over processes.

Why not a DTensor with Shard(0), which the rows are laid out as: of the lookups it knows ``embedding`` only, not bags and
not sparse gradients, and every process would look up the codes of all and all-reduce vectors that are mostly zeros. Here
each distinct row travels once, from its owner to the process that asked, and its gradient travels back.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from adi_lite.data.batches import Bag
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
        rows, codes = self._fetch(codes)
        return F.embedding(codes, rows)

    def bag(self, bag: Bag) -> Tensor:
        rows, codes = self._fetch(bag.codes)
        return F.embedding_bag(
            codes, rows, bag.offsets, mode="sum", per_sample_weights=bag.weights, include_last_offset=True
        )

    def _fetch(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """The distinct rows that ``codes`` name, and where each code's row is among them."""
        distinct, place = torch.unique(codes, return_inverse=True)
        if len(distinct) and not 0 <= int(distinct[0]) <= int(distinct[-1]) < self.num_embeddings:
            raise IndexError(
                f"codes from {int(distinct[0])} to {int(distinct[-1])} in a table of {self.num_embeddings} rows"
            )
        return _Fetch.apply(self.weight, distinct, self), place


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
    @staticmethod
    def forward(ctx, weight: Tensor, codes: Tensor, table: ShardedTable) -> Tensor:  # noqa: ANN001
        world = dist.get_world_size()
        asked = torch.bincount(codes // table.rows_each, minlength=world)
        wanted = torch.empty_like(asked)
        dist.all_to_all_single(wanted, asked)
        ctx.asked, ctx.wanted = asked.tolist(), wanted.tolist()
        rows = _exchange(codes, ctx.asked, ctx.wanted) - table.first
        ctx.save_for_backward(rows)
        ctx.shape, ctx.sparse = weight.shape, table.sparse
        return _exchange(weight[rows], ctx.wanted, ctx.asked)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN001
        (rows,) = ctx.saved_tensors
        back = _exchange(grad, ctx.asked, ctx.wanted)
        if ctx.sparse:
            return torch.sparse_coo_tensor(rows.unsqueeze(0), back, ctx.shape, check_invariants=False), None, None
        return back.new_zeros(ctx.shape).index_add_(0, rows, back), None, None


def _exchange(rows: Tensor, send: list[int], receive: list[int]) -> Tensor:
    """Send ``send[r]`` rows to each process r, in order, and receive ``receive[r]`` rows from it."""
    out = rows.new_empty(sum(receive), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), receive, send)
    return out
