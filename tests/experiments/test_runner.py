"""Running a plan: every line and seed once, equal to training and evaluating by hand, stored under what was run."""

import dataclasses

import numpy as np
import pytest

from adi_lite.data import download
from adi_lite.data.download import DataFileError, OutOfReachError
from adi_lite.data.xmarket_sample import load_xmarket_sample
from adi_lite.evaluation.metrics import evaluate
from adi_lite.experiments import runner
from adi_lite.experiments.industrial import INDUSTRIAL, PROFILES_OF
from adi_lite.experiments.named import reference_settings
from adi_lite.experiments.plans import Plan, Profile, Row
from adi_lite.experiments.references import build_reference
from adi_lite.experiments.runner import STAND_IN, MissingRunsError, load_for, row_config, run_plan, run_row
from adi_lite.training.trainer import fit

SMALL = {"dim": 8, "out_dim": 8, "hidden": (8,), "batch_size": 1024, "epochs": 4}
SIZE = Profile("xmarket-sample", 2, 0.5, SMALL, {"markets": ("s2", "s3")})
PLAN = Plan(
    name="test",
    title="A plan",
    rows=(
        Row("plain", "DNN", "dnn"),
        Row("wide", "DNN, wider", "dnn", {"dropout": 0.0}),
        Row("count", "Popularity", "popularity", reference=True),
    ),
    profiles={"smoke": SIZE},
    protocols=("candidates", "corpus"),
    ks=(10,),
    main="plain",
)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("ADI_LITE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ADI_LITE_MIRROR", raising=False)
    monkeypatch.setattr(download, "_unreachable", {})
    return tmp_path / "runs"


@pytest.fixture
def trainings(monkeypatch):
    """The (label, seed) of every run that was not found."""
    done, real = [], runner.run_row

    def run_row(plan, row, config, data):
        done.append((row.label, config and config.train.seed))
        return real(plan, row, config, data)

    monkeypatch.setattr(runner, "run_row", run_row)
    return done


def smaller(**changes):
    return dataclasses.replace(PLAN, profiles={"smoke": dataclasses.replace(SIZE, **changes)})


def test_each_line_and_seed_runs_once_seed_by_seed(trainings):
    said = []
    first = run_plan(PLAN, "smoke", report=said.append)
    assert trainings == [("plain", 0), ("wide", 0), ("count", None), ("plain", 1), ("wide", 1)]
    assert {label: len(runs) for label, runs in first.runs.items()} == {"plain": 2, "wide": 2, "count": 1}
    assert sum("Recall@10" in line for line in said) == 5 and said[-1].startswith("[5/5] DNN, wider, seed 1")
    again = run_plan(PLAN, "smoke")
    assert len(trainings) == 5
    for protocol in PLAN.protocols:
        for label, found in again.evaluations(protocol).items():
            for one, two in zip(found, first.evaluations(protocol)[label], strict=True):
                assert one.average() == two.average() and one.protocol == protocol
    assert [r.about for runs in again.runs.values() for r in runs] == [
        r.about for runs in first.runs.values() for r in runs
    ]


def test_a_run_is_training_and_evaluating_by_hand():
    result = run_plan(PLAN, "smoke", only=("wide",))
    data = load_xmarket_sample(("s2", "s3"), validation=None)
    config = row_config(PLAN.row("wide"), SIZE, "xmarket", 1)
    assert (config.train.epochs, config.model.dropout, config.model.dim) == (2, 0.0, 8)
    by_hand = evaluate(fit(data, config).scorer, data, "test", "candidates", ks=(10,))
    stored = result.runs["wide"][1]
    assert np.array_equal(stored.evaluations["candidates"].metrics["recall@10"], by_hand.metrics["recall@10"])
    assert stored.about["metrics"]["candidates"]["average"] == by_hand.average()
    assert stored.about["notes"]["candidates"] == by_hand.describe()
    assert len(stored.about["epochs"]) == 2 and stored.about["parameters"]["networks"] > 0
    assert result.domains == ("s2", "s3") and result.dataset.endswith(STAND_IN)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 1, "changes": {**SMALL, "dim": 4, "out_dim": 4}},
        {"seeds": 1, "options": {"markets": ("s3", "s2")}},
        {"seeds": 1, "options": {"markets": ("s2", "s3"), "seed": 1}},
        {"seeds": 1, "epochs": 0.25},
    ],
    ids=["settings", "markets", "candidates", "epochs"],
)
def test_a_change_is_another_run(trainings, change):
    run_plan(smaller(seeds=1), "smoke", only=("plain",))
    run_plan(smaller(**change), "smoke", only=("plain",))
    assert trainings == [("plain", 0)] * 2


