"""Eq. (6), (7) against a loop over rows and features; names that users of the library may give to features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adi_lite.data.batches import HISTORY, InputBuilder, Inputs
from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Schema
from adi_lite.nn.embedding import FeatureEmbedding, module_key


def mean_of(table: np.ndarray, codes: list[int]) -> np.ndarray:
    return np.mean([table[c] for c in codes], axis=0) if codes else np.zeros(table.shape[1])


@pytest.mark.parametrize("side", ["user", "item"])
@pytest.mark.parametrize("sparse", [False, True])
def test_fields_of_every_kind(make_tiny, side, sparse):
    data = make_tiny(rich=True)
    builder, domain, counts = InputBuilder(data), torch.tensor([0, 0, 2, 2]), (2, 0, 2)
    rows = torch.tensor([3, 1, 3, 5])
    history = data.num_items if side == "user" else None
    features = getattr(data.schema, side)
    embedding = FeatureEmbedding(features, 3, 4, history_items=history, sparse=sparse)
    inputs = builder.users(rows, domain, counts) if side == "user" else builder.items(rows, domain, counts)
    fields, f_domain = embedding(inputs)
    assert fields.shape == (4, embedding.num_fields, 4)
    columns = data.users if side == "user" else data.items
    names = list(embedding.names)

    def table(name: str) -> np.ndarray:
        return embedding.tables[name if name == HISTORY else module_key(name)].weight.detach().numpy()

    for r, (row, d) in enumerate(zip(rows.tolist(), domain.tolist(), strict=True)):
        seen = columns["seen"].row(row * 3 + d).tolist()
        expected = {
            f"{side}_id": table(f"{side}_id")[columns[f"{side}_id"][row]],
            "kind": table("kind")[columns["kind"][row]],
            "level": table("level")[columns["level"][row, d]],
            "tags": mean_of(table("tags"), columns["tags"].row(row).tolist()),
            "seen": mean_of(table("tags"), seen),  # shares the table of "tags"
            "domain": embedding.domain.weight[d].detach().numpy(),
        }
        for name, value in (("size", columns["size"][row]), ("price", columns["price"][row, d])):
            layer = embedding.dense[module_key(name)]
            expected[name] = (layer.weight @ value + layer.bias).detach().numpy()
        if side == "user":
            past = [v + 1 for u, v in zip(data.train.user.tolist(), data.train.item.tolist(), strict=True) if u == row]
            expected[HISTORY] = mean_of(table(HISTORY), past)
        assert set(expected) == set(names)
        for name, value in expected.items():
            np.testing.assert_allclose(fields[r, names.index(name)].detach(), value, atol=1e-6)
        np.testing.assert_allclose(f_domain[d].detach(), expected["domain"])


def test_start_unknown_is_neutral_and_the_rest_has_the_spread_asked_for():
    embedding = FeatureEmbedding((Feature("id", "categorical", 5000),), 3, 8, std=0.3)
    weight = embedding.tables[module_key("id")].weight
    assert (weight[0] == 0).all()
    assert weight[1:].std().item() == pytest.approx(0.3, rel=0.03)
    assert embedding.domain.weight.unique(dim=0).shape[0] == 3


def test_sparse_tables_get_gradients_of_their_rows_only(make_tiny):
    data = make_tiny(rich=True)
    embedding = FeatureEmbedding(data.schema.user, 3, 4, history_items=data.num_items, sparse=True)
    inputs = InputBuilder(data).users(torch.tensor([3, 1]), torch.tensor([0, 1]), (1, 1, 0))
    embedding(inputs)[0].sum().backward()
    grad = embedding.tables[module_key("user_id")].weight.grad
    assert grad.is_sparse and grad.coalesce().indices()[0].tolist() == [2, 4]
    assert embedding.tables[HISTORY].weight.grad.is_sparse


def test_no_field_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one field"):
        FeatureEmbedding((), 2, 4, domain_field=False)


@pytest.mark.parametrize("name", ["type", "items", "training", "shop.city", "weight", "domain", "forward"])
@pytest.mark.parametrize("kind", ["categorical", "dense"])
def test_features_may_have_any_name(name, kind):
    schema = Schema(
        ("a", "b"),
        (Feature("user_id", "categorical", 3), Feature(name, kind, 2)),
        (Feature("item_id", "categorical", 3),),
    )
    values = torch.tensor([0, 1]) if kind == "categorical" else torch.rand(2, 2)
    ids = torch.tensor([1, 2])
    data = MultiDomainDataset(
        "names",
        schema,
        np.arange(2),
        np.arange(2),
        {"user_id": ids, name: values},
        {"item_id": ids},
        *[Interactions(*torch.tensor([[0, 1], [0, 1], [0, 1]]))] * 3,
        (torch.arange(2),) * 2,
    )
    embedding = FeatureEmbedding(schema.user, 2, 4, history_items=2)
    fields, _ = embedding(InputBuilder(data).users_in(torch.tensor([0, 1]), 0))
    assert fields.shape == (2, 4, 4) and not torch.equal(fields[0], fields[1])


def test_a_feature_may_be_called_history_where_no_history_is_read():
    embedding = FeatureEmbedding((Feature("history", "categorical", 4),), 2, 3, domain_field=False)
    inputs = Inputs(torch.tensor([0, 1]), (1, 1), {"history": torch.tensor([2, 3])})
    table = embedding.tables[module_key("history")].weight
    torch.testing.assert_close(embedding(inputs)[0][:, 0], table[[2, 3]])
