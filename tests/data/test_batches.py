"""Batches and inputs: nothing is lost, rows are sorted by domain, and training does not read the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adi_lite.data.batches import HISTORY, SHUFFLE_BLOCK, Batch, InputBuilder, iterate_batches, sort_by_domain
from adi_lite.data.schema import Interactions, MultiDomainDataset, Schema


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bags(bag) -> list[list[int]]:
    return [bag.codes[bag.offsets[i] : bag.offsets[i + 1]].tolist() for i in range(len(bag.offsets) - 1)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=12))
def test_sort_by_domain_is_stable_and_counts(domains):
    n = len(domains)
    domain = torch.tensor(domains, dtype=torch.int64)
    batch = sort_by_domain(torch.arange(n), torch.arange(n) + 100, domain, torch.arange(n) + 200, 4)
    order = sorted(range(n), key=lambda i: domains[i])  # Python's sort is stable
    assert batch.user.tolist() == order
    assert batch.item.tolist() == [i + 100 for i in order] and batch.record.tolist() == [i + 200 for i in order]
    assert batch.domain.tolist() == sorted(domains)
    assert batch.counts == tuple(domains.count(d) for d in range(4))


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_an_epoch_shows_every_record_once(make_tiny, batch_size):
    data = make_tiny()
    batches = list(iterate_batches(data, batch_size, generator()))
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sorted(torch.cat([b.record for b in batches]).tolist()) == list(range(len(data.train)))
    for b in batches:
        assert (b.domain[1:] >= b.domain[:-1]).all() and sum(b.counts) == len(b)
        for name in ("user", "item", "domain"):
            assert torch.equal(getattr(b, name), getattr(data.train, name)[b.record])


def test_order_follows_the_generator(make_tiny):
    data = make_tiny()

    def records(seed: int, **options) -> list[int]:
        return torch.cat([b.record for b in iterate_batches(data, 16, generator(seed), **options)]).tolist()

    assert records(0) == records(0) != records(1)
    plain = records(0, shuffle=False)
    assert sorted(plain[:16]) == list(range(16))


def test_a_batch_mixes_the_domains(make_tiny):
    data = make_tiny(records=300)
    first = next(iter(iterate_batches(data, 60, generator())))
    assert min(first.counts) > 5


def test_target_is_left_out_of_the_history_every_time_it_occurs(make_tiny):
    data = make_tiny(records=300)  # dense: users take an item in several domains
    assert any(len(set(r)) < len(r) for r in (data.history.row(u).tolist() for u in range(data.num_users)))
    batch = next(iter(iterate_batches(data, 1000, generator())))
    inputs = InputBuilder(data).users(batch.user, batch.domain, batch.counts, target=batch.item)
    bag = inputs.features[HISTORY]
    for row, user, item in zip(bags(bag), batch.user.tolist(), batch.item.tolist(), strict=True):
        assert item + 1 not in row
        assert row == [v + 1 for v in data.history.row(user).tolist() if v != item]


def test_a_model_that_copies_the_history_cannot_read_the_answer(make_tiny):
    """Score = how often an item occurs in the history. It must be zero for the target, in training, for every row."""
    data = make_tiny()
    batch = next(iter(iterate_batches(data, 1000, generator())))
    for options in ({}, {"generator": generator()}):
        bag = (
            InputBuilder(data)
            .users(batch.user, batch.domain, batch.counts, target=batch.item, **options)
            .features[HISTORY]
        )
        copied = torch.zeros(len(batch), data.num_items + 1)
        row = torch.repeat_interleave(torch.arange(len(batch)), bag.offsets.diff())
        copied.index_put_((row, bag.codes), bag.weights, accumulate=True)
        assert (copied.gather(1, batch.item.unsqueeze(1) + 1) == 0).all()
        assert copied.sum() > 0
    whole = InputBuilder(data).users(batch.user, batch.domain, batch.counts).features[HISTORY]
    assert len(whole.codes) > len(bag.codes), "without a target nothing is left out"


def test_weights_of_a_bag_sum_to_one_or_the_bag_is_empty(make_tiny):
    data = make_tiny(rich=True, users=40, records=60)
    users = torch.arange(40)
    inputs = InputBuilder(data, history_dropout=0.5).users(
        users,
        torch.zeros(40, dtype=torch.int64),
        (40, 0, 0),
        target=torch.zeros(40, dtype=torch.int64),
        generator=generator(),
    )
    empty = 0
    for name in (HISTORY, "tags", "seen"):
        bag = inputs.features[name]
        for i in range(40):
            weights = bag.weights[bag.offsets[i] : bag.offsets[i + 1]]
            assert len(weights) == 0 or weights.sum().item() == pytest.approx(1.0)
            empty += len(weights) == 0
    assert empty > 0


def test_history_dropout_in_training_only_and_by_its_share(make_tiny):
    data = make_tiny(records=600)
    users = torch.arange(data.num_users)
    builder = InputBuilder(data, history_dropout=0.3)
    domain, counts = torch.zeros_like(users), (len(users), 0, 0)
    whole = builder.users(users, domain, counts).features[HISTORY]
    assert bags(whole) == [[v + 1 for v in data.history.row(u).tolist()] for u in users.tolist()]
    kept = [
        len(builder.users(users, domain, counts, generator=generator(s)).features[HISTORY].codes) for s in range(20)
    ]
    n = len(whole.codes) * 20
    assert abs(sum(kept) / n - 0.7) < 4 * (0.21 / n) ** 0.5
    assert len(set(kept)) > 1
    with pytest.raises(ValueError, match="history_dropout"):
        InputBuilder(data, history_dropout=1.0)


def test_features_by_domain_follow_the_row(make_tiny):
    data = make_tiny(rich=True)
    rows, domain = torch.tensor([4, 4, 4]), torch.tensor([0, 1, 2])
    inputs = InputBuilder(data).items(rows, domain, (1, 1, 1))
    assert inputs.features["level"].tolist() == data.items["level"][4].tolist()
    assert torch.equal(inputs.features["price"], data.items["price"][4])
    assert bags(inputs.features["seen"]) == [data.items["seen"].row(4 * 3 + d).tolist() for d in range(3)]
    assert bags(inputs.features["tags"]) == [data.items["tags"].row(4).tolist()] * 3


def test_catalogue_inputs(make_tiny):
    data = make_tiny()
    inputs = InputBuilder(data).catalogue(1)
    assert inputs.counts == (0, len(data.catalogues[1]), 0) and len(inputs) == len(data.catalogues[1])
    assert torch.equal(inputs.features["item_id"], data.catalogues[1] + 1)


# ---- an epoch of more records than are held in memory ----------------------------------------------------------------


def many(records: int) -> MultiDomainDataset:
    """Records whose item tells their row."""
    rows = torch.arange(records)
    return MultiDomainDataset(
        name="many",
        schema=Schema(("a", "b"), (), (), history=False),
        user_ids=np.arange(1),
        item_ids=np.arange(records),
        users={},
        items={},
        train=Interactions(torch.zeros_like(rows), rows, rows % 2),
        valid=Interactions.empty(),
        test=Interactions.empty(),
        catalogues=(rows, rows),
    )


def epoch(data: MultiDomainDataset, batch_size: int, seed: int = 0, **options) -> list[Batch]:
    return list(iterate_batches(data, batch_size, torch.Generator().manual_seed(seed), **options))


@settings(max_examples=60, deadline=None)
@given(records=st.integers(1, 3000), batch_size=st.integers(1, 400), block=st.integers(1, 3500), shuffle=st.booleans())
def test_each_record_comes_once_in_batches_of_one_size_however_many_are_held(records, batch_size, block, shuffle):
    data = many(records)
    batches = epoch(data, batch_size, block=block, shuffle=shuffle)
    assert [len(b) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-records // batch_size)
    rows = torch.cat([b.record for b in batches])
    assert torch.equal(rows.sort().values, torch.arange(records))
    for b in batches:
        assert torch.equal(b.item, b.record) and torch.equal(b.domain, b.record % 2)
        assert b.counts == (int((b.domain == 0).sum()), int((b.domain == 1).sum()))
    again = epoch(data, batch_size, block=block, shuffle=shuffle)
    assert all(torch.equal(a.record, b.record) for a, b in zip(batches, again, strict=True))
    if records <= block:
        whole = epoch(data, batch_size, shuffle=shuffle, block=10**9)
        assert all(torch.equal(a.record, b.record) for a, b in zip(batches, whole, strict=True))
    elif not shuffle:
        assert torch.equal(torch.cat([b.record.sort().values for b in batches]), torch.arange(records))


def test_the_two_levels_mix_records_from_everywhere():
    data, block = many(200_000), 20_000
    batches = epoch(data, 5000, block=block)
    first = batches[0].record
    assert torch.histc(first.float(), 10, 0, 200_000).min() > 250, "a batch has records of every part of the data"
    assert len(torch.unique(first // 78)) < 300, "but of few pieces, which are read from the disk in one go"
    order = torch.cat([b.record for b in batches])
    assert torch.corrcoef(torch.stack([order, torch.arange(200_000)]).double())[0, 1].abs() < 0.05
    assert not torch.equal(order, torch.cat([b.record for b in epoch(data, 5000, seed=1, block=block)]))


def test_no_more_records_are_held_than_asked_for(monkeypatch):
    taken = []
    right = torch.Tensor.__getitem__
    data = many(100_000)
    held = data.train.user

    def spy(self, index):
        if self is held:
            taken.append(len(index))
        return right(self, index)

    monkeypatch.setattr(torch.Tensor, "__getitem__", spy)
    epoch(data, 300, block=4096)
    assert sum(taken) == 100_000 and max(taken) <= 4096 + 300


def test_present_data_sets_are_shuffled_as_a_whole():
    assert SHUFFLE_BLOCK >= 16_000_000
