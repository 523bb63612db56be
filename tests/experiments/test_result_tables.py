"""Paper | here: the paper's figures at their places, means and intervals as measured, verdicts by their definition."""

import numpy as np
import pandas as pd
import pytest

from adi_lite.data.paper import paper_table
from adi_lite.evaluation.results import Evaluation
from adi_lite.experiments.plans import Plan, Row
from adi_lite.experiments.runner import PlanResult
from adi_lite.experiments.store import StoredRun
from adi_lite.experiments.tables import best_on_average, cost, orders, side_by_side, summary

METRIC = "recall@10"
USERS = 60


def one_run(level, seed, neural=True):
    """Queries of three domains whose chance of a hit is about ``level``, the same queries for every method."""
    rng = np.random.default_rng([7, seed])
    hit = (rng.random(3 * USERS) < level).astype(float)
    evaluation = Evaluation(
        "d", ("s1", "s2", "s3"), "test", "candidates", False, np.repeat(np.arange(3), USERS), np.arange(3 * USERS),
        np.ones(3 * USERS, dtype=int), {METRIC: hit},
    )  # fmt: skip
    epochs = [{"epoch": 0}, {"epoch": 1}] if neural else []
    parameters = {"networks": 10, "embeddings": 20} if neural else None
    about = {"epochs": epochs, "parameters": parameters}
    return StoredRun(about, {"candidates": evaluation})


def result(**levels):
    rows = (
        Row("adi", "ADI", "adi", paper="ADI"),
        Row("dnn", "DNN", "dnn", paper="DNN"),
        Row("ple", "PLE", "ple", paper="PLE"),
        Row("count", "Popularity", "popularity", reference=True),
    )
    plan = Plan("t", "T", rows, {}, ("candidates",), (10,), "adi", paper_table=3)
    runs = {
        label: [one_run(level, seed, label != "count") for seed in range(1 if label == "count" else 2)]
        for label, level in levels.items()
    }
    return PlanResult(plan, "smoke", "d", ("s1", "s2", "s3"), {}, runs)


@pytest.fixture(scope="module")
def clear():
    return result(adi=0.9, dnn=0.5, ple=0.3, count=0.1)


@pytest.fixture(scope="module")
def table(clear):
    return summary(clear, "candidates", METRIC, "adi")


def test_a_row_for_each_line_and_domain(table):
    assert len(table) == 4 * 4
    assert list(dict.fromkeys(table["domain"])) == ["s1", "s2", "s3", "average"]
    assert table.groupby("label")["seeds"].first().to_dict() == {"adi": 2, "dnn": 2, "ple": 2, "count": 1}


def test_means_are_those_of_the_runs_and_lie_in_their_intervals(clear, table):
    for label, runs in clear.runs.items():
        for domain in (*clear.domains, "average"):
            row = table[(table["label"] == label) & (table["domain"] == domain)].iloc[0]
            each = [r.evaluations["candidates"] for r in runs]
            values = [e.average() if domain == "average" else e.per_domain()[domain] for e in each]
            assert row["mean"] == pytest.approx(np.mean([v[METRIC] for v in values]))
            assert row["low"] <= row["mean"] <= row["high"]


def test_the_papers_figures_stand_in_their_places(table):
    printed = paper_table(3).query("metric == @METRIC").set_index(["method", "domain"])["value"]
    names = {"s1": "D1", "s2": "D2", "s3": "D3", "average": "avg"}
    for row in table.itertuples():
        if row.label == "count":
            assert np.isnan(row.paper)
        else:
            assert row.paper == printed[row.title, names[row.domain]]


def test_side_by_side(table):
    shown = side_by_side(table)
    assert list(shown.index) == ["ADI", "DNN", "PLE", "Popularity"]
    assert list(shown.columns) == [(d, c) for d in ("s1", "s2", "s3", "average") for c in ("paper", "here")]
    assert shown.loc["ADI", ("average", "paper")] == "0.466" and shown.loc["Popularity", ("s1", "paper")] == "–"
    row = table[(table["label"] == "adi") & (table["domain"] == "s1")].iloc[0]
    assert shown.loc["ADI", ("s1", "here")] == f"{row['mean']:.3f} ± {(row['high'] - row['low']) / 2:.3f}"
    without = side_by_side(table.assign(paper=np.nan), digits=2)
    assert list(without.columns) == ["s1", "s2", "s3", "average"], "no word on the paper's figures where there are none"


def test_verdicts(table):
    verdict = best_on_average(table, "adi", METRIC)
    assert verdict.outcome == "holds" and "best other DNN" in str(verdict)
    losing = summary(result(adi=0.3, dnn=0.9, ple=0.1), "candidates", METRIC, "adi")
    assert best_on_average(losing, "adi", METRIC).outcome == "does not hold"
    assert best_on_average(losing, "adi", METRIC, among=("ple", "adi")).outcome == "holds"
    same = summary(result(adi=0.5, dnn=0.5, ple=0.1), "candidates", METRIC, "adi")
    assert best_on_average(same, "adi", METRIC).outcome == "open"


def test_a_verdict_gives_the_difference_as_the_line_minus_the_best_other(table):
    average = table[table["domain"] == "average"].set_index("label")["mean"]
    assert f"difference {average['adi'] - average['dnn']:+.4f} [" in best_on_average(table, "adi", METRIC).because


def test_orders(clear):
    def domains(levels):
        found = result(**levels)
        return orders(found, summary(found, "candidates", METRIC, "adi")).set_index("domain")

    # The paper's averages: DNN 0.344 < PLE 0.424 < ADI 0.466.
    assert domains({"adi": 0.9, "ple": 0.5, "dnn": 0.1, "count": 0.3}).loc["average", "tau"] == pytest.approx(1)
    reverse = domains({"adi": 0.1, "ple": 0.5, "dnn": 0.9})
    assert reverse.loc["average", "tau"] == pytest.approx(-1) and (reverse["methods"] == 3).all()


def test_cost(clear):
    table = cost(clear)
    assert isinstance(table, pd.DataFrame) and list(table.index) == ["ADI", "DNN", "PLE", "Popularity"]
    assert table.loc["ADI", "network parameters"] == 10 and table.loc["Popularity", "network parameters"] == 0
    assert table.loc["ADI", "epochs"] == 2 and np.isnan(table.loc["Popularity", "epochs"])
