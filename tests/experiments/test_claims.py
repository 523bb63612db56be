"""Claims: what holds, what is reversed, what stays open, against paired tests made by hand."""

import numpy as np
import pytest
from scipy import stats

from adi_lite.evaluation.results import Evaluation
from adi_lite.experiments.claims import HOLDS, OPEN, REVERSED, at_a_glance, claims_table, judge, signed
from adi_lite.experiments.page import counted, verdict
from adi_lite.experiments.plans import Claim, Plan, Row
from adi_lite.experiments.runner import PlanResult
from adi_lite.experiments.store import StoredRun


def result_of(values, claims, domains=2, seeds=3, queries=400, draw=0):
    """A plan's result in which line ``label`` has the mean ``values[label][domain]`` and users differ."""
    rng = np.random.default_rng(draw)
    domain = np.repeat(np.arange(domains), queries)
    user = np.tile(np.arange(queries), domains)
    base = rng.random(len(user))
    runs = {}
    for label, means in values.items():
        runs[label] = []
        for _ in range(seeds):
            column = base + np.asarray(means)[domain] + 0.02 * rng.standard_normal(len(user))
            evaluation = Evaluation(
                "toy",
                tuple("AB"[:domains]),
                "test",
                "corpus",
                False,
                domain,
                user,
                np.ones_like(user),
                {"recall@10": column},
            )
            runs[label].append(StoredRun({}, {"corpus": evaluation}))
    rows = tuple(Row(label, label.upper(), "dnn") for label in values)
    plan = Plan("toy", "Toy", rows, {}, ("corpus",), (10,), next(iter(values)), claims=claims)
    return PlanResult(plan, "full", "toy", tuple("AB"[:domains]), {}, runs)


def outcomes(judgements):
    return {j.domain: j.outcome for j in judgements}


def test_ahead_behind_and_neither():
    claims = (Claim("a beats b", "a", ("b",)), Claim("b beats a", "b", ("a",)), Claim("a beats c", "a", ("c",)))
    result = result_of({"a": (0.1, 0.1), "b": (0.0, 0.0), "c": (0.1, 0.1)}, claims)
    found = judge(result)
    by_claim = {c.text: outcomes([j for j in found if j.claim is c]) for c in claims}
    assert by_claim["a beats b"] == {"A": HOLDS, "B": HOLDS, "average": HOLDS}
    assert by_claim["b beats a"] == {"A": REVERSED, "B": REVERSED, "average": REVERSED}
    assert by_claim["a beats c"] == {"A": OPEN, "B": OPEN, "average": OPEN}


def test_every_other_line_must_be_beaten_and_the_margin_is_to_the_best():
    claim = Claim("a beats all", "a", ("b", "c"))
    found = judge(result_of({"a": (0.1, 0.1), "b": (0.0, 0.0), "c": (0.1, 0.2)}, (claim,)))
    assert outcomes(found) == {"A": OPEN, "B": REVERSED, "average": REVERSED}
    assert found[1].margin.estimate == pytest.approx(-0.1, abs=0.01)
    assert str(found[1]).startswith("does not hold, -0.10")


def test_only_the_domains_that_it_is_made_for():
    found = judge(result_of({"a": (0.1, 0.0), "b": (0.0, 0.0)}, (Claim("a in A", "a", ("b",), (0,)),)))
    assert outcomes(found) == {"A": HOLDS}, "no average of one domain"


def test_a_margin_is_the_paired_difference():
    result = result_of({"a": (0.003, 0.0), "b": (0.0, 0.0)}, (Claim("a", "a", ("b",)),))
    first = judge(result)[0]
    runs = {k: np.stack([r.evaluations["corpus"].metrics["recall@10"] for r in v]) for k, v in result.runs.items()}
    here = result.runs["a"][0].evaluations["corpus"].domain == 0
    difference = (runs["a"] - runs["b"]).mean(0)[here]
    by_hand = stats.ttest_1samp(difference, 0).confidence_interval()
    assert first.margin.estimate == pytest.approx(difference.mean())
    assert (first.margin.low, first.margin.high) == pytest.approx((by_hand.low, by_hand.high), abs=4e-4)


def test_chance_alone_seldom_holds():
    """With Holm over all that is tested, a claim about equal lines holds or is reversed in at most about 5 % of plans."""
    wrong = 0
    for draw in range(20):
        result = result_of(dict.fromkeys("ab", (0.0, 0.0)), (Claim("a", "a", ("b",)),), draw=draw)
        wrong += any(j.outcome != OPEN for j in judge(result, num_resamples=300))
    assert wrong <= 4


def test_lines_that_were_not_run_are_passed_over():
    result = result_of({"a": (0.1, 0.1), "b": (0.0, 0.0)}, (Claim("a beats z", "a", ("z",)),))
    assert judge(result) == [] and verdict({"toy": []}) == ""


def test_tables():
    claims = (Claim("a beats b", "a", ("b",)), Claim("b in B", "b", ("a",), (1,)))
    found = judge(result_of({"a": (0.1, 0.1), "b": (0.0, 0.0)}, claims))
    table = claims_table({"toy": found, "again": found[:3]})
    assert list(table.columns) == ["domain 1", "domain 2", "average"] and len(table) == 3
    assert table.loc[("b in B", "toy")].tolist()[::2] == ["", ""]
    assert table.loc[("b in B", "toy"), "domain 2"].startswith("does not hold\n-0.")
    glance = at_a_glance({"toy": found, "again": found[:3]})
    assert list(glance.columns) == ["domain 1", "domain 2", "average"]
    assert glance.loc[("a beats b", "again"), "domain 1"].startswith("✓ +0.")
    assert glance.loc[("b in B", "toy")].tolist()[::2] == ["", ""]
    assert glance.loc[("b in B", "toy"), "domain 2"].startswith("✗ -0.")
    lines = verdict({"toy": found}).splitlines()
    assert lines[0].startswith("- toy: a beats b: **holds** (+0.") and len(lines) == 2
    assert counted(found) == "1 holds, 0 are open, 1 does not hold"


def test_zero_has_no_sign():
    assert [signed(v) for v in (0.0, -0.0004, 0.0004, -0.0006, 0.1)] == ["0.000", "0.000", "0.000", "-0.001", "+0.100"]
