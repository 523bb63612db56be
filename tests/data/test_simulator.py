"""The simulator: Tables 4 and 5, the features of Table 1, no leakage, and a truth that is the sampling distribution."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from adi_lite.data.batches import InputBuilder
from adi_lite.data.describe import gini, table4, table5
from adi_lite.data.paper import paper_table
from adi_lite.data.registry import load_dataset
from adi_lite.data.schema import Interactions, MultiDomainDataset, Ragged
from adi_lite.data.simulation.overlap import (
    ITEMS_TABLE5,
    USERS_TABLE5,
    all_sets,
    fit_patterns,
    independent_patterns,
)
from adi_lite.data.simulation.sampling import CategorySampler, Gains
from adi_lite.data.simulation.terms import HISTORY_SHRINKAGE, TERMS
from adi_lite.data.simulation.world import build_world, draw_users, num_blocks
from adi_lite.data.simulator import (
    Overlap,
    SimulatorConfig,
    Truth,
    load_simulator,
    simulate,
    simulate_to_parquet,
    simulate_with_truth,
)
from adi_lite.evaluation.metrics import evaluate

SMOKE = SimulatorConfig.preset("smoke")
BLOCKS = SimulatorConfig.preset("smoke", scale=0.3, block_records=2_000)  # drawn in several blocks
TINY = SimulatorConfig(num_users=30, num_items=40, num_records=60_000, num_categories=5, interest_dim=2)


@pytest.fixture(scope="module")
def smoke() -> tuple[MultiDomainDataset, Truth]:
    return simulate_with_truth(SMOKE, seed=0)


@pytest.fixture(scope="module")
def tiny() -> tuple[MultiDomainDataset, Truth]:
    return simulate_with_truth(TINY, seed=1)


def columns_equal(a: dict, b: dict) -> bool:
    def same(x, y) -> bool:
        if isinstance(x, Ragged):
            return torch.equal(x.values, y.values) and torch.equal(x.offsets, y.offsets)
        return torch.equal(x, y)

    return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)


def interactions_equal(a: Interactions, b: Interactions) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


# Tables 4 and 5


@pytest.mark.parametrize("quantity, overlap", [("users", USERS_TABLE5), ("items", ITEMS_TABLE5)])
def test_constants_are_the_paper_s(quantity, overlap):
    four, five = paper_table(4), paper_table(5)
    five = five[(five["dataset"] == "Alibaba Production") & (five["quantity"] == quantity)]
    for row in five.itertuples():
        assert overlap.shared[int(row.domain[1]) - 1][int(row.other_domain[1]) - 1] == row.value
    four = four[(four["dataset"] == "Alibaba Production") & (four["quantity"] == quantity)]
    assert overlap.total == four["value"].item()


def test_record_shares_are_table_4_s():
    four = paper_table(4)
    records = four[(four["dataset"] == "Alibaba Production") & (four["quantity"] == "records")].sort_values("domain")
    np.testing.assert_allclose(SMOKE.shares(), records["value"] / records["value"].sum())


def test_items_triple_by_inclusion_and_exclusion():
    """For three domains, singles, pairs and union determine the rest."""
    s, total = np.array(ITEMS_TABLE5.shared), ITEMS_TABLE5.total
    triple = total - np.trace(s) + s[0, 1] + s[0, 2] + s[1, 2]
    found = fit_patterns(ITEMS_TABLE5)
    assert found.probability[found.members.all(1)] == pytest.approx(triple / total, rel=1e-6)
    only_first = s[0, 0] - s[0, 1] - s[0, 2] + triple
    assert found.probability[(found.members == [True, False, False]).all(1)] == pytest.approx(only_first / total)
    np.testing.assert_allclose(found.shared() * total, s, rtol=1e-6)


def test_users_of_table_5_contradict_table_4():
    """The union of Table 4 would need a triple above a pair; singles and pairs are kept, the union comes nearest."""
    s = np.array(USERS_TABLE5.shared)
    rest = np.trace(s) - s[0, 1] - s[0, 2] - s[1, 2]
    assert USERS_TABLE5.total - rest > s[1, 2]  # no such population
    found = fit_patterns(USERS_TABLE5)
    union = s[0, 0] / found.shared()[0, 0]
    np.testing.assert_allclose(found.shared() * union, s, rtol=1e-4)
    assert union == pytest.approx(rest + s[1, 2], rel=1e-4)  # the largest union that singles and pairs allow


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 3), st.data())
def test_patterns_are_recovered(num_domains, data):
    members = all_sets(num_domains)
    p = np.array(data.draw(st.lists(st.floats(0.02, 1), min_size=len(members), max_size=len(members))))
    p /= p.sum()
    shared = sum(q * np.outer(m, m) for q, m in zip(p, members, strict=True))
    shared = (shared + shared.T) / 2
    found = fit_patterns(Overlap(tuple(map(tuple, shared.tolist())), total=1.0))
    np.testing.assert_allclose(found.probability, p, atol=1e-6)


def test_independent_patterns_given_one():
    found = independent_patterns(np.array([0.5, 0.2]))
    by_set = {tuple(m): p for m, p in zip(found.members.tolist(), found.probability, strict=True)}
    assert by_set == pytest.approx({(True, False): 0.4 / 0.6, (False, True): 0.1 / 0.6, (True, True): 0.1 / 0.6})


@pytest.mark.parametrize("scale", [0.05, 0.2, 0.6])
def test_shares_and_overlaps_at_scale(scale):
    """Tables 4 and 5 within binomial noise (5 standard deviations) at every scale."""
    config = SimulatorConfig.preset("quick", scale=scale)
    data = simulate(config, seed=3)
    for patterns, size, member in (
        (config.user_patterns(), config.users, observed_members(data)),
        (config.item_patterns(), config.items, catalogue_members(data)),
    ):
        wanted = patterns.shared()
        found = member.T.astype(float) @ member
        noise = np.sqrt(size * wanted * (1 - wanted))
        assert (np.abs(found - size * wanted) <= 5 * noise + 1).all(), (found, size * wanted)
    five = table5(data)
    here = {(r.domain, r.other_domain): r.users for r in five.itertuples()}
    member = observed_members(data)
    assert here["D2", "D3"] == (member[:, 1] & member[:, 2]).sum()
    assert data.num_users == table4(data)["users"].item() == round(30_000 * scale)
    mean, active = config.records_per_user(), np.diag(config.user_patterns().shared())
    variance = config.users * (active * (mean - 1 + (mean - 1) ** 2 / 2 + mean**2) - active**2 * mean**2)
    records = np.array([table4(data)[f"records {d}"].item() for d in data.domains])
    assert (np.abs(records - config.shares() * config.records) <= 5 * np.sqrt(variance)).all()
    tested = torch.bincount(data.test.domain, minlength=3).numpy()
    wanted = config.test_ratio * config.shares() * config.records
    assert (np.abs(tested - wanted) <= 5 * np.sqrt(wanted + config.test_ratio**2 * variance)).all()


def observed_members(data: MultiDomainDataset) -> np.ndarray:
    """(users, D) who has records of the training day in which domain."""
    member = np.zeros((data.num_users, data.num_domains), dtype=bool)
    for part in (data.train, data.valid):
        member[part.user.numpy(), part.domain.numpy()] = True
    return member


def catalogue_members(data: MultiDomainDataset) -> np.ndarray:
    member = np.zeros((data.num_items, data.num_domains), dtype=bool)
    for d, rows in enumerate(data.catalogues):
        member[rows.numpy(), d] = True
    return member


# The data set


@pytest.mark.parametrize("num_domains", [1, 2, 5])
@pytest.mark.parametrize("domain_features", ["own", "all"])
def test_any_number_of_domains(num_domains, domain_features):
    config = SimulatorConfig.preset("smoke", scale=0.3, num_domains=num_domains, domain_features=domain_features)
    data, truth = simulate_with_truth(config, seed=0)
    assert data.num_domains == num_domains == len(data.catalogues)
    assert set(data.train.domain.tolist()) == set(range(num_domains))
    for d in range(num_domains):
        here = data.train.domain == d
        assert torch.isin(data.train.item[here], data.catalogues[d]).all()
        assert truth.scores(torch.arange(3), d).shape == (3, len(data.catalogues[d]))
        inputs = InputBuilder(data)
        assert set(inputs.catalogue(d).features) == {f.name for f in data.schema.item}
        assert set(inputs.users_in(torch.arange(5), d).features) == {f.name for f in data.schema.user} | {"history"}
    for side in ("user", "item"):
        importance = truth.importance(side)
        names = [f.name for f in getattr(data.schema, side)] + ["history"] * (side == "user")
        assert list(importance.index) == names
        np.testing.assert_allclose(importance.sum(), 1)
        foreign = [n for n in names for d in data.domains if n.endswith(f"_{d}") and d != data.domains[0]]
        assert (importance.loc[foreign, "D1"] == 0).all()
    assert len(data.schema.item) == 8 + 5 * (1 if domain_features == "own" else num_domains)


def test_days_and_splits(smoke):
    data, _ = smoke
    start = 2 * 86_400 - 0.05 * 86_400
    assert data.train.timestamp.min() >= 86_400 and data.train.timestamp.max() < start
    assert data.valid.timestamp.min() >= start and data.valid.timestamp.max() < 2 * 86_400
    assert data.test.timestamp.min() >= 2 * 86_400 and data.test.timestamp.max() < 3 * 86_400
    assert all((data.split(s).timestamp.diff() >= 0).all() for s in ("train", "valid", "test"))
    assert len(data.valid) == pytest.approx(0.05 * (len(data.train) + len(data.valid)), rel=0.2)


def test_groups_are_the_headings_of_table_1(smoke):
    data, _ = smoke
    headings = set(paper_table(1)["feature_type"]) - {"Domain Indicator Feature"}  # models add the indicator
    assert {f.group for f in (*data.schema.user, *data.schema.item)} == headings


def test_popularity_is_long_tailed(smoke):
    data, _ = smoke
    for d, rows in enumerate(data.catalogues):
        counts = torch.bincount(data.train.item[data.train.domain == d], minlength=data.num_items)[rows].sort().values
        assert gini(counts.numpy()) > 0.45
        assert counts[-len(rows) // 10 :].sum() > 0.3 * counts.sum()


def test_the_same_seed_gives_the_same_data():
    first, second, other = (simulate(BLOCKS, seed=s) for s in (5, 5, 6))
    assert num_blocks(BLOCKS) > 2
    for split in ("train", "valid", "test"):
        assert interactions_equal(first.split(split), second.split(split))
        assert not interactions_equal(first.split(split), other.split(split))
    assert columns_equal(first.users, second.users) and columns_equal(first.items, second.items)
    assert not columns_equal(first.users, other.users)


# No leakage


def test_new_records_change_no_feature():
    """Other labels on both days: features, history and truth stay."""
    (first, truth), (second, again) = (simulate_with_truth(BLOCKS, seed=2, replicate=r) for r in (0, 1))
    assert not interactions_equal(first.train, second.train) and not interactions_equal(first.test, second.test)
    assert columns_equal(first.users, second.users) and columns_equal(first.items, second.items)
    assert columns_equal({"history": first.history}, {"history": second.history})
    torch.testing.assert_close(truth.scores(torch.arange(9), 1), again.scores(torch.arange(9), 1))


def test_another_test_day_changes_nothing_before_it():
    first = simulate(BLOCKS, seed=2)
    second = simulate(SimulatorConfig.preset("smoke", scale=0.3, block_records=2_000, test_ratio=0.5), seed=2)
    assert len(second.test) > 3 * len(first.test)
    assert interactions_equal(first.train, second.train) and interactions_equal(first.valid, second.valid)
    assert columns_equal(first.users, second.users) and columns_equal(first.items, second.items)


def test_features_are_the_counts_of_day_0():
    """Bags, history and statistics against plain loops over the log of day 0."""
    data, world = simulate(BLOCKS, seed=4), build_world(BLOCKS, 4)
    clicked, paid = (np.zeros((data.num_items, 3)) for _ in range(2))
    for index in range(num_blocks(BLOCKS)):
        block = draw_users(world, index)
        for d, v, pay in zip(block.domain, block.item, block.pay, strict=True):
            clicked[v, d] += 1
            paid[v, d] += pay
        for u in (0, len(block) - 1):
            mine, row = block.user == u, block.start + u
            code = data.items["category"][torch.from_numpy(block.item[mine].astype(int))].tolist()
            assert data.history.row(row).tolist() == block.item[mine].tolist()
            assert data.users["click_categories"].row(row).tolist() == code
            assert data.users["pay_categories"].row(row).tolist() == [
                c for c, p in zip(code, block.pay[mine], strict=True) if p
            ]
            for d in range(3):
                assert data.users["domain_clicks"].row(row * 3 + d).tolist() == [
                    c for c, where in zip(code, block.domain[mine], strict=True) if where == d
                ]
    member = catalogue_members(data)
    for name, counts in (("click", clicked), ("paynum", paid), ("cost", 0.8 * clicked * world.bids)):
        value = np.log1p(counts)
        wanted = (value - value[member].mean()) / value[member].std()
        found = data.items[name].squeeze(-1).numpy()
        np.testing.assert_allclose(found[member], wanted[member], atol=1e-5)
        assert (found[~member] == 0).all()


def test_domains_differ_in_their_distributions(smoke):
    """The statistics keep a level of their own in each domain, as DSBN supposes."""
    data, _ = smoke
    member = catalogue_members(data)
    clicks = data.items["click"].squeeze(-1).numpy()
    means = [clicks[member[:, d], d].mean() for d in range(3)]
    assert max(means) - min(means) > 0.5


# The truth


def test_sampler_draws_the_softmax():
    """Chi-square of the two-stage draws against a dense softmax, items that gain included."""
    rng = np.random.default_rng(0)
    category, catalogue = rng.integers(4, size=30), np.sort(rng.choice(30, 18, replace=False))
    log_weight, personal = rng.normal(size=(2, 18)), rng.normal(size=(3, 4))
    kind = np.array([1, 0, 1])
    gains = Gains(np.array([0, 2, 2]), catalogue[[3, 0, 17]], np.array([1.5, 0.7, 2.0]))
    utility = log_weight[kind] + personal[:, category[catalogue]]
    np.add.at(utility, (gains.row, np.searchsorted(catalogue, gains.item)), gains.value)
    counts = np.array([40_000, 30_000, 50_000])
    items = CategorySampler(catalogue, category, 4, log_weight).draw(rng, kind, personal, counts, gains)
    for row, drawn in enumerate(np.split(items, np.cumsum(counts)[:-1])):
        seen = np.bincount(np.searchsorted(catalogue, drawn), minlength=18)
        assert stats.chisquare(seen, special.softmax(utility[row]) * counts[row]).pvalue > 1e-3


def test_frequencies_match_the_oracle(tiny):
    """Records of a small world against the probabilities that the truth gives, user by user."""
    data, truth = tiny
    pvalues = []
    for d, rows in enumerate(data.catalogues):
        here = data.train.domain == d
        for u in data.train.user[here].unique()[:20].tolist():
            mine = data.train.item[here & (data.train.user == u)].numpy()
            wanted = truth.scores(torch.tensor([u]), d)[0].double().exp().numpy() * len(mine)
            seen = np.bincount(np.searchsorted(rows.numpy(), mine), minlength=len(rows))
            rare = wanted < 5
            if len(mine) > 200:
                pooled = [np.append(x[~rare], x[rare].sum()) for x in (seen, wanted)]
                pooled = pooled if pooled[1][-1] > 0 else [x[:-1] for x in pooled]
                pvalues.append(stats.chisquare(*pooled, sum_check=False).pvalue)
    assert len(pvalues) >= 20
    assert stats.kstest(pvalues, "uniform").pvalue > 1e-3 and min(pvalues) > 1e-4 / len(pvalues)


def test_scores_by_a_plain_loop(tiny):
    """The utility from the data set's own columns, term by term as the book writes it."""
    data, truth = tiny
    d, rows = 1, data.catalogues[1].tolist()
    topic, world = truth.world.topics, truth.world
    category = (data.items["category"] - 1).tolist()
    active = [u for u in range(data.num_users) if truth.active[u, d]]

    def mean_topic(codes: list[int]) -> np.ndarray:
        return np.mean([topic[c - 1] for c in codes], axis=0) if codes else np.zeros(topic.shape[1])

    def match(term, u: int, v: int) -> float:
        if term.name in world.tables:
            level = int(data.users[term.user][u]) - 1
            return world.tables[term.name][level, int(data.items[term.item][v]) - 1]
        if term.user == "history":
            past = data.history.row(u).tolist()
            return past.count(v) / (len(past) + HISTORY_SHRINKAGE)
        if term.user:
            bag = data.users[term.user].row(u * 3 + d if term.user == "domain_clicks" else u).tolist()
            return float(mean_topic(bag) @ topic[category[v]])
        if term.name == "popularity":
            return world.popularity[v, d]
        return float(data.items[term.item][v, d, 0])

    total = np.zeros((data.num_users, len(rows)))
    for term in TERMS:
        table = np.array([[match(term, u, v) for v in rows] for u in range(data.num_users)])
        spread = math.sqrt(np.mean([table[u].var() for u in active]))
        if term.user != "history":
            table = table / spread if spread > 1e-9 else 0 * table
        total += truth.weights.loc[term.name, "D2"] * table
    wanted = special.log_softmax(total, axis=1)
    np.testing.assert_allclose(truth.scores(torch.arange(data.num_users), d).numpy(), wanted, atol=2e-3)


