"""Random search at equal budget: the same points for every method, each trial kept, the test split untouched."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adi_lite.data.schema import Candidates
from adi_lite.data.xmarket_sample import load_xmarket_sample
from adi_lite.experiments import tuning
from adi_lite.experiments.named import named_config
from adi_lite.experiments.references import REFERENCES
from adi_lite.experiments.store import PUBLISHED
from adi_lite.experiments.tuning import REFERENCE_SPACE, SEARCHES, SPACE, Search, draw_trials, tune
from adi_lite.models.registry import NETWORKS

SMALL = {"dim": 8, "out_dim": 8, "epochs": 1, "batch_size": 1024}


@pytest.fixture
def counted(monkeypatch):
    """Trials that cost nothing; the settings of each are noted. One may be told to fail."""
    calls = []

    def trial(data, dataset, method, settings, metric, changes, exclude_seen):
        if len(calls) == trial.fails_at:
            raise KeyboardInterrupt
        calls.append((method, settings))
        return {metric: len(calls) % 3 / 10, "epochs": 1, "seconds": 0.0}

    trial.fails_at = None
    monkeypatch.setattr(tuning, "_trial", trial)
    return trial, calls


spaces = st.dictionaries(
    st.sampled_from("abcd"), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), max_size=4
)


@given(spaces, st.integers(0, 300), st.integers(0, 300), st.integers(0, 5))
def test_trials_are_distinct_points_and_fewer_are_the_first_of_more(space, few, more, seed):
    total = 1
    for values in space.values():
        total *= len(values)
    few, more = sorted((few, more))
    trials = draw_trials(space, more, seed)
    assert trials[:few] == draw_trials(space, few, seed)
    assert len(trials) == min(more, total) == len({tuple(t.items()) for t in trials})
    assert all(list(t) == list(space) and all(t[n] in space[n] for n in space) for t in trials)


def test_another_seed_draws_other_points():
    assert draw_trials(SPACE, 8, 0) != draw_trials(SPACE, 8, 1)


@pytest.mark.parametrize("method", NETWORKS)
@pytest.mark.parametrize("dataset", ["xmarket", *SEARCHES])
def test_every_point_is_a_configuration(method, dataset):
    search = SEARCHES.get(dataset, Search())
    for name, values in search.space.items():
        for value in values:
            changes = {**search.changes, **search.changes_of.get(method, {}), name: value}
            config = named_config(dataset, "tuned", method, **changes)
            assert value in (getattr(config.model, name, None), getattr(config.train, name, None))


@pytest.mark.parametrize("dataset", SEARCHES)
def test_settings_are_the_best_of_the_published_trials(dataset):
    """Every method had as many trials, the same ones; its configuration is the one that was best on validation data."""
    folder, search = PUBLISHED / "tuning" / dataset, SEARCHES[dataset]
    found = {method: json.loads((folder / f"{method}.json").read_text()) for method in NETWORKS}
    tried = [[t["settings"] for t in trials] for trials in found.values()]
    assert all(each == tried[0] for each in tried) and len(tried[0]) > 1
    for method, trials in found.items():
        best = max(trials, key=lambda t: t[search.metric])["settings"]
        assert named_config(dataset, "tuned", method, **best) == named_config(dataset, "tuned", method)


def test_every_reference_has_a_space():
    assert set(REFERENCE_SPACE) == set(REFERENCES)


def test_every_method_gets_the_same_trials(counted, tmp_path):
    _, calls = counted
    for method in ("dnn", "adi", "ple"):
        tune(None, "xmarket", method, 5, tmp_path / f"{method}.json", seed=2)
    points = {m: [s for method, s in calls if method == m] for m in ("dnn", "adi", "ple")}
    assert points["dnn"] == points["adi"] == points["ple"]
    assert len(points["dnn"]) == 5 and points["dnn"][0] == {}, "the first is the configuration as it is"


def test_stored_trials_are_not_run_again(counted, tmp_path):
    trial, calls = counted
    trial.fails_at = 2
    out = tmp_path / "new" / "adi.json"
    with pytest.raises(KeyboardInterrupt):
        tune(None, "xmarket", "adi", 4, out)
    stored = json.loads(out.read_text())
    assert [t["settings"] for t in stored] == json.loads(json.dumps([s for _, s in calls])) and len(stored) == 2
    trial.fails_at = None
    told = []
    found = tune(None, "xmarket", "adi", 4, out, report=told.append)
    assert len(calls) == 4 and len(told) == 2 and len(found) == 4
    assert json.loads(out.read_text())[:2] == stored
    assert tune(None, "xmarket", "adi", 4, out) == found and len(calls) == 4
    assert list(tmp_path.rglob("*.part")) == []


def test_best_first_of_those_that_were_asked_for(counted, tmp_path):
    out = tmp_path / "adi.json"
    many = tune(None, "xmarket", "adi", 6, out)
    assert [t["recall@10"] for t in many] == sorted((t["recall@10"] for t in many), reverse=True)
    few = tune(None, "xmarket", "adi", 2, out)
    assert len(few) == 2, "trials beyond the budget do not help"
    assert len(json.loads(out.read_text())) == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "t.json is damaged"),
        ("[{", "t.json is damaged"),
        ("{}", "no list of trials"),
        ("[3]", "no list of trials"),
        ('[{"method": "dnn", "settings": {}, "recall@10": 0.1}]', "trials of 'dnn', not trials of 'adi'"),
        ('[{"method": "adi", "settings": {}, "mrr": 0.1}]', "by recall@10"),
    ],
)
def test_files_that_hold_something_else(counted, tmp_path, text, says):
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(ValueError, match=says):
        tune(None, "xmarket", "adi", 2, tmp_path / "t.json")
    assert (tmp_path / "t.json").read_text() == text and counted[1] == []


def without_times(trials):
    return [{k: v for k, v in t.items() if k != "seconds"} for t in trials]


@pytest.mark.parametrize("method", ["dnn", "adi", *REFERENCE_SPACE])
def test_the_test_split_is_not_read(tmp_path, method):
    data = load_xmarket_sample(("s3",))
    lists = data.candidates["test"]
    absurd = data.replace(
        test=data.test.take(torch.arange(5)),
        candidates={**data.candidates, "test": Candidates(lists.user[:5], lists.domain[:5], lists.items[:5].flip(0))},
    )
    results = [
        without_times(tune(d, "xmarket", method, 2, tmp_path / f"{n}.json", changes=SMALL))
        for n, d in enumerate((data, absurd))
    ]
    assert results[0] == results[1]
    assert all(0 < t["recall@10"] < 1 and set(t["domains"]) == {"s3"} for t in results[0])
    gone = data.replace(test=data.test.take(torch.arange(0)), candidates={"valid": data.candidates["valid"]})
    assert without_times(tune(gone, "xmarket", method, 2, tmp_path / "gone.json", changes=SMALL)) == results[0]
