"""Finished runs on disk: one small JSON file and one Parquet file each, named by what was run.

A run is known by its *key*: the data set and its options, the configuration and the seed. The same key is never trained
twice, whichever table asks for it. Published runs lie in ``data/results`` of a checkout and are read only; new ones go to
``runs`` in the checkout (or where ``ADI_LITE_RUNS`` points).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from adi_lite.atomic import replacing
from adi_lite.evaluation.results import Evaluation

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "results"


def runs_folder() -> Path:
    """Where new runs go: ``ADI_LITE_RUNS``, else ``runs`` in the checkout (or, without one, in the working directory)."""
    root = PUBLISHED.parents[1]
    default = root / "runs" if (root / "pyproject.toml").is_file() else Path("runs")
    return Path(os.environ.get("ADI_LITE_RUNS") or default)


@dataclass(frozen=True)
class StoredRun:
    """What is kept of a run: ``about`` (JSON: key, seconds, parameters, epochs, metrics) and its per-query results."""

    about: dict
    evaluations: dict[str, Evaluation]  # by protocol


def run_id(key: dict) -> str:
    """A readable name and a hash of the key: equal keys, equal ids."""
    text = json.dumps(key, sort_keys=True, default=str)
    return f"{key['label']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class Store:
    """Runs of one plan.

    Args:
        folder: where new runs are written.
        published: where published runs are looked for first, or None.
    """

    def __init__(self, folder: Path, published: Path | None = None) -> None:
        self.folder, self.published = folder, published

    def find(self, key: dict) -> StoredRun | None:
        """The run with this key, or None.

        Raises:
            ValueError: a file of the run is damaged; the message names it.
        """
        name = run_id(key)
        for folder in filter(None, (self.published, self.folder)):
            path = folder / f"{name}.json"
            if not path.is_file():
                continue
            about = _read(path)
            parquet = {p: folder / f"{name}.{p}.parquet" for p in about["protocols"]}
            if about["key"] == json.loads(json.dumps(key, default=str)) and all(p.is_file() for p in parquet.values()):
                return StoredRun(about, {p: Evaluation.load(file) for p, file in parquet.items()})
        return None

    def put(self, key: dict, about: dict, evaluations: dict[str, Evaluation]) -> StoredRun:
        """Keep a run. The JSON file is written last: a run that was cut off is not found, and is done again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = run_id(key)
        for protocol, evaluation in evaluations.items():
            evaluation.save(self.folder / f"{name}.{protocol}.parquet")
        text = json.dumps({"key": key, "protocols": list(evaluations), **about}, indent=1, default=str)
        with replacing(self.folder / f"{name}.json") as partial:
            partial.write_text(text)
        return StoredRun(json.loads(text), evaluations)


def _read(path: Path) -> dict:
    try:
        about = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and the run is done again") from None
    if not isinstance(about, dict) or not {"key", "protocols"} <= set(about):
        raise ValueError(f"{path} is no stored run: it lacks its key; remove it, and the run is done again")
    return about
