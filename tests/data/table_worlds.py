"""Small tables of a made-up business, and a slow plain reader of folders that knows the documented rules by heart."""

from __future__ import annotations

import csv
import datetime as dt
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from adi_lite.data.schema import MultiDomainDataset, Ragged

START = dt.datetime(2026, 1, 1)


def good_frames(
    seed: int = 0, users: int = 20, items: int = 14, records: int = 90, timestamps: bool = True
) -> dict[str, pd.DataFrame]:
    """Interactions of two shops with features of every kind; the last user and item have no interaction."""
    rng = np.random.default_rng(seed)
    user = [f"u{i:02d}" for i in range(users)]
    item = list(range(100, 100 + items))
    interactions = pd.DataFrame(
        {
            "user_id": [user[i] for i in rng.integers(0, users - 1, records)],
            "item_id": [item[i] for i in rng.integers(0, items - 1, records)],
            "domain": rng.choice(["shop_a", "shop_b"], records),
            "timestamp": [START + dt.timedelta(minutes=int(m)) for m in rng.permutation(10_000)[:records]],
        }
    )
    if not timestamps:
        interactions = interactions.drop(columns="timestamp")
    age = rng.normal(40, 12, users).round(3)
    age[rng.random(users) < 0.2] = np.nan
    return {
        "interactions": interactions,
        "users": pd.DataFrame(
            {
                "user_id": user,
                "age": age,
                "country": rng.choice(["de", "fr", "österreich", None], users),
                "vip": rng.random(users) < 0.3,
                "tags": [list(rng.choice(["red", "green", "blue"], rng.integers(0, 4))) for _ in user],
            }
        ),
        "items": pd.DataFrame(
            {
                "item_id": item,
                "brand": rng.integers(1, 5, items),
                "price@shop_a": rng.lognormal(size=items).round(4),
                "price@shop_b": [None if i % 3 else 2.5 + i for i in range(items)],
                "domains": [["shop_a"] if i % 2 else ["shop_a", "shop_b"] for i in range(items)],
            }
        ),
    }


