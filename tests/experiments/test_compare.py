"""Comparing on own data: figures as by hand, runs kept and found by content, verdicts that say what figures say."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from adi_lite.data.schema import Interactions
from adi_lite.data.simulator import SimulatorConfig, simulate
from adi_lite.data.tables import dataset_from_frames
from adi_lite.evaluation.metrics import evaluate
from adi_lite.evaluation.results import Evaluation
from adi_lite.evaluation.significance import compare as compare_all
from adi_lite.evaluation.significance import holm
from adi_lite.experiments import compare as module
from adi_lite.experiments import runner, tuning
from adi_lite.experiments.compare import MULTI_DOMAIN, compare, judge
from adi_lite.experiments.named import named_config, settings_to_fit
from adi_lite.experiments.plans import REFERENCES, Plan, Profile, Row
from adi_lite.experiments.references import build_reference
from adi_lite.experiments.runner import PlanResult
from adi_lite.experiments.store import StoredRun
from adi_lite.models.registry import TITLES
from adi_lite.training.trainer import fit

SMALL = {"dim": 4, "out_dim": 4, "hidden": (4,), "batch_size": 512, "epochs": 2}
TITLES_OF = {row.label: row.title for row in REFERENCES}
METHODS = ("dnn_single", "dnn", "mmoe", "adi")
QUICK = {"methods": ("dnn", "adi"), "references": ("popularity",), "seeds": 1, "changes": SMALL}


def own_data(records=1500, seed=0, users=60, items=50, **options):
    """Tables of two shops with items of a user's own half; the last record is of an item that training never saw."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, records)
    item = rng.integers(0, items // 2, records) * 2 + user % 2
    frame = pd.DataFrame(
        {
            "user_id": [f"u{u}" for u in user],
            "item_id": [f"v{i}" for i in item],
            "domain": np.where(np.arange(records) % 3 == 0, "north", "south"),
            "timestamp": np.arange(records) * 3600,
        }
    )
    frame.loc[records - 1, "item_id"] = "new"
    return dataset_from_frames(frame, name="shops", **options)


@pytest.fixture(scope="module")
def data():
    return own_data()


@pytest.fixture
def work(monkeypatch):
    """The runs and the trials that were not found: (label, seed) and names."""
    done = []
    run, trial = runner.run_row, tuning._trial

    def run_row(plan, row, config, data):
        done.append((row.label, config and config.train.seed))
        return run(plan, row, config, data)

    def one_trial(data, dataset, method, *rest):
        done.append(f"trial of {method}")
        return trial(data, dataset, method, *rest)

    monkeypatch.setattr(runner, "run_row", run_row)
    monkeypatch.setattr(tuning, "_trial", one_trial)
    return done


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    said = []
    folder = tmp_path_factory.mktemp("runs")
    return compare(data, methods=METHODS, seeds=2, changes=SMALL, store=folder, report=said.append), said


def test_figures_are_those_of_training_and_evaluating_by_hand(data, found):
    comparison, _ = found
    table = comparison.table.set_index("method")
    fitted: dict = {}  # a new item is in no history, so that the table can be shared
    assert settings_to_fit(data) == fitted
    by_hand = {}
    for name in METHODS:
        configs = [named_config("default", "tuned", name, **{**fitted, **SMALL, "seed": seed}) for seed in (0, 1)]
        assert configs[0].train.patience == 3 and configs[0].model.equal_size
        by_hand[name] = [evaluate(fit(data, c).scorer, data, "test", "corpus") for c in configs]
    for name in ("popularity", "item_knn", "ease", "ials"):
        settings = comparison.result.runs[name][0].about["config"]
        by_hand[name] = [evaluate(build_reference(name, settings).fit(data), data, "test", "corpus")]
    for name, each in by_hand.items():
        for domain in data.domains:
            mean = np.mean([e.per_domain()[domain]["recall@10"] for e in each])
            assert table.loc[name, f"recall@10 {domain}"] == pytest.approx(mean)
        assert table.loc[name, "average"] == pytest.approx(np.mean([e.average()["recall@10"] for e in each]))
    expected = compare_all(by_hand, comparison.main, metrics=["recall@10"])
    domains = expected[expected["domain"] != "average"]
    np.testing.assert_allclose(comparison.by_domain.query("domain != 'average'")["p_holm"], holm(domains["p"]))
    expected = expected[expected["domain"] == "average"].set_index("method").loc[table.index]
    expected["p_holm"] = holm(expected["p"])
    for ours, theirs in {"low": "low", "high": "high", "difference": "difference", "p": "p_holm"}.items():
        np.testing.assert_allclose(table[ours], expected[theirs])
    assert comparison.counted == by_hand["adi"][0].counted and comparison.skipped == by_hand["adi"][0].skipped > 0
    assert list(table["average"]) == sorted(table["average"], reverse=True)


def test_the_model_is_chosen_on_the_validation_part(found):
    runs = found[0].result.runs
    best = {m: np.mean([max(e["valid"] for e in r.about["epochs"]) for r in runs[m]]) for m in ("mmoe", "adi")}
    assert found[0].main == max(best, key=best.get)


def test_references_have_the_best_of_the_same_number_of_trials(data, found):
    comparison, said = found
    for name in ("item_knn", "ease", "ials"):
        points = [{}, *tuning.draw_trials(tuning.REFERENCE_SPACE[name], module.TRIALS - 1, 0)]
        scorers = [build_reference(name, p).fit(data) for p in points]
        scores = [evaluate(s, data, "valid", "corpus").average()["recall@10"] for s in scorers]
        best = vars(build_reference(name, points[int(np.argmax(scores))]))
        assert comparison.result.runs[name][0].about["config"] == best
        assert sum(line.startswith(TITLES_OF[name]) and "on validation" in line for line in said) == len(points)


def test_json(found):
    comparison, _ = found
    plain = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert [row["method"] for row in plain["table"]] == list(comparison.table["method"])
    own = next(row for row in plain["table"] if row["method"] == comparison.main)
    assert own["difference"] is None and own["average"] == pytest.approx(
        comparison.table.set_index("method").loc[comparison.main, "average"]
    )
    assert plain["verdict"] == comparison.verdict and plain["counted"] == comparison.counted


def test_kept_runs_are_found_and_a_stopped_comparison_goes_on(data, work, tmp_path, monkeypatch):
    counted = runner.run_row

    def stop(plan, row, config, data):
        if row.label == "adi":
            raise KeyboardInterrupt
        return counted(plan, row, config, data)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "run_row", stop)
        with pytest.raises(KeyboardInterrupt):
            compare(data, **QUICK, store=tmp_path)
    assert work == ["trial of popularity", ("dnn", 0)]
    first = compare(own_data(), **QUICK, store=tmp_path)
    assert work[2:] == [("adi", 0), ("popularity", None)]
    again = compare(data, **QUICK, store=tmp_path)
    assert len(work) == 4
    pd.testing.assert_frame_equal(again.table, first.table)
    assert again.to_dict() == first.to_dict()


