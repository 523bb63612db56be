"""A small HTTP service over a run that ``adi-lite index`` has indexed: ``python examples/serve.py RUN --port 8000``.

::

    curl localhost:8000/health
    curl localhost:8000/retrieve -H 'Content-Type: application/json' \\
        -d '{"domain": "books", "users": ["u1", "u2"], "k": 10, "exclude_seen": true}'
    curl localhost:8000/retrieve/new -H 'Content-Type: application/json' \\
        -d '{"domain": "books", "histories": [["i7", "i9"]], "k": 10}'

Both answer ``{"domain": ..., "lists": [{"user": ..., "items": [...], "scores": [...]}]}``, best item first, and
``/docs`` describes them. What cannot be answered is refused as ``{"detail": sentence}``: 404 for a domain that there is
not, 413 for too large a body, 422 for everything else that the request got wrong, 503 when too many are waiting.

One process holds one copy of the indexes. Searches run beside each other in a thread for each core, since faiss and
PyTorch let go of Python's lock, each search on one thread: threads within a search would only fight over the same cores.
Requests that wait for a thread are searched together.
There is no authentication and no encryption: put the service behind a proxy that has both.
"""

import argparse
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import pandas as pd
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adi_lite import __version__
from adi_lite.serving.batching import BatchingRetriever, BusyError
from adi_lite.serving.retriever import Lists, Retriever, Unknown

MAX_HISTORY, MAX_ID, MAX_FEATURES = 1000, 256, 256

Id = Annotated[str, StringConstraints(max_length=MAX_ID)] | Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Value = str | int | float | bool | list[str | int | float] | None
Row = Annotated[dict[str, Value], Field(max_length=MAX_FEATURES)]


class Health(BaseModel):
    """The service is up, and what it serves."""

    ok: bool
    model: str
    version: str
    users: int
    domains: list[str]
    items: dict[str, int]


class UserList(BaseModel):
    """The items of one user, best first."""

    user: str | int
    items: list[str | int]
    scores: list[float]


class Answer(BaseModel):
    """A list for each user of the request."""

    domain: str
    lists: list[UserList]


class Refusal(BaseModel):
    """What was wrong with a request."""

    detail: str


class Question(BaseModel):
    """Unknown fields are refused, so that a misspelt option is not silently ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    domain: str


def create_app(
    run: Path,
    *,
    max_k: int = 1000,
    max_users: int = 256,
    max_body: int = 2**22,
    max_waiting: int = 1000,
    threads: int | None = None,
) -> FastAPI:
    """The service of one run.

    Args:
        run: folder of a run with an index.
        max_k: most items that a user may be given.
        max_users: most users of a request.
        max_body: most bytes of a request.
        max_waiting: requests that may wait for a search; more are refused at once.
        threads: searches at a time, by default one for each core.

    Raises:
        CheckpointError: the run has no index, or one that cannot be read.
    """
    retriever = Retriever.open(run)
    batching = BatchingRetriever(
        retriever, threads=threads or os.cpu_count() or 1, max_users=max_users, max_waiting=max_waiting
    )
    health = Health(
        ok=True,
        model=retriever.about["model"],
        version=__version__,
        users=retriever.num_users,
        domains=list(retriever.domains),
        items={d: retriever.num_items(d) for d in retriever.domains},
    )

    class Known(Question):
        """Users by their ids. A user who is named twice is answered once."""

        users: list[Id] = Field(min_length=1, max_length=max_users)
        k: int = Field(100, ge=1, le=max_k)
        exclude_seen: bool = False
        unknown: Unknown = "error"

    class New(Question):
        """Users by past items, by a row of features such as in the table of users, or by both."""

        histories: list[Annotated[list[Id], Field(max_length=MAX_HISTORY)]] | None = Field(
            None, min_length=1, max_length=max_users
        )
        features: list[Row] | None = Field(None, min_length=1, max_length=max_users)
        k: int = Field(100, ge=1, le=max_k)
        exclude_seen: bool = False

    async def answer(domain: str, search: Callable[[], Awaitable[Lists]]) -> JSONResponse:
        if domain not in health.items:
            raise HTTPException(404, f"unknown domain {domain!r}; the domains are {', '.join(health.domains)}")
        try:
            found = await search()
        except ValueError as error:  # the retriever says what it cannot answer
            raise HTTPException(422, str(error)) from None
        except BusyError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
        return JSONResponse({"domain": domain, "lists": _lists(found)})

    app = FastAPI(title="ADI-lite retrieval", version=__version__)
    app.add_middleware(BodyLimit, max_bytes=max_body)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)
    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in (404, 413, 422, 503)}

    @app.get("/health")
    async def get_health() -> Health:
        return health

    @app.post("/retrieve", response_model=Answer, responses=refusals)
    async def retrieve(asked: Known) -> JSONResponse:
        """The best items of a domain for users who are in the training tables."""
        options = {"exclude_seen": asked.exclude_seen, "unknown": asked.unknown}
        return await answer(asked.domain, partial(batching.search, asked.users, asked.domain, asked.k, **options))

    @app.post("/retrieve/new", response_model=Answer, responses=refusals)
    async def retrieve_new(asked: New) -> JSONResponse:
        """The best items of a domain for users who are not; ``user`` is the position in the request, from 0."""

        def search() -> Lists:
            table = None if asked.features is None else pd.DataFrame(asked.features)
            given = {"histories": asked.histories, "features": table, "exclude_seen": asked.exclude_seen}
            return retriever.search_new(asked.domain, asked.k, **given)

        return await answer(asked.domain, partial(batching.run, search))

    return app


class BodyLimit:
    """Refuses requests of more than ``max_bytes``, having read no more than that of them."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        body, message = b"", {"more_body": True}
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return None
            body += message.get("body", b"")
            if len(body) > self.max_bytes:
                refusal = JSONResponse({"detail": f"the body is larger than {self.max_bytes:,} bytes"}, 413)
                return await refusal(scope, receive, send)
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return await self.app(scope, replay, send)


def _lists(found: Lists) -> list[dict[str, object]]:
    lengths = (found.scores > -np.inf).sum(1)
    rows = zip(found.users, found.items, found.scores, lengths, strict=True)
    return [{"user": u, "items": items[:n].tolist(), "scores": scores[:n].tolist()} for u, items, scores, n in rows]


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """The first things that were wrong, without the input: it may be large, and it is the client's already."""
    said = [f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors()]
    more = [f"and {len(said) - 5:,} more"] if len(said) > 5 else []
    return JSONResponse({"detail": "; ".join(said[:5] + more)}, 422)


def _failed(request: Request, error: Exception) -> JSONResponse:
    """The traceback goes to the log, never to the client."""
    return JSONResponse({"detail": "the service failed to answer; its log says why"}, 500)


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="Serve top-k retrieval from an indexed run.")
    parser.add_argument("run", type=Path, help="folder of a run, after adi-lite index")
    parser.add_argument("--host", default="127.0.0.1", help="default %(default)s: this machine only")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="searches at a time (default %(default)s)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        app = create_app(args.run, threads=args.threads)
    except ValueError as error:
        parser.error(str(error))
    sys.setswitchinterval(5e-4)  # a search hands Python back to the network sooner than after the usual 5 ms
    gc.collect()
    gc.freeze()  # what is loaded now stays: full collections need not walk through it, which would stall all requests
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
