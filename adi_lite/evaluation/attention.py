"""How a trained model weighs its features in each domain (Figure 5), and how much each one matters to its recall."""

from __future__ import annotations

from typing import Literal

import pandas as pd
import torch
from torch import Tensor

from adi_lite.data.batches import InputBuilder, Inputs
from adi_lite.data.schema import Column, MultiDomainDataset, Ragged
from adi_lite.evaluation.metrics import evaluate
from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import TwoTower
from adi_lite.nn.embedding import DOMAIN

Side = Literal["user", "item"]


@torch.no_grad()
def attention(model: TwoTower, data: MultiDomainDataset, side: Side, max_rows: int = 4096) -> pd.DataFrame:
    """Mean weight that each domain's adaptation layer gives to each field: features in rows, domains in columns.

    The mean is over the items of the domain's catalogue, or over users with training records in it, the first
    ``max_rows`` of them. SE-blocks without a sigmoid may give negative weights.

    Raises:
        ValueError: the model has no adaptation layer that weighs fields, or another ``side``.
    """
    if side not in ("user", "item"):
        raise ValueError(f"side is 'user' or 'item', not {side!r}")
    tower = getattr(model, side)
    layer = getattr(tower.network, "adaptation", None)
    if not hasattr(layer, "weights"):
        raise ValueError("the model has no domain interest adaptation layer with weights: linear, attention or se")
    model.eval()
    columns = {}
    for d, domain in enumerate(data.domains):
        inputs = _inputs(data, side, d, max_rows)
        fields, _ = tower.embedding(inputs)
        columns[domain] = layer.weights(fields, inputs.counts).mean(0).tolist()
    table = pd.DataFrame(columns, index=tower.embedding.names)
    return table.drop(index=DOMAIN, errors="ignore")


def permutation_importance(
    scorer: ModelScorer,
    data: MultiDomainDataset,
    side: Side,
    metric: str = "recall@100",
    split: str = "valid",
    *,
    exclude_seen: bool = False,
    max_records: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """What the metric loses when a feature's values are dealt out anew among the users or items: features x domains.

    The fall of the mean over queries of each domain; a feature that the model does not use loses nothing. Unlike a weight
    it does not depend on the scale of an embedding (Breiman, 2001; Fisher et al., 2019). ``max_records`` bounds the cost: so
    many records of the split, drawn by ``seed``, are ranked, where it has more.
    """
    k = int(metric.split("@")[1])

    def measure(changed: MultiDomainDataset) -> dict[str, float]:
        found = evaluate(scorer.on(changed), changed, split, "corpus", (k,), exclude_seen)
        return {domain: values[metric] for domain, values in found.per_domain().items()}

    generator = torch.Generator().manual_seed(seed)
    records = data.split(split)
    if max_records is not None and len(records) > max_records:
        drawn = torch.randperm(len(records), generator=generator)[:max_records].sort().values
        data = data.replace(**{split: records.take(drawn)})
    whole, rows = measure(data), {}
    count = data.num_users if side == "user" else data.num_items
    names = [f.name for f in getattr(data.schema, side)] + (
        ["history"] if side == "user" and data.schema.history else []
    )
    for name in names:
        order = torch.randperm(count, generator=generator)
        changed = measure(_permuted(data, side, name, order))
        rows[name] = {domain: whole[domain] - changed[domain] for domain in whole}
    return pd.DataFrame.from_dict(rows, orient="index")


def _permuted(data: MultiDomainDataset, side: Side, name: str, order: Tensor) -> MultiDomainDataset:
    if name == "history":
        return data.replace(history=data.history.take(order))
    columns = dict(data.users if side == "user" else data.items)
    feature = next(f for f in getattr(data.schema, side) if f.name == name)
    columns[name] = _dealt(columns[name], order, data.num_domains if feature.per_domain else 1)
    return data.replace(**{"users" if side == "user" else "items": columns})


def _dealt(column: Column, order: Tensor, rows_each: int) -> Column:
    if not isinstance(column, Ragged):
        return column[order]
    rows = order[:, None] * rows_each + torch.arange(rows_each)
    return column.take(rows.flatten())


def _inputs(data: MultiDomainDataset, side: Side, domain: int, max_rows: int) -> Inputs:
    builder = InputBuilder(data)
    if side == "item":
        return builder.items_in(data.catalogues[domain][:max_rows], domain)
    users = torch.unique(data.train.user[data.train.domain == domain])[:max_rows]
    return builder.users_in(users, domain)
