"""Training steps to be timed: of the library, as its training loop makes them, and of the plain baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch.utils.data import DataLoader

from adi_lite.data.batches import Batch, iterate_batches
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.config import Method
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import Config
from adi_lite.training.optim import build_optimizers
from adi_lite.training.trainer import build_objective
from benchmarks.plain import PlainADI, PlainDataset, draw_shared, row_loss, shared_loss

Step = Callable[[], int]
"""Makes one training step, fetching of its records included, and gives the number of records."""

PlainNegatives = Literal["shared", "row"]


def settings(
    method: Method = "adi", *, width: int = 64, batch_size: int = 1024, num_negatives: int = 1024, **changes: object
) -> Config:
    """What both sides train with: users by id and history, cosine, item bias, uniform negatives, Adam."""
    own = {"adaptation": "se"} if method == "adi" else {}
    same = {"dim": width, "out_dim": width, "hidden": (width,), "user": "both", "history_dropout": 0.0}
    sizes = {"batch_size": batch_size, "num_negatives": num_negatives}
    return Config().with_changes(method=method, **{**own, **same, **sizes, **changes})


def library_step(data: MultiDomainDataset, config: Config) -> Step:
    """A step of :mod:`adi_lite`; an endless row of epochs, full batches only."""
    torch.manual_seed(config.train.seed)
    model = TwoTower(config.model, data.schema, data.num_items).train()
    optimizers = build_optimizers(model, config.train)
    objective = build_objective(data, config.train)
    generator = torch.Generator().manual_seed(config.train.seed)
    batches = _full_batches(data, config.train.batch_size, generator)

    def step() -> int:
        batch = next(batches)
        update(optimizers, objective(model, batch, generator).sum() / len(batch))
        return len(batch)

    return step


def plain_step(
    data: MultiDomainDataset,
    config: Config,
    negatives: PlainNegatives = "shared",
    *,
    row_negatives: int = 20,
    max_history: int = 50,
) -> Step:
    """A step of the baseline, with the library's optimizer. Histories are cut to ``max_history``, which spares it work.

    ``shared``: the same negatives for all rows of a domain, as in the library; ``row``: ``row_negatives`` for each row.
    """
    train = config.train
    torch.manual_seed(train.seed)
    model = PlainADI(config.model, data).train()
    optimizers = build_optimizers(model, train)
    generator = torch.Generator().manual_seed(train.seed)
    records = PlainDataset(data, max_history, row_negatives if negatives == "row" else 0, train.seed)
    loader = DataLoader(records, train.batch_size, shuffle=True, drop_last=True, generator=generator)
    batches = endless(loader)
    sizes = [len(c) for c in data.catalogues]

    def step() -> int:
        batch = next(batches)
        if negatives == "row":
            losses = row_loss(model, batch)
        else:
            losses = shared_loss(model, batch, draw_shared(data, train.num_negatives, generator), sizes)
        update(optimizers, losses.mean())
        return len(losses)

    return step


def update(optimizers: Sequence[torch.optim.Optimizer], loss: torch.Tensor) -> None:
    """One step of all optimizers down the gradient of ``loss``."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def endless(loader: DataLoader) -> Iterator[dict[str, torch.Tensor]]:
    """Batches of one epoch after another."""
    if len(loader) == 0:
        raise ValueError("the data set has fewer training records than one batch; make batch_size smaller")
    while True:
        yield from loader


def _full_batches(data: MultiDomainDataset, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    if len(data.train) < batch_size:
        raise ValueError(f"{len(data.train)} training records make no batch of {batch_size}; make batch_size smaller")
    while True:
        yield from (b for b in iterate_batches(data, batch_size, generator) if len(b) == batch_size)
