"""Does a multi-domain model pay off on your own data? All methods at equal budget, a table, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.significance import AVERAGE, holm, p_equals
from adi_lite.experiments import plans
from adi_lite.experiments.named import named_config, settings_to_fit
from adi_lite.experiments.plans import Plan, Profile, Row
from adi_lite.experiments.references import build_reference
from adi_lite.experiments.runner import PlanResult, data_content, run_plan
from adi_lite.experiments.store import Store, StoredRun, run_id, runs_folder
from adi_lite.experiments.tables import LEVEL, summary
from adi_lite.experiments.tuning import tune
from adi_lite.models.registry import NETWORKS, TITLES

ALL = tuple(NETWORKS)
REFERENCES = tuple(row.label for row in plans.REFERENCES)
BASELINES = {"dnn_single": "one model a domain", "dnn": "one plain model for all domains"}
MULTI_DOMAIN = tuple(name for name in NETWORKS if name not in BASELINES)

TRIALS = 4
"""Settings of each reference that are tried on the validation part."""
MIN_USERS = 5
"""Test users of a domain below which it is not judged: fewer have no interval worth the name."""
EASE_BYTES = 2 << 30
"""The float32 item-item matrices of all domains, beyond which EASE is left out."""

Outcome = Literal["pays off", "does not pay off", "open"]


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        table: a row for each method, best average first: method, title, seeds, a column ``recall@k DOMAIN`` for each
            domain that was judged, average (over domains) with low and high (95 %, over seeds and users), difference of
            the average to ``main`` with difference_low, difference_high and p (corrected by Holm's method over the
            methods). The difference columns of ``main`` itself are NaN.
        by_domain: the same by method and domain, with an interval for each, as
            :func:`~adi_lite.experiments.tables.summary` gives it; p_holm of domains is corrected over all methods and
            domains, that of averages over the methods.
        main: the multi-domain model that did best on the validation part.
        metric: such as ``recall@10``.
        outcome: ``pays off`` if ``main`` is ahead of every baseline and reference on average with a corrected p below
            0.05, ``does not pay off`` if one of them is ahead of it with such a p, ``open`` otherwise.
        verdict: the same in sentences, with the figures.
        counted: queries (user, domain) of the test part that the figures are means of.
        skipped: pairs (user, domain) with training records but no test record that was judged.
        notes: what was left out and why, and how to read the table.
        result: the runs.
    """

    table: pd.DataFrame
    by_domain: pd.DataFrame
    main: str
    metric: str
    outcome: Outcome
    verdict: str
    counted: int
    skipped: int
    notes: tuple[str, ...]
    result: PlanResult

    def to_dict(self) -> dict:
        """All but the runs, ready for JSON; NaN becomes None."""
        frames = {"table": self.table, "by_domain": self.by_domain}
        plain = {"main", "metric", "outcome", "verdict", "counted", "skipped"}
        return {
            **{
                name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in frames.items()
            },
            **{name: getattr(self, name) for name in sorted(plain)},
            "notes": list(self.notes),
        }


