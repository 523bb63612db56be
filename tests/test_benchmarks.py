"""The plain baseline is the same model as ADI, and the benchmarks run."""

from __future__ import annotations

import json
import mmap
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adi_lite.data.batches import InputBuilder, sort_by_domain
from adi_lite.data.registry import load_dataset
from adi_lite.data.schema import Feature, Interactions, Ragged
from adi_lite.models.two_tower import TwoTower
from adi_lite.nn.embedding import module_key
from adi_lite.training.objective import FixedNegativesObjective, Objective
from benchmarks import packing, processes
from benchmarks.__main__ import main
from benchmarks.features import training_with_features
from benchmarks.growth import growth_with_records
from benchmarks.learners import Learner, library_learner, padded, plain_learner
from benchmarks.measure import Timing, interleaved, slope
from benchmarks.memory import AnonymousPeak, anonymous_mib, peak_memory_mib, peak_of_this_process_mib
from benchmarks.plain import PlainADI, PlainDataset, copy_weights, draw_shared, pick, row_loss, shared_loss
from benchmarks.report import added
from benchmarks.steps import library_step, plain_step, settings
from benchmarks.time_to_recall import seconds_to_recall
from benchmarks.train_speed import SMOKE, synthetic

SMALL = {"users": 60, "items": 50, "records": 400}


def pair(num_domains=3, data=None, **changes):
    """A small data set, ADI with statistics of its own, and the baseline with the same weights; both in eval mode."""
    data = data or synthetic(num_domains, **SMALL)
    config = settings(width=8, batch_size=64, num_negatives=20, **changes)
    model, plain = TwoTower(config.model, data.schema, data.num_items), PlainADI(config.model, data)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.add_(0.1 * torch.rand_like(tensor))
    copy_weights(plain, model)
    return data, config, model.eval(), plain.eval()


def collated(data, index):
    records = PlainDataset(data, None, 0, 0)
    return torch.utils.data.default_collate([records[int(i)] for i in index])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"adaptation": "none"},
        {"num_shared": 3},
        {"num_shared": 2, "equal_size": False},
        {"hidden": (12, 6)},
        {"num_domains": 1},
    ],
    ids=str,
)
def test_with_the_same_weights_the_baseline_gives_the_same_vectors(changes):
    same_vectors(*pair(**changes))


def test_with_features_of_every_kind_the_vectors_are_the_same(make_tiny):
    rich = make_tiny(rich=True)
    features = (*rich.schema.user, *rich.schema.item)
    assert {(f.kind, f.per_domain) for f in features} >= {("bag", False), ("dense", True), ("categorical", False)}
    same_vectors(*pair(data=rich))
    same_vectors(*pair(data=load_dataset("simulator", preset="smoke")))


def same_vectors(data, config, model, plain):
    train = data.train
    batch = sort_by_domain(train.user, train.item, train.domain, torch.arange(len(train)), data.num_domains)
    inputs = InputBuilder(data)
    users = model.user_vectors(inputs.users(batch.user, batch.domain, batch.counts, target=batch.item))
    items = model.item_vectors(inputs.items(batch.item, batch.domain, batch.counts))
    rows = collated(data, batch.record)
    torch.testing.assert_close(plain.user_vectors(rows["user"], rows["history"], rows["domain"]), users)
    torch.testing.assert_close(plain.item_vectors(rows["item"], rows["domain"]), items)
    assert users.std(0).min() >= 0 and users[:, :-1].std() > 0.1


def test_with_the_same_negatives_the_baseline_gives_the_same_losses_and_gradients():
    data, config, model, plain = pair()
    index = torch.randperm(len(data.train))[:64]
    part = data.train.take(index)
    batch = sort_by_domain(part.user, part.item, part.domain, index, data.num_domains)
    expected = Objective(data, config.train)(model, batch, torch.Generator().manual_seed(5))
    negatives = draw_shared(data, config.train.num_negatives, torch.Generator().manual_seed(5))
    losses = shared_loss(plain, collated(data, batch.record), negatives, [len(c) for c in data.catalogues])
    torch.testing.assert_close(losses, expected)
    expected.sum().backward()
    losses.sum().backward()
    torch.testing.assert_close(
        plain.item_fields.tables[module_key("item_id")].weight.grad,
        model.item.embedding.tables[module_key("item_id")].weight.grad,
    )
    torch.testing.assert_close(
        plain.user_network.heads[1].weight.grad, model.user.network.forward_network.weight.grad[1].T
    )


