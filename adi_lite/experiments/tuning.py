"""Choosing settings on validation data, with the same number of trials for every method.

The first trial is the named configuration as it is, the others are random points of the search space; each is trained
with early stopping on the validation split. All methods get the
same points (their own settings aside), so that none is luckier in the draw. The test split is not read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adi_lite.atomic import replacing
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.experiments.industrial import ADI_SE, PROFILES_OF
from adi_lite.experiments.named import named_config
from adi_lite.experiments.references import build_reference
from adi_lite.training.trainer import fit

SPACE: dict[str, list] = {
    "hidden": [(32,), (64,), (128,)],
    "dropout": [0.2, 0.5],
    "history_dropout": [0.3, 0.5, 0.7],
    "temperature": [0.15, 0.2, 0.25],
    "learning_rate": [3e-4, 1e-3, 3e-3],
    "embedding_learning_rate": [5e-3, 1e-2],
    "residual_gain": [0.0, 0.1],
}
"""Settings that every method has; the rest of the frame is the same for all, from the named configuration."""

REFERENCE_SPACE: dict[str, dict[str, list]] = {
    "popularity": {},
    "item_knn": {"neighbours": [50, 200, None], "shrinkage": [0.0, 10.0, 50.0], "pooled": [False, True]},
    "ease": {"regularization": [30.0, 100.0, 400.0, 1000.0], "pooled": [False]},
    "ials": {"width": [64, 128], "unobserved_weight": [0.03, 0.1, 0.3], "regularization": [0.001, 0.003, 0.01]},
}
"""Settings of the references. EASE is not pooled: its one matrix over all markets would not fit the memory budget."""


@dataclass(frozen=True)
class Search:
    """How a data set's settings are searched.

    Attributes:
        space: values of each setting that trials of models draw from.
        metric: what is maximised, on the average over domains.
        changes: settings changed for all trials.
        changes_of: settings changed for all trials of a method, by its name.
        options: options of the data set's loader.
        exclude_seen: as in :func:`~adi_lite.evaluation.metrics.evaluate`.
        references: methods beside the models.
    """

    space: dict[str, list] = field(default_factory=lambda: SPACE)
    metric: str = "recall@10"
    changes: dict = field(default_factory=dict)
    changes_of: dict[str, dict] = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    exclude_seen: bool = True
    references: tuple[str, ...] = tuple(REFERENCE_SPACE)


GLOBO_SPACE: dict[str, list] = {
    "epochs": [2, 4],
    "batch_size": [1024, 4096],
    "learning_rate": [1e-3, 3e-3],
    "embedding_learning_rate": [3e-3, 1e-2],
    "dropout": [0.0, 0.2],
}
SEARCHES = {
    "globo": Search(
        space=GLOBO_SPACE,
        metric="recall@100",
        changes={"patience": None},  # the rate falls over epochs that are fixed
        changes_of={"adi": ADI_SE.changes},
        options=PROFILES_OF["globo"]["full"].options,
        exclude_seen=False,
        references=(),
    )
}
"""Searches of data sets whose tables are made otherwise than the cross-market ones."""


def draw_trials(space: dict[str, list], trials: int, seed: int) -> list[dict]:
    """Distinct random points of a space of lists (all, where it has no more); fewer trials are the first of more."""
    sizes = [len(v) for v in space.values()]
    total = int(np.prod(sizes)) if sizes else 1
    chosen = np.random.default_rng(seed).permutation(total)[:trials]
    points = (np.unravel_index(int(c), sizes) if sizes else () for c in chosen)
    return [{name: values[i] for (name, values), i in zip(space.items(), p, strict=True)} for p in points]


def tune(
    data: MultiDomainDataset,
    dataset: str,
    method: str,
    trials: int,
    out: Path,
    *,
    seed: int = 0,
    metric: str = "recall@10",
    changes: dict | None = None,
    space: dict[str, list] | None = None,
    exclude_seen: bool = True,
    report: Callable[[dict], None] | None = None,
) -> list[dict]:
    """Run the trials of a method, or of a reference, and keep each in ``out`` as soon as it is done.

    Args:
        data: with a validation split.
        dataset: whose ``tuned`` configuration gives the frame.
        method: name of a model or of a reference.
        trials: how many.
        out: JSON file; trials that it holds already are not run again.
        metric: what is maximised, on the average over domains.
        changes: settings of the frame to change for all trials.
        space: values of each setting that trials draw from; by default :data:`SPACE`, or that of the reference.
        exclude_seen: as in :func:`~adi_lite.evaluation.metrics.evaluate`.
        report: called with each trial.

    Returns:
        The trials asked for, best first: settings, metric, epochs, seconds.

    Raises:
        ValueError: ``out`` is damaged, or holds trials of another method or metric.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    done = _read(out, method, metric) if out.is_file() else []
    if space is None:
        space = REFERENCE_SPACE[method] if method in REFERENCE_SPACE else SPACE
    asked = []
    for settings in ({}, *draw_trials(space, trials - 1, seed)):  # the frame as it is, then random changes of it
        settings = json.loads(json.dumps(settings))  # as a stored trial has them
        asked.append(settings)
        if any(t["settings"] == settings for t in done):
            continue
        trial = {
            "method": method,
            "settings": settings,
            **_trial(data, dataset, method, settings, metric, changes or {}, exclude_seen),
        }
        done.append(trial)
        _write(out, done)
        if report is not None:
            report(trial)
    return sorted((t for t in done if t["settings"] in asked), key=lambda t: -t[metric])


def _trial(
    data: MultiDomainDataset,
    dataset: str,
    method: str,
    settings: dict,
    metric: str,
    changes: dict,
    exclude_seen: bool,
) -> dict:
    started, then = time.perf_counter(), data.as_of("valid")
    if method in REFERENCE_SPACE:
        scorer, epochs = build_reference(method, settings).fit(then), None
    else:
        config = named_config(dataset, "tuned", method, **{"patience": 2, **changes, **settings})
        result = fit(data, config)
        scorer, epochs = result.scorer.on(then), result.best_epoch + 1
    k = int(metric.split("@")[1])
    protocol = "candidates" if "valid" in data.candidates else "corpus"
    evaluation = evaluate(scorer, then, "valid", protocol, (k,), exclude_seen)
    return {
        metric: evaluation.average()[metric],
        "domains": {name: m[metric] for name, m in evaluation.per_domain().items()},
        "epochs": epochs,
        "seconds": time.perf_counter() - started,
    }


def _read(path: Path, method: str, metric: str) -> list[dict]:
    try:
        trials = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if not isinstance(trials, list) or not all(
        isinstance(t, dict) and {"method", "settings"} <= set(t) for t in trials
    ):
        raise ValueError(f"{path} is no list of trials")
    if other := [t for t in trials if t["method"] != method or metric not in t]:
        raise ValueError(f"{path} holds trials of {other[0]['method']!r}, not trials of {method!r} by {metric}")
    return trials


def _write(path: Path, trials: list[dict]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(trials, indent=1))