def test_nothing_beats_the_oracle(smoke):
    data, truth = smoke
    generator = torch.Generator().manual_seed(0)
    for d in range(3):
        expected, realised = truth.best_recall(data.test, 50, d)
        here = data.test.domain == d
        users, items = data.test.user[here], data.test.item[here]
        assert abs(expected - realised) < 4 * math.sqrt(expected * (1 - expected) / len(users))
        score = truth.scores(users, d)
        place = torch.from_numpy(np.searchsorted(data.catalogues[d].numpy(), items.numpy()))
        for noise in (0.3, 1.0, 3.0):
            other = score + noise * torch.randn(score.shape, generator=generator)
            top = other.topk(50).indices
            assert score.exp().gather(1, top).sum(1).mean() < expected
            if noise >= 1:
                assert (top == place[:, None]).any(1).float().mean() < realised


def test_the_oracle_is_a_scorer(smoke):
    """Whole-corpus evaluation of the library: the truth is ahead of the truth with noise, in every domain."""
    data, truth = smoke

    class Blurred:
        def scores(self, users: torch.Tensor, domain: int) -> torch.Tensor:
            score = truth.scores(users, domain)
            return score + torch.randn(score.shape, generator=torch.Generator().manual_seed(domain))

    best, blurred = (evaluate(s, data, "test", "corpus", (50,), exclude_seen=False) for s in (truth, Blurred()))
    for d in range(3):
        here = best.domain == d
        assert best.metrics["recall@50"][here].mean() > blurred.metrics["recall@50"][here].mean()


