"""Runs that are killed and go on end with the same bits; files that do not fit are refused in a sentence."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import adi_lite
from adi_lite.data.schema import Interactions
from adi_lite.training import checkpoint
from adi_lite.training.checkpoint import MODEL_FILE, RESUME_FILE, CheckpointError
from adi_lite.training.config import Config
from adi_lite.training.objective import FixedNegativesObjective, Objective
from adi_lite.training.trainer import fit, load_trained

VARIANTS = {
    "plain": {"dropout": 0.3},
    "rowwise_adagrad": {"optimizer": "rowwise_adagrad", "sparse_embeddings": True},
    "sparse_adam": {"optimizer": "sparse_adam", "sparse_embeddings": True},
    "tied": {"tie_history": True},
    "self_training": {"self_training": {"portion": 0.2, "growth": 0.2}},
    "linear": {"schedule": "linear", "weight_decay": 0.01},
    "patience": {"patience": 1, "epochs": 6},
    "fixed_negatives": {"fixed_negatives": True, "double_softmax": True},
    "pooled": {"method": "ple", "sampler": "mixed"},
    "dnn_single": {"method": "dnn_single", "patience": 2},
}


class Killed(BaseException):
    """Not an Exception: nothing in the library may catch it."""


def config(**changes) -> Config:
    base = {"dim": 8, "out_dim": 8, "hidden": (8,), "epochs": 3, "batch_size": 32, "num_negatives": 5}
    return Config().with_changes(**{**base, **changes})


def outcome(trained) -> tuple[list[torch.Tensor], list[dict], int]:
    tensors = [v for m in trained.scorer.models.values() for v in m.state_dict().values()]
    records = [{k: v for k, v in e.items() if k not in ("seconds", "records_per_second")} for e in trained.epochs]
    return tensors, records, trained.best_epoch


def assert_same(a, b) -> None:
    (x, records, best), (y, other_records, other_best) = outcome(a), outcome(b)
    assert records == other_records and best == other_best
    assert len(x) == len(y) and all(torch.equal(s, t) for s, t in zip(x, y, strict=True))


def die_after(monkeypatch, steps: int) -> None:
    """The run dies in the middle of its step number ``steps``, once."""
    left = [steps]

    def dying(right):
        def call(*args):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return right(*args)

        return call

    for kind in (Objective, FixedNegativesObjective):
        monkeypatch.setattr(kind, "__call__", dying(kind.__call__))


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_in_any_epoch_and_resumed_ends_with_the_same_bits(make_tiny, monkeypatch, tmp_path, variant):
    data, settings = make_tiny(rich=True), config(**VARIANTS[variant])
    expected = fit(data, settings, out=tmp_path / "whole")
    assert_same(load_trained(tmp_path / "whole", data), expected)
    # 3 steps an epoch, of one domain's model a single one: dies in the first, second and (if there is one) third
    for step in {"dnn_single": (2, 6), "patience": (1, 5)}.get(variant, (1, 5, 8)):
        out = tmp_path / str(step)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            die_after(patch, step)
            fit(data, settings, out=out)
        assert not (out / MODEL_FILE).exists()
        assert_same(fit(data, settings, out=out, resume=True), expected)
        assert_same(load_trained(out, data), expected)


@pytest.mark.parametrize("variant", ["plain", "patience", "dnn_single"])
def test_killed_between_epochs_again_and_again(make_tiny, tmp_path, variant):
    """After each epoch, the last one included, when only the finished model is not yet written."""
    data, settings = make_tiny(), config(**VARIANTS[variant])

    def die(record: dict) -> None:
        raise Killed

    expected, deaths = fit(data, settings), 0
    while deaths < 50:
        try:
            resumed = fit(data, settings, out=tmp_path, resume=True, progress=die)
            break
        except Killed:
            deaths += 1
    assert deaths == len(expected.epochs) and not list(tmp_path.rglob("*.part"))
    assert_same(resumed, expected)


SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(int(sys.argv[3]))
from conftest import tiny
from adi_lite.training.config import Config
from adi_lite.training.objective import Objective
from adi_lite.training.trainer import fit
right, steps = Objective.__call__, [0]
def dying(*args):
    steps[0] += 1
    if steps[0] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return right(*args)
Objective.__call__ = dying
fit(tiny(rich=True), Config.model_validate_json(sys.argv[4]), out=Path(sys.argv[2]))
"""


