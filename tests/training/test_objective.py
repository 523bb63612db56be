"""The loss of a batch: with log Q it trains towards the full softmax over the domain's catalogue; order, inputs, modes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from adi_lite.data.batches import HISTORY, InputBuilder, iterate_batches, sort_by_domain
from adi_lite.data.negatives import NegativeSampler
from adi_lite.data.schema import Feature, Interactions, MultiDomainDataset, Schema
from adi_lite.models.config import ModelConfig
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import SelfTrainingConfig, TrainConfig
from adi_lite.training.objective import FixedNegativesObjective, Objective
from adi_lite.training.self_training import merge

SAMPLERS = ("uniform", "popularity", "log_uniform", "in_batch", "mixed")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tabular:
    """A model with one score for each item: every user is the number 1."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def encode_users(self, inputs) -> torch.Tensor:
        return self.scores.new_ones(len(inputs), 1)

    def encode_items(self, inputs) -> tuple[torch.Tensor, None]:
        return self.scores[inputs.features["item_id"] - 1].unsqueeze(1), None


def dataset(
    items_of_records: list[list[int]], catalogue: int, shown: list[list[int]] | None = None
) -> MultiDomainDataset:
    """One list of items for each domain: an interaction each, of users 0, 1, 2, ..."""
    n = [len(x) for x in items_of_records]
    domain = torch.repeat_interleave(torch.arange(len(n)), torch.tensor(n))
    records = Interactions(torch.arange(sum(n)), torch.tensor([v for x in items_of_records for v in x]), domain)
    schema = Schema(
        tuple(f"d{d}" for d in range(len(n))),
        (Feature("user_id", "categorical", sum(n) + 1),),
        (Feature("item_id", "categorical", catalogue + 1),),
    )
    return MultiDomainDataset(
        "tabular", schema, np.arange(sum(n)), np.arange(catalogue), {"user_id": torch.arange(sum(n)) + 1},
        {"item_id": torch.arange(catalogue) + 1}, records, Interactions.empty(), Interactions.empty(),
        tuple(torch.tensor(s) for s in (shown or [range(catalogue)] * len(n))),
    )  # fmt: skip


def zipf(catalogue: int, records: int) -> list[int]:
    """Every item once, and the rest in proportion to 1 / rank."""
    weight = 1 / np.arange(1, catalogue + 1)
    rng = np.random.default_rng(0)
    return [*range(catalogue), *rng.choice(catalogue, records - catalogue, p=weight / weight.sum()).tolist()]


def mean_gradient(data, config: TrainConfig, scores: torch.Tensor, epochs: int, batch_size: int) -> torch.Tensor:
    objective, g = Objective(data, config), generator()
    s = scores.clone().requires_grad_()
    for _ in range(epochs):
        for batch in iterate_batches(data, batch_size, g):
            objective(Tabular(s), batch, g).sum().backward()
    return s.grad / (epochs * len(data.train))


@pytest.fixture(scope="module")
def problem():
    """Scores on their way to the data's frequencies, where the positive is likely, so that a wrong sum shows."""
    data = dataset([zipf(60, 1000)], 60)
    frequency = torch.bincount(data.train.item, minlength=60).double() / 1000
    noise = torch.randn(60, generator=generator(1), dtype=torch.float64)
    scores = 0.6 * torch.log(frequency) + 0.3 * noise
    return data, scores, torch.softmax(scores, 0) - frequency  # the gradient of the full softmax, by hand


