"""The baseline of the benchmarks: ADI with the organisation that research code commonly has.

One module for each domain and each expert, called in a Python loop; every one of them runs on all rows of the batch, and
``torch.where`` picks the rows of its domain afterwards. Records come one by one out of a ``Dataset`` as dictionaries,
histories padded to one length. The mathematics is that of :mod:`adi_lite.models` (with copied weights, in evaluation
mode, vectors and losses are the same: the tests hold it to that), with one exception which goes with this organisation:
in training, a domain's batch normalisation sees the rows of all domains.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from adi_lite.data.batches import HISTORY
from adi_lite.data.schema import Column, Feature, MultiDomainDataset, Ragged
from adi_lite.models.adi import ADINetwork
from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import tower_widths
from adi_lite.models.two_tower import ITEM_ID, TwoTower
from adi_lite.nn.adaptation import SEBlock
from adi_lite.nn.embedding import FeatureEmbedding, module_key
from adi_lite.nn.normalization import DomainBatchNorm
from adi_lite.nn.stacked import StackedLinear


def pick(of_each_domain: Sequence[Tensor], domain: Tensor) -> Tensor:
    """Outputs (b, h) of every domain's module on all rows -> (b, h), each row from the module of its domain (b,)."""
    out = of_each_domain[0]
    for d, other in enumerate(of_each_domain[1:], start=1):
        out = torch.where((domain == d).unsqueeze(1), other, out)
    return out


class PlainNorm(nn.Module):
    """A batch normalisation for each domain (Eq. 20), each on all rows."""

    def __init__(self, num_domains: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(num_domains))

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        return pick([norm(x) for norm in self.norms], domain)


