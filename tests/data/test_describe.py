"""Tables 4 and 5 and the description against plain sets, and against the paper on the published files."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adi_lite.data.describe import compare_with_paper, describe, gini, table4, table5
from adi_lite.data.registry import DATASETS, load_dataset
from adi_lite.data.xmarket import load_xmarket


@pytest.fixture
def small(tmp_path, write_market):
    for seed, market in enumerate(("a", "b", "c")):
        write_market(tmp_path, market, seed=seed, users=20 + 5 * seed, items=60 - 10 * seed)
    return load_xmarket(("a", "b", "c"), num_candidates=20, root=tmp_path)


def lines(folder, market):
    return [line.split("\t") for line in (folder / market / "train_5core.tsv").read_text().splitlines()[1:]]


def test_tables_4_and_5_equal_a_count_of_the_files_by_sets(small, tmp_path):
    files = {m: lines(tmp_path, m) for m in "abc"}
    row = table4(small).iloc[0]
    assert row["users"] == len({u for m in files for u, _, _ in files[m]})
    assert row["items"] == len({i for m in files for _, i, _ in files[m]})
    assert [row[f"records {m}"] for m in "abc"] == [len(files[m]) for m in "abc"]
    for r in table5(small).itertuples():
        a, b = ({i for _, i, _ in files[m]} for m in (r.domain, r.other_domain))
        assert r.items == len(a & b)
        a, b = ({u for u, _, _ in files[m]} for m in (r.domain, r.other_domain))
        assert r.users == len(a & b)
    assert len(table5(small)) == 6


def test_the_carving_of_validation_records_does_not_change_the_count(small, tmp_path):
    whole = load_xmarket(("a", "b", "c"), num_candidates=20, root=tmp_path, validation=None)
    assert table4(whole).equals(table4(small))
    assert table5(whole).equals(table5(small))
    assert table4(small, ["train"])["records a"].item() < table4(small)["records a"].item()
    with pytest.raises(ValueError, match="at least one split"):
        table4(small, [])


def test_describe_is_json_and_right(small, tmp_path):
    result = json.loads(json.dumps(describe(small), allow_nan=False))
    files = {m: lines(tmp_path, m) for m in "abc"}
    assert result["records"] == sum(len(f) for f in files.values())
    for d, m in enumerate("abc"):
        part = result["domains"][m]
        users, items = {u for u, _, _ in files[m]}, {i for _, i, _ in files[m]}
        pairs = {(u, i) for u, i, _ in files[m]}
        assert (part["users"], part["items"], part["records"]) == (len(users), len(items), len(files[m]))
        assert part["density"] == pytest.approx(len(pairs) / (len(users) * len(items)))
        counts = [sum(i == f"P{k:03d}" for _, i, _ in files[m]) for k in range(60)]
        in_catalogue = [c for k, c in enumerate(counts) if f"P{k:03d}" in small.item_ids[small.catalogues[d].numpy()]]
        assert part["catalogue"] == len(in_catalogue)
        assert part["popularity_gini"] == pytest.approx(slow_gini(in_catalogue))
        lengths = [len(small.history.row(int(u))) for u in small.test.user[small.test.domain == d]]
        assert part["history"]["mean"] == pytest.approx(np.mean(lengths))
        assert part["history"]["max"] == max(lengths)
    assert result["split_records"] == {s: len(small.split(s)) for s in ("train", "valid", "test")}


def slow_gini(counts):
    """Mean absolute difference over twice the mean."""
    x = np.asarray(counts, dtype=float)
    return np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean()) if x.sum() else 0.0


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_gini_is_the_mean_absolute_difference(counts):
    assert gini(np.array(counts)) == pytest.approx(slow_gini(counts), abs=1e-12)


def test_a_domain_without_records_is_described(small):
    data = small.replace(
        train=small.train.take(small.train.domain != 1), valid=small.valid.take(small.valid.domain != 1)
    )
    part = describe(data)["domains"]["b"]
    assert (part["users"], part["items"], part["density"], part["popularity_gini"]) == (0, 0, 0.0, 0.0)
    json.dumps(describe(data), allow_nan=False)


def test_published_files_equal_the_paper_but_for_one_figure(real_xmarket):
    table = compare_with_paper(real_xmarket)
    assert len(table) == 17
    other = table[~table["equal"]]
    assert other[["quantity", "domain", "other_domain", "paper", "here"]].values.tolist() == [
        ["items", "D1", "D2", 1190, 1198]
    ]


def test_published_files_in_figures(real_xmarket):
    domains = describe(real_xmarket)["domains"]
    assert [domains[m]["catalogue"] for m in ("s1", "s2")] == [9931, 2218]
    assert [domains[m]["repeated_records"] for m in ("s1", "s2", "s3")] == [208, 137, 131]


def test_compare_with_paper_refuses_what_it_cannot_compare(small, tmp_path):
    assert not compare_with_paper(small)["equal"].all()
    with pytest.raises(ValueError, match="describes no data set 'Globo'"):
        compare_with_paper(small, "Globo")
    with pytest.raises(ValueError, match="3 domains, this data set has 2: a, b"):
        compare_with_paper(load_xmarket(("a", "b"), num_candidates=20, root=tmp_path))


def test_load_dataset_by_name(small, tmp_path):
    data = load_dataset("xmarket", markets="a,b,c", num_candidates=20, root=tmp_path)
    assert data.train.item.equal(small.train.item)
    assert DATASETS["xmarket"] is load_xmarket
    with pytest.raises(ValueError, match="unknown data set 'movies'; known are .*xmarket"):
        load_dataset("movies")
    with pytest.raises(ValueError, match="'xmarket' has no option market; it has markets, seed"):
        load_dataset("xmarket", market="s1")