def test_negatives_of_a_row_are_other_items_of_its_domain():
    data = synthetic(2, **SMALL)
    data = data.replace(catalogues=(data.catalogues[0], data.catalogues[1][:40]))
    data = data.replace(train=data.train.take((data.train.domain == 0) | (data.train.item < 40)))
    records = PlainDataset(data, 5, 20, seed=0)
    for i in range(50):
        sample = records[i]
        allowed = data.catalogues[sample["domain"]]
        assert torch.isin(sample["negatives"], allowed).all()
        assert (sample["negatives"] != sample["item"]).all() and len(sample["negatives"]) == 20
        assert len(sample["history"]) == 5 and (sample["history"] != sample["item"] + 1).all()


def test_loss_against_negatives_of_each_row():
    data, _, _, plain = pair()
    rows = collated(data, range(10)) | {"negatives": torch.randint(0, 50, (10, 4))}
    losses = row_loss(plain, rows)
    users = plain.user_vectors(rows["user"], rows["history"], rows["domain"])
    for i in range(10):
        ids = torch.cat([rows["item"][i : i + 1], rows["negatives"][i]])
        scores = plain.item_vectors(ids, rows["domain"][i].repeat(5)) @ users[i]
        torch.testing.assert_close(losses[i], -torch.log_softmax(scores, 0)[0])


def test_pick_takes_each_row_from_its_domain():
    of_each = [torch.full((4, 2), float(d)) for d in range(3)]
    domain = torch.tensor([2, 0, 1, 2])
    assert pick(of_each, domain).tolist() == [[2, 2], [0, 0], [1, 1], [2, 2]]


def test_the_baseline_refuses_what_it_does_not_cover(make_tiny):
    with pytest.raises(ValueError, match="these differ: fusion"):
        PlainADI(settings(fusion="sum").model, synthetic(2, **SMALL))
    data = make_tiny()
    for schema, message in (
        (replace(data.schema, history=False), "reads histories"),
        (replace(data.schema, item=(Feature("brand", "categorical", 3),)), "feature called 'item_id'"),
    ):
        with pytest.raises(ValueError, match=message):
            PlainADI(settings().model, SimpleNamespace(schema=schema, name="shop"))


@pytest.mark.parametrize("make", [library_step, plain_step])
def test_steps_train(make):
    data = synthetic(2, **SMALL)
    step = make(data, settings(width=8, batch_size=100, num_negatives=10))
    assert [step() for _ in range(5)] == [100] * 5  # more than one epoch
    with pytest.raises(ValueError, match="batch_size smaller"):
        make(data, settings(width=8, batch_size=500, num_negatives=10))()


def test_rounds_are_interleaved_and_ratios_are_medians_by_round():
    calls = []
    timings = interleaved({n: lambda n=n: calls.append(n) or 7 for n in "ab"}, rounds=2, steps_a_round=2, warm_up=1)
    assert calls == list("ab" + "aabb" * 2) and timings["a"].records == 7
    slow, fast = Timing([2.0, 9.0, 30.0], [2.0, 2.0, 2.0], 10), Timing([1.0, 3.0, 10.0], [1.0, 1.0, 1.0], 10)
    summary = slow.summary(fast)
    assert summary["times_reference"] == 3.0 and summary["times_reference_cpu"] == 2.0
    assert summary["ms_per_step"] == 9000 and summary["records_per_second"] == pytest.approx(10 / 9, abs=1e-3)
    fewer = Timing(slow.wall, slow.cpu, 5)
    assert fewer.summary(fast)["times_reference"] == 6.0, "of a record, where one side has half as many"


def test_slope_is_the_exponent():
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2.0)
    assert slope([2, 4, 16], [5, 5, 5]) == pytest.approx(0.0)


def test_growth_needs_two_sizes():
    with pytest.raises(ValueError, match=r"two sizes, got \(100,\)"):
        growth_with_records(replace(SMOKE, records=(100,)))


def test_an_epoch_of_the_plain_learner_trains_and_scores_like_its_towers():
    data = synthetic(2, **SMALL)
    learner = plain_learner(data, settings(width=8, batch_size=100), row_negatives=5, max_history=6)
    users = torch.tensor([3, 0, 41])
    before = learner.scorer().scores(users, 1)
    assert learner.epoch() == 400
    after = learner.scorer().scores(users, 1)
    assert after.shape == (3, 50) and not torch.allclose(before, after)


