"""What becomes of the paper's claims: each one a paired comparison of lines of a plan, domain by domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from adi_lite.evaluation.intervals import Interval, interval_from, resampled_means
from adi_lite.evaluation.results import Evaluation
from adi_lite.evaluation.significance import AVERAGE, holm
from adi_lite.experiments.plans import Claim
from adi_lite.experiments.runner import PlanResult
from adi_lite.experiments.tables import LEVEL

HOLDS, OPEN, REVERSED = "holds", "open", "does not hold"


@dataclass(frozen=True)
class Judgement:
    """What became of a claim in one domain, or on average.

    Attributes:
        outcome: ``holds`` if the line is ahead of every line that it is said to beat, each time with a corrected p below
            0.05; ``does not hold`` if one of them is ahead of it with such a p; ``open`` otherwise.
        margin: its lead over the best of the others, with a 95 % interval; negative where it is behind.
        number: of the domain, from 0; None on average.
    """

    claim: Claim
    domain: str
    outcome: str
    margin: Interval
    number: int | None = None

    @property
    def lead(self) -> str:
        """The margin with its interval."""
        return f"{signed(self.margin.estimate)} [{signed(self.margin.low)}, {signed(self.margin.high)}]"

    @property
    def column(self) -> str:
        """Which domain it is of, by number, as data sets call theirs differently."""
        return AVERAGE if self.number is None else f"domain {self.number + 1}"

    def __str__(self) -> str:
        return f"{self.outcome}, {self.lead}"


def signed(value: float, digits: int = 3) -> str:
    """With its sign, but for what rounds to zero."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def judge(
    result: PlanResult, protocol: str | None = None, metric: str | None = None, *, num_resamples: int = 2000
) -> list[Judgement]:
    """Every claim of a plan in each of its domains and on average over them; p values corrected within a claim (Holm).

    Args:
        protocol, metric: by default those that the paper's table shows.
        num_resamples: draws of users, as in :func:`~adi_lite.evaluation.intervals.two_level_bootstrap`.
    """
    plan = result.plan
    protocol, metric = protocol or plan.protocols[0], metric or plan.metric
    asked = [c for c in plan.claims if {c.better, *c.worse} <= set(result.runs)]
    if not asked:
        return []
    labels = list(dict.fromkeys(label for c in asked for label in (c.better, *c.worse)))
    evaluations = result.evaluations(protocol)
    runs = [run for label in labels for run in evaluations[label]]
    ends = np.cumsum([len(evaluations[label]) for label in labels])[:-1]
    seeds = dict(zip(labels, np.split(np.arange(len(runs)), ends), strict=True))
    first = runs[0]
    columns = np.stack([run.metrics[metric] for run in runs])
    point, resampled = resampled_means(columns, first.user, first.domain, num_resamples, 0)
    present = np.unique(first.domain).tolist()
    found = []
    for claim in asked:
        where = [i for i, d in enumerate(present) if claim.domains is None or d in claim.domains]
        parts = {first.domains[present[i]]: (point[i], resampled[:, i], first.domain == present[i]) for i in where}
        if len(where) > 1:
            inside = np.isin(first.domain, [present[i] for i in where])
            parts[AVERAGE] = (point[where].mean(0), resampled[:, where].mean(1), inside)
        found += _judge(claim, parts, seeds, first)
    return found


def _judge(claim: Claim, parts: Mapping, seeds: Mapping[str, np.ndarray], first: Evaluation) -> list[Judgement]:
    margins = {
        domain: [
            interval_from(means, draws, [seeds[claim.better], seeds[worse]], len(np.unique(first.user[inside])))
            for worse in claim.worse
        ]
        for domain, (means, draws, inside) in parts.items()
    }
    corrected = holm([m.p_value for each in margins.values() for m in each])
    out = []
    for (domain, each), p in zip(margins.items(), corrected.reshape(len(margins), -1), strict=True):
        lead = np.array([m.estimate for m in each])
        significant = p < LEVEL
        outcome = REVERSED if (significant & (lead < 0)).any() else HOLDS if significant.all() else OPEN
        number = None if domain == AVERAGE else first.domains.index(domain)
        out.append(Judgement(claim, domain, outcome, each[int(lead.argmin())], number))
    return out


def claims_table(judgements: Mapping[str, list[Judgement]]) -> pd.DataFrame:
    """A row for each claim and data set; columns are domains by number, and their average: outcome, margin, interval."""
    return _by_claim(judgements, lambda j: f"{j.outcome}\n{j.lead}")


def at_a_glance(judgements: Mapping[str, list[Judgement]]) -> pd.DataFrame:
    """As :func:`claims_table`, in signs: outcome and margin."""
    mark = {HOLDS: "✓", OPEN: "?", REVERSED: "✗"}
    return _by_claim(judgements, lambda j: f"{mark[j.outcome]} {signed(j.margin.estimate)}")


def _by_claim(judgements: Mapping[str, list[Judgement]], cell: Callable[[Judgement], str]) -> pd.DataFrame:
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for name, each in judgements.items():
        for j in each:
            rows.setdefault((j.claim.text, name), {})[j.column] = cell(j)
    columns = sorted({c for row in rows.values() for c in row} - {AVERAGE})
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["claim", "data"])
    return table.reindex(columns=[*columns, AVERAGE]).fillna("")
