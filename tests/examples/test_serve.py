"""The example of a service: the retriever's lists over HTTP, limits, and a sentence for everything that is refused."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest

from adi_lite import __version__
from adi_lite.data.tables import dataset_from_frames
from adi_lite.serving.index import write_index
from adi_lite.serving.retriever import Retriever
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit

FILE = Path(__file__).resolve().parents[2] / "examples" / "serve.py"
_spec = importlib.util.spec_from_file_location("serve", FILE)
serve = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(serve)

MAX_K, MAX_USERS, MAX_BODY = 20, 4, 4000
JSON = {"Content-Type": "application/json"}


class Client:
    """Asks an app without a server; a failure of the app is answered as a server would answer it."""

    def __init__(self, app):
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def ask(self, method, path, **content):
        async def one():
            async with httpx.AsyncClient(transport=self.transport, base_url="http://service") as client:
                return await client.request(method, path, **content)

        return asyncio.run(one())

    def get(self, path):
        return self.ask("GET", path)

    def post(self, path, **content):
        return self.ask("POST", path, **content)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(0)
    n = 400
    interactions = pd.DataFrame(
        {
            "user_id": [f"u{x}" for x in rng.integers(0, 20, n)],
            "item_id": [f"i{x}" for x in rng.integers(0, 30, n)],
            "domain": rng.choice(["books", "music"], n),
            "timestamp": rng.integers(1_700_000_000, 1_701_000_000, n),
        }
    )
    users = pd.DataFrame({"user_id": [f"u{x}" for x in range(20)], "group": [f"g{x % 3}" for x in range(20)]})
    users["age"] = rng.normal(40, 9, 20)
    data = dataset_from_frames(interactions, users, name="shop")
    folder = tmp_path_factory.mktemp("run")
    small = {"dim": 8, "out_dim": 8, "hidden": (8,), "epochs": 1, "batch_size": 64, "user": "both"}
    write_index(folder, data, fit(data, Config().with_changes(**small), out=folder))
    return folder


@pytest.fixture(scope="module")
def retriever(run):
    return Retriever.open(run)


@pytest.fixture(scope="module")
def client(run):
    app = serve.create_app(run, max_k=MAX_K, max_users=MAX_USERS, max_body=MAX_BODY)
    return Client(app)


def lists_of(frame, user):
    return {u: (part.item_id.tolist(), part.score.tolist()) for u, part in frame.groupby(user)}


def answered(answer):
    assert answer.status_code == 200, answer.text
    return {x["user"]: (x["items"], pytest.approx(x["scores"], rel=1e-6)) for x in answer.json()["lists"]}


def test_health(client, retriever):
    assert client.get("/health").json() == {
        "ok": True,
        "model": "adi",
        "version": __version__,
        "users": 20,
        "domains": ["books", "music"],
        "items": {d: retriever.num_items(d) for d in ("books", "music")},
    }


@pytest.mark.parametrize("exclude_seen", [False, True])
@pytest.mark.parametrize("domain", ["books", "music"])
def test_known_users_get_the_lists_of_the_retriever(client, retriever, domain, exclude_seen):
    asked = {"domain": domain, "users": ["u3", "u7", "u3", "u0"], "k": 12, "exclude_seen": exclude_seen}
    answer = client.post("/retrieve", json=asked)
    assert answer.json()["domain"] == domain
    assert [x["user"] for x in answer.json()["lists"]] == ["u3", "u7", "u0"]
    frame = retriever.retrieve(["u3", "u7", "u0"], domain, 12, exclude_seen=exclude_seen)
    assert lists_of(frame, "user_id") == answered(answer)


def test_unknown_users(client, retriever):
    asked = {"domain": "books", "users": ["nobody", "u1"], "k": 3}
    refused = client.post("/retrieve", json=asked)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("1 of 2 users are unknown to the model: 'nobody'")
    assert set(answered(client.post("/retrieve", json={**asked, "unknown": "skip"}))) == {"u1"}
    cold = answered(client.post("/retrieve", json={**asked, "unknown": "cold"}))
    assert lists_of(retriever.retrieve(["nobody", "u1"], "books", 3, unknown="cold"), "user_id") == cold


def test_nothing_known_and_nothing_left_are_empty_lists(client, retriever):
    asked = {"domain": "books", "users": ["nobody"], "k": 3, "unknown": "skip"}
    assert client.post("/retrieve", json=asked).json() == {"domain": "books", "lists": []}
    every = [f"i{x}" for x in range(30)]
    asked = {"domain": "music", "histories": [every, []], "k": 5, "exclude_seen": True}
    first, second = client.post("/retrieve/new", json=asked).json()["lists"]
    assert first == {"user": 0, "items": [], "scores": []} and len(second["items"]) == 5


def test_new_users_get_the_lists_of_the_retriever(client, retriever):
    histories, features = [["i1", "i2"], []], [{"group": "g1", "age": 31}, {"group": None, "age": 60.5}]
    asked = {"domain": "music", "k": 6, "histories": histories, "features": features}
    both = retriever.retrieve_new("music", 6, histories=histories, features=pd.DataFrame(features))
    assert lists_of(both, "user") == answered(client.post("/retrieve/new", json=asked))
    del asked["features"]
    alone = retriever.retrieve_new("music", 6, histories=histories)
    assert lists_of(alone, "user") == answered(client.post("/retrieve/new", json=asked))
    assert lists_of(alone, "user") != lists_of(both, "user")


@pytest.mark.parametrize(
    "path, change, sentence",
    [
        ("/retrieve", {"k": 0}, "k: Input should be greater than or equal to 1"),
        ("/retrieve", {"k": MAX_K + 1}, f"k: Input should be less than or equal to {MAX_K}"),
        ("/retrieve", {"k": "many"}, "k: Input should be a valid integer"),
        ("/retrieve", {"users": []}, "users: List should have at least 1 item"),
        (
            "/retrieve",
            {"users": [f"u{i}" for i in range(MAX_USERS + 1)]},
            f"users: List should have at most {MAX_USERS}",
        ),
        ("/retrieve", {"users": "u1"}, "users: Input should be a valid list"),
        ("/retrieve", {"users": [True]}, "users.0."),
        ("/retrieve", {"users": [10**30]}, "users.0."),
        ("/retrieve", {"users": ["u" * 300]}, "at most 256 characters"),
        ("/retrieve", {"unknown": "maybe"}, "unknown: Input should be 'error', 'cold' or 'skip'"),
        ("/retrieve", {"exclude_sen": True}, "exclude_sen: Extra inputs are not permitted"),
        ("/retrieve/new", {}, "give histories, features, or both"),
        (
            "/retrieve/new",
            {"histories": [[], []], "features": [{"group": "g1", "age": 1}]},
            "histories and features are of",
        ),
        ("/retrieve/new", {"histories": []}, "histories: List should have at least 1 item"),
        ("/retrieve/new", {"histories": [[]] * (MAX_USERS + 1)}, f"histories: List should have at most {MAX_USERS}"),
        ("/retrieve/new", {"histories": ["i1"]}, "histories.0: Input should be a valid list"),
        ("/retrieve/new", {"features": [{"age": 1}]}, "group"),
        ("/retrieve/new", {"features": [{"group": "g1", "age": "old"}]}, "age"),
        ("/retrieve/new", {"features": [{"group": {"a": 1}, "age": 1}]}, "features.0.group."),
        ("/retrieve/new", {"features": [{}]}, "group"),
    ],
)
def test_wrong_requests_are_refused_in_a_sentence(client, path, change, sentence):
    asked = {"domain": "books", **({"users": ["u1"]} if path == "/retrieve" else {}), **change}
    answer = client.post(path, json=asked)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["detail"] and sentence in answer.json()["detail"]
    assert "Traceback" not in answer.text and 'File "' not in answer.text


@pytest.mark.parametrize("path, rest", [("/retrieve", {"users": ["u1"]}), ("/retrieve/new", {"histories": [[]]})])
def test_an_unknown_domain_is_not_found(client, path, rest):
    answer = client.post(path, json={"domain": "shoes", **rest})
    assert answer.status_code == 404
    assert answer.json() == {"detail": "unknown domain 'shoes'; the domains are books, music"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"domain": "books", "users": ["\\ud800"], "unknown": "cold"}',
        b'{"domain": "books", "users": [NaN]}',
        b'{"domain": "books", "users": ' + b"[" * 1500 + b"]" * 1500 + b"}",
    ],
)
def test_bodies_that_are_no_request(client, body):
    answer = client.post("/retrieve", content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert list(answer.json()) == ["detail"] and isinstance(answer.json()["detail"], str)
    assert len(answer.text) < 1000


def test_many_faults_are_counted(client):
    answer = client.post("/retrieve", json={"domain": "books", "users": ["u1"], **{f"x{i}": 1 for i in range(9)}})
    assert answer.json()["detail"].endswith("and 4 more")


def test_numbers_that_are_none_are_refused(client):
    body = b'{"domain": "books", "features": [{"group": "g1", "age": NaN}]}'
    answer = client.post("/retrieve/new", content=body, headers=JSON)
    assert answer.status_code == 422 and "finite number" in answer.json()["detail"]


def test_large_bodies_are_refused_and_not_read_on(client):
    whole = client.post("/retrieve", content=b" " * (MAX_BODY + 1))
    assert whole.status_code == 413 and whole.json() == {"detail": f"the body is larger than {MAX_BODY:,} bytes"}
    asked = json.dumps({"domain": "books", "users": ["u1"], "k": 2}).encode().ljust(MAX_BODY)
    assert client.post("/retrieve", content=asked, headers=JSON).status_code == 200

    async def pieces():
        yield asked[:10]
        yield asked[10:]

    assert client.post("/retrieve", content=pieces(), headers=JSON).status_code == 200


def test_a_body_without_end_is_cut_off():
    sent, read = [], 0

    async def receive():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        raise AssertionError("the service itself must not see the request")

    asyncio.run(serve.BodyLimit(app, 95)({"type": "http"}, receive, send))
    assert sent[0]["status"] == 413 and read == 10


def test_a_failure_of_the_service_shows_nothing_of_its_inside(run, monkeypatch):
    def search(*args, **kwargs):
        raise RuntimeError("secret")

    monkeypatch.setattr(Retriever, "search", search)
    answer = Client(serve.create_app(run)).post("/retrieve", json={"domain": "books", "users": ["u1"]})
    assert answer.status_code == 500
    assert answer.json() == {"detail": "the service failed to answer; its log says why"}


def test_the_description_names_answers_and_refusals(client):
    about = client.get("/openapi.json").json()["paths"]
    for path in ("/retrieve", "/retrieve/new"):
        said = {
            s: r["content"]["application/json"]["schema"]["$ref"] for s, r in about[path]["post"]["responses"].items()
        }
        named = {s: ref.rsplit("/", 1)[1] for s, ref in said.items()}
        assert named == {"200": "Answer", "404": "Refusal", "413": "Refusal", "422": "Refusal", "503": "Refusal"}


def test_the_script_starts_one_server_on_the_port(run, monkeypatch):
    called = {}
    monkeypatch.setattr(serve.uvicorn, "run", lambda app, **options: called.update(options, app=app))
    monkeypatch.setattr(serve.torch, "set_num_threads", lambda n: called.update(torch=n))
    monkeypatch.setattr(serve.sys, "setswitchinterval", lambda s: None)
    monkeypatch.setattr(serve.gc, "freeze", lambda: None)
    monkeypatch.setattr(serve.faiss, "omp_set_num_threads", lambda n: called.update(faiss=n))
    serve.main([str(run), "--port", "8123"])
    assert called["port"] == 8123 and called["host"] == "127.0.0.1" and called["torch"] == called["faiss"] == 1
    assert Client(called["app"]).get("/health").json()["ok"]


def test_the_script_says_what_is_missing(tmp_path, capsys):
    with pytest.raises(SystemExit):
        serve.main([str(tmp_path)])
    assert "has no index: make one by adi-lite index" in capsys.readouterr().err
