"""Two-tower models of torch-rechub, trained by its ``MatchTrainer`` over its own data loader.

It has no domains: the domain is one more feature of both towers, so that its models know what ADI knows.
"""

from __future__ import annotations

import contextlib
import io
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset
from benchmarks.learners import Learner, VectorScorer, padded
from benchmarks.peers import MissingPackageError

Model = Literal["youtube_dnn", "dssm"]


def learner(
    data: MultiDomainDataset,
    model: Model,
    *,
    width: int = 64,
    batch_size: int = 1024,
    row_negatives: int = 20,
    max_history: int = 50,
    seed: int = 0,
) -> Learner:
    """``youtube_dnn``: list-wise over ``row_negatives`` of each row, drawn once before training, as its data generator
    does. ``dssm``: list-wise over all other items of the batch (``in_batch_neg``); its trainer has no temperature there.

    Raises:
        MissingPackageError: torch-rechub is not installed.
    """
    try:
        from torch_rechub.basic.features import SequenceFeature, SparseFeature
        from torch_rechub.models.matching import DSSM, YoutubeDNN
        from torch_rechub.trainers import MatchTrainer
        from torch_rechub.utils.data import MatchDataGenerator
    except ImportError as error:
        raise MissingPackageError("torch-rechub", error) from error

    torch.manual_seed(seed)
    items, domains = data.num_items + 1, data.num_domains
    user = [
        SparseFeature("user_id", len(data.user_ids), width),
        SparseFeature("user_domain", domains, width),
        SequenceFeature("history", items, width, pooling="mean", shared_with="item_id", padding_idx=0),
    ]
    tower = {"dims": [width, width], "activation": "relu", "dropout": 0.0}
    if model == "youtube_dnn":
        item = [SparseFeature("item_id", items, width, padding_idx=0)]
        negative = [SequenceFeature("negatives", items, width, pooling="concat", shared_with="item_id", padding_idx=0)]
        net = YoutubeDNN(user, item, negative, tower, temperature=0.15)
    else:
        item = [SparseFeature("item_id", items, width, padding_idx=0), SparseFeature("item_domain", domains, width)]
        net = DSSM(user, item, tower, tower)
    trainer = MatchTrainer(
        net, mode=2, in_batch_neg=model == "dssm", optimizer_params={"lr": 3e-3}, device="cpu", n_epoch=1
    )
    x = _columns(data, max_history)
    if model == "youtube_dnn":
        x["negatives"] = _negatives(data, row_negatives, seed)
    y = np.zeros(len(data.train), dtype=np.int64)
    loader = MatchDataGenerator(x, y).generate_dataloader({"user_id": y[:1]}, {"item_id": y[:1]}, batch_size, 0)[0]

    def epoch() -> int:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train_one_epoch(loader)
        return len(y)

    def vectors(mode: str, columns: dict[str, Tensor]) -> Tensor:
        net.mode = mode
        try:
            return net(columns)
        finally:
            net.mode = None

    def scorer() -> VectorScorer:
        net.eval()
        return VectorScorer(
            lambda users, d: vectors(
                "user",
                {
                    "user_id": users,
                    "user_domain": torch.full_like(users, d),
                    "history": padded(data.history, users, None, max_history),
                },
            ),
            lambda rows, d: vectors("item", {"item_id": rows + 1, "item_domain": torch.full_like(rows, d)}),
            data,
        )

    return Learner(epoch, scorer, f"{row_negatives}, of the row, drawn once" if model == "youtube_dnn" else "in-batch")


def _columns(data: MultiDomainDataset, max_history: int) -> dict[str, np.ndarray]:
    train = data.train
    domain = train.domain.numpy()
    return {
        "user_id": train.user.numpy(),
        "user_domain": domain,
        "history": padded(data.history, train.user, train.item, max_history).numpy(),
        "item_id": train.item.numpy() + 1,
        "item_domain": domain,
    }


def _negatives(data: MultiDomainDataset, number: int, seed: int) -> np.ndarray:
    """(records, number) codes, uniform over the catalogue of the record's domain."""
    rng, domain = np.random.default_rng(seed), data.train.domain.numpy()
    out = np.empty((len(domain), number), dtype=np.int64)
    for d, catalogue in enumerate(data.catalogues):
        rows = domain == d
        out[rows] = catalogue.numpy()[rng.integers(0, len(catalogue), (rows.sum(), number))] + 1
    return out
