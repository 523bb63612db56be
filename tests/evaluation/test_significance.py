"""Coverage of the intervals on simulated experiments, and each test against a plain or independent computation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from adi_lite.evaluation.results import Evaluation
from adi_lite.evaluation.significance import (
    Interval,
    compare,
    holm,
    kendall_tau,
    paired_test,
    seed_interval,
    two_level_bootstrap,
)


def experiment(rng, *, seeds=5, users=80, effect=0.0, seed_sd=0.0, user_sd=1.0, noise_sd=0.5):
    """(seeds, users) results: what a seed brings, what a user brings, and what is left."""
    seed = rng.normal(0, seed_sd, (seeds, 1)) if seed_sd else 0.0
    return effect + seed + rng.normal(0, user_sd, users) + rng.normal(0, noise_sd, (seeds, users))


def coverage(make, truth, runs=1000):
    rng = np.random.default_rng(0)
    intervals = [make(rng, n) for n in range(runs)]
    return np.mean([i.low <= truth <= i.high for i in intervals])


@pytest.mark.parametrize("seed_sd", [0.0, 0.15, 1.0])
def test_two_level_interval_covers_the_truth(seed_sd):
    """Whether users dominate, both matter or seeds dominate; 1000 runs have a standard error of 0.7 points."""

    def one(rng, n):
        return two_level_bootstrap(experiment(rng, effect=0.7, seed_sd=seed_sd), num_resamples=200, seed=n)

    assert 0.92 <= coverage(one, 0.7) <= 0.985


def test_an_interval_over_users_alone_is_far_too_narrow_where_seeds_matter():
    """What the two levels are for: the same data, the seeds' spread averaged away."""

    def users_only(rng, n):
        return two_level_bootstrap(experiment(rng, seed_sd=1.0).mean(0), num_resamples=200, seed=n)

    assert coverage(users_only, 0.0) < 0.6


def test_paired_difference_covers_the_truth_and_is_narrower_than_an_unpaired_one():
    def one(rng, n):
        users = rng.normal(0, 1, 80)
        a, b = (users + experiment(rng, effect=e, seeds=s, seed_sd=0.03, user_sd=0.2) for e, s in ((0.3, 5), (0.1, 3)))
        interval = two_level_bootstrap(a, b, num_resamples=200, seed=n)
        apart = [two_level_bootstrap(x, num_resamples=200, seed=n).standard_error for x in (a, b)]
        assert interval.standard_error < np.hypot(*apart)
        return interval

    assert 0.92 <= coverage(one, 0.2) <= 0.985


def test_queries_of_a_user_stay_together():
    """Three equal queries a user are worth one: the interval must not shrink by √3."""

    def one(rng, n):
        values = np.repeat(experiment(rng, seeds=1, noise_sd=0.0), 3, axis=1)
        return two_level_bootstrap(values, users=np.repeat(np.arange(80), 3), num_resamples=200, seed=n)

    assert 0.92 <= coverage(one, 0.0) <= 0.985


def plain_bootstrap(a, b, users, domains, resamples, rng):
    """Standard error of the macro mean's difference, one resample at a time."""

    def macro(values, rows):
        return np.mean([np.mean([values[q] for q in rows if domains[q] == d]) for d in sorted(set(domains))])

    draws = []
    for _ in range(resamples):
        chosen = rng.choice(np.unique(users), len(np.unique(users)))
        rows = [q for u in chosen for q in np.flatnonzero(users == u)]
        sides = [np.mean([macro(x[s], rows) for s in rng.integers(len(x), size=max(len(x) - 1, 1))]) for x in (a, b)]
        draws.append(sides[0] - sides[1])
    return np.std(draws, ddof=1)


def test_standard_error_is_that_of_a_plain_bootstrap_of_both_levels():
    """Where results are what the seed brings plus what the user brings, with no noise for both levels to count."""
    rng = np.random.default_rng(3)
    users, domains = rng.integers(0, 25, 60), np.sort(rng.integers(0, 3, 60))
    domains[:3] = 0, 1, 2
    a, b = (experiment(rng, seeds=n, users=60, seed_sd=0.2, noise_sd=0.0) for n in (4, 2))
    want = plain_bootstrap(a, b, users, domains, 1500, rng)
    got = two_level_bootstrap(a, b, users=users, domains=domains, num_resamples=4000)
    assert got.standard_error == pytest.approx(want, rel=0.08)
    macro = [np.mean([x[:, domains == d].mean() for d in range(3)]) for x in (a, b)]
    assert got.estimate == pytest.approx(macro[0] - macro[1], abs=1e-12)


def test_noise_of_single_results_counts_once():
    rng = np.random.default_rng(4)
    variances = [
        two_level_bootstrap(experiment(rng, user_sd=0.0), num_resamples=200, seed=n).standard_error ** 2
        for n in range(300)
    ]
    assert np.mean(variances) == pytest.approx(0.5**2 / (5 * 80), rel=0.35)  # counted twice or three times: 2, 3


