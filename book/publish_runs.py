"""Copy the runs of the full profile from ``runs/full`` to ``data/results/runs``, where the book takes them from.

``python -m book.publish_runs`` keeps exactly the runs that the plans ask for; it removes the others. The per-query figures are
those of recall, which is what the pages show: with all metrics they would be ten times as large.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from adi_lite.evaluation.results import Evaluation
from adi_lite.experiments.catalog import PLANS
from adi_lite.experiments.runner import keys_of, load_for
from adi_lite.experiments.store import PUBLISHED, run_id, runs_folder


def main() -> int:
    """Entry point; the exit status is 1 if a run is missing, and then nothing is removed."""
    made, published = runs_folder() / "full", PUBLISHED / "runs"
    published.mkdir(parents=True, exist_ok=True)
    wanted, missing, loaded = set(), [], {}
    for plan in PLANS.values():
        size = plan.profile("full")
        which = (size.dataset, json.dumps(size.options))
        if which not in loaded:
            loaded[which] = load_for(size)
        data = loaded[which]
        for key in keys_of(plan, "full", data):
            name = run_id(key)
            if name in wanted:
                continue
            wanted.add(name)
            if (published / f"{name}.json").is_file():
                continue
            if not (made / f"{name}.json").is_file():
                missing.append(f"{plan.name}: {name}")
                continue
            _copy(name, made, published)
    if missing:
        print(f"error: {len(missing)} runs are not there, first {missing[0]}; make them, then again", file=sys.stderr)
        return 1
    for path in published.iterdir():
        if path.name.split(".")[0] not in wanted:
            print(f"removed {path.name}: no plan asks for it")
            path.unlink()
    print(f"{len(wanted)} runs in {published}")
    return 0


def _copy(name: str, made: Path, published: Path) -> None:
    """The JSON file last, as it says that the others are there."""
    for path in made.glob(f"{name}.*.parquet"):
        found = Evaluation.load(path)
        recall = {m: v for m, v in found.metrics.items() if m.startswith("recall@")}
        replace(found, metrics=recall).save(published / path.name)
    shutil.copyfile(made / f"{name}.json", published / f"{name}.json")


if __name__ == "__main__":
    sys.exit(main())
