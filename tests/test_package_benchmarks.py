"""The benchmark beside packages runs, and says what is missing where they are not installed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import sys

import pytest
import torch

from benchmarks import packages
from benchmarks.peers import MissingPackageError, recbole, rechub
from benchmarks.train_speed import synthetic

PEERS = {"torch_rechub": (rechub, "youtube_dnn"), "recbole": (recbole, "DSSM")}


@pytest.mark.parametrize("package", PEERS)
def test_a_missing_package_is_named_with_how_to_install_it(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    module, model = PEERS[package]
    with pytest.raises(MissingPackageError, match=r"cannot be imported .* pip install --no-deps -r benchmarks/req"):
        module.learner(synthetic(2, users=20, items=20, records=80), model)


@pytest.mark.parametrize("package", PEERS)
def test_a_package_trains_and_scores_every_item(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is measured in an environment of its own")
    module, model = PEERS[package]
    data = synthetic(2, users=40, items=50, records=400)
    learner = module.learner(data, model, width=8, batch_size=50, row_negatives=3)
    before = learner.scorer().scores(torch.tensor([0, 3]), 1)
    assert learner.epoch() == 400
    after = learner.scorer().scores(torch.tensor([0, 3]), 1)
    assert before.shape == after.shape == (2, 50) and not torch.allclose(before, after)


def test_library_sides_are_measured_and_written(tmp_path, capsys):
    out = tmp_path / "packages.json"
    options = ["--smoke", "--dataset", "xmarket-sample", "--threads", str(torch.get_num_threads()), "--out", str(out)]
    packages.main([*options, "--sides", "dnn", "adi_row", "plain_row", "--parts", "speed", "recall"])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    assert set(result["speed"]) == {"adi", "dnn", "adi_row", "plain_row"} and result["goal"] == {}
    assert result["speed"]["adi"]["times_adi"] == 1.0 and result["speed"]["adi_row"]["negatives"] == "20, of the row"
    assert result["recall"]["dnn"]["epochs"] <= 2
    assert "Seconds until Recall@10" in printed.err


def test_goals_count_two_tower_models_of_packages_only():
    row = {"title": "T", "times_adi": 6.0, "package": "shop", "two_towers": True}
    others = {"b": {**row, "title": "U", "times_adi": 4.0}, "c": {**row, "title": "V", "two_towers": False}}
    goal = packages._goal({"a": row, **others}, "xmarket")
    reached = {name: g["reached"] for name, g in goal.items()}
    assert reached == {"times_package/T (shop)": True, "times_package/U (shop)": False}


@pytest.mark.parametrize(("share", "records"), [(1.0, 300), (0.5, 150), (0.1, 50)])
def test_a_slow_side_is_timed_on_whole_batches_of_fewer_records(share, records, monkeypatch):
    monkeypatch.setitem(packages.SIDES, "slow", dataclasses.replace(packages.SIDES["dnn"], share=share))
    args = argparse.Namespace(records=300, batch_size=50)
    assert len(packages._part("slow", synthetic(2, users=20, items=20, records=400), args).train) == records


def test_sizes_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        packages.main(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err
