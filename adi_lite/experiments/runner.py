"""Runs a plan: every line, every seed, each run once, and gives the results as a table's worth of evaluations."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from adi_lite.data.download import OutOfReachError
from adi_lite.data.fingerprint import fingerprint, records_fingerprint
from adi_lite.data.registry import load_dataset, options_of
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.evaluation.results import Evaluation
from adi_lite.experiments.named import named_config, reference_settings
from adi_lite.experiments.plans import Plan, Profile, Row
from adi_lite.experiments.references import build_reference
from adi_lite.experiments.store import PUBLISHED, Store, StoredRun, runs_folder
from adi_lite.training.config import Config
from adi_lite.training.trainer import fit

Report = Callable[[str], None]
"""Called with a line of text as a plan goes on."""


class MissingRunsError(LookupError):
    """Runs of a plan are not stored, and were not to be trained."""


@dataclass(frozen=True)
class PlanResult:
    """The runs of a plan by line, with the data set's facts. A line's runs are in the order of their seeds."""

    plan: Plan
    profile: str
    dataset: str
    domains: tuple[str, ...]
    notes: dict[str, str]
    runs: dict[str, list[StoredRun]]

    def evaluations(self, protocol: str) -> dict[str, list[Evaluation]]:
        """By line, one evaluation for each seed."""
        return {label: [r.evaluations[protocol] for r in runs] for label, runs in self.runs.items()}

    @property
    def seeds(self) -> int:
        """Seeds of each neural line."""
        return self.plan.profile(self.profile).seeds


STAND_IN = "-sample"
"""End of the name of a data set that was drawn where the real one is out of reach: no figure of it says anything about the
paper's."""


def run_plan(
    plan: Plan,
    profile: str,
    *,
    only: tuple[str, ...] = (),
    reuse: bool = True,
    train: bool = True,
    report: Report | None = None,
    data: MultiDomainDataset | None = None,
    store: Store | None = None,
) -> PlanResult:
    """Run (or find) every run of a plan.

    Args:
        plan: what to run.
        profile: its size: smoke, quick or full.
        only: labels of the lines to run; all by default.
        reuse: take runs that are stored already; False trains all again, as a check of the code must.
        train: False gives a plan whose runs are all stored, and refuses any other.
        report: called with a line of text before and after each run.
        data: run on this data set, whose runs are known by its content; by default, the profile's is loaded.
        store: where runs are kept; by default, a folder for the profile.

    Raises:
        MissingRunsError: ``train`` is False, and some run is not stored.
    """
    say = report or (lambda text: None)
    plan, size = plan.at(profile), plan.profile(profile)
    content = {} if data is None else {"content": data_content(data)}
    data = load_for(size, say) if data is None else data
    store = store or Store(runs_folder() / profile, PUBLISHED / "runs" if profile == "full" else None)
    jobs = list(_jobs(plan, size, only))
    runs: dict[str, list[StoredRun]] = {}
    started, missing = time.perf_counter(), 0
    for n, (row, config) in enumerate(jobs, 1):
        key = _key(plan, row, size, config, data) | content
        found = store.find(key) if reuse else None
        seed = "" if config is None else f", seed {config.train.seed}"
        if found is None and not train:
            missing += 1
            continue
        if found is None:
            say(f"[{n}/{len(jobs)}] {row.title}{seed} … ({time.perf_counter() - started:.0f} s so far)")
            found = store.put(key, *run_row(plan, row, config, data))
        runs.setdefault(row.label, []).append(found)
        average = found.evaluations[plan.protocols[0]].average()[f"recall@{plan.ks[0]}"]
        say(f"[{n}/{len(jobs)}] {row.title}{seed}: Recall@{plan.ks[0]} {average:.4f} ({found.about['seconds']:.0f} s)")
    if missing:
        raise MissingRunsError(f"{missing} of {len(jobs)} runs are not there at the profile {profile!r}")
    return PlanResult(plan, profile, data.name, data.domains, dict(data.notes), runs)