def test_one_seed_gives_the_textbook_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    got = two_level_bootstrap(values, num_resamples=4000)
    assert got.standard_error == pytest.approx(values.std() / 20, rel=0.05)
    assert got.dof == pytest.approx(399)


def test_same_seed_same_interval_and_chunks_do_not_matter(monkeypatch):
    values = experiment(np.random.default_rng(0))
    whole = two_level_bootstrap(values, num_resamples=300)
    monkeypatch.setattr("adi_lite.evaluation.intervals._CHUNK_FLOATS", 1000)
    pieces = two_level_bootstrap(values, num_resamples=300)
    assert pieces.low == pytest.approx(whole.low, rel=1e-12)
    assert two_level_bootstrap(values, num_resamples=300, seed=1).low != whole.low


def test_seed_interval_is_students():
    values = np.random.default_rng(0).normal(0.6, 0.01, 5)
    low, high = stats.t.interval(0.9, 4, values.mean(), stats.sem(values))
    got = seed_interval(values, 0.9)
    assert (got.low, got.high) == pytest.approx((low, high), rel=1e-12)
    assert got.p_value == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)
    assert np.isnan(seed_interval([0.5]).low)
    with pytest.raises(ValueError, match="finite values"):
        seed_interval([0.5, np.nan])


def test_interval_and_p_value_agree():
    for estimate in (0.1, 1.0, 2.2, 2.4, 5.0):
        interval = Interval(estimate, 1.0, 7.0)
        assert (interval.p_value < 0.05) == (interval.low > 0)
    assert Interval(0.0, 0.0, np.inf).p_value == 1.0
    assert Interval(0.2, 0.0, np.inf).p_value == 0.0


def test_paired_test_averages_seeds_and_is_scipys():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.1, 1, (5, 200)), rng.normal(0, 1, (3, 200))
    got = paired_test(a, b)
    assert got.t_p == pytest.approx(stats.ttest_rel(a.mean(0), b.mean(0)).pvalue)
    assert got.wilcoxon_p == pytest.approx(stats.wilcoxon(a.mean(0), b.mean(0)).pvalue)
    assert got.difference == pytest.approx(a.mean() - b.mean())
    users = np.repeat(np.arange(100), 2)
    by_user = (a.mean(0) - b.mean(0)).reshape(100, 2).mean(1)
    got = paired_test(a, b, users)
    assert (got.num_users, got.t_p) == (100, pytest.approx(stats.ttest_1samp(by_user, 0).pvalue))
    assert paired_test(a, a).t_p == paired_test(a, a).wilcoxon_p == 1.0
    uneven = paired_test(np.array([1.0, 2, 3, 5]), np.zeros(4), np.array([0, 0, 0, 1]))
    assert uneven.difference == pytest.approx(11 / 4)  # of the queries, not of the users


def test_paired_test_rejects_a_true_null_as_often_as_it_says():
    rng = np.random.default_rng(2)
    p = [paired_test(*rng.binomial(1, 0.3, (2, 150)).astype(float)) for _ in range(400)]
    for name in ("t_p", "wilcoxon_p"):
        assert np.mean([getattr(x, name) < 0.05 for x in p]) == pytest.approx(0.05, abs=0.035)


def plain_holm(p):
    """The step-down procedure as it is told: reject until the first that is not small enough."""
    return lambda level: {
        i
        for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i]))
        if all(
            p[j] <= level / (len(p) - r) for r, j in enumerate(sorted(range(len(p)), key=lambda i: p[i])[: rank + 1])
        )
    }


@given(
    st.lists(st.integers(0, 300).map(lambda n: n / 1000), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.1])
)
def test_holm_rejects_what_the_step_down_procedure_rejects(p, level):
    margin = min(abs(x * m - level) for x in p for m in range(1, len(p) + 1))
    if margin > 1e-9:  # p · m ≤ level and p ≤ level / m may round apart
        assert set(np.flatnonzero(holm(p) <= level)) == plain_holm(p)(level)


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.02]), [0.02, np.nan, 0.02])
    with pytest.raises(ValueError, match="got 1.5"):
        holm([0.1, 1.5])


def test_kendall_tau_lines_methods_up_by_name():
    tau, p = kendall_tau({"a": 1.0, "b": 2.0, "c": 3.0, "x": 0.0}, {"c": 9.0, "a": 1.0, "b": 4.0})
    assert tau == 1.0
    assert p == pytest.approx(1 / 3)
    assert kendall_tau({"a": 1.0, "b": 2.0}, {"a": 2.0, "b": 1.0})[0] == -1.0
    with pytest.raises(ValueError, match=r"in common, got \['a'\]"):
        kendall_tau({"a": 1.0, "b": 2.0}, {"a": 2.0})


