"""The data model: ragged rows against lists, and a refusal in a sentence for each kind of contradiction."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adi_lite.data import schema
from adi_lite.data.schema import Candidates, Feature, Interactions, Ragged, Schema

ragged_lists = st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=8)


def ragged(rows: list[list[int]]) -> Ragged:
    flat = torch.tensor([v for r in rows for v in r], dtype=torch.int64)
    owner = torch.tensor([i for i, r in enumerate(rows) for _ in r], dtype=torch.int64)
    return Ragged.from_pairs(owner, flat, len(rows))


def lists(r: Ragged) -> list[list[int]]:
    return [r.row(i).tolist() for i in range(len(r))]


@settings(max_examples=50, deadline=None)
@given(ragged_lists, st.data())
def test_ragged_equals_lists(rows, draw):
    r = ragged(rows)
    assert lists(r) == rows
    assert r.lengths().tolist() == [len(x) for x in rows]
    assert r.row_of_value().tolist() == [i for i, x in enumerate(rows) for _ in x]
    picks = draw.draw(st.lists(st.integers(0, len(rows) - 1), max_size=6))
    assert lists(r.take(torch.tensor(picks, dtype=torch.int64))) == [rows[i] for i in picks]
    start = torch.tensor([int(r.offsets[i]) for i in picks], dtype=torch.int64)
    half = [len(rows[i]) // 2 for i in picks]
    assert lists(r.slices(start, torch.tensor(half, dtype=torch.int64))) == [
        rows[i][:n] for i, n in zip(picks, half, strict=True)
    ]


def test_ragged_groups_in_order_of_appearance():
    r = Ragged.from_pairs(torch.tensor([2, 0, 2, 0]), torch.tensor([5, 6, 7, 8]), 4)
    assert lists(r) == [[6, 8], [], [5, 7], []]


def test_schema_survives_json():
    schema = Schema(
        ("a", "b"),
        (Feature("x", "bag", 3, per_domain=True, table="t", group="g"),),
        (Feature("y", "dense", 2),),
        history=False,
    )
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert schema.domain_index("b") == 1
    with pytest.raises(ValueError, match="unknown domain 'c'; the domains are a, b"):
        schema.domain_index("c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Feature("x", "text", 3), "'x'.*'text' is not one of"),
        (lambda: Feature("x", "dense", 0), "'x'.*at least 1, got 0"),
        (lambda: Schema((), (), ()), "at least one domain"),
        (lambda: Schema(("a", "a"), (), ()), "domain names must be unique.*a"),
        (lambda: Schema(("a",), (Feature("x", "dense", 1),) * 2, ()), "user names must be unique.*x"),
        (lambda: Schema(("a",), (Feature("history", "dense", 1),), ()), "'history'"),
        (lambda: Interactions(*(torch.zeros(n, dtype=torch.int64) for n in (2, 2, 3))), "differ in length"),
    ],
)
def test_contradictions_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_feature_may_be_called_history_where_there_is_none():
    Schema(("a",), (Feature("history", "dense", 1),), (), history=False)
    Schema(("a",), (), (Feature("history", "dense", 1),))  # on the item's side it is no user's history


def test_interactions_take_and_concat():
    a = Interactions(*torch.tensor([[1, 2, 3], [4, 5, 6], [0, 1, 0]]), torch.tensor([7, 8, 9]))
    picked = a.take(a.domain == 0)
    assert picked.user.tolist() == [1, 3] and picked.timestamp.tolist() == [7, 9]
    both = Interactions.concat([a, picked])
    assert both.item.tolist() == [4, 5, 6, 4, 6] and both.timestamp.tolist() == [7, 8, 9, 7, 9]
    assert Interactions.concat([a, Interactions.empty()]).timestamp is None
    assert len(Interactions.empty()) == 0


def _bad_nan(data):
    size = data.items["size"].clone()
    size[3, 1] = float("nan")
    return {"items": {**data.items, "size": size}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"catalogues": d.catalogues[:2]}, "2 catalogues for 3 domains"),
        (lambda d: {"catalogues": (d.catalogues[0][:0], *d.catalogues[1:])}, "'d0' is empty"),
        (lambda d: {"catalogues": (d.catalogues[0].flip(0), *d.catalogues[1:])}, "'d0' must be sorted"),
        (
            lambda d: {"catalogues": (torch.tensor([1, 1]), *d.catalogues[1:])},
            "'d0' must be sorted, without duplicates",
        ),
        (lambda d: {"catalogues": (torch.tensor([1, 20]), *d.catalogues[1:])}, "catalogue of domain 'd0'.*0…19"),
        (lambda d: {"train": Interactions(*torch.tensor([[12], [0], [0]]))}, "train users.*0…11, found 12…12"),
        (lambda d: {"valid": Interactions(*torch.tensor([[0], [-1], [0]]))}, "valid items.*found -1"),
        (lambda d: {"test": Interactions(*torch.tensor([[0], [0], [3]]))}, "test domains.*0…2"),
        (lambda d: {"users": {}}, "user feature 'user_id'.*no column"),
        (lambda d: {"users": {**d.users, "level": d.users["level"][:, 0]}}, r"'level': expected shape \(12, 3\)"),
        (lambda d: {"items": {**d.items, "kind": d.items["kind"] + 5}}, "item feature 'kind'.*0…4"),
        (lambda d: {"items": {**d.items, "tags": d.items["seen"]}}, "'tags': a bag needs a Ragged of 20 rows"),
        (_bad_nan, "'size': NaN or infinity, first at row 3"),
    ],
)
def test_data_sets_that_contradict_themselves_are_refused(make_tiny, change, message):
    data = make_tiny(rich=True)
    with pytest.raises(ValueError, match=message):
        data.replace(**change(data))


def test_history_is_by_default_the_training_items(make_tiny):
    data = make_tiny()
    for u in range(data.num_users):
        assert data.history.row(u).tolist() == data.train.item[data.train.user == u].tolist()
    assert make_tiny(history=False).history is None


def test_only_domain_keeps_rows_names_and_what_users_did_elsewhere(make_tiny):
    """All methods share the same input (Section 5.1.4): DNN-Single reads a user's whole history, as the others do."""
    data = make_tiny()
    one = data.only_domain(1)
    assert one.train.domain.unique().tolist() == one.valid.domain.unique().tolist() == [1]
    assert len(one.train) == int((data.train.domain == 1).sum())
    assert one.domains == data.domains and one.num_items == data.num_items and "d1" in one.name
    assert lists(one.history) == lists(data.history)


def test_splits_by_name(make_tiny):
    data = make_tiny()
    assert data.split("valid") is data.valid
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        data.split("dev")
    assert len(Candidates(torch.arange(3), torch.zeros(3), torch.zeros(3, 4))) == 3
    assert isinstance(data.user_ids, np.ndarray)


def test_some_records_of_a_split_are_not_checked_again(make_tiny, monkeypatch):
    data = make_tiny()
    monkeypatch.setattr(schema, "_check", lambda data: pytest.fail("checked again"))
    mask = torch.zeros(len(data.train), dtype=torch.bool)
    mask[::2] = True
    part = data.some_of("train", mask)
    assert part.train.item.tolist() == data.train.item[mask].tolist() and part.valid is data.valid
    assert part.stamp is None and len(data.train) == len(mask), "the whole stays as it was"
    with pytest.raises(ValueError, match="unknown split"):
        data.some_of("trian", mask)