@pytest.mark.parametrize("make", [plain_learner, library_learner])
def test_calls_of_a_learner_may_be_parts_of_an_epoch(make):
    data = synthetic(2, **SMALL)
    learner = make(data, settings(width=8, batch_size=100), records_a_call=310)
    assert learner.epochs_a_call == 0.75
    assert [learner.epoch() for _ in range(3)] == [300] * 3
    whole = make(data, settings(width=8, batch_size=90))
    assert whole.epochs_a_call == 1.0 and whole.epoch() == 400


def test_parts_of_an_epoch_show_every_record_before_any_comes_again(monkeypatch):
    data, seen = synthetic(2, **SMALL), []
    right = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", lambda s, m, b, g: seen.append(b.record) or right(s, m, b, g))
    learner = library_learner(data, settings(width=8, batch_size=100), records_a_call=200)
    for _ in range(2):
        learner.epoch()
    assert torch.cat(seen).sort().values.tolist() == list(range(400))


def test_padded_histories_are_the_last_items_without_the_target():
    history = Ragged.from_pairs(torch.tensor([0, 0, 0, 0, 2]), torch.tensor([5, 6, 7, 8, 9]), 3)
    out = padded(history, torch.tensor([2, 0, 1, 0]), torch.tensor([9, 7, 1, 1]), 3)
    assert out.tolist() == [[0, 0, 0], [6, 7, 9], [0, 0, 0], [7, 8, 9]]
    assert padded(history, torch.tensor([2]), None, 2).tolist() == [[10, 0]]


class Rising:
    """Ranks the positive of the validation queries first from the second epoch on."""

    def __init__(self, data):
        self.data, self.epochs = data, 0

    def epoch(self):
        self.epochs += 1
        return len(self.data.train)

    def scores(self, users, domain):
        scores = torch.zeros(len(users), len(self.data.catalogues[domain]))
        if self.epochs > 1:
            scores[:, 0] = 1.0
        return scores


def test_training_stops_at_the_epoch_that_reaches_the_recall():
    data = synthetic(2, users=40, items=50, records=80)
    one = Interactions(torch.arange(20), torch.zeros(20, dtype=torch.int64), torch.arange(20) % 2)
    data = data.replace(valid=one)
    side = Rising(data)
    found = seconds_to_recall(Learner(side.epoch, lambda: side, "none"), data, 0.9, max_epochs=5)
    assert found["epochs"] == 2 and found["best"] == 1.0 and found["seconds"] == found["curve"][1]["seconds"]
    assert found["curve"][0]["recall"] == pytest.approx(10 / 50, abs=0.05)  # all tie
    side = Rising(data)
    side.epochs = -9
    short = seconds_to_recall(Learner(side.epoch, lambda: side, "none"), data, 0.9, max_epochs=3)
    assert short["seconds"] is None and short["epochs"] == 3
    with pytest.raises(ValueError, match="no validation records"):
        seconds_to_recall(Learner(side.epoch, lambda: side, "none"), synthetic(2, **SMALL), 0.9)


def test_parts_can_be_added_to_the_published_result(tmp_path, capsys, monkeypatch):
    kept = tmp_path / "benchmarks.json"
    kept.write_text(json.dumps({"about": {"when": "before"}, "speed": {"64": {"adi": {}}}, "width": {"points": {}}}))
    monkeypatch.setattr("benchmarks.__main__.published", lambda name: kept)
    monkeypatch.setattr("benchmarks.__main__._goal", lambda result: {})
    monkeypatch.setattr("benchmarks.__main__._tables", lambda result: [])
    main(
        [
            "--dataset",
            "xmarket-sample",
            "--smoke",
            "--parts",
            "whole_corpus",
            "--add",
            "--out",
            str(tmp_path / "o.json"),
        ]
    )
    result = json.loads(capsys.readouterr().out)
    assert result["about"] == {"when": "before"} and result["speed"] == {"64": {"adi": {}}}
    assert result["whole_corpus"]["items"] == 1000 and result["whole_corpus"]["queries"] > 100
    bound = result["whole_corpus"]["bound"]
    assert 0 < bound["share_of_bound"] < 1 and all(
        b < s for b, s in zip(bound["bound_seconds"].values(), bound["seconds"].values(), strict=True)
    )
    assert set(result["measured_apart"]) == {"whole_corpus"}