def test_popularity_is_far_below_the_oracle():
    data, truth = simulate_with_truth(SimulatorConfig.preset("quick", scale=0.5), seed=0)
    for d, rows in enumerate(data.catalogues):
        counts = torch.bincount(data.train.item[data.train.domain == d], minlength=data.num_items)[rows]
        top = rows[counts.topk(50).indices]
        popular = torch.isin(data.test.item[data.test.domain == d], top).float().mean()
        assert popular < 0.75 * truth.best_recall(data.test, 50, d)[0]


def test_importance_is_the_likelihood_lost(tiny):
    """Against the KL divergence to the distribution without the feature's terms, taken by scipy."""
    _, truth = tiny
    d, users = 0, torch.from_numpy(np.flatnonzero(truth.active[:, 0]))
    for side, feature in (("user", "gender"), ("user", "history"), ("item", "category"), ("item", "bid")):
        full = truth._terms(users, d, [t.name for t in TERMS])
        without = truth._terms(users, d, [t.name for t in TERMS if getattr(t, side) != feature])
        p, q = (special.softmax(x.astype(np.float64), axis=1) for x in (full, without))
        assert truth.importance_nats(side).loc[feature, "D1"] == pytest.approx(
            special.rel_entr(p, q).sum(1).mean(), rel=1e-3, abs=1e-6
        )


