"""Globo.com's log from small files in its format, and the real one where it is at hand."""

import os
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from adi_lite.data import globo_files
from adi_lite.data.click_log import HOUR, to_ms
from adi_lite.data.describe import describe
from adi_lite.data.download import DataFileError, OutOfReachError, file_hash
from adi_lite.data.globo import TEST_START, globo_hours, load_globo
from adi_lite.data.globo_sample import draw_sample, globo_sample_hours, load_globo_sample, write_sample
from adi_lite.data.registry import DATASETS, load_dataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.evaluation.recent import RecentPopularity
from adi_lite.evaluation.reference import Popularity
from adi_lite.models.scorer import ModelScorer
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit

drawn = cache(draw_sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("globo")
    write_sample(target)
    return target


@pytest.fixture(scope="module")
def data(folder):
    return load_globo(root=folder)


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """An empty mirror and an empty cache."""
    monkeypatch.setenv("ADI_LITE_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mirror" / "globo").mkdir(parents=True)
    return tmp_path / "mirror" / "globo"


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((folder / "clicks").iterdir()):
            archive.write(file, f"clicks/{file.name}")
    return target


def same(one, other) -> bool:
    columns = [*zip(one.items.values(), other.items.values(), strict=True)]
    columns += [*zip(one.users.values(), other.users.values(), strict=True)]
    return all(torch.equal(a, b) for a, b in columns) and torch.equal(one.test.item, other.test.item)


def test_the_columns_of_the_files(data):
    clicks, articles = drawn()
    start = to_ms(TEST_START)
    own = clicks[clicks["click_referrer_type"].isin([1, 2, 5])]
    day = own[own["click_timestamp"] >= start]
    assert data.domains == ("referrer 2", "referrer 1", "referrer 5") and data.name == "globo"
    first = day.drop_duplicates(["user_id", "click_article_id", "click_referrer_type"])
    assert data.user_ids[data.test.user].tolist() == first["user_id"].tolist()
    assert data.item_ids[data.test.item].tolist() == first["click_article_id"].tolist()
    assert [("2", "1", "5").index(str(r)) for r in first["click_referrer_type"]] == data.test.domain.tolist()
    recent = own[(own["click_timestamp"] >= start - 3 * HOUR) & (own["click_timestamp"] < start)]
    counts = recent.groupby(["click_article_id", "click_referrer_type"]).size()
    assert counts.max() > 3
    for (article, referrer), n in counts.items():
        row, d = data.item_ids.tolist().index(article), (2, 1, 5).index(referrer)
        assert float(data.as_of("test").items["clicks_3h"][row, d, 0]) == pytest.approx(np.log1p(n), abs=1e-5)
    train = own[(own["click_timestamp"] >= start - 48 * HOUR) & (own["click_timestamp"] < start - 24 * HOUR)]
    for feature, column in globo_files.CONTEXT.items():
        words = sorted(train[column].unique())
        context = day.drop_duplicates("user_id").set_index("user_id")[column]
        for row, user in enumerate(data.user_ids.tolist()):
            code = words.index(context[user]) + 1 if user in context.index and context[user] in words else 0
            assert int(data.as_of("test").users[feature][row]) == code
    listed = np.isin(data.item_ids, articles["article_id"])
    assert bool((data.items["category"][listed] > 0).all()) and not bool(data.items["category"][~listed].any())
    words_count = articles.set_index("article_id")["words_count"]
    for row in np.flatnonzero(listed)[::20]:
        assert float(data.items["words"][row, 0]) == pytest.approx(np.log1p(words_count[data.item_ids[row]]), rel=1e-5)


def test_a_zip_file_and_its_parsed_copy_give_the_same(folder, data, mirror):
    root = mirror.parent
    zipped(folder, root / "clicks.zip")
    (root / "articles_metadata_partial.csv").write_bytes((folder / "articles_metadata_partial.csv").read_bytes())
    assert same(load_globo(root=root), data)
    (kept,) = (root.parent / "cache" / "globo").iterdir()
    assert kept.name == f"clicks-{file_hash(root / 'clicks.zip', 'sha256')[:16]}.parquet"
    table = pq.read_table(kept)
    pq.write_table(table.slice(0, 7000), kept)  # what is read is the copy
    assert len(load_globo(root=root, test_days=0.1, test_start="2017-10-07T03:00Z", domains="2,1").train) > 0
    with pytest.raises(ValueError, match="no click in the train split"):
        load_globo(root=root)
    kept.write_bytes(kept.read_bytes()[:-100])  # a damaged copy is made again
    assert same(load_globo(root=root), data)
    assert len(pq.read_table(kept)) == len(table)


def test_the_unpacked_folder_needs_no_cache(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("ADI_LITE_CACHE", str(tmp_path))
    load_globo(root=folder)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_log_says_how_to_get_it_and_the_terms(mirror, monkeypatch, tmp_path):
    with pytest.raises(OutOfReachError) as error:
        load_globo()
    for words in ("gspmoreira/news-portal-user-interactions-by-globocom", "Kaggle login", "academic use only"):
        assert words in str(error.value)
    for words in ("1904.10367", "root", "ADI_LITE_MIRROR", "cache/globo/clicks.zip", "no redistribution"):
        assert words in str(error.value)
    with pytest.raises(DataFileError, match="holds neither clicks.zip nor a folder clicks"):
        load_globo(root=tmp_path / "nothing")


def test_another_log_in_the_place_of_the_published_one_is_refused(folder, data, mirror, monkeypatch):
    zipped(folder, mirror / "clicks.zip")
    with pytest.raises(DataFileError, match=r"clicks.zip: not the published log: it holds 14,000 clicks \(expected 2,"):
        load_globo()
    clicks, _ = drawn()
    found = {
        "clicks": len(clicks),
        "users": clicks["user_id"].nunique(),
        "articles": clicks["click_article_id"].nunique(),
    }
    monkeypatch.setattr(globo_files, "COUNTS", found)  # packed anew, it is still the published log
    assert "counts as published" in load_globo().notes["files"]
    assert "all attributes unknown" in load_globo().notes["files"]
    monkeypatch.setattr(globo_files, "CLICKS_HASH", file_hash(mirror / "clicks.zip", "sha256"))
    assert "sha256 as known" in load_globo().notes["files"]
    (mirror / "articles_metadata.csv").write_text(
        "article_id,category_id,created_at_ts,publisher_id,words_count\n1,1,1,0,9\n"
    )
    with pytest.raises(DataFileError, match="articles_metadata.csv: not the published file"):
        load_globo()


def test_metadata_with_either_line_end(folder, mirror, monkeypatch):
    zipped(folder, mirror / "clicks.zip")
    _, articles = drawn()
    text = articles.to_csv(index=False)
    (mirror / "articles_metadata.csv").write_bytes(text.encode())
    clicks, _ = drawn()
    found = {
        "clicks": len(clicks),
        "users": clicks["user_id"].nunique(),
        "articles": clicks["click_article_id"].nunique(),
    }
    monkeypatch.setattr(globo_files, "COUNTS", found)
    monkeypatch.setattr(globo_files, "METADATA_HASH", file_hash(mirror / "articles_metadata.csv", "git"))
    one = load_globo()
    (mirror / "articles_metadata.csv").write_bytes(text.replace("\n", "\r\n").encode())
    other = load_globo()
    assert same(one, other) and "articles_metadata.csv, 560 articles, git blob id as published" in other.notes["files"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("user_id,session_id\n1,2\n", "clicks_hour_000.csv: .*click_article_id"),
        ("{header}\n1,1,1,1,5,soon,1,1,1,1,1,2\n", "clicks_hour_000.csv: .*soon"),
        ("{header}\n1,1,1,1,,1507000000000,1,1,1,1,1,2\n", "clicks_hour_000.csv: empty fields in click_article_id"),
        ("", "clicks_hour_000.csv: .*[Ee]mpty"),
    ],
)
def test_files_in_another_format_are_named(tmp_path, text, words):
    clicks, _ = drawn()
    (tmp_path / "clicks").mkdir()
    (tmp_path / "clicks" / "clicks_hour_000.csv").write_text(text.format(header=",".join(clicks.columns)))
    with pytest.raises(DataFileError, match=words):
        load_globo(root=tmp_path)


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "clicks.zip").write_bytes(b"no zip")
    with pytest.raises(DataFileError, match=r"clicks.zip: File is not a zip file"):
        load_globo(root=tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"domains": "2,9"}, "no click by referrer type 9; the log has 1, 2, 5, 7"),
        ({"domains": ("2", "2")}, "domains must be different whole numbers"),
        ({"domains": "search"}, "domains must be different whole numbers"),
        ({"sample": 0.0}, "share of the users"),
        ({"test_start": "2018-01-01"}, "no click in the train split"),
    ],
)
def test_options_that_make_no_sense(folder, options, words):
    with pytest.raises(ValueError, match=words):
        load_globo(root=folder, **options)