def compare(
    data: MultiDomainDataset,
    *,
    methods: Sequence[str] = ALL,
    references: Sequence[str] = REFERENCES,
    seeds: int = 3,
    k: int = 10,
    changes: dict | None = None,
    store: str | Path | None = None,
    report: Callable[[str], None] | None = None,
) -> Comparison:
    """Train the methods and references on ``data`` and say whether a multi-domain model pays off there.

    Equal budget: every network has the general ``tuned`` settings, the same number of parameters, the same limit of
    epochs, and stops early on the validation part; the seeds are 0, 1, … Every reference has :data:`TRIALS` settings
    tried on the validation part. All are fitted on the training part; the test part is read once for each run and
    chooses nothing. Items are ranked over a domain's whole catalogue, without those that the user took before.

    Runs are kept as they finish, known by the content of the data and by the settings: a comparison that was stopped
    goes on where it was, and other data or settings never find them.

    Args:
        data: with a training, a validation and a test part; from tables of your own by
            :func:`adi_lite.data.tables.load_folder`.
        methods: names of :data:`adi_lite.models.registry.NETWORKS`; at least one multi-domain model.
        references: of popularity, item_knn, ease and ials. EASE is left out, with a note, where its matrices would
            take more than :data:`EASE_BYTES`.
        seeds: runs of each network.
        k: of Recall@k, which is also what early stopping looks at.
        changes: settings changed for every network alike, e.g. ``{"epochs": 5}``.
        store: folder of the runs; by default ``compare`` in the folder of new runs.
        report: called with a line of text as it goes on.

    Raises:
        ValueError: an unknown method or setting, nothing to compare with, an empty part, or a domain without the
            records that training needs; the message says which.
    """
    changes = changes or {}
    _check(data, methods, references, seeds, k, changes)
    say = report or (lambda text: None)
    data, notes = _judged_part(data)
    rows = [row for row in plans.REFERENCES if row.label in references]
    if "ease" in references and (size := 4 * sum(len(c) ** 2 for c in data.catalogues)) > EASE_BYTES:
        rows = [row for row in rows if row.label != "ease"]
        notes.append(f"EASE was left out: its item-item matrices of all catalogues take {size / 2**30:.1f} GiB")
        say(notes[-1])
    fitted = settings_to_fit(data)
    if fitted:
        notes.append("settings that the data ask for: " + ", ".join(f"{n}={v}" for n, v in fitted.items()))
    metric = f"recall@{k}"
    plan = Plan(
        name="compare",
        title=f"Methods on {data.name}",
        rows=tuple(Row(name, TITLES[name], name) for name in dict.fromkeys(methods)),
        profiles={"full": Profile("default", seeds, changes={**fitted, "metric": metric, **changes})},
        protocols=("corpus",),
        ks=(k,),
        main=next(name for name in methods if name in MULTI_DOMAIN),
    )
    folder = Path(store or runs_folder() / "compare")
    content = data_content(data) if rows else []
    chosen = tuple(_with_chosen_settings(row, data, content, metric, folder, say) for row in rows)
    result = run_plan(replace(plan, rows=plan.rows + chosen), "full", report=report, data=data, store=Store(folder))
    return judge(result, metric, notes)


def judge(result: PlanResult, metric: str, notes: Sequence[str] = ()) -> Comparison:
    """What the runs say. The multi-domain model is chosen by its validation metric, so that the test is fair to it."""
    main = max((name for name in MULTI_DOMAIN if name in result.runs), key=lambda name: _validation(result.runs[name]))
    plan = replace(result.plan, main=main)
    result = replace(result, plan=plan)
    by_domain = summary(result, "corpus", metric, main)
    # Two questions, each corrected by itself: which is better on average, and then where.
    by_domain["p_holm"] = by_domain["p"].groupby(by_domain["domain"] == AVERAGE).transform(holm)
    evaluation = result.runs[main][0].evaluations["corpus"]
    outcome, verdict = _verdict(by_domain, plan, metric)
    seeds = "one seed: intervals cover the test users only" if result.seeds == 1 else f"{result.seeds} seeds"
    reading = (
        f"{evaluation.counted} queries (user, domain) counted, {evaluation.skipped} without a test record skipped",
        f"{seeds}; intervals are 95 %; p is corrected by Holm's method, over methods on average and over methods and "
        "domains in what is said of domains",
    )
    return Comparison(
        table=_table(by_domain, metric),
        by_domain=by_domain.drop(columns="paper"),
        main=main,
        metric=metric,
        outcome=outcome,
        verdict=verdict,
        counted=evaluation.counted,
        skipped=evaluation.skipped,
        notes=(*notes, *reading),
        result=result,
    )


