"""Each arm's model retrieves, one auction for all arms sells the slots, the simulator's truth clicks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from adi_lite.data.simulation.truth import Truth
from adi_lite.evaluation.online.auction import hold_auction
from adi_lite.evaluation.online.chance import CLICK, NOISE, normal, uniform
from adi_lite.evaluation.online.outcomes import FIGURES, Outcomes, assign_arms
from adi_lite.evaluation.online.requests import Requests
from adi_lite.evaluation.scorer import Scorer

_CHUNK_SCORES = 1 << 22
"""Scores held at a time: bounds the memory."""


@torch.no_grad()
def run_auctions(
    scorers: Mapping[str, Scorer],
    truth: Truth,
    requests: Requests,
    *,
    k: int = 100,
    slots: int = 4,
    noise: float = 0.3,
    seed: int = 0,
) -> Outcomes:
    """Answer every simulated request in every arm (Section 6).

    For a request, an arm retrieves the ``k`` items of the domain's catalogue that its scorer likes best. What follows is
    the same in all arms: a ranking model estimates click probabilities, the true ones times log-normal noise of the
    pair (user, item); slots go by ``bid * estimate`` at generalised second prices (:func:`hold_auction`); an ad that is
    shown is clicked with its true probability, whatever its slot. Noise and clicks are common to the arms: the same
    user meets the same estimate, and an ad that both arms show for the same request is clicked in both or in neither.
    Models and ranking do not learn from the test, so that a user gets the same ads at each of her requests in a domain.

    Retrieval and auction are done once for each (user, domain); memory grows with requests and arms only, by five
    float64 each.

    Args:
        scorers: the model of each arm by name. An item with a score of -inf is never retrieved. Items that tie at the
            end of the k are cut as ``torch.topk`` happens to.
        truth: the world's truth.
        requests: from :func:`draw_requests`.
        k: items retrieved for a request; a smaller catalogue is retrieved whole.
        slots: ads shown for a request; fewer if fewer are retrieved.
        noise: standard deviation of the logarithm of the ranking model's error.
        seed: of noise, clicks and the assignment of users to arms.

    Raises:
        ValueError: no arm, no request, an unknown user or domain, scores of another shape or NaN, or a setting out of
            range.
    """
    _check(scorers, truth, requests, k, slots, noise, seed)
    figures = {name: np.zeros((len(scorers), len(requests))) for name in FIGURES}
    bids = truth.bids.double().numpy()
    for domain, users, rows, of_user in _chunks(truth, requests):
        catalogue = truth.world.catalogues[domain]
        probability = truth.click_probabilities(torch.from_numpy(users), domain).double().numpy()
        for arm, (name, scorer) in enumerate(scorers.items()):
            column = _retrieve(scorer, name, users, domain, len(catalogue), k)
            item, chance = catalogue[column], np.take_along_axis(probability, column, 1)
            estimate = chance * np.exp(noise * normal(seed, NOISE, domain, users[:, None], item))
            sale = hold_auction(bids[item, domain], estimate, slots, present=column >= 0)
            shown, place = sale.winner >= 0, sale.winner.clip(min=0)
            item, chance = np.take_along_axis(item, place, 1), np.where(shown, np.take_along_axis(chance, place, 1), 0)
            clicked = uniform(seed, CLICK, rows[:, None], item[of_user]) < chance[of_user]
            price = sale.price
            figures["impressions"][arm, rows] = shown.sum(1)[of_user]
            figures["clicks"][arm, rows] = clicked.sum(1)
            figures["revenue"][arm, rows] = (clicked * price[of_user]).sum(1)
            figures["expected_clicks"][arm, rows] = chance.sum(1)[of_user]
            figures["expected_revenue"][arm, rows] = (chance * price).sum(1)[of_user]
    return Outcomes(
        arms=tuple(scorers),
        domains=truth.config.domains,
        user=requests.user,
        domain=requests.domain,
        day=requests.day,
        group=assign_arms(requests.user, len(scorers), seed),
        settings={"k": k, "slots": slots, "noise": noise, "seed": seed},
        **figures,
    )


def _chunks(truth: Truth, requests: Requests) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Pieces of a domain's distinct users: domain, users (b,), rows of their requests (r,), number in users (r,)."""
    for domain, catalogue in enumerate(truth.world.catalogues):
        rows = np.flatnonzero(requests.domain == domain)
        users, number = np.unique(requests.user[rows], return_inverse=True)
        order = np.argsort(number, kind="stable")
        ends = np.concatenate([[0], np.bincount(number, minlength=len(users)).cumsum()])
        size = max(1, _CHUNK_SCORES // len(catalogue))
        for first in range(0, len(users), size):
            part = order[ends[first] : ends[min(first + size, len(users))]]
            yield domain, users[first : first + size], rows[part], number[part] - first


def _retrieve(scorer: Scorer, name: str, users: np.ndarray, domain: int, num_items: int, k: int) -> np.ndarray:
    """(b, min(k, n)) columns of the catalogue, ascending so that the order of scores cannot decide ties of the auction;
    -1 in place of items with a score of -inf."""
    scores = scorer.scores(torch.from_numpy(users), domain)
    if scores.shape != (len(users), num_items):
        raise ValueError(
            f"arm {name!r} gave scores of shape {tuple(scores.shape)} for {len(users)} users and the {num_items} items "
            f"of domain {domain}"
        )
    if bool(torch.isnan(scores).any()):
        raise ValueError(f"arm {name!r} gave scores that are NaN in domain {domain}")
    best, column = scores.topk(min(k, num_items), sorted=False)
    return column.masked_fill(best == -torch.inf, -1).sort(1).values.cpu().numpy()


def _check(
    scorers: Mapping[str, Scorer], truth: Truth, requests: Requests, k: int, slots: int, noise: float, seed: int
) -> None:
    if not scorers:
        raise ValueError("a test needs at least one arm")
    if not len(requests):
        raise ValueError("there is no request: raise days or volume of the draw")
    for name, value in (("k", k), ("slots", slots)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"noise must be at least 0, got {noise!r}")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")
    for name, values, size in (
        ("user", requests.user, truth.config.users),
        ("domain", requests.domain, truth.config.num_domains),
    ):
        if values.min() < 0 or values.max() >= size:
            wrong = values[(values < 0) | (values >= size)][0]
            raise ValueError(f"a request names {name} {wrong}, but they are numbered 0…{size - 1}")