@pytest.mark.parametrize(("threads", "name"), [(1, "benchmarks_one_thread"), (2, "benchmarks")])
def test_one_thread_is_published_apart(tmp_path, capsys, monkeypatch, threads, name):
    monkeypatch.setattr("benchmarks.__main__.published", lambda name: tmp_path / name)
    monkeypatch.setattr("benchmarks.__main__._measure", lambda part, *_: {"adi": 1})
    monkeypatch.setattr("benchmarks.__main__._goal", lambda result: {})
    monkeypatch.setattr("benchmarks.__main__._tables", lambda result: [])
    before = torch.get_num_threads()
    words = ["--dataset", "xmarket-sample", "--parts", "memory", "--threads", str(threads), "--publish"]
    try:
        main([*words, "--out", str(tmp_path / "out.json")])
    finally:
        torch.set_num_threads(before)
    assert {f.name for f in tmp_path.iterdir()} == {"out.json", name}
    assert json.loads((tmp_path / name).read_text())["about"]["threads"] == threads


def test_features_are_trained_on_as_in_the_published_tables():
    found = training_with_features("smoke", 2048, 1)
    assert found["batch_size"] == 2048 and found["records_timed"] == 2048 and found["features"]["user"] > 3
    assert found["methods"]["adi_se"]["times_reference"] == 1.0
    assert found["goal"]["measured"] == found["methods"]["adi_se"]["records_per_second"] > 0


def test_peak_memory_is_of_the_child_alone():
    block = torch.ones(256 * 2**20 // 4)  # this process grows, and its child must not inherit that
    peak = peak_memory_mib("xmarket-sample", ["import"], 64, 8)["import"]
    assert len(block) and peak_of_this_process_mib() > peak + 100
    assert peak > 50


def test_the_command_prints_one_object_and_writes_it(tmp_path, capsys):
    out = tmp_path / "new" / "benchmarks.json"
    threads = str(torch.get_num_threads())
    options = ["--dataset", "xmarket-sample", "--smoke", "--threads", threads, "--out", str(out)]
    main([*options, "--parts", "speed", "domains", "width", "records", "items", "shared", "bound", "recall"])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    assert set(result["speed"]["64"]) == {"adi", "adi_row", "dnn", "ple", "mmoe", "plain_shared", "plain_row"}
    assert result["speed"]["64"]["adi"]["times_reference"] == 1.0
    assert set(result["domains"]["points"]) == {"2", "4"}
    assert set(result["domains"]["points"]["4"]) == {
        "adi",
        "adi_row",
        "plain_shared",
        "plain_row",
        "adi_fixed_per_domain",
    }
    assert set(result["items"]["slope_of_cpu_time"]) == {"adi", "adi_rowwise"}
    assert set(result["shared"]["points"]) == {"1", "2"} and set(result["records"]["points"]) == {"100", "200"}
    assert result["recall"]["adi"]["epochs"] == 1 and 0 < result["recall"]["plain_row"]["best"] < 1
    assert list(result["bound"]) == [str(b) for b in SMOKE.batch_sizes]
    assert all(0 < bound["share_of_bound"] < 1 and bound["flops"] > 0 for bound in result["bound"].values())
    assert "Cost by width" in printed.err and "Training, xmarket-sample" in printed.err


def test_added_sides_of_a_recall_part_leave_the_others(tmp_path):
    file = tmp_path / "packages.json"
    first = {"about": {"when": 1}, "speed": {"a": 1}, "recall": {"target": 0.1, "a": 5, "b": 6}, "goal": {}}
    assert added(first, file)["recall"] == first["recall"]
    file.write_text(json.dumps(first))
    second = {"about": {"when": 2}, "recall": {"target": 0.1, "b": 7, "c": 8}}
    both = added(second, file)
    assert both["recall"] == {"target": 0.1, "a": 5, "b": 7, "c": 8} and both["speed"] == {"a": 1}
    assert both["about"] == {"when": 1}
    assert both["measured_apart"] == {"recall of b": {"when": 2}, "recall of c": {"when": 2}}
    file.write_text(json.dumps(both))
    every = added({"about": {"when": 4}, "recall": {"target": 0.1, "a": 1, "b": 2, "c": 3}}, file)
    assert every["measured_apart"] == {"recall": {"when": 4}}
    other = added({"about": {"when": 3}, "recall": {"target": 0.2, "c": 8}}, file)
    assert other["recall"] == {"target": 0.2, "c": 8} and other["measured_apart"] == {"recall": {"when": 3}}


def test_a_step_with_negatives_of_the_row_has_their_loss(monkeypatch):
    """The side ``adi_row`` is timed with the loss that the training loop would use."""
    seen, right = [], FixedNegativesObjective.__call__

    def spy(self, model, batch, generator):
        seen.append(self.negatives.shape)
        return right(self, model, batch, generator)

    monkeypatch.setattr(FixedNegativesObjective, "__call__", spy)
    data = synthetic(2, users=20, items=30, records=80)
    assert library_step(data, settings(width=8, batch_size=40, num_negatives=5, fixed_negatives=True))() == 40
    assert seen == [(80, 5)]
    library_step(data, settings(width=8, batch_size=40, num_negatives=5))()
    assert len(seen) == 1, "shared negatives otherwise"


def test_processes_and_tables_on_disk_train_the_same(tmp_path, capsys):
    out = tmp_path / "processes.json"
    processes.main(["--smoke", "--disk", str(tmp_path / "disk"), "--out", str(out)])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text())
    one, two, apart, on_disk, two_on_disk = result["sides"].values()
    both = {"2 processes": two, "2 processes, tables on disk": two_on_disk}
    assert {n: s for n, s in result["sides"].items() if n.startswith("2 processes")} == both
    assert apart["apart"] and apart["loss"] == one["loss"] and len(apart["peak_mib"]) == apart["processes"]
    assert on_disk["loss"] == one["loss"] and two_on_disk["loss"] == two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert one["times_speed_of_first"] == 1.0 and two["records_per_second"] > 0
    assert len(two["peak_mib"]) == len(two_on_disk["anonymous_mib"]) == 2
    assert "tables of" in printed.err and not any((tmp_path / "disk").iterdir())


