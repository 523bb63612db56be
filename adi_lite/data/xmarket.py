"""The paper's public data: WSDM Cup 2022, cross-market recommendation (Section 5.1.1). A domain is a market."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from adi_lite.data.candidates import draw_candidates, leave_one_out
from adi_lite.data.download import DataFileError
from adi_lite.data.schema import Candidates, Feature, Interactions, MultiDomainDataset, Ragged, Schema
from adi_lite.data.xmarket_files import QREL, RUN, TRAIN, MarketFiles, read_market

Validation = Literal["leave-one-out"] | None


@dataclass(frozen=True)
class _Market:
    """One market in row numbers: of the whole data set's users, and of this market's own catalogue for items."""

    name: str
    domain: int
    catalogue: np.ndarray  # (c,) rows of items, sorted
    user: np.ndarray  # (n,) of the training records
    item: np.ndarray  # (n,) places in the catalogue
    held_out: np.ndarray  # (n,) bool: the validation records among them
    test_user: np.ndarray
    test_item: np.ndarray


def load_xmarket(
    markets: Sequence[str] = ("s1", "s2", "s3"),
    *,
    seed: int = 0,
    num_candidates: int = 100,
    validation: Validation = "leave-one-out",
    validation_seed: int = 0,
    root: str | Path | None = None,
) -> MultiDomainDataset:
    """Load markets of the cross-market data as domains, in the order given.

    Training records are those of ``train_5core.tsv``, every one a positive; test records are those of
    ``valid_qrel.tsv``; test candidates are the official ones of ``valid_run.tsv`` where that file exists and has lists
    of ``num_candidates``, else drawn again by the same protocol: :func:`~adi_lite.data.candidates.draw_candidates`.

    The catalogue of a market is every item that its training, test or official candidate file names: the official lists
    hold items that training never saw, as positives and as negatives, so leaving them out would make some positives
    impossible, and leaving them out of the negatives alone would give the positives away.

    Validation takes one random training record of each user with at least three, with candidates drawn by the same
    protocol from the records that remain; it knows nothing of the test records. ``history`` holds remaining training
    records only.

    Args:
        markets: names of markets, e.g. ``("s1", "t1")``, or one string with commas.
        seed: of the test candidates that are drawn.
        num_candidates: length of each list, the positive included.
        validation: "leave-one-out", or None to keep all records in ``train`` and leave ``valid`` empty.
        validation_seed: of the choice of validation records and of their candidates.
        root: folder of own files, ``root/<market>/train_5core.tsv`` and so on, in place of the published ones.

    Raises:
        DataFileError: (a ValueError) an unknown market, or a missing, altered or wrongly shaped file.
        ValueError: an option that makes no sense, or too few items to draw candidates from.
    """
    names = tuple(markets.split(",")) if isinstance(markets, str) else tuple(markets)
    _check_options(names, num_candidates, validation)
    files = [read_market(name, None if root is None else Path(root)) for name in names]
    for name, market in zip(names, files, strict=True):
        _check_run(name, market)
    user_ids, user_rows, known_users = _users(names, files)
    item_ids = np.unique(np.concatenate([_market_items(f) for f in files]))
    parts = [
        _to_rows(name, d, f, user_rows[d], item_ids, validation, validation_seed)
        for d, (name, f) in enumerate(zip(names, files, strict=True))
    ]
    train = Interactions.concat([_records(m.user, m.item, m, ~m.held_out) for m in parts])
    valid = Interactions.concat([_records(m.user, m.item, m, m.held_out) for m in parts])
    test = Interactions.concat([_records(m.test_user, m.test_item, m) for m in parts])
    candidates = {
        "test": _join(
            parts,
            [
                _test_lists(m, f, user_rows[m.domain], item_ids, num_candidates, seed)
                for m, f in zip(parts, files, strict=True)
            ],
        )
    }
    if len(valid):
        candidates["valid"] = _join(parts, [_valid_lists(m, num_candidates, validation_seed) for m in parts])
    num_users, num_items = len(user_ids), len(item_ids)
    codes = torch.arange(1, num_users + 1)
    codes[known_users:] = 0  # no training record: unknown to any model
    return MultiDomainDataset(
        name="xmarket-" + "-".join(names),
        schema=Schema(
            domains=names,
            user=(Feature("user_id", "categorical", known_users + 1, group="User Features"),),
            item=(Feature("item_id", "categorical", num_items + 1, group="Item Features"),),
            history=True,
        ),
        user_ids=user_ids,
        item_ids=item_ids,
        users={"user_id": codes},
        items={"item_id": torch.arange(1, num_items + 1)},
        train=train,
        valid=valid,
        test=test,
        catalogues=tuple(torch.from_numpy(m.catalogue) for m in parts),
        candidates=candidates,
        history=Ragged.from_pairs(train.user, train.item, num_users),
        notes=_notes(parts, files, candidates, known_users, num_users, validation_seed),
    )


def _check_options(names: tuple[str, ...], num_candidates: int, validation: Validation) -> None:
    if not names or not all(names):
        raise ValueError("name at least one market, for example markets=('s1', 's2', 's3')")
    if len(set(names)) < len(names):
        raise ValueError(f"markets must differ, got {', '.join(names)}")
    if bad := [n for n in names if Path(n).name != n or n in (".", "..")]:
        raise ValueError(f"a market's name is one folder, without a path: {bad[0]!r}")
    if num_candidates < 2:
        raise ValueError(f"num_candidates must be at least 2 (a positive and a negative), got {num_candidates}")
    if validation not in ("leave-one-out", None):
        raise ValueError(f"unknown validation {validation!r}; known are 'leave-one-out' and None")


def _check_run(name: str, files: MarketFiles) -> None:
    """Official lists must hold every test item of their users."""
    if files.run is None:
        return
    users, items = files.run
    row = pd.Index(users).get_indexer(files.test["userId"])
    listed = row >= 0
    found = (items[row] == files.test["itemId"].to_numpy()[:, None]).any(1)
    if (bad := listed & ~found).any():
        user, item = files.test.iloc[int(bad.argmax())][["userId", "itemId"]]
        raise DataFileError(
            f"market {name}: {RUN}, line {row[bad.argmax()] + 1}: "
            f"the candidates of user {user} lack the test item {item} of {QREL}"
        )


def _market_items(files: MarketFiles) -> np.ndarray:
    """(c,) sorted ids of every item that the market's files name."""
    parts = [files.train["itemId"].unique(), files.test["itemId"].unique()]
    if files.run is not None:
        parts.append(files.run[1].ravel())
    return np.unique(np.concatenate([np.asarray(p, dtype=str) for p in parts]))


