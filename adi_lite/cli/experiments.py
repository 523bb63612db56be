"""``adi-lite reproduce | tune``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from adi_lite.cli.common import Json, changes_of, check_folder_free, console, known, show, show_lines, words
from adi_lite.data.registry import load_dataset
from adi_lite.models.registry import NETWORKS

app = typer.Typer()


@app.command()
def reproduce(
    only: Annotated[str, typer.Option(help="Plans to run, e.g. table3,waterfall; all by default.")] = "",
    profile: Annotated[str, typer.Option(help="smoke, quick or full.")] = "quick",
    rows: Annotated[str, typer.Option(help="Lines of the plan to run, e.g. adi,dnn; all by default.")] = "",
    as_json: Json = False,
) -> None:
    """Run the experiments of the paper's tables, and print the paper's figures beside ours."""
    from adi_lite.experiments.catalog import plans_called
    from adi_lite.experiments.runner import run_plan
    from adi_lite.experiments.store import runs_folder
    from adi_lite.experiments.tables import side_by_side, summary

    plans = plans_called(*words(only))
    runs_folder().mkdir(parents=True, exist_ok=True)  # a place that cannot be written is no discovery for afterwards
    reports: dict[str, Any] = {}
    for plan in plans:
        result = run_plan(plan, profile, only=words(rows), report=console.print)
        metric = plan.metric
        table = summary(
            result, plan.protocols[0], metric, plan.main if plan.main in result.runs else next(iter(result.runs))
        )
        reports[plan.name] = {
            "profile": profile,
            "dataset": result.dataset,
            "notes": result.notes,
            "protocol": plan.protocols[0],
            "metric": metric,
            "definition": next(iter(result.runs.values()))[0].about["notes"][plan.protocols[0]],
            "rows": json.loads(table.to_json(orient="records")),
        }
        if not as_json:
            typer.echo(f"{plan.title} ({result.dataset}, {profile})\n{side_by_side(table).to_string()}")
            typer.echo(reports[plan.name]["definition"])
            show_lines(result.notes)
    if as_json:
        typer.echo(json.dumps(reports))


@app.command()
def tune(
    method: Annotated[str, typer.Argument(help="A model or a reference; or 'all'.")],
    out: Annotated[Path, typer.Option(help="Folder of the trials, one JSON file a method.")],
    dataset: Annotated[str, typer.Option()] = "xmarket",
    trials: Annotated[int, typer.Option(min=1)] = 8,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="One setting of the frame, for all trials.")] = None,
    as_json: Json = False,
) -> None:
    """Random search on the validation split; every method gets the same number of trials."""
    from adi_lite.experiments.tuning import SEARCHES, Search
    from adi_lite.experiments.tuning import tune as run_trials

    search = SEARCHES.get(dataset, Search())
    choices = (*NETWORKS, *search.references)
    methods = choices if method == "all" else (method,)
    if methods[0] not in choices:
        raise ValueError(f"unknown method {method!r}; choose all, {', '.join(choices)}")
    check_folder_free(out)
    data, best = load_dataset(known(dataset), **search.options), {}
    for name in methods:
        found = run_trials(
            data,
            dataset,
            name,
            trials,
            out / f"{name}.json",
            seed=seed,
            metric=search.metric,
            changes=search.changes | search.changes_of.get(name, {}) | changes_of(change or []),
            space=None if name in search.references else search.space,
            exclude_seen=search.exclude_seen,
            report=lambda t: console.print(
                f"{t['method']}: {t[search.metric]:.4f} in {t['seconds']:.0f} s {t['settings']}"
            ),
        )
        best[name] = found[0]
    show(best, as_json, lambda: show_lines({n: f"{b[search.metric]:.4f} {b['settings']}" for n, b in best.items()}))