def swapped(part):
    """The part with its first two records' items taken by each other's user."""
    user = part.user.clone()
    user[[0, 1]] = user[[1, 0]]
    return Interactions(user, part.item, part.domain, part.timestamp)


@pytest.mark.parametrize("part", ["train", "valid", "test", "ids"])
def test_other_data_of_the_same_name_never_find_them(data, work, tmp_path, part):
    compare(data, **QUICK, store=tmp_path)
    if part == "ids":
        ids = data.user_ids.copy()
        ids[0] = "somebody else"
        other = data.replace(user_ids=ids)
    else:
        other = data.replace(**{part: swapped(data.split(part))})
    before = len(work)
    compare(other, **QUICK, store=tmp_path)
    assert before == 4 and work[before:] == work[:before]


def test_without_a_store_runs_go_where_new_runs_go(data, work, tmp_path, monkeypatch):
    monkeypatch.setenv("ADI_LITE_RUNS", str(tmp_path))
    compare(data, **{**QUICK, "references": ()})
    assert len(list((tmp_path / "compare").glob("adi-0-*.json"))) == 1


def test_domains_without_enough_test_users_are_left_out_and_named(tmp_path):
    data = simulate(SimulatorConfig(num_users=200, num_items=60, num_records=1500, num_domains=3), 0)
    test = data.test
    first = (test.domain == 1).nonzero()[:2, 0]
    none = data.replace(test=test.take((test.domain != 2) & (test.domain != 1)))
    few = data.replace(test=Interactions.concat([none.test, test.take(first)]))
    for case, named in ((none, "D2 (0), D3 (0)"), (few, "D3 (0)")):
        comparison = compare(case, **QUICK, store=tmp_path)
        assert [c for c in comparison.table if c.startswith("recall@10 ")] == ["recall@10 D1"]
        assert any(named in note and "not judged" in note for note in comparison.notes)
        assert np.isfinite(comparison.table.set_index("method").loc["dnn", ["low", "high", "p"]].astype(float)).all()
        assert comparison.counted == len(torch.unique(none.test.user))


