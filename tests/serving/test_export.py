"""The exported graph gives the model's vectors, for every method, any number of rows and any length of bags."""

from __future__ import annotations

import itertools
import logging
import sys
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adi_lite import __version__
from adi_lite.data.batches import Bag, InputBuilder
from adi_lite.data.schema import Feature
from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import NETWORKS
from adi_lite.models.two_tower import TwoTower
from adi_lite.serving import export
from adi_lite.serving.export import export_user_tower

DOMAIN = 1
SMALL = {"dim": 8, "out_dim": 8, "hidden": (8,), "equal_size": False}


def make(data, **options) -> TwoTower:
    """A model whose every parameter and running statistic is far from where it starts, as after training."""
    model = TwoTower(ModelConfig(**{**SMALL, **options}), data.schema, data.num_items).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
        for name, b in model.named_buffers():
            b.copy_(torch.rand_like(b) + 0.5 if name.endswith("var") else torch.randn_like(b))
    return model


def padded(bag: Bag, extra: int = 0) -> np.ndarray:
    """Rows of a bag, one at a time, filled up with -1 to the longest and ``extra`` more."""
    rows = [bag.codes[a:b].tolist() for a, b in itertools.pairwise(bag.offsets.tolist())]
    length = max(map(len, rows)) + extra
    return np.array([r + [-1] * (length - len(r)) for r in rows], dtype=np.int64).reshape(len(rows), length)


def feed(model: TwoTower, features: dict, extra: int = 0) -> dict[str, np.ndarray]:
    read = {f.name for f in model.user.embedding.features} | {n for n in model.user.embedding.names if n == "history"}
    return {name: padded(x, extra) if isinstance(x, Bag) else x.numpy() for name, x in features.items() if name in read}


