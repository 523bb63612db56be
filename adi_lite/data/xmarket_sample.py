"""A small drawn stand-in for the cross-market data, for machines that have neither the network nor the files.

Three markets with disjoint users and overlapping items, at a tenth of the size of Table 4, written in the format of the
real files and read by the same loader. Whoever sees a figure from it must be told: it says nothing about the real data.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.data.xmarket import load_xmarket


@dataclass(frozen=True)
class _Market:
    users: int
    items: int
    records_per_user: float


MARKETS = {"s1": _Market(640, 900, 12.0), "s2": _Market(710, 220, 7.0), "s3": _Market(330, 125, 7.0)}
"""About a tenth of the users, items and records of Table 4; some of the items are never drawn."""
CORPUS, FACTORS = 1050, 8


def load_xmarket_sample(
    markets: tuple[str, ...] = ("s1", "s2", "s3"),
    *,
    seed: int = 0,
    num_candidates: int = 100,
    validation: str | None = "leave-one-out",
    validation_seed: int = 0,
) -> MultiDomainDataset:
    """The stand-in as a data set; options as of :func:`~adi_lite.data.xmarket.load_xmarket`."""
    unknown = sorted(set(markets) - set(MARKETS))
    if unknown:
        raise ValueError(f"the sample has no market {', '.join(unknown)}; it has {', '.join(MARKETS)}")
    with TemporaryDirectory() as folder:
        write_sample(Path(folder), seed)
        data = load_xmarket(
            markets,
            seed=seed,
            num_candidates=num_candidates,
            validation=validation,
            validation_seed=validation_seed,
            root=Path(folder),
        )
    note = "Drawn stand-in, not the cross-market data: the files were out of reach."
    return data.replace(name="xmarket-sample", notes={"sample": note})


def write_sample(folder: Path, seed: int = 0) -> None:
    """Write ``train_5core.tsv`` and ``valid_qrel.tsv`` of each market below ``folder``.

    Items have latent tastes and a popularity that falls as 1/rank, in an order of each market's own; a user draws
    distinct items in proportion to exp(taste) times popularity. One drawn record of each user is her test record.
    """
    rng = np.random.default_rng([seed, 20220])
    taste = rng.normal(size=(CORPUS, FACTORS))
    for name, market in MARKETS.items():
        shown = rng.permutation(CORPUS)[: market.items]
        appeal = -np.log(np.arange(1, market.items + 1)) * 0.7
        user = rng.normal(size=(market.users, FACTORS))
        scores = (
            1.2 * user @ taste[shown].T / np.sqrt(FACTORS) * 2 + appeal + rng.gumbel(size=(market.users, market.items))
        )
        counts = np.minimum(5 + rng.poisson(market.records_per_user - 4, market.users), market.items // 2)
        order = np.argsort(-scores, axis=1)  # the largest of scores + Gumbel noise: draws without replacement
        rows = np.repeat(np.arange(market.users), counts)
        ranks = np.concatenate([np.arange(c) for c in counts])
        items = shown[order[rows, ranks]]
        held_out = np.zeros(len(rows), dtype=bool)
        held_out[np.cumsum(counts) - 1 - rng.integers(0, counts)] = True
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        _write(target / "train_5core.tsv", name, rows[~held_out], items[~held_out], "1.0")
        _write(target / "valid_qrel.tsv", name, rows[held_out], items[held_out], "1")


def _write(path: Path, market: str, users: np.ndarray, items: np.ndarray, rating: str) -> None:
    lines = [f"{market}U{u:07d}\tP{i:07d}\t{rating}" for u, i in zip(users.tolist(), items.tolist(), strict=True)]
    path.write_text("userId\titemId\trating\n" + "\n".join(lines) + "\n")
