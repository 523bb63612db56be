"""Paper | here, side by side: what a plan's runs say about each figure of the paper, with intervals over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from adi_lite.data.paper import paper_table
from adi_lite.evaluation.significance import seed_interval
from adi_lite.experiments.runner import PlanResult

AVERAGE = "average"


def values(result: PlanResult, protocol: str, metric: str) -> pd.DataFrame:
    """Long form, a row for each run and domain: label, title, seed, domain (and the average), value."""
    rows = []
    for label, evaluations in result.evaluations(protocol).items():
        title = result.plan.row(label).title
        for seed, evaluation in enumerate(evaluations):
            each = {name: m[metric] for name, m in evaluation.per_domain().items()}
            each[AVERAGE] = evaluation.average()[metric]
            rows += [(label, title, seed, domain, value) for domain, value in each.items()]
    return pd.DataFrame(rows, columns=["label", "title", "seed", "domain", "value"])


def summary(result: PlanResult, protocol: str, metric: str) -> pd.DataFrame:
    """A row for each line and domain: mean over seeds, 95 % interval (low, high; NaN for one seed), paper's figure.

    Columns: label, title, domain, seeds, mean, low, high, paper.
    """
    rows = []
    for (label, title, domain), group in values(result, protocol, metric).groupby(
        ["label", "title", "domain"], sort=False
    ):
        numbers = group["value"].to_numpy()
        low, high = seed_interval(numbers)[1:] if len(numbers) > 1 else (np.nan, np.nan)
        rows.append((label, title, domain, len(numbers), numbers.mean(), low, high))
    table = pd.DataFrame(rows, columns=["label", "title", "domain", "seeds", "mean", "low", "high"])
    return table.assign(paper=[_paper(result, r.label, r.domain, metric) for r in table.itertuples()])


def side_by_side(result: PlanResult, protocol: str, metric: str, digits: int = 3) -> pd.DataFrame:
    """The table that a page shows: for each line, domain by domain, the paper's figure and ours ± half the interval."""
    table = summary(result, protocol, metric)
    columns: dict[tuple[str, str], list[str]] = {}
    titles = list(dict.fromkeys(table["title"]))
    for domain in dict.fromkeys(table["domain"]):
        part = table[table["domain"] == domain].set_index("title")
        if result.plan.paper_table is not None:
            columns[domain, "paper"] = [_number(part.loc[t, "paper"], digits) for t in titles]
        columns[domain, "here"] = [_with_interval(part.loc[t], digits) for t in titles]
    return pd.DataFrame(columns, index=pd.Index(titles, name="method"))


@dataclass(frozen=True)
class Verdict:
    """What became of one claim: ``holds``, ``does not hold`` or ``undecided``, and the figures that say so."""

    claim: str
    outcome: str
    because: str


def kendall(result: PlanResult, protocol: str, metric: str) -> pd.DataFrame:
    """By domain, Kendall's tau-b between the paper's order of the methods and ours (1: same order, -1: reversed)."""
    table = summary(result, protocol, metric).dropna(subset="paper")
    rows = [
        (domain, len(part), float(stats.kendalltau(part["paper"], part["mean"]).statistic))
        for domain, part in table.groupby("domain", sort=False)
    ]
    return pd.DataFrame(rows, columns=["domain", "methods", "tau"])


def best_claim(result: PlanResult, protocol: str, metric: str, label: str, comparison: pd.DataFrame) -> Verdict:
    """Whether ``label`` is the best of all lines on average, judged by paired tests (``significance.compare``).

    ``comparison`` holds, for the other lines, the difference of each *to* ``label`` and its Holm-corrected p-value.
    """
    title = result.plan.row(label).title
    claim = f"{title} has the best average {metric}"
    table = summary(result, protocol, metric)
    average = table[table["domain"] == AVERAGE].set_index("label")
    best = average["mean"].idxmax()
    own = average.loc[label, "mean"]
    if best != label:
        top = average.loc[best]
        row = _find(comparison, best, metric)
        outcome = "does not hold" if row is not None and row["p_holm"] < 0.05 else "undecided"
        return Verdict(claim, outcome, f"{top['title']} has {top['mean']:.4f}, {title} {own:.4f}{_p(row)}")
    second = average.drop(label)["mean"].idxmax()
    row = _find(comparison, second, metric)
    outcome = "holds" if row is not None and row["p_holm"] < 0.05 else "undecided"
    runner_up = average.loc[second]
    return Verdict(claim, outcome, f"{title} has {own:.4f}, next {runner_up['title']} {runner_up['mean']:.4f}{_p(row)}")


def _find(comparison: pd.DataFrame, label: str, metric: str) -> pd.Series | None:
    part = comparison[(comparison["method"] == label) & (comparison["metric"] == metric)]
    part = part[part["domain"] == AVERAGE]
    return None if part.empty else part.iloc[0]


def _p(row: pd.Series | None) -> str:
    if row is None or not np.isfinite(row["p_holm"]):
        return ""
    return f" (p = {row['p_holm']:.2g} after Holm)" if row["p_holm"] >= 1e-4 else " (p < 0.0001 after Holm)"


def _paper(result: PlanResult, label: str, domain: str, metric: str) -> float:
    """The figure that the paper prints for a line, or NaN."""
    name = result.plan.row(label).paper
    if not name or result.plan.paper_table is None:
        return np.nan
    names = {d: f"D{i + 1}" for i, d in enumerate(result.domains)} | {AVERAGE: "avg"}
    printed = paper_table(result.plan.paper_table)
    match = printed[
        (printed["method"] == name) & (printed["domain"] == names[domain]) & (printed["metric"] == metric.lower())
    ]
    return float(match["value"].iloc[0]) if len(match) else np.nan


def _number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _with_interval(row: pd.Series, digits: int) -> str:
    text = f"{row['mean']:.{digits}f}"
    return text if np.isnan(row["low"]) else f"{text} ± {(row['high'] - row['low']) / 2:.{digits}f}"
