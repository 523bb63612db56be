"""What only the simulator knows: the scores records were drawn by, click probabilities, importance of features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adi_lite.data.schema import Interactions, Ragged
from adi_lite.data.simulation.columns import describe_features
from adi_lite.data.simulation.config import SimulatorConfig
from adi_lite.data.simulation.terms import BAGS, TERMS, weights
from adi_lite.data.simulation.utility import DomainUtility, personal
from adi_lite.data.simulation.world import KINDS, World

CHUNK = 512
"""Users whose whole catalogue is scored at a time."""


@dataclass(frozen=True)
class Truth:
    """The generative model of one simulated data set.

    Attributes:
        config: its parameters.
        world: its items.
        utility: the utility in each domain.
        active: (users, D) bool, where each user is active.
        kind: (users,) kind of each user.
        means: (users, 3 + D, r) mean topics of the user's bags.
        past_items, past_shares: distinct items of each user's past, and their shrunk shares of it.
    """

    config: SimulatorConfig
    world: World
    utility: tuple[DomainUtility, ...]
    active: np.ndarray
    kind: np.ndarray
    means: np.ndarray
    past_items: Ragged
    past_shares: Tensor

    @property
    def bids(self) -> Tensor:
        """(items, D) what an item offers for a click in each domain; 0 where it is not in the catalogue."""
        return torch.from_numpy(self.world.bids.astype(np.float32))

    @cached_property
    def weights(self) -> pd.DataFrame:
        """Weight of each term (rows) in each domain (columns)."""
        return pd.DataFrame(weights(self.config).T, [t.name for t in TERMS], list(self.config.domains))

    def scores(self, users: Tensor, domain: int) -> Tensor:
        """(b, n) log probability of each item of the domain's catalogue, in its order, to be the item of a record.

        This is the distribution that records are drawn from, so no scorer has a higher expected Recall@N.
        """
        return torch.log_softmax(torch.from_numpy(self._utility(users, domain)), dim=1).float()

    def click_probabilities(self, users: Tensor, domain: int) -> Tensor:
        """(b, n) probability that the user clicks an item of the domain's catalogue when she is shown it.

        ``max_ctr * exp(click part of the utility - bound of the user)``, so at most ``max_ctr``. If items are shown in
        proportion to exp(exposure part), the clicked ones are distributed as :meth:`scores` says.
        """
        value = self._utility(users, domain, "click")
        bound = value.max(1, keepdims=True)
        return torch.from_numpy(self.config.max_ctr * np.exp(value - bound)).float()

    def click_probability(self, users: Tensor, items: Tensor, domain: int) -> Tensor:
        """(b,) probability that ``users[i]`` clicks ``items[i]`` when it is shown to her in ``domain``.

        Raises:
            ValueError: an item is not in the domain's catalogue.
        """
        rows = self.world.catalogues[domain]
        place = np.searchsorted(rows, items.numpy()).clip(max=len(rows) - 1)
        if (wrong := rows[place] != items.numpy()).any():
            raise ValueError(
                f"item {int(items.numpy()[wrong][0])} is not in the catalogue of {self.config.domains[domain]}"
            )
        distinct, index = torch.unique(users, return_inverse=True)
        out = torch.empty(len(users))
        for first in range(0, len(distinct), CHUNK):
            table = self.click_probabilities(distinct[first : first + CHUNK], domain)
            mine = (index >= first) & (index < first + CHUNK)
            out[mine] = table[index[mine] - first, torch.from_numpy(place)[mine]]
        return out

    def best_recall(self, records: Interactions, k: int, domain: int) -> tuple[float, float]:
        """Recall@k of the oracle over the records of ``domain``: in expectation, and on the records themselves.

        The expectation is the mean over the records' users of the probability of the k likeliest items: the best that
        any scorer reaches over repeated draws. Ties have probability 0.
        """
        here = records.domain == domain
        user, item = records.user[here], records.item[here]
        if not len(user):
            raise ValueError(f"no record of domain {self.config.domains[domain]} to take a recall over")
        place = torch.from_numpy(np.searchsorted(self.world.catalogues[domain], item.numpy()))
        distinct, index, counts = torch.unique(user, return_inverse=True, return_counts=True)
        expected, hits = 0.0, 0
        for first in range(0, len(distinct), CHUNK):
            score = self.scores(distinct[first : first + CHUNK], domain)
            top = score.topk(min(k, score.shape[1])).values
            expected += float((top.exp().sum(1) * counts[first : first + CHUNK]).sum())
            mine = (index >= first) & (index < first + CHUNK)
            row = index[mine] - first
            hits += int((score[row, place[mine]] >= top[row, -1]).sum())
        return expected / len(user), hits / len(user)

    def label_overlap(self, records: Interactions, k: int = 100, max_records: int = 2_000) -> pd.DataFrame:
        """How far a record in one domain tells of the same user and item in another (Section 4.3).

        Of the records (u, v) in ``domain`` whose user is active in ``other_domain`` and whose item is in its catalogue,
        the first ``max_records``. Columns: domain, other_domain, records; ``own`` the share whose item is among the k
        likeliest of the same user in the other domain; ``stranger`` the same for the user of the next of these records,
        which leaves the popularity of the items as it is; ``lift`` the mean probability of v for u over that for the
        stranger. Pairs of domains without such records are left out.
        """
        rows = []
        for d, other in permutations(range(self.config.num_domains), 2):
            user, item = records.user[records.domain == d], records.item[records.domain == d]
            both = self.active[user.numpy(), other] & self.world.member[item.numpy(), other]
            both = torch.from_numpy(np.flatnonzero(both)[:max_records])
            if not len(both):
                continue
            place = torch.from_numpy(np.searchsorted(self.world.catalogues[other], item[both].numpy()))
            own = self._hits(user[both], place, other, k)
            stranger = self._hits(user[both].roll(1), place, other, k)
            names = self.config.domains[d], self.config.domains[other]
            rows.append((*names, len(both), own[0], stranger[0], own[1] / stranger[1]))
        return pd.DataFrame(rows, columns=["domain", "other_domain", "records", "own", "stranger", "lift"])

    def _hits(self, user: Tensor, place: Tensor, domain: int, k: int) -> tuple[float, float]:
        """Share of items (at ``place`` in the catalogue) among the k likeliest, and their mean probability."""
        hits, probability = 0.0, 0.0
        for first in range(0, len(user), CHUNK):
            score = self.scores(user[first : first + CHUNK], domain)
            chosen = score.gather(1, place[first : first + CHUNK, None])
            hits += float((chosen >= score.topk(min(k, score.shape[1])).values[:, -1:]).sum())
            probability += float(chosen.exp().sum())
        return hits / len(user), probability / len(user)

    def importance(self, side: str, max_users: int = 512) -> pd.DataFrame:
        """True importance of each feature of one side in each domain: a row for each feature, columns sum to 1.

        A feature's raw importance is the log likelihood, in nats a record, that is lost when the terms that read it are
        left out of the utility: KL(p || p without f) = E_p[x] + log E_p[exp(-x)] with x the sum of these terms, taken
        over the first ``max_users`` active users of the domain. Divided by the sum over the side's features.

        Raises:
            ValueError: ``side`` is neither "user" nor "item".
        """
        raw = self.importance_nats(side, max_users)
        return raw / raw.sum().where(raw.sum() > 0, 1.0)

    def importance_nats(self, side: str, max_users: int = 512) -> pd.DataFrame:
        """:meth:`importance` before the division."""
        if side not in ("user", "item"):
            raise ValueError(f"side is 'user' or 'item', not {side!r}")
        columns = {}
        for d, domain in enumerate(self.config.domains):
            users = torch.from_numpy(np.flatnonzero(self.active[:, d])[:max_users])
            log_p = torch.log_softmax(torch.from_numpy(self._utility(users, d)).double(), 1).numpy()
            columns[domain] = {
                f.name: self._loss_without(users, d, log_p, side, name) if of in (None, d) else 0.0
                for f, name, of in describe_features(self.config, side)
            }
            if side == "user":
                columns[domain]["history"] = self._loss_without(users, d, log_p, side, "history")
        return pd.DataFrame(columns)

    def _loss_without(self, users: Tensor, domain: int, log_p: np.ndarray, side: str, feature: str) -> float:
        names = [t.name for t in TERMS if getattr(t, side) == feature]
        if not names or not len(users):
            return 0.0
        x = self._terms(users, domain, names).astype(np.float64)
        if not x.any():
            return 0.0
        p = np.exp(log_p)
        return max(0.0, float(np.mean((p * x).sum(1) + np.log((p * np.exp(-x)).sum(1)))))

    def _utility(self, users: Tensor, domain: int, part: str | None = None) -> np.ndarray:
        """(b, n) float32 utility up to a constant of the user; ``part`` as in :meth:`DomainUtility.log_weight`."""
        names = [t.name for t in TERMS if part in (None, t.part)]
        return self._terms(users, domain, names)

    def _terms(self, users: Tensor, domain: int, names: list[str]) -> np.ndarray:
        """(b, n) float32 sum of the terms called ``names``."""
        utility, rows = self.utility[domain], self.world.catalogues[domain]
        user = users.numpy()
        value = np.zeros((len(user), len(rows)), dtype=np.float32)
        if fixed := [v for k, v in (*utility.profile.items(), *utility.item.items()) if k in names]:
            by_kind = (sum(fixed) + np.zeros((KINDS, 1))).astype(np.float32)
            value += by_kind[self.kind[user]]
        if keep := [b for b, name in enumerate(BAGS) if f"{name} x category" in names]:
            chosen = np.zeros_like(utility.bags)
            chosen[keep] = utility.bags[keep]
            of_category = personal(replace(utility, bags=chosen), self.means[user], domain)
            value += of_category[:, self.world.attributes["category"][rows]]
        if "history x item_id" in names:
            past = self.past_items.take(users)
            share = Ragged(self.past_shares, self.past_items.offsets).take(users).values.numpy()
            item, row = past.values.numpy(), past.row_of_value().numpy()
            here = self.world.member[item, domain]
            place = np.searchsorted(rows, item[here])
            np.add.at(value, (row[here], place), (utility.history * share[here]).astype(np.float32))
        return value