def write_folder(folder: Path, frames: dict[str, pd.DataFrame], form: str) -> Path:
    """Write each frame as ``<name>.<form>``; lists become text in CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        write_table(folder / f"{name}.{form}", frame)
    return folder


def write_table(path: Path, frame: pd.DataFrame) -> None:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.map(lambda v: "|".join(map(str, v)) if isinstance(v, list | np.ndarray) else v).to_csv(path, index=False)


class Recount:
    """What a folder without ``schema.yaml`` must load to, read row by row with plain Python."""

    def __init__(self, folder: Path, valid: float = 0.1, test: float = 0.1) -> None:
        tables = {stem: _rows(folder, stem) for stem in ("interactions", "users", "items")}
        self.types = {stem: _types(folder / f"{stem}.parquet") for stem in tables}
        self.tables = tables
        self.records = [
            (str(r["user_id"]), str(r["item_id"]), str(r["domain"]), _seconds(r.get("timestamp")))
            for r in tables["interactions"]
        ]
        self.timed = bool(self.records) and "timestamp" in tables["interactions"][0]
        self.domains = sorted({r[2] for r in self.records})
        if self.timed:
            times, n = sorted(r[3] for r in self.records), len(self.records)
            test_from, valid_from = (times[int(n * share + 1e-9)] for share in (1 - test, 1 - valid - test))
            self.parts = {
                "train": [r for r in self.records if r[3] < valid_from],
                "valid": [r for r in self.records if valid_from <= r[3] < test_from],
                "test": [r for r in self.records if r[3] >= test_from],
            }
        self.ids = {
            side: {r[column] for r in self.records} | {str(r[f"{side}_id"]) for r in tables[f"{side}s"] or ()}
            for side, column in (("user", 0), ("item", 1))
        }

    def check(self, data: MultiDomainDataset) -> None:
        """Compare all of the data set with the rules."""
        user, item = data.user_ids.astype(str), data.item_ids.astype(str)
        assert set(user) == self.ids["user"] and len(user) == len(self.ids["user"])
        assert set(item) == self.ids["item"] and len(item) == len(self.ids["item"])
        assert list(data.domains) == self.domains
        loaded = {}
        for part in ("train", "valid", "test"):
            records = data.split(part)
            when = records.timestamp.tolist() if self.timed else [None] * len(records)
            names = ((user, records.user), (item, records.item), (np.array(data.domains), records.domain))
            columns = *(ids[rows.numpy()] for ids, rows in names), when
            loaded[part] = [(str(u), str(i), str(d), t) for u, i, d, t in zip(*columns, strict=True)]
            if self.timed:
                assert loaded[part] == self.parts[part]
        assert Counter(r for part in loaded.values() for r in part) == Counter(self.records)
        known = {"user": {r[0] for r in loaded["train"]}, "item": {r[1] for r in loaded["train"]}}
        for d, domain in enumerate(self.domains):
            shown = {r[1] for r in loaded["train"] if r[2] == domain}
            shown |= {str(r["item_id"]) for r in self.tables["items"] or () if domain in self._listed(r)}
            assert set(item[data.catalogues[d]]) == shown
        for side, ids in (("user", user), ("item", item)):
            assert set(ids[: len(known[side])]) == known[side]
            columns = data.users if side == "user" else data.items
            assert columns[f"{side}_id"].tolist() == [i + 1 if i < len(known[side]) else 0 for i in range(len(ids))]
            self._check_features(side, ids, known[side], data)

    def _listed(self, row: dict) -> list:
        if "domain" in row:
            return [str(row["domain"])]
        cell = row.get("domains")
        if cell is None or cell == "":
            return []
        return [str(d) for d in (cell.split("|") if isinstance(cell, str) else cell)]

    def _check_features(self, side: str, ids: np.ndarray, known: set[str], data: MultiDomainDataset) -> None:
        table = self.tables[f"{side}s"]
        kinds = _infer(
            table or [],
            self.types[f"{side}s"],
            {f"{side}_id", "domain", "history" if side == "user" else "domains", ""},
        )
        features = {f.name: f for f in getattr(data.schema, side) if f.name != f"{side}_id"}
        assert {n: (f.kind, f.per_domain) for n, f in features.items()} == kinds
        encoder, columns = getattr(data.encoders, side), data.users if side == "user" else data.items
        row_of = {str(r[f"{side}_id"]): r for r in table or ()}
        for name, (kind, per_domain) in kinds.items():
            cells = {
                (i, d): row_of.get(i, {}).get(f"{name}@{domain}" if per_domain else name)
                for i in ids
                for d, domain in enumerate(self.domains if per_domain else ("",))
            }
            got = self._got(columns[name], ids, kind, per_domain)
            if kind == "dense":
                self._check_dense(cells, got, known, features[name].size)
                continue
            words = {k: _words(c, kind) for k, c in cells.items()}
            seen = {w for (i, _), ws in words.items() if i in known for w in ws}
            vocabulary = ["", *encoder.vocabularies[name]]
            assert vocabulary[1:] == sorted(seen)
            for key, ws in words.items():
                want = [w if w in seen else "" for w in ws] or ([] if kind == "bag" else [""])
                assert [vocabulary[code] for code in got[key]] == want, (name, key)

    def _got(self, column, ids: np.ndarray, kind: str, per_domain: bool) -> dict:
        width = len(self.domains) if per_domain else 1
        if isinstance(column, Ragged):
            return {(i, d): column.row(r * width + d).tolist() for r, i in enumerate(ids) for d in range(width)}
        values = column.reshape(len(ids), width, -1).tolist()
        return {(i, d): values[r][d] for r, i in enumerate(ids) for d in range(width)}

    def _check_dense(self, cells: dict, got: dict, known: set[str], size: int) -> None:
        numbers = {k: None if _is_missing(c) else float(c) for k, c in cells.items()}
        train = [v for (i, _), v in numbers.items() if i in known]
        present = [v for v in train if v is not None]
        assert size == 1 + (None in train)
        mean = math.fsum(present) / len(present) if present else 0.0
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in present) / len(present)) if present else 1.0
        std = std if std > 1e-9 * abs(mean) else 1.0
        for key, value in numbers.items():
            want = 0.0 if value is None else max(-1e6, min(1e6, (value - mean) / std))
            assert math.isclose(got[key][0], want, rel_tol=1e-4, abs_tol=1e-4), (key, value)
            assert got[key][1:] == [float(value is None)] * (size - 1)


def _rows(folder: Path, stem: str) -> list[dict] | None:
    if (path := folder / f"{stem}.csv").exists():
        with path.open(encoding="utf-8-sig", newline="") as lines:
            return [{k: None if v == "" else v for k, v in row.items()} for row in csv.DictReader(lines)]
    if (path := folder / f"{stem}.parquet").exists():
        return pq.read_table(path).to_pylist()
    return None


def _types(path: Path) -> dict[str, str] | None:
    return {f.name: str(f.type) for f in pq.read_schema(path)} if path.exists() else None


def _seconds(moment) -> int | None:
    if moment is None:
        return None
    if isinstance(moment, str):
        try:
            return math.floor(float(moment)) if "." in moment or "e" in moment.lower() else int(moment)
        except ValueError:
            moment = dt.datetime.fromisoformat(moment)
    if isinstance(moment, dt.datetime):
        moment = moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
        return (moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(seconds=1)
    if isinstance(moment, dt.date):
        return (moment - dt.date(1970, 1, 1)).days * 86_400
    return math.floor(moment)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_missing(cell) -> bool:
    if isinstance(cell, str):
        return cell.strip().lower() in ("", "nan", "na", "n/a", "<na>", "null", "none")
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _infer(table: list[dict], types: dict[str, str] | None, reserved: set[str]) -> dict[str, tuple[str, bool]]:
    columns = {name: [r[name] for r in table] for name in (table[0] if table else {}) if name not in reserved}
    found: dict[str, tuple[str, bool]] = {}
    for column, cells in columns.items():
        name, per_domain = column.rsplit("@", 1)[0], "@" in column
        kind = _kind_of_text(cells) if types is None else _kind_of_type(types[column])
        if kind is not None:
            kind = "dense" if found.get(name, ("",))[0] == "dense" else kind
            found[name] = (kind, per_domain)
    return found


def _kind_of_text(cells: list) -> str | None:
    texts = [c for c in cells if c is not None and not _is_missing(c)]
    if not texts or all(_is_date(t) for t in texts):
        return None
    numbers = [t for t in texts if _is_number(t)]
    if any(not t.strip().lstrip("+-").isdigit() for t in numbers) and len(numbers) == len(texts):
        return "dense"
    return "bag" if any("|" in t for t in texts) else "categorical"


def _is_date(text: str) -> bool:
    try:
        dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return "-" in text and "W" not in text


def _kind_of_type(kind: str) -> str | None:
    """The kind of a column from the printed form of its Arrow type."""
    if kind.startswith("dictionary<values="):
        kind = kind.removeprefix("dictionary<values=").split(",")[0]
    inner = kind.split(": ")[1].removesuffix(">") if kind.startswith("list<") else kind
    if inner.startswith(("double", "float", "halffloat", "decimal")):
        return "dense"
    if inner.startswith(("string", "large_string", "int", "uint", "bool")):
        return "bag" if kind.startswith("list<") else "categorical"
    return None


def _words(cell, kind: str) -> list[str]:
    if cell is None:
        return []
    if kind == "bag":
        return [str(w) for w in (cell.split("|") if isinstance(cell, str) else cell) if w is not None and w != ""]
    return [str(cell)] if cell != "" else []
