"""Top-k retrieval by inner product: exact in plain torch, and through faiss (flat, IVF, HNSW).

Metrics are computed from exact scores only: what an approximate index misses is the index's fault, not the model's, and
is measured apart (:func:`topk_overlap`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import torch
from torch import Tensor

from adi_lite.atomic import replacing
from adi_lite.data.schema import Ragged

IndexKind = Literal["flat", "ivf", "hnsw"]

_FAISS_CHUNK = 4096
"""Queries searched at a time: bounds memory, and one long history lengthens one chunk's search only. No fewer, since a flat
index of faiss 1.15 needs three to five times as long for a query where it is asked for less than some 2,000 at a time."""


@torch.no_grad()
def exact_topk(
    queries: Tensor, items: Tensor, k: int, exclude: Ragged | None = None, chunk: int = 64
) -> tuple[Tensor, Tensor]:
    """The k items with the largest inner product with each query, best first.

    Chunks of 64 queries against the transposed, contiguous item matrix keep the scores of a chunk near the processor:
    memory is ``chunk * N`` scores, never queries x items. Excluded items are taken out before the cut at k, so a long
    history costs no result. To spare the transposition on repeated calls, pass ``stored.T`` of a contiguous (w, N)
    matrix.

    Args:
        queries: (n, w) float.
        items: (N, w) float.
        k: items a query.
        exclude: n rows of item numbers that must not be returned.
        chunk: queries at a time.

    Returns:
        scores: (n, k), -inf where a query has fewer than k items left.
        indices: (n, k) int64, -1 there. Equal scores come in no particular order.
    """
    _check(queries, items.shape[1], k, exclude)
    if exclude is not None and len(exclude.values) and int(exclude.values.max()) >= len(items):
        raise ValueError(f"exclude names item {int(exclude.values.max())}, but there are {len(items)} items")
    transposed = items.T.contiguous()
    width = min(k, len(items))
    scores = queries.new_full((len(queries), k), -torch.inf)
    indices = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    buffer = queries.new_empty(min(chunk, len(queries)), len(items))
    for start in range(0, len(queries), chunk):
        rows = torch.arange(start, min(start + chunk, len(queries)))
        part = torch.mm(queries[start : start + chunk], transposed, out=buffer[: len(rows)])
        if exclude is not None:
            out = exclude.take(rows)
            part[out.row_of_value().to(part.device), out.values.to(part.device)] = -torch.inf
        best, found = part.topk(width)
        scores[start : start + chunk, :width] = best
        indices[start : start + chunk, :width] = found.masked_fill(best == -torch.inf, -1)
    return scores, indices


def build_faiss(
    items: Tensor,
    kind: IndexKind = "flat",
    *,
    ids: Tensor | None = None,
    nlist: int | None = None,
    nprobe: int | None = None,
    m: int = 32,
    ef_construction: int = 200,
    ef_search: int = 128,
    seed: int = 0,
) -> faiss.Index:
    """A faiss index over item vectors, ordered by inner product.

    The metric is given to each constructor: one that is set on a finished HNSW index comes too late, and such an index
    finds nothing.

    Args:
        items: (N, w) float32 vectors.
        kind: "flat" (exact), "ivf" (inverted lists) or "hnsw" (graph).
        ids: (N,) distinct int64 numbers that searches return in place of 0…N-1.
        nlist, nprobe: IVF lists in all (by default 4 √N, but 39 items or more in each, as its k-means wants) and
            searched (by default an eighth of them).
        m, ef_construction, ef_search: HNSW links a node, and the breadth of building and of searching.
        seed: of the k-means of IVF.
    """
    vectors = _float32(items)
    count, width = vectors.shape
    if not count:
        raise ValueError("an index needs at least one item")
    if ids is not None and len(torch.unique(ids)) != count:
        raise ValueError(f"ids must be {count} distinct numbers, got {len(ids)} with {len(torch.unique(ids))} distinct")
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif kind == "ivf":
        lists = nlist or max(1, min(int(4 * count**0.5), count // 39))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = nprobe or max(1, lists // 8)
        index.cp.seed = seed
        index.train(vectors)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = ef_construction
        index.hnsw.efSearch = ef_search
    else:
        raise ValueError(f"unknown index kind {kind!r}; known are flat, ivf, hnsw")
    if ids is None:
        index.add(vectors)
        return index
    numbered = faiss.IndexIDMap2(index)
    numbered.add_with_ids(vectors, ids.cpu().numpy().astype(np.int64))
    return numbered


def faiss_topk(index: faiss.Index, queries: Tensor, k: int, exclude: Ragged | None = None) -> tuple[Tensor, Tensor]:
    """As :func:`exact_topk`, by a faiss index: it is asked for k and the longest history of a chunk more, and excluded
    ids are dropped before the cut at k.

    Args:
        index: from :func:`build_faiss`.
        queries: (n, w) float.
        k: items a query.
        exclude: n rows of ids that must not be returned.

    Returns:
        scores (n, k) float32, -inf where the index found fewer; indices (n, k) int64 ids, -1 there.
    """
    _check(queries, index.d, k, exclude)
    scores, indices = torch.full((len(queries), k), -torch.inf), torch.full((len(queries), k), -1)
    number = -(-len(queries) // _FAISS_CHUNK)
    for rows in torch.arange(len(queries)).chunk(number) if number else ():  # of one size
        out = None if exclude is None else exclude.take(rows)
        longest = 0 if out is None else int(out.lengths().max())
        found = index.search(_float32(queries[rows]), min(k + longest, max(index.ntotal, 1)))
        best, ids = torch.from_numpy(found[0]), torch.from_numpy(found[1])
        if out is not None:
            best = best.masked_fill(_listed(ids, out), -torch.inf)
            best, order = best.sort(dim=1, descending=True, stable=True)
            ids = ids.gather(1, order)
        width = min(k, ids.shape[1])
        missing = (ids == -1) | (best == -torch.inf)
        scores[rows, :width] = best.masked_fill(missing, -torch.inf)[:, :width]
        indices[rows, :width] = ids.masked_fill(missing, -1)[:, :width]
    return scores, indices


def save_faiss(index: faiss.Index, path: str | Path) -> None:
    """Write an index file, which appears whole or not at all."""
    with replacing(path) as partial:
        faiss.write_index(index, str(partial))


def load_faiss(path: str | Path) -> faiss.Index:
    """Read what :func:`save_faiss` wrote.

    Raises:
        ValueError: the file is missing, or is no index.
    """
    if not Path(path).is_file():
        raise ValueError(f"no index file at {path}")
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} is not a faiss index that can be read: {str(error).splitlines()[0]}") from None


def topk_overlap(found: Tensor, exact: Tensor) -> float:
    """Recall of an index against exact retrieval: the share of ``exact`` (n, k) that is in the same row of ``found``.

    Entries of -1 are no items: they are neither asked for nor counted as found.
    """
    wanted = exact >= 0
    has = _listed(exact, Ragged(found.reshape(-1), torch.arange(len(found) + 1) * found.shape[1]))
    if not bool(wanted.any()):
        raise ValueError(f"nothing to compare: the {len(exact)} exact lists are empty")
    return float((has & wanted).sum() / wanted.sum())


def _listed(ids: Tensor, lists: Ragged) -> Tensor:
    """(n, k) whether an id is in the list of its row."""
    known, codes = torch.unique(torch.cat([ids.reshape(-1), lists.values]), return_inverse=True)
    row = torch.arange(len(ids))[:, None] * len(known)
    listed = lists.row_of_value() * len(known) + codes[ids.numel() :]
    return torch.isin(row + codes[: ids.numel()].reshape(ids.shape), listed)


def _float32(vectors: Tensor) -> np.ndarray:
    return np.ascontiguousarray(vectors.detach().cpu().float().numpy())


def _check(queries: Tensor, width: int, k: int, exclude: Ragged | None) -> None:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if queries.ndim != 2 or queries.shape[1] != width:
        raise ValueError(f"queries of shape {tuple(queries.shape)} do not fit items of width {width}")
    if not bool(torch.isfinite(queries).all()):
        row = int((~torch.isfinite(queries)).any(1).nonzero()[0])
        raise ValueError(f"query {row} holds NaN or infinity")
    if exclude is not None and len(exclude) != len(queries):
        raise ValueError(f"exclude has {len(exclude)} rows for {len(queries)} queries")
