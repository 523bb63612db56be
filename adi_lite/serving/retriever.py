"""Top-k items of a domain for known users and for new ones, from the index of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import faiss
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from adi_lite.data.encoders import Encoders
from adi_lite.data.schema import Column, Feature, Interactions, MultiDomainDataset, Ragged, Schema
from adi_lite.evaluation.retrieval import exact_topk, faiss_topk, load_faiss
from adi_lite.models.scorer import ModelScorer
from adi_lite.serving.index import (
    DATA_FILE,
    FORMAT,
    INDEX_FILE,
    ITEMS_FILE,
    USERS_FILE,
    index_file,
    model_file,
    read_column,
)
from adi_lite.training import checkpoint
from adi_lite.training.checkpoint import CheckpointError

Unknown = Literal["error", "cold", "skip"]
UNKNOWN: tuple[Unknown, ...] = ("error", "cold", "skip")


class Lists(NamedTuple):
    """Lists of n users, best item first. Where the score is -inf the list has ended, and the item means nothing."""

    users: list
    items: np.ndarray  # (n, k) ids
    scores: np.ndarray  # (n, k) float32


class Retriever:
    """Retrieves items for users, domain by domain; only items that the domain can show are returned.

    Make one with :meth:`open`. It holds the model, the indexes and the users in memory, and changes nothing, so that
    several threads can use it.

    Example::

        >>> retriever = Retriever.open("runs/shops")
        >>> retriever.retrieve(["u1", "u2"], domain="books", k=10, exclude_seen=True)
        >>> retriever.retrieve_new("books", k=10, histories=[["i7", "i9"]])
    """

    def __init__(
        self, about: dict, data: MultiDomainDataset, scorer: ModelScorer, indexes: list[faiss.Index], extra: dict
    ) -> None:
        self.about, self._data, self._scorer, self._indexes = about, data, scorer, indexes
        self._seen: Ragged = extra["seen"]
        self._trained_items: Tensor = extra["trained_items"]

    @classmethod
    def open(cls, run: str | Path) -> Retriever:
        """The retriever of a run that ``adi-lite index`` has indexed.

        Raises:
            CheckpointError: there is no index, or it is damaged or of another version.
        """
        run = Path(run)
        about = _read_about(run)
        folder = run / about["folder"]
        tensors, said = checkpoint.load(folder / DATA_FILE)
        try:
            schema = Schema.from_dict(said["schema"])
            encoders = Encoders.from_dict(said["encoders"]) if said["encoders"] else None
            data = MultiDomainDataset(
                name=said["data"],
                schema=Schema(schema.domains, schema.user, (), schema.history),  # no item is embedded here any more
                user_ids=_read_ids(folder / USERS_FILE),
                item_ids=_read_ids(folder / ITEMS_FILE),
                users={f.name: read_column(f"user.{f.name}", tensors) for f in schema.user},
                items={},
                train=Interactions.empty(),
                valid=Interactions.empty(),
                test=Interactions.empty(),
                catalogues=tuple(tensors[f"catalogue.{d}"] for d in range(schema.num_domains)),
                history=read_column("history", tensors),
                notes=said["notes"],
                encoders=encoders,
            )
            extra = {"seen": read_column("seen", tensors), "trained_items": tensors["trained_items"]}
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / DATA_FILE} is no part of an index: it lacks {error}") from None
        scorer = ModelScorer(_read_models(folder, schema.num_domains), data)
        indexes = [load_faiss(folder / index_file(d)) for d in range(schema.num_domains)]
        for index in indexes:
            if isinstance(index, faiss.IndexIVF):
                index.make_direct_map()  # now, so that no search changes the index: see _vectors
        for d, index in enumerate(indexes):
            if index.ntotal != len(data.catalogues[d]):
                raise CheckpointError(
                    f"{folder / index_file(d)} holds {index.ntotal} items, the domain {len(data.catalogues[d])}; "
                    f"index the run again"
                )
        return cls(about, data, scorer, indexes, extra)

    @property
    def domains(self) -> tuple[str, ...]:
        return self._data.domains

    @property
    def num_users(self) -> int:
        return self._data.num_users

    def num_items(self, domain: str) -> int:
        """Items that the domain can show."""
        return len(self._data.catalogues[self._domain(domain)])

    def retrieve(
        self,
        users: Sequence[str | int],
        domain: str,
        k: int = 100,
        *,
        exclude_seen: bool = False,
        unknown: Unknown = "error",
    ) -> pd.DataFrame:
        """The best ``k`` items of ``domain`` for each user, by id.

        Args:
            users: ids as in the training tables; a user who is named twice is answered once.
            domain: name of the domain.
            k: items a user; all that the domain has (and, with ``exclude_seen``, that are left) where they are fewer.
            exclude_seen: leave out what the user has taken before, in whatever domain.
            unknown: what to do with unknown users: refuse all (``error``), leave them out (``skip``), or retrieve for
                them as for somebody of whom nothing is known (``cold``).

        Returns:
            Columns user_id, rank (from 1), item_id, score (the larger, the better), sorted by user and rank.
        """
        return self._frame(self.search(users, domain, k, exclude_seen=exclude_seen, unknown=unknown))

    def search(
        self,
        users: Sequence[str | int],
        domain: str,
        k: int = 100,
        *,
        exclude_seen: bool = False,
        unknown: Unknown = "error",
    ) -> Lists:
        """As :meth:`retrieve`, without the cost of a table: for services that answer a few users at a time."""
        if unknown not in UNKNOWN:
            raise ValueError(f"unknown={unknown!r} is none of {', '.join(UNKNOWN)}")
        ids = list(dict.fromkeys(users))
        rows = [self._row_of_user.get(str(u), -1) for u in ids]
        strangers = [u for u, r in zip(ids, rows, strict=True) if r < 0]
        if strangers and unknown == "error":
            shown = ", ".join(map(repr, strangers[:5])) + (f" and {len(strangers) - 5:,} more" * (len(strangers) > 5))
            raise ValueError(
                f"{len(strangers):,} of {len(ids):,} users are unknown to the model: {shown}; "
                f"retrieve for them as new users, or choose unknown 'cold' or 'skip'"
            )
        known = torch.tensor([r for r in rows if r >= 0], dtype=torch.int64)
        d = self._domain(domain)
        parts = []
        if len(known):
            seen = self._positions(self._seen.take(known), d) if exclude_seen else None
            found = self._search(self._scorer.user_vectors(known, d), d, k, seen)
            parts.append(self._lists([u for u, r in zip(ids, rows, strict=True) if r >= 0], d, *found))
        if strangers and unknown == "cold":
            parts.append(self._lists(strangers, d, *self._search(self._new_vectors(d, len(strangers)), d, k, None)))
        if len(parts) == 2:
            of = {u: i for i, u in enumerate(parts[0].users + parts[1].users)}
            order = [of[u] for u in ids]
            return Lists(ids, *(np.concatenate([a, b])[order] for a, b in zip(parts[0][1:], parts[1][1:], strict=True)))
        return parts[0] if parts else self._lists([], d, *_nothing(k))

    def retrieve_new(
        self,
        domain: str,
        k: int = 100,
        *,
        histories: Sequence[Iterable[str | int]] | None = None,
        features: pd.DataFrame | None = None,
        exclude_seen: bool = False,
    ) -> pd.DataFrame:
        """The best ``k`` items for users who are not in the training tables.

        Args:
            domain: name of the domain.
            k: items a user.
            histories: for each user, ids of past items; items that the model has not learnt say nothing.
            features: a table such as ``users``, one row a user.
            exclude_seen: leave out the items of the history.

        Returns:
            As :meth:`retrieve`, with ``user`` (position in the input, from 0) in place of the id.
        """
        found = self.search_new(domain, k, histories=histories, features=features, exclude_seen=exclude_seen)
        return self._frame(found).rename(columns={"user_id": "user"})

    def search_new(
        self,
        domain: str,
        k: int = 100,
        *,
        histories: Sequence[Iterable[str | int]] | None = None,
        features: pd.DataFrame | None = None,
        exclude_seen: bool = False,
    ) -> Lists:
        """As :meth:`retrieve_new`, without the cost of a table; users are positions in the input, from 0."""
        sizes = {len(x) for x in (histories, features) if x is not None}
        if len(sizes) != 1:
            raise ValueError(
                "give histories, features, or both"
                if not sizes
                else f"histories and features are of {' and '.join(map(str, sorted(sizes)))} users; they must be of the same"
            )
        count, d = sizes.pop(), self._domain(domain)
        if not count:
            return self._lists([], d, *_nothing(k))
        past = None if histories is None else self._rows_of_items(histories)
        vectors = self._new_vectors(d, count, past, features)
        seen = self._positions(past, d) if exclude_seen and past is not None else None
        return self._lists(list(range(count)), d, *self._search(vectors, d, k, seen))

    @cached_property
    def _row_of_user(self) -> dict[str, int]:
        return {str(u): i for i, u in enumerate(self._data.user_ids.tolist())}

    @cached_property
    def _row_of_item(self) -> dict[str, int]:
        return {str(v): i for i, v in enumerate(self._data.item_ids.tolist())}

    def _domain(self, name: str) -> int:
        return self._data.schema.domain_index(name)

    def _rows_of_items(self, histories: Sequence[Iterable[str | int]]) -> Ragged:
        rows, offsets = [], [0]
        for past in histories:
            if isinstance(past, str):
                raise ValueError(f"a history is a list of item ids, got the text {past!r}")
            rows += [self._row_of_item[str(v)] for v in past if str(v) in self._row_of_item]
            offsets.append(len(rows))
        return Ragged(torch.tensor(rows, dtype=torch.int64), torch.tensor(offsets))

    def _new_vectors(
        self, domain: int, count: int, past: Ragged | None = None, features: pd.DataFrame | None = None
    ) -> Tensor:
        """(count, width) vectors of users who are described by what is given, and else unknown."""
        if features is not None:
            if self._data.encoders is None:
                raise ValueError(f"{self._data.name!r} knows users by their ids and histories only, not by features")
            columns = self._data.encoders.encode_users(features)
        else:
            columns = {f.name: self._blank(f, count) for f in self._data.schema.user}
        history = None
        if self._data.history is not None:
            history = Ragged(torch.empty(0, dtype=torch.int64), torch.zeros(count + 1, dtype=torch.int64))
            if past is not None:
                learnt = torch.isin(past.values, self._trained_items)
                history = Ragged.from_pairs(past.row_of_value()[learnt], past.values[learnt], count)
        data = self._data.replace(user_ids=np.arange(count), users=columns, history=history)
        return ModelScorer(self._scorer.models, data).user_vectors(torch.arange(count), domain)

    def _blank(self, feature: Feature, count: int) -> Column:
        """A column in which every value is missing."""
        rows = count * self._data.num_domains if feature.per_domain else count
        if feature.kind == "bag":
            return Ragged(torch.empty(0, dtype=torch.int64), torch.zeros(rows + 1, dtype=torch.int64))
        shape = (count, *((self._data.num_domains,) if feature.per_domain else ()))
        if feature.kind == "dense":
            return torch.zeros(*shape, feature.size)
        return torch.zeros(shape, dtype=torch.int64)

    def _positions(self, items: Ragged, domain: int) -> Ragged:
        """The same rows as positions in the domain's catalogue, without the items that it lacks."""
        catalogue = self._data.catalogues[domain]
        at = torch.searchsorted(catalogue, items.values).clamp(max=len(catalogue) - 1)
        here = catalogue[at] == items.values
        return Ragged.from_pairs(items.row_of_value()[here], at[here], len(items))

    def _search(self, vectors: Tensor, domain: int, k: int, seen: Ragged | None) -> tuple[Tensor, Tensor]:
        index = self._indexes[domain]
        k = min(k, index.ntotal) if k >= 1 else k
        scores, found = faiss_topk(index, vectors, k, seen)
        number = (found >= 0).sum(1)
        short = (number < k).nonzero().squeeze(1)
        if len(short) and seen is not None:  # no item is missing where the user has taken all the others
            short = short[number[short] < index.ntotal - _distinct_lengths(seen.take(short))]
        if len(short):  # an approximate index came back with fewer than there are: search these users exactly
            rest = None if seen is None else seen.take(short)
            scores[short], found[short] = exact_topk(vectors[short], _vectors(index), k, rest)
        return scores, found

    def _lists(self, users: list, domain: int, scores: Tensor, found: Tensor) -> Lists:
        rows = self._data.catalogues[domain].numpy()[found.numpy()]  # -1, which is no item, reads the last one
        return Lists(users, self._data.item_ids[rows], scores.masked_fill(found < 0, -torch.inf).float().numpy())

    def _frame(self, lists: Lists) -> pd.DataFrame:
        there = lists.scores > -np.inf
        users = pd.Index(lists.users if lists.users else self._data.user_ids[:0])
        rank = np.broadcast_to(np.arange(1, there.shape[1] + 1, dtype=np.int32), there.shape)
        return pd.DataFrame(
            {
                "user_id": users.repeat(there.sum(1)),
                "rank": rank[there],
                "item_id": lists.items[there],
                "score": lists.scores[there],
            }
        )