def _users(names: tuple[str, ...], files: list[MarketFiles]) -> tuple[np.ndarray, list[pd.Series], int]:
    """Rows for users: those with training records first, market by market, then those of the test files only.

    A user belongs to one market. Where two markets use the same id, the id of either gets its market's name in front.

    Returns:
        ids (n,), for each market a series from its own id to the row, and the number of users with training records.
    """
    train = [np.unique(f.train["userId"].to_numpy().astype(str)) for f in files]
    extra = [np.setdiff1d(f.test["userId"].to_numpy().astype(str), t) for f, t in zip(files, train, strict=True)]
    blocks = [*train, *extra]
    everyone = pd.Series(np.concatenate(blocks))
    market = np.repeat(np.array([*names, *names]), [len(b) for b in blocks])
    shared = everyone.duplicated(keep=False).to_numpy()
    ids = np.where(shared, pd.Series(market) + ":" + everyone, everyone).astype(str)
    rows = [pd.Series(np.flatnonzero(market == n), index=everyone[market == n]) for n in names]
    return ids, rows, sum(len(t) for t in train)


def _to_rows(
    name: str,
    domain: int,
    files: MarketFiles,
    user_rows: pd.Series,
    item_ids: np.ndarray,
    validation: Validation,
    seed: int,
) -> _Market:
    ids = _market_items(files)
    index = pd.Index(ids)
    user = user_rows.reindex(files.train["userId"]).to_numpy()
    item = index.get_indexer(files.train["itemId"])
    held_out = leave_one_out(user, item, _rng(name, seed, 0)) if validation else np.zeros(len(user), dtype=bool)
    return _Market(
        name=name,
        domain=domain,
        catalogue=np.searchsorted(item_ids, ids),
        user=user,
        item=item,
        held_out=held_out,
        test_user=user_rows.reindex(files.test["userId"]).to_numpy(),
        test_item=index.get_indexer(files.test["itemId"]),
    )


def _rng(market: str, seed: int, purpose: int) -> np.random.Generator:
    """A stream of its own for each market and purpose: a market's draw does not depend on the other markets."""
    return np.random.default_rng([seed, zlib.crc32(market.encode()), purpose])


def _records(
    user: np.ndarray, item: np.ndarray, market: _Market, keep: np.ndarray | slice = slice(None)
) -> Interactions:
    user, item = user[keep], market.catalogue[item[keep]]
    return Interactions(torch.tensor(user), torch.tensor(item), torch.full((len(user),), market.domain))


Lists = tuple[np.ndarray, np.ndarray, str]  # users (q,), items (q, c), source