class PlainExpert(nn.Module):
    """Linear, normalisation, ReLU, layer by layer; with normalisations of each domain if the expert is shared."""

    def __init__(self, sizes: Sequence[int], norms: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(PlainNorm(norms, o) for o in sizes[1:])

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.relu(norm(layer(x), domain))
        return x


class PlainSE(nn.Module):
    """Squeeze-and-excitation over the fields (Eq. 25, 26)."""

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(fields, max(1, fields // 2))
        self.excite = nn.Linear(max(1, fields // 2), fields)

    def forward(self, x: Tensor) -> Tensor:
        return self.excite(F.relu(self.squeeze(x.mean(2)))).unsqueeze(2) * x


class PlainNetwork(nn.Module):
    """The network of an ADI tower with CONCAT fusion and DSBN: fields (b, f, e), f_domain (b, e) -> (b, out_dim)."""

    def __init__(self, config: ModelConfig, num_domains: int, fields: int) -> None:
        super().__init__()
        in_size, hidden = fields * config.dim, tower_widths(config, num_domains, fields)
        sizes, h = (in_size, *hidden), hidden[-1]
        domains = range(num_domains)
        self.se = nn.ModuleList(PlainSE(fields) for _ in domains if config.adaptation == "se")
        self.input_norm = PlainNorm(num_domains, in_size)
        self.specific = nn.ModuleList(PlainExpert(sizes, 1) for _ in domains)
        self.shared = nn.ModuleList(PlainExpert(sizes, num_domains) for _ in range(config.num_shared))
        self.gate = nn.ModuleList(nn.Linear(config.dim, 1) for _ in range(config.num_shared))
        self.gate_specific = nn.ModuleList(nn.Linear(config.dim, h) for _ in domains)
        self.gate_shared = nn.ModuleList(nn.Linear(config.dim, h) for _ in domains)
        self.heads = nn.ModuleList(nn.Linear(3 * h, config.out_dim) for _ in domains)

    def forward(self, x: Tensor, f_domain: Tensor, domain: Tensor) -> Tensor:
        if self.se:
            x = pick([se(x).flatten(1) for se in self.se], domain).view_as(x)
        x = self.input_norm(x.flatten(1), domain)
        specific = pick([expert(x, torch.zeros_like(domain)) for expert in self.specific], domain)
        weights = torch.softmax(torch.cat([gate(f_domain) for gate in self.gate], 1), 1)
        shared = sum(weights[:, k : k + 1] * expert(x, domain) for k, expert in enumerate(self.shared))
        a = torch.sigmoid(pick([gate(f_domain) for gate in self.gate_specific], domain)) * specific
        b = torch.sigmoid(pick([gate(f_domain) for gate in self.gate_shared], domain)) * shared
        fused = torch.cat([a, a * b, b], 1)
        return pick([head(fused) for head in self.heads], domain)


class PlainFields(nn.Module):
    """The features of one side, one by one: rows (b,) in domains (b,) -> fields (b, f, e). Bags are padded to one length."""

    def __init__(
        self, features: Sequence[Feature], columns: dict[str, Column], num_domains: int, dim: int, std: float
    ) -> None:
        super().__init__()
        self.features, self.num_domains = features, num_domains
        self.columns = {f.name: padded_bags(c) if isinstance(c := columns[f.name], Ragged) else c for f in features}
        sizes: dict[str, int] = {}
        for f in features:
            if f.kind != "dense":
                sizes[module_key(f.table)] = max(f.size, sizes.get(module_key(f.table), 0))
        self.tables = nn.ModuleDict({name: nn.Embedding(size, dim) for name, size in sizes.items()})
        self.dense = nn.ModuleDict({module_key(f.name): nn.Linear(f.size, dim) for f in features if f.kind == "dense"})
        for table in self.tables.values():
            nn.init.normal_(table.weight, std=std)

    def forward(self, rows: Tensor, domain: Tensor) -> list[Tensor]:
        fields = []
        for f in self.features:
            column = self.columns[f.name]
            if f.kind == "bag":
                codes = column[rows * self.num_domains + domain if f.per_domain else rows]
                fields.append(mean_of_bag(self.tables[module_key(f.table)], codes.clamp(min=0), codes >= 0))
                continue
            values = column[rows, domain] if f.per_domain else column[rows]
            if f.kind == "dense":
                fields.append(self.dense[module_key(f.name)](values))
            else:
                fields.append(self.tables[module_key(f.table)](values.long()))
        return fields


def mean_of_bag(table: nn.Embedding, codes: Tensor, kept: Tensor) -> Tensor:
    """Padded codes (b, length) and which of them count -> (b, e)."""
    weights = kept.unsqueeze(2).float()
    return (table(codes) * weights).sum(1) / weights.sum(1).clamp(min=1)


def padded_bags(bags: Ragged) -> Tensor:
    """(rows, longest) codes of each bag, filled up with -1."""
    lengths = bags.lengths()
    out = torch.full((len(lengths), max(1, int(lengths.max()))), -1, dtype=torch.int64)
    out[torch.arange(out.shape[1]) < lengths.unsqueeze(1)] = bags.values.long()
    return out


class PlainADI(nn.Module):
    """Two towers on all features and the history, with cosine similarity and an item bias.

    Raises:
        ValueError: the data or the settings have what this baseline does not cover.
    """

    def __init__(self, config: ModelConfig, data: MultiDomainDataset) -> None:
        super().__init__()
        _check(config, data)
        self.config, self.num_domains = config, data.num_domains
        shape = (data.num_domains, config.dim, config.embedding_std)
        self.user_fields = PlainFields(data.schema.user, data.users, *shape)
        self.item_fields = PlainFields(data.schema.item, data.items, *shape)
        self.history_table = nn.Embedding(data.num_items + 1, config.dim, padding_idx=0)
        self.user_domain = nn.Embedding(data.num_domains, config.dim)
        self.item_domain = nn.Embedding(data.num_domains, config.dim)
        for table in (self.history_table, self.user_domain, self.item_domain):
            nn.init.normal_(table.weight, std=config.embedding_std)
        self.item_codes = data.items[ITEM_ID]
        self.item_bias = nn.Embedding(next(f.size for f in data.schema.item if f.name == ITEM_ID) * data.num_domains, 1)
        nn.init.zeros_(self.item_bias.weight)
        self.user_network = PlainNetwork(config, data.num_domains, len(data.schema.user) + 1)
        self.item_network = PlainNetwork(config, data.num_domains, len(data.schema.item))

    def user_vectors(self, user: Tensor, history: Tensor, domain: Tensor) -> Tensor:
        """Rows (b,), padded codes of past items (b, length), domains (b,) -> (b, out_dim + 1)."""
        fields = [*self.user_fields(user, domain), mean_of_bag(self.history_table, history, history != 0)]
        out = self.user_network(torch.stack(fields, 1), self.user_domain(domain), domain)
        out = F.normalize(out, dim=1) / self.config.temperature
        return torch.cat([out, torch.ones(len(out), 1)], 1)

    def item_vectors(self, item: Tensor, domain: Tensor) -> Tensor:
        """Rows (b,), domains (b,) -> (b, out_dim + 1)."""
        fields = torch.stack(self.item_fields(item, domain), 1)
        out = F.normalize(self.item_network(fields, self.item_domain(domain), domain), dim=1)
        return torch.cat([out, self.item_bias(self.item_codes[item] * self.num_domains + domain)], 1)


class PlainDataset(Dataset):
    """Training records one by one, each a dictionary.

    Args:
        data: the data set.
        max_history: histories are padded to this length, and cut to their last items; None: the longest one.
        row_negatives: negatives drawn for each record, in Python; 0 where they are shared.
        seed: of these draws.
    """

    def __init__(self, data: MultiDomainDataset, max_history: int | None, row_negatives: int, seed: int) -> None:
        self.records = list(zip(*(getattr(data.train, c).tolist() for c in ("user", "item", "domain")), strict=True))
        self.history = {u: data.history.row(u).tolist() for u in set(data.train.user.tolist())}
        self.max_history = max_history or max(len(h) for h in self.history.values())
        self.catalogues = [c.tolist() for c in data.catalogues]
        self.row_negatives, self.random = row_negatives, random.Random(seed)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Tensor | int]:
        user, item, domain = self.records[index]
        past = [v + 1 for v in self.history[user] if v != item][-self.max_history :]
        sample = {
            "user": user,
            "item": item,
            "domain": domain,
            "history": torch.tensor(past + [0] * (self.max_history - len(past))),
        }
        if self.row_negatives:
            drawn = []
            while len(drawn) < self.row_negatives:
                other = self.random.choice(self.catalogues[domain])
                if other != item:
                    drawn.append(other)
            sample["negatives"] = torch.tensor(drawn)
        return sample


def draw_shared(data: MultiDomainDataset, num_negatives: int, generator: torch.Generator) -> list[Tensor]:
    """``num_negatives`` items of each domain's catalogue, uniform and with replacement."""
    return [c[torch.randint(len(c), (num_negatives,), generator=generator)] for c in data.catalogues]


def shared_loss(
    model: PlainADI, batch: dict[str, Tensor], negatives: list[Tensor], catalogue_sizes: Sequence[int]
) -> Tensor:
    """(b,) sampled softmax losses with log Q, against the same negatives for all rows of a domain (Eq. 4, 5)."""
    domain, item = batch["domain"], batch["item"]
    users = model.user_vectors(batch["user"], batch["history"], domain)
    everything = torch.cat([item, *negatives])
    domains = torch.cat([domain, *(torch.full_like(n, d) for d, n in enumerate(negatives))])
    vectors = model.item_vectors(everything, domains)
    positive = (users * vectors[: len(item)]).sum(1)
    losses = torch.zeros(len(item))
    start = len(item)
    for d, ids in enumerate(negatives):
        scores = users @ vectors[start : start + len(ids)].T - torch.log(torch.tensor(len(ids) / catalogue_sizes[d]))
        scores = scores.masked_fill(item.unsqueeze(1) == ids.unsqueeze(0), -torch.inf)
        logits = torch.cat([positive.unsqueeze(1), scores], 1)
        loss = F.cross_entropy(logits, torch.zeros(len(item), dtype=torch.int64), reduction="none")
        losses = torch.where(domain == d, loss, losses)
        start += len(ids)
    return losses


def row_loss(model: PlainADI, batch: dict[str, Tensor]) -> Tensor:
    """(b,) softmax losses of each row against negatives of its own."""
    domain = batch["domain"]
    users = model.user_vectors(batch["user"], batch["history"], domain)
    items = torch.cat([batch["item"].unsqueeze(1), batch["negatives"]], 1)  # (b, 1 + n)
    vectors = model.item_vectors(items.flatten(), domain.repeat_interleave(items.shape[1])).view(*items.shape, -1)
    scores = (users.unsqueeze(1) * vectors).sum(2)
    return F.cross_entropy(scores, torch.zeros(len(items), dtype=torch.int64), reduction="none")


@torch.no_grad()
def copy_weights(plain: PlainADI, model: TwoTower) -> None:
    """Give the baseline the weights and statistics of ADI, so that both are the same function."""
    for side in ("user", "item"):
        tower, fields = getattr(model, side), getattr(plain, f"{side}_fields")
        _copy_fields(fields, tower.embedding)
        getattr(plain, f"{side}_domain").weight.copy_(tower.embedding.domain.weight)
        _copy_network(getattr(plain, f"{side}_network"), tower.network)
    plain.history_table.weight.copy_(model.user.embedding.tables[HISTORY].weight)
    plain.item_bias.weight.copy_(model.bias.weight)


def _copy_fields(plain: PlainFields, embedding: FeatureEmbedding) -> None:
    for name, table in plain.tables.items():
        table.weight.copy_(embedding.tables[name].weight)
    plain.dense.load_state_dict(embedding.dense.state_dict())


def _copy_network(plain: PlainNetwork, network: ADINetwork) -> None:
    if isinstance(network.adaptation, SEBlock):
        for d, se in enumerate(plain.se):
            _copy_linear(se.squeeze, network.adaptation.squeeze, d)
            _copy_linear(se.excite, network.adaptation.excite, d)
    _copy_norm(plain.input_norm, network.input_norm)
    for d in range(len(plain.specific)):
        for i, layer in enumerate(plain.specific[d].layers):
            _copy_linear(layer, network.specific.layers[i], d)
            _copy_norm(plain.specific[d].norms[i], network.specific.norms[i], first=d)
        _copy_linear(plain.gate_specific[d], network.fusion.gate_specific, d)
        _copy_linear(plain.gate_shared[d], network.fusion.gate_shared, d)
        _copy_linear(plain.heads[d], network.forward_network, d)
    for k, expert in enumerate(plain.shared):
        for i, layer in enumerate(expert.layers):
            _copy_linear(layer, network.shared.mlp.layers[i], k)
            _copy_norm(expert.norms[i], network.shared.mlp.norms[i], column=k * layer.out_features)
        _copy_linear(plain.gate[k], network.shared.gate, k)


def _copy_linear(plain: nn.Linear, stacked: StackedLinear, network: int) -> None:
    plain.weight.copy_(stacked.weight[network].T)
    plain.bias.copy_(stacked.bias[network])


def _copy_norm(plain: PlainNorm, norm: DomainBatchNorm, *, first: int = 0, column: int = 0) -> None:
    for d, own in enumerate(plain.norms, start=first):
        part = slice(column, column + own.num_features)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(own, name).copy_(getattr(norm, name)[d, part])


def _check(config: ModelConfig, data: MultiDomainDataset) -> None:
    if not data.schema.history:
        raise ValueError(f"the plain baseline reads histories, which {data.name!r} does not have")
    if ITEM_ID not in (f.name for f in data.schema.item):
        raise ValueError(f"the plain baseline needs an item feature called {ITEM_ID!r}; {data.name!r} has none")
    covered = ModelConfig(
        method="adi", dim=config.dim, out_dim=config.out_dim, hidden=config.hidden, num_shared=config.num_shared,
        adaptation=config.adaptation if config.adaptation in ("none", "se") else "se", temperature=config.temperature,
        embedding_std=config.embedding_std, equal_size=config.equal_size,
    )  # fmt: skip
    if config != covered:
        differs = [k for k, v in covered.model_dump().items() if getattr(config, k) != v]
        raise ValueError(f"the plain baseline is ADI with its default settings; these differ: {', '.join(differs)}")
    if small := [name for name, c in zip(data.domains, data.catalogues, strict=True) if len(c) < 2]:
        raise ValueError(f"negatives need two items in every catalogue; too small: {', '.join(small)}")
