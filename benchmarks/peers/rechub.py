"""Two-tower models of torch-rechub, trained by its ``MatchTrainer`` over its own data loader.

It has no domains: the domain is one more feature of both towers, and of features by domain they read the value of the
record's, so that its models know what ADI knows (``youtube_dnn`` of items the id only: it has no item tower).
"""

from __future__ import annotations

import contextlib
import io
import itertools
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adi_lite.data.batches import Bag, InputBuilder, Side
from adi_lite.data.schema import MultiDomainDataset, Ragged
from adi_lite.models.two_tower import ITEM_ID
from benchmarks.learners import Learner, VectorScorer, padded
from benchmarks.peers import MissingPackageError
from benchmarks.plain import padded_bags

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
    records_a_call: int | None = None,
) -> Learner:
    """``youtube_dnn``: list-wise over ``row_negatives`` of each row, drawn once before training, as its data generator
    does. ``dssm``: list-wise over all other items of the batch (``in_batch_neg``); its trainer has no temperature there.
    With ``records_a_call``, a call of ``epoch`` trains on the next of random parts of about so many records.

    Raises:
        MissingPackageError: torch-rechub is not installed.
    """
    try:
        from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
        from torch_rechub.models.matching import DSSM, YoutubeDNN
        from torch_rechub.trainers import MatchTrainer
        from torch_rechub.utils.data import MatchDataGenerator
    except ImportError as error:
        raise MissingPackageError("torch-rechub", error) from error

    torch.manual_seed(seed)
    history = SequenceFeature("history", data.num_items + 1, width, pooling="mean", shared_with=ITEM_ID, padding_idx=0)

    def features(side: Side) -> list:
        schema = getattr(data.schema, side)
        out = [SparseFeature(f.name, f.size, width) for f in schema if f.kind == "categorical"]
        bags = [f for f in schema if f.kind == "bag"]
        out += [SequenceFeature(f.name, f.size + 1, width, pooling="mean", padding_idx=0) for f in bags]
        out += [DenseFeature(f.name, f.size) for f in schema if f.kind == "dense"]
        return [*out, SparseFeature(f"{side}_domain", data.num_domains, width)]

    user = [*features("user"), history]
    tower = {"dims": [width, width], "activation": "relu", "dropout": 0.0}
    if model == "youtube_dnn":
        item = [SparseFeature(ITEM_ID, data.num_items + 1, width, padding_idx=0)]
        negative = SequenceFeature(
            "negatives", data.num_items + 1, width, pooling="concat", shared_with=ITEM_ID, padding_idx=0
        )
        net = YoutubeDNN(user, item, [negative], tower, temperature=0.15)
    else:
        net = DSSM(user, features("item"), tower, tower)
    trainer = MatchTrainer(
        net, mode=2, in_batch_neg=model == "dssm", optimizer_params={"lr": 3e-3}, device="cpu", n_epoch=1
    )
    train = data.train
    x = _columns(data, "user", train.user, train.domain, max_history, train.item)
    x |= _columns(data, "item", train.item, train.domain)
    if model == "youtube_dnn":
        x["negatives"] = _negatives(data, row_negatives, seed)
    x = {name: values.numpy() for name, values in x.items()}
    y = np.zeros(len(data.train), dtype=np.int64)
    first = {ITEM_ID: y[:1]}  # of loaders that are not used
    parts = [slice(None)]
    if records_a_call is not None and records_a_call < len(y):
        order, size = np.random.default_rng(seed).permutation(len(y)), max(1, records_a_call // batch_size) * batch_size
        parts = np.split(order, range(size, len(y) - size + 1, size))
    loaders = [
        MatchDataGenerator({name: values[part] for name, values in x.items()}, y[part]).generate_dataloader(
            first, first, batch_size, 0
        )[0]
        for part in parts
    ]
    turns = itertools.cycle(loaders)

    def epoch() -> int:
        loader = next(turns)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            trainer.train_one_epoch(loader)
        return len(loader.dataset)

    def vectors(mode: str, columns: dict[str, Tensor]) -> Tensor:
        net.mode = mode
        try:
            return net(columns)
        finally:
            net.mode = None

    def scorer() -> VectorScorer:
        net.eval()
        return VectorScorer(
            lambda users, d: vectors("user", _columns(data, "user", users, torch.full_like(users, d), max_history)),
            lambda rows, d: vectors("item", _columns(data, "item", rows, torch.full_like(rows, d))),
            data,
        )

    negatives = f"{row_negatives}, of the row, drawn once" if model == "youtube_dnn" else "in-batch"
    return Learner(epoch, scorer, negatives, 1 / len(loaders))


def _columns(
    data: MultiDomainDataset,
    side: Side,
    rows: Tensor,
    domain: Tensor,
    max_history: int = 0,
    target: Tensor | None = None,
) -> dict[str, Tensor]:
    """What a tower reads for ``rows`` (n,) of users or items in ``domain`` (n,): a column a feature, bags padded with 0."""
    read = InputBuilder(data)._columns(side, rows, domain)  # without the history, which is padded and cut here
    out = {n: padded_bags(Ragged(v.codes, v.offsets)) + 1 if isinstance(v, Bag) else v for n, v in read.items()}
    out[f"{side}_domain"] = domain
    if side == "user":
        out["history"] = padded(data.history, rows, target, max_history)
    return out


def _negatives(data: MultiDomainDataset, number: int, seed: int) -> Tensor:
    """(records, number) codes, uniform over the catalogue of the record's domain."""
    rng, domain = np.random.default_rng(seed), data.train.domain.numpy()
    out = np.empty((len(domain), number), dtype=np.int64)
    for d, catalogue in enumerate(data.catalogues):
        rows = domain == d
        out[rows] = catalogue.numpy()[rng.integers(0, len(catalogue), (rows.sum(), number))] + 1
    return torch.from_numpy(out)
