"""The frame: what the two vectors mean, the shortcut, the bias by domain, and the scorer on top of them."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adi_lite.data.batches import InputBuilder
from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import NETWORKS
from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import TwoTower

DOMAIN, COUNTS = torch.tensor([0, 0, 1, 2]), (2, 1, 1)


def make(data, **options) -> TwoTower:
    options = {"dim": 8, "out_dim": 8, "hidden": (8,), "equal_size": False, **options}
    model = TwoTower(ModelConfig(**options), data.schema, data.num_items).eval()
    if model.bias is not None:
        torch.nn.init.normal_(model.bias.weight)
    return model


def inputs(data):
    builder = InputBuilder(data)
    return builder.users(torch.tensor([0, 3, 3, 5]), DOMAIN, COUNTS), builder.items(
        torch.tensor([1, 2, 2, 7]), DOMAIN, COUNTS
    )


def test_dot_product_is_of_the_towers_outputs(make_tiny):
    data = make_tiny(rich=True)
    model = make(data, similarity="dot", item_bias=False)
    users, items = inputs(data)
    assert torch.equal(model.user_vectors(users), model.user(users))
    assert torch.equal(model.item_vectors(items), model.item(items))


def test_cosine_by_temperature_plus_the_items_bias_in_the_domain(make_tiny):
    data = make_tiny(rich=True)
    model = make(data, temperature=0.2)
    users, items = inputs(data)
    score = (model.user_vectors(users) * model.item_vectors(items)).sum(1)
    codes = data.items["item_id"][torch.tensor([1, 2, 2, 7])]
    bias = torch.stack([model.bias.weight[c * 3 + d, 0] for c, d in zip(codes, DOMAIN, strict=True)])
    expected = F.cosine_similarity(model.user(users), model.item(items)) / 0.2 + bias
    torch.testing.assert_close(score, expected)
    assert len(bias.unique()) == 4, "the same item has another bias in another domain"


def test_bias_starts_at_zero(make_tiny):
    data = make_tiny()
    assert (TwoTower(ModelConfig(), data.schema, data.num_items).bias.weight == 0).all()


def test_residual_adds_a_multiple_of_the_network_to_the_mean_of_the_own_fields(make_tiny):
    data = make_tiny(rich=True)
    for domain_field in (True, False):
        model = make(
            data, residual=True, residual_gain=0.3, domain_field=domain_field, similarity="dot", item_bias=False
        )
        users, _ = inputs(data)
        fields, f_domain = model.user.embedding(users)
        own = fields[:, [i for i, n in enumerate(model.user.embedding.names) if n != "domain"]]
        expected = own.mean(1) + 0.3 * model.user.network(fields, f_domain, COUNTS)
        torch.testing.assert_close(model.user_vectors(users), expected)


def test_final_relu_takes_half_of_the_space(make_tiny):
    data = make_tiny(rich=True)
    users, items = inputs(data)
    model = make(data, final_relu=True, similarity="dot", item_bias=False)
    assert (model.user_vectors(users) >= 0).all() and (model.item_vectors(items) >= 0).all()


@pytest.mark.parametrize("user", ["id", "history", "both"])
def test_users_by_id_by_history_or_both(make_tiny, user):
    data = make_tiny()
    names = make(data, user=user).user.embedding.names
    assert ("user_id" in names, "history" in names) == (user != "history", user != "id")


def test_parameters_are_counted_once(make_tiny):
    data = make_tiny(rich=True)
    for options in ({}, {"tie_history": True}, {"item_bias": False}):
        model = make(data, **options)
        counted = model.num_parameters()
        networks = sum(p.numel() for t in (model.user, model.item) for p in t.network.parameters())
        assert counted["networks"] == networks
        assert sum(counted.values()) == sum(p.numel() for p in model.parameters())


def test_tied_history_is_the_items_table(make_tiny):
    data = make_tiny()
    model = make(data, tie_history=True)
    history = model.user.embedding.tables["history"].weight
    assert any(history is p for p in model.item.embedding.parameters())
    other = make(data)
    assert all(other.user.embedding.tables["history"].weight is not p for p in other.item.embedding.parameters())


def test_what_the_data_lacks_is_named(make_tiny):
    data = make_tiny(history=False)
    with pytest.raises(ValueError, match="user='both' needs a data set with histories"):
        make(data)
    schema = type(data.schema)(data.schema.domains, data.schema.user, (), history=False)
    with pytest.raises(ValueError, match="item_bias needs an item feature called 'item_id'"):
        TwoTower(ModelConfig(user="id", method="dnn"), schema, 3)


@pytest.mark.parametrize("method", NETWORKS)
def test_scorer_equals_scores_pair_by_pair(make_tiny, method):
    data = make_tiny(rich=True)
    model = make(data, method=method)
    scorer = ModelScorer(dict.fromkeys(range(3), model), data, chunk=3)
    users = torch.tensor([5, 0, 7, 7, 2])
    for d in (0, 2):
        scores = scorer.scores(users, d)
        assert scores.shape == (5, len(data.catalogues[d]))
        builder = InputBuilder(data)
        for r, u in enumerate(users):
            one = builder.users_in(u.reshape(1), d)
            for c, v in list(enumerate(data.catalogues[d]))[::4]:
                pair = (model.user_vectors(one) * model.item_vectors(builder.items_in(v.reshape(1), d))).sum()
                assert scores[r, c].item() == pytest.approx(pair.item(), abs=1e-4)
        torch.testing.assert_close(ModelScorer({d: model}, data).scores(users, d), scores)


def test_scorer_takes_the_model_of_the_domain_and_says_when_there_is_none(make_tiny):
    data = make_tiny()
    models = {d: make(data, method="dnn_single") for d in (0, 2)}
    scorer = ModelScorer(models, data)
    users = torch.arange(4)
    for d in (0, 2):
        torch.testing.assert_close(scorer.scores(users, d), ModelScorer({d: models[d]}, data).scores(users, d))
    assert not torch.allclose(scorer.user_vectors(users, 0), scorer.user_vectors(users, 2))
    with pytest.raises(ValueError, match="no model was trained for domain 'd1'"):
        scorer.scores(users, 1)


def test_scoring_leaves_the_model_in_evaluation_mode_and_its_statistics_alone(make_tiny):
    data = make_tiny()
    model = make(data).train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    ModelScorer({0: model}, data).scores(torch.arange(5), 0)
    assert not model.training
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())
