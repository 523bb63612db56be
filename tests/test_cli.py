"""The command line as a user meets it: one object on standard output, one sentence for each mistake, nothing lost."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from adi_lite import cli
from adi_lite.data import download, xmarket_files
from adi_lite.data.xmarket_sample import write_sample
from adi_lite.experiments import runner

SMALL = ["--set", "dim=16", "--set", "out_dim=16", "--set", "hidden=[16]", "--set", "batch_size=1024"]
TRAIN = ["train", "--dataset", "xmarket-sample", *SMALL, "--set", "epochs=1"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Commands run in an empty folder, with an empty cache, no mirror, and a network that does not answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ADI_LITE_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("ADI_LITE_MIRROR", raising=False)
    monkeypatch.setattr(download, "_unreachable", {})

    def unreachable(*_, **__):
        raise socket.gaierror(-3, "no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    return tmp_path


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    argv, sys.argv = sys.argv, ["adi-lite", *TRAIN, "--out", str(folder)]
    try:
        cli.main()
    finally:
        sys.argv = argv
    return folder


@pytest.fixture
def run(trained_once, place):
    """A folder of a finished run, to damage at will."""
    return Path(shutil.copytree(trained_once, place / "run"))


@pytest.fixture(scope="session")
def sample_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


@pytest.fixture
def mirror(sample_files, place, monkeypatch):
    """A mirror with the markets t1 and t2, which have no published hash."""
    folder = place / "mirror" / xmarket_files.FOLDER
    shutil.copytree(sample_files / "s2", folder / "t1")
    shutil.copytree(sample_files / "s3", folder / "t2")
    monkeypatch.setenv("ADI_LITE_MIRROR", str(place / "mirror"))
    return folder


@pytest.fixture
def background():
    """Starts the same command in a process of its own, without a network; none outlives the test.

    One thread each, here too: several processes with several threads wait for each other, and bits depend on the number.
    """
    started, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    yield lambda *words: started.append(_start(*words)) or started[-1]
    for process in started:
        process.kill()
        process.communicate()
    torch.set_num_threads(threads)


def _start(*words):
    dead = "http://127.0.0.1:9"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HTTP_PROXY": dead, "HTTPS_PROXY": dead}
    code = "from adi_lite.cli import main; main()"
    root = str(Path(cli.__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env={**env, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, process):
    """Until the condition holds or the process has ended well."""
    while not condition() and process.poll() != 0:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


# What the commands print


def test_without_a_command_the_help_is_shown(adi):
    for words in ([], ["data"]):
        status, out, err = adi(*words)
        assert status == 2 and "Commands" in out
        assert err == "error: name a command, such as those above\n"
    status, out, err = adi("--help")
    assert (status, err) == (0, "")
    assert all(name in out for name in ("train", "evaluate", "reproduce", "tune", "data"))


def test_train_and_evaluate_in_json(ok, place):
    report = ok(*TRAIN, "--out", "here")
    assert report["model"] == "adi" and report["epochs"] == 1 and report["records_per_second"] > 0
    assert report["out"] == "here" and set(report["parameters"]) == {"networks", "embeddings"}
    result = ok("evaluate", "here", "--k", "5,10")
    assert set(result["domains"]) == {"s1", "s2", "s3"}
    for values in (*result["domains"].values(), result["average"], result["micro"]):
        assert set(values) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10", "mrr"}
        assert all(0 < v < 1 for v in values.values())
    mean = np.mean([v["recall@10"] for v in result["domains"].values()])
    assert result["average"]["recall@10"] == pytest.approx(mean, abs=1e-12)
    assert result["counted"] == 640 + 710 + 330 and result["skipped"] == 0
    assert "stand-in" in result["notes"]["sample"]


def test_the_table_says_the_same_as_the_object(adi, ok, run):
    result = ok("evaluate", run)
    status, out, err = adi("evaluate", run)
    assert (status, err) == (0, "")
    for values in (*result["domains"].values(), result["average"]):
        assert f"{values['recall@10']:.4f}" in out
    assert result["definition"] in out and result["notes"]["sample"] in out


def test_progress_is_no_output(adi):
    status, out, err = adi(*TRAIN, "--out", "a")
    assert status == 0
    assert "epoch 1/1: loss" in err and "epoch" not in out.split("epochs:")[0]
    assert "parameters:" in out and not out.startswith("{")


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("command", ["fetch", "describe"])
def test_data_commands(adi, command, as_json):
    status, out, err = adi("data", command, "xmarket-sample", *(["--json"] if as_json else []))
    assert (status, err) == (0, "")
    if as_json:
        report = json.loads(out)
        assert report["name"] == "xmarket-sample" and list(report["domains"]) == ["s1", "s2", "s3"]
    assert "Drawn stand-in, not the cross-market data" in out


def test_results_of_each_query_are_saved(ok, run):
    import pandas as pd

    result = ok("evaluate", run, "--save", "new/queries.parquet")
    saved = pd.read_parquet("new/queries.parquet")
    assert saved["recall@10"].mean() == pytest.approx(result["micro"]["recall@10"])


def test_the_whole_corpus_and_the_other_splits(ok, run):
    corpus = ok("evaluate", run, "--protocol", "corpus")
    assert corpus["protocol"] == "corpus"
    assert corpus["average"]["recall@10"] < ok("evaluate", run)["average"]["recall@10"]
    assert ok("evaluate", run, "--split", "train")["protocol"] == "corpus"


def test_settings_come_from_a_file_and_from_set(ok, place):
    Path("mine.yaml").write_text("dim: 8\nout_dim: 8\nhidden: [8]\nepochs: 3\nuser: history\n")
    report = ok("train", "--dataset", "xmarket-sample", "--config", "mine.yaml", "--set", "epochs=1", "--out", "a")
    assert report["epochs"] == 1
    with safe_open("a/model.safetensors", "pt") as file:
        about = json.loads(file.metadata()["adi_lite"])
    assert about["config"]["model"]["dim"] == 8 and about["config"]["train"]["epochs"] == 1


def test_set_may_change_the_seed_and_the_run_says_so(ok):
    ok(*TRAIN, "--model", "dnn", "--set", "seed=3", "--out", "a")
    about = json.loads(Path("a/run.json").read_text())
    assert (about["seed"], about["model"], about["dataset"]) == (3, "dnn", "xmarket-sample")


def test_dnn_single_has_a_model_a_domain(ok):
    report = ok(*TRAIN, "--model", "dnn_single", "--out", "a", "--markets", "s2,s3")
    assert report["epochs"] == 2
    assert set(ok("evaluate", "a")["domains"]) == {"s2", "s3"}


def test_four_markets(ok, mirror, sample_files, monkeypatch):
    monkeypatch.setattr(xmarket_files, "HASHES", {})
    for market in ("s1", "s2", "s3"):
        shutil.copytree(sample_files / market, mirror / market)
    ok("train", "--markets", "s1,s2,s3,t1", *SMALL, "--set", "epochs=1", "--out", "four")
    result = ok("evaluate", "four")
    assert list(result["domains"]) == ["s1", "s2", "s3", "t1"]
    assert result["dataset"] == "xmarket-s1-s2-s3-t1"


# Mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "nonsense"),
        (["train"], "--out"),
        (["train", "--out", "a", "--nonsense", "1"], "--nonsense"),
        (["train", "--out", "a", "--dataset", "nope"], "unknown data set 'nope'; known are "),
        (["data", "fetch", "nope"], "unknown data set 'nope'"),
        (["data", "describe", "nope"], "unknown data set 'nope'"),
        (["data", "describe", "xmarket-sample", "--markets", "s1,q9"], "no market q9; it has s1, s2, s3"),
        (["data", "fetch", "xmarket-sample", "--markets", ","], "at least one market"),
        (["data", "fetch", "xmarket", "--markets", "q9"], "unknown market 'q9': known are s1, s2, s3, t1, t2"),
        ([*TRAIN, "--out", "a", "--markets", "s1,q9"], "no market q9"),
        (["train", "--out", "a", "--dataset", "simulator", "--markets", "s1"], "--markets belongs to the cross-market"),
        ([*TRAIN, "--out", "a", "--markets", "s1,s1"], "markets must differ"),
        ([*TRAIN, "--out", "a", "--model", "nope"], "unknown model 'nope'; choose dnn_single, dnn"),
        ([*TRAIN, "--out", "a", "--config", "nope"], "unknown configuration 'nope'"),
        ([*TRAIN, "--out", "a", "--config", "nope.yaml"], "no configuration file nope.yaml"),
        ([*TRAIN, "--out", "a", "--seed", "-1"], "--seed"),
        ([*TRAIN, "--out", "a", "--seed", "one"], "--seed"),
        ([*TRAIN, "--out", "a", "--set", "epochs"], "needs name=value, got 'epochs'"),
        ([*TRAIN, "--out", "a", "--set", "epochs=many"], "train.epochs: Input should be a valid integer"),
        ([*TRAIN, "--out", "a", "--set", "epochs="], "train.epochs"),
        ([*TRAIN, "--out", "a", "--set", "epochs=0"], "greater than or equal to 1"),
        ([*TRAIN, "--out", "a", "--set", "epochs=["], "'[' is no value"),
        ([*TRAIN, "--out", "a", "--set", "hidden=a: b: c"], "'a: b: c' is no value"),
        ([*TRAIN, "--out", "a", "--set", "hidden=[0]"], "hidden needs at least one width"),
        ([*TRAIN, "--out", "a", "--set", "dim=1.5"], "model.dim"),
        ([*TRAIN, "--out", "a", "--set", "learning_rate=.nan"], "train.learning_rate"),
        ([*TRAIN, "--out", "a", "--set", "wings=2"], "unknown setting 'wings'; the settings are method, user"),
        ([*TRAIN, "--out", "a", "--set", "=2"], "unknown setting ''"),
        ([*TRAIN, "--out", "a", "--set", "method=dnn"], "method=dnn"),
        ([*TRAIN, "--out", "a", "--set", "optimizer=sparse_adam"], "needs sparse_embeddings=True"),
        ([*TRAIN, "--out", "a", "--set", "self_training={portion: 7}"], "self_training.portion"),
        (["evaluate", "nowhere"], "nowhere is no run: it has no run.json"),
        (["reproduce", "--only", "table3,nope"], "unknown plan nope; the plans are table3"),
        (["reproduce", "--only", "table3", "--profile", "huge"], "unknown profile 'huge'; choose smoke, quick, full"),
        (["reproduce", "--only", "table3", "--profile", "smoke", "--rows", "nope"], "no line nope; it has dnn_single"),
        (["tune", "nope", "--out", "t"], "unknown method 'nope'; choose all, dnn_single"),
        (["tune", "adi", "--out", "t", "--trials", "0"], "--trials"),
        (["tune", "adi", "--out", "t", "--dataset", "nope"], "unknown data set 'nope'"),
        (["tune", "adi", "--out", "t", "--dataset", "xmarket-sample", "--set", "wings=2"], "unknown setting 'wings'"),
        (["tune", "adi", "--out", "t", "--dataset", "xmarket-sample", "--set", "method=dnn"], "method=dnn"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_wrong_words(refused, words, says):
    assert says in refused(*words)
    assert (not Path("a").exists() and not Path("runs").exists()) or words[0] == "reproduce"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"epochs: [1\n", "mine.yaml is no YAML file"),
        (b"\xff\xfe\x00", "mine.yaml is no YAML file"),
        (b"", "must hold settings"),
        (b"- epochs\n", "must hold settings"),
        (b"1: 2\n", "must hold settings"),
        (b"epoch: 2\n", "unknown setting 'epoch'"),
    ],
)
def test_wrong_configuration_files(refused, content, says):
    Path("mine.yaml").write_bytes(content)
    assert says in refused(*TRAIN, "--out", "a", "--config", "mine.yaml")


def test_wrong_evaluations(refused, run):
    assert "--k needs positive whole numbers" in refused("evaluate", run, "--k", "0")
    assert "--k needs positive whole numbers" in refused("evaluate", run, "--k", "ten")
    assert "unknown split 'later'" in refused("evaluate", run, "--split", "later")
    assert "unknown protocol 'x'" in refused("evaluate", run, "--protocol", "x")
    assert "no candidate lists for the train split" in refused(
        "evaluate", run, "--split", "train", "--protocol", "candidates"
    )


def test_a_place_that_cannot_be_written_to(adi, refused, place, monkeypatch):
    Path("file").write_text("mine")
    assert "file is a file; --out needs a folder" in refused(*TRAIN, "--out", "file")
    assert "Not a directory" in refused(*TRAIN, "--out", "file/below")
    assert "file is a file" in refused("tune", "popularity", "--dataset", "xmarket-sample", "--out", "file")
    monkeypatch.setenv("ADI_LITE_RUNS", "file")
    assert "file: File exists" in refused("reproduce", "--only", "table3", "--profile", "smoke")
    assert Path("file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no such permissions here")
def test_a_folder_that_may_only_be_read(refused, place, monkeypatch):
    locked = place / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):  # whoever may do everything: let the system refuse in its words
        real = os.mkdir

        def mkdir(path, *rest, **more):
            if str(path).startswith(str(locked)):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **more)

        monkeypatch.setattr(os, "mkdir", mkdir)
    error = refused(*TRAIN, "--out", locked / "a")
    assert error == f"error: {locked / 'a'}: Permission denied"


def test_a_folder_that_holds_a_run_is_left_alone(refused, run):
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert "holds a run already (run.json): add --resume" in refused(*TRAIN, "--out", run)
    (run / "run.json").unlink()
    assert "holds a run already (model.safetensors)" in refused(*TRAIN, "--out", run)
    (run / "run.json").write_bytes(before[run / "run.json"])
    assert "with other settings" in refused(*TRAIN, "--out", run, "--resume", "--set", "dropout=0.3")
    assert "with other settings" in refused(*TRAIN, "--out", run, "--resume", "--seed", "1")
    assert "run with the model adi, not dnn" in refused(*TRAIN, "--out", run, "--resume", "--model", "dnn")
    assert "the markets by default, not ['s1', 's2']" in refused(*TRAIN, "--out", run, "--resume", "--markets", "s1,s2")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about: "", "run.json is damaged"),
        (lambda about: json.dumps(about)[:-9], "run.json is damaged"),
        (lambda about: "[1]", "run.json is damaged"),
        (lambda about: json.dumps({**about, "dataset": 5}), "run.json is damaged: dataset"),
        (lambda about: json.dumps({k: v for k, v in about.items() if k != "options"}), "run.json is damaged: options"),
        (lambda about: json.dumps({**about, "dataset": "gone"}), "unknown data set 'gone'"),
        (lambda about: json.dumps({**about, "options": {"wings": None}}), "no option wings"),
        (lambda about: json.dumps({**about, "model": "dnn"}), "'adi', not 'dnn'"),
        (
            lambda about: json.dumps({**about, "options": {"markets": ["s1", "s2"]}}),
            "trained on the domains s1, s2, s3",
        ),
    ],
)
def test_damaged_descriptions(refused, run, change, says):
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(change(about))
    assert says in refused("evaluate", run)


@pytest.mark.parametrize("keep", [0, 7, 8, 500, -1])
def test_damaged_models(refused, run, keep):
    raw = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(raw[:keep])
    assert "model.safetensors is damaged or no safetensors file" in refused("evaluate", run)
    (run / "resume.safetensors").write_bytes(raw[:keep])
    assert "resume.safetensors is damaged" in refused(*TRAIN, "--out", run, "--resume")


def test_models_that_are_not_the_runs(ok, refused, run):
    ok(*TRAIN, "--model", "dnn", "--out", "other")
    shutil.copy("other/model.safetensors", run / "model.safetensors")
    assert "model of another method than its run.json says: 'dnn', not 'adi'" in refused("evaluate", run)
    save_file({"x": torch.zeros(3)}, run / "model.safetensors")
    assert "was not written by adi_lite" in refused("evaluate", run)
    (run / "model.safetensors").unlink()
    assert "no finished model in" in refused("evaluate", run)


def test_a_model_with_nan(refused, run):
    path = run / "model.safetensors"
    with safe_open(path, "pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    name = next(n for n in tensors if n.startswith("user") and tensors[n].is_floating_point())
    tensors[name].fill_(float("nan"))
    save_file(tensors, path, about)
    assert "NaN" in refused("evaluate", run)


def test_a_loss_that_is_nan(refused):
    error = refused(*TRAIN, "--set", "residual_gain=.nan", "--out", "a")
    assert "the loss became nan in epoch 0" in error


def test_a_model_of_other_data(ok, refused, mirror):
    ok("train", "--markets", "t1,t2", *SMALL, "--set", "epochs=1", "--out", "a")
    ok("evaluate", "a")
    records = (mirror / "t2" / "train_5core.tsv").read_text().splitlines()
    (mirror / "t2" / "train_5core.tsv").write_text("\n".join([*records, "newU\tnewP\t1.0"]) + "\n")
    error = refused("evaluate", "a")
    assert "a/model.safetensors was trained on other data ('xmarket-t1-t2')" in error


@pytest.mark.parametrize("command", [["data", "describe", "xmarket"], ["train", "--out", "a"]])
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("train_5core.tsv", None, "t1/train_5core.tsv is missing: the mirror"),
        ("valid_qrel.tsv", None, "t1/valid_qrel.tsv is missing: the mirror"),
        ("train_5core.tsv", lambda text: "", "t1/train_5core.tsv is empty"),
        ("train_5core.tsv", lambda text: text[:-8], "found 2 fields, expected 3"),
        (
            "train_5core.tsv",
            lambda text: text.replace("\t1.0\n", "\tnan\n", 1),
            "train_5core.tsv, line 2: rating 'nan'",
        ),
        ("train_5core.tsv", lambda text: text.replace("\t", ","), "line 1: no column userId"),
        ("valid_qrel.tsv", lambda text: text + "\0", "valid_qrel.tsv, line 712: a zero byte"),
        ("valid_run.tsv", lambda text: "s2U0000000\tP1,P2\n", "lack the test item"),
        ("valid_run.tsv", lambda text: "s2U0000000\tP1,P1\n", "the same candidate twice"),
    ],
)
def test_damaged_data_files(refused, mirror, command, name, change, says):
    path = mirror / "t1" / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text() if path.exists() else ""))
    error = refused(*command, "--markets", "t1,t2")
    assert says in error and "t1" in error
    assert not Path("a").exists()


def test_a_published_file_must_be_the_published_one(refused, mirror, sample_files):
    shutil.copytree(sample_files / "s1", mirror / "s1")
    assert "s1/train_5core.tsv: not the published file" in refused("data", "fetch", "xmarket", "--markets", "s1,t1")


def test_data_that_cannot_be_reached(refused, place, monkeypatch):
    error = refused("data", "fetch", "xmarket")
    assert "wsdm22-xmarket/s1/train_5core.tsv is missing" in error and "no connection" in error
    assert "ADI_LITE_MIRROR" in error
    monkeypatch.setenv("ADI_LITE_MIRROR", "[red]nowhere")
    assert "ADI_LITE_MIRROR names [red]nowhere, which is not a folder" in refused("data", "fetch", "xmarket")


def test_candidates_may_name_items_and_users_that_training_never_saw(ok, mirror):
    rows = [line.split("\t") for line in (mirror / "t1" / "valid_qrel.tsv").read_text().splitlines()[1:]]
    with (mirror / "t1" / "valid_qrel.tsv").open("a") as file:
        file.write("stranger\tPnew\t1\n")
    lists = [[user, item, *(f"Q{i}" for i in range(99))] for user, item, _ in rows]
    lists.append(["stranger", "Pnew", *(f"Q{i}" for i in range(99))])
    text = "\n".join(f"{user}\t{','.join(items)}" for user, *items in lists)
    (mirror / "t1" / "valid_run.tsv").write_text(text + "\n")
    ok("train", "--markets", "t1,t2", *SMALL, "--set", "epochs=1", "--out", "a")
    result = ok("evaluate", "a")
    assert result["counted"] == 711 + 330 and "1 test users have no training record" in result["notes"]["unknown users"]
    assert 0 <= result["average"]["recall@10"] <= 1


# Nothing is lost


def test_a_run_that_is_killed_goes_on_to_the_same_bits(ok, place, background):
    moment = random.Random()  # any moment will do: the outcome must not depend on it
    train = [*TRAIN, "--set", "epochs=12", "--set", "patience=12", "--out"]
    process = background(*train, "cut")
    wait_for(lambda: (place / "cut" / "resume.safetensors").exists(), process)
    time.sleep(delay := moment.uniform(0, 1.5))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = (place / "cut" / "model.safetensors").exists()
    ok(*train, "cut", "--resume")
    ok(*train, "whole")
    assert ok("evaluate", "cut") == ok("evaluate", "whole"), f"killed after {delay:.2f} s (finished: {finished})"
    cut, whole = load_file("cut/model.safetensors"), load_file("whole/model.safetensors")
    assert all(torch.equal(cut[name], whole[name]) for name in whole) and set(cut) == set(whole)


def test_a_run_killed_before_its_first_epoch_starts_again(ok, place):
    (place / "a").mkdir()
    (place / "a" / "run.json").write_text("half wri")
    ok(*TRAIN, "--out", "a", "--resume")
    ok("evaluate", "a")


def test_resuming_a_finished_run_changes_nothing(ok, run):
    before = ok("evaluate", run)
    assert ok(*TRAIN, "--out", run, "--resume")["epochs"] == 1
    assert ok("evaluate", run) == before


def test_reproduce_keeps_what_it_ran(adi, ok, monkeypatch):
    words = ["reproduce", "--only", "table3", "--profile", "smoke", "--rows", "dnn,popularity"]
    first = ok(*words)
    monkeypatch.setattr(runner, "run_row", lambda *_: pytest.fail("this run was there already"))
    assert ok(*words) == first
    table = first["table3"]
    assert table["dataset"] == "xmarket-sample" and "stand-in" in table["notes"]["sample"]
    assert "1680 queries" in table["definition"]
    assert {(r["label"], r["domain"]) for r in table["rows"]} == {
        (label, domain) for label in ("dnn", "popularity") for domain in ("s1", "s2", "s3", "average")
    }
    status, out, err = adi(*words)
    assert status == 0 and "Popularity" in out and "Drawn stand-in" in out and "[1/3]" in err


def test_without_the_data_a_sample_stands_in_and_says_so(adi):
    status, out, err = adi("reproduce", "--only", "table3", "--profile", "quick", "--rows", "popularity")
    assert status == 0
    assert "A drawn sample stands in for 'xmarket'" in err and "Drawn stand-in, not the cross-market data" in out


def test_two_at_once_one_of_them_killed(ok, place, monkeypatch, background):
    words = ["reproduce", "--only", "table3", "--profile", "smoke", "--rows", "dnn,popularity", "--json"]
    one, two = background(*words), background(*words)
    wait_for(lambda: any((place / "runs").rglob("*.parquet")), one)  # in the middle of keeping a run
    one.send_signal(signal.SIGKILL)
    one.communicate()
    out, err = two.communicate()
    assert two.returncode == 0, err
    monkeypatch.setattr(runner, "run_row", lambda *_: pytest.fail("this run was there already"))
    assert ok(*words[:-1]) == json.loads(out)


def test_tune_keeps_its_trials(adi, ok):
    words = ["tune", "item_knn", "--dataset", "xmarket-sample", "--out", "t", "--trials", "3"]
    best = ok(*words)["item_knn"]
    trials = json.loads(Path("t/item_knn.json").read_text())
    assert len(trials) == 3 and best == max(trials, key=lambda t: t["recall@10"])
    status, out, err = adi(*words)
    assert (status, err) == (0, "") and f"item_knn: {best['recall@10']:.4f}" in out
    assert json.loads(Path("t/item_knn.json").read_text()) == trials