def test_sides_of_every_batch_size_are_measured_against_one_process_of_it(tmp_path, capsys, monkeypatch):
    asked = []

    def measure(number, on_disk, sizes, disk, apart=False):
        asked.append((number, on_disk, sizes["batch_size"], apart))
        figures = {"records_per_second": 10.0 * len(asked), "loss": 1.0, "peak_mib": [1.0], "anonymous_mib": [None]}
        return {"processes": number, "apart": apart, **figures}

    monkeypatch.setattr(processes, "measure", measure)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 2)
    options = ["--processes", "1", "2", "--batch-size", "64", "4096", "--out", str(tmp_path / "out.json")]
    processes.main(options)
    assert asked == [
        (1, False, 64, False), (2, False, 64, False), (2, False, 64, True), (1, True, 64, False), (2, True, 64, False),
        (1, False, 4096, False), (2, False, 4096, False), (2, False, 4096, True),
    ]  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    times = {name: side["times_speed_of_first"] for name, side in result["sides"].items()}
    assert times["1 process"] == times["1 process, batches of 4,096"] == 1.0
    assert times["2 processes"] == 2.0 and times["2 processes, batches of 4,096"] == round(70 / 60, 3)
    assert result["about"]["batch_size"] == 64


def fresh_memory(mib: int) -> mmap.mmap:
    """Pages that the process has not had before: an allocator may hand out what was freed and is still resident."""
    block = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(block), mmap.PAGESIZE):
        block[page] = 1
    return block


def test_anonymous_memory_is_what_no_file_backs():
    with AnonymousPeak() as before:
        pass
    with AnonymousPeak() as peak:
        block = fresh_memory(64)
        time.sleep(0.1)
    if before.mib is not None:
        assert len(block) and 50 < peak.mib - before.mib < 200


def test_packing_beside_loading(tmp_path, capsys):
    out = tmp_path / "packing.json"
    packing.main(["--smoke", "--work", str(tmp_path), "--out", str(out)])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result == json.loads(out.read_text()) and list(result["records"]) == ["5000"]
    for point in result["records"].values():
        assert all(point[side]["seconds"] > 0 and point[side]["anonymous_mib"] >= 0 for side in packing.SIDES)
        assert 0 < point["seconds_to_open"] < 5 and point["disk_mib"] > 0.1
    assert "Packing: seconds" in printed.err and not list(tmp_path.glob("tmp*")), "what was written is gone"


def test_anonymous_memory_is_what_a_process_holds_itself(tmp_path):
    before = anonymous_mib()
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.int64, shape=(1 << 23,))
    mapped[:] = 1
    with_file = anonymous_mib()
    held = fresh_memory(64)
    assert with_file - before < 16 and 60 < anonymous_mib() - with_file < 80 and len(held)


def test_a_side_that_fails_is_said(tmp_path):
    with pytest.raises(RuntimeError, match="the side load failed"):
        packing.measure_side("load", tmp_path / "nothing", tmp_path / "packed")
