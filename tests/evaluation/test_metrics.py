"""`evaluate` against plain lists built in Python, and its edges."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from evaluation_worlds import Fixed, random_world, records, world

from adi_lite.data.schema import Candidates, Interactions
from adi_lite.evaluation import metrics
from adi_lite.evaluation.metrics import Evaluation, Scorer, evaluate


def distinct_scores(data, seed=0):
    rng = np.random.default_rng(seed)
    table = rng.permutation(data.num_users * data.num_items).reshape(data.num_users, data.num_items)
    return Fixed(torch.from_numpy(table).float(), data)


def plain_evaluation(scorer, data, protocol, k, exclude_seen):
    """Recall@k, NDCG@k and MRR of each query by sorting Python lists."""
    taken = {}
    for split in (data.train, data.valid):
        for u, i, d in zip(*(c.tolist() for c in (split.user, split.item, split.domain)), strict=True):
            taken.setdefault((d, u), set()).add(i)
    right = {}
    for u, i, d in zip(*(c.tolist() for c in (data.test.user, data.test.item, data.test.domain)), strict=True):
        right.setdefault((d, u), set()).add(i)
    lists = data.candidates["test"]
    given = {(int(d), int(u)): row.tolist() for d, u, row in zip(lists.domain, lists.user, lists.items, strict=True)}
    rows = []
    for (d, u), positives in sorted(right.items()):
        items = given[d, u] if protocol == "candidates" else data.catalogues[d].tolist()
        if protocol == "corpus" and exclude_seen:
            items = [i for i in items if i not in taken.get((d, u), set()) - positives]
        order = sorted(items, key=lambda i: -float(scorer.table[u, i]))
        hits = [i in positives for i in order]
        best = sum(1 / np.log2(r + 2) for r in range(min(k, len(positives))))
        gain = sum(h / np.log2(r + 2) for r, h in enumerate(hits[:k]))
        rows.append((d, u, sum(hits[:k]) / len(positives), gain / best, 1 / (hits.index(True) + 1)))
    return np.array(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("protocol", "exclude_seen"), [("candidates", True), ("corpus", True), ("corpus", False)])
def test_equals_plain_lists(seed, protocol, exclude_seen):
    data = random_world(seed)
    scorer = distinct_scores(data, seed)
    got = evaluate(scorer, data, "test", protocol, ks=(3,), exclude_seen=exclude_seen)
    want = plain_evaluation(scorer, data, protocol, 3, exclude_seen)
    np.testing.assert_array_equal(np.stack([got.domain, got.user], 1), want[:, :2])
    values = np.stack([got.metrics["recall@3"], got.metrics["ndcg@3"], got.metrics["mrr"]], 1)
    np.testing.assert_allclose(values, want[:, 2:], rtol=1e-12)
    assert (got.num_positives > 1).any()  # the case that tells definitions apart is there


@pytest.mark.parametrize("protocol", ["candidates", "corpus"])
def test_does_not_depend_on_chunks_or_order_of_records(protocol):
    data = random_world(5)
    scorer = Fixed(torch.randint(0, 4, (data.num_users, data.num_items)).float(), data)
    whole = evaluate(scorer, data, protocol=protocol)
    order, lists = torch.randperm(len(data.test)), data.candidates["test"]
    mixed = torch.randperm(len(lists))
    other = data.replace(
        test=data.test.take(order),
        candidates={"test": Candidates(lists.user[mixed], lists.domain[mixed], lists.items[mixed].flip(1))},
    )
    for max_bytes in (1, 700, 10_000):
        pieces = evaluate(scorer, other, protocol=protocol, max_bytes=max_bytes)
        for name, values in whole.metrics.items():
            np.testing.assert_array_equal(values, pieces.metrics[name])


def test_a_scorer_may_prepare_many_users_at_once(monkeypatch):
    data = random_world(5)
    prepared = []

    class Preparing(Fixed):
        def prepare(self, users, domain):
            prepared.append(len(users))
            scores = super().scores(users, domain)
            return lambda part: scores[part]

        def scores(self, users, domain):
            pytest.fail("prepared, and not asked again")

    monkeypatch.setattr(metrics, "_USERS", 7)
    table = torch.rand(data.num_users, data.num_items)
    got = evaluate(Preparing(table, data), data, protocol="corpus", max_bytes=8 * 100)
    want = evaluate(Fixed(table, data), data, protocol="corpus")
    for name, values in want.metrics.items():
        np.testing.assert_array_equal(values, got.metrics[name])
    assert max(prepared) == 7 and sum(prepared) == len(want.user)


def test_memory_bound_holds():
    data = random_world(0)
    sizes = []

    class Watching(Fixed):
        def scores(self, users, domain):
            result = super().scores(users, domain)
            sizes.append(result.numel())
            return result

    evaluate(Watching(torch.rand(data.num_users, data.num_items), data), data, protocol="corpus", max_bytes=8 * 100)
    assert max(sizes) <= 100
    assert len(sizes) > 5


@pytest.mark.parametrize(("protocol", "size"), [("candidates", 8), ("corpus", 30)])
def test_constant_scorer_gets_chance(protocol, size):
    data = random_world(2).replace(catalogues=(torch.arange(30), torch.arange(30)))
    constant = Fixed(torch.zeros(data.num_users, data.num_items), data)
    result = evaluate(constant, data, protocol=protocol, ks=(1, 4), exclude_seen=False)
    for k in (1, 4):
        np.testing.assert_allclose(result.metrics[f"recall@{k}"], k / size, rtol=1e-12)


def test_items_outside_the_catalogue():
    lists = Candidates(torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([[0, 4, 1, 5], [3, 4, 2, 1]]))
    data = world(
        records((0, 0, 0)),
        records((0, 4, 0), (1, 1, 0)),
        num_users=2,
        num_items=6,
        catalogues=(torch.arange(4),),
        candidates={"test": lists},
    )
    scorer = Fixed(torch.full((2, 6), -torch.inf), data)  # the worst score there is still beats having none
    result = evaluate(scorer, data, ks=(2, 3))
    np.testing.assert_allclose(result.metrics["recall@2"], [0, 2 / 3])
    np.testing.assert_allclose(result.metrics["recall@3"], [0.5, 1])
    assert (result.outside, result.unreachable) == (3, 1)
    corpus = evaluate(scorer, data, protocol="corpus", ks=(4,))
    np.testing.assert_allclose(corpus.metrics["recall@4"], [0, 1])
    np.testing.assert_allclose(corpus.metrics["mrr"], [0, np.mean(1 / np.arange(1, 5))])
    assert (corpus.outside, corpus.unreachable, corpus.counted) == (0, 1, 2)


def test_seen_positive_can_be_found_and_other_domains_do_not_count_as_seen():
    data = world(
        records((0, 0, 0), (0, 1, 0), (0, 2, 1)),
        records((0, 0, 0), (0, 0, 1)),
        valid=records((0, 3, 0)),
        num_users=1,
        num_items=5,
        catalogues=(torch.arange(5), torch.arange(5)),
    )
    scorer = Fixed(torch.tensor([[1.0, 4, 3, 5, 2]]), data)
    ranks = 1 / evaluate(scorer, data, protocol="corpus").metrics["mrr"]
    np.testing.assert_allclose(ranks, [3, 4])  # domain 0: after 2 and 4 (1 and 3 are seen); domain 1: 2 is seen
    ranks = 1 / evaluate(scorer, data, protocol="corpus", exclude_seen=False).metrics["mrr"]
    np.testing.assert_allclose(ranks, [5, 5])


def test_exclusion_does_not_write_into_the_scorer():
    data = random_world(1)
    table = torch.rand(data.num_items)

    class Shared:
        def scores(self, users, domain):
            return table[data.catalogues[domain]].expand(len(users), -1)

    before = table.clone()
    evaluate(Shared(), data, protocol="corpus")
    torch.testing.assert_close(table, before, rtol=0, atol=0)


def test_repeated_records_count_once():
    data = random_world(3)
    twice = data.replace(test=Interactions.concat([data.test, data.test]))
    scorer = distinct_scores(data)
    for protocol in ("candidates", "corpus"):
        a, b = (evaluate(scorer, d, protocol=protocol) for d in (data, twice))
        np.testing.assert_array_equal(a.num_positives, b.num_positives)
        np.testing.assert_array_equal(a.metrics["ndcg@10"], b.metrics["ndcg@10"])


def test_means_counts_and_description():
    data = world(
        records((0, 1, 0), (1, 1, 0), (2, 1, 1), (2, 2, 0)),
        records((0, 0, 0), (1, 3, 0), (2, 0, 1)),
        num_users=3,
        num_items=4,
        catalogues=(torch.arange(4), torch.arange(4), torch.arange(4)),
    )
    result = evaluate(Fixed(torch.tensor([[4.0, 3, 2, 1]]).repeat(3, 1), data), data, protocol="corpus", ks=(1,))
    assert result.per_domain() == {
        "d0": {"recall@1": 0.5, "ndcg@1": 0.5, "mrr": (1 + 1 / 3) / 2},
        "d1": {"recall@1": 1.0, "ndcg@1": 1.0, "mrr": 1.0},
    }
    assert result.average()["recall@1"] == 0.75
    assert result.micro()["recall@1"] == pytest.approx(2 / 3)
    assert (result.counted, result.skipped) == (3, 1)  # user 2 in d0
    text = result.describe()
    assert "3 queries (d0 2, d1 1, d2 0)" in text
    assert "1 (user, domain) pairs without a positive skipped" in text
    assert "ties: expectation over random orders" in text
    assert "\n" not in text
    frame = result.to_frame()
    assert frame.columns.tolist() == ["domain", "user", "num_positives", "recall@1", "ndcg@1", "mrr"]
    assert frame["domain"].tolist() == ["d0", "d0", "d1"]


def test_saved_and_loaded(tmp_path):
    data = random_world(4)
    result = evaluate(distinct_scores(data), data, protocol="corpus", ks=(1, 5))
    path = tmp_path / "new" / "e.parquet"
    result.save(path)
    again = Evaluation.load(path)
    for f in dataclasses.fields(Evaluation):
        a, b = getattr(result, f.name), getattr(again, f.name)
        if f.name == "metrics":
            assert list(a) == list(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            np.testing.assert_array_equal(a, b)
    assert again.describe() == result.describe()
    assert [p.name for p in path.parent.iterdir()] == ["e.parquet"]
    result.to_frame().to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="does not hold an evaluation"):
        Evaluation.load(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(ValueError, match="not a parquet file"):
        Evaluation.load(tmp_path / "text.parquet")


class Broken(Fixed):
    def __init__(self, data, change):
        super().__init__(torch.zeros(data.num_users, data.num_items), data)
        self.change = change

    def scores(self, users, domain):
        return self.change(super().scores(users, domain))


def test_bad_scores_are_named():
    data = random_world(0)
    assert isinstance(distinct_scores(data), Scorer)
    table = torch.zeros(data.num_users, data.num_items)
    user = int(data.test.user[0])
    table[user] = torch.nan
    with pytest.raises(ValueError, match=f"NaN for user u{user} in domain"):
        evaluate(Fixed(table, data), data)
    infinite = torch.zeros(data.num_users, data.num_items)
    infinite[:, 12], infinite[:, 13] = torch.inf, -torch.inf
    assert evaluate(Fixed(infinite, data), data, protocol="corpus").counted > 0  # infinities are in order
    with pytest.raises(ValueError, match=r"expected floats of shape \(\d+, 22\)"):
        evaluate(Broken(data, lambda s: s[:, 1:]), data)
    with pytest.raises(ValueError, match="torch.int64, expected floats"):
        evaluate(Broken(data, lambda s: s.long()), data)


def test_bad_lists_and_splits_are_named():
    data = random_world(0)
    scorer, lists = distinct_scores(data), data.candidates["test"]

    def with_lists(user, domain, items):
        return data.replace(candidates={"test": Candidates(user, domain, items)})

    user, domain = int(lists.user[3]), data.domains[int(lists.domain[3])]
    with pytest.raises(ValueError, match=f"no candidate list for user u{user} in domain '{domain}'"):
        keep = torch.arange(len(lists)) != 3
        evaluate(scorer, with_lists(lists.user[keep], lists.domain[keep], lists.items[keep]))
    with pytest.raises(ValueError, match=f"more than one candidate list for user u{user} in"):
        twice = torch.tensor([*range(len(lists)), 3])
        evaluate(scorer, with_lists(lists.user[twice], lists.domain[twice], lists.items[twice]))
    items = lists.items.clone()
    items[3, 1] = items[3, 0]
    with pytest.raises(ValueError, match=f"an item occurs twice in the candidate list of user u{user} in"):
        evaluate(scorer, with_lists(lists.user, lists.domain, items))
    items = lists.items.clone()
    own = (data.test.user == user) & (data.test.domain == lists.domain[3])
    free = [i for i in range(data.num_items) if i not in items[3].tolist()]
    hit = int(torch.isin(items[3], data.test.item[own]).nonzero()[0, 0])
    lost, items[3, hit] = int(items[3, hit]), free[0]
    with pytest.raises(ValueError, match=f"the candidate list of user u{user} in domain '{domain}' lacks .* i{lost}$"):
        evaluate(scorer, with_lists(lists.user, lists.domain, items))
    with pytest.raises(ValueError, match="valid split; use protocol='corpus'"):
        evaluate(scorer, data, "valid")
    with pytest.raises(ValueError, match="test split of world is empty"):
        evaluate(scorer, data.replace(test=Interactions.empty()))
    with pytest.raises(ValueError, match="unknown protocol 'all'"):
        evaluate(scorer, data, protocol="all")
