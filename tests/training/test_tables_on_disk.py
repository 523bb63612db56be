"""Tables in files: the same bits as in memory, nothing left behind, and memory that does not grow with them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adi_lite.training import checkpoint
from adi_lite.training.checkpoint import MODEL_FILE, RESUME_FILE
from adi_lite.training.config import Config
from adi_lite.training.distributed import fit_distributed
from adi_lite.training.process_group import process_group
from adi_lite.training.storage import OnDisk
from adi_lite.training.trainer import fit, load_trained

SPARSE = {"optimizer": "rowwise_adagrad", "sparse_embeddings": True}


def config(**changes: object) -> Config:
    small = {"dim": 8, "out_dim": 8, "hidden": (8,), "epochs": 3, "batch_size": 32, "num_negatives": 9, "dropout": 0.2}
    return Config().with_changes(**{**small, **SPARSE, **changes})


def assert_same(a, b) -> None:
    drop = ("seconds", "records_per_second")
    assert [{k: v for k, v in e.items() if k not in drop} for e in a.epochs] == [
        {k: v for k, v in e.items() if k not in drop} for e in b.epochs
    ]
    for d, model in a.scorer.models.items():
        other = b.scorer.models[d].state_dict()
        assert all(torch.equal(v, other[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize(
    "changes", [{"patience": 3}, {"tie_history": True}, {"method": "dnn_single"}], ids=["patience", "tied", "single"]
)
def test_the_bits_of_tables_in_memory(make_tiny, tmp_path, changes):
    data, settings, files = make_tiny(rich=True), config(**changes), tmp_path / "files"
    if "tie_history" in changes:
        data = make_tiny()
    expected = fit(data, settings)
    assert_same(fit(data, settings, out=tmp_path / "run", tables=files), expected)
    assert_same(load_trained(tmp_path / "run", data), expected)
    assert list(files.iterdir()) == [], "files without names"


class Killed(Exception):
    pass


def die(record: dict) -> None:
    if record["epoch"] == 0:
        raise Killed


@pytest.mark.parametrize("on_disk", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("several", [False, True])
def test_a_run_goes_on_wherever_its_tables_are(make_tiny, tmp_path, on_disk, several):
    data, settings = make_tiny(), config(patience=3)
    first, second = (tmp_path / "files" if disk else None for disk in on_disk)
    expected = fit(data, settings)
    if several:
        with process_group() as ranks:
            with pytest.raises(Killed):
                fit_distributed(data, settings, ranks, out=tmp_path / "run", progress=die, tables=first)
            fit_distributed(data, settings, ranks, out=tmp_path / "run", resume=True, tables=second)
            fit_distributed(data, settings, ranks, out=tmp_path / "whole")
        found, expected = (load_trained(tmp_path / name, data) for name in ("run", "whole"))
    else:
        with pytest.raises(Killed):
            fit(data, settings, out=tmp_path / "run", progress=die, tables=first)
        assert (tmp_path / "run" / RESUME_FILE).exists()
        found = fit(data, settings, out=tmp_path / "run", resume=True, tables=second)
    assert_same(found, expected)


def test_what_tables_on_disk_do_not_fit_is_told(make_tiny, tmp_path, refused, monkeypatch):
    for changes in ({"optimizer": "adam", "sparse_embeddings": False}, {"optimizer": "sparse_adam"}):
        with pytest.raises(ValueError, match="tables on disk need optimizer='rowwise_adagrad' and sparse_embeddings"):
            fit(make_tiny(), config(**changes), tables=tmp_path)
    said = refused("train", "--dataset", "xmarket-sample", "--out", tmp_path / "run", "--tables-on-disk", tmp_path)
    assert "tables on disk need optimizer='rowwise_adagrad'" in said and not (tmp_path / "run").exists()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"has no room for 4\.00 GiB of tables: No space left on device"):
        OnDisk(tmp_path).zeros(2**20, 1024)
    assert not any(p.name.startswith("adi_lite-") for p in tmp_path.iterdir())


def test_rows_are_in_files_and_come_as_zeros(tmp_path):
    disk = OnDisk(tmp_path / "new")
    a = disk.zeros(1000, 3)
    assert a.shape == (1000, 3) and a.dtype == torch.float32 and not a.any()
    a += 1
    b = disk.copy(a)
    a += 1
    assert b.eq(1).all() and a.eq(2).all()
    assert disk.zeros(0, 3).shape == (0, 3) and disk.zeros(2, dtype=torch.float64).dtype == torch.float64
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path / "new") in maps.read_text()


def test_a_loaded_model_leaves_its_tables_in_the_file(make_tiny, tmp_path):
    data = make_tiny()
    fit(data, config(), out=tmp_path)
    model = load_trained(tmp_path, data).scorer.models[0]
    tensors, _ = checkpoint.load(tmp_path / MODEL_FILE)
    assert not any(t.is_meta for t in model.state_dict().values())
    assert all(torch.equal(v, tensors[n]) for n, v in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


MEASURED = """
import json, resource, sys, threading, time
from pathlib import Path
import numpy as np, torch
from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Schema
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit, load_trained

