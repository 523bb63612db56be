"""The command line: ``adi-lite data | train | evaluate | reproduce | tune``. Errors are one sentence and exit status 2."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.table import Table

from adi_lite.data.registry import DATASETS, load_dataset
from adi_lite.models.registry import NETWORKS
from adi_lite.training.config import Config

app = typer.Typer(help="Multi-domain retrieval that can be reproduced.", no_args_is_help=True, add_completion=False)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

# Progress; results go to standard output. Paths and settings are shown as they are, whatever brackets they hold.
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
RUN_FILE = "run.json"


class RunInfo(BaseModel):
    """What ``run.json`` says: which data and which settings the model of a folder was made from."""

    dataset: str
    options: dict[str, list[str] | str | None]
    model: str
    config: str
    seed: int


Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object on standard output.")]
Markets = Annotated[str | None, typer.Option(help="Markets of the cross-market data, e.g. s1,s2,s3,t1.")]


@data_app.command("fetch")
def data_fetch(name: str, markets: Markets = None, as_json: Json = False) -> None:
    """Download and verify the files of a data set, into the cache."""
    data = load_dataset(_known(name), **_options(name, markets))
    report = {
        "name": data.name,
        "domains": list(data.domains),
        "records": len(data.train) + len(data.valid),
        **data.notes,
    }
    _print(report, as_json, lambda: _lines(report))


@data_app.command("describe")
def data_describe(name: str, markets: Markets = None, as_json: Json = False) -> None:
    """Sizes, overlaps and skew of a data set, by domain."""
    from adi_lite.data.describe import describe

    report = describe(load_dataset(_known(name), **_options(name, markets)))
    _print(report, as_json, lambda: _describe(report))


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, model, settings.")],
    dataset: Annotated[str, typer.Option(help="Name of the data set.")] = "xmarket",
    model: Annotated[str, typer.Option(help="Method: " + ", ".join(NETWORKS) + ".")] = "adi",
    config: Annotated[str, typer.Option(help="tuned, as_published, or a YAML file of settings.")] = "tuned",
    markets: Markets = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. --set epochs=5.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last finished epoch in OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Train a method and keep the model in OUT."""
    from adi_lite.experiments.runner import machine
    from adi_lite.training.checkpoint import MODEL_FILE, RESUME_FILE
    from adi_lite.training.trainer import fit

    settings = _config(_known(dataset), config, model, {"seed": seed, **_changes(change or [])})
    _folder(out)
    made = [p for p in (out / RUN_FILE, out / MODEL_FILE, out / RESUME_FILE) if p.exists()]
    if made and not resume:
        raise ValueError(
            f"{out} holds a run already ({made[0].name}): add --resume to go on with it, or name another folder"
        )
    options = _options(dataset, markets)
    if settings.train.patience is None and _has_validation(dataset):
        options["validation"] = None  # no early stopping: train on everything before the test
    data = load_dataset(dataset, **options)
    model, seed = settings.model.method, settings.train.seed  # --set may have changed them
    _keep_run(out, RunInfo(dataset=dataset, options=options, model=model, config=config, seed=seed), resume)
    result = fit(data, settings, out=out, resume=resume, progress=lambda e: console.print(_epoch_line(e, settings)))
    report = {
        "out": str(out),
        "model": model,
        "epochs": len(result.epochs),
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 2),
        "records_per_second": round(len(result.epochs) and _rate(result.epochs)),
        "parameters": result.scorer.num_parameters(),
        "loss": result.epochs[-1]["loss"],
        "machine": machine(),
    }
    _print(report, as_json, lambda: _lines(report))


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    split: Annotated[str, typer.Option()] = "test",
    protocol: Annotated[
        str, typer.Option(help="candidates or corpus; by default candidates where there are any.")
    ] = "",
    k: Annotated[str, typer.Option(help="Cut-offs, e.g. 10,50.")] = "10",
    save: Annotated[Path | None, typer.Option(help="Write the per-query results as Parquet.")] = None,
    as_json: Json = False,
) -> None:
    """Recall, NDCG and MRR of a finished run, by domain."""
    from adi_lite.evaluation.metrics import evaluate as measure
    from adi_lite.training.trainer import load_trained

    about = _read_run(run)
    data = load_dataset(about.dataset, **about.options)
    trained = load_trained(run, data)
    if trained.config.model.method != about.model:
        raise ValueError(
            f"{run} holds a model of another method than its {RUN_FILE} says: "
            f"{trained.config.model.method!r}, not {about.model!r}"
        )
    protocol = protocol or ("candidates" if split in data.candidates else "corpus")
    result = measure(trained.scorer, data, split, protocol, ks=_numbers(k))
    report = {
        "dataset": data.name,
        "model": about.model,
        "protocol": protocol,
        "domains": result.per_domain(),
        "average": result.average(),
        "micro": result.micro(),
        "counted": result.counted,
        "skipped": result.skipped,
        "definition": result.describe(),
        "notes": dict(data.notes),
    }
    _print(report, as_json, lambda: _metrics(report))
    if save is not None:
        result.save(save)