def test_references_run_with_the_settings_that_were_chosen_for_the_data():
    data = load_xmarket_sample(("s3",), validation=None)
    chosen = reference_settings("xmarket")["item_knn"]
    for name in ("xmarket-s3", "xmarket-sample"):
        about, evaluations = run_row(PLAN, Row("knn", "ItemKNN", "item_knn"), None, data.replace(name=name))
        by_hand = evaluate(build_reference("item_knn", chosen).fit(data), data, ks=(10,))
        assert about["config"] == chosen != {}
        assert evaluations["candidates"].average() == by_hand.average()


def test_more_seeds_add_runs(trainings):
    run_plan(smaller(seeds=1), "smoke", only=("plain",))
    run_plan(smaller(seeds=3), "smoke", only=("plain",))
    assert trainings == [("plain", 0), ("plain", 1), ("plain", 2)]


def test_a_plan_that_is_stopped_goes_on(monkeypatch, trainings):
    counted = runner.run_row

    def stop(plan, row, config, data):
        if row.label == "count":
            raise KeyboardInterrupt
        return counted(plan, row, config, data)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_row", stop)
        with pytest.raises(KeyboardInterrupt):
            run_plan(PLAN, "smoke")
    assert trainings == [("plain", 0), ("wide", 0)]
    run_plan(PLAN, "smoke")
    assert trainings[2:] == [("count", None), ("plain", 1), ("wide", 1)]


def test_unknown_lines_and_sizes(trainings):
    with pytest.raises(ValueError, match="plan 'test' has no line nope; it has plain, wide, count"):
        run_plan(PLAN, "smoke", only=("plain", "nope"))
    with pytest.raises(ValueError, match="unknown profile 'full'; choose smoke"):
        run_plan(PLAN, "full")
    assert trainings == []


def test_a_sample_stands_in_for_data_out_of_reach_but_never_for_damaged_data(monkeypatch):
    said = []

    def give(error):
        real = runner.load_dataset

        def load(name, **options):
            if name == "xmarket":
                raise error
            return real(name, **options)

        return load

    size = dataclasses.replace(SIZE, dataset="xmarket")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "load_dataset", give(OutOfReachError("no files")))
        data = load_for(size, said.append)
    assert data.name == "xmarket-sample" and "sample" in data.notes and len(data.valid) == 0
    assert "no files" in said[0] and "stands in" in said[0]
    monkeypatch.setattr(runner, "load_dataset", give(DataFileError("altered")))
    with pytest.raises(DataFileError, match="altered"):
        load_for(size)


def test_a_plan_is_read_without_training_only_when_all_its_runs_are_there(trainings):
    with pytest.raises(MissingRunsError, match="3 of 3 runs are not there at the profile 'smoke'"):
        run_plan(smaller(seeds=1), "smoke", train=False)
    whole = run_plan(smaller(seeds=1), "smoke")
    done = len(trainings)
    again = run_plan(smaller(seeds=1), "smoke", train=False)
    assert len(trainings) == done and again.runs.keys() == whole.runs.keys()
    with pytest.raises(MissingRunsError, match="2 of 5 runs"):
        run_plan(smaller(seeds=2), "smoke", train=False)
    assert len(trainings) == done


@pytest.mark.parametrize("name", PROFILES_OF)
def test_no_cut_off_covers_a_small_catalogue(name):
    size = PROFILES_OF[name]["smoke"]
    smallest = min(len(c) for c in load_for(size).as_of("test").catalogues)
    assert 2 * max(size.ks) < smallest
    (plan,) = [p for p in INDUSTRIAL if p.name == f"table2-{name}"]
    assert plan.at("smoke").metric == "recall@20" and plan.at("full").metric == "recall@500" and plan.at("full") == plan