def test_killed_by_the_system_in_mid_epoch(make_tiny, tmp_path):
    data, settings = make_tiny(rich=True), config(**VARIANTS["self_training"], **VARIANTS["rowwise_adagrad"])
    tests, threads = str(Path(__file__).parents[1]), str(torch.get_num_threads())
    command = [sys.executable, "-c", SCRIPT, tests, str(tmp_path), threads, settings.model_dump_json()]
    where = Path(adi_lite.__file__).parents[1]
    died = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=120, check=False)
    assert died.returncode == -9, died.stderr
    assert [p.name for p in tmp_path.iterdir()] == [RESUME_FILE]
    assert checkpoint.load(tmp_path / RESUME_FILE)[1]["epochs"][-1]["epoch"] == 0
    assert_same(fit(data, settings, out=tmp_path, resume=True), fit(data, settings))


def test_resume_without_a_run_starts_one_and_a_finished_one_stays(make_tiny, tmp_path):
    data = make_tiny()
    first = fit(data, config(), out=tmp_path, resume=True)
    epochs = []
    again = fit(data, config(), out=tmp_path, resume=True, progress=epochs.append)
    assert not epochs
    assert_same(first, again)


def test_nothing_is_written_without_a_folder(make_tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(make_tiny(), config())
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.ones(2)}, {})

    def full_disk(target, tensors, metadata):
        Path(target).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint, "write", full_disk)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save(path, {"a": torch.zeros(2)}, {})
    assert torch.equal(checkpoint.load(path)[0]["a"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_tensors_of_every_kind_survive(tmp_path):
    tensors = {
        "f": torch.randn(3, 4).T,
        "i": torch.tensor(2**60 + 1),
        "e": torch.empty(0, 3),
        "d": torch.rand(2, dtype=torch.float64),
    }
    checkpoint.save(tmp_path / "x", tensors, {"note": "ä", "value": 0.1 + 0.2})
    back, about = checkpoint.load(tmp_path / "x")
    assert all(torch.equal(v, back[k]) and v.dtype == back[k].dtype for k, v in tensors.items())
    assert about["note"] == "ä" and about["value"] == 0.1 + 0.2 and about["version"] == adi_lite.__version__


@pytest.fixture
def stopped(make_tiny, tmp_path):
    """A run that died after its first epoch: its data, settings, and folder."""
    data = make_tiny(rich=True)

    def die(record: dict) -> None:
        raise Killed

    with pytest.raises(Killed):
        fit(data, config(), out=tmp_path, progress=die)
    return data, config(), tmp_path


def _other_price(data):
    return data.replace(items={**data.items, "price": data.items["price"] + 1})


def _fewer_shown(data):
    shown = torch.cat([data.catalogues[0], data.train.item.new_tensor([0])]).unique()
    return data.replace(catalogues=(shown, *data.catalogues[1:]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.replace(schema=d.schema.__class__(("a", "b", "c"), d.schema.user, d.schema.item)),
            "domains d0, d1, d2, not a, b, c",
        ),
        (lambda d: d.replace(item_ids=np.roll(d.item_ids, 1)), "other data"),
        (lambda d: d.replace(user_ids=np.roll(d.user_ids, 1)), "other data"),
        (lambda d: d.replace(train=d.train.take(torch.arange(80)), history=d.history), "other records"),
        (lambda d: d.replace(valid=d.valid.take(torch.arange(3))), "other records"),
        (lambda d: d.replace(history=d.history.take(torch.arange(12).flip(0))), "other records"),
        (_other_price, "other records"),
        (_fewer_shown, "other records"),
    ],
)
def test_a_run_on_other_data_is_not_resumed(stopped, change, message):
    data, settings, folder = stopped
    with pytest.raises(CheckpointError, match=message):
        fit(change(data), settings, out=folder, resume=True)
    assert len(fit(data, settings, out=folder, resume=True).epochs) == 3, "and the run is still there"


@pytest.mark.parametrize("change", [{"seed": 1}, {"dim": 4}, {"method": "ple"}, {"learning_rate": 0.1}, {"epochs": 9}])
def test_a_run_with_other_settings_is_not_resumed(stopped, change):
    data, settings, folder = stopped
    with pytest.raises(CheckpointError, match="other settings"):
        fit(data, settings.with_changes(**change), out=folder, resume=True)


def _rewrite(path: Path, about: object = None, tensors: dict | None = None) -> None:
    old, described = checkpoint.load(path)
    text = json.dumps(described if about is None else about)
    save_file(old if tensors is None else tensors, path, {"adi_lite": text})


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[:8] = b"\xff" * 8
    path.write_bytes(raw)


DAMAGE = {
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_text("not a checkpoint at all, but a text"),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-10]),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "header": _flip,
    "foreign": lambda p: save_file({"a": torch.ones(2)}, p),
    "foreign with a note": lambda p: save_file({"a": torch.ones(2)}, p, {"format": "pt"}),
    "description no json": lambda p: save_file({"a": torch.ones(2)}, p, {"adi_lite": "{"}),
    "description a number": lambda p: _rewrite(p, 3),
    "description empty": lambda p: _rewrite(p, {}),
    "description without parts": lambda p: _rewrite(p, {"format": 1}),
    "later format": lambda p: _rewrite(p, {**checkpoint.load(p)[1], "format": 99}),
    "settings unknown": lambda p: _rewrite(p, {**checkpoint.load(p)[1], "config": {"model": {"depth": 3}}}),
    "tensors of another": lambda p: _rewrite(p, tensors={"a": torch.ones(2)}),
    "no tensors": lambda p: _rewrite(p, tensors={}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_and_foreign_files_are_refused_in_a_sentence(stopped, damage):
    data, settings, folder = stopped
    resume, model = folder / RESUME_FILE, folder / MODEL_FILE
    DAMAGE[damage](resume)
    with pytest.raises(CheckpointError, match=re.escape(str(resume))):
        fit(data, settings, out=folder, resume=True)
    resume.unlink()
    fit(data, settings, out=folder)
    DAMAGE[damage](model)
    with pytest.raises(CheckpointError, match=re.escape(str(model))) as caught:
        load_trained(folder, data)
    assert isinstance(caught.value, ValueError) and str(caught.value)[0] != "'"


def test_a_model_of_other_shapes_is_refused(stopped):
    data, settings, folder = stopped
    fit(data, settings, out=folder)
    path = folder / MODEL_FILE
    tensors, about = checkpoint.load(path)
    name = "user.network.forward_network.weight"
    save_file({**tensors, name: tensors[name][:, :-1].contiguous()}, path, {"adi_lite": json.dumps(about)})
    with pytest.raises(CheckpointError, match="does not hold the model that it describes"):
        load_trained(folder, data)


def test_loading_names_what_is_missing_or_does_not_fit(stopped):
    data, settings, folder = stopped
    with pytest.raises(CheckpointError, match="no finished model"):
        load_trained(folder, data)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(folder / "nowhere")
    fit(data, settings, out=folder)
    with pytest.raises(CheckpointError, match="other data"):
        load_trained(folder, data.replace(user_ids=np.roll(data.user_ids, 1)))


@pytest.mark.parametrize("method", ["adi", "dnn_single"])
def test_a_loaded_model_scores_as_the_trained_one_did(make_tiny, tmp_path, method):
    data = make_tiny(rich=True)
    trained = fit(data, config(method=method, patience=2), out=tmp_path)
    loaded = load_trained(tmp_path, data)
    assert_same(loaded, trained)
    assert loaded.config == trained.config
    for d in range(3):
        assert torch.equal(loaded.scorer.scores(torch.arange(12), d), trained.scorer.scores(torch.arange(12), d))


def test_new_records_may_be_scored_by_an_old_model(make_tiny, tmp_path):
    """Loading to serve asks for the same rows and features only; resuming asks for the same records."""
    data = make_tiny()
    fit(data, config(), out=tmp_path)
    load_trained(tmp_path, data.replace(train=Interactions.concat([data.train, data.valid]), history=None))


def test_no_pickle_anywhere():
    """Files that run code when they are opened are not for sharing: no pickle, and no torch.save or torch.load."""
    forbidden = re.compile(
        r"\b(pickle|cPickle|cloudpickle|dill|joblib|shelve|torch\.save|torch\.load|allow_pickle=True)\b"
    )
    sources = sorted(Path(adi_lite.__file__).parent.rglob("*.py"))
    assert len(sources) > 20
    found = [
        f"{path.name}:{n}: {line.strip()}"
        for path in sources
        for n, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line.split("#")[0]) and not line.strip().startswith('"""')
    ]
    assert not found
