"""Exact retrieval against sorting, faiss against exact, exclusion, padding, large ids and saved indices."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from adi_lite.data.schema import Ragged
from adi_lite.evaluation.retrieval import build_faiss, exact_topk, faiss_topk, load_faiss, save_faiss, topk_overlap


def vectors(n: int, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def ragged(rows: list[list[int]]) -> Ragged:
    lengths = torch.tensor([len(r) for r in rows])
    values = torch.tensor([v for r in rows for v in r], dtype=torch.int64)
    return Ragged(values, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.long().cumsum(0)]))


def histories(n: int, items: int, longest: int, seed: int = 0) -> Ragged:
    rng = np.random.default_rng(seed)
    return ragged([rng.choice(items, rng.integers(0, longest), replace=False).tolist() for _ in range(n)])


def plain_topk(queries, items, k, exclude):
    result = []
    for q in range(len(queries)):
        score = (queries[q].double() @ items.double().T).numpy()
        out = set(exclude.row(q).tolist()) if exclude is not None else set()
        result.append([i for i in np.argsort(-score) if i not in out][:k])
    return torch.tensor(np.array(result))


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_exact_equals_sorting(excluded, chunk):
    queries, items = vectors(50), vectors(300, seed=1)
    exclude = histories(50, 300, 200) if excluded else None
    scores, indices = exact_topk(queries, items, 20, exclude, chunk)
    assert torch.equal(indices, plain_topk(queries, items, 20, exclude))
    torch.testing.assert_close(scores, (queries[:, None] * items[indices]).sum(-1))


@pytest.mark.parametrize("excluded", [False, True])
def test_flat_index_equals_exact(excluded):
    queries, items = vectors(1500), vectors(400, seed=1)
    exclude = histories(1500, 400, 60) if excluded else None
    exact, flat = exact_topk(queries, items, 30, exclude), faiss_topk(build_faiss(items), queries, 30, exclude)
    torch.testing.assert_close(flat[0], exact[0])
    assert topk_overlap(flat[1], exact[1]) > 0.9999  # two items whose scores differ in the last bit may swap


def test_a_history_longer_than_the_rest_leaves_what_there_is():
    queries, items = vectors(3), vectors(10, seed=1)
    exclude = ragged([list(range(8)), [], [*range(10), 3]])
    for scores, indices in (
        exact_topk(queries, items, 12, exclude),
        faiss_topk(build_faiss(items), queries, 12, exclude),
    ):
        assert (indices >= 0).sum(1).tolist() == [2, 10, 0]
        assert set(indices[0, :2].tolist()) == {8, 9}
        assert torch.equal(indices == -1, scores == -torch.inf)
        assert (indices[:, :-1] == -1).logical_not().logical_or(indices[:, 1:] == -1).all()  # padding comes last


def test_approximate_indices_are_near_the_exact_one():
    queries, items = vectors(200), vectors(4000, seed=1)
    exclude = histories(200, 4000, 30)
    exact = exact_topk(queries, items, 50, exclude)[1]
    recall = {
        kind: topk_overlap(faiss_topk(build_faiss(items, kind), queries, 50, exclude)[1], exact)
        for kind in ("ivf", "hnsw")
    }
    assert recall["hnsw"] > 0.95
    assert recall["ivf"] > 0.6
    wide = build_faiss(items, "ivf", nlist=20, nprobe=20)
    assert topk_overlap(faiss_topk(wide, queries, 50, exclude)[1], exact) > 0.9999


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_every_index_ranks_by_inner_product(kind):
    items = vectors(500, seed=1)
    items[7] *= 50  # far from every query, and the best answer to half of them
    index = build_faiss(items, kind, nprobe=100)
    assert index.metric_type == faiss.METRIC_INNER_PRODUCT
    queries = vectors(40)
    queries = queries * torch.sign(queries @ items[7])[:, None]
    assert (faiss_topk(index, queries, 1)[1] == 7).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_saved_index_finds_the_same(kind, tmp_path):
    queries, items = vectors(20), vectors(600, seed=1)
    index, path = build_faiss(items, kind), tmp_path / "new" / "items.faiss"
    save_faiss(index, path)
    before, after = faiss_topk(index, queries, 10), faiss_topk(load_faiss(path), queries, 10)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])
    assert [p.name for p in path.parent.iterdir()] == ["items.faiss"]


def test_ids_above_2_to_24_stay_exact(tmp_path):
    queries, items = vectors(30), vectors(200, seed=1)
    ids = (1 << 24) + 1 + 2 * torch.arange(200)  # odd numbers, none of which a float32 holds
    assert not torch.equal(ids.float().long(), ids)
    exclude = histories(30, 200, 50)
    exact = exact_topk(queries, items, 10, exclude)[1]
    save_faiss(build_faiss(items, ids=ids), tmp_path / "i")
    found = faiss_topk(load_faiss(tmp_path / "i"), queries, 10, Ragged(ids[exclude.values], exclude.offsets))[1]
    assert torch.equal(found, ids[exact])


def test_more_than_2_to_24_items_are_told_apart():
    items = torch.zeros((1 << 24) + 4, 1)
    items[(1 << 24) + 1], items[(1 << 24) + 3] = 2.0, 1.0
    indices = exact_topk(torch.ones(1, 1), items, 2)[1]
    assert indices.tolist() == [[(1 << 24) + 1, (1 << 24) + 3]]
    assert exact_topk(torch.ones(1, 1), items, 1, ragged([[(1 << 24) + 1]]))[1].tolist() == [[(1 << 24) + 3]]


def test_no_query_gives_no_row():
    items, none = vectors(10), ragged([])
    for scores, indices in (exact_topk(items[:0], items, 3, none), faiss_topk(build_faiss(items), items[:0], 3, none)):
        assert scores.shape == indices.shape == (0, 3)


def test_overlap_counts_by_row():
    found = torch.tensor([[1, 2, 3], [4, -1, -1]])
    assert topk_overlap(found, torch.tensor([[3, 9, 1], [1, 4, -1]])) == pytest.approx(3 / 5)


def test_errors_name_the_fault(tmp_path):
    queries, items = vectors(4), vectors(10, seed=1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        exact_topk(queries, items, 0)
    with pytest.raises(ValueError, match=r"shape \(4, 16\) do not fit items of width 5"):
        exact_topk(queries, items[:, :5], 2)
    with pytest.raises(ValueError, match="exclude has 3 rows for 4 queries"):
        exact_topk(queries, items, 2, ragged([[], [], []]))
    with pytest.raises(ValueError, match="item 10, but there are 10"):
        exact_topk(queries, items, 2, ragged([[], [10], [], []]))
    queries[2, 0] = torch.nan
    with pytest.raises(ValueError, match="query 2 holds NaN"):
        faiss_topk(build_faiss(items), queries, 2)
    with pytest.raises(ValueError, match="unknown index kind 'annoy'"):
        build_faiss(items, "annoy")
    with pytest.raises(ValueError, match="10 distinct numbers, got 10 with 1 distinct"):
        build_faiss(items, ids=torch.zeros(10, dtype=torch.int64))
    with pytest.raises(ValueError, match="no index file"):
        load_faiss(tmp_path / "absent")
    (tmp_path / "text").write_text("no index at all")
    with pytest.raises(ValueError, match="not a faiss index"):
        load_faiss(tmp_path / "text")
