"""Paper | here, side by side: what a plan's runs say about each figure of the paper, with intervals and verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from adi_lite.data.paper import paper_table
from adi_lite.evaluation.significance import AVERAGE, compare, kendall_tau, p_equals
from adi_lite.experiments.runner import PlanResult

LEVEL = 0.05


def summary(result: PlanResult, protocol: str, metric: str, against: str) -> pd.DataFrame:
    """A row for each line of a plan and each domain (and their average).

    Args:
        against: label of the line that all others are compared with, query by query.

    Returns:
        Columns label, title, domain, metric, seeds, queries, mean, low, high (95 %, over seeds and users), paper (NaN where it
        prints nothing), paper_metric (of that figure: the paper's own where small catalogues are measured at another cut-off),
        difference to ``against`` with difference_low and difference_high, p, p_holm.
    """
    table = compare(result.evaluations(protocol), against, metrics=[metric]).rename(columns={"method": "label"})
    table.insert(1, "title", [result.plan.row(label).title for label in table["label"]])
    same = protocol == result.plan.protocols[0]  # the paper measures in one way only
    printed = _printed(result, metric) if same else ""
    table["paper"] = [_paper(result, r.label, r.domain, printed) if printed else np.nan for r in table.itertuples()]
    table["paper_metric"] = printed
    keep = ["label", "title", "domain", "metric", "seeds", "queries", "mean", "low", "high", "paper", "paper_metric"]
    return table[[*keep, "difference", "difference_low", "difference_high", "p", "p_holm"]]


def side_by_side(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """What a page shows of a :func:`summary`: domain by domain, the paper's figure and ours ± half its interval."""
    titles, columns = list(dict.fromkeys(table["title"])), {}
    both = table["paper"].notna().any()
    of_paper = str(table["paper_metric"].iloc[0])
    paper = "paper" if of_paper in ("", table["metric"].iloc[0]) else f"paper, @{of_paper.partition('@')[2]}"
    for domain in dict.fromkeys(table["domain"]):
        part = table[table["domain"] == domain].set_index("title").loc[titles]
        if both:
            columns[domain, paper] = [_number(v, digits) for v in part["paper"]]
        columns[domain, "here"] = [
            f"{r.mean:.{digits}f} ± {(r.high - r.low) / 2:.{digits}f}" for r in part.itertuples(index=False)
        ]
    shown = pd.DataFrame(columns, index=pd.Index(titles, name=None))
    shown.columns = pd.MultiIndex.from_tuples(shown.columns) if both else [domain for domain, _ in shown.columns]
    return shown


@dataclass(frozen=True)
class Verdict:
    """What became of one claim: ``holds``, ``does not hold`` or ``open`` (see the book's page *Definitions*)."""

    claim: str
    outcome: str
    because: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.outcome}. {self.because}"


def best_on_average(table: pd.DataFrame, label: str, metric: str, *, among: tuple[str, ...] = ()) -> Verdict:
    """Whether ``label``, which the :func:`summary` compares with, beats each line (of ``among``) on average.

    It holds if the difference to every other line is in its favour with a corrected p below 0.05, does not hold if one
    line is ahead of it with such a p, and is open otherwise.
    """
    average = table[table["domain"] == AVERAGE].set_index("label")
    own, others = average.loc[label], average.drop(label)
    if among:
        others = others.loc[[name for name in among if name != label]]
    claim = f"{own['title']} has the best average {metric}"
    top = others.loc[others["mean"].idxmax()]
    significant = others["p_holm"] < LEVEL
    text = (
        f"{own['title']} {own['mean']:.4f}, best other {top['title']} {top['mean']:.4f}, difference "
        f"{-top['difference']:+.4f} [{-top['difference_high']:+.4f}, {-top['difference_low']:+.4f}], {_p(top['p_holm'])}"
    )
    if (significant & (others["difference"] > 0)).any():
        return Verdict(claim, "does not hold", text)
    if (significant & (others["difference"] < 0)).all():
        return Verdict(claim, "holds", text)
    return Verdict(claim, "open", text)


def orders(result: PlanResult, table: pd.DataFrame) -> pd.DataFrame:
    """By domain, Kendall's tau-b between the paper's order of the methods and ours: 1 the same order, -1 reversed, NaN if
    all of ours are equal."""
    rows = []
    printed = table.dropna(subset="paper")
    for domain in dict.fromkeys(printed["domain"]):
        part = printed[printed["domain"] == domain].set_index("label")
        tau, p = kendall_tau(part["mean"].to_dict(), part["paper"].to_dict())
        rows.append((domain, len(part), tau, p))
    return pd.DataFrame(rows, columns=["domain", "methods", "tau", "p"])


def cost(result: PlanResult) -> pd.DataFrame:
    """What each line has: parameters of its networks and of its embedding tables, and epochs of training.

    No times: the runs of a plan are made on different days and beside other work. Page 11 of the book has those.
    """
    rows = {}
    for label, runs in result.runs.items():
        about = runs[0].about
        neural = about["parameters"] is not None
        rows[result.plan.row(label).title] = {
            "network parameters": about["parameters"]["networks"] if neural else 0,
            "embedding parameters": about["parameters"]["embeddings"] if neural else 0,
            "epochs": len({e["epoch"] for e in about["epochs"]}) if neural else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _printed(result: PlanResult, metric: str) -> str:
    """The metric that the paper prints where ``metric`` is measured; the nearest thing for a small profile's main one."""
    if result.plan.paper_table is None:
        return ""
    known = set(paper_table(result.plan.paper_table)["metric"])
    other = "recall@500" if metric == result.plan.metric else ""
    return metric if metric in known else other if other in known else ""


def _paper(result: PlanResult, label: str, domain: str, metric: str) -> float:
    """The figure that the paper prints for a line, or NaN."""
    name = result.plan.row(label).paper
    if not name:
        return np.nan
    names = {d: f"D{i + 1}" for i, d in enumerate(result.domains)} | {AVERAGE: "avg"}
    printed = paper_table(result.plan.paper_table)
    match = printed[(printed["method"] == name) & (printed["domain"] == names[domain]) & (printed["metric"] == metric)]
    return float(match["value"].iloc[0]) if len(match) else np.nan


def _number(value: float, digits: int) -> str:
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _p(value: float) -> str:
    return f"{p_equals(value)} after Holm"
