"""Several processes train what one trains; checkpoints fit any number of them; a killed process costs no more than an epoch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from distributed_worlds import CASES, FOUR, RESHARDED, config, data, float64, spawn, train_until

import adi_lite
from adi_lite import train
from adi_lite.nn.sharded_embedding import share
from adi_lite.training import checkpoint
from adi_lite.training.checkpoint import CheckpointError
from adi_lite.training.distributed import fit_distributed
from adi_lite.training.process_group import process_group
from adi_lite.training.ranks import LaunchError, check_device, cut
from adi_lite.training.trainer import fit, load_trained

SETTINGS = ("dim=8", "out_dim=8", "hidden=[8]", "batch_size=64", "epochs=4", "adaptation=se", "dropout=0.2")
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder, rng, n = tmp_path_factory.mktemp("shop"), np.random.default_rng(0), 300
    columns = {
        "user_id": rng.integers(0, 20, n),
        "item_id": (30 * rng.random(n) ** 1.5).astype(int),
        "domain": rng.choice(["books", "music", "games"], n, p=[0.5, 0.3, 0.2]),
        "timestamp": rng.integers(1_700_000_000, 1_701_000_000, n),
    }
    pd.DataFrame(columns).to_csv(folder / "interactions.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def runs(shop, tmp_path_factory) -> Path:
    """Runs of two processes, then one, then four, which go on with each other's checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    spawn(2, folder, ["--data", str(shop), "--out", str(folder / "shop"), "--json", *SET])
    with one_process() as ranks, float64():
        for case in CASES:
            fit_distributed(data(case), config(case), ranks, out=folder / f"{case}-1")
        for case in RESHARDED:
            manifest = json.loads((folder / f"{case}-resharded" / "resume.json").read_text())
            assert manifest["world"] == 2 and len(manifest["about"]["epochs"]) == 1
            train_until(2, case, ranks, folder / f"{case}-resharded")
    spawn(4, folder)
    return folder


def one_process():
    """What process_group gives without torchrun, whatever started the tests."""
    assert not {"RANK", "WORLD_SIZE"} & set(os.environ)
    return process_group()


@pytest.fixture(scope="module")
def alone():
    """Each case trained by ``fit``."""
    with float64():
        return {case: fit(data(case), config(case)) for case in CASES}


def assert_equal(trained, expected, tolerance: float) -> None:
    for name in ("loss", "valid"):
        values = [[e[name] for e in t.epochs if name in e] for t in (trained, expected)]
        assert values[0] == pytest.approx(values[1], abs=tolerance, rel=0)
    assert trained.best_epoch == expected.best_epoch
    for d, model in expected.scorer.models.items():
        found = trained.scorer.models[d].state_dict()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(found[name], value, atol=tolerance, rtol=0, msg=f"{name} of domain {d}")


@pytest.mark.parametrize(("case", "world"), [*((c, w) for c in CASES for w in (1, 2)), *((c, 4) for c in FOUR)])
def test_several_processes_train_what_one_trains(runs, alone, case, world):
    """The issue asks for 1e-5; what is left is the order of sums."""
    with float64():
        trained = load_trained(runs / f"{case}-{world}", data(case))
        assert len(trained.epochs) == len(alone[case].epochs) >= 3
        assert next(iter(trained.scorer.models.values())).item.embedding.domain.weight.dtype == torch.float64
        assert_equal(trained, alone[case], 1e-7)


@pytest.mark.parametrize("case", RESHARDED)
def test_checkpoints_of_two_processes_go_on_in_one_and_then_in_four(runs, alone, case):
    with float64():
        assert_equal(load_trained(runs / f"{case}-resharded", data(case)), alone[case], 1e-7)
    folders = [p.name for p in (runs / f"{case}-resharded").glob("resume-*")]
    assert folders == ["resume-000003"], "older checkpoints are removed"
    files = sorted(p.name for p in (runs / f"{case}-resharded" / folders[0]).iterdir())
    assert files == [f"rank-{r}.safetensors" for r in range(4)]


def test_tables_are_cut_and_networks_are_written_once(runs):
    tensors = [checkpoint.load(runs / "adi-4" / "resume-000003" / f"rank-{r}.safetensors")[0] for r in range(4)]
    name = "model.item.embedding.tables.feature_item_id.weight"
    assert [len(t[name]) for t in tensors] == [6, 6, 6, 3]  # 21 rows
    state = [k for k in tensors[3] if k.startswith("optimizer.") and k.endswith("exp_avg")]
    assert len(state) == 4, "user, history, item, bias"
    assert all("embedding.tables" in k or k.endswith("bias.weight") or k.startswith("optimizer.") for k in tensors[3])
    assert "model.item.network.forward_network.weight" in tensors[0]


@pytest.mark.parametrize("world", [2, 4])
def test_layers_equal_those_of_one_process(runs, world):
    """Normalisation with a domain missing here, missing everywhere, or of one row; lookups from one process only."""
    for rank in range(world):
        errors = json.loads((runs / f"errors-{world}-{rank}.json").read_text())
        assert len(errors) == 20
        assert {k: v for k, v in errors.items() if not v < 1e-11} == {}


