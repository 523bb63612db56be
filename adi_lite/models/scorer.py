"""A trained model as a scorer: scores of a domain's whole catalogue for any users of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from adi_lite.data.batches import InputBuilder
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.two_tower import TwoTower


class ModelScorer:
    """Scores users of a data set with one model, or with a model for each domain (DNN-Single).

    Args:
        models: the model of each domain number; the same object may serve all.
        data: whose users, histories and catalogues are read.
        chunk: users embedded at a time.
    """

    def __init__(
        self,
        models: Mapping[int, TwoTower],
        data: MultiDomainDataset,
        *,
        chunk: int = 4096,
    ) -> None:
        self.models, self.data, self.chunk = dict(models), data, chunk
        self.inputs = InputBuilder(data)
        self._items: dict[int, Tensor] = {}
        for model in self.models.values():
            model.eval()

    def on(self, data: MultiDomainDataset) -> ModelScorer:
        """The same models over other columns, histories or catalogues, such as those of ``data.as_of("test")``."""
        return ModelScorer(self.models, data, chunk=self.chunk)

    @torch.no_grad()
    def item_vectors(self, domain: int) -> Tensor:
        """(n, width) vectors of the domain's catalogue, in its order; computed once."""
        if domain not in self._items:
            model, rows = self._model(domain), self.data.catalogues[domain]
            parts = [
                model.item_vectors(self.inputs.items_in(r, domain).to(model.device)) for r in rows.split(self.chunk)
            ]
            self._items[domain] = torch.cat(parts)
        return self._items[domain]

    @torch.no_grad()
    def user_vectors(self, users: Tensor, domain: int) -> Tensor:
        """(n, width) vectors of users in a domain."""
        model = self._model(domain)
        inputs = (self.inputs.users_in(u, domain).to(model.device) for u in users.split(self.chunk))
        return torch.cat([model.user_vectors(i) for i in inputs])

    def scores(self, users: Tensor, domain: int) -> Tensor:
        """(n, size of the catalogue) scores, higher is better."""
        return self.prepare(users, domain)(slice(None))

    def prepare(self, users: Tensor, domain: int) -> Callable[[slice], Tensor]:
        """Embeds all ``users`` at once; gives the scores of a slice of them."""
        vectors, items = self.user_vectors(users, domain), self.item_vectors(domain).T
        return lambda part: vectors[part] @ items

    def num_parameters(self) -> dict[str, int]:
        """Trained parameters of the networks and of the embeddings, all models together.

        Models of single domains hold tables of all rows, of which each trains its own; they are counted once.
        """
        distinct = {id(m): m for m in self.models.values()}.values()
        counts = [m.num_parameters() for m in distinct]
        return {
            "networks": sum(c["networks"] for c in counts),
            "embeddings": counts[0]["embeddings"],
        }

    def _model(self, domain: int) -> TwoTower:
        try:
            return self.models[domain]
        except KeyError:
            raise ValueError(f"no model was trained for domain {self.data.domains[domain]!r}") from None
