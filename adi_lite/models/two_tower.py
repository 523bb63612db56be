"""The frame that all methods share: a user tower and an item tower whose vectors meet in an inner product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite.data.batches import HISTORY, Inputs
from adi_lite.data.schema import Feature, Schema
from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import build_network
from adi_lite.nn.embedding import FeatureEmbedding, MakeTable, module_key, whole_table
from adi_lite.nn.precision import wide
from adi_lite.nn.unit import unit

USER_ID, ITEM_ID = "user_id", "item_id"
"""Names of the features that identify a row."""


class Tower(nn.Module):
    """Embedding, the method's network, and perhaps a shortcut around it: inputs of b rows -> (b, out_dim)."""

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        features: tuple[Feature, ...],
        history_items: int | None,
        table: MakeTable = whole_table,
    ) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(
            features,
            num_domains,
            config.dim,
            history_items=history_items,
            domain_field=config.shows_domain,
            sparse=config.sparse_embeddings,
            std=config.embedding_std,
            table=table,
        )
        self.network = build_network(config, num_domains, self.embedding.num_fields)
        self.final_relu = config.final_relu
        self.gain = nn.Parameter(torch.tensor(config.residual_gain)) if config.residual else None

    def forward(self, inputs: Inputs) -> Tensor:
        fields, f_domain = self.embedding(inputs)
        out = wide(self.network(fields, f_domain, inputs.counts))
        if self.gain is not None:
            own = fields[:, :-1] if self.embedding.domain_field else fields
            out = own.mean(1) + self.gain * out
        return F.relu(out) if self.final_relu else out


class TwoTower(nn.Module):
    """A retrieval model f(v | u, d) (Eq. 1): the inner product of a user's and an item's vector, both in domain d.

    The vectors already hold all of the score: with ``similarity="cosine"`` they are unit vectors, the user's divided by
    the temperature, and an item's learned bias is one more coordinate, which is 1 for every user. So any index for
    inner products retrieves with them as they are.

    Args:
        config: the model's settings.
        schema: domains and features.
        num_items: rows of items, for the history's embedding table.
        table: makes the embedding tables; by default whole and in memory.
    """

    def __init__(self, config: ModelConfig, schema: Schema, num_items: int, *, table: MakeTable = whole_table) -> None:
        super().__init__()
        self.config = config
        self.user = Tower(config, schema.num_domains, *_user_fields(config, schema, num_items), table)
        self.item = Tower(config, schema.num_domains, schema.item, None, table)
        self.num_domains = schema.num_domains
        if config.tie_history and config.user != "id":
            own = module_key(ITEM_ID)
            if own not in self.item.embedding.tables:
                raise ValueError(f"tie_history needs an item feature called {ITEM_ID!r}")
            self.user.embedding.tables[HISTORY] = self.item.embedding.tables[own]
        self.bias: nn.Embedding | None = None
        if config.item_bias:
            codes = next((f.size for f in schema.item if f.name == ITEM_ID), None)
            if codes is None:
                raise ValueError(f"item_bias needs an item feature called {ITEM_ID!r}")
            self.bias = table(codes * schema.num_domains, 1, 0.0, config.sparse_embeddings)

    def user_vectors(self, inputs: Inputs) -> Tensor:
        """(b, width) vectors of users in their domains."""
        out = self.encode_users(inputs)
        return out if self.bias is None else torch.cat([out, out.new_ones(len(out), 1)], 1)

    def item_vectors(self, inputs: Inputs) -> Tensor:
        """(b, width) vectors of items in their domains."""
        out, bias = self.encode_items(inputs)
        return out if bias is None else torch.cat([out, bias], 1)

    def encode_users(self, inputs: Inputs) -> Tensor:
        """(b, out_dim) the vectors of users without the coordinate for an item's bias."""
        out = self.user(inputs)
        return unit(out, 1 / self.config.temperature) if self.config.similarity == "cosine" else out

    def encode_items(self, inputs: Inputs) -> tuple[Tensor, Tensor | None]:
        """(b, out_dim) the vectors of items without their bias, and (b, 1) the bias, where the model has one."""
        out = self.item(inputs)
        if self.config.similarity == "cosine":
            out = unit(out)
        if self.bias is None:
            return out, None
        return out, self.bias(inputs.features[ITEM_ID] * self.num_domains + inputs.domain)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def num_parameters(self) -> dict[str, int]:
        """Parameters of the embedding tables (``embeddings``) and of everything else (``networks``).

        All rows of a table count, those of other processes too.
        """
        whole = {
            id(m.weight): m.num_embeddings * m.embedding_dim for m in self.modules() if isinstance(m, nn.Embedding)
        }
        sizes = {id(p): whole.get(id(p), p.numel()) for p in self.parameters()}  # a tied table is one parameter
        of_tables = {id(p) for tower in (self.user, self.item) for p in tower.embedding.parameters()}
        of_tables |= {id(self.bias.weight)} if self.bias is not None else set()
        embeddings = sum(sizes[p] for p in of_tables)
        return {"networks": sum(sizes.values()) - embeddings, "embeddings": embeddings}


def _user_fields(config: ModelConfig, schema: Schema, num_items: int) -> tuple[tuple[Feature, ...], int | None]:
    if config.user != "id" and not schema.history:
        raise ValueError(f"user={config.user!r} needs a data set with histories; use user='id'")
    features = tuple(f for f in schema.user if config.user != "history" or f.name != USER_ID)
    return features, (num_items if config.user != "id" else None)
