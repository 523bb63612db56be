"""The simulated online test: auction, common random numbers, requests, lifts and their intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adi_lite.data.simulator import SimulatorConfig, simulate, simulate_with_truth
from adi_lite.evaluation.online import (
    Outcomes,
    Requests,
    assign_arms,
    by_day,
    draw_requests,
    hold_auction,
    lifts,
    online_tables,
    run_auctions,
)
from adi_lite.evaluation.online.chance import CLICK, NOISE, normal, uniform
from adi_lite.evaluation.online.outcomes import FIGURES

CONFIG = SimulatorConfig(num_users=1_500, num_items=300, num_records=12_000)
TRUTH = simulate_with_truth(CONFIG, seed=0)[1]


class Table:
    """Scores of a fixed random matrix, of all items or of those that ``keep`` lists."""

    def __init__(self, seed: int, keep: list[int] | None = None) -> None:
        self.table = torch.randn(CONFIG.users, CONFIG.items, generator=torch.Generator().manual_seed(seed))
        if keep is not None:
            hidden = torch.ones(CONFIG.items, dtype=torch.bool)
            hidden[keep] = False
            self.table[:, hidden] = -torch.inf

    def scores(self, users, domain):
        return self.table[users][:, TRUTH.world.catalogues[domain]]


@pytest.fixture(scope="module")
def requests() -> Requests:
    return draw_requests(TRUTH, seed=3)


@pytest.fixture(scope="module")
def outcomes(requests) -> Outcomes:
    return run_auctions({"random": Table(1), "oracle": TRUTH, "other": Table(2)}, TRUTH, requests, k=30, seed=5)


# The auction


def test_auction_by_hand():
    sale = hold_auction(np.array([[1.0, 4.0, 2.0, 3.0]]), np.array([[0.1, 0.1, 0.1, 0.05]]), slots=2)
    # Scores 0.1, 0.4, 0.2, 0.15: item 1 pays 0.2 / 0.1, item 2 pays 0.15 / 0.1.
    np.testing.assert_array_equal(sale.winner, [[1, 2]])
    np.testing.assert_allclose(sale.price, [[2.0, 1.5]], rtol=1e-15)


def test_ties_go_to_the_lower_column_and_pay_the_bid():
    sale = hold_auction(np.array([[2.0, 4.0, 1.0]]), np.array([[0.5, 0.25, 1.0]]), slots=3)  # three scores of 1
    np.testing.assert_array_equal(sale.winner, [[0, 1, 2]])
    np.testing.assert_array_equal(sale.price, [[2.0, 4.0, 0.0]])


def test_no_price_is_above_the_bid_by_rounding():
    rng = np.random.default_rng(0)
    bid, pctr = rng.random((2_000, 1)), rng.random((2_000, 1))
    assert ((bid * pctr) / pctr > bid).any()
    sale = hold_auction(np.tile(bid, 2), np.tile(pctr, 2), 1)
    assert (sale.price <= bid).all()


def test_slots_stay_empty_and_nobody_behind_costs_nothing():
    sale = hold_auction(np.array([[3.0, 5.0], [7.0, 9.0]]), np.ones((2, 2)), 4, np.array([[True, True], [True, False]]))
    np.testing.assert_array_equal(sale.winner, [[1, 0, -1, -1], [0, -1, -1, -1]])
    np.testing.assert_array_equal(sale.price, [[3.0, 0, 0, 0], [0, 0, 0, 0]])
    empty = hold_auction(np.zeros((2, 0)), np.zeros((2, 0)), 3)
    assert (empty.winner == -1).all() and not empty.price.any() and empty.winner.shape == (2, 3)


def test_a_click_that_cannot_happen_is_free():
    sale = hold_auction(np.array([[3.0, 5.0]]), np.zeros((1, 2)), 1)
    assert sale.winner[0, 0] == 0 and sale.price[0, 0] == 0


def slow_auction(bid, pctr, present, slots):
    """(column, price) of each filled slot, candidate by candidate."""
    ranked = sorted((-b * p, j) for j, (b, p, here) in enumerate(zip(bid, pctr, present, strict=True)) if here)
    sold = []
    for place, (_, j) in enumerate(ranked[:slots]):
        following = -ranked[place + 1][0] if place + 1 < len(ranked) else 0.0
        sold.append((j, min(bid[j], following / pctr[j]) if pctr[j] > 0 else 0.0))
    return sold


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 6))
def test_auction_equals_the_slow_one(seed, num_candidates, slots):
    rng = np.random.default_rng(seed)
    bid = rng.integers(0, 4, (5, num_candidates)).astype(float)  # few values: many ties
    pctr = rng.integers(0, 4, (5, num_candidates)) / 8
    present = rng.random((5, num_candidates)) < 0.8
    sale = hold_auction(bid, pctr, slots, present)
    for row in range(5):
        sold = slow_auction(bid[row], pctr[row], present[row], slots)
        sold += [(-1, 0.0)] * (slots - len(sold))
        assert list(sale.winner[row]) == [j for j, _ in sold]
        np.testing.assert_allclose(sale.price[row], [price for _, price in sold], rtol=1e-12)


def test_a_winner_keeps_its_slot_with_any_bid_above_the_price():
    rng = np.random.default_rng(0)
    bid, pctr = rng.exponential(size=(1, 9)), rng.random((1, 9))
    sale = hold_auction(bid, pctr, 3)
    for slot in range(3):
        column, price = sale.winner[0, slot], sale.price[0, slot]
        for factor, keeps in ((1.001, True), (0.999, False)):
            changed = bid.copy()
            changed[0, column] = price * factor
            assert (hold_auction(changed, pctr, 3).winner[0, slot] == column) == keeps


@pytest.mark.parametrize(
    ("bid", "pctr", "slots", "message"),
    [
        ([[1.0]], [[0.1, 0.2]], 1, "one shape"),
        ([[1.0]], [[0.1]], 0, "at least 1 slot"),
        ([[1.0, -2.0]], [[0.1, 0.1]], 1, "bid of candidate 1 in auction 0 is -2"),
        ([[1.0]], [[np.nan]], 1, "pctr of candidate 0"),
    ],
)
def test_auction_refuses(bid, pctr, slots, message):
    with pytest.raises(ValueError, match=message):
        hold_auction(np.array(bid), np.array(pctr), slots)


# Random numbers by key


def test_numbers_by_key_are_uniform_and_independent():
    grid = uniform(0, NOISE, np.arange(300)[:, None], np.arange(200))
    assert stats.kstest(grid.ravel(), "uniform").pvalue > 1e-3
    for other in (
        uniform(0, CLICK, np.arange(300)[:, None], np.arange(200)),
        uniform(1, NOISE, np.arange(300)[:, None], np.arange(200)),
        np.roll(grid, 1, 0),
        np.roll(grid, 1, 1),
    ):
        assert abs(np.corrcoef(grid.ravel(), other.ravel())[0, 1]) < 4 / grid.size**0.5
    assert stats.kstest(normal(0, NOISE, np.arange(20_000)), "norm").pvalue > 1e-3
    assert uniform(0, NOISE, 7, 3)[0] == grid[7, 3]


def test_users_are_split_in_equal_parts_and_stay_in_their_arm():
    user = np.repeat(np.arange(30_000), 2)
    arm = assign_arms(user, 3, seed=0)
    assert (arm[::2] == arm[1::2]).all()
    assert stats.chisquare(np.bincount(arm[::2])).pvalue > 1e-3


# Requests


def test_requests_are_distributed_as_the_records_of_the_test_day():
    days = 40
    drawn = draw_requests(TRUTH, days=days, seed=1)
    assert TRUTH.active[drawn.user, drawn.domain].all()
    assert (np.diff(drawn.day) >= 0).all() and set(drawn.day) == set(range(1, days + 1))
    tests = [simulate(CONFIG, 0, replicate=r).test for r in range(1, 5)]
    domain = np.concatenate([t.domain.numpy() for t in tests])
    user = np.concatenate([t.user.numpy() for t in tests])
    ours, theirs = np.bincount(drawn.domain) / days, np.bincount(domain) / 4
    assert (abs(ours - theirs) < 4 * (ours * (1 / days + 1 / 4)) ** 0.5).all()
    # Users who ask often are those who click often: their means agree with the same activity.
    mean = np.bincount(drawn.user, minlength=CONFIG.users) / days * 4
    pearson = ((np.bincount(user, minlength=CONFIG.users) - mean) ** 2 / mean.clip(0.05)).sum()
    assert abs(pearson / CONFIG.users - 1) < 0.3


def test_volume_and_seed_of_requests():
    one, same, more = (draw_requests(TRUTH, days=3, volume=v, seed=0) for v in (1.0, 1.0, 5.0))
    assert all(np.array_equal(getattr(one, c), getattr(same, c)) for c in ("user", "domain", "day"))
    assert 4.5 < len(more) / len(one) < 5.5
    assert not np.array_equal(draw_requests(TRUTH, days=3, seed=1).user[:50], one.user[:50])


# Whole runs


def test_a_run_equals_a_plain_loop(requests):
    few = Requests(*(getattr(requests, c)[::40] for c in ("user", "domain", "day")))
    keep = list(range(0, 300, 90))  # some catalogues hold fewer of these than there are slots
    scorers = {"table": Table(1), "oracle": TRUTH, "short": Table(2, keep)}
    result = run_auctions(scorers, TRUTH, few, k=5, slots=3, noise=0.5, seed=9)
    bids = TRUTH.bids.double().numpy()
    for q in range(len(few)):
        user, domain = int(few.user[q]), int(few.domain[q])
        catalogue = TRUTH.world.catalogues[domain]
        for arm, scorer in enumerate(scorers.values()):
            score = scorer.scores(torch.tensor([user]), domain)[0].tolist()
            best = sorted(range(len(score)), key=lambda j: -score[j])[:5]
            items = [int(catalogue[j]) for j in best if score[j] > -np.inf]
            users = torch.full((len(items),), user)
            chance = TRUTH.click_probability(users, torch.tensor(items), domain).double().numpy()
            noisy = [p * np.exp(0.5 * normal(9, NOISE, domain, user, v)[0]) for p, v in zip(chance, items, strict=True)]
            sold = slow_auction(bids[items, domain], noisy, [True] * len(items), 3)
            clicks = [uniform(9, CLICK, q, items[j])[0] < chance[j] for j, _ in sold]
            expected = {
                "impressions": len(sold),
                "clicks": sum(clicks),
                "revenue": sum(price for (_, price), click in zip(sold, clicks, strict=True) if click),
                "expected_clicks": sum(chance[j] for j, _ in sold),
                "expected_revenue": sum(chance[j] * price for j, price in sold),
            }
            for name in FIGURES:
                np.testing.assert_allclose(getattr(result, name)[arm, q], expected[name], rtol=1e-5, atol=1e-12)
    assert (result.impressions[0] == 3).all() and result.impressions[2].min() < 3


def test_chunks_do_not_matter(requests, outcomes, monkeypatch):
    monkeypatch.setattr("adi_lite.evaluation.online.simulate._CHUNK_SCORES", 1)  # user by user
    part = Requests(*(getattr(requests, c)[:800] for c in ("user", "domain", "day")))
    again = run_auctions({"random": Table(1), "oracle": TRUTH, "other": Table(2)}, TRUTH, part, k=30, seed=5)
    for name in FIGURES:
        np.testing.assert_allclose(getattr(again, name), getattr(outcomes, name)[:, :800], rtol=1e-5)


def test_k_larger_than_the_catalogue_retrieves_all_for_everybody(requests):
    result = run_auctions({"a": Table(1), "b": Table(2)}, TRUTH, requests, k=10_000)
    for name in FIGURES:
        np.testing.assert_array_equal(getattr(result, name)[0], getattr(result, name)[1])


def test_clicks_agree_with_their_expectation(outcomes):
    for arm in range(3):
        shown, expected = outcomes.clicks[arm].sum(), outcomes.expected_clicks[arm].sum()
        assert abs(shown - expected) < 4 * expected**0.5
        spread = (outcomes.revenue[arm] - outcomes.expected_revenue[arm]).std() * len(outcomes.user) ** 0.5
        assert abs(outcomes.revenue[arm].sum() - outcomes.expected_revenue[arm].sum()) < 4 * spread


def test_the_oracle_earns_more_than_random_retrieval(outcomes):
    table = lifts(outcomes, "random", num_resamples=200)
    oracle = table[(table.arm == "oracle") & (table.metric == "RPM")]
    assert len(oracle) == 3 * 4 and (oracle.low > 0).all()
    assert (oracle[oracle.domain == "D1"].p < 1e-6).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scorers": {}}, "at least one arm"),
        ({"k": 0}, "k must be at least 1"),
        ({"slots": 0}, "slots must be at least 1"),
        ({"noise": -1.0}, "noise must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"requests": Requests(*np.zeros((3, 0), dtype=np.int64))}, "no request"),
        ({"requests": Requests(*np.array([[1_500], [0], [1]]))}, "user 1500.*0…1499"),
        ({"requests": Requests(*np.array([[0], [3], [1]]))}, "domain 3.*0…2"),
    ],
)
def test_run_refuses(requests, changes, message):
    call = {"scorers": {"a": TRUTH}, "truth": TRUTH, "requests": requests, **changes}
    with pytest.raises(ValueError, match=message):
        run_auctions(**call)


def test_run_refuses_scores_that_cannot_be(requests):
    class Wrong:
        def __init__(self, scores):
            self.scores = scores

    with pytest.raises(ValueError, match="arm 'a' gave scores of shape"):
        run_auctions({"a": Wrong(lambda users, domain: torch.zeros(len(users), 2))}, TRUTH, requests)
    with pytest.raises(ValueError, match="arm 'a' gave scores that are NaN"):
        run_auctions({"a": Wrong(lambda users, domain: TRUTH.scores(users, domain) * np.nan)}, TRUTH, requests)
    with pytest.raises(ValueError, match="differ in shape"):
        Requests(np.zeros(2), np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="at least 1 day"):
        draw_requests(TRUTH, days=0)
    with pytest.raises(ValueError, match="volume must be positive"):
        draw_requests(TRUTH, volume=0.0)


# Lifts


def test_lifts_equal_plain_sums(outcomes):
    table = lifts(outcomes, "random", num_resamples=50).set_index(["design", "clicks", "arm", "domain", "metric"])
    assert len(table) == 2 * 2 * 2 * 3 * 3 and (table.source == "simulated").all()
    for d, domain in enumerate(outcomes.domains):
        for design in ("A/B", "paired"):
            figures = []
            for arm in (0, 1):
                mine = outcomes.domain == d
                if design == "A/B":
                    mine = mine & (outcomes.group == arm)
                impressions, clicks, revenue = (getattr(outcomes, n)[arm, mine].sum() for n in FIGURES[:3])
                figures.append(
                    {"RPM": 1000 * revenue / impressions, "PPC": revenue / clicks, "CTR": clicks / impressions}
                )
            for metric in ("RPM", "PPC", "CTR"):
                row = table.loc[(design, "drawn", "oracle", domain, metric)]
                assert row.control_value == pytest.approx(figures[0][metric], rel=1e-9)
                assert row.value == pytest.approx(figures[1][metric], rel=1e-9)
                assert row.lift == pytest.approx(100 * (figures[1][metric] / figures[0][metric] - 1), rel=1e-6)
                assert row.low < row.lift < row.high
                assert row.users == len(np.unique(outcomes.user[outcomes.domain == d]))


@pytest.mark.parametrize("design", ["A/B", "paired"])
@pytest.mark.parametrize("metric", ["RPM", "PPC", "CTR"])
def test_bootstrap_agrees_with_the_delta_method(outcomes, design, metric):
    """Variance of a log ratio of sums over users, linearised: sum of (share of numerator - share of denominator)²."""
    above, below = {"RPM": (2, 0), "PPC": (2, 1), "CTR": (1, 0)}[metric]
    influence = []
    for arm in (0, 1):
        mine = outcomes.domain == 0
        if design == "A/B":
            mine = mine & (outcomes.group == arm)
        top, bottom = (
            np.bincount(outcomes.user[mine], getattr(outcomes, FIGURES[i])[arm, mine], CONFIG.users)
            for i in (above, below)
        )
        influence.append(top / top.sum() - bottom / bottom.sum())
    error = ((influence[1] - influence[0]) ** 2).sum() ** 0.5
    table = lifts(outcomes, "random").set_index(["design", "clicks", "arm", "domain", "metric"])
    row = table.loc[(design, "drawn", "oracle", "D1", metric)]
    width = np.log1p(row.high / 100) - np.log1p(row.low / 100)
    assert width == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_paired_intervals_are_narrower(outcomes):
    table = lifts(outcomes, "random", num_resamples=200)
    width = (np.log1p(table.high / 100) - np.log1p(table.low / 100)).groupby([table.design, table.clicks]).mean()
    assert width["paired", "expected"] < width["paired", "drawn"] < width["A/B", "drawn"]
    assert width["A/B", "expected"] < width["A/B", "drawn"]


@pytest.fixture(scope="module")
def same_model_twice(requests) -> Outcomes:
    return run_auctions({"A": TRUTH, "B": TRUTH}, TRUTH, requests, k=30, seed=2)


def test_the_same_model_in_both_arms_has_no_lift(same_model_twice):
    table = lifts(same_model_twice, num_resamples=100)
    paired = table[table.design == "paired"]
    assert (paired[["lift", "low", "high"]] == 0).all().all() and (paired.p == 1).all()
    assert (table[table.design == "A/B"].lift != 0).all()


def test_intervals_of_the_same_model_cover_0_at_the_nominal_rate(same_model_twice):
    few = same_model_twice.domain == 0
    one = replace(
        same_model_twice,
        **{c: getattr(same_model_twice, c)[few] for c in ("user", "domain", "day", "group")},
        **{c: getattr(same_model_twice, c)[:, few] for c in FIGURES},
    )
    splits, covered = 200, []
    for seed in range(splits):
        table = lifts(replace(one, group=assign_arms(one.user, 2, 100 + seed)), num_resamples=100, seed=seed)
        table = table[table.design == "A/B"]
        covered.append(((table.low <= 0) & (table.high >= 0)).to_numpy())
    rate = np.mean(covered, 0)  # by kind of clicks and metric
    error = (0.95 * 0.05 / splits) ** 0.5
    assert rate.shape == (6,) and (abs(rate - 0.95) < 4 * error).all()
    assert (rate < 1).all()


def test_what_is_not_defined_is_nan():
    """Two users, one an arm; the treatment has no click, and domain 1 one user only."""
    figures = dict.fromkeys(FIGURES, np.ones((2, 3))) | {"clicks": np.array([[1.0, 1, 1], [0, 0, 1]])}
    user, domain = np.array([0, 1, 0]), np.array([0, 0, 1])
    outcomes = Outcomes(("a", "b"), ("x", "y"), user, domain, np.ones(3), np.array([0, 1, 0]), **figures)
    table = lifts(outcomes, num_resamples=50).set_index(["design", "clicks", "domain", "metric"])
    assert np.isnan(table.loc[("paired", "drawn", "x", "PPC"), ["lift", "low", "high", "p"]].astype(float)).all()
    alone = table.loc[("paired", "drawn", "y", "RPM")]
    assert alone.lift == 0 and np.isnan([alone.low, alone.high]).all()
    assert np.isnan(table.loc[("A/B", "drawn", "y", "RPM"), "lift"])  # nobody of domain y is in arm b
    both = table.loc[("A/B", "drawn", "x", "RPM")]
    assert both.lift == 0 and np.isnan(both.low)  # some resample has one of the two users only


def test_days_add_up_and_tables_say_that_they_are_simulated(outcomes):
    series, table = online_tables(outcomes, "random")
    assert table.equals(lifts(outcomes, "random"))
    assert len(series) == 14 * 3 * 3 * 3 and (series.source == "simulated").all()
    for frame in (series, table):
        assert frame.attrs["caption"].startswith("Simulated online test, no figure of a real system")
    day = series[(series.arm == "oracle") & (series.domain == "D1") & (series.metric == "CTR")]
    mine = (outcomes.domain == 0) & (outcomes.group == 1)
    for row in day.itertuples():
        here = mine & (outcomes.day == row.day)
        assert row.value == pytest.approx(outcomes.clicks[1, here].sum() / outcomes.impressions[1, here].sum())
        assert row.users == len(np.unique(outcomes.user[here])) and row.low < row.value < row.high
    weights = [(outcomes.impressions[1] * (mine & (outcomes.day == d))).sum() for d in day.day]
    whole = table.set_index(["design", "clicks", "arm", "domain", "metric"]).loc[
        ("A/B", "drawn", "oracle", "D1", "CTR")
    ]
    assert np.average(day.value, weights=weights) == pytest.approx(whole.value)
    paired = by_day(outcomes, "paired", "expected", num_resamples=50)
    first = paired[(paired.arm == "oracle") & (paired.domain == "D1") & (paired.metric == "PPC")].iloc[0]
    here = (outcomes.domain == 0) & (outcomes.day == 1)
    expected = outcomes.expected_revenue[1, here].sum() / outcomes.expected_clicks[1, here].sum()
    assert first.value == pytest.approx(expected) and first.users == len(np.unique(outcomes.user[here]))


def test_reports_refuse(outcomes, same_model_twice):
    with pytest.raises(ValueError, match="unknown control 'none'"):
        lifts(outcomes, "none")
    with pytest.raises(ValueError, match="needs two arms"):
        lifts(replace(outcomes, arms=("random",)))
    with pytest.raises(ValueError, match="design is one of"):
        by_day(same_model_twice, "unpaired")
