"""One's own tables on the command line: check, train, evaluate, index, retrieve, and being killed in between."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tensorboardX.proto import event_pb2

from adi_lite import cli
from adi_lite.serving.retriever import Retriever

SMALL = ("--set", "dim=8", "--set", "out_dim=8", "--set", "hidden=[8]", "--set", "batch_size=128")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    n = 900
    pd.DataFrame(
        {
            "user_id": [f"u{x}" for x in rng.integers(0, 40, n)],
            "item_id": [f"i{x}" for x in (50 * rng.random(n) ** 1.5).astype(int)],
            "domain": rng.choice(["books", "music", "games"], n, p=[0.5, 0.3, 0.2]),
            "timestamp": rng.integers(1_700_000_000, 1_701_000_000, n),
        }
    ).to_parquet(folder / "interactions.parquet", index=False)
    users = pd.DataFrame({"user_id": [f"u{x}" for x in range(40)], "group": [f"g{x % 3}" for x in range(40)]})
    users.to_csv(folder / "users.csv", index=False)
    users[["user_id"]].to_csv(folder / "ask.csv", index=False)
    return folder


@pytest.fixture
def run(shop, ok, tmp_path):
    ok("train", "--data", shop, "--out", tmp_path / "run", *SMALL, "--set", "epochs=2")
    return tmp_path / "run"


def test_from_a_table_to_lists(shop, ok, run, tmp_path):
    measured = ok("evaluate", run)
    assert set(measured["domains"]) == {"books", "games", "music"} and measured["protocol"] == "corpus"
    about = ok("index", run)
    assert [d["recall_of_exact@100"] for d in about["domains"]] == [1.0] * 3
    out = tmp_path / "lists" / "top.parquet"
    said = ok("retrieve", run, "--domain", "music", "--users", shop / "ask.csv", "--k", 7, "--out", out)
    frame = pq.read_table(out).to_pandas()
    assert said["rows"] == len(frame) == 40 * 7
    direct = Retriever.open(run).retrieve([f"u{x}" for x in range(40)], "music", 7)
    pd.testing.assert_frame_equal(frame, direct, check_dtype=False)
    assert (tmp_path / "lists").joinpath("top.parquet") in set((tmp_path / "lists").iterdir())
    assert len(list((tmp_path / "lists").iterdir())) == 1, "nothing half-written beside it"


def test_check_says_what_is_there_and_what_is_wrong(shop, adi, ok, tmp_path):
    report = ok("data", "check", shop)
    assert report["ok"] and report["facts"]["records"] == 900 and "group" in report["schema"]
    bad = tmp_path / "bad"
    bad.mkdir()
    pd.DataFrame({"user_id": ["a", None], "domain": ["x", "y"]}).to_csv(bad / "interactions.csv", index=False)
    status, out, err = adi("data", "check", bad)
    assert status == 2 and "item_id" in out and "Traceback" not in err
    status, out, _ = adi("data", "check", bad, "--json")
    assert status == 2 and json.loads(out)["ok"] is False


def test_check_writes_a_schema_to_correct(shop, ok, refused, tmp_path):
    folder = tmp_path / "shop"
    folder.mkdir()
    for name in ("interactions.parquet", "users.csv"):
        (folder / name).write_bytes((shop / name).read_bytes())
    ok("data", "check", folder, "--write-schema")
    assert "group" in (folder / "schema.yaml").read_text()
    assert ok("data", "check", folder)["ok"]
    assert "is there already" in refused("data", "check", folder, "--write-schema")


def test_packed_tables_do_as_the_tables(shop, adi, ok, refused, run, tmp_path):
    packed = tmp_path / "packed"
    assert ok("data", "pack", shop, packed)["facts"]["records"] == 900
    assert ok("data", "check", packed)["ok"]
    sizes = [ok("data", "describe", folder) for folder in (shop, packed)]
    assert sizes[0] == sizes[1]
    other = tmp_path / "other"
    ok("train", "--data", packed, "--out", other, *SMALL, "--set", "epochs=2")
    straight, again = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert all(torch.equal(again[name], value) for name, value in straight.items()), "the same bits"
    measured = [ok("evaluate", folder) for folder in (run, other)]
    assert measured[0]["domains"] == measured[1]["domains"]
    lists = []
    for folder in (run, other):
        ok("index", folder)
        lists.append(Retriever.open(folder).retrieve([f"u{x}" for x in range(40)], "music", 7))
    pd.testing.assert_frame_equal(*lists)
    assert "give --valid to adi-lite data pack" in refused(
        "train", "--data", packed, "--valid", 0.2, "--out", tmp_path / "r"
    )
    assert "holds a packed data set" in refused("data", "pack", shop, packed)
    assert "is packed already" in refused("data", "pack", packed, tmp_path / "more")
    assert "--write-schema belongs to a folder of tables" in refused("data", "check", packed, "--write-schema")
    status, out, _ = adi("data", "check", packed)
    assert status == 0 and f"the packed data are whole: adi-lite train --data {packed}" in out
    ok("data", "pack", shop, tmp_path / "half", "--valid", 0.0, "--test", 0.5)
    assert ok("data", "check", tmp_path / "half")["facts"]["test"] == 450
    (packed / "train_item.npy").unlink()
    assert "train_item.npy is missing" in refused("evaluate", other)
    status, out, _ = adi("data", "check", packed)
    assert status == 2 and "train_item.npy is missing" in out


def test_the_course_of_training_is_kept(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert all(line["loss"] > 0 and 0 <= line["valid"] <= 1 for line in lines)
    values = dict(scalars(run / "logs"))
    assert values["loss", 1] == pytest.approx(lines[1]["loss"], rel=1e-6)
    assert values["valid", 0] == pytest.approx(lines[0]["valid"], rel=1e-6)


def scalars(folder):
    """(tag, step), value of all event files, by the format's own definition: length, crc, event, crc."""
    for path in sorted(folder.iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            for value in event.summary.value:
                yield (value.tag, event.step), value.simple_value


def test_resumed_training_goes_on_with_its_log(shop, ok, refused, run):
    assert "add --resume" in refused("train", "--data", shop, "--out", run, *SMALL, "--set", "epochs=2")
    again = ok("train", "--data", shop, "--out", run, *SMALL, "--set", "epochs=2", "--resume")
    assert again["epochs"] == 2
    log = run / "metrics.jsonl"
    whole = log.read_text()
    assert len(whole.splitlines()) == 2
    log.write_text(whole.splitlines(keepends=True)[0])  # killed between an epoch's checkpoint and its line
    ok("train", "--data", shop, "--out", run, *SMALL, "--set", "epochs=2", "--resume")
    assert log.read_text() == whole


def test_configuration_file_and_shares(shop, ok, tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text("method: dnn\ndim: 8\nout_dim: 8\nhidden: [8]\nepochs: 1\nuser: both\n")
    said = ok("train", "--data", shop, "--config", file, "--out", tmp_path / "r", "--model", "dnn", "--test", 0.2)
    assert said["model"] == "dnn"
    assert ok("evaluate", tmp_path / "r")["counted"]


@pytest.mark.parametrize(
    "words, message",
    [
        (("train", "--data", "nowhere", "--out", "r"), "nowhere is not a folder"),
        (("train", "--out", "r", "--valid", "0.1", "--dataset", "xmarket-sample"), "--valid and --test"),
        (("index", "nowhere"), "nowhere is no run"),
        (("retrieve", "nowhere", "--domain", "d", "--users", "u.csv", "--out", "o"), "no file u.csv"),
    ],
)
def test_wrong_words(refused, words, message):
    assert message in refused(*words)


def test_retrieve_refuses_in_a_sentence(shop, ok, refused, run, tmp_path):
    ask = ("--users", shop / "ask.csv", "--out", tmp_path / "o.parquet")
    assert "has no index: make one" in refused("retrieve", run, "--domain", "music", *ask)
    ok("index", run)
    assert "unknown domain 'shoes'" in refused("retrieve", run, "--domain", "shoes", *ask)
    other = tmp_path / "other.csv"
    other.write_text("user\nu1\n")
    assert "has no column user_id; its columns are user" in refused(
        "retrieve", run, "--domain", "music", "--users", other, "--out", tmp_path / "o.parquet"
    )
    other.write_text("user_id\nu1\nnobody\n")
    one = ("retrieve", run, "--domain", "music", "--users", other, "--out", tmp_path / "o.parquet")
    assert "1 of 2 users are unknown to the model: 'nobody'" in refused(*one)
    assert not (tmp_path / "o.parquet").exists()
    assert ok(*one, "--unknown", "skip", "--k", 3)["rows"] == 3
    assert "--nprobe belongs to --kind ivf, not to flat" in refused("index", run, "--nprobe", 3)
    assert "is a folder" in refused("retrieve", run, "--domain", "music", "--users", other, "--out", tmp_path)


def test_a_run_whose_tables_have_changed_is_refused(shop, ok, refused, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    frame = pd.read_parquet(shop / "interactions.parquet")
    frame.to_parquet(folder / "interactions.parquet", index=False)
    ok("train", "--data", folder, "--out", tmp_path / "r", *SMALL, "--set", "epochs=1")
    frame.assign(item_id="new" + frame.item_id).to_parquet(folder / "interactions.parquet", index=False)
    assert "was trained on other data" in refused("index", tmp_path / "r")


def _in_child(words):
    os.setsid()
    torch.set_num_threads(1)
    sys.argv = ["adi-lite", *map(str, words)]
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    cli.main()


def in_child(words, seconds=None):
    """Run a command in a child, killed after ``seconds``: whether it was killed at work, and how long it took."""
    child = multiprocessing.get_context("fork").Process(target=_in_child, args=(words,))
    started = time.perf_counter()
    child.start()
    child.join(seconds)
    alive = child.is_alive()
    if alive:
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    return alive, time.perf_counter() - started


def test_killed_fifty_times_it_leaves_the_old_result_or_the_new_one(shop, adi, ok, run, tmp_path):
    ok("index", run)
    out = tmp_path / "top.parquet"
    ask = ("retrieve", run, "--domain", "books", "--users", shop / "ask.csv", "--k", 5, "--out", out)
    ok(*ask)
    lists = pq.read_table(out).to_pandas()
    straight = load_file(run / "model.safetensors")
    train = ("train", "--data", shop, "--out", tmp_path / "again", *SMALL, "--set", "epochs=2", "--resume")
    timing = ("train", "--data", shop, "--out", tmp_path / "timing", *SMALL, "--set", "epochs=2")
    took = {words[0]: in_child(words)[1] for words in (("index", run), ask, timing)}
    rng, killed = random.Random(0), dict.fromkeys(took, 0)
    for n in range(50):
        words = (("index", run), ask, train)[n % 3]
        alive, seconds = in_child(words, rng.uniform(0.0, took[words[0]]))
        killed[words[0]] += alive
        if not alive:  # it needs less than was thought: the machine is less busy, or the training was over
            took[words[0]] = min(took[words[0]], seconds)
        retriever = Retriever.open(run)  # the index of before or after, whole
        assert retriever.num_items("books") > 0
        pd.testing.assert_frame_equal(pq.read_table(out).to_pandas(), lists)
    assert min(killed.values()) >= 3, killed
    ok(*train)
    resumed = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in straight.items()), "the same bits"
    assert len((tmp_path / "again" / "metrics.jsonl").read_text().splitlines()) == 2
    ok("index", run)
    assert len(list(run.glob("index-*"))) == 1, "what killed writers left is gone"
