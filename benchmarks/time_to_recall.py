"""Seconds of training until the average Recall@10 of the validation queries reaches a target."""

from __future__ import annotations

import time

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from benchmarks.learners import Learner


def seconds_to_recall(
    learner: Learner, data: MultiDomainDataset, target: float, *, max_epochs: int = 30, max_seconds: float = 60.0
) -> dict[str, object]:
    """Train epoch by epoch, validate after each (which is not counted), and stop at the target or when training has
    taken ``max_epochs`` or ``max_seconds``.

    Returns:
        ``seconds`` (None where the target was not reached), and of each epoch the seconds so far and the Recall@10.

    Raises:
        ValueError: the data set has no validation records.
    """
    if not len(data.valid):
        raise ValueError(f"{data.name!r} has no validation records to reach a recall on")
    protocol = "candidates" if "valid" in data.candidates else "corpus"
    spent, curve = 0.0, []
    while len(curve) < max_epochs and spent < max_seconds:
        started = time.perf_counter()
        learner.epoch()
        spent += time.perf_counter() - started
        recall = float(evaluate(learner.scorer(), data, "valid", protocol, (10,)).average()["recall@10"])
        curve.append({"seconds": round(spent, 3), "recall": round(recall, 4)})
        if recall >= target:
            break
    reached = bool(curve) and curve[-1]["recall"] >= target
    return {
        "seconds": curve[-1]["seconds"] if reached else None,
        "best": max(point["recall"] for point in curve),
        "epochs": round(len(curve) * learner.epochs_a_call, 3),
        "curve": curve,
    }


def recall_rows(part: dict) -> list[list[str]]:
    """Name, seconds to the target, best recall and epochs of each side of a ``recall`` part, as tables print them."""
    return [
        [name, "not reached" if r["seconds"] is None else f"{r['seconds']:.1f}", f"{r['best']:.3f}", str(r["epochs"])]
        for name, r in part.items()
        if name != "target"
    ]
