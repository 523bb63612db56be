"""Self-training: pseudo-labels across domains (paper, Section 4.3, Algorithm 1, Eq. 27)."""

from __future__ import annotations

import torch
from torch import Tensor

from adi_lite.data.batches import Batch, InputBuilder, sort_by_domain
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.two_tower import TwoTower
from adi_lite.training.config import SelfTrainingConfig
from adi_lite.training.ranks import OneProcess, cut, length


class SelfTraining:
    """Chooses, for each batch, records of one domain that shall count as positives in another as well.

    A record (u, v) of domain i is scored by the frozen model in every other domain j that can show v. Of each pair
    (i, j), the top share p of domain i's records in the batch become pseudo-labels (u, v) in j. The model is in
    evaluation mode meanwhile, so that scoring moves no running statistic.

    Records whose item domain j cannot show are no candidates: j never retrieves them.

    Args:
        data: the training data.
        config: the portion p, and which score ranks.
        ranks: the processes that share each batch. Each scores its share of the candidates, and all choose alike from the
            scores of all.
    """

    def __init__(self, data: MultiDomainDataset, config: SelfTrainingConfig, ranks: OneProcess | None = None) -> None:
        self.config, self.num_domains, self.ranks = config, data.num_domains, ranks or OneProcess()
        self.inputs = InputBuilder(data)
        self.shown = torch.zeros(data.num_domains, data.num_items, dtype=torch.bool)
        for d, catalogue in enumerate(data.catalogues):
            self.shown[d, catalogue] = True

    @torch.no_grad()
    def pseudo_labels(self, model: TwoTower, batch: Batch, portion: float) -> Batch:
        """The batch's pseudo-labels, sorted by their new domain. ``portion`` is p, from 0 to 1."""
        source, target = self._pairs(batch)
        if portion == 0.0 or len(source) == 0:
            return take(batch, source[:0], target[:0], self.num_domains)
        candidates = take(batch, source, target, self.num_domains)
        was_training = model.training
        model.eval()
        scores = self._scores(model, candidates)
        model.train(was_training)
        keep = self._top(scores, batch.domain[source], target, batch.counts, portion)
        return take(batch, source[keep], target[keep], self.num_domains)

    def _pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """All (row of the batch, other domain that can show its item), sorted by domain: two (k,) tensors."""
        possible = self.shown[:, batch.item] & (torch.arange(self.num_domains).unsqueeze(1) != batch.domain)
        target, source = possible.nonzero(as_tuple=True)
        return source, target

    def _scores(self, model: TwoTower, pairs: Batch) -> Tensor:
        """(k,) f(u, v | j), line 9 of Algorithm 1, or its probability among the batch's items of domain j."""
        ranks, own = self.ranks, self.ranks.share(len(pairs))
        inputs = self.inputs.users(pairs.user, pairs.domain, pairs.counts, target=pairs.item)
        users = model.user_vectors(ranks.to_device(ranks.part(inputs, own)))
        inputs = self.inputs.items(pairs.item, pairs.domain, pairs.counts)
        items = model.item_vectors(ranks.to_device(ranks.part(inputs, own)))
        scores = (users * items).sum(1)
        if self.config.score == "probability":
            of_domains = ranks.gather(items, len(pairs)).split(list(pairs.counts))
            parts = zip(users.split([length(rows) for rows in cut(pairs.counts, own)]), of_domains, strict=True)
            scores = scores - torch.cat([torch.logsumexp(u @ v.T, 1) if len(u) else u.sum(1) for u, v in parts])
        return ranks.gather(scores.unsqueeze(1), len(pairs)).squeeze(1).cpu()

    def _top(
        self,
        scores: Tensor,
        i: Tensor,
        j: Tensor,
        counts: tuple[int, ...],
        portion: float,
    ) -> Tensor:
        """Row numbers of the pairs to keep: the best ``portion * counts[i]`` of each (i, j), at least one."""
        kept = []
        for source in range(self.num_domains):
            for target in range(self.num_domains):
                group = ((i == source) & (j == target)).nonzero().squeeze(1)
                if len(group):
                    k = min(len(group), max(1, round(portion * counts[source])))
                    kept.append(group[torch.topk(scores[group], k).indices])
        return torch.cat(kept).sort().values


def take(batch: Batch, rows: Tensor, domain: Tensor, num_domains: int) -> Batch:
    """Rows of a batch as records of ``domain``."""
    return sort_by_domain(
        batch.user[rows],
        batch.item[rows],
        domain,
        torch.full_like(rows, -1),
        num_domains,
    )


def merge(batch: Batch, pseudo: Batch, num_domains: int) -> Batch:
    """Real and pseudo records in one batch sorted by domain; ``record`` is -1 for the latter."""
    parts = [torch.cat([getattr(b, name) for b in (batch, pseudo)]) for name in ("user", "item", "domain", "record")]
    return sort_by_domain(*parts, num_domains)
