"""Merged searches answer each request as it would be answered alone, and one request spoils no other."""

import asyncio
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from adi_lite.serving.batching import BatchingRetriever, BusyError
from adi_lite.serving.retriever import Lists


class Counting:
    """Lists that say who asked for what; user "bad" is refused. Waits at ``gate`` before each search."""

    def __init__(self):
        self.calls, self.gate = [], threading.Event()

    def search(self, users, domain, k, *, exclude_seen, unknown):
        self.calls.append((list(users), domain, k, exclude_seen, unknown))
        assert self.gate.wait(10)
        if "bad" in users:
            raise ValueError("1 user is unknown: 'bad'")
        if "broken" in users:
            raise MemoryError("no room")
        found = [u for u in dict.fromkeys(users) if not (unknown == "skip" and u.startswith("new"))]
        items = np.array([[f"{domain}-{u}-{i}" for i in range(k)] for u in found], dtype=object).reshape(len(found), k)
        return Lists(found, items, np.ones((len(found), k), dtype=np.float32))


def ask_all(requests, *, threads=1, **options):
    """Ask for all before the first search ends: answers or errors in order, and the searches that were made."""
    retriever = Counting()
    batching = BatchingRetriever(retriever, threads=threads, **options)

    async def run():
        tasks = []
        for users, domain, *rest in requests:
            tasks.append(asyncio.create_task(batching.search(users, domain, 2, **(rest[0] if rest else {}))))
            await asyncio.sleep(0.01)
        retriever.gate.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    try:
        return asyncio.run(run()), retriever.calls
    finally:
        batching.pool.shutdown()


def test_those_that_wait_are_searched_together_and_answered_apart():
    requests = [(["a"], "x"), (["b", "c", "b"], "x"), (["c"], "y"), (["c"], "x"), (["d"], "x", {"exclude_seen": True})]
    answers, calls = ask_all(requests)
    assert [(users, domain, seen) for users, domain, _, seen, _ in calls] == [
        (["a"], "x", False),  # found a free thread
        (["b", "c", "b", "c"], "x", False),
        (["c"], "y", False),
        (["d"], "x", True),
    ]
    for (users, domain, *_), found in zip(requests, answers, strict=True):
        assert found.users == list(dict.fromkeys(users))
        assert found.items.tolist() == [[f"{domain}-{u}-{i}" for i in range(2)] for u in found.users]
        assert found.scores.shape == (len(found.users), 2)


def test_one_bad_request_spoils_no_other():
    answers, calls = ask_all([(["a"], "x"), (["b"], "x"), (["bad"], "x"), (["c"], "x")])
    assert isinstance(answers[2], ValueError) and "'bad'" in str(answers[2])
    assert [a.users for i, a in enumerate(answers) if i != 2] == [["a"], ["b"], ["c"]]
    assert [users for users, *_ in calls] == [["a"], ["b", "bad", "c"], ["b"], ["bad"], ["c"]]


def test_any_failure_reaches_whoever_asked_and_the_next_are_served():
    answers, _ = ask_all([(["broken"], "x"), (["a"], "x")])
    assert isinstance(answers[0], MemoryError) and answers[1].users == ["a"]


def test_users_that_are_left_out_are_left_out_of_their_own_answer():
    skip = {"unknown": "skip"}
    answers, _ = ask_all([(["a"], "x", skip), (["new1"], "x", skip), (["b", "new2"], "x", skip)])
    assert [a.users for a in answers] == [["a"], [], ["b"]]
    assert answers[1].items.shape == (0, 2)


def test_a_search_takes_no_more_users_than_allowed_unless_one_request_has_them():
    requests = [(["a"], "x"), (["b"] * 3, "x"), (["c"] * 2, "x"), (["d"], "x"), (["e"] * 9, "x"), (["f"], "y")]
    _, calls = ask_all(requests, max_users=4)
    assert [users for users, *_ in calls] == [["a"], ["b"] * 3, ["f"], ["c", "c", "d"], ["e"] * 9]


def test_too_many_waiting_are_refused_at_once():
    answers, _ = ask_all([(["a"], "x")] * 5, max_waiting=2)
    assert [isinstance(a, BusyError) for a in answers] == [False, False, False, True, True]
    assert "2 requests are waiting already" in str(answers[3])


def test_other_searches_share_the_threads():
    retriever = Counting()
    retriever.gate.set()
    batching = BatchingRetriever(retriever, threads=2)
    alone = SimpleNamespace(users=["anybody"])

    async def run():
        return await asyncio.gather(batching.run(lambda: alone), batching.search(["a"], "x", 2))

    found, known = asyncio.run(run())
    assert found is alone and known.users == ["a"]
    with pytest.raises(ZeroDivisionError):
        asyncio.run(batching.run(lambda: 1 / 0))
    batching.pool.shutdown()


def test_a_client_that_has_gone_does_not_stop_the_others():
    retriever = Counting()
    batching = BatchingRetriever(retriever, threads=1)

    async def run():
        first = asyncio.create_task(batching.search(["a"], "x", 2))
        gone = asyncio.create_task(batching.search(["b"], "x", 2))
        last = asyncio.create_task(batching.search(["c"], "x", 2))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        retriever.gate.set()
        return await asyncio.gather(first, gone, last, return_exceptions=True)

    first, gone, last = asyncio.run(run())
    assert first.users == ["a"] and isinstance(gone, asyncio.CancelledError) and last.users == ["c"]
    batching.pool.shutdown()