def anonymous():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("RssAnon"))
    return int(line.split()[1]) / 1024

def wide(N, users=10):
  train = Interactions(torch.arange(2000) % users, torch.arange(2000) * 199, torch.arange(2000) % 2)
  return MultiDomainDataset(
    name="wide", schema=Schema(("a", "b"), (Feature("user_id", "categorical", users + 1),),
    (Feature("item_id", "categorical", N + 1),)), user_ids=np.arange(users), item_ids=np.arange(N),
    users={"user_id": torch.arange(1, users + 1)}, items={"item_id": torch.arange(1, N + 1)}, train=train,
    valid=Interactions.empty(), test=Interactions.empty(), catalogues=(torch.arange(N), torch.arange(N)),
)
config = Config().with_changes(user="id", dim=256, out_dim=8, hidden=(8,), epochs=1, batch_size=500, num_negatives=50,
    optimizer="rowwise_adagrad", sparse_embeddings=True, method="dnn")

class Killed(Exception):
    pass

def die(record):
    raise Killed

folder, files = Path(sys.argv[1]), Path(sys.argv[1]) / "files" if sys.argv[2] == "disk" else None
fit(wide(398_001), config.with_changes(dim=1), tables=files)  # what training imports, and what it makes of the records
data, peak, done = wide(400_000), [0.0], threading.Event()
before = anonymous()

def watch():
    while not done.wait(0.005):
        peak[0] = max(peak[0], anonymous())

watcher = threading.Thread(target=watch)
watcher.start()
try:
    fit(data, config.with_changes(epochs=2), out=folder / "run", progress=die, tables=files)
except Killed:
    pass
fit(data, config.with_changes(epochs=2), out=folder / "run", resume=True, tables=files)
model = load_trained(folder / "run", data).scorer.models[0]
table = model.item.embedding.tables["feature_item_id"].weight
row = float(table[199].detach().sum())
done.set()
watcher.join()
print(json.dumps({"table": table.numel() * 4 / 2**20, "grew": peak[0] - before, "row": row}))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads anonymous memory from /proc")
def test_memory_does_not_grow_with_a_table_on_disk(tmp_path):
    """A table of 391 MiB: making, training, checkpoint, going on, and the finished model in less than a third of it."""
    script = tmp_path / "measured.py"
    script.write_text(MEASURED)
    found = {}
    for where in ("disk", "memory"):
        (tmp_path / where).mkdir()
        command = [sys.executable, str(script), str(tmp_path / where), where]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found[where] = json.loads(run.stdout)
    assert found["disk"]["row"] == found["memory"]["row"]
    assert found["disk"]["table"] == pytest.approx(390.6, abs=0.1)
    assert found["disk"]["grew"] < found["disk"]["table"] / 3, found
    assert found["memory"]["grew"] > 0.9 * found["memory"]["table"], "the measure sees a table in memory"