def test_data_without_histories_or_item_ids(make_tiny, tmp_path):
    tiny = make_tiny(users=20, records=400, rich=True, history=False)
    schema, items = tiny.schema, {n: c for n, c in tiny.items.items() if n != "item_id"}
    features = tuple(f for f in schema.item if f.name != "item_id")
    data = tiny.replace(schema=type(schema)(schema.domains, schema.user, features, False), items=items)
    assert settings_to_fit(data) == {"item_bias": False, "user": "id", "tie_history": False}
    data = data.replace(test=data.train.take(torch.arange(60)), train=data.train.take(torch.arange(60, 394)))
    comparison = compare(data, **QUICK, store=tmp_path)
    assert len(comparison.table) == 3 and any("item_bias=False" in note for note in comparison.notes)


def test_ease_is_left_out_where_its_matrices_do_not_fit(data, work, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EASE_BYTES", 4 * sum(len(c) ** 2 for c in data.catalogues) - 1)
    said = []
    comparison = compare(data, **{**QUICK, "references": ("ease", "popularity")}, store=tmp_path, report=said.append)
    assert "ease" not in set(comparison.table["method"]) and "trial of ease" not in work
    assert any("EASE was left out" in note for note in comparison.notes) and "EASE was left out" in said[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("adi", "nope")}, "unknown method 'nope'; choose dnn_single, dnn"),
        ({"references": ("nope",)}, "unknown reference 'nope'; choose popularity"),
        ({"methods": ("dnn", "dnn_single")}, "at least one multi-domain model among the methods: shared_bottom"),
        ({"methods": ("adi",), "references": ()}, "nothing to compare with"),
        ({"seeds": 0}, "seeds and k must be at least 1, got 0 and 10"),
        ({"changes": {"method": "dnn"}}, "'method' cannot be changed"),
        ({"changes": {"patience": None}}, "stops early on the validation part"),
        ({"changes": {"nope": 1}}, "unknown setting 'nope'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(data, work, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        compare(data, **{**QUICK, "store": tmp_path, **changes})
    assert work == []


def test_data_that_cannot_be_compared_are_refused_before_any_work(data, work, tmp_path):
    only_south = data.valid.take(data.valid.domain == data.domains.index("south"))
    everything = data.train.take(data.train.domain == data.domains.index("south"))
    cases = [
        (own_data(valid=0.0), "the valid part of 'shops' is empty"),
        (data.replace(test=Interactions.empty()), "the test part of 'shops' is empty"),
        (
            data.replace(valid=only_south),
            "'north' has no record in the valid part, which the early stopping of dnn_single",
        ),
        (data.replace(train=everything), "'north' has no record in the train part, which every method"),
        (data.replace(test=data.test.take(torch.arange(3))), "no domain of 'shops' has 5 users in the test part"),
    ]
    for case, message in cases:
        with pytest.raises(ValueError, match=message):
            compare(case, methods=METHODS, changes=SMALL, store=tmp_path)
    assert work == []
    compare(data.replace(valid=only_south), **QUICK, store=tmp_path)  # without a model for each domain, it can


# Verdicts, on constructed results

DOMAINS, USERS = ("a", "b", "c"), 400


def result(levels, valid, seeds=2):
    """Runs whose chance of a hit in each domain is given: a number, or one for each domain."""
    rows, runs = [], {}
    references = {row.label: row for row in REFERENCES}
    for label, level in levels.items():
        rows.append(references.get(label) or Row(label, TITLES[label], label))
        chance = np.broadcast_to(np.asarray(level, dtype=float), 3)
        runs[label] = [one_run(chance, seed, valid.get(label)) for seed in range(1 if label in references else seeds)]
    plan = Plan("compare", "T", tuple(rows), {"full": Profile("default", seeds)}, ("corpus",), (10,), "adi")
    return PlanResult(plan, "full", "d", DOMAINS, {}, runs)


def one_run(chance, seed, valid):
    rng = np.random.default_rng([7, seed])  # the same users are easy for every method
    hit = (rng.random((3, USERS)) < chance[:, None]).astype(float).ravel()
    evaluation = Evaluation(
        "d", DOMAINS, "test", "corpus", True, np.repeat(np.arange(3), USERS), np.tile(np.arange(USERS), 3),
        np.ones(3 * USERS, dtype=int), {"recall@10": hit}, skipped=11,
    )  # fmt: skip
    return StoredRun({"epochs": [{"valid": valid}, {"valid": 0.0}]}, {"corpus": evaluation})


def test_one_that_is_clearly_better_pays_off():
    levels = {"dnn_single": (0.2, 0.2, 0.9), "dnn": 0.4, "adi": 0.6, "mmoe": 0.1, "ease": 0.35, "popularity": 0.1}
    comparison = judge(result(levels, {"adi": 0.5, "mmoe": 0.2}, seeds=5), "recall@10", ["a note"])
    assert (comparison.outcome, comparison.main) == ("pays off", "adi")
    verdict = comparison.verdict
    assert verdict.startswith("A multi-domain model pays off here: ADI is ahead of all")
    assert "It is ahead of DNN-Single (one model a domain)" in verdict and "It is ahead of DNN (one plain" in verdict
    assert "It is ahead of EASE (the best of the references)" in verdict and "Popularity" not in verdict
    table = comparison.table.set_index("method")
    single = table.loc["dnn_single"]
    low, high = -single["difference_high"], -single["difference_low"]
    figures = f"difference {-single['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p"
    assert figures in verdict and single["difference"] < 0
    assert single["average"] - table.loc["adi", "average"] == pytest.approx(single["difference"])
    helps, hurts = verdict.split("By domain, against DNN-Single: it helps in ")[1].split("; it hurts in ")
    assert "a (+0." in helps and "b (+0." in helps and "c (-0." in hurts
    assert (comparison.counted, comparison.skipped) == (3 * USERS, 11)
    assert comparison.notes[0] == "a note" and "1200 queries" in comparison.notes[1]


def test_no_difference_is_no_evidence():
    comparison = judge(
        result({"dnn_single": 0.5, "dnn": 0.3, "adi": 0.505, "ease": 0.2}, {"adi": 0.5}, seeds=5), "recall@10"
    )
    assert comparison.outcome == "open"
    assert comparison.verdict.startswith(
        "There is no evidence that a multi-domain model pays off here: ADI cannot be told from DNN-Single."
    )
    assert "It cannot be told from DNN-Single (one model a domain)" in comparison.verdict
    assert "By domain, against DNN-Single: there is no evidence in a (" in comparison.verdict


def test_a_simple_reference_ahead_is_said():
    levels = {"dnn_single": 0.3, "dnn": 0.3, "adi": 0.5, "ease": 0.7, "popularity": 0.1}
    comparison = judge(result(levels, {"adi": 0.5}, seeds=5), "recall@10")
    assert comparison.outcome == "does not pay off"
    assert comparison.verdict.startswith("A multi-domain model does not pay off here: ahead of ADI is EASE.")
    assert "It is ahead of DNN-Single" in comparison.verdict
    assert "It is behind EASE (the best of the references), 0." in comparison.verdict


def test_one_model_a_domain_ahead_is_said():
    comparison = judge(result({"dnn_single": 0.7, "dnn": 0.6, "adi": 0.4}, {"adi": 0.5}, seeds=5), "recall@10")
    assert comparison.outcome == "does not pay off"
    assert "ahead of ADI are DNN-Single, DNN." in comparison.verdict and "it hurts in a (-0." in comparison.verdict
    assert "references" not in comparison.verdict


def test_the_test_part_does_not_choose_the_model():
    comparison = judge(result({"dnn": 0.4, "adi": 0.4, "mmoe": 0.8}, {"adi": 0.6, "mmoe": 0.5}, seeds=1), "recall@10")
    assert comparison.main == "adi" and comparison.outcome == "open"
    assert comparison.table.loc[0, "method"] == "mmoe"
    assert "By domain, against DNN:" in comparison.verdict and "one seed" in comparison.notes[-1]


def test_every_network_is_a_baseline_or_multi_domain():
    assert set(MULTI_DOMAIN) | set(module.BASELINES) == set(TITLES)