def _test_lists(
    market: _Market, files: MarketFiles, user_rows: pd.Series, item_ids: np.ndarray, num_candidates: int, seed: int
) -> Lists:
    if files.run is not None and files.run[1].shape[1] == num_candidates:
        users, items = files.run
        users = user_rows.reindex(users)
        asked = np.isin(users, market.test_user)  # a list without a test item asks nothing
        return users[asked].to_numpy().astype(np.int64), np.searchsorted(item_ids, items[asked]), "official"
    lists = _draw(
        market,
        market.test_user,
        market.test_item,
        np.ones(len(market.user), dtype=bool),
        num_candidates,
        _rng(market.name, seed, 1),
    )
    return market.test_user, lists, f"drawn, seed {seed}"


def _valid_lists(market: _Market, num_candidates: int, seed: int) -> Lists:
    user, item = market.user[market.held_out], market.item[market.held_out]
    lists = _draw(market, user, item, ~market.held_out, num_candidates, _rng(market.name, seed, 2))
    return user, lists, f"drawn, seed {seed}"


def _draw(
    market: _Market,
    user: np.ndarray,
    item: np.ndarray,
    known: np.ndarray,
    num_candidates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(q, c) rows of items: lists for the positives ``item``, without what ``user`` has in the ``known`` records.

    A user with several positives has a list for each, and none of them holds another of the positives.
    """
    seen_user = np.concatenate([market.user[known], user])
    seen_item = np.concatenate([market.item[known], item])
    query, seen = _pairs(user, seen_user)
    try:
        lists = draw_candidates(item, query, seen_item[seen], len(market.catalogue), num_candidates, rng)
    except ValueError as error:
        raise ValueError(f"market {market.name}: {error}") from None
    return market.catalogue[lists]


def _pairs(queries: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All (query number, record number) whose users are equal."""
    pairs = pd.DataFrame({"user": queries, "query": np.arange(len(queries))}).merge(
        pd.DataFrame({"user": users, "record": np.arange(len(users))}), on="user"
    )
    return pairs["query"].to_numpy(), pairs["record"].to_numpy()


def _join(parts: list[_Market], lists: list[Lists]) -> Candidates:
    return Candidates(
        user=torch.from_numpy(np.concatenate([users for users, _, _ in lists])),
        domain=torch.repeat_interleave(
            torch.tensor([m.domain for m in parts]), torch.tensor([len(users) for users, _, _ in lists])
        ),
        items=torch.from_numpy(np.concatenate([items for _, items, _ in lists])),
        source="; ".join(f"{m.name}: {source}" for m, (_, _, source) in zip(parts, lists, strict=True)),
    )


def _notes(
    parts: list[_Market],
    files: list[MarketFiles],
    candidates: dict[str, Candidates],
    known_users: int,
    num_users: int,
    validation_seed: int,
) -> dict[str, str]:
    """What a reader of a table should know about how the data set came to be."""
    each = list(zip(parts, files, strict=True))
    notes = {
        "files": "; ".join(f"{m.name}: {f.check}" for m, f in each),
        "ratings": "; ".join(f"{m.name}: {_ratings(f.train['rating'])}" for m, f in each)
        + "; every record is a positive",
        "catalogue": "; ".join(f"{m.name}: {_catalogue(m)}" for m in parts),
        "test candidates": candidates["test"].source,
    }
    if "valid" in candidates:
        users = sum(int(m.held_out.sum()) for m in parts)
        notes["validation"] = (
            f"{users:,} records, one of each user with 3 or more training records, at random (seed {validation_seed}), "
            "never one that occurs twice"
        )
        notes["validation candidates"] = candidates["valid"].source
    if num_users > known_users:
        notes["unknown users"] = (
            f"{num_users - known_users:,} test users have no training record: code 0, empty history"
        )
    without = sum(int((~np.isin(m.test_user, candidates["test"].user.numpy())).sum()) for m in parts)
    if without:
        notes["without candidates"] = f"{without:,} test records have no official candidate list"
    return notes


def _ratings(rating: pd.Series) -> str:
    counts = rating.value_counts().sort_index(ascending=False)
    if len(counts) > 10:
        return f"{len(counts)} values, {rating.min():g}…{rating.max():g}"
    return ", ".join(f"{value:g} ({n:,})" for value, n in counts.items())


def _catalogue(market: _Market) -> str:
    cold = len(market.catalogue) - len(np.unique(market.item))
    positives = int((~np.isin(market.test_item, market.item)).sum())
    return f"{len(market.catalogue):,} items, {cold:,} not in {TRAIN} (positives of {positives:,} test records)"