def evaluations(rng, *, effect, seeds, users=120):
    """One a seed: two domains, of which the first has three times the queries; half of its users are in the second."""
    domain = np.repeat([0, 1], [users, users // 3])
    user = np.concatenate([np.arange(users), np.arange(users // 3) + users // 2])
    order = np.lexsort((user, domain))
    metrics = [rng.random(len(domain)) * 0.5 + effect * (1 + domain) for _ in range(seeds)]
    ones = np.ones(len(domain), dtype=np.int64)
    return [
        Evaluation("x", ("big", "small"), "test", "corpus", True, domain[order], user[order], ones, {"mrr": m[order]})
        for m in metrics
    ]


def test_compare_is_the_sum_of_its_parts():
    rng = np.random.default_rng(0)
    runs = {
        "base": evaluations(rng, effect=0.0, seeds=3),
        "same": evaluations(rng, effect=0.0, seeds=4),
        "best": evaluations(rng, effect=0.2, seeds=5),
        "fixed": evaluations(rng, effect=0.0, seeds=1),
    }
    table = compare(runs, "base", num_resamples=400)
    assert len(table) == 4 * 3
    assert set(table["domain"]) == {"big", "small", "average"}
    row = table.set_index(["method", "domain"]).loc
    values = {name: np.stack([r.metrics["mrr"] for r in each]) for name, each in runs.items()}
    domain, user = runs["base"][0].domain, runs["base"][0].user
    for method, each in runs.items():
        macro = [r.average()["mrr"] for r in each]
        assert row[method, "average"]["mean"] == pytest.approx(np.mean(macro))
        small = [r.per_domain()["small"]["mrr"] for r in each]
        assert row[method, "small"]["mean"] == pytest.approx(np.mean(small))
        if len(macro) > 1:
            assert row[method, "average"]["std"] == pytest.approx(np.std(macro, ddof=1))
    best = row["best", "average"]
    direct = two_level_bootstrap(values["best"], values["base"], users=user, domains=domain, num_resamples=400)
    assert best["difference"] == pytest.approx(direct.estimate)
    assert (best["difference_low"], best["difference_high"]) == pytest.approx((direct.low, direct.high), rel=1e-9)
    assert best["difference_low"] < 0.3 < best["difference_high"]
    assert (table[table["method"] == "best"]["p_holm"] < 1e-6).all()
    assert (table[table["method"].isin(["same", "fixed"])]["p_holm"] > 0.05).all()
    np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))
    big = domain == 0
    plain = paired_test(values["best"][:, big], values["base"][:, big], user[big])
    assert (row["best", "big"]["p_t"], row["best", "big"]["p_wilcoxon"]) == (plain.t_p, plain.wilcoxon_p)
    assert table[table["method"] == "base"][["difference", "p", "p_holm"]].isna().all(axis=None)
    assert pd.isna(row["fixed", "big"]["std"])
    assert row["fixed", "big"]["low"] < row["fixed", "big"]["high"]  # users alone still give an interval


def test_compare_refuses_what_cannot_be_compared():
    rng = np.random.default_rng(0)
    base, other = (evaluations(rng, effect=0.0, seeds=2) for _ in range(2))
    with pytest.raises(ValueError, match="unknown reference 'c'; the methods are a, b"):
        compare({"a": base, "b": other}, "c")
    with pytest.raises(ValueError, match="'b' has no evaluation"):
        compare({"a": base, "b": []}, "a")
    changed = [other[0], dataclasses.replace(other[1], split="valid")]
    with pytest.raises(ValueError, match="evaluation 1 of 'b' has split 'valid', the first of 'a' has 'test'"):
        compare({"a": base, "b": changed}, "a")
    changed = [dataclasses.replace(other[0], user=other[0].user[::-1])]
    with pytest.raises(ValueError, match="evaluation 0 of 'b' is of other queries"):
        compare({"a": base, "b": changed}, "a")
    changed = [dataclasses.replace(other[0], metrics={"recall@1": other[0].metrics["mrr"]})]
    with pytest.raises(ValueError, match="lacks the metric mrr"):
        compare({"a": base, "b": changed}, "a")
    asked = compare(
        {"a": base, "b": [dataclasses.replace(b, metrics={"mrr": b.metrics["mrr"]}) for b in other]},
        "a",
        metrics=["mrr"],
    )
    assert set(asked["metric"]) == {"mrr"}, "what nobody asks for may be missing"


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="same queries, got 5 and 4"):
        two_level_bootstrap(np.zeros((2, 5)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="5 queries, but 3 users"):
        two_level_bootstrap(np.zeros((2, 5)), users=np.arange(3))
    with pytest.raises(ValueError, match="metrics must be finite"):
        two_level_bootstrap(np.array([[0.5, np.nan]]))
    with pytest.raises(ValueError, match="same queries, got 5 and 4"):
        paired_test(np.zeros(5), np.zeros(4))
    with pytest.raises(ValueError, match="at least 2 users, got 1"):
        paired_test(np.zeros(2), np.zeros(2), np.zeros(2))