def error(data, scores, exact, epochs: int = 60, batch_size: int = 100, **options) -> float:
    got = mean_gradient(data, TrainConfig(**options), scores, epochs, batch_size)
    return ((got - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_sampled_gradient_is_the_full_gradient_with_log_q_only(problem, monkeypatch, sampler):
    options = {"sampler": sampler, "num_negatives": 15}
    assert error(*problem, **options) < 0.14
    if sampler != "uniform":  # there it shifts all negatives alike: the next test
        assert error(*problem, **options, epochs=10, log_q=False) > 1
    right = Objective._log_q
    monkeypatch.setattr(Objective, "_log_q", lambda *args: -right(*args))
    assert error(*problem, **options, epochs=10) > 0.4


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "log_uniform"])
def test_corrected_negatives_estimate_the_sum_over_the_catalogue_without_bias(problem, sampler):
    data, scores, _ = problem
    batch = next(iter(iterate_batches(data, 30, generator())))
    f = scores[batch.item]
    others = scores.exp().sum() - f.exp()

    def mean_sum(log_q: bool) -> torch.Tensor:
        objective = Objective(data, TrainConfig(sampler=sampler, num_negatives=15, log_q=log_q))
        draws = [objective(Tabular(scores), batch, generator(i)) for i in range(200)]
        return torch.stack([(loss + f).exp() - f.exp() for loss in draws]).mean(0)  # the loss is log(e^f + sum) - f

    assert (mean_sum(True) / others - 1).abs().max() < 0.1
    without = mean_sum(False) / others
    if sampler == "uniform":
        assert (without / (15 / 60) - 1).abs().max() < 0.1
    else:
        assert (without - 1).abs().max() > 0.3


def test_the_error_falls_as_negatives_grow(problem):
    few, many = (error(*problem, num_negatives=m) for m in (3, 50))
    assert many < 0.4 * few and few > 0.1


def test_full_softmax_gradient_is_exact(problem):
    data, scores, exact = problem
    torch.testing.assert_close(mean_gradient(data, TrainConfig(loss="full"), scores, 1, 500), exact)


def test_in_batch_partition_function_is_unbiased_for_small_batches():
    """Q of in-batch negatives, precisely: given a row with item v in a batch of n of the domain's N records, the other
    n - 1 are any of the other N - 1 alike. So exp(score - log q), summed over the rows with another item than v, is on
    average the sum of exp(score) over all items but v. All batches are enumerated."""
    items = [0, 0, 0, 1, 1, 2, 3]
    data = dataset([items], 4)
    scores = torch.randn(4, dtype=torch.float64)
    objective = Objective(data, TrainConfig(sampler="in_batch"))
    for n in (2, 3, 5, 7):
        sums = {v: [] for v in range(4)}
        for rows in itertools.combinations(range(7), n):
            rows = torch.tensor(rows)
            batch = sort_by_domain(rows, data.train.item[rows], torch.zeros(n, dtype=torch.int64), rows, 1)
            losses = objective(Tabular(scores), batch, generator())
            for v, loss in zip(batch.item.tolist(), losses.tolist(), strict=True):
                f = scores[v].item()
                sums[v].append(math.exp(loss + f) - math.exp(f))  # the loss is log(e^f + sum over negatives) - f
        for v in range(4):
            expected = sum(math.exp(scores[u].item()) for u in range(4) if u != v)
            assert np.mean(sums[v]) == pytest.approx(expected, rel=1e-5)


def test_mixed_counts_what_both_sources_bring():
    """Expected count by enumeration: n - 1 other rows at count / (N - 1), and m draws at 1 / catalogue."""
    data = dataset([[0, 0, 0, 1, 1, 2, 3]], 6)
    objective = Objective(data, TrainConfig(sampler="mixed", num_negatives=4))
    log_q = objective._log_q(0, torch.arange(6), 3)
    counts = [3, 2, 1, 1]
    np.testing.assert_allclose(log_q[:4].exp(), [2 * c / 6 + 4 / 6 for c in counts], rtol=1e-6)


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "log_uniform"])
def test_as_many_negatives_as_items_is_the_full_softmax(make_tiny, sampler):
    data = make_tiny(rich=True)
    model = TwoTower(ModelConfig(dim=8, out_dim=8, hidden=(8,)), data.schema, data.num_items)
    batch = next(iter(iterate_batches(data, 40, generator())))
    options = {"history_dropout": 0.0}
    largest = max(len(c) for c in data.catalogues)
    full = Objective(data, TrainConfig(loss="full", **options))(model, batch, generator())
    sampled = TrainConfig(sampler=sampler, num_negatives=largest, **options)
    assert torch.equal(full, Objective(data, sampled)(model, batch, generator()))
    fewer = TrainConfig(sampler=sampler, num_negatives=largest - 1, **options)
    assert not torch.allclose(full, Objective(data, fewer)(model, batch, generator()))


