"""The cross-market loader: splits and candidates by slow sets, draws by their law, bad files by their error."""

import re
import time

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from adi_lite.data.candidates import draw_candidates, leave_one_out
from adi_lite.data.download import DataFileError
from adi_lite.data.xmarket import load_xmarket
from adi_lite.data.xmarket_files import QREL, RUN, TRAIN, read_records

SMALL = {"num_candidates": 20}


@pytest.fixture
def folder(tmp_path, write_market):
    write_market(tmp_path, "a", seed=1, items=40)
    write_market(tmp_path, "b", seed=2, items=50, run_length=20)
    return tmp_path


def rows(path):
    return [tuple(line.split("\t")[:2]) for line in path.read_text().splitlines()[1:]]


def pairs(data, split):
    part = data.split(split)
    return sorted(
        (data.domains[d], str(data.user_ids[u]), str(data.item_ids[i]))
        for u, i, d in zip(part.user, part.item, part.domain, strict=True)
    )


# The data set


def test_records_are_those_of_the_files(folder):
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    assert data.domains == ("a", "b")
    assert sorted(pairs(data, "train") + pairs(data, "valid")) == sorted(
        (m, *r) for m in "ab" for r in rows(folder / m / TRAIN)
    )
    assert pairs(data, "test") == sorted((m, *r) for m in "ab" for r in rows(folder / m / QREL))
    whole = load_xmarket(("a", "b"), root=folder, validation=None, **SMALL)
    assert pairs(whole, "train") == sorted((m, *r) for m in "ab" for r in rows(folder / m / TRAIN))
    assert len(whole.valid) == 0
    assert list(whole.candidates) == ["test"]


def test_items_are_shared_and_users_are_not(folder, write_market):
    data = load_xmarket(("b", "a"), root=folder, **SMALL)
    assert len(set(data.item_ids)) == data.num_items == 50
    assert set(data.catalogues[0].tolist()) & set(data.catalogues[1].tolist())
    write_market(folder, "x", seed=3, prefix=False)
    write_market(folder, "y", seed=4, prefix=False)
    same_ids = load_xmarket(("x", "y"), root=folder, **SMALL)
    assert same_ids.num_users == 60
    assert "x:U000" in same_ids.user_ids and "y:U000" in same_ids.user_ids
    part = same_ids.train
    assert not set(part.user[part.domain == 0].tolist()) & set(part.user[part.domain == 1].tolist())


def test_features_are_ids_with_zero_for_unknown(folder):
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    assert data.schema.history
    assert data.items["item_id"].tolist() == list(range(1, data.num_items + 1))
    assert data.users["user_id"].tolist() == list(range(1, data.num_users + 1))
    assert data.schema.item[0].size == data.num_items + 1
    assert data.schema.user[0].size == data.num_users + 1


def test_history_is_the_training_records_that_remain(folder):
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    for user in range(data.num_users):
        assert sorted(data.history.row(user).tolist()) == sorted(data.train.item[data.train.user == user].tolist())
    assert not {(d, u, i) for d, u, i in pairs(data, "valid")} & set(pairs(data, "train"))


def test_each_user_with_three_records_gives_one_validation_record(folder):
    users = [u for _, u, _ in pairs(load_xmarket(("a", "b"), root=folder, **SMALL), "valid")]
    assert len(users) == len(set(users)) == 60
    path = folder / "a" / TRAIN
    lines = path.read_text().splitlines()
    first = lines[1].split("\t")[0]
    mine = [line for line in lines if line.startswith(first + "\t")]
    path.write_text("\n".join([line for line in lines if line not in mine[2:]]) + "\n")  # two records are left to them
    assert first not in [u for _, u, _ in pairs(load_xmarket(("a", "b"), root=folder, **SMALL), "valid")]


def test_leave_one_out_never_takes_a_repeated_record_and_is_uniform():
    user = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2])
    item = np.array([5, 5, 6, 7, 1, 1, 1, 3, 4])
    taken = sum(leave_one_out(user, item, np.random.default_rng(seed)).astype(int) for seed in range(400))
    assert taken[[0, 1]].tolist() == [0, 0]
    assert taken[4:].sum() == 0  # user 1 has only repeated records, user 2 fewer than three
    assert taken.sum() == 400
    assert stats.binomtest(int(taken[2]), 400, 0.5).pvalue > 1e-3


# The candidates