def test_importance_differs_by_domain_and_knows_idle_features(smoke):
    _, truth = smoke
    user, item = truth.importance("user"), truth.importance("item")
    for table in (user, item):
        np.testing.assert_allclose(table.sum(), 1)
        assert (table >= 0).all().all()
        assert stats.spearmanr(table["D1"], table["D2"]).statistic < 0.95
    assert (user.loc["device"] == 0).all()
    assert (item.loc[["brand", "creative_layout", "advertiser_region"]] == 0).all().all()
    with pytest.raises(ValueError, match="user"):
        truth.importance("advertiser")


def test_click_probabilities(tiny):
    """Shown in proportion to the exposure part and clicked with these probabilities, items give the record's law."""
    data, truth = tiny
    users = torch.arange(data.num_users)
    for d in range(3):
        click = truth.click_probabilities(users, d)
        assert click.max(1).values.numpy() == pytest.approx(0.2) and (click > 0).all()
        exposure = torch.from_numpy(truth.utility[d].log_weight("exposure")[truth.kind]).exp()
        joint = exposure * click
        torch.testing.assert_close(
            joint / joint.sum(1, keepdim=True), truth.scores(users, d).double().exp(), rtol=1e-3, atol=1e-7
        )
        items = data.catalogues[d][users % len(data.catalogues[d])]
        one_by_one = truth.click_probability(users, items, d)
        torch.testing.assert_close(one_by_one, click[users, users % click.shape[1]])
        outside = torch.tensor([v for v in range(data.num_items) if v not in data.catalogues[d].tolist()][:1])
        if len(outside):
            with pytest.raises(ValueError, match="not in the catalogue"):
                truth.click_probability(outside * 0, outside, d)
    assert (truth.bids > 0).numpy().tolist() == catalogue_members(data).tolist()


