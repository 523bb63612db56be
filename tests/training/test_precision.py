"""bfloat16: only products of matrices use it, the loss stays near float32's, and a run keeps its precision. Devices."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from adi_lite import train
from adi_lite.data.batches import Batch, InputBuilder, iterate_batches
from adi_lite.models.registry import NETWORKS
from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import TwoTower
from adi_lite.nn.experts import SharedNetworks
from adi_lite.nn.normalization import NoNorm
from adi_lite.training.checkpoint import RESUME_FILE, CheckpointError, load
from adi_lite.training.config import Config
from adi_lite.training.distributed import fit_distributed
from adi_lite.training.process_group import process_group
from adi_lite.training.ranks import LaunchError, OneProcess
from adi_lite.training.trainer import build_objective, fit, load_trained

TOLERANCE = 0.02
"""Of an epoch's loss, relative to float32's."""


def config(**changes: object) -> Config:
    small = {"dim": 8, "out_dim": 8, "hidden": (8,), "epochs": 4, "batch_size": 32, "num_negatives": 9}
    return Config().with_changes(**{**small, **changes})


def first_batch(data) -> Batch:
    return next(iterate_batches(data, 32, torch.Generator().manual_seed(0)))


CASES = {
    **{method: {"method": method} for method in NETWORKS},
    "adapted": {"adaptation": "se", "se_placement": "network", "num_shared": 2, "gate": "linear"},
    "attention": {"adaptation": "attention", "fusion": "sum", "gate_input": "domain+fields", "residual": True},
    "mul": {"adaptation": "linear", "fusion": "network_mul", "loss": "full"},
    "fixed": {"fixed_negatives": True, "double_softmax": True},
    "self": {"self_training": {"portion": 0.2}, "sampler": "mixed", "patience": 4},
    "rows": {"optimizer": "rowwise_adagrad", "sparse_embeddings": True, "norm": "bn"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_is_near_that_of_float32(make_tiny, case):
    data, settings = make_tiny(rich=True, records=300), config(**CASES[case])
    plain, found = fit(data, settings), fit(data, settings, bf16=True)
    losses = [[e["loss"] for e in t.epochs] for t in (plain, found)]
    assert losses[0] != losses[1], "it is another precision"
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)
    for model in found.scorer.models.values():
        assert {t.dtype for t in model.state_dict().values()} == {torch.float32}


def test_the_same_seed_gives_the_same_bits(make_tiny):
    a, b = (fit(make_tiny(), config(dropout=0.3), bf16=True) for _ in "ab")
    states = [t.scorer.models[0].state_dict() for t in (a, b)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_what_is_computed_in_which_precision(make_tiny):
    """Networks and scores in bfloat16; tables, statistics, vectors, losses, gradients in float32."""
    data, settings = make_tiny(), config(norm="bn", method="dnn")
    model, seen = TwoTower(settings.model, data.schema, data.num_items).train(), {}

    def note(name: str):
        return lambda module, inputs, output: seen.update({name: (inputs[0].dtype, output.dtype)})

    for name, module in model.item.network.named_modules():
        module.register_forward_hook(note(name))
    users = InputBuilder(data).users_in(torch.arange(5), 0)
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.user_vectors(users)
        scores = vectors @ vectors.T
        batch = first_batch(data)
        losses = build_objective(data, settings.train)(model, batch, torch.Generator().manual_seed(0))
    assert (vectors.dtype, scores.dtype, losses.dtype) == (torch.float32, torch.bfloat16, torch.float32)
    norms = [dtypes for name, dtypes in seen.items() if "norm" in name]
    assert (torch.float32, torch.float32) in norms and (torch.bfloat16, torch.float32) in norms
    losses.sum().backward()
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.float32}


def test_the_gate_divides_by_no_sum_that_bfloat16_made_zero():
    """256.5 and -256.25 are the same but for the sign in 8 bits."""
    shared = SharedNetworks(2, (4, 4), 1, lambda n: NoNorm(), gate="linear", final_activation=True)
    with torch.no_grad():
        shared.gate.weight.zero_()
        shared.gate.weight[:, 0, 0] = torch.tensor([256.5, -256.25])
        shared.gate.bias.zero_()
    one = torch.ones(1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert shared.gate(one).sum() == 0.0, "what is to be avoided"
        weights = shared.weights(one)
    torch.testing.assert_close(weights, torch.tensor([[1026.0, -1025.0]]))


class Killed(Exception):
    pass


def die(record: dict) -> None:
    if record["epoch"] == 0:
        raise Killed


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_a_run_goes_on_in_its_precision(make_tiny, tmp_path, bf16, several):
    data, settings = make_tiny(), config()

    def go(**options: object) -> None:
        if several:
            with process_group() as ranks:
                fit_distributed(data, settings, ranks, out=tmp_path, **options)
        else:
            fit(data, settings, out=tmp_path, **options)

    with pytest.raises(Killed):
        go(bf16=bf16, progress=die)
    if several:
        about = json.loads((tmp_path / "resume.json").read_text())["about"]
    else:
        about = load(tmp_path / RESUME_FILE)[1]
    assert about["precision"] == ("bfloat16" if bf16 else "float32")
    assert "precision" not in str(about["config"]), "the settings name no precision: they are the keys of runs"
    with pytest.raises(CheckpointError, match=f"resume {'with' if bf16 else 'without'} --bf16"):
        go(bf16=not bf16, resume=True)
    go(bf16=bf16, resume=True)
    found, expected = load_trained(tmp_path, data), fit(data, settings, bf16=bf16)
    assert [e["loss"] for e in found.epochs] == pytest.approx([e["loss"] for e in expected.epochs], rel=TOLERANCE)


def test_both_commands_train_in_bfloat16(ok, tmp_path, monkeypatch, capsys):
    words = ["--dataset", "xmarket-sample", "--bf16", "--json"]
    words += [w for s in ("dim=8", "out_dim=8", "hidden=[8]", "epochs=1", "batch_size=4096") for w in ("--set", s)]
    one = ok("train", *(w for w in words if w != "--json"), "--out", tmp_path / "one")
    monkeypatch.setattr(sys, "argv", ["adi_lite.train", *words, "--out", str(tmp_path / "module")])
    train.run(train.app)
    module = json.loads(capsys.readouterr().out)
    assert one["loss"] == pytest.approx(module["loss"], rel=1e-3)
    for name in ("one", "module"):
        assert load(tmp_path / name / "model.safetensors")[1]["precision"] == "bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told(make_tiny, refused, tmp_path):
    said = refused("train", "--dataset", "xmarket-sample", "--out", tmp_path / "run", "--device", "cuda")
    assert "--device cuda needs an NVIDIA GPU" in said and not (tmp_path / "run").exists()
    with pytest.raises(LaunchError, match="needs an NVIDIA GPU"):
        fit(make_tiny(), config(), device="cuda")
    with pytest.raises(LaunchError, match="device must be cpu or cuda, got 'tpu'"):
        OneProcess("tpu")


def test_what_one_process_computes_is_where_its_device_is(make_tiny, monkeypatch):
    """On the device "meta", which refuses to mix with the CPU: inputs, model and scores go there."""
    data, settings = make_tiny(rich=True), config()
    ranks = OneProcess()
    ranks.device = torch.device("meta")
    model = TwoTower(settings.model, data.schema, data.num_items)
    ranks.place(model)
    assert model.device.type == "meta"
    losses = build_objective(data, settings.train.model_copy(update={"loss": "full"}), ranks)(
        model, first_batch(data), torch.Generator().manual_seed(0)
    )
    assert losses.device.type == "meta" and len(losses) == 32
    assert ModelScorer({0: model}, data).scores(torch.arange(3), 0).device.type == "meta"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("bf16", [False, True])
def test_a_gpu_trains_what_the_cpu_trains(make_tiny, tmp_path, bf16):
    data, settings = make_tiny(rich=True), config(patience=4)
    expected, found = fit(data, settings, bf16=bf16), fit(data, settings, bf16=bf16, device="cuda", out=tmp_path)
    losses = [[e["loss"] for e in t.epochs] for t in (expected, found)]
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE if bf16 else 1e-3)
    assert found.scorer.models[0].device.type == "cpu"
    assert load_trained(tmp_path, data).epochs == found.epochs