def test_losses_are_in_the_order_of_the_batch_and_over_the_domains_catalogue(make_tiny):
    data = make_tiny(rich=True)
    model = TwoTower(ModelConfig(dim=8, out_dim=8, hidden=(8,)), data.schema, data.num_items).eval()
    builder = InputBuilder(data)
    batch = next(iter(iterate_batches(data, 40, generator())))
    losses = Objective(data, TrainConfig(loss="full", history_dropout=0.0))(model, batch, generator())
    assert losses.shape == (40,)
    for r in range(40):
        d, v = int(batch.domain[r]), batch.item[r : r + 1]
        counts = tuple(int(d == e) for e in range(3))
        user = model.user_vectors(builder.users(batch.user[r : r + 1], batch.domain[r : r + 1], counts, target=v))
        scores = (user @ model.item_vectors(builder.catalogue(d)).T)[0].tolist()
        expected = logsumexp(scores) - scores[data.catalogues[d].tolist().index(int(v))]
        assert losses[r].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_negatives_come_from_the_rows_domain(sampler):
    """Domain 1 shows other items, with enormous scores: a loss in domain 0 that saw them would be enormous too."""
    data = dataset([[0, 1, 2, 3] * 5, [10, 11, 12, 13] * 5], 20, [list(range(10)), list(range(10, 20))])
    scores = torch.zeros(20, dtype=torch.float64)
    scores[10:] = 1e3
    objective = Objective(data, TrainConfig(sampler=sampler, num_negatives=5))
    batch = next(iter(iterate_batches(data, 30, generator())))
    losses = objective(Tabular(scores), batch, generator())
    assert losses.shape == (30,) and (losses < 20).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("correct_positive", [False, True])
def test_a_repeated_positive_among_the_negatives_is_no_negative(sampler, correct_positive):
    """All records show item 0, which has an enormous score: were it a negative as well, the loss would be log 2 or more."""
    data = dataset([[0] * 30 + [1]], 40)
    scores = torch.zeros(40, dtype=torch.float64)
    scores[0] = 1e3
    objective = Objective(data, TrainConfig(sampler=sampler, num_negatives=30, correct_positive=correct_positive))
    batch = next(iter(iterate_batches(data, 31, generator())))
    losses = objective(Tabular(scores), batch, generator())
    assert (losses[batch.item == 0] < 1e-6).all() and (losses[batch.item == 1] > 100).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("correct_positive", [False, True])
@pytest.mark.parametrize("num_real", [0, 1, 5])
def test_pseudo_labels_have_finite_losses_under_every_sampler(sampler, correct_positive, num_real):
    """Items that a domain may show but never did come in as pseudo-labels: their popularity there is zero."""
    data = dataset([[0, 1, 2, 3, 4] * 3, [5, 6, 7] * 4], 40)
    config = TrainConfig(
        sampler=sampler, num_negatives=7, correct_positive=correct_positive, self_training=SelfTrainingConfig()
    )
    scores = torch.randn(40, dtype=torch.float64).requires_grad_()
    rows = torch.arange(num_real)
    zeros = torch.zeros_like
    real = sort_by_domain(rows, data.train.item[rows], zeros(rows), rows, 2)
    users = torch.arange(3)
    pseudo = sort_by_domain(users, torch.tensor([5, 6, 30]), zeros(users), torch.full((3,), -1), 2)
    losses = Objective(data, config)(Tabular(scores), merge(real, pseudo, 2), generator())
    losses.sum().backward()
    assert len(losses) == num_real + 3 and torch.isfinite(losses).all() and torch.isfinite(scores.grad).all()