def test_records_carry_over_between_domains(smoke):
    """Section 4.3: an item taken in one domain is likelier for the same user in another than for a stranger."""
    data, truth = smoke
    found = truth.label_overlap(data.train, k=50, max_records=300)
    assert len(found) == 6 and (found["lift"] > 1.5).all() and (found["own"] > found["stranger"]).all()


# Parquet


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    a, b, c = (simulate_to_parquet(BLOCKS, s, tmp_path / n) for s, n in ((1, "a"), (1, "b"), (2, "c")))
    assert digest(a) == digest(b)
    assert len(digest(a)) == 2 + 4 * num_blocks(BLOCKS)
    assert digest(a).keys() == digest(c).keys() and not set(digest(a).values()) & set(digest(c).values())
    with pytest.raises(FileExistsError, match="not an empty folder"):
        simulate_to_parquet(BLOCKS, 1, a)


@pytest.mark.parametrize("domain_features", ["own", "all"])
def test_parquet_holds_the_data_set(tmp_path, domain_features):
    config = SimulatorConfig.preset("smoke", scale=0.3, block_records=2_000, domain_features=domain_features)
    data = simulate(config, seed=7)
    folder = simulate_to_parquet(config, 7, tmp_path / "log")
    for split in ("train", "valid", "test"):
        table = pq.read_table(folder / split)
        records = {
            k: torch.from_numpy(table[k].to_numpy().astype(np.int64)) for k in ("user", "item", "domain", "timestamp")
        }
        order = torch.argsort(records["timestamp"], stable=True)
        assert interactions_equal(Interactions(**records).take(order), data.split(split))
    table = table.slice(0, 40).to_pydict()
    inputs = InputBuilder(data)
    for i in range(40):
        row, d = {k: v[i] for k, v in table.items()}, table["domain"][i]
        for side, built in (
            ("user", inputs.users_in(torch.tensor([row["user"]]), d)),
            ("item", inputs.items_in(torch.tensor([row["item"]]), d)),
        ):
            for feature in getattr(data.schema, side):
                if feature.name == "item_id":
                    continue
                value = built.features[feature.name]
                if feature.kind == "bag":
                    assert row[feature.name] == value.codes.tolist()
                else:
                    assert row[feature.name] == pytest.approx(value.item())
    items, users = pq.read_table(folder / "items.parquet"), pq.read_table(folder / "users")
    assert items.num_rows == data.num_items and users["user"].to_pylist() == list(range(data.num_users))
    bid = data.items["bid"][:, 1, 0] if domain_features == "own" else data.items["bid_D2"][:, 0]
    np.testing.assert_array_equal(items["bid_D2"].to_numpy(), bid.numpy())