def _read_about(run: Path) -> dict:
    path = run / INDEX_FILE
    if not path.is_file():
        raise CheckpointError(f"{run} has no index: make one by adi-lite index {run}")
    try:
        about = json.loads(path.read_text())
        folder, version = about["folder"], about["format"]
        about["domains"], about["kind"]
    except (ValueError, TypeError, KeyError):
        raise CheckpointError(f"{path} is damaged; index the run again") from None
    if version != FORMAT:
        raise CheckpointError(f"{path} has format {version}, this version reads format {FORMAT}; index the run again")
    if Path(folder).name != folder or not (run / folder).is_dir():
        raise CheckpointError(f"{path} names the folder {folder!r}, which is not in {run}; index the run again")
    return about


def _read_models(folder: Path, num_domains: int) -> dict[int, torch.nn.Module]:
    models = []
    while (path := folder / model_file(len(models))).exists():
        tensors, about = checkpoint.load(path)
        models.append(checkpoint.build_from(about, tensors, path)[0])
    if len(models) not in (1, num_domains):
        raise CheckpointError(f"{folder} holds {len(models)} models for {num_domains} domains; index the run again")
    return dict(enumerate(models * num_domains if len(models) == 1 else models))


def _read_ids(path: Path) -> np.ndarray:
    try:
        return pq.read_table(path).column(0).to_numpy()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); index the run again") from None


def _distinct_lengths(lists: Ragged) -> Tensor:
    """(n,) distinct values of each row."""
    if not len(lists.values):
        return lists.lengths()
    pairs = torch.unique(torch.stack([lists.row_of_value(), lists.values]), dim=1)
    return torch.bincount(pairs[0], minlength=len(lists))


def _vectors(index: faiss.Index) -> Tensor:
    return torch.from_numpy(index.reconstruct_n(0, index.ntotal))


def _nothing(k: int) -> tuple[Tensor, Tensor]:
    return torch.empty(0, k), torch.empty(0, k, dtype=torch.int64)