def session(path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def assert_same(path, model: TwoTower, data, domain: int = DOMAIN) -> None:
    """One user, all users, and wider padding: the graph's vectors are the model's."""
    runtime, builder = session(path), InputBuilder(data)
    for users, extra in ([3], 0), (range(data.num_users), 0), (range(data.num_users), 5):
        inputs = builder.users_in(torch.tensor(list(users)), domain)
        want = model.user_vectors(inputs).numpy()
        (got,) = runtime.run(["vector"], feed(model, inputs.features, extra))
        assert got.dtype == np.float32 and got.shape == want.shape
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


BASELINES = [
    {"method": "dnn", "user": "history", "tie_history": True, "dropout": 0.5},
    {"method": "dnn_single", "norm": "dsbn", "user": "id", "similarity": "dot", "item_bias": False},
    {"method": "shared_bottom", "norm": "none"},
    {"method": "cross_stitch", "norm": "dsbn", "hidden": (8, 6)},
    {"method": "mmoe", "num_shared": 2, "final_relu": True},
    {"method": "ple", "num_shared": 2, "levels": 2},
    {"method": "star", "sparse_embeddings": True},
]
ADI = [
    {"fusion": "concat", "adaptation": "none", "num_shared": 2, "residual": True},
    {"fusion": "sum", "adaptation": "linear", "norm": "bn", "gate": "linear", "num_shared": 2},
    {"fusion": "network_mul", "adaptation": "attention", "norm": "none"},
    {"fusion": "concat", "adaptation": "se", "gate_input": "domain+fields", "gate_per_feature": False},
    {"fusion": "sum", "adaptation": "se", "se_placement": "global", "se_sigmoid": True},
    {"fusion": "concat", "adaptation": "se", "se_placement": "network", "num_shared": 2},
]


def test_no_method_is_missing_here():
    assert {o["method"] for o in BASELINES} | {"adi"} == set(NETWORKS)


@pytest.mark.parametrize("options", BASELINES[1:] + ADI, ids=lambda o: "-".join(map(str, o.values())))
def test_graph_gives_the_models_vectors(make_tiny, tmp_path, options):
    data = make_tiny()
    model = make(data, **options)
    result = export_user_tower(model, DOMAIN, tmp_path / "user.onnx")
    assert result["max_abs_error"] < 1e-4
    assert_same(result["path"], model, data)


@torch.no_grad()
def test_padded_tower_is_the_tower_whatever_the_network(make_tiny):
    data = make_tiny(rich=True)
    adi = [
        {"fusion": f, "adaptation": a, "se_placement": p, "gate_input": g}
        for f, a, p, g in itertools.product(
            ("concat", "sum", "network_mul"),
            ("none", "linear", "attention", "se"),
            ("global", "domain", "network"),
            ("domain", "domain+fields"),
        )
        if (a == "se" or p == "domain") and (f, p) != ("network_mul", "network")
    ]
    for options, norm in itertools.product([*BASELINES, *adi], ("dsbn", "bn", "none")):
        model = make(data, **{**options, "norm": norm})
        for domain in range(data.num_domains):
            inputs = InputBuilder(data).users_in(torch.arange(data.num_users), domain)
            features = {name: torch.from_numpy(x) for name, x in feed(model, inputs.features).items()}
            got = export._UserVectors(model, domain)(features)
            torch.testing.assert_close(got, model.user_vectors(inputs), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_every_kind_of_feature_empty_bags_and_what_the_file_says(make_tiny, tmp_path, capfd, caplog):
    data = make_tiny(rich=True)
    model = make(data)
    with caplog.at_level(logging.WARNING):
        result = export_user_tower(model, 2, tmp_path / "new" / "user.onnx", domain_name="Österreich")
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["user.onnx"]
    assert_same(result["path"], model, data, domain=2)

    proto = onnx.load(result["path"])
    onnx.checker.check_model(proto)
    assert {p.key: p.value for p in proto.metadata_props} == {
        "adi_lite_version": __version__,
        "domain": "2",
        "domain_name": "Österreich",
        "width": "9",
    }
    assert result["inputs"] == {i.name: i.doc_string for i in proto.graph.input}
    assert result["inputs"]["level"] == "int64 (n,), codes 0 to 3, 0 is unknown"
    assert result["inputs"]["price"] == "float32 (n, 2)"
    assert "codes 0 to 20" in result["inputs"]["history"] and "padded with -1" in result["inputs"]["history"]
    assert b".py" not in proto.SerializeToString(), "no paths of the machine that exported it"

    runtime, builder = session(result["path"]), InputBuilder(data)
    assert [i.shape for i in runtime.get_inputs()][-1] == ["n", "L of history"]
    inputs = builder.users_in(torch.tensor([4]), 2)
    nothing = Bag(torch.zeros(0, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), torch.zeros(0))
    bags = {name: nothing for name, x in inputs.features.items() if isinstance(x, Bag)}
    assert set(bags) == {"tags", "seen", "history"}
    empty = replace(inputs, features={**inputs.features, **bags})
    want = model.user_vectors(empty).numpy()
    for length in (0, 1, 4):
        (got,) = runtime.run(None, feed(model, empty.features, length))
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert not np.allclose(want, model.user_vectors(inputs).numpy(), atol=1e-2)

    history = np.array([[5, -1, 9], [-7, 9, 5]])  # padding anywhere, order of no account
    two = {name: np.repeat(x, 2, axis=0) for name, x in feed(model, empty.features).items()}
    first, second = runtime.run(None, {**two, "history": history})[0]
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_model_in_training_stays_so_and_is_exported_as_in_use(make_tiny, tmp_path):
    data = make_tiny()
    model = make(data, **BASELINES[0]).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    result = export_user_tower(model, DOMAIN, tmp_path / "user.onnx", check=False)
    assert result["max_abs_error"] is None
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert_same(result["path"], model.eval(), data)


def test_features_may_be_called_like_parts_of_the_graph(make_tiny, tmp_path):
    data = make_tiny()
    names = ["linear", "val_0", "a.b", "a_b", "tower/linear", "features", "n", "Größe in m²"]
    user = tuple(Feature(name, "dense", 2) for name in names)
    columns = {name: torch.randn(data.num_users, 2) for name in names}
    data = data.replace(schema=replace(data.schema, user=user), users=columns)
    model = make(data, method="dnn", user="id", norm="none")
    result = export_user_tower(model, DOMAIN, tmp_path / "user.onnx")
    assert list(result["inputs"]) == names
    assert_same(result["path"], model, data)


def test_a_graph_that_differs_is_not_written(make_tiny, tmp_path, monkeypatch):
    model = make(make_tiny(), method="dnn", user="id", norm="none")
    path = tmp_path / "user.onnx"
    path.write_bytes(b"the old one")
    forward = export._UserVectors.forward
    monkeypatch.setattr(export._UserVectors, "forward", lambda self, features: forward(self, features) * 1.0001)
    with pytest.raises(ValueError, match="differs from the model by .* Nothing was written"):
        export_user_tower(model, DOMAIN, path)
    assert [p.name for p in tmp_path.iterdir()] == ["user.onnx"] and path.read_bytes() == b"the old one"


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_remedy(make_tiny, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"needs {package}, .*pip install adi-lite\[export\]"):
        export_user_tower(make(make_tiny()), DOMAIN, tmp_path / "user.onnx")
    assert not list(tmp_path.iterdir())


def test_what_no_graph_can_hold_is_refused(make_tiny, tmp_path, monkeypatch):
    data, path = make_tiny(), tmp_path / "user.onnx"
    for domain in (-1, 3):
        with pytest.raises(ValueError, match=f"no domain {domain}: .* 0 to 2"):
            export_user_tower(make(data), domain, path)
    vector = replace(data.schema, user=(Feature("vector", "categorical", 3),))
    with pytest.raises(ValueError, match="may not be called 'vector'"):
        export_user_tower(TwoTower(ModelConfig(**SMALL), vector, data.num_items), 0, path)
    nothing = replace(data.schema, user=())
    with pytest.raises(ValueError, match="reads no feature"):
        export_user_tower(TwoTower(ModelConfig(**SMALL, user="id", norm="bn"), nothing, data.num_items), 0, path)
    monkeypatch.setattr(export, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="GiB of weights"):
        export_user_tower(make(data), 0, path)
    assert not list(tmp_path.iterdir())