def test_drawn_lists_hold_one_positive_and_nothing_that_the_user_has(folder):
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    assert data.candidates["test"].source == "a: drawn, seed 0; b: official"
    assert data.candidates["valid"].source == "a: drawn, seed 0; b: drawn, seed 0"
    for split in ("valid", "test"):
        lists, part = data.candidates[split], data.split(split)
        assert lists.items.shape == (60, 20)
        for user, domain, items in zip(lists.user, lists.domain, lists.items.tolist(), strict=True):
            positives = part.item[part.user == user].tolist()
            seen = data.train.item[data.train.user == user].tolist()
            if split == "test":
                seen += data.valid.item[data.valid.user == user].tolist()
            assert len(set(items)) == 20
            assert len(set(items) & set(positives)) == 1
            assert not set(items) & set(seen)
            assert set(items) <= set(data.catalogues[int(domain)].tolist())


def test_official_lists_are_those_of_the_file(folder):
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    lists = data.candidates["test"]
    found = {
        str(data.user_ids[u]): [str(i) for i in data.item_ids[row]]
        for u, d, row in zip(lists.user, lists.domain, lists.items.numpy(), strict=True)
        if d == 1
    }
    text = (folder / "b" / RUN).read_text().splitlines()
    assert found == {line.split("\t")[0]: line.split("\t")[1].split(",") for line in text}
    other = load_xmarket(("a", "b"), root=folder, num_candidates=15)
    assert other.candidates["test"].source == "a: drawn, seed 0; b: drawn, seed 0"


def test_the_same_seed_the_same_draw_and_a_market_s_own(folder):
    def load(markets=("a", "b"), **options):
        return load_xmarket(markets, root=folder, num_candidates=15, **options)

    def ids(data, split, market):
        lists = data.candidates[split]
        return data.item_ids[lists.items[lists.domain == data.domains.index(market)].numpy()].tolist()

    one = load()
    for split in ("valid", "test"):
        assert ids(load(), split, "a") == ids(one, split, "a")
        assert ids(load(("b", "a")), split, "a") == ids(one, split, "a") == ids(load(("a",)), split, "a")
    assert ids(load(seed=1), "test", "a") != ids(one, "test", "a")
    assert ids(load(seed=1), "valid", "a") == ids(one, "valid", "a")
    assert load(seed=1).valid.item.equal(one.valid.item)
    assert not load(validation_seed=1).valid.item.equal(one.valid.item)
    assert ids(load(validation_seed=1), "test", "a") == ids(one, "test", "a")


def test_validation_knows_nothing_of_the_test_records(folder):
    before = load_xmarket(("a",), root=folder, **SMALL)
    path = folder / "a" / QREL
    header, *lines = path.read_text().splitlines()
    taken = {tuple(line.split("\t")[:2]) for line in (folder / "a" / TRAIN).read_text().splitlines()}
    items = [line.split("\t")[1] for line in lines]
    moved = []
    for k, line in enumerate(lines):  # the same items, but other users' test records wherever the user may have them
        user, own, rating = line.split("\t")
        new = next((i for i in items[k + 1 :] + items[:k] if (user, i) not in taken), own)
        moved.append(f"{user}\t{new}\t{rating}")
    kept = set(items) - {line.split("\t")[1] for line in moved}
    path.write_text("\n".join([header, *moved]) + "\n")
    after = load_xmarket(("a",), root=folder, **SMALL)
    assert not kept or kept <= {i for _, i in rows(folder / "a" / TRAIN)}  # so that the catalogue is the same
    assert not after.test.item.equal(before.test.item)
    assert after.candidates["valid"].items.equal(before.candidates["valid"].items)


def draw(seed, queries=4000, num_items=60, num_candidates=12, seen=((0, 1, 2), (3, 4, 5))):
    """Lists for queries that see, by turns, one or the other of ``seen`` and have the positive 10 or 11."""
    which = np.arange(queries) % 2
    excluded_query = np.repeat(np.arange(queries), len(seen[0]))
    lists = draw_candidates(
        10 + which,
        excluded_query,
        np.array(seen)[which].ravel(),
        num_items,
        num_candidates,
        np.random.default_rng(seed),
    )
    return which, lists


