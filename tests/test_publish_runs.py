"""Publishing copies what the plans ask for, and removes nothing while a run is missing."""

from dataclasses import replace

import pytest

from adi_lite.experiments.catalog import PLANS
from adi_lite.experiments.plans import Profile
from adi_lite.experiments.runner import keys_of, load_for, run_plan
from adi_lite.experiments.store import Store, run_id
from book import publish_runs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One plan of two lines on the smoke simulator, as if it were all, with its runs in ``runs/full``."""
    plan = PLANS["table8-simulator"]
    size = replace(plan.profile("smoke"), seeds=1, options={"preset": "smoke", "scale": 0.2})
    plan = replace(plan, rows=plan.rows[:2], profiles={"full": size}, claims=())
    monkeypatch.setattr(publish_runs, "PLANS", {plan.name: plan})
    monkeypatch.setattr(publish_runs, "PUBLISHED", tmp_path / "results")
    monkeypatch.setenv("ADI_LITE_RUNS", str(tmp_path / "runs"))
    assert isinstance(size, Profile)
    run_plan(plan, "full", store=Store(tmp_path / "runs" / "full"))
    return plan


def test_exactly_the_runs_of_the_plans(small, tmp_path, capsys):
    published = tmp_path / "results" / "runs"
    published.mkdir(parents=True)
    (published / "old-0-abc.json").write_text("{}")
    assert publish_runs.main() == 0
    assert "removed old-0-abc.json" in capsys.readouterr().out
    data = load_for(small.profile("full"))
    names = {run_id(key) for key in keys_of(small, "full", data)}
    assert {p.name.split(".")[0] for p in published.iterdir()} == names and len(names) == 2
    store, before = Store(published), Store(tmp_path / "runs" / "full")
    for key in keys_of(small, "full", data):
        kept, whole = store.find(key).evaluations["corpus"], before.find(key).evaluations["corpus"]
        assert set(kept.metrics) == {f"recall@{k}" for k in small.at("full").ks} < set(whole.metrics)
        assert all((kept.metrics[m] == whole.metrics[m]).all() for m in kept.metrics)
        assert (kept.user == whole.user).all() and (kept.domain == whole.domain).all()


def test_a_missing_run_stops_it(small, tmp_path, capsys):
    published = tmp_path / "results" / "runs"
    published.mkdir(parents=True)
    (published / "old-0-abc.json").write_text("{}")
    next((tmp_path / "runs" / "full").glob("*.json")).unlink()
    assert publish_runs.main() == 1
    assert "1 runs are not there, first table8-simulator: adi-0-" in capsys.readouterr().err
    assert (published / "old-0-abc.json").is_file()
