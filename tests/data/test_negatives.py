"""Proposal distributions: what a sampler says about its counts is what it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from adi_lite.data import negatives
from adi_lite.data.negatives import NegativeSampler, popularity
from adi_lite.data.schema import Interactions

KINDS = ("uniform", "popularity", "log_uniform")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("domain", [0, 2])
def test_expected_counts_are_the_counts_drawn(make_tiny, kind, domain):
    data = make_tiny(records=200)
    sampler = NegativeSampler(data, kind, num_negatives=40_000, alpha=0.75)
    drawn = sampler.sample(domain, generator(domain))
    assert len(drawn) == 40_000
    expected = sampler.log_expected(domain, torch.arange(data.num_items)).double().exp().numpy()
    observed = torch.bincount(drawn, minlength=data.num_items).numpy()
    outside = np.setdiff1d(np.arange(data.num_items), data.catalogues[domain].numpy())
    assert len(outside) and (observed[outside] == 0).all() and (expected[outside] == 0).all()
    inside = data.catalogues[domain].numpy()
    assert expected.sum() == pytest.approx(40_000, rel=1e-5)
    assert stats.chisquare(observed[inside], expected[inside] / expected.sum() * 40_000).pvalue > 1e-4


def test_proposals_against_their_formulas(make_tiny):
    data = make_tiny(records=200)
    catalogue = data.catalogues[1].tolist()
    counts = [int(((data.train.domain == 1) & (data.train.item == v)).sum()) for v in catalogue]
    assert popularity(data)[1, catalogue].tolist() == counts
    n = len(catalogue)
    by_rank = sorted(range(n), key=lambda i: -counts[i])
    weight = [(c + 1) ** 0.6 for c in counts]
    want = {
        "uniform": [1 / n] * n,
        "popularity": [w / sum(weight) for w in weight],
        "log_uniform": [math.log((r + 2) / (r + 1)) / math.log(n + 1) for r in (by_rank.index(i) for i in range(n))],
    }
    for kind, q in want.items():
        sampler = NegativeSampler(data, kind, num_negatives=7, alpha=0.6)
        got = sampler.log_expected(1, torch.tensor(catalogue)).exp()
        np.testing.assert_allclose(got, 7 * np.array(q), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tail_of_a_large_catalogue_is_reached(make_tiny, kind):
    """With 400 000 items the last ones have a cumulative probability that float32 cannot tell from 1."""
    tiny = make_tiny()
    n = 400_000
    ids = torch.arange(n) + 1
    # Popularity is counted in training records: give the first rows nearly all of it.
    train = Interactions(
        torch.zeros(5000, dtype=torch.int64), torch.arange(5000) % 50, torch.zeros(5000, dtype=torch.int64)
    )
    schema = type(tiny.schema)(("a",), tiny.schema.user, (type(tiny.schema.item[0])("item_id", "categorical", n + 1),))
    data = tiny.replace(
        schema=schema,
        item_ids=np.arange(n),
        items={"item_id": ids},
        train=train,
        valid=train,
        catalogues=(torch.arange(n),),
        history=None,
    )
    sampler = NegativeSampler(data, kind, num_negatives=400_000)
    drawn = sampler.sample(0, generator())
    tail = int((drawn >= n - 1000).sum())
    expected = float(sampler.log_expected(0, torch.arange(n - 1000, n)).double().exp().sum())
    assert abs(tail - expected) < 5 * math.sqrt(expected)
    # Many of the last thousand rows occur: no plateau of the cumulative sum swallows its neighbours.
    last = drawn[drawn >= n - 1000]
    assert len(last.unique()) > 0.5 * min(1000, expected)


def test_a_tail_beside_one_enormous_head_is_reached(make_tiny, monkeypatch):
    """100 000 items share a ten-thousandth: each is far below what float32 can tell from 1."""
    n = 100_001
    counts = torch.zeros(n, dtype=torch.float64)
    counts[0] = 1e12
    monkeypatch.setattr(negatives, "popularity", lambda data: counts.expand(data.num_domains, n))
    tiny = make_tiny()
    item = (type(tiny.schema.item[0])("item_id", "categorical", n + 1),)
    data = tiny.replace(
        schema=type(tiny.schema)(tiny.domains, tiny.schema.user, item),
        item_ids=np.arange(n),
        items={"item_id": torch.arange(n) + 1},
        catalogues=(torch.arange(n),) * 3,
    )
    sampler = NegativeSampler(data, "popularity", num_negatives=50_000, alpha=0.75)
    # The numbers that a generator would give for each second item of the tail: the middle of the item's interval.
    wanted = torch.arange(1, n, 2)
    q = sampler.probability(0, torch.arange(n)).numpy()
    middle = (np.cumsum(q) - q / 2)[wanted]
    monkeypatch.setattr(torch, "rand", lambda *size, dtype=None, generator=None: torch.from_numpy(middle).to(dtype))
    assert torch.equal(sampler.sample(0, generator()), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_follow_the_generator_and_stay_in_the_catalogue(make_tiny, kind):
    data = make_tiny()
    sampler = NegativeSampler(data, kind, num_negatives=64)
    for d in range(3):
        first, again, other = (sampler.sample(d, generator(s)) for s in (0, 0, 1))
        assert torch.equal(first, again) and not torch.equal(first, other)
        assert torch.isin(first, data.catalogues[d]).all()


def test_a_catalogue_of_one_item(make_tiny):
    data = make_tiny()
    train = data.train.take(data.train.domain != 0)
    data = data.replace(train=train, valid=train, catalogues=(torch.tensor([5]), *data.catalogues[1:]))
    for kind in KINDS:
        sampler = NegativeSampler(data, kind, num_negatives=3)
        assert sampler.sample(0, generator()).tolist() == [5, 5, 5]
        assert sampler.log_expected(0, torch.tensor([5])).item() == pytest.approx(math.log(3))
        assert sampler.log_expected(0, torch.tensor([4, 6])).tolist() == [-math.inf] * 2


def test_nonsense_is_refused(make_tiny):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        NegativeSampler(make_tiny(), num_negatives=0)
    with pytest.raises(ValueError, match="unknown sampler 'zipf'; choose uniform, popularity or log_uniform"):
        NegativeSampler(make_tiny(), "zipf", num_negatives=1)
