"""Searches of several requests in one pass over the index, for services under load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from adi_lite.serving.retriever import Lists, Retriever, Unknown

Key = tuple[str, int, bool, Unknown]
_Waiting = tuple[list, asyncio.Future]


class BusyError(RuntimeError):
    """Too many requests are waiting already."""


class BatchingRetriever:
    """Answers the requests that wait for a free thread together, where they ask the same of the same domain.

    A search reads every vector of the domain, for one user as for eight: together they cost little more than one alone.
    So a service that falls behind becomes faster, and one that does not waits for nobody: a request that finds a free
    thread is searched at once.

    Args:
        retriever: what is searched.
        threads: searches at a time.
        max_users: users of a search, if a single request has not more.
        max_waiting: requests that may wait; one more raises :class:`BusyError`.
    """

    def __init__(self, retriever: Retriever, *, threads: int, max_users: int = 64, max_waiting: int = 1000) -> None:
        self.retriever, self.max_users, self.max_waiting = retriever, max_users, max_waiting
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="search")
        self._waiting: dict[
            Key | Callable[[], Lists], list[_Waiting]
        ] = {}  # by what is asked, those that came first in front
        self._free = threads
        self._workers: set[asyncio.Task] = set()

    async def search(
        self, users: Sequence, domain: str, k: int, *, exclude_seen: bool = False, unknown: Unknown = "error"
    ) -> Lists:
        """As :meth:`Retriever.search`.

        Raises:
            BusyError: ``max_waiting`` requests are waiting.
        """
        return await self._ask((domain, k, exclude_seen, unknown), list(users))

    async def run(self, search: Callable[[], Lists]) -> Lists:
        """Any other search, by itself, on the same threads and in the same queue."""
        return await self._ask(search, [])

    async def _ask(self, what: Key | Callable[[], Lists], users: list) -> Lists:
        if sum(map(len, self._waiting.values())) >= self.max_waiting:
            raise BusyError(f"{self.max_waiting:,} requests are waiting already; try again in a moment")
        answer: asyncio.Future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(what, []).append((users, answer))
        if self._free:
            self._free -= 1
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)  # a task that nothing refers to may be collected
            worker.add_done_callback(self._workers.discard)
        return await answer

    async def _work(self) -> None:
        """Answers group after group, until none waits."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                key, group = self._next_group()
                answers = await loop.run_in_executor(self.pool, self._search, key, [users for users, _ in group])
                for (_, future), found in zip(group, answers, strict=True):
                    if future.done():  # the client has gone
                        continue
                    if isinstance(found, Exception):
                        future.set_exception(found)
                    else:
                        future.set_result(found)
        finally:
            self._free += 1

    def _next_group(self) -> tuple[Key | Callable[[], Lists], list[_Waiting]]:
        key = next(iter(self._waiting))
        waiting, group, size = self._waiting.pop(key), [], 0
        while waiting and (not group or size + len(waiting[0][0]) <= self.max_users):
            group.append(waiting.pop(0))
            size += len(group[-1][0])
        if waiting:  # behind what others asked
            self._waiting[key] = waiting
        return key, group

    def _search(self, what: Key | Callable[[], Lists], requests: list[list]) -> list[Lists | Exception]:
        """An answer for each request, or what it was refused with; one bad request spoils no other."""

        def one(users: list) -> Lists:
            if callable(what):
                return what()
            domain, k, exclude_seen, unknown = what
            return self.retriever.search(users, domain, k, exclude_seen=exclude_seen, unknown=unknown)

        if len(requests) > 1:
            try:
                return _split(one([u for users in requests for u in users]), requests)
            except ValueError:
                pass  # by itself, each learns whether it was the one at fault
        answers: list[Lists | Exception] = []
        for users in requests:
            try:
                answers.append(one(users))
            except Exception as error:  # goes to whoever asked
                answers.append(error)
        return answers


def _split(found: Lists, requests: list[list]) -> list[Lists | Exception]:
    row = {user: i for i, user in enumerate(found.users)}
    out: list[Lists | Exception] = []
    for users in requests:
        own = [u for u in dict.fromkeys(users) if u in row]  # unknown ones may have been left out
        rows = np.array([row[u] for u in own], dtype=np.int64)
        out.append(Lists(own, found.items[rows], found.scores[rows]))
    return out
