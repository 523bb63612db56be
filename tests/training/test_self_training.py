"""Algorithm 1 against a slow loop, and what scoring must not do to the model."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import logsumexp
from torch import nn

from adi_lite.data.batches import HISTORY, iterate_batches, sort_by_domain
from adi_lite.models.config import ModelConfig
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import SelfTrainingConfig
from adi_lite.training.self_training import SelfTraining, merge


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Tables(nn.Module):
    """f(u, v | d) = <U[d, u], V[d, v]>."""

    def __init__(self, data) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(data.num_domains, data.num_users, 4, dtype=torch.float64))
        self.v = nn.Parameter(torch.randn(data.num_domains, data.num_items, 4, dtype=torch.float64))
        self.seen = []

    def user_vectors(self, inputs):
        self.seen.append((self.training, torch.is_grad_enabled(), inputs))
        return self.u[inputs.domain, inputs.features["user_id"] - 1]

    def item_vectors(self, inputs):
        return self.v[inputs.domain, inputs.features["item_id"] - 1]

    def score(self, u: int, v: int, d: int) -> float:
        return float(self.u[d, u].detach() @ self.v[d, v].detach())


def algorithm_1(model: Tables, data, batch, portion: float, score: str) -> list[tuple[int, int, int]]:
    """Lines 4-13, record by record: (user, item, domain j) of each pseudo-label."""
    rows = list(zip(batch.user.tolist(), batch.item.tolist(), batch.domain.tolist(), strict=True))
    shown = [set(c.tolist()) for c in data.catalogues]
    chosen = []
    for i in range(data.num_domains):
        of_i = [(u, v) for u, v, d in rows if d == i]
        for j in range(data.num_domains):
            if i == j:
                continue
            candidates = [(u, v) for u, v in of_i if v in shown[j]]
            scores = [model.score(u, v, j) for u, v in candidates]
            if score == "probability":
                items_of_j = [v for _, v, d in rows if d != j and v in shown[j]]
                scores = [
                    s - logsumexp([model.score(u, w, j) for w in items_of_j])
                    for s, (u, _) in zip(scores, candidates, strict=True)
                ]
            ranked = sorted(range(len(candidates)), key=lambda r: -scores[r])
            keep = max(1, round(portion * len(of_i))) if candidates else 0
            chosen += [(*candidates[r], j) for r in ranked[:keep]]
    return sorted(chosen)


@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize("portion", [0.01, 0.1, 0.34, 0.8, 1.0])
@pytest.mark.parametrize("num_domains", [2, 3, 5])
def test_pseudo_labels_equal_the_slow_loop(make_tiny, score, portion, num_domains):
    data = make_tiny(num_domains=num_domains, records=150)
    model = Tables(data)
    training = SelfTraining(data, SelfTrainingConfig(score=score))
    for batch in iterate_batches(data, 60, generator()):
        got = training.pseudo_labels(model, batch, portion)
        triples = sorted(zip(got.user.tolist(), got.item.tolist(), got.domain.tolist(), strict=True))
        assert triples == algorithm_1(model, data, batch, portion, score)
        assert got.domain.tolist() == sorted(got.domain.tolist()) and (got.record == -1).all()
        assert got.counts == tuple(int((got.domain == d).sum()) for d in range(num_domains))


def test_items_that_the_other_domain_cannot_show_are_never_chosen(make_tiny):
    data = make_tiny()
    batch = next(iter(iterate_batches(data, 1000, generator())))
    got = SelfTraining(data, SelfTrainingConfig()).pseudo_labels(Tables(data), batch, 1.0)
    for v, d in zip(got.item.tolist(), got.domain.tolist(), strict=True):
        assert v in data.catalogues[d].tolist()
    possible = sum(
        v in data.catalogues[j].tolist()
        for v, i in zip(batch.item.tolist(), batch.domain.tolist(), strict=True)
        for j in range(3)
        if j != i
    )
    assert len(got) == possible < 2 * len(batch), "with p = 1, all others are"


def test_none_at_p_zero_and_none_with_one_domain(make_tiny):
    for data, portion in ((make_tiny(), 0.0), (make_tiny(num_domains=1), 1.0)):
        batch = next(iter(iterate_batches(data, 30, generator())))
        model = Tables(data)
        labels = SelfTraining(data, SelfTrainingConfig()).pseudo_labels(model, batch, portion)
        assert len(labels) == 0 and labels.counts == (0,) * data.num_domains and not model.seen


def test_portion_grows_by_epoch_up_to_all():
    config = SelfTrainingConfig(portion=0.1, growth=0.25, start_epoch=2)
    assert [config.portion_at(e) for e in range(7)] == pytest.approx([0, 0, 0.1, 0.35, 0.6, 0.85, 1.0])


def test_scoring_reads_no_target_and_takes_no_gradient(make_tiny):
    data = make_tiny()
    model = Tables(data).train()
    batch = next(iter(iterate_batches(data, 60, generator())))
    training = SelfTraining(data, SelfTrainingConfig())
    training.pseudo_labels(model, batch, 0.5)
    ((was_training, grad, inputs),) = model.seen
    assert not was_training and not grad and model.training
    source, target = training._pairs(batch)
    item = sort_by_domain(source, batch.item[source], target, source, 3).item
    bag = inputs.features[HISTORY]
    row = torch.repeat_interleave(torch.arange(len(item)), bag.offsets.diff())
    assert len(row) and not (bag.codes == item[row] + 1).any()


@pytest.mark.parametrize("norm", ["dsbn", "bn"])
@pytest.mark.parametrize("mode", [True, False])
def test_scoring_leaves_statistics_mode_gradients_and_randomness_alone(make_tiny, norm, mode):
    data = make_tiny(rich=True)
    model = TwoTower(
        ModelConfig(dim=8, out_dim=8, hidden=(8,), norm=norm, dropout=0.5), data.schema, data.num_items
    ).train(mode)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = next(iter(iterate_batches(data, 60, generator())))
    training = SelfTraining(data, SelfTrainingConfig())
    state = torch.get_rng_state()
    first, second = (training.pseudo_labels(model, batch, 0.5) for _ in range(2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.item, second.item) and len(first)
    assert all(m.training == mode for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_merge_keeps_every_row_once_sorted_by_domain(make_tiny):
    data = make_tiny()
    batch = next(iter(iterate_batches(data, 30, generator())))
    labels = SelfTraining(data, SelfTrainingConfig()).pseudo_labels(Tables(data), batch, 0.4)
    merged = merge(batch, labels, 3)

    def rows(*batches) -> list[tuple]:
        return sorted(
            t
            for b in batches
            for t in zip(b.user.tolist(), b.item.tolist(), b.domain.tolist(), b.record.tolist(), strict=True)
        )

    assert rows(merged) == rows(batch, labels)
    assert merged.domain.tolist() == sorted(merged.domain.tolist())
    assert merged.counts == tuple(a + b for a, b in zip(batch.counts, labels.counts, strict=True))
    assert int((merged.record < 0).sum()) == len(labels) > 0


def test_a_share_is_of_the_domains_records_and_at_least_one(make_tiny):
    data = make_tiny(whole_catalogues=True)
    batch = next(iter(iterate_batches(data, 60, generator())))
    for portion in (1e-6, 0.25, 0.5):
        labels = SelfTraining(data, SelfTrainingConfig()).pseudo_labels(Tables(data), batch, portion)
        each = [max(1, round(portion * n)) for n in batch.counts]
        assert labels.counts == tuple(sum(each) - each[j] for j in range(3))
    assert math.isclose(SelfTrainingConfig().portion_at(0), 0.05)
