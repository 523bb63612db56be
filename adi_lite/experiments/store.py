"""Finished runs on disk: one small JSON file and one Parquet file each, named by what was run.

A run is known by its *key*: the data set and its options, the configuration and the seed. The same key is never trained
twice, whichever table asks for it. Published runs lie in ``data/results`` of a checkout and are read only; new ones go to
``runs`` in the working directory (or where ``ADI_LITE_RUNS`` points).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from adi_lite.evaluation.results import Evaluation

PUBLISHED = Path(__file__).resolve().parents[2] / "data" / "results"


def runs_folder() -> Path:
    return Path(os.environ.get("ADI_LITE_RUNS", "runs"))


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
        """The run with this key, or None."""
        for folder in filter(None, (self.published, self.folder)):
            path = folder / f"{run_id(key)}.json"
            if path.is_file():
                about = json.loads(path.read_text())
                if about["key"] == json.loads(json.dumps(key, default=str)):
                    evaluations = {
                        p: Evaluation.load(folder / f"{run_id(key)}.{p}.parquet") for p in about["protocols"]
                    }
                    return StoredRun(about, evaluations)
        return None

    def put(self, key: dict, about: dict, evaluations: dict[str, Evaluation]) -> StoredRun:
        """Keep a run. The JSON file is written last: a run that was cut off is not found, and is done again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = run_id(key)
        for protocol, evaluation in evaluations.items():
            evaluation.save(self.folder / f"{name}.{protocol}.parquet")
        whole = {"key": key, "protocols": list(evaluations), **about}
        partial = self.folder / f".{name}.{os.getpid()}.part"
        partial.write_text(json.dumps(whole, indent=1, default=str))
        os.replace(partial, self.folder / f"{name}.json")
        return StoredRun(whole, evaluations)
