"""Retrieval from a run's index: the same lists as scoring everything, for known users and for new ones."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from adi_lite.data.tables import dataset_from_frames
from adi_lite.evaluation.retrieval import exact_topk
from adi_lite.serving.index import INDEX_FILE, write_index
from adi_lite.serving.retriever import Retriever
from adi_lite.training.checkpoint import CheckpointError
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit

SMALL = {"dim": 8, "out_dim": 8, "hidden": (8,), "epochs": 2, "batch_size": 64}


def frames(seed: int = 0, ids: str = "text"):
    """Three domains with tables of users and items; user u29 and item i39 are in the side tables only."""
    rng = np.random.default_rng(seed)
    n = 700
    name = (lambda kind, x: f"{kind}{x}") if ids == "text" else (lambda kind, x: int(x) + 1000)
    domain = rng.choice(["books", "music", "../games"], n, p=[0.5, 0.3, 0.2])
    interactions = pd.DataFrame(
        {
            "user_id": [name("u", x) for x in rng.integers(0, 29, n)],
            "item_id": [name("i", x) for x in (39 * rng.random(n) ** 1.5).astype(int)],
            "domain": domain,
            "timestamp": rng.integers(1_700_000_000, 1_701_000_000, n),
        }
    )
    users = pd.DataFrame(
        {
            "user_id": [name("u", x) for x in range(30)],
            "group": [f"g{x % 3}" for x in range(30)],
            "age": rng.normal(40, 9, 30),
        }
    )
    items = pd.DataFrame(
        {
            "item_id": [name("i", x) for x in range(40)],
            "kind": [f"k{x % 4}" for x in range(40)],
            "domains": [["books", "music"] if x % 2 else ["books"] for x in range(40)],
        }
    )
    return interactions, users, items


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    data = dataset_from_frames(*frames(), name="shop")
    run = tmp_path_factory.mktemp("run")
    config = Config().with_changes(**SMALL, user="both")
    trained = fit(data, config, out=run)
    write_index(run, data, trained)
    return data, trained, run


def expected(data, trained, users, domain, k, seen=None):
    """item ids and scores by sorting all scores of the domain, one user at a time."""
    scores = trained.scorer.scores(users, domain)
    for i, items in enumerate(seen or []):
        out = torch.isin(data.catalogues[domain], torch.tensor(sorted(items), dtype=torch.int64))
        scores[i, out] = -torch.inf
    lists = []
    for row in scores:
        order = [int(j) for j in row.argsort(descending=True) if row[j] > -torch.inf][:k]
        lists.append((data.item_ids[data.catalogues[domain][order]].tolist(), row[order].tolist()))
    return lists


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("domain", ["books", "music", "../games"])
def test_lists_are_those_of_scoring_everything(world, domain, exclude_seen):
    data, trained, run = world
    d = data.schema.domain_index(domain)
    retriever = Retriever.open(run)
    assert retriever.domains == data.domains
    users = data.user_ids[::3].tolist()
    rows = torch.arange(data.num_users)[::3]
    seen = None
    if exclude_seen:
        records = [
            pair
            for part in (data.train, data.valid, data.test)
            for pair in zip(part.user.tolist(), part.item.tolist(), strict=True)
        ]
        seen = [{v for u, v in records if u == row} for row in rows.tolist()]
    frame = retriever.retrieve(users, domain, 7, exclude_seen=exclude_seen)
    for user, (items, scores) in zip(users, expected(data, trained, rows, d, 7, seen), strict=True):
        mine = frame[frame.user_id == user]
        assert mine["rank"].tolist() == list(range(1, len(items) + 1))
        assert mine.item_id.tolist() == items
        np.testing.assert_allclose(mine.score, scores, rtol=1e-5, atol=1e-6)
    shown = set(data.item_ids[data.catalogues[d]])
    assert set(frame.item_id) <= shown


def test_k_rows_a_user_and_all_items_where_the_domain_has_fewer(world):
    data, _, run = world
    retriever = Retriever.open(run)
    for domain in retriever.domains:
        n = retriever.num_items(domain)
        for k in (1, 5, n, n + 50):
            frame = retriever.retrieve(data.user_ids[:4].tolist(), domain, k)
            assert frame.groupby("user_id").size().tolist() == [min(k, n)] * 4


def test_a_known_user_given_as_a_new_one_by_history_and_features_gets_the_same_list(tmp_path):
    interactions, users, items = frames()
    data = dataset_from_frames(interactions, users, items, name="shop")
    trained = fit(data, Config().with_changes(**SMALL, user="history"), out=tmp_path)  # no id: all is in the input
    write_index(tmp_path, data, trained)
    retriever = Retriever.open(tmp_path)
    ids = ["u3", "u11", "u20"]
    histories = [data.item_ids[data.history.row(int(np.flatnonzero(data.user_ids == u)[0]))].tolist() for u in ids]
    features = users.set_index("user_id").loc[ids].reset_index(drop=True)
    known = retriever.retrieve(ids, "books", 6)
    new = retriever.retrieve_new("books", 6, histories=histories, features=features)
    assert new.item_id.tolist() == known.item_id.tolist()
    np.testing.assert_allclose(new.score, known.score, rtol=1e-5)
    assert new.user.tolist() == np.repeat([0, 1, 2], 6).tolist()
    left = retriever.retrieve_new("books", 100, histories=histories, features=features, exclude_seen=True)
    assert not set(left[left.user == 0].item_id) & set(histories[0])
    unlearnt = retriever.retrieve_new("books", 6, histories=[[*histories[0], "i39", "nonsense"]], features=features[:1])
    assert unlearnt.item_id.tolist() == known.item_id.tolist()[:6], "items without training records say nothing"


def test_unknown_users(world):
    _, _, run = world
    retriever = Retriever.open(run)
    with pytest.raises(ValueError, match=r"2 of 3 users are unknown to the model: 'nobody', 'none'"):
        retriever.retrieve(["u1", "nobody", "none"], "books", 3)
    skipped = retriever.retrieve(["u1", "nobody"], "books", 3, unknown="skip")
    assert set(skipped.user_id) == {"u1"}
    cold = retriever.retrieve(["nobody", "u1", "none"], "books", 3, unknown="cold")
    assert cold.groupby("user_id").size().to_dict() == {"nobody": 3, "none": 3, "u1": 3}
    lists = cold.groupby("user_id").item_id.agg(list)
    assert lists["nobody"] == lists["none"], "nothing is known of either"
    blank = retriever.retrieve_new("books", 3, histories=[[]])
    assert blank.item_id.tolist() == lists["none"]
    assert len(retriever.retrieve(["nobody"], "books", 3, unknown="skip")) == 0


def test_a_user_named_twice_is_answered_once(world):
    _, _, run = world
    assert len(Retriever.open(run).retrieve(["u1", "u2", "u1"], "books", 3)) == 6


@pytest.mark.parametrize("kind, options", [("ivf", {"nlist": 8, "nprobe": 1}), ("hnsw", {"m": 4, "ef_search": 4})])
def test_approximate_indexes_are_measured_and_still_give_k_rows(world, tmp_path, kind, options):
    data, trained, _ = world
    about = write_index(tmp_path, data, trained, kind, **options)
    retriever = Retriever.open(tmp_path)
    for d, name in enumerate(data.domains):
        said = about["domains"][d]
        vectors = trained.scorer.item_vectors(d)
        frame = retriever.retrieve(data.user_ids.tolist(), name, min(15, len(vectors)))
        assert (frame.groupby("user_id").size() == min(15, len(vectors))).all()
        assert frame.groupby("user_id").item_id.nunique().eq(min(15, len(vectors))).all()
        assert 0 < said["recall_of_exact@100"] <= 1 and said["items"] == len(vectors)
    if kind == "ivf":
        assert min(d["recall_of_exact@100"] for d in about["domains"]) < 1, "one list of eight cannot hold everything"


def test_ids_may_be_integers(tmp_path):
    data = dataset_from_frames(*frames(ids="numbers"), name="shop")
    trained = fit(data, Config().with_changes(**SMALL, user="both"), out=tmp_path)
    write_index(tmp_path, data, trained)
    frame = Retriever.open(tmp_path).retrieve([1003, 1004], "books", 4)
    assert frame.user_id.tolist() == [1003] * 4 + [1004] * 4
    assert frame.item_id.dtype.kind == "i"


def test_models_of_single_domains_and_names_that_lead_elsewhere(tmp_path):
    data = dataset_from_frames(*frames(), name="shop")
    run = tmp_path / "deep" / "run"
    trained = fit(data, Config().with_changes(method="dnn_single", **SMALL, user="both"), out=run)
    write_index(run, data, trained)
    outside = [p for p in tmp_path.rglob("*") if run not in p.parents and p not in (run, run.parent)]
    assert outside == [], "a domain called '../games' must stay inside"
    retriever = Retriever.open(run)
    users = torch.arange(5)
    for d, name in enumerate(data.domains):
        frame = retriever.retrieve(data.user_ids[:5].tolist(), name, 4)
        found = exact_topk(trained.scorer.user_vectors(users, d), trained.scorer.item_vectors(d), 4)[1]
        assert frame.item_id.tolist() == data.item_ids[data.catalogues[d][found.flatten()]].tolist()


def test_a_second_index_takes_the_place_of_the_first(world, tmp_path):
    data, trained, _ = world
    first = write_index(tmp_path, data, trained)
    (tmp_path / "index-left-by-a-killed-writer").mkdir()
    second = write_index(tmp_path, data, trained, "hnsw")
    assert first["folder"] != second["folder"]
    assert [p.name for p in tmp_path.glob("index-*")] == [second["folder"]]
    assert Retriever.open(tmp_path).about["kind"] == "hnsw"


def test_a_writer_that_fails_leaves_the_old_index(world, tmp_path, monkeypatch):
    data, trained, _ = world
    first = write_index(tmp_path, data, trained)
    monkeypatch.setattr("adi_lite.serving.index._write_data", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_index(tmp_path, data, trained)
    assert [p.name for p in tmp_path.glob("index-*")] == [first["folder"]]
    Retriever.open(tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.update(format=99), "format 99"),
        (lambda a: a.update(folder="../elsewhere"), "which is not in"),
        (lambda a: a.pop("domains"), "damaged"),
    ],
)
def test_an_index_that_cannot_be_read_is_refused_in_a_sentence(world, tmp_path, change, message):
    data, trained, _ = world
    about = write_index(tmp_path, data, trained)
    change(about)
    (tmp_path / INDEX_FILE).write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=message):
        Retriever.open(tmp_path)


@pytest.mark.parametrize("file", ["items-0.faiss", "users.safetensors", "model-0.safetensors", "users.parquet"])
def test_a_truncated_or_missing_file_is_named(world, tmp_path, file):
    data, trained, _ = world
    about = write_index(tmp_path, data, trained)
    path = tmp_path / about["folder"] / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=file.replace(".", r"\.")):
        Retriever.open(tmp_path)


def test_wrong_questions(world):
    _, _, run = world
    retriever = Retriever.open(run)
    with pytest.raises(ValueError, match="unknown domain 'shoes'; the domains are"):
        retriever.retrieve(["u1"], "shoes", 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        retriever.retrieve(["u1"], "books", 0)
    with pytest.raises(ValueError, match="histories, features, or both"):
        retriever.retrieve_new("books", 3)
    with pytest.raises(ValueError, match="of 1 and 2 users"):
        retriever.retrieve_new(
            "books", 3, histories=[[]], features=pd.DataFrame({"group": ["g1", "g2"], "age": [1, 2]})
        )
    with pytest.raises(ValueError, match="a history is a list of item ids"):
        retriever.retrieve_new("books", 3, histories=["i1"])
    with pytest.raises(ValueError, match="unknown='maybe'"):
        retriever.retrieve(["u1"], "books", 3, unknown="maybe")
    assert list(retriever.retrieve([], "books", 3).columns) == ["user_id", "rank", "item_id", "score"]


def test_no_index_yet(tmp_path):
    with pytest.raises(CheckpointError, match="has no index: make one by adi-lite index"):
        Retriever.open(tmp_path)
