"""The store of finished runs: found by what was run, never by half, never mistaken for another."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adi_lite.evaluation.results import Evaluation
from adi_lite.experiments.store import Store, run_id, runs_folder

KEY = {
    "label": "adi-0",
    "dataset": "d",
    "options": {"markets": ("s1", "s2")},
    "candidates": {"test": "drawn, seed 0"},
    "settings": {"model": {"dim": 8}, "train": {"seed": 0}},
}


def evaluation(value=0.5):
    return Evaluation(
        "d", ("a",), "test", "corpus", True, np.zeros(2, int), np.arange(2), np.ones(2, int), {"mrr": np.full(2, value)}
    )


def changed(key, path, value):
    whole = json.loads(json.dumps(key))
    place = whole
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return whole


@given(st.permutations(list(KEY)))
def test_equal_keys_have_equal_ids(names):
    assert run_id({n: KEY[n] for n in names}) == run_id(KEY)
    assert run_id(json.loads(json.dumps(KEY))) == run_id(KEY)
    assert run_id(KEY).startswith("adi-0-")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["dataset"], "other"),
        (["options"], {}),
        (["options", "markets"], ["s2", "s1"]),
        (["candidates", "test"], "official"),
        (["settings", "model", "dim"], 16),
        (["settings", "train", "seed"], 1),
        (["settings", "train", "more"], None),
    ],
)
def test_whatever_changes_has_another_id_and_is_not_found(tmp_path, path, value):
    other = changed(KEY, path, value)
    assert run_id(other) != run_id(KEY)
    store = Store(tmp_path)
    store.put(KEY, {}, {"corpus": evaluation()})
    assert store.find(other) is None


def test_what_is_kept_is_found(tmp_path):
    store = Store(tmp_path / "new" / "folder")
    assert store.find(KEY) is None
    put = store.put(
        KEY, {"seconds": 1.5, "metrics": {"mrr": 0.5}}, {"corpus": evaluation(), "candidates": evaluation(1)}
    )
    found = store.find(KEY)
    assert found.about == put.about
    assert found.about["seconds"] == 1.5 and found.about["key"]["options"] == {"markets": ["s1", "s2"]}
    assert list(found.evaluations) == ["corpus", "candidates"]
    assert found.evaluations["corpus"].average() == {"mrr": 0.5}
    assert found.evaluations["candidates"].average() == {"mrr": 1.0}


def test_published_runs_come_first_and_are_never_written(tmp_path):
    published, own = tmp_path / "published", tmp_path / "own"
    Store(own).put(KEY, {"from": "own"}, {"corpus": evaluation()})
    both = Store(own, published)
    assert both.find(KEY).about["from"] == "own"
    Store(published).put(KEY, {"from": "published"}, {"corpus": evaluation()})
    assert both.find(KEY).about["from"] == "published"
    before = {p: p.read_bytes() for p in published.iterdir()}
    both.put(changed(KEY, ["dataset"], "e"), {}, {"corpus": evaluation()})
    assert {p: p.read_bytes() for p in published.iterdir()} == before


def test_a_run_cut_off_is_not_found(tmp_path, monkeypatch):
    store = Store(tmp_path)

    def cut(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("adi_lite.experiments.store.os.replace", cut)
        with pytest.raises(KeyboardInterrupt):
            store.put(KEY, {}, {"corpus": evaluation()})
    assert store.find(KEY) is None
    store.put(KEY, {}, {"corpus": evaluation()})
    assert store.find(KEY) is not None
    (tmp_path / f"{run_id(KEY)}.corpus.parquet").unlink()
    assert store.find(KEY) is None


@pytest.mark.parametrize("text", ["", '{"key": ', "[]", "{}", '{"key": {}}'])
def test_a_damaged_description_is_named(tmp_path, text):
    store = Store(tmp_path)
    store.put(KEY, {}, {"corpus": evaluation()})
    (tmp_path / f"{run_id(KEY)}.json").write_text(text)
    with pytest.raises(ValueError, match=f"{run_id(KEY)}.json.* remove it"):
        store.find(KEY)


def test_a_damaged_table_is_named(tmp_path):
    store = Store(tmp_path)
    store.put(KEY, {}, {"corpus": evaluation()})
    path = tmp_path / f"{run_id(KEY)}.corpus.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="corpus.parquet is not a parquet file"):
        store.find(KEY)


def test_a_file_with_another_key_is_not_taken(tmp_path):
    store = Store(tmp_path)
    store.put(KEY, {}, {"corpus": evaluation()})
    path = tmp_path / f"{run_id(KEY)}.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "key": changed(KEY, ["dataset"], "other")}))
    assert store.find(KEY) is None


def test_where_new_runs_go(tmp_path, monkeypatch):
    monkeypatch.setenv("ADI_LITE_RUNS", str(tmp_path))
    assert runs_folder() == tmp_path
    monkeypatch.delenv("ADI_LITE_RUNS")
    assert runs_folder().name == "runs"
