"""Weights of features by domain against the layer itself, and loss of recall where only one feature says anything."""

import pytest
import torch

from adi_lite.data.batches import InputBuilder
from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Ragged, Schema
from adi_lite.data.simulator import load_simulator
from adi_lite.evaluation.attention import attention, permutation_importance
from adi_lite.models.config import ModelConfig
from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit


@pytest.fixture(scope="module")
def data():
    return load_simulator("smoke", scale=0.2, domain_features="all")


def model_of(data, adaptation):
    torch.manual_seed(0)
    return TwoTower(ModelConfig(dim=4, out_dim=4, hidden=(4,), adaptation=adaptation), data.schema, data.num_items)


@pytest.mark.parametrize("adaptation", ["se", "attention", "linear"])
@pytest.mark.parametrize("side", ["item", "user"])
def test_weights_are_means_of_the_layer_row_by_row(data, adaptation, side):
    model = model_of(data, adaptation)
    table = attention(model, data, side, max_rows=7)
    tower, build = getattr(model, side), InputBuilder(data)
    assert list(table.index) == tower.embedding.names and "domain" not in table.index
    for d, domain in enumerate(data.domains):
        if side == "item":
            rows = data.catalogues[d][:7]
        else:
            rows = torch.unique(data.train.user[data.train.domain == d])[:7]
        one_by_one = []
        for row in rows.split(1):
            inputs = build.items_in(row, d) if side == "item" else build.users_in(row, d)
            with torch.no_grad():
                one_by_one.append(tower.network.adaptation.weights(tower.embedding(inputs)[0], inputs.counts)[0])
        assert table[domain].tolist() == pytest.approx(torch.stack(one_by_one).mean(0).tolist(), abs=1e-6)


def test_models_without_weights_are_refused(data):
    with pytest.raises(ValueError, match="no domain interest adaptation layer"):
        attention(model_of(data, "none"), data, "item")
    with pytest.raises(ValueError, match="side is 'user' or 'item', not 'both'"):
        attention(model_of(data, "se"), data, "both")


def colours():
    """Users take items of their own colour; ``noise`` says nothing; everything else is the same for all."""
    generator = torch.Generator().manual_seed(0)
    users, items = 300, 60
    user_colour = torch.randint(1, 5, (users,), generator=generator)
    item_colour = torch.arange(items) % 4 + 1
    noise = torch.randint(1, 5, (items,), generator=generator)
    user = torch.arange(users).repeat_interleave(4)
    choice = torch.randint(items // 4, (len(user),), generator=generator)
    item = choice * 4 + user_colour[user] - 1
    domain = torch.arange(len(user)) % 2
    held = torch.arange(len(user)) % 4 >= 2
    records = Interactions(user, item, domain)
    return MultiDomainDataset(
        name="colours",
        schema=Schema(
            ("A", "B"),
            (Feature("colour", "categorical", 5, per_domain=True), Feature("likes", "bag", 5)),
            (Feature("colour", "categorical", 5), Feature("noise", "categorical", 5)),
            history=False,
        ),
        user_ids=user.new_tensor(range(users)).numpy(),
        item_ids=item.new_tensor(range(items)).numpy(),
        users={
            "colour": user_colour[:, None].repeat(1, 2),
            "likes": Ragged(torch.full((users,), 3), torch.arange(users + 1)),
        },
        items={"colour": item_colour, "noise": noise},
        train=records.take(~held),
        valid=records.take(held),
        test=records.take(held),
        catalogues=(torch.arange(items), torch.arange(items)),
    )


def test_only_what_the_model_uses_is_missed():
    data = colours()
    config = Config().with_changes(
        method="dnn", user="id", dim=8, out_dim=8, hidden=(16,), item_bias=False, epochs=40, learning_rate=1e-2
    )
    scorer = fit(data, config.with_changes(batch_size=128, loss="full")).scorer
    whole = permutation_importance(scorer, data, "item", "recall@15")
    assert list(whole.index) == ["colour", "noise"] and list(whole.columns) == ["A", "B"]
    assert (whole.loc["colour"] > 0.5).all(), "15 of 60 items have the user's colour; dealt anew, a quarter is left"
    assert (whole.loc["noise"].abs() < 0.05).all()
    users = permutation_importance(scorer, data, "user", "recall@15")
    assert (users.loc["colour"] > 0.5).all() and users.loc["likes"].tolist() == [0.0, 0.0], "the same for everybody"


def test_bags_of_each_domain_and_histories_are_dealt_whole():
    data = load_simulator("smoke", scale=0.2)
    order = torch.randperm(data.num_users, generator=torch.Generator().manual_seed(1))
    from adi_lite.evaluation.attention import _permuted

    dealt, old = _permuted(data, "user", "domain_clicks", order).users["domain_clicks"], data.users["domain_clicks"]
    history = _permuted(data, "user", "history", order).history
    for u in (0, 17, data.num_users - 1):
        assert history.row(u).tolist() == data.history.row(int(order[u])).tolist()
        for d in range(data.num_domains):
            assert (
                dealt.row(u * data.num_domains + d).tolist() == old.row(int(order[u]) * data.num_domains + d).tolist()
            )


def test_the_scorer_keeps_its_own_data(data):
    scorer = ModelScorer(dict.fromkeys(range(data.num_domains), model_of(data, "se")), data)
    before = scorer.scores(torch.arange(5), 0)
    permutation_importance(scorer, data.replace(valid=data.valid.take(torch.arange(20))), "item", "recall@10")
    assert torch.equal(scorer.scores(torch.arange(5), 0), before)


def test_fewer_records_are_drawn_by_the_seed(data):
    scorer = ModelScorer(dict.fromkeys(range(data.num_domains), model_of(data, "se")), data)
    records = len(data.valid)
    whole, all_of_them = (
        permutation_importance(scorer, data, "item", "recall@5", max_records=n) for n in (None, records)
    )
    some, same, other = (
        permutation_importance(scorer, data, "item", "recall@5", max_records=records // 2, seed=s) for s in (0, 0, 1)
    )
    assert whole.equals(all_of_them) and some.equals(same)
    assert not some.equals(whole) and not some.equals(other)