def test_negatives_are_uniform_and_the_positive_anywhere():
    which, lists = draw(0)
    for group in (0, 1):
        mine, positive = lists[which == group], 10 + group
        counts = np.bincount(mine[mine != positive], minlength=60)
        forbidden = [positive, *((0, 1, 2) if group == 0 else (3, 4, 5))]
        assert counts[forbidden].sum() == 0
        free = np.delete(counts, forbidden)
        # Drawn without replacement: the counts vary by 1 - 11/56 less than a multinomial, so scale the statistic up.
        chi2 = ((free - free.mean()) ** 2 / free.mean()).sum() / (1 - 11 / 56) * (55 / 56)
        assert 1e-3 < stats.chi2(55).cdf(chi2) < 1 - 1e-3
        place = (mine == positive).argmax(1)
        assert ((mine == positive).sum(1) == 1).all()
        assert stats.chisquare(np.bincount(place, minlength=12)).pvalue > 1e-3


def test_every_column_is_uniform_too():
    _, lists = draw(1, seen=((0, 1, 2), (0, 1, 2)))
    negatives = lists[(lists[:, 0] > 11), 0]
    assert stats.chisquare(np.bincount(negatives, minlength=60)[12:]).pvalue > 1e-3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_draws_are_distinct_complete_and_allowed_even_where_few_items_are_left(data):
    num_items = data.draw(st.integers(2, 40))
    queries = data.draw(st.integers(0, 8))
    positives = np.array(
        data.draw(st.lists(st.integers(0, num_items - 1), min_size=queries, max_size=queries)), dtype=int
    )
    banned = [set(data.draw(st.lists(st.integers(0, num_items - 1), max_size=10))) for _ in range(queries)]
    free = min((num_items - len(b | {int(p)}) for b, p in zip(banned, positives, strict=True)), default=num_items - 1)
    length = data.draw(st.integers(1, free + 1))
    query = np.array([q for q, b in enumerate(banned) for _ in b], dtype=int)
    item = np.array([i for b in banned for i in sorted(b)], dtype=int)
    lists = draw_candidates(positives, query, item, num_items, length, np.random.default_rng(0))
    assert lists.shape == (queries, length)
    for q, row in enumerate(lists.tolist()):
        assert len(set(row)) == length
        assert row.count(int(positives[q])) == 1
        assert not (set(row) - {int(positives[q])}) & banned[q]
    if queries:
        with pytest.raises(ValueError, match="items to draw negatives from"):
            draw_candidates(positives, query, item, num_items, free + 2, np.random.default_rng(0))


def test_too_small_a_market_says_how_many_candidates_it_can_have(folder):
    with pytest.raises(ValueError, match=r"market a: query \d+ has \d+ items .*ask for at most \d+ candidates"):
        load_xmarket(("a",), root=folder, num_candidates=100)


# What the model does not know


def test_new_items_of_test_and_of_official_lists_can_be_ranked(folder):
    path = folder / "b" / RUN
    lines = path.read_text().splitlines()
    user, positive = rows(folder / "b" / QREL)[0]
    k = next(k for k, line in enumerate(lines) if line.startswith(user + "\t"))
    listed = lines[k].split("\t")[1].split(",")
    at = next(n for n, i in enumerate(listed) if i != positive)
    listed[at] = "P999"
    lines[k] = f"{user}\t{','.join(listed)}"
    path.write_text("\n".join(lines) + "\n")
    qrel = folder / "a" / QREL
    header, first, *rest = qrel.read_text().splitlines()
    qrel.write_text("\n".join([header, first.replace(first.split("\t")[1], "P888"), *rest]) + "\n")
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    row = {str(i): r for r, i in enumerate(data.item_ids)}
    assert row["P888"] in data.catalogues[0] and row["P888"] not in data.catalogues[1]
    assert row["P999"] in data.catalogues[1] and row["P999"] not in data.catalogues[0]
    lists = data.candidates["test"].items
    assert (lists == row["P888"]).sum() > 1  # the positive of one user, and a negative of others
    assert (lists == row["P999"]).sum() == 1
    assert re.search(
        r"a: \d+ items, \d+ not in train_5core.tsv \(positives of \d+ test records\)", data.notes["catalogue"]
    )


def test_a_user_without_training_records_has_an_empty_history_and_the_unknown_code(folder):
    with (folder / "a" / QREL).open("a") as file:
        file.write("aNEW\tP003\t1\n")
    data = load_xmarket(("a", "b"), root=folder, **SMALL)
    row = int(np.flatnonzero(data.user_ids == "aNEW")[0])
    assert data.users["user_id"][row] == 0
    assert data.users["user_id"].max() == data.schema.user[0].size - 1
    assert len(data.history.row(row)) == 0
    assert (data.candidates["test"].user == row).sum() == 1
    assert data.notes["unknown users"].startswith("1 test users have no training record")
    assert "unknown users" not in load_xmarket(("b",), root=folder, **SMALL).notes


