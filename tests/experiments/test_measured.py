"""Published measurements as tables, and that their goals are what the project says."""

import json

import pytest

from adi_lite.experiments import measured as module
from adi_lite.experiments.measured import (
    growth_table,
    load_table,
    machine_line,
    measured,
    search_table,
    step_table,
    train_table,
    trials_table,
)

NAMES = ("benchmarks", "retrieval_speed", "serving_flat", "serving_hnsw")


@pytest.mark.parametrize("name", NAMES)
def test_every_result_says_where_it_was_measured(name):
    line = machine_line(measured(name))
    assert "2 cores" in line and line.startswith("20") and "torch 2." in line


def test_an_unknown_result_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PUBLISHED", tmp_path)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="published are other. A script in benchmarks/ writes it"):
        measured("nothing")


def test_tables_hold_the_figures():
    benchmarks = measured("benchmarks")
    train = train_table(benchmarks)
    assert train.loc[(1024, "adi"), "records/s"] == benchmarks["speed"]["1024"]["adi"]["records_per_second"]
    assert (train["times ADI"].xs("adi", level="model") == 1).all()
    growth = growth_table(benchmarks)
    assert growth.loc["adi", "width"] == benchmarks["width"]["slope_of_cpu_time"]["adi"]
    step = step_table(benchmarks)
    assert step.iloc[-1, 0] == benchmarks["bound"]["share_of_bound"] and len(step) == 7
    retrieval = measured("retrieval_speed")
    assert search_table(retrieval).loc["faiss", "times faiss"] == 1
    load = load_table(measured("serving_flat"), measured("serving_hnsw"))
    assert load.loc[("flat", 1), "p99, ms"] == measured("serving_flat")["runs"][0]["p99_ms"]
    assert set(load.index.get_level_values("index")) == {"flat", "hnsw"}


def test_goals_are_reached_in_full_runs():
    """What README says of serving and retrieval: published from runs of full size, every one counted."""
    serving, retrieval = measured("serving_flat"), measured("retrieval_speed")
    assert serving["about"]["items"] == 100_000 and serving["about"]["rate"] == 200 and len(serving["runs"]) == 5
    assert all(r["p99_ms"] < 50 and r["errors"] == 0 and r["rate"] > 198 for r in serving["runs"])
    assert (retrieval["about"]["items"], retrieval["about"]["users"], retrieval["about"]["k"]) == (
        1_000_000,
        10_000,
        1000,
    )
    assert retrieval["search"]["faiss_topk"]["times_faiss"] <= 1.1 and retrieval["same_lists"]


def test_trials_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PUBLISHED", tmp_path)
    with pytest.raises(FileNotFoundError, match="adi-lite tune all --dataset shop"):
        trials_table("shop", "recall@10")
    folder = tmp_path / "tuning" / "shop"
    folder.mkdir(parents=True)
    trials = [{"settings": {}, "recall@10": 0.2}, {"settings": {"epochs": 2, "dropout": 0.1}, "recall@10": 0.3}]
    (folder / "adi.json").write_text(json.dumps(trials))
    (folder / "dnn.json").write_text(json.dumps(trials[:1]))
    table = trials_table("shop", "recall@10")
    assert list(table.index) == ["the frame as it is", "epochs 2, dropout 0.1", "best"]
    assert table.loc["best"].to_dict() == {"adi": 0.3, "dnn": 0.2} and table.loc["epochs 2, dropout 0.1"].isna()["dnn"]
