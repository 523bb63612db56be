"""The drawn stand-in: its size, that markets share items and no users, and that it says what it is."""

import numpy as np
import pytest
import torch

from adi_lite.data.describe import gini
from adi_lite.data.paper import paper_table
from adi_lite.data.registry import load_dataset
from adi_lite.data.xmarket_sample import MARKETS, load_xmarket_sample, write_sample
from adi_lite.evaluation.metrics import evaluate
from adi_lite.experiments.references import build_reference


@pytest.fixture(scope="module")
def sample():
    return load_xmarket_sample()


def test_about_a_tenth_of_table_4(sample):
    printed = paper_table(4)
    printed = printed[printed["dataset"] == "WSDM Cross-Market"].set_index(["domain", "quantity"])["value"]
    assert sample.num_users == pytest.approx(printed["all", "users"] / 10, rel=0.01)
    assert sample.num_items == pytest.approx(printed["all", "items"] / 10, rel=0.2)
    for d in range(3):
        here = sum(int((sample.split(s).domain == d).sum()) for s in ("train", "valid"))
        assert here == pytest.approx(printed[f"D{d + 1}", "records"] / 10, rel=0.05)


def test_markets_share_items_and_no_users(sample):
    assert sample.domains == ("s1", "s2", "s3")
    users = [set(sample.train.user[sample.train.domain == d].tolist()) for d in range(3)]
    items = [set(sample.train.item[sample.train.domain == d].tolist()) for d in range(3)]
    assert not users[0] & users[1] and not users[0] & users[2] and not users[1] & users[2]
    assert items[0] & items[1] and items[0] & items[2] and items[1] & items[2]
    assert [len(u) for u in users] == [m.users for m in MARKETS.values()]


def test_records_are_distinct_and_each_user_has_one_test_record(sample):
    parts = [sample.train, sample.valid, sample.test]
    pairs = torch.cat([p.user * sample.num_items + p.item for p in parts])
    assert len(pairs.unique()) == len(pairs)
    assert torch.equal(sample.test.user.sort().values, torch.arange(sample.num_users))
    assert sample.history.lengths().min() >= 3


def test_popularity_is_skewed_and_tells_something_and_tastes_more(sample):
    for d in range(3):
        counts = np.bincount(sample.train.item[sample.train.domain == d].numpy(), minlength=sample.num_items)
        assert gini(counts[counts > 0]) > 0.3
    popularity, neighbours = (
        evaluate(build_reference(name, {}).fit(sample), sample).average()["recall@10"]
        for name in ("popularity", "item_knn")
    )
    assert 0.2 < popularity < neighbours < 0.8, "chance is 0.1"


def test_the_same_seed_is_the_same_data_another_is_not(sample, tmp_path):
    again, other = load_xmarket_sample(), load_xmarket_sample(seed=1)
    assert torch.equal(again.train.item, sample.train.item)
    assert torch.equal(again.candidates["test"].items, sample.candidates["test"].items)
    assert len(other.train) != len(sample.train) or not torch.equal(other.train.item, sample.train.item)
    for name in ("a", "b"):
        write_sample(tmp_path / name)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.tsv"))
    assert [str(f) for f in files] == [f"{m}/{n}" for m in MARKETS for n in ("train_5core.tsv", "valid_qrel.tsv")]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_a_market_is_the_same_whichever_others_are_loaded(sample):
    alone = load_xmarket_sample(("s2",))
    here = sample.train.take(sample.train.domain == 1)
    assert np.array_equal(sample.user_ids[here.user], alone.user_ids[alone.train.user])
    assert np.array_equal(sample.item_ids[here.item], alone.item_ids[alone.train.item])


def test_it_says_what_it_is(sample):
    assert sample.name == "xmarket-sample" and "not the cross-market data" in sample.notes["sample"]
    assert load_dataset("xmarket-sample", markets=("s3",)).notes == sample.notes


def test_options(sample):
    assert len(load_xmarket_sample(validation=None).valid) == 0 < len(sample.valid)
    assert load_xmarket_sample(num_candidates=20).candidates["test"].items.shape[1] == 20
    with pytest.raises(ValueError, match="the sample has no market q9, t1; it has s1, s2, s3"):
        load_xmarket_sample(("s1", "t1", "q9"))
    with pytest.raises(ValueError, match="'xmarket-sample' has no option wings"):
        load_dataset("xmarket-sample", wings=2)
