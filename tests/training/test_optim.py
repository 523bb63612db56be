"""Optimizers: row-wise Adagrad against a dense reference, who moves which parameter, and states that survive disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SparseAdam

from adi_lite.data.batches import iterate_batches
from adi_lite.models.config import ModelConfig
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import TrainConfig
from adi_lite.training.objective import Objective
from adi_lite.training.optim import RowwiseAdagrad, build_optimizers, load_optimizer_tensors, optimizer_tensors

OPTIMIZERS = ("adam", "adamw", "sparse_adam", "rowwise_adagrad")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(data, optimizer: str = "adam", **options) -> TwoTower:
    torch.manual_seed(5)
    config = ModelConfig(dim=8, out_dim=8, hidden=(8,), sparse_embeddings=optimizer in OPTIMIZERS[2:], **options)
    return TwoTower(config, data.schema, data.num_items)


def steps(model, optimizers, data, count: int, seed: int = 0) -> None:
    objective, g = Objective(data, TrainConfig(num_negatives=5, history_dropout=0.0)), generator(seed)
    batches = iterate_batches(data, 20, g)
    for _ in range(count):
        loss = objective(model, next(batches), g).mean()
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        for o in optimizers:
            o.step()


def test_rowwise_adagrad_against_plain_numpy():
    """Rows repeat within a batch: their gradients add up before they are squared."""
    table = nn.Embedding(6, 3, sparse=True).double()
    w, accumulated = table.weight.detach().numpy().copy(), np.zeros(6)
    optimizer = RowwiseAdagrad([table.weight], lr=0.1, eps=1e-8)
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = rng.integers(0, 5, 7)  # row 5 never occurs
        coefficient = rng.normal(size=(7, 3))
        optimizer.zero_grad()
        (table(torch.from_numpy(rows)) * torch.from_numpy(coefficient)).sum().backward()
        optimizer.step()
        for row in set(rows.tolist()):
            gradient = coefficient[rows == row].sum(0)
            accumulated[row] += (gradient**2).mean()
            w[row] -= 0.1 * gradient / (np.sqrt(accumulated[row]) + 1e-8)
        np.testing.assert_allclose(table.weight.detach().numpy(), w)


def test_rowwise_adagrad_leaves_other_rows_alone_and_wants_sparse_gradients():
    table = nn.Embedding(6, 3, sparse=True)
    before = table.weight.detach().clone()
    optimizer = RowwiseAdagrad([table.weight, nn.Parameter(torch.ones(2))], lr=0.1)
    table(torch.tensor([1, 1, 4])).sum().backward()
    optimizer.step()
    assert (table.weight != before).any(1).tolist() == [False, True, False, False, True, False]
    assert optimizer.state[table.weight]["sum"].shape == (6,)
    dense = nn.Parameter(torch.ones(2, 2))
    dense.sum().backward()
    with pytest.raises(ValueError, match="sparse=True"):
        RowwiseAdagrad([dense], lr=0.1).step()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("tie_history", [False, True])
def test_every_parameter_belongs_to_exactly_one_optimizer(make_tiny, optimizer, weight_decay, tie_history):
    model = make(make_tiny(rich=True), optimizer, tie_history=tie_history)
    optimizers = build_optimizers(model, TrainConfig(optimizer=optimizer, weight_decay=weight_decay))
    owned = [id(p) for o in optimizers for g in o.param_groups for p in g["params"]]
    assert len(owned) == len(set(owned)) and set(owned) == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rates_and_decay_of_tables_and_networks(make_tiny, optimizer):
    model = make(make_tiny(rich=True), optimizer)
    config = TrainConfig(optimizer=optimizer, learning_rate=0.01, embedding_learning_rate=0.2, weight_decay=0.3)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for o in build_optimizers(model, config):
        for group in o.param_groups:
            for p in group["params"]:
                assert group["lr"] == (0.2 if id(p) in tables else 0.01)
                assert group.get("weight_decay", 0.0) == (0.0 if id(p) in tables else 0.3)
    kinds = [type(o).__name__ for o in build_optimizers(model, TrainConfig(optimizer=optimizer))]
    expected = {
        "adam": ["Adam"],
        "adamw": ["AdamW"],
        "sparse_adam": ["Adam", "SparseAdam"],
        "rowwise_adagrad": ["Adam", "RowwiseAdagrad"],
    }
    assert kinds == expected[optimizer]
    single = {g["lr"] for o in build_optimizers(model, TrainConfig(optimizer=optimizer)) for g in o.param_groups}
    assert single == {3e-3}, "one rate for all, unless asked otherwise"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_all_parts_move_and_sparse_ones_only_in_the_rows_of_the_batch(make_tiny, optimizer):
    data = make_tiny(users=60, records=90)
    model = make(data, optimizer)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizers = build_optimizers(model, TrainConfig(optimizer=optimizer))
    steps(model, optimizers, data, 1)
    moved = {n: (p != before[n]) for n, p in model.named_parameters()}
    assert all(m.any() for n, m in moved.items() if "shared.gate" not in n)  # one shared network: its gate is not read
    rows = moved["user.embedding.tables.feature_user_id.weight"].any(1)
    assert 0 < rows.sum() <= 20


def test_sparse_adam_takes_the_first_step_of_adam(make_tiny):
    """From zero moments, a row with a gradient moves the same way under both."""
    data = make_tiny()
    models = [make(data, o) for o in ("adam", "sparse_adam")]
    for model, o in zip(models, ("adam", "sparse_adam"), strict=True):
        steps(model, build_optimizers(model, TrainConfig(optimizer=o)), data, 1)
    for (name, a), (_, b) in zip(models[0].named_parameters(), models[1].named_parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_put_back_continues_to_the_bit(make_tiny, optimizer):
    data = make_tiny()
    config = TrainConfig(optimizer=optimizer)
    model = make(data, optimizer)
    optimizers = build_optimizers(model, config)
    steps(model, optimizers, data, 3)
    tensors = {k: v.clone() for k, v in optimizer_tensors(optimizers).items()}
    assert tensors and all(isinstance(v, torch.Tensor) for v in tensors.values())
    copy = make(data, optimizer)
    copy.load_state_dict(model.state_dict())
    restored = build_optimizers(copy, config)
    load_optimizer_tensors(restored, tensors)
    if len(restored) == 2:
        steps_of = [s["step"] for s in restored[1].state.values()] if isinstance(restored[1], SparseAdam) else []
        assert all(isinstance(n, int) for n in steps_of)
    for m, o in ((model, optimizers), (copy, restored)):
        steps(m, o, data, 2, seed=1)
    for (name, a), (_, b) in zip(model.state_dict().items(), copy.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    forgetful = make(data, optimizer)
    assert not optimizer_tensors(build_optimizers(forgetful, config)), "a fresh optimizer has no state"