def test_pseudo_labels_are_no_in_batch_negatives():
    """They were not drawn from Q, so no correction would fit them."""
    data = dataset([[0, 1, 2, 3, 4] * 3, [5, 6, 7] * 4], 40)
    scores = torch.zeros(40, dtype=torch.float64)
    scores[30] = 1e3
    rows = torch.arange(5)
    real = sort_by_domain(rows, data.train.item[rows], torch.zeros(5, dtype=torch.int64), rows, 2)
    pseudo = sort_by_domain(rows[:1], torch.tensor([30]), torch.tensor([0]), torch.tensor([-1]), 2)
    losses = Objective(data, TrainConfig(sampler="in_batch"))(Tabular(scores), merge(real, pseudo, 2), generator())
    alone = Objective(data, TrainConfig(sampler="in_batch"))(Tabular(scores), real, generator())
    torch.testing.assert_close(losses[:5], alone)
    assert losses[5] < 1e-6


@pytest.mark.parametrize("sampler", ["uniform", "popularity", "log_uniform", "mixed"])
def test_corrected_positive_with_each_negative_once_and_its_chance_to_be_drawn(sampler):
    """Eq. (5) as it is written: negatives are a set, and both sides are corrected."""
    data = dataset([zipf(12, 40)], 12)
    scores = torch.randn(12, dtype=torch.float64)
    config = TrainConfig(sampler=sampler, num_negatives=11, correct_positive=True, history_dropout=0.0)
    batch = next(iter(iterate_batches(data, 4, generator())))
    losses = Objective(data, config)(Tabular(scores), batch, generator(3))
    proposal = NegativeSampler(data, "uniform" if sampler == "mixed" else sampler, num_negatives=11)
    drawn, q = proposal.sample(0, generator(3)).tolist(), proposal.probability(0, torch.arange(12)).tolist()
    assert len(set(drawn)) < 11, "the case must occur"
    missed = [(1 - p) ** 11 for p in q]
    if sampler == "mixed":
        drawn += batch.item.tolist()
        count = torch.bincount(data.train.item, minlength=12).tolist()
        missed = [m * (1 - c / 39) ** 3 for m, c in zip(missed, count, strict=True)]
    f = [s - math.log(1 - m) for s, m in zip(scores.tolist(), missed, strict=True)]
    for v, loss in zip(batch.item.tolist(), losses.tolist(), strict=True):
        assert loss == pytest.approx(logsumexp([f[v], *(f[u] for u in set(drawn) - {v})]) - f[v], rel=1e-5)


