"""Training and whole-corpus evaluation with all features of the simulator, at the settings of its published tables."""

from __future__ import annotations

import statistics

import torch

from adi_lite.data.simulator import load_simulator
from adi_lite.experiments.industrial import ADI_SE
from adi_lite.experiments.named import named_config
from adi_lite.models.two_tower import TwoTower
from benchmarks.evaluation_profile import profile_evaluation
from benchmarks.learners import library_learner, random_part
from benchmarks.measure import interleaved

GOAL_RECORDS, GOAL_SECONDS = 10_000, 10.0
K = 1000


def training_with_features(preset: str, records: int, rounds: int) -> dict[str, object]:
    """Records/s of ADI-SE, alone and with self-training, and of DNN; an epoch over a random part of the training day.

    The tables are those of the whole world of ``preset``, so that a step costs what it costs there.
    """
    data = load_simulator(preset)
    part = data.replace(train=random_part(data.train, records))
    published = named_config("simulator", "tuned", "adi", **ADI_SE.changes)
    config = published.with_changes(self_training=None)
    configs = {
        "adi_se": config,
        "adi_se_self_training": published,
        "dnn": named_config("simulator", "tuned", "dnn"),
    }
    epochs = {name: library_learner(part, c).epoch for name, c in configs.items()}
    timings = interleaved(epochs, rounds=rounds, steps_a_round=1, warm_up=1)
    rows = {name: t.summary(timings["adi_se"]) for name, t in timings.items()}
    return {
        "preset": preset,
        "records_of_the_day": len(data.train),
        "records_timed": len(part.train),
        "users": data.num_users,
        "items": data.num_items,
        "batch_size": config.train.batch_size,
        "features": {"user": len(data.schema.user), "item": len(data.schema.item)},
        "methods": rows,
        "goal": {
            "goal": GOAL_RECORDS,
            "measured": rows["adi_se"]["records_per_second"],
            "reached": rows["adi_se"]["records_per_second"] >= GOAL_RECORDS,
        },
    }


def whole_corpus(items: int, records: int, rounds: int) -> dict[str, object]:
    """Seconds of Recall@1000 of ``records`` test records of ADI-SE, each over all ``items``: vectors of users and of items
    from their features, scores and ranks. The model is untrained, which takes the same time; every domain shows all items.
    """
    world = {"num_items": items, "num_users": 3 * items // 10, "num_records": 3 * items, "test_ratio": 1.0}
    data = load_simulator("full", parameters=world)
    everything = torch.arange(data.num_items)
    data = data.replace(test=random_part(data.test, records), catalogues=tuple(everything for _ in data.domains))
    config = named_config("simulator", "tuned", "adi", adaptation="se")
    torch.manual_seed(0)
    model = TwoTower(config.model, data.schema, data.num_items)
    timing, bound = profile_evaluation(model, data, K, rounds)
    seconds = statistics.median(timing.wall)
    return {
        "items": data.num_items,
        "test_records": len(data.test),
        "queries": timing.records,
        "k": K,
        "width": config.model.out_dim,
        "seconds": round(seconds, 3),
        "seconds_best": round(min(timing.wall), 3),
        "cpu_seconds": round(statistics.median(timing.cpu), 3),
        "bound": bound,
        "goal": {"goal": GOAL_SECONDS, "measured": round(seconds, 3), "reached": seconds <= GOAL_SECONDS},
    }
