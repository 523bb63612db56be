"""Published measurements as tables, and that their goals are what the project says."""

import json

import pytest

from adi_lite.experiments import measured as module
from adi_lite.experiments.measured import (
    GROWTH,
    PACKING,
    evaluation_table,
    features_table,
    goal_table,
    growth_table,
    load_table,
    machine_line,
    machine_lines,
    measured,
    package_table,
    packing_table,
    processes_table,
    recall_table,
    search_table,
    step_table,
    train_table,
    trials_table,
)

NAMES = (
    "benchmarks",
    "benchmarks_one_thread",
    "packages",
    "packages_simulator",
    "packing",
    "processes",
    "retrieval_speed",
    "serving_flat",
    "serving_hnsw",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_result_says_where_it_was_measured(name):
    line = machine_line(measured(name))
    assert "2 cores" in line and line.startswith("20") and "torch 2." in line


def test_parts_measured_apart_have_lines_of_their_own():
    about = {**measured("processes")["about"], "when": "2020-01-01T00:00:00"}
    result = {"about": about, "goal": {}, "width": {}, "speed": {}, "bound": {}}
    assert machine_lines("b", result) == [f"b: {machine_line(result)}"]
    later = {**about, "when": "2021-01-01T00:00:00"}
    apart = {"speed": later, "bound": later}
    (first, second) = machine_lines("b", result | {"measured_apart": apart})
    assert first.startswith("b: 2020-01-01") and second.startswith("b (speed, bound): 2021-01-01")
    assert len(machine_lines("b", {"about": about, "speed": {}, "measured_apart": {"speed": later}})) == 1
    sides = {"about": about, "recall": {"target": 0.1, "adi": {}, "dnn": {}}}
    one, both = ({f"recall of {s}": later for s in names} for names in (["adi"], ["adi", "dnn"]))
    assert len(machine_lines("b", {**sides, "measured_apart": one})) == 2
    assert len(machine_lines("b", {**sides, "measured_apart": both})) == 1


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
    shares = [bound["share_of_bound"] for bound in benchmarks["bound"].values()]
    assert step.loc[("bound / measured", "whole step")].tolist() == shares and step.shape == (7, 2)
    evaluation, bound = evaluation_table(benchmarks), benchmarks["whole_corpus"]["bound"]
    assert evaluation.loc["together", "bound / measured"] == pytest.approx(bound["share_of_bound"], abs=1e-3)
    retrieval = measured("retrieval_speed")
    assert search_table(retrieval).loc["faiss", "times faiss"] == 1
    load = load_table(measured("serving_flat"), measured("serving_hnsw"))
    assert load.loc[("flat", 1), "p99, ms"] == measured("serving_flat")["runs"][0]["p99_ms"]
    assert set(load.index.get_level_values("index")) == {"flat", "hnsw"}


def test_packages_stand_beside_adi():
    packages = measured("packages")
    table = package_table(packages)
    assert table.loc["adi", "times ADI-SE's processor time"] == 1 and table.loc["adi", "package"] == "adi-lite"
    assert {"torch-rechub", "recbole"} <= set(table["package"])
    rate = packages["speed"]["recbole_dssm"]["records_per_second"]
    assert table.loc["recbole_dssm", "records/s"] == rate
    recall = recall_table(packages)
    assert len(recall) == len(packages["recall"]) - 1
    assert recall.loc["ADI-SE (adi-lite)", "best Recall@10"] == packages["recall"]["adi"]["best"]


def test_features_with_and_without_self_training():
    benchmarks = measured("benchmarks")
    table = features_table(benchmarks)
    assert table.loc["adi_se", "times ADI-SE's processor time"] == 1
    assert table.loc["dnn", "records/s"] == benchmarks["features"]["methods"]["dnn"]["records_per_second"]
    assert benchmarks["features"]["records_of_the_day"] > 1_000_000  # the size of the published tables


def test_every_part_that_grows_is_published():
    benchmarks = measured("benchmarks")
    assert set(GROWTH) <= set(benchmarks) and growth_table(benchmarks).loc["adi"].notna().all()


def test_processes_and_packing_by_their_largest():
    sides = {
        "1 process": {
            "records_per_second": 10.0,
            "times_speed_of_first": 1.0,
            "peak_mib": [3.0],
            "anonymous_mib": [None],
        },
        "2 processes": {
            "records_per_second": 15.0,
            "times_speed_of_first": 1.5,
            "peak_mib": [3.0, 4.0],
            "anonymous_mib": [1.0, 2.0],
        },
    }
    table = processes_table({"sides": sides})
    assert table.loc["2 processes"].tolist() == [15.0, 1.5, 4.0, 2.0]
    assert table.loc["1 process"].isna().tolist() == [False, False, False, True]
    point = {side: {"seconds": n, "anonymous_mib": 10.0 * n} for n, side in enumerate(PACKING)}
    packed = packing_table({"records": {"1000": point}})
    assert packed.loc[("1,000", PACKING["train_packed"])].tolist() == [2, 20.0]


def test_goals_in_words():
    goals = {
        "times_plain_row/4096": {"goal": 20, "measured": 14.9, "reached": False},
        "whole_corpus": {"goal": 10.0, "measured": 4.0, "reached": True},
    }
    served = {"p99_ms": {"goal": 50, "measured": 27.0, "reached": True}}
    alone = {"goal": {"records_per_second": {"goal": 9, "measured": 5, "reached": False}}, "about": {"threads": 1}}
    served = {"goal": served, "about": {"kind": "hnsw", "threads": 2}}
    table = goal_table({"goal": goals, "about": {}}, {"about": {}}, served, alone)
    assert table.loc["ADI, times the records a second of the plain loop, batches of 4096"].tolist() == [
        14.9,
        "≥ 20",
        "no",
    ]
    assert table.loc["p99 latency, hnsw index, ms"].tolist() == [27.0, "≤ 50", "yes"]
    assert table.loc["ADI, records a second of training, one thread"].tolist() == [5, "≥ 9", "no"]
    assert table.iloc[1]["goal"] == "≤ 10.0" and len(table) == 4


def test_every_published_goal_has_a_name():
    names = [name for name in NAMES if name != "packages_simulator"]  # those of packages, on other data
    table = goal_table(*(measured(name) for name in names))
    assert len(table) == sum(len(measured(name).get("goal", {})) for name in names) == table.index.nunique()


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
