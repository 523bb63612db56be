"""A simulated log as Parquet files, written block by block: the memory holds the items and one block of users."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from adi_lite.data.schema import Feature, Ragged
from adi_lite.data.simulation.columns import describe_features, item_columns, make_schema, user_columns
from adi_lite.data.simulation.config import SimulatorConfig
from adi_lite.data.simulation.dataset import valid_start
from adi_lite.data.simulation.past import sum_past
from adi_lite.data.simulation.utility import Records, RecordSampler
from adi_lite.data.simulation.world import build_world, draw_users, num_blocks

SPLITS = {"train": 1, "valid": 1, "test": 2}
"""The day of each split."""


def simulate_to_parquet(
    config: SimulatorConfig, seed: int, folder: str | Path, *, replicate: int = 0, join_features: bool = True
) -> Path:
    """Write the data set of :func:`simulate` to ``folder``; the same arguments give the same bytes.

    ``train/``, ``valid/`` and ``test/`` hold the records, a file for each block of users, each sorted by time: user,
    item, domain, timestamp, and with ``join_features`` every feature of the user and of the item as the record's domain
    reads it. ``users/`` and ``items.parquet`` hold the features once for each user and item; ``<feature>_<domain>``
    there is the value in one domain. Codes count from 1. ``simulation.json`` has the parameters and the schema. The
    memory needed grows with ``block_records`` and with the number of items, not with users or records.

    Returns:
        ``folder``.

    Raises:
        FileExistsError: ``folder`` holds something already.
        ValueError: so few items that a domain has none.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not an empty folder: remove it or name another one")
    for name in (*SPLITS, "users"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    world = build_world(config, seed)
    past = sum_past(world)
    sampler = RecordSampler(world, past, replicate)
    items = _side(item_columns(world, past), config, "item")
    pq.write_table(_table({"item": np.arange(config.items)} | _spread(items, config)), folder / "items.parquet")
    for index in range(num_blocks(config)):
        block = draw_users(world, index)
        users = _side(user_columns(world, block), config, "user")
        name = f"part-{index:05d}.parquet"
        who = {"user": np.arange(block.start, block.start + len(block))}
        pq.write_table(_table(who | _spread(users, config)), folder / "users" / name)
        days = sampler.draw(block, index)
        for split, day in SPLITS.items():
            part = _split(days[day], split, config)
            columns = {k: getattr(part, k) for k in ("user", "item", "domain", "timestamp")}
            if join_features:
                columns |= _joined(users, part.user - block.start, part.domain, config)
                columns |= _joined(items, part.item, part.domain, config)
                columns.pop("item_id")
            pq.write_table(_table(columns), folder / split / name)
    about = {"seed": seed, "replicate": replicate, "config": asdict(config), "schema": make_schema(config).to_dict()}
    (folder / "simulation.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return folder


def _split(records: Records, split: str, config: SimulatorConfig) -> Records:
    cut = int(np.searchsorted(records.timestamp, valid_start(config)))
    part = {"train": slice(0, cut), "valid": slice(cut, None), "test": slice(None)}[split]
    return Records(*(c[part] for c in vars(records).values()))


def _side(columns: dict, config: SimulatorConfig, side: str) -> list[tuple[Feature, torch.Tensor | Ragged]]:
    """Each feature with its column, in the smallest integers that Parquet tells apart."""
    small = []
    for feature, _, _ in describe_features(config, side):
        column = columns[feature.name]
        whole = torch.int16 if feature.size < 2**15 else torch.int32
        if isinstance(column, Ragged):
            column = Ragged(column.values.to(whole), column.offsets)
        elif feature.kind == "categorical":
            column = column.to(whole)
        else:
            column = column.squeeze(-1)
        small.append((feature, column))
    return small


def _joined(
    side: list[tuple[Feature, torch.Tensor | Ragged]], rows: np.ndarray, domain: np.ndarray, config: SimulatorConfig
) -> dict:
    """Columns for records: the value of each row, in the record's domain where there is one a domain."""
    row, where = torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(domain.astype(np.int64))
    columns = {}
    for feature, column in side:
        if isinstance(column, Ragged):
            columns[feature.name] = column.take(row * config.num_domains + where if feature.per_domain else row)
        else:
            columns[feature.name] = column[row, where] if feature.per_domain else column[row]
    return columns


def _spread(side: list[tuple[Feature, torch.Tensor | Ragged]], config: SimulatorConfig) -> dict:
    """Columns for users or items: a per-domain feature becomes one column for each domain."""
    columns = {}
    for feature, column in side:
        if not feature.per_domain:
            columns[feature.name] = column
            continue
        for d, domain in enumerate(config.domains):
            rows = torch.arange(d, len(column), config.num_domains) if isinstance(column, Ragged) else None
            columns[f"{feature.name}_{domain}"] = column[:, d] if rows is None else column.take(rows)
    return columns


def _table(columns: dict) -> pa.Table:
    return pa.table({name: _array(column) for name, column in columns.items()})


def _array(column: np.ndarray | torch.Tensor | Ragged) -> pa.Array:
    if isinstance(column, Ragged):
        return pa.ListArray.from_arrays(pa.array(column.offsets.numpy().astype(np.int32)), column.values.numpy())
    return pa.array(column if isinstance(column, np.ndarray) else column.contiguous().numpy())