def _check(
    data: MultiDomainDataset, methods: Sequence[str], references: Sequence[str], seeds: int, k: int, changes: dict
) -> None:
    for kind, names, known in (("method", methods, ALL), ("reference", references, REFERENCES)):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"unknown {kind} {unknown[0]!r}; choose {', '.join(known)}")
    if not set(methods) & set(MULTI_DOMAIN):
        raise ValueError(f"name at least one multi-domain model among the methods: {', '.join(MULTI_DOMAIN)}")
    if not references and not set(methods) & set(BASELINES):
        raise ValueError(f"nothing to compare with: name {' or '.join(BASELINES)} among the methods, or a reference")
    if seeds < 1 or k < 1:
        raise ValueError(f"seeds and k must be at least 1, got {seeds} and {k}")
    if own := [name for name in ("method", "seed", "metric") if name in changes]:
        raise ValueError(f"{own[0]!r} cannot be changed: a comparison sets it itself")
    if named_config("default", "tuned", "dnn", **changes).train.patience is None:
        raise ValueError("patience=None: a comparison stops early on the validation part; give a number of epochs")
    if AVERAGE in data.domains:
        raise ValueError(f"a domain is called {AVERAGE!r}, as the mean over domains is; rename it")
    for part in ("train", "valid", "test"):
        if not len(data.split(part)):
            raise ValueError(f"the {part} part of {data.name!r} is empty; a comparison needs train, valid and test")
    for d, name in enumerate(data.domains):
        for part in ("train", "valid") if "dnn_single" in methods else ("train",):
            if not bool((data.split(part).domain == d).any()):
                needs = (
                    "every method" if part == "train" else "the early stopping of dnn_single, a model for each domain,"
                )
                raise ValueError(
                    f"domain {name!r} has no record in the {part} part, which {needs} needs; give it records, merge it "
                    f"with another domain, or drop it" + (", or leave dnn_single out" if part == "valid" else "")
                )


def _judged_part(data: MultiDomainDataset) -> tuple[MultiDomainDataset, list[str]]:
    """The data without the test records of domains with too few test users, and a note on those."""
    users = [len(torch.unique(data.test.user[data.test.domain == d])) for d in range(data.num_domains)]
    enough = torch.tensor(users) >= MIN_USERS
    if not bool(enough.any()):
        raise ValueError(
            f"no domain of {data.name!r} has {MIN_USERS} users in the test part: give more records, or a larger share"
        )
    if bool(enough.all()):
        return data, []
    few = ", ".join(f"{name} ({n})" for name, n in zip(data.domains, users, strict=True) if n < MIN_USERS)
    note = f"domains with fewer than {MIN_USERS} users in the test part are trained on but not judged: {few}"
    return data.replace(test=data.test.take(enough[data.test.domain])), [note]


def _with_chosen_settings(
    row: Row, data: MultiDomainDataset, content: list[str], metric: str, folder: Path, say: Callable[[str], None]
) -> Row:
    """The reference with the settings that did best on the validation part; trials are kept, as runs are."""

    def tell(trial: dict) -> None:
        say(f"{row.title}, {trial['settings'] or 'default settings'}: {metric} {trial[metric]:.4f} on validation")

    key = {"label": f"trials-{row.method}", "dataset": data.name, "content": content, "metric": metric}
    trials = tune(data, "default", row.method, TRIALS, folder / f"{run_id(key)}.json", metric=metric, report=tell)
    settings = asdict(build_reference(row.method, trials[0]["settings"]))
    return replace(row, changes=settings)


def _validation(runs: Sequence[StoredRun]) -> float:
    """Mean over seeds of the best epoch's validation metric."""
    return float(np.mean([max(epoch["valid"] for epoch in run.about["epochs"]) for run in runs]))


