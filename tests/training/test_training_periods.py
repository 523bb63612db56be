"""Training over periods: which columns, in which order, and that one period is ordinary training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from adi_lite.data.schema import Interactions, Period, Snapshot
from adi_lite.training.config import Config
from adi_lite.training.objective import Objective
from adi_lite.training.trainer import fit


def config(**changes) -> Config:
    base = {"method": "adi", "dim": 8, "out_dim": 8, "hidden": (8,), "epochs": 2, "batch_size": 16, "num_negatives": 8}
    return Config().with_changes(**base | changes)


@pytest.fixture
def timed(make_tiny):
    """Records at the times 0, 1, 2, …"""
    data = make_tiny(rich=True)
    train = data.train
    return data.replace(train=Interactions(train.user, train.item, train.domain, torch.arange(len(train))))


def known(data, shift: float = 0.0) -> Snapshot:
    items = {n: c + shift if torch.is_tensor(c) and c.is_floating_point() else c for n, c in data.items.items()}
    return Snapshot(data.users, items, data.catalogues, data.history)


def weights(trained) -> list[torch.Tensor]:
    return list(trained.scorer.models[0].state_dict().values())


@pytest.mark.parametrize(
    "options", [{}, {"self_training": {"portion": 0.2}}, {"fixed_negatives": True, "log_q": False}]
)
def test_one_period_is_ordinary_training(timed, options):
    plain, cut = (fit(d, config(**options)) for d in (timed, timed.replace(periods=(Period(0, known(timed)),))))
    assert [e["loss"] for e in plain.epochs] == [e["loss"] for e in cut.epochs]
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(cut), strict=True))


def test_every_record_is_read_once_an_epoch_from_its_own_period(timed, monkeypatch):
    periods = tuple(Period(begins, known(timed, shift)) for begins, shift in ((0, 0.0), (20, 100.0), (50, 200.0)))
    data, seen, right = timed.replace(periods=periods), [], Objective.__call__

    def spy(self, model, batch, generator):
        shift = next(
            float(c.mean()) for n, c in self.data.items.items() if torch.is_tensor(c) and c.is_floating_point()
        )
        seen.append(
            (
                round(shift / 100),
                sorted(zip(batch.user.tolist(), batch.item.tolist(), batch.domain.tolist(), strict=True)),
            )
        )
        return right(self, model, batch, generator)

    monkeypatch.setattr(Objective, "__call__", spy)
    fit(data, config(epochs=2))
    steps = [2, 2, 3]  # 20, 30 and 34 records in batches of 16
    train = data.train
    rows = list(zip(train.user.tolist(), train.item.tolist(), train.domain.tolist(), strict=True))
    for epoch in (seen[:7], seen[7:]):
        assert [sum(p == n for p, _ in epoch) for n in range(3)] == steps
        for n, (low, high) in enumerate(((0, 20), (20, 50), (50, 84))):
            assert sorted(r for p, batch in epoch for r in batch if p == n) == sorted(rows[low:high])
    turns = [[p for p, _ in epoch] for epoch in (seen[:7], seen[7:])]
    assert turns[0] != turns[1] and turns[0] != sorted(turns[0]), "batches of all periods in mixed order"
    seen.clear()
    fit(data, config(epochs=1, shuffle=False))
    assert [p for p, _ in seen] == [0, 0, 1, 1, 2, 2, 2], "in order of time"


def test_the_falling_rate_counts_the_steps_of_all_periods(timed, monkeypatch):
    rates, right = [], torch.optim.Adam.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[-1]["lr"])
        return right(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    data = timed.replace(periods=tuple(Period(b, known(timed)) for b in (0, 20, 50)))
    fit(data, config(schedule="linear", epochs=1, learning_rate=0.7, embedding_learning_rate=0.7))
    assert rates == pytest.approx([0.7 * (1 - s / 7) for s in range(7)])


def test_a_killed_run_over_periods_goes_on_with_the_same_bits(timed, tmp_path):
    data = timed.replace(periods=tuple(Period(b, known(timed, b)) for b in (0, 20, 50)))
    whole = fit(data, config(epochs=3))

    def stop(record: dict) -> None:
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, config(epochs=3), out=tmp_path, progress=stop)
    resumed = fit(data, config(epochs=3), out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))


def test_a_positive_outside_its_periods_catalogue_is_refused(timed):
    outside = replace(known(timed), catalogues=tuple(c[:1] for c in timed.catalogues))
    with pytest.raises(ValueError, match="training records show items that its catalogue lacks"):
        fit(timed.replace(periods=(Period(0, known(timed)), Period(40, outside))), config())