def test_a_list_without_a_test_item_is_left_out_and_a_missing_list_is_counted(folder):
    path = folder / "b" / RUN
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first.replace(first.split("\t")[0], "bOTHER"), *rest]) + "\n")
    data = load_xmarket(("b",), root=folder, **SMALL)
    assert len(data.candidates["test"]) == 29
    assert "bOTHER" not in data.user_ids
    assert data.notes["without candidates"] == "1 test records have no official candidate list"


# Bad options and bad files


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"markets": ()}, "at least one market"),
        ({"markets": "a,a"}, "markets must differ"),
        ({"markets": ("../a",)}, "without a path: '../a'"),
        ({"num_candidates": 1}, "num_candidates must be at least 2"),
        ({"validation": "random"}, "unknown validation 'random'"),
        ({"markets": ("zz",)}, "unknown market 'zz': known are s1, s2, s3, t1, t2; also found: a, b"),
    ],
)
def test_bad_options(folder, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_xmarket(**{"markets": ("a",), "root": folder, **SMALL, **options})


def test_an_unknown_market_without_a_folder_never_asks_the_network(tmp_path, monkeypatch, write_market):
    monkeypatch.delenv("ADI_LITE_MIRROR", raising=False)
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path))
    with pytest.raises(DataFileError, match="unknown market 'zz': known are s1, s2, s3, t1, t2"):
        load_xmarket(("zz",))
    write_market(tmp_path / "wsdm22-xmarket", "zz")
    data = load_xmarket(("zz",), **SMALL)
    assert data.notes["files"] == "zz: no published hash known"


def test_altered_published_files_are_refused_in_a_mirror_and_noted_as_own_files(tmp_path, monkeypatch, write_market):
    write_market(tmp_path / "wsdm22-xmarket", "s1")
    monkeypatch.setenv("ADI_LITE_MIRROR", str(tmp_path))
    with pytest.raises(DataFileError, match=r"s1/train_5core.tsv: not the published file .* expected 20e0995.*, found"):
        load_xmarket(("s1",))
    data = load_xmarket(("s1",), root=tmp_path / "wsdm22-xmarket", **SMALL)
    assert "own files, not the published ones" in data.notes["files"]


HEADER = "userId\titemId\trating\n"
BAD_RECORDS = [
    (b"", "is empty"),
    (b" \n", "is empty"),
    (HEADER.encode(), "no record after the header"),
    (b"userId\trating\nU\t1\n", "line 1: no column itemId"),
    (b"userId,itemId,rating\nU,P,1\n", "line 1: no column .*must be tab-separated"),
    (b"U1\tP1\t1\nU2\tP2\t1\n", "line 1: no column userId, itemId, rating"),
    ((HEADER + "U1\tP1\t1\nU2\tP2\tgood\n").encode(), "line 3: rating 'good' is not a number"),
    ((HEADER + "U1\tP1\tnan\n").encode(), "line 2: rating 'nan' is not a number"),
    ((HEADER + "U1\tP1\tinf\n").encode(), "line 2: rating 'inf' is not a number"),
    (
        (HEADER + "U1\tP1\t1\nU2\tP2\n").encode(),
        "line 3: found 2 fields, expected 3, separated by tabs: userId, itemId, rating",
    ),
    ((HEADER + "U1\tP1\t1\n\nU2\tP2\t1\n").encode(), "line 3: found 1 fields"),
    ((HEADER + "U1\tP1\t1\nU2\tP2\t1\t9\n").encode(), "line 3: found 4 fields, expected 3"),
    (
        (HEADER + "U1\tP1\t1\t9\nU2\tP2\t1\t9\n").encode(),
        "line 2: found 4 fields, expected 3, .* \\(and 1 more lines like it",
    ),
    ((HEADER + "U1\tP1\t1\n\tP2\t1\n").encode(), "line 3: no userId"),
    ((HEADER + "U1\t\t1\n").encode(), "line 2: no itemId"),
    ((HEADER + "U1\tP1\t\n").encode(), "line 2: no rating"),
    (b"userId\titemId\trating\trating\nU\tP\t1\t1\n", "line 1: column names must differ"),
    ((HEADER + 'U1\t"P1\t1\nU2\tP2"\t1\t\n').encode(), "line 3: found 4 fields"),
    ((HEADER + "U1\tP1\t1\nU\xff").encode("latin-1"), "line 3: not UTF-8"),
    ((HEADER + "U1\tP1\t1\nU\0\tP\t1\n").encode(), "line 3: a zero byte"),
]