def test_hours_go_on_from_the_same_rows(folder, data):
    hours = list(globo_hours(root=folder))
    assert len(hours) == 24
    start = to_ms(TEST_START) // 1000
    for n, (hour, records) in enumerate(hours):
        assert np.array_equal(hour.item_ids, data.item_ids) and hour.schema == data.schema
        assert bool(((records.timestamp - start) // 3600 == n).all()) and torch.equal(records.item, hour.test.item)
    assert torch.equal(hours[0][0].items["trend"], data.as_of("test").items["trend"])
    # An hour's columns are those of a test that begins then, though the rows of that test are others.
    later = load_globo(root=folder, test_start="2017-10-10T09:00:00Z", test_days=0.5).as_of("test")
    hour = hours[6][0]
    row = {i: n for n, i in enumerate(later.item_ids.tolist())}
    both = [(n, row[i]) for n, i in enumerate(hour.item_ids.tolist()) if i in row]
    here, there = (torch.tensor(c) for c in zip(*both, strict=True))
    assert len(both) > 300
    for name in ("age", "clicks_1h", "clicks_24h", "users_24h", "share_24h", "trend"):
        assert torch.equal(hour.items[name][here], later.items[name][there])


def test_recent_popularity_ranks_by_the_clicks_of_the_last_hours(data):
    clicks, _ = drawn()
    start = to_ms(TEST_START)
    now = data.as_of("test")
    for hours in (1, 24):
        fitted = RecentPopularity(hours).fit(now)
        for d, referrer in enumerate((2, 1, 5)):
            own = clicks[(clicks["click_referrer_type"] == referrer) & (clicks["click_timestamp"] < start)]
            own = own[own["click_timestamp"] >= start - hours * HOUR]["click_article_id"].value_counts()
            scores = fitted.scores(torch.tensor([0, 3]), d)
            expected = [own.get(i, 0) for i in now.item_ids[now.catalogues[d]]]
            assert torch.expm1(scores[1]).round().int().tolist() == expected
            assert torch.equal(scores[0], scores[1])
    with pytest.raises(ValueError, match="globo has no item feature 'clicks_2h': it has windows of 1, 3, 6, 24 h"):
        RecentPopularity(2).fit(now)
    with pytest.raises(ValueError, match="it counts no clicks over time"):
        RecentPopularity(2).fit(load_dataset("xmarket-sample", markets=("s3",)))


def test_in_news_the_last_hours_beat_the_last_days(data):
    now = data.as_of("test")
    recent, old = (
        evaluate(r.fit(now), now, "test", "corpus").average()["recall@10"] for r in (RecentPopularity(3), Popularity())
    )
    assert recent > 1.1 * old > 0


def test_training_validates_on_what_is_known_when_validation_begins(data):
    small = {"dim": 8, "out_dim": 8, "batch_size": 512}
    config = Config().with_changes(method="dnn", epochs=1, patience=1, tie_history=True, **small)
    trained = fit(data, config)
    valid = data.as_of("valid")
    scorer = ModelScorer(trained.scorer.models, valid)
    expected = evaluate(scorer, valid, "valid", "corpus", ks=(10,)).average()["recall@10"]
    assert trained.epochs[0]["valid"] == pytest.approx(expected, abs=1e-6) and expected > 0
    hour, _ = next(globo_sample_hours())
    assert evaluate(ModelScorer(trained.scorer.models, hour), hour, "test", "corpus").average()["recall@10"] > 0


def test_the_stand_in_says_what_it_is_and_is_drawn_by_seed(data):
    sample = load_globo_sample()
    assert sample.name == "globo-sample" and "not Globo.com's log" in sample.notes["sample"] and same(sample, data)
    assert not draw_sample(seed=1)[0].equals(drawn()[0])
    sizes = [int((sample.train.domain == d).sum()) for d in range(3)]
    assert sizes[0] > 1.2 * sizes[1] > 4 * sizes[2] > 200
    shared = {(r["domain"], r["other_domain"]): r for r in describe(sample)["overlaps"]}
    assert all(r["users"] > 20 and r["items"] > 20 for r in shared.values())
    born = sample.as_of("test").items["age"][:, 1] == 0
    assert bool(born.any()) and not bool(born.all()), "some articles are born on the test day"
    assert len(load_dataset("globo-sample", validation=None, domains="1,5").valid) == 0
    assert DATASETS["globo"] is load_globo


@pytest.fixture(scope="module")
def real():
    mirror = os.environ.get("ADI_LITE_MIRROR", "")
    if not mirror or not (Path(mirror) / "globo" / "clicks.zip").is_file():
        pytest.skip("Globo.com's log is not here: set ADI_LITE_MIRROR to a folder that holds globo/clicks.zip")
    return load_globo(validation=None)


def recall_by_click(reference: RecentPopularity, data) -> list[float]:
    """Recall@100 by domain, each click weighing the same (the library's own average weighs users the same)."""
    found = evaluate(reference.fit(data), data, "test", "corpus", ks=(100,))
    hits = np.bincount(found.domain, found.metrics["recall@100"] * found.num_positives, minlength=3)
    return (hits / np.maximum(np.bincount(found.domain, found.num_positives, minlength=3), 1)).tolist()


def test_the_real_log(real):
    assert "sha256 as known" in real.notes["files"] or "counts as published" in real.notes["files"]
    now = real.as_of("test")
    assert recall_by_click(RecentPopularity(3), now) == pytest.approx([0.1866, 0.1975, 0.0902], abs=0.0005)
    assert recall_by_click(RecentPopularity(6), now.only_domain(2))[2] == pytest.approx(0.1083, abs=0.0005)
    # An article that any of the three domains showed before the test is within reach of the union of their catalogues.
    ever = now.items["age"][:, 1] == 0
    for d, share in enumerate((0.875, 0.600, 0.648)):
        born = ever[real.test.item[real.test.domain == d]]
        assert float(born.float().mean()) == pytest.approx(share, abs=0.02)