def run_row(
    plan: Plan, row: Row, config: Config | None, data: MultiDomainDataset
) -> tuple[dict, dict[str, Evaluation]]:
    """One run: train, evaluate once on the test split, and say what it took."""
    started, then = time.perf_counter(), data.as_of("test")
    if config is None:
        settings = _reference_settings(row, data)
        scorer = build_reference(row.method, settings).fit(then)
        about = {"config": settings, "epochs": [], "parameters": None}
        trained = time.perf_counter() - started
    else:
        result = fit(data, config)
        scorer, trained = result.scorer.on(then), result.seconds
        about = {
            "config": config.model_dump(mode="json"),
            "epochs": result.epochs,
            "parameters": scorer.num_parameters(),
        }
    evaluations = {p: evaluate(scorer, then, "test", p, plan.ks, plan.exclude_seen) for p in plan.protocols}
    about |= {
        "seconds": time.perf_counter() - started,
        "train_seconds": trained,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "machine": machine(),
        "metrics": {
            p: {"domains": e.per_domain(), "average": e.average(), "micro": e.micro()} for p, e in evaluations.items()
        },
        "notes": {p: e.describe() for p, e in evaluations.items()},
    }
    return about, evaluations


def machine() -> dict:
    """What a measured time depends on."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def row_config(row: Row, size: Profile, dataset: str, seed: int) -> Config:
    """The configuration of one run of a neural line."""
    config = named_config(dataset, row.config, row.method, **{**row.changes, **size.changes, "seed": seed})
    return config.with_changes(epochs=max(1, round(config.train.epochs * size.epochs)))


def _jobs(plan: Plan, size: Profile, only: tuple[str, ...]) -> Iterator[tuple[Row, Config | None]]:
    """Seed by seed, so that a plan cut short has every line rather than one line with all seeds."""
    labels = [r.label for r in plan.rows]
    if unknown := sorted(set(only) - set(labels)):
        raise ValueError(f"plan {plan.name!r} has no line {', '.join(unknown)}; it has {', '.join(labels)}")
    rows = [r for r in plan.rows if not only or r.label in only]
    for seed in range(size.seeds):
        for row in rows:
            if not row.reference:
                yield row, row_config(row, size, size.dataset.removesuffix(STAND_IN), seed)
            elif seed == 0:
                yield row, None


def keys_of(plan: Plan, profile: str, data: MultiDomainDataset) -> list[dict]:
    """What each run of a plan on its own data set is known by; see :class:`~adi_lite.experiments.store.Store`."""
    plan, size = plan.at(profile), plan.profile(profile)
    return [_key(plan, row, size, config, data) for row, config in _jobs(plan, size, ())]


def _key(plan: Plan, row: Row, size: Profile, config: Config | None, data: MultiDomainDataset) -> dict:
    settings = config.model_dump(mode="json") if config else _reference_settings(row, data)
    return {
        "label": f"{row.method}-{config.train.seed}" if config else row.method,
        "dataset": data.name,
        "options": size.options,
        "candidates": {split: c.source for split, c in data.candidates.items()},
        "settings": settings,
        "measured": {"protocols": plan.protocols, "ks": plan.ks} | ({} if plan.exclude_seen else {"seen": "ranked"}),
    }


def _reference_settings(row: Row, data: MultiDomainDataset) -> dict:
    return {**reference_settings(data.name).get(row.method, {}), **row.changes}


def data_content(data: MultiDomainDataset) -> list[str]:
    """Hashes of ids and features, of the records of training and validation, and of those of training and test."""
    return [fingerprint(data), *(records_fingerprint(d) for d in (data, data.replace(valid=data.test)))]


def load_for(size: Profile, report: Report | None = None) -> MultiDomainDataset:
    """The profile's data, without a validation split: settings are chosen by then, and train on all of it.

    Where the files of the real data are out of reach, the drawn sample stands in, and says so in its notes.
    """
    wanted = {"validation": None} if "validation" in options_of(size.dataset) else {}
    wanted |= size.options
    try:
        return load_dataset(size.dataset, **wanted)
    except OutOfReachError as error:
        stand_in = size.dataset + STAND_IN
        if report is not None:
            report(
                f"{error}\nA drawn sample stands in for {size.dataset!r}: the figures say nothing about the paper's."
            )
        return load_dataset(
            stand_in, **{k: v for k, v in wanted.items() if k in options_of(stand_in) and k != "sample"}
        )