@pytest.mark.parametrize(("content", "message"), BAD_RECORDS)
def test_a_bad_record_file_is_named_with_its_line(folder, content, message):
    path = folder / "a" / TRAIN
    path.write_bytes(content)
    with pytest.raises(DataFileError, match=f"^{re.escape(str(path))}.*{message}"):
        load_xmarket(("a",), root=folder, **SMALL)


BAD_RUNS = [
    ("{u}\t{p},P1\nU9\tP1,P2,P3\n", "line 2: 3 candidates, but line 1 has 2"),
    ("{u}\t{p},P1\n{u}\t{p},P1\n", "line 2: a second list for the same user"),
    ("{u}\t{p},{p}\n", "line 1: the same candidate twice"),
    ("{u}\t{p},\n", "line 1: an empty candidate"),
    ("{u} {p},P1\n", "line 1: found 1 fields, expected 2"),
    ("{u}\t\n", "line 1: no items;"),
    ("{u}\tPX,PY\n", "line 1: the candidates of user {u} lack the test item {p}"),
]


@pytest.mark.parametrize(("content", "message"), BAD_RUNS)
def test_a_bad_candidate_file_is_named_with_its_line(folder, content, message):
    user, positive = rows(folder / "b" / QREL)[0]
    (folder / "b" / RUN).write_text(content.format(u=user, p=positive))
    expected = re.escape(message.format(u=user, p=positive))
    with pytest.raises(DataFileError, match=f"{RUN}, {expected}"):
        load_xmarket(("b",), root=folder, num_candidates=2)


def test_a_missing_file_is_named(folder):
    (folder / "a" / QREL).unlink()
    with pytest.raises(DataFileError, match=f"{QREL} is missing; a market needs"):
        load_xmarket(("a",), root=folder, **SMALL)


def test_harmless_differences_of_the_format_are_read(folder):
    path = folder / "a" / TRAIN
    plain = read_records(path)
    text = path.read_text()
    other = "rating\textra\tuserId\titemId\n" + "".join(
        "{2}\tx\t{0}\t{1}\n".format(*line.split("\t")) for line in text.splitlines()[1:]
    )
    for variant in (text.rstrip("\n"), text.replace("\n", "\r\n"), "\ufeff" + text, other, text + "\n\n"):
        path.write_text(variant, newline="")
        assert read_records(path).equals(plain)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_gives_a_data_set_or_one_clear_error(folder, data):
    name = data.draw(st.sampled_from([TRAIN, QREL, RUN]))
    path = folder / "b" / name
    good = path.read_bytes()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)) | st.just(len(good)))
    path.write_bytes(
        good[:start] + data.draw(st.binary(max_size=6) | st.sampled_from([b"\t", b"\n", b",", b'"', b"1"])) + good[end:]
    )
    try:
        load_xmarket(("b",), root=folder, num_candidates=10)
    except ValueError as error:  # DataFileError is one
        assert str(path) in str(error) or "market b" in str(error)
    finally:
        path.write_bytes(good)


# The published files


def test_published_official_candidates_follow_the_protocol(real_xmarket):
    data = real_xmarket
    lists, part = data.candidates["test"], data.test
    assert lists.user.equal(part.user) and lists.items.shape == (16903, 100)
    assert ((lists.items == part.item[:, None]).sum(1) == 1).all()
    known = torch.cat(
        [data.train.user * data.num_items + data.train.item, data.valid.user * data.num_items + data.valid.item]
    )
    assert not torch.isin(lists.user[:, None] * data.num_items + lists.items, known).any()
    for d in range(3):
        items = lists.items[lists.domain == d]
        assert torch.equal(items.unique(), data.catalogues[d])
        negatives = items[items != part.item[part.domain == d][:, None]]
        counts = torch.bincount(negatives, minlength=data.num_items)[data.catalogues[d]]
        assert stats.variation(counts) < 0.15  # as often, popular or not


def test_published_validation_has_a_record_of_nearly_every_user(real_xmarket):
    data = real_xmarket
    assert len(data.valid) == 16885
    assert len(data.train) + len(data.valid) == 148842
    assert len(data.valid.user.unique()) == len(data.valid)
    assert int(data.history.lengths().min()) >= 2


def test_published_files_load_fast(real_xmarket):
    start = time.process_time()
    load_xmarket(real_xmarket.domains)
    assert time.process_time() - start < 10