def _table(by_domain: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A row for each method, best average first."""
    average = by_domain[by_domain["domain"] == AVERAGE].set_index("label")
    means = by_domain.pivot(index="label", columns="domain", values="mean")
    domains = [name for name in dict.fromkeys(by_domain["domain"]) if name != AVERAGE]
    table = average[["title", "seeds"]].join(means[domains].add_prefix(f"{metric} "))
    table[[AVERAGE, "low", "high"]] = average[["mean", "low", "high"]]
    table[["difference", "difference_low", "difference_high", "p"]] = average[
        ["difference", "difference_low", "difference_high", "p_holm"]
    ]
    table = table.sort_values(AVERAGE, ascending=False, kind="stable")
    return table.rename_axis("method").reset_index()


def _verdict(by_domain: pd.DataFrame, plan: Plan, metric: str) -> tuple[Outcome, str]:
    average = by_domain[by_domain["domain"] == AVERAGE].set_index("label")
    main, others = average.loc[plan.main], average.drop([name for name in MULTI_DOMAIN if name in average.index])
    places = {label: _place(row) for label, row in others.iterrows()}
    ahead_of_main = [others.loc[label, "title"] for label, place in places.items() if place == "behind"]
    not_told = [others.loc[label, "title"] for label, place in places.items() if place == "open"]
    outcome: Outcome = "does not pay off" if ahead_of_main else "open" if not_told else "pays off"
    first = {
        "pays off": f"A multi-domain model pays off here: {main['title']} is ahead of all that it was compared with.",
        "does not pay off": f"A multi-domain model does not pay off here: ahead of {main['title']} "
        f"{'is' if len(ahead_of_main) == 1 else 'are'} {', '.join(ahead_of_main)}.",
        "open": f"There is no evidence that a multi-domain model pays off here: {main['title']} cannot be told from "
        f"{', '.join(not_told)}.",
    }[outcome]
    sentences = [
        first,
        f"{main['title']}, the multi-domain model that did best on the validation part, reaches "
        f"{metric.capitalize()} {main['mean']:.4f} [{main['low']:.4f}, {main['high']:.4f}] on average over domains.",
    ]
    roles = {label: what for label, what in BASELINES.items() if label in others.index}
    if references := [row.label for row in plan.rows if row.reference]:
        roles[others.loc[references, "mean"].idxmax()] = "the best of the references"
    words = {"ahead": "is ahead of", "behind": "is behind", "open": "cannot be told from"}
    for label, what in roles.items():
        row = others.loc[label]
        sentences.append(
            f"It {words[places[label]]} {row['title']} ({what}), {row['mean']:.4f}: difference {_figures(row)}."
        )
    sentences.append(_by_domain(by_domain, next(iter(roles))))
    return outcome, " ".join(sentences)


def _by_domain(by_domain: pd.DataFrame, baseline: str) -> str:
    """Where the multi-domain model helps and where it hurts, against one baseline."""
    rows = by_domain[(by_domain["label"] == baseline) & (by_domain["domain"] != AVERAGE)]
    found: dict[str, list[str]] = {"ahead": [], "behind": [], "open": []}
    for _, row in rows.iterrows():
        found[_place(row)].append(f"{row['domain']} ({_figures(row)})")
    words = {"ahead": "it helps in", "behind": "it hurts in", "open": "there is no evidence in"}
    parts = [f"{words[place]} {', '.join(names)}" for place, names in found.items() if names]
    return f"By domain, against {rows['title'].iloc[0]}: {'; '.join(parts)}."


def _place(row: pd.Series) -> str:
    """Where the main model stands to the method of a row, whose difference is the method less the main model."""
    if not row["p_holm"] < LEVEL:
        return "open"
    return "ahead" if row["difference"] < 0 else "behind"


def _figures(row: pd.Series) -> str:
    """The main model less the method of a row."""
    low, high = -row["difference_high"], -row["difference_low"]
    return f"{-row['difference']:+.4f} [{low:+.4f}, {high:+.4f}], {p_equals(row['p_holm'])}"
