"""Training as a whole: every method learns, rules of domains are told apart, and nothing but the seed decides."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from adi_lite.data.schema import Interactions
from adi_lite.evaluation.metrics import evaluate
from adi_lite.models.registry import NETWORKS
from adi_lite.training import trainer
from adi_lite.training.config import Config
from adi_lite.training.objective import Objective
from adi_lite.training.trainer import fit

TINY_MODEL = {"dim": 8, "out_dim": 8, "hidden": (8,)}


def config(**changes) -> Config:
    return Config().with_changes(**{**TINY_MODEL, "epochs": 3, "batch_size": 32, "num_negatives": 5, **changes})


def weights(trained) -> list[torch.Tensor]:
    return [v for m in trained.scorer.models.values() for v in m.state_dict().values()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def metrics(trained) -> list[dict]:
    return [{k: v for k, v in e.items() if k not in ("seconds", "records_per_second")} for e in trained.epochs]


def recall_at_1(trained, data, split: str) -> list[float]:
    return [d["recall@1"] for d in evaluate(trained.scorer, data, split, "corpus", ks=(1,)).per_domain().values()]


@pytest.mark.parametrize("method", NETWORKS)
def test_every_method_learns_a_tiny_case_by_heart(make_tiny, method):
    """One positive for each user and domain, at random: only a model that tells users and domains apart knows them."""
    data = make_tiny(users=10, items=30, whole_catalogues=True)
    user, domain = torch.arange(30) % 10, torch.arange(30) // 10
    item = torch.randperm(30, generator=torch.Generator().manual_seed(2))
    data = data.replace(train=Interactions(user, item, domain), valid=Interactions.empty(), history=None)
    options = {
        "epochs": 80,
        "loss": "full",
        "user": "id",
        "learning_rate": 0.02,
        "dim": 16,
        "out_dim": 16,
        "hidden": (32,),
    }
    trained = fit(data, config(method=method, **options))
    assert min(recall_at_1(trained, data, "train")) > 0.95
    assert trained.epochs[-1]["loss"] < 0.3 * trained.epochs[0]["loss"]
    assert recall_at_1(fit(data, config(method=method, **{**options, "epochs": 1})), data, "train")[0] < 0.9


BOARD = {
    "user": "id",
    "epochs": 15,
    "batch_size": 128,
    "loss": "full",
    "dim": 16,
    "out_dim": 16,
    "hidden": (32,),
    "learning_rate": 0.01,
}


@pytest.mark.parametrize("method", NETWORKS)
def test_checkerboard(make_checkerboard, method):
    """Held-out pairs that follow from each domain's rule."""
    data = make_checkerboard()
    trained = fit(data, config(method=method, **BOARD))
    assert min(recall_at_1(trained, data, "test")) > 0.9


def test_a_pooled_model_that_cannot_tell_the_domains_apart_fails_the_checkerboard(make_checkerboard):
    data = make_checkerboard()
    blind = fit(data, config(method="dnn", domain_field=False, **BOARD))
    assert max(recall_at_1(blind, data, "test")) < 0.4


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "log_uniform", "in_batch", "mixed"])
def test_checkerboard_with_sampled_softmax(make_checkerboard, sampler):
    data = make_checkerboard()
    trained = fit(data, config(**{**BOARD, "loss": "sampled", "sampler": sampler, "num_negatives": 16}))
    assert min(recall_at_1(trained, data, "test")) > 0.9


def test_dnn_single_is_as_good_as_the_pooled_frame_when_users_overlap(make_checkerboard):
    """It reads whole histories in training, as in serving: with history, the rules still come out."""
    data = make_checkerboard()
    trained = fit(data, config(method="dnn_single", **{**BOARD, "user": "both"}))
    assert min(recall_at_1(trained, data, "test")) > 0.9


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.3},
        {"method": "dnn_single"},
        {"optimizer": "rowwise_adagrad", "sparse_embeddings": True},
        {"self_training": {"portion": 0.2}},
        {"fixed_negatives": True},
        {"sampler": "mixed"},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
def test_the_seed_decides_everything(make_tiny, options):
    data = make_tiny(rich=True)
    first = fit(data, config(**options))
    torch.manual_seed(77)  # what went on before is no part of it
    again, other = fit(data, config(**options)), fit(data, config(**options, seed=1))
    assert same(first, again) and metrics(first) == metrics(again)
    assert not same(first, other) and metrics(first) != metrics(other)


def test_training_leaves_the_callers_random_numbers_alone(make_tiny):
    state = torch.get_rng_state()
    fit(make_tiny(), config(dropout=0.5))
    assert torch.equal(state, torch.get_rng_state())


def test_epochs_and_seeds_differ_in_order_negatives_and_dropout(make_tiny, monkeypatch):
    seen = []
    right = Objective.__call__

    def spy(self, model, batch, generator):
        seen.append((batch.record.tolist(), generator.get_state().tolist(), torch.get_rng_state().tolist()))
        return right(self, model, batch, generator)

    monkeypatch.setattr(Objective, "__call__", spy)
    for seed in (0, 1):
        fit(make_tiny(), config(epochs=2, batch_size=1000, seed=seed))
    assert len(seen) == 4
    for a in range(4):
        for b in range(a):
            assert all(x != y for x, y in zip(seen[a], seen[b], strict=True))