def test_the_same_number_of_processes_gives_the_same_bits(runs):
    a, b = (checkpoint.load(runs / f"again-{x}" / checkpoint.MODEL_FILE) for x in "ab")
    assert all(torch.equal(value, b[0][name]) for name, value in a[0].items())
    assert [e["loss"] for e in a[1]["epochs"]] == [e["loss"] for e in b[1]["epochs"]]


def course(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "records_per_second")} for line in lines]


KILLED_ONCE = """
import os, runpy, signal, sys
from adi_lite.training.objective import Objective
right, steps = Objective.__call__, [0]
def dying(*args):
    steps[0] += 1
    if steps[0] == 10 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return right(*args)
Objective.__call__ = dying
runpy.run_module("adi_lite.train", run_name="__main__")
"""


@contextmanager
def started(logs: Path, *words: object) -> Iterator[subprocess.Popen]:
    """torchrun, which is killed in the end. It writes to files: nobody waits for pipes that its processes may hold."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(Path(adi_lite.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    logs.mkdir()
    with open(logs / "out", "w") as out, open(logs / "err", "w") as err:
        agent = subprocess.Popen(command, env=env, stdout=out, stderr=err)
    try:
        yield agent
    finally:
        agent.kill()
        agent.wait()


def torchrun(logs: Path, *words: object) -> tuple[int, str, str]:
    """Status, standard output and standard error; seconds on an idle machine, minutes on a very busy one."""
    with started(logs, *words) as agent:
        try:
            status = agent.wait(timeout=600)
        except subprocess.TimeoutExpired:
            pytest.fail(f"torchrun did not end\n{(logs / 'err').read_text()}")
    return status, (logs / "out").read_text(), (logs / "err").read_text()


def wait_for(condition: Callable[[], object], seconds: float = 300) -> object:
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def test_a_killed_process_is_started_again_and_the_run_ends_as_if_nothing_had_been(runs, shop, ok, tmp_path):
    script, out = tmp_path / "killed_once.py", tmp_path / "run"
    script.write_text(KILLED_ONCE)
    status, said, err = torchrun(
        tmp_path / "logs", "--max-restarts", 1, script, "--data", shop, "--out", out, "--json", *SET
    )
    assert status == 0, err
    assert "2 processes, cpu, started again" in err and "epoch 2/4" in err
    assert err.count("epoch 1/4") <= 2 and json.loads(said)["processes"] == 2
    assert len(course(out)) == 4 and course(out) == course(runs / "shop")
    a, b = (checkpoint.load(run / checkpoint.MODEL_FILE)[0] for run in (out, runs / "shop"))
    assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert ok("evaluate", out)["average"] == ok("evaluate", runs / "shop")["average"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the children of a process from /proc")
def test_processes_end_with_torchrun_and_a_refused_command_stays_refused(shop, tmp_path):
    words = ("-m", "adi_lite.train", "--data", shop, "--out", tmp_path / "run", *SET, "--set", "epochs=100000")
    with started(tmp_path / "first", *words) as agent:
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        wait_for((tmp_path / "run" / "resume.json").exists)
        workers = children.read_text().split()
        assert len(workers) == 2
    wait_for(lambda: not any(alive(w) for w in workers), 60)
    before = (tmp_path / "run" / "run.json").read_bytes(), (tmp_path / "run" / "resume.json").read_bytes()
    status, _, err = torchrun(tmp_path / "second", "--max-restarts", 1, *words)
    assert status != 0 and err.count("holds a run already") in (2, 3, 4), (
        "of both processes, twice, unless stopped first"
    )
    assert "epoch" not in err
    assert before == tuple((tmp_path / "run" / name).read_bytes() for name in ("run.json", "resume.json"))


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(monkeypatch, *words: object) -> int:
    """Status of the module's command in this process."""
    monkeypatch.setattr(sys, "argv", ["adi_lite.train", *map(str, words)])
    try:
        train.run(train.app)
    except SystemExit as stop:
        return stop.code
    return 0


def test_the_folder_is_as_the_command_of_one_process_leaves_it(runs, shop, ok, tmp_path, monkeypatch, capsys):
    """Without torchrun; the same settings, log and figures; evaluate, index and retrieve work on it."""
    ok("train", "--data", shop, "--out", tmp_path / "one", *SET)
    assert main(monkeypatch, "--data", shop, "--out", tmp_path / "module", "--json", *SET) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["processes"] == 1 and said["epochs"] == 4
    for run in (tmp_path / "module", runs / "shop"):
        for a, b in zip(course(tmp_path / "one"), course(run), strict=True):
            assert a == pytest.approx(b, rel=1e-3)
        assert (run / "run.json").read_bytes() == (tmp_path / "one" / "run.json").read_bytes()
        assert ok("evaluate", run)["average"] == pytest.approx(ok("evaluate", tmp_path / "one")["average"], abs=0.05)
    assert len(ok("index", runs / "shop")["domains"]) == 3
    (tmp_path / "ask.csv").write_text("user_id\n1\n2\n")
    ask = ("--domain", "music", "--users", tmp_path / "ask.csv", "--k", 5, "--out", tmp_path / "top.parquet")
    assert ok("retrieve", runs / "shop", *ask)["rows"] == 10