@app.command()
def reproduce(
    only: Annotated[str, typer.Option(help="Plans to run, e.g. table3,waterfall; all by default.")] = "",
    profile: Annotated[str, typer.Option(help="smoke, quick or full.")] = "quick",
    rows: Annotated[str, typer.Option(help="Lines of the plan to run, e.g. adi,dnn; all by default.")] = "",
    as_json: Json = False,
) -> None:
    """Run the experiments of the paper's tables, and print the paper's figures beside ours."""
    from adi_lite.experiments.plans import PLANS
    from adi_lite.experiments.runner import run_plan
    from adi_lite.experiments.store import runs_folder
    from adi_lite.experiments.tables import side_by_side, summary

    names = _words(only) or tuple(PLANS)
    if unknown := sorted(set(names) - set(PLANS)):
        raise ValueError(f"unknown plan {', '.join(unknown)}; the plans are {', '.join(PLANS)}")
    runs_folder().mkdir(parents=True, exist_ok=True)  # a place that cannot be written is no discovery for afterwards
    reports: dict[str, Any] = {}
    for name in names:
        plan = PLANS[name]
        result = run_plan(plan, profile, only=_words(rows), report=console.print)
        metric = f"recall@{plan.ks[0]}"
        table = summary(
            result, plan.protocols[0], metric, plan.main if plan.main in result.runs else next(iter(result.runs))
        )
        reports[name] = {
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
            typer.echo(reports[name]["definition"])
            _lines(result.notes)
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
    from adi_lite.experiments.tuning import REFERENCE_SPACE
    from adi_lite.experiments.tuning import tune as search

    known = (*NETWORKS, *REFERENCE_SPACE)
    methods = known if method == "all" else (method,)
    if methods[0] not in known:
        raise ValueError(f"unknown method {method!r}; choose all, {', '.join(known)}")
    _folder(out)
    data, best = load_dataset(_known(dataset)), {}
    for name in methods:
        found = search(
            data,
            dataset,
            name,
            trials,
            out / f"{name}.json",
            seed=seed,
            changes=_changes(change or []),
            report=lambda t: console.print(
                f"{t['method']}: {t['recall@10']:.4f} in {t['seconds']:.0f} s {t['settings']}"
            ),
        )
        best[name] = found[0]
    _print(best, as_json, lambda: _lines({n: f"{b['recall@10']:.4f} {b['settings']}" for n, b in best.items()}))


def main() -> None:
    """Entry point: runs a command, and turns an error of the user's into one sentence and exit status 2."""
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        console.print("stopped; what was finished is kept")
        sys.exit(130)
    except ValidationError as error:
        _fail("; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except (ValueError, FloatingPointError) as error:
        _fail(str(error))
    except Exception as error:
        if hasattr(error, "format_message"):  # a wrong option: typer's own words; empty where it showed the help
            _fail(error.format_message() or "name a command, such as those above")
        raise


def _fail(text: str) -> None:
    print("error:", " ".join(line.strip() for line in text.splitlines()), file=sys.stderr)
    sys.exit(2)


def _known(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    return name


def _options(dataset: str, markets: str | None) -> dict:
    if markets is None:
        return {}
    if not dataset.startswith("xmarket"):
        raise ValueError(f"--markets belongs to the cross-market data, not to {dataset!r}")
    return {"markets": _words(markets)}


def _folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out needs a folder, which is made if it is not there")


def _has_validation(dataset: str) -> bool:
    return dataset.startswith("xmarket")


def _config(dataset: str, name: str, method: str, changes: dict) -> Config:
    from adi_lite.experiments.named import named_config

    if method not in NETWORKS:
        raise ValueError(f"unknown model {method!r}; choose {', '.join(NETWORKS)}")
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        return named_config(dataset, name, method, **changes)
    if not path.is_file():
        raise ValueError(f"no configuration file {path}")
    try:
        settings = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from None
    if not isinstance(settings, dict) or not all(isinstance(name, str) for name in settings):
        raise ValueError(f"{path} must hold settings as 'name: value' lines")
    return Config().with_changes(**{"method": method, **settings, **changes})


def _changes(pairs: list[str]) -> dict:
    changes = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise ValueError(f"--set needs name=value, got {pair!r}")
        if name == "method":
            raise ValueError(f"--set {pair}: a command names its method in an argument of its own")
        try:
            changes[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ValueError(f"--set {pair}: {value!r} is no value; write a number, a word or [a, list]") from None
    return changes


def _words(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(",") if w.strip())


def _numbers(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not words or not all(w.isdigit() and int(w) > 0 for w in words):
        raise ValueError(f"--k needs positive whole numbers such as 10,50, got {text!r}")
    return tuple(int(w) for w in words)


def _keep_run(out: Path, about: RunInfo, resume: bool) -> None:
    """Write ``run.json``, or see that the one of the run to be resumed says the same."""
    path = out / RUN_FILE
    if resume and path.exists() and any(out.rglob("*.safetensors")):  # settings are compared with the checkpoint's
        was = _read_run(out)
        for name, then, now in (
            ("data set", was.dataset, about.dataset),
            ("markets", was.options.get("markets"), about.options.get("markets")),
            ("model", was.model, about.model),
        ):
            if then != now:
                raise ValueError(f"{out} is a run with the {name} {then or 'by default'}, not {now or 'by default'}")
        return
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{RUN_FILE}.{os.getpid()}.part"
    partial.write_text(about.model_dump_json(indent=1))
    os.replace(partial, path)


def _read_run(folder: Path) -> RunInfo:
    path = folder / RUN_FILE
    if not path.is_file():
        raise ValueError(f"{folder} is no run: it has no {RUN_FILE}; adi-lite train --out {folder} makes one")
    try:
        return RunInfo.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is damaged: {where + ': ' if where else ''}{first['msg']}") from None


def _rate(epochs: list[dict]) -> float:
    records = sum(e["records_per_second"] * e["seconds"] for e in epochs)
    return records / sum(e["seconds"] for e in epochs)


def _epoch_line(epoch: dict, config: Config) -> str:
    domain = f"{epoch['domain']} " if "domain" in epoch else ""
    left = (config.train.epochs - epoch["epoch"] - 1) * epoch["seconds"]
    valid = f", validation {config.train.metric} {epoch['valid']:.4f}" if "valid" in epoch else ""
    return (
        f"{domain}epoch {epoch['epoch'] + 1}/{config.train.epochs}: loss {epoch['loss']:.4f}{valid}, "
        f"{epoch['records_per_second']:,.0f} records/s, {left:.0f} s left"
    )


def _print(report: dict, as_json: bool, show: Any) -> None:
    if as_json:
        typer.echo(json.dumps(report))
    else:
        show()


def _lines(report: dict) -> None:
    for name, value in report.items():
        typer.echo(f"{name}: {value}")


def _describe(report: dict) -> None:
    table = Table(
        title=f"{report['name']}: {report['users']:,} users, {report['items']:,} items, {report['records']:,} records"
    )
    columns = ("users", "items", "catalogue", "records", "density", "popularity_gini")
    for column in ("domain", *columns):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for name, facts in report["domains"].items():
        table.add_row(name, *(f"{facts[c]:.4f}" if isinstance(facts[c], float) else f"{facts[c]:,}" for c in columns))
    Console().print(table)
    for pair in report["overlaps"]:
        typer.echo(
            f"{pair['domain']} and {pair['other_domain']} share {pair['users']:,} users and {pair['items']:,} items"
        )
    _lines(report["notes"])


def _metrics(report: dict) -> None:
    names = list(report["average"])
    table = Table(title=f"{report['model']} on {report['dataset']}, {report['protocol']}")
    for column in ("domain", *names):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for domain, values in {**report["domains"], "average": report["average"], "micro": report["micro"]}.items():
        table.add_row(domain, *(f"{values[n]:.4f}" for n in names))
    Console().print(table)
    typer.echo(report["definition"])
    _lines(report["notes"])