def test_first_epoch_against_a_plain_loop(make_tiny):
    """One batch, full softmax, plain Adam: the loss reported is the loss, and the weights are those of one step."""
    data = make_tiny()
    settings = config(epochs=1, batch_size=1000, loss="full", history_dropout=0.0, learning_rate=0.01, norm="none")
    trained = fit(data, settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        model = trainer.TwoTower(settings.model, data.schema, data.num_items)
    builder, optimizer, total = trainer.ModelScorer({}, data).inputs, torch.optim.Adam(model.parameters(), lr=0.01), 0.0
    order = torch.argsort(data.train.domain, stable=True)
    user, item, domain = data.train.user[order], data.train.item[order], data.train.domain[order]
    counts = tuple(torch.bincount(domain).tolist())
    users = model.user_vectors(builder.users(user, domain, counts, target=item))
    rows, sizes = torch.cat(data.catalogues), tuple(len(c) for c in data.catalogues)
    items = model.item_vectors(
        builder.items(rows, torch.repeat_interleave(torch.arange(3), torch.tensor(sizes)), sizes)
    )
    for d, (u, v, positives) in enumerate(
        zip(users.split(counts), items.split(sizes), item.split(counts), strict=True)
    ):
        target = torch.tensor([data.catalogues[d].tolist().index(p) for p in positives.tolist()])
        total = total + F.cross_entropy(u @ v.T, target, reduction="sum")
    (total / len(data.train)).backward()
    optimizer.step()
    assert trained.epochs[0]["loss"] == pytest.approx(total.item() / len(data.train), rel=1e-5)
    for (name, a), (_, b) in zip(
        trained.scorer.models[0].state_dict().items(), model.state_dict().items(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4, msg=name)


def test_equation_27_weights_pseudo_labels_and_divides_by_the_records(make_tiny, monkeypatch):
    losses, batches = [], []

    def ones(self, model, batch, generator):
        batches.append(batch)
        return sum(p.sum() for p in model.parameters()) * 0 + torch.arange(1.0, len(batch) + 1)

    monkeypatch.setattr(Objective, "__call__", ones)
    data = make_tiny()
    trained = fit(data, config(epochs=1, batch_size=1000, self_training={"portion": 0.5, "weight": 0.25}))
    batch = batches[0]
    losses = torch.arange(1.0, len(batch) + 1)
    expected = losses[batch.record >= 0].sum() + 0.25 * losses[batch.record < 0].sum()
    assert (batch.record < 0).sum() == trained.epochs[0]["pseudo_labels"] > 0
    assert trained.epochs[0]["loss"] == pytest.approx((expected / len(data.train)).item())


def test_self_training_starts_and_grows_by_epoch(make_tiny):
    trained = fit(
        make_tiny(records=300), config(epochs=4, self_training={"portion": 0.1, "growth": 0.2, "start_epoch": 1})
    )
    numbers = [e["pseudo_labels"] for e in trained.epochs]
    assert numbers[0] == 0 < numbers[1] < numbers[2] < numbers[3]


def test_self_training_without_weight_is_ordinary_training(make_tiny):
    """A label of weight 0 still takes part in statistics and random draws, so normalisation and dropout are off."""
    data, options = make_tiny(), {"norm": "none", "loss": "full", "history_dropout": 0.0}
    plain = fit(data, config(**options))
    weightless, changed = (
        fit(data, config(**options, self_training={"portion": 0.5, "weight": w})) for w in (0.0, 1.0)
    )
    losses = [[e["loss"] for e in t.epochs] for t in (plain, weightless, changed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and weightless.epochs[0]["pseudo_labels"] > 0
    assert losses[2] != pytest.approx(losses[0], rel=1e-2)


def test_linear_schedule_falls_to_zero(make_tiny, monkeypatch):
    rates = []
    right = torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        rates.append([g["lr"] for g in self.param_groups])
        return right(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    fit(make_tiny(), config(schedule="linear", learning_rate=0.1, embedding_learning_rate=0.4, epochs=2, batch_size=28))
    steps = 2 * 3  # 84 records
    assert [r[1] for r in rates] == pytest.approx([0.1 * (1 - s / steps) for s in range(steps)])
    assert [r[0] for r in rates] == pytest.approx([0.4 * (1 - s / steps) for s in range(steps)])


@pytest.mark.parametrize("values", [[0.1, 0.3, 0.2, 0.25, 0.9, 0.9], [0.5, 0.4, 0.5, 0.6, 0.7, 0.8]])
def test_early_stopping_keeps_the_best_epoch(make_tiny, monkeypatch, values):
    kept = []

    def scripted(self):
        kept.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return values[len(kept) - 1]

    monkeypatch.setattr(trainer._Run, "_validate", scripted)
    trained = fit(make_tiny(), config(epochs=6, patience=2))
    best = 1 if values[0] == 0.1 else 0
    assert trained.best_epoch == best and len(trained.epochs) == best + 3
    assert all(torch.equal(v, kept[best][k]) for k, v in trained.scorer.models[0].state_dict().items())
    assert not trained.scorer.models[0].training


def test_validation_measures_the_current_model_on_the_validation_split(make_checkerboard):
    data = make_checkerboard()
    trained = fit(data, config(patience=15, metric="recall@1", **BOARD))
    value = evaluate(trained.scorer, data, "valid", "corpus", ks=(1,)).average()["recall@1"]
    assert max(e["valid"] for e in trained.epochs) == pytest.approx(value)
    assert trained.epochs[0]["valid"] < value


def test_validation_does_not_change_the_training(make_tiny):
    data = make_tiny()
    plain, watched = fit(data, config(dropout=0.3)), fit(data, config(dropout=0.3, patience=3))
    assert [e["loss"] for e in plain.epochs] == [e["loss"] for e in watched.epochs]


def test_patience_works_domain_by_domain(make_tiny):
    trained = fit(make_tiny(), config(method="dnn_single", patience=1, epochs=4))
    assert {e["domain"] for e in trained.epochs} == {"d0", "d1", "d2"} and all("valid" in e for e in trained.epochs)


@pytest.mark.parametrize("method", ["adi", "dnn_single"])
def test_a_loss_that_is_no_number_stops_the_run(make_tiny, monkeypatch, method):
    right = Objective.__call__
    monkeypatch.setattr(Objective, "__call__", lambda *args: right(*args) * math.nan)
    with pytest.raises(FloatingPointError, match="became nan in epoch 0; a smaller learning_rate"):
        fit(make_tiny(), config(method=method))


def test_what_cannot_be_trained_is_refused(make_tiny):
    data = make_tiny()
    with pytest.raises(ValueError, match="domain 'd1' is empty"):
        fit(data.replace(train=data.train.take(data.train.domain != 1)), config())
    with pytest.raises(ValueError, match="needs a validation split"):
        fit(data.replace(valid=Interactions.empty()), config(patience=2))
    with pytest.raises(ValueError, match="'d1' has no validation records"):
        fit(data.replace(valid=data.valid.take(data.valid.domain != 1)), config(patience=2, method="dnn_single"))


def test_a_tied_history_needs_codes_that_are_rows(make_tiny):
    data = make_tiny()
    fit(data, config(tie_history=True, epochs=1))
    other = data.replace(items={"item_id": data.items["item_id"].flip(0)})
    with pytest.raises(ValueError, match="tie_history needs the codes of 'item_id'"):
        fit(other, config(tie_history=True))
    fit(other, config(epochs=1))


def test_dnn_single_is_a_run_of_dnn_on_each_domain(make_tiny):
    """The same networks, trained on records of one domain; another domain's records change nothing."""
    data = make_tiny(users=30)
    whole = fit(data, config(method="dnn_single"))
    assert len({id(m) for m in whole.scorer.models.values()}) == 3
    item = data.train.item.clone()
    other = data.train.domain == 2
    item[other] = data.catalogues[2][torch.randint(len(data.catalogues[2]), (int(other.sum()),))]
    changed = fit(
        data.replace(train=Interactions(data.train.user, item, data.train.domain)), config(method="dnn_single")
    )
    for d in (0, 1):  # histories are kept as they were
        a, b = (t.scorer.models[d].state_dict() for t in (whole, changed))
        assert all(torch.equal(v, b[k]) for k, v in a.items())
    assert not torch.equal(*(t.scorer.models[2].bias.weight for t in (whole, changed)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": {"epoch": 3}}, "epoch"),
        ({"model": {"depth": 3}}, "depth"),
        ({"seed": 3}, "seed"),
        ({"train": {"self_training": {"p": 0.1}}}, "p"),
        ({"train": {"self_training": {"portion": 1.5}}}, "portion"),
        ({"train": {"optimizer": "rowwise_adagrad"}}, "needs sparse_embeddings=True, got False"),
        ({"model": {"sparse_embeddings": True}}, "needs sparse_embeddings=False, got True"),
        ({"train": {"fixed_negatives": True, "loss": "full"}}, "fixed_negatives needs loss 'sampled'"),
        ({"train": {"double_softmax": True}}, "double_softmax belongs to fixed_negatives"),
        ({"train": {"learning_rate": 0}}, "learning_rate"),
        ({"train": {"metric": "recal@10"}}, "metric"),
        ({"train": {"metric": "recall@0"}}, "metric"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Config.model_validate(settings)


def test_settings_are_changed_by_name():
    changed = Config().with_changes(seed=4, dropout=0.2, self_training={"portion": 0.1})
    assert (changed.train.seed, changed.model.dropout, changed.train.self_training.portion) == (4, 0.2, 0.1)
    with pytest.raises(ValueError, match="unknown setting 'droput'; the settings are method, "):
        Config().with_changes(droput=0.2)