def test_each_kind_of_run_is_gone_on_with_by_its_own_command(runs, shop, refused, ok, tmp_path, monkeypatch, capsys):
    ok("train", "--data", shop, "--out", tmp_path, *SET, "--set", "epochs=1")
    again = ("--data", shop, "--resume", "--out")
    assert "written by torchrun -m adi_lite.train" in refused("train", *again, runs / "shop", *SET)
    assert main(monkeypatch, *again, tmp_path, *SET) == 2
    assert "resume.safetensors was written by adi-lite train" in capsys.readouterr().err
    assert main(monkeypatch, "--data", shop, "--out", runs / "shop", *SET) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert main(monkeypatch, *again, runs / "shop", *SET, "--set", "learning_rate=0.5") == 2
    assert "a run with other settings" in capsys.readouterr().err


def test_a_wrong_launch_is_told_in_a_sentence(shop, tmp_path, monkeypatch, capsys):
    words = ("--data", shop, "--out", tmp_path / "run", *SET)
    if not torch.cuda.is_available():
        assert main(monkeypatch, *words, "--device", "cuda") == 2
        assert "--device cuda needs an NVIDIA GPU" in capsys.readouterr().err
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    assert main(monkeypatch, *words) == 2
    assert "RANK and WORLD_SIZE set, but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT" in capsys.readouterr().err
    with pytest.raises(LaunchError, match="device must be cpu or cuda, got 'tpu'"), process_group("tpu"):
        pass
    assert not (tmp_path / "run").exists()


def test_too_few_gpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(LaunchError, match="process 2 of this machine has no GPU of its own: it has 2"):
        check_device("cuda", 2)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("case", ["self", "likely"])
def test_several_processes_choose_the_pseudo_labels_of_one(runs, alone, case, world):
    with float64():
        found = load_trained(runs / f"{case}-{world}", data(case))
    chosen = [[e["pseudo_labels"] for e in t.epochs] for t in (found, alone[case])]
    assert chosen[0] == chosen[1] and chosen[0][-1] > chosen[0][-2] > 0


def damage(folder: Path, part: str) -> str:
    """Damage a copy of a run; what must be said of it."""
    manifest, shard = folder / "resume.json", folder / "resume-000003" / "rank-1.safetensors"
    about = json.loads(manifest.read_text())
    if part == "no shard":
        shard.unlink()
        return "describes 2 processes, but .* lacks rank-1.safetensors"
    if part == "half a shard":
        shard.write_bytes(shard.read_bytes()[:1000])
        return "rank-1.safetensors is damaged"
    if part == "no json":
        manifest.write_text("{")
        return "resume.json is damaged"
    if part == "another format":
        manifest.write_text(json.dumps({**about, "format": 9}))
        return "format 9, this version reads format 1"
    if part == "elsewhere":
        manifest.write_text(json.dumps({**about, "folder": "../x"}))
        return "its folder '../x' is not beside it"
    manifest.write_text(json.dumps({**about, "world": 1}))
    return "has \\d+ rows where \\d+ belong"


@pytest.mark.parametrize(
    "part", ["no shard", "half a shard", "no json", "another format", "elsewhere", "fewer processes"]
)
def test_damaged_checkpoints_are_told(runs, tmp_path, part):
    folder = Path(shutil.copytree(runs / "adi-2", tmp_path / "run"))
    said = damage(folder, part)
    with one_process() as ranks, float64(), pytest.raises(CheckpointError, match=said):
        fit_distributed(data("adi"), config("adi"), ranks, out=folder, resume=True)


def test_other_records_are_refused(runs):
    other = data("adi")
    other = other.replace(train=other.train.take(torch.arange(len(other.train)) != 5))
    with one_process() as ranks, float64(), pytest.raises(CheckpointError, match="other records"):
        fit_distributed(other, config("adi"), ranks, out=runs / "adi-2", resume=True)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 5, 21])
def test_shares_are_a_partition(rows, world):
    parts = [share(rows, r, world) for r in range(world)]
    assert [i for p in parts for i in range(rows)[p]] == list(range(rows))
    assert max(p.stop - p.start for p in parts) == -(-rows // world)
    counts = (2, 0, rows)
    for part in (share(sum(counts), r, world) for r in range(world)):
        domain = np.repeat(np.arange(3), counts)[part]
        slices = cut(counts, part)
        assert [s.stop - s.start for s in slices] == np.bincount(domain, minlength=3).tolist()
        within = np.concatenate([np.arange(c) for c in counts])[part]
        assert (
            np.concatenate([np.arange(c)[s] for c, s in zip(counts, slices, strict=True)]).tolist() == within.tolist()
        )