class Recorder(Tabular):
    """Keeps what the towers are given."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__(scores)
        self.users, self.items = [], []

    def encode_users(self, inputs):
        self.users.append(inputs)
        return super().encode_users(inputs)

    def encode_items(self, inputs):
        self.items.append(inputs)
        return super().encode_items(inputs)


@pytest.mark.parametrize("fixed", [False, True])
def test_the_user_tower_never_reads_the_target(make_tiny, fixed):
    data = make_tiny()
    config = TrainConfig(num_negatives=5, fixed_negatives=fixed)
    objective = FixedNegativesObjective(data, config, generator()) if fixed else Objective(data, config)
    model = Recorder(torch.randn(20))
    batch = next(iter(iterate_batches(data, 70, generator())))
    objective(model, batch, generator())
    bag = model.users[0].features[HISTORY]
    row = torch.repeat_interleave(torch.arange(len(batch)), bag.offsets.diff())
    assert len(row) > 50 and not (bag.codes == batch.item[row] + 1).any()


def test_both_towers_run_once_on_rows_sorted_by_domain(make_tiny):
    data = make_tiny()
    model = Recorder(torch.randn(20))
    batch = next(iter(iterate_batches(data, 70, generator())))
    Objective(data, TrainConfig(num_negatives=5))(model, batch, generator())
    assert len(model.users) == len(model.items) == 1
    items = model.items[0]
    assert items.counts == tuple(c + 5 for c in batch.counts)
    assert items.domain.tolist() == sorted(items.domain.tolist())


def test_an_absent_domain_costs_nothing(make_tiny):
    data = make_tiny()
    rows = (data.train.domain != 1).nonzero().squeeze(1)[:10]
    batch = sort_by_domain(data.train.user[rows], data.train.item[rows], data.train.domain[rows], rows, 3)
    model = Recorder(torch.randn(20))
    losses = Objective(data, TrainConfig(num_negatives=5))(model, batch, generator())
    assert len(losses) == 10 and model.items[0].counts[1] == 0


def test_fixed_negatives_stay_for_the_whole_run_and_fresh_ones_do_not(make_tiny):
    data = make_tiny()

    def seen(objective, fresh_generator) -> dict[int, list[int]]:
        given = {}
        for batch in iterate_batches(data, 16, fresh_generator):
            model = Recorder(torch.randn(20))
            objective(model, batch, fresh_generator)
            items = model.items[0].features["item_id"].view(len(batch), -1) - 1
            assert torch.equal(items[:, 0], batch.item)
            for r, d, row in zip(batch.record.tolist(), batch.domain.tolist(), items[:, 1:], strict=True):
                given[r] = row.tolist()
                assert torch.isin(row, data.catalogues[d]).all()
        return given

    config = TrainConfig(num_negatives=5, fixed_negatives=True)
    objective = FixedNegativesObjective(data, config, generator(1))
    first, second = seen(objective, generator(2)), seen(objective, generator(3))
    assert first == second and len(first) == len(data.train)
    assert seen(FixedNegativesObjective(data, config, generator(4)), generator(2)) != first
    assert len({tuple(x) for x in first.values()}) > len(first) / 2, "each record has negatives of its own"
    fresh = Objective(data, TrainConfig(num_negatives=5))
    draws = []
    for seed in (2, 3):
        model = Recorder(torch.randn(20))
        fresh(model, next(iter(iterate_batches(data, 16, generator(0)))), generator(seed))
        draws.append(model.items[0].features["item_id"].tolist())
    assert draws[0] != draws[1]


@pytest.mark.parametrize("double", [False, True])
def test_fixed_negatives_loss_row_by_row(make_tiny, double):
    data = make_tiny()
    objective = FixedNegativesObjective(
        data, TrainConfig(num_negatives=6, fixed_negatives=True, double_softmax=double), generator()
    )
    scores = torch.randn(20, dtype=torch.float64)
    batch = next(iter(iterate_batches(data, 70, generator())))
    losses = objective(Tabular(scores), batch, generator())
    masked = 0
    for r in range(len(batch)):
        v, negatives = int(batch.item[r]), objective.negatives[batch.record[r]].tolist()
        masked += negatives.count(v)
        s = np.array([scores[v], *(scores[u] for u in negatives if double or u != v)])
        if double:
            s = np.exp(s) / np.exp(s).sum()
        assert losses[r].item() == pytest.approx(logsumexp(s) - s[0])
    assert masked, "the case must occur"


def test_records_outside_the_catalogue_are_refused_with_the_item(make_tiny):
    data = make_tiny()
    item = data.train.item.clone()
    item[0] = 4  # domain 0 lacks items 0, 4, 8, ...
    data = data.replace(train=Interactions(data.train.user, item, data.train.domain))
    for make in (
        lambda: Objective(data, TrainConfig()),
        lambda: FixedNegativesObjective(data, TrainConfig(), generator()),
    ):
        with pytest.raises(ValueError, match="'d0': 1 training records.*'v4'"):
            make()