def test_memory_does_not_grow_with_the_records(tmp_path):
    """Four times the users and records, in as many more blocks: the peak of the process stays."""
    program = """
        import resource, sys
        from adi_lite.data.simulator import SimulatorConfig, simulate_to_parquet
        peaks = []
        for size in (1, 1, 4):
            config = SimulatorConfig(6_000 * size, 500, 40_000 * size, block_records=20_000)
            simulate_to_parquet(config, 0, f"{sys.argv[1]}/{len(peaks)}")
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        print(*peaks)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], capture_output=True, text=True, check=True
    )
    _, before, after = map(int, run.stdout.split())
    assert after - before < 40, f"peak memory grew from {before} to {after} MB"


# Configuration


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_users": 0}, "num_users must be a whole number"),
        ({"num_items": 2.5}, "num_items must be a whole number"),
        ({"scale": 0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must lie"),
        ({"num_domains": 0}, r"num_domains must lie in 1…16, got 0"),
        ({"num_domains": 17}, r"num_domains must lie in 1…16, got 17"),
        ({"valid_share": 1.0}, r"valid_share must lie in \[0, 0.9\]"),
        ({"zipf": -1}, "zipf must lie"),
        ({"max_ctr": 0.0}, "max_ctr must lie"),
        ({"emphasis": ()}, "emphasis needs"),
        ({"domain_features": "some"}, "'own' or 'all'"),
        ({"record_shares": (0.5, 0.5)}, "record_shares needs 3 positive numbers"),
        ({"record_shares": (1.0, 0.0, 1.0)}, "record_shares needs 3 positive numbers"),
        ({"user_overlap": Overlap(((1.0,),))}, "user_overlap describes 1 domains"),
        ({"num_records": 20_000}, "records for each active user"),
    ],
)
def test_wrong_parameters_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        SimulatorConfig(**changes)


@pytest.mark.parametrize(
    "shared, message",
    [
        (((1.0, 0.5),), "square"),
        (((1.0, 0.5), (0.4, 1.0)), "symmetric"),
        (((1.0, -0.5), (-0.5, 1.0)), "negative"),
        (((0.0, 0.0), (0.0, 1.0)), "positive on the diagonal"),
        (((1.0, 0.9), (0.9, 0.5)), "no population"),
    ],
)
def test_wrong_overlaps_are_refused(shared, message):
    with pytest.raises(ValueError, match=message):
        fit_patterns(Overlap(shared))


def test_too_few_items_and_unknown_names():
    with pytest.raises(ValueError, match="has no item among 1"):
        simulate(SimulatorConfig(num_items=1, num_domains=8), seed=0)
    with pytest.raises(ValueError, match="unknown preset 'huge'; there are smoke, quick, full"):
        SimulatorConfig.preset("huge")
    with pytest.raises(ValueError, match="no parameter temperature"):
        SimulatorConfig.preset("smoke", temperature=1)


def test_presets_and_registry():
    assert SimulatorConfig() == SimulatorConfig.preset("quick")
    assert SimulatorConfig.preset("full").records >= 1_000_000
    data = load_dataset("simulator", preset="smoke", seed=3, scale=0.3, parameters={"zipf": 1.0})
    again = load_simulator("smoke", 3, scale=0.3, parameters={"zipf": 1.0})
    assert interactions_equal(data.train, again.train) and data.num_users == 900


def test_no_interest_without_strength():
    """With the user's terms off, all users of a domain have one distribution."""
    _, truth = simulate_with_truth(SimulatorConfig.preset("smoke", scale=0.3, strength=0.0), seed=0)
    scores = truth.scores(torch.arange(4), 0)
    torch.testing.assert_close(scores, scores[:1].expand_as(scores))
    assert (truth.importance("user") == 0).all().all()
