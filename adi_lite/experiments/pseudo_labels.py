"""Are pseudo-labels true? The simulator knows (paper, Section 4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adi_lite.data.batches import iterate_batches
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.data.simulation.truth import Truth
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import SelfTrainingConfig
from adi_lite.training.self_training import SelfTraining


def truth_of_pseudo_labels(
    model: TwoTower,
    data: MultiDomainDataset,
    truth: Truth,
    portions: Sequence[float],
    *,
    k: int = 100,
    batch_size: int = 4096,
    max_batches: int = 5,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of pseudo-labels that are among the ``k`` items that their user is likeliest to take in their new domain.

    Args:
        model: a trained model, which chooses among the training records as Algorithm 1 says.
        data, truth: from :func:`~adi_lite.data.simulation.dataset.simulate_with_truth`.
        portions: values of p.
        max_batches: batches of records that are looked at.

    Returns:
        A row for each p: pseudo-labels chosen, the share that is true, and ``at random``: the share among all records
        whose item the other domain can show, which is what a blind choice gives.
    """
    training = SelfTraining(data, SelfTrainingConfig())
    generator = torch.Generator().manual_seed(seed)
    batches = [b for b, _ in zip(iterate_batches(data, batch_size, generator), range(max_batches), strict=False)]
    rows = {}
    for portion in (*portions, None):
        hits, chosen = 0, 0
        for batch in batches:
            labels = training.pseudo_labels(model, batch, 1.0 if portion is None else portion)
            hits += int(_likely(truth, labels.user, labels.item, labels.domain, k).sum())
            chosen += len(labels)
        rows[portion] = (chosen, hits / max(chosen, 1))
    blind = rows.pop(None)[1]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["pseudo-labels", "true"])
    table.index.name = "p"
    return table.assign(**{"at random": blind})


def _likely(truth: Truth, user: Tensor, item: Tensor, domain: Tensor, k: int, chunk: int = 1024) -> Tensor:
    """(n,) whether an item is among the user's k likeliest in its domain."""
    out = torch.zeros(len(user), dtype=torch.bool)
    for d, rows in enumerate(truth.world.catalogues):
        for part in (domain == d).nonzero().squeeze(1).split(chunk):
            scores = truth.scores(user[part], d)
            place = torch.from_numpy(np.searchsorted(rows, item[part].numpy()))
            last = scores.topk(min(k, scores.shape[1])).values[:, -1]
            out[part] = scores[torch.arange(len(part)), place] >= last
    return out
