"""``adi-lite train | compare | evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from adi_lite.atomic import replacing
from adi_lite.cli.common import (
    OWN,
    Changes,
    Json,
    Markets,
    Test,
    Valid,
    changes_of,
    check_folder_free,
    config_of,
    console,
    is_file,
    known,
    numbers,
    options_of,
    own_options,
    show,
    show_lines,
    words,
)
from adi_lite.data.packed import load_own
from adi_lite.models.registry import NETWORKS
from adi_lite.run_folder import RUN_FILE, RunInfo, open_run
from adi_lite.training.config import Config

if TYPE_CHECKING:
    from adi_lite.data.schema import MultiDomainDataset
    from adi_lite.experiments.compare import Comparison
    from adi_lite.training.distributed import Course
    from adi_lite.training.trainer import Trained

app = typer.Typer()

OwnTables = Annotated[
    Path | None, typer.Option(help="Folder of your own tables (see adi-lite data check), or a packed one.")
]
BuiltIn = Annotated[str, typer.Option(help="Name of a built-in data set.")]
Method = Annotated[str, typer.Option(help="Method: " + ", ".join(NETWORKS) + ".")]
Settings = Annotated[str, typer.Option(help="tuned, as_published, or a YAML file of settings.")]
Seed = Annotated[int, typer.Option(min=0)]
Device = Annotated[Literal["cpu", "cuda"], typer.Option(help="cuda: one GPU for each process.")]
BF16 = Annotated[bool, typer.Option("--bf16", help="Products of matrices in bfloat16, all else in float32.")]
TablesOnDisk = Annotated[
    Path | None,
    typer.Option(help="Keep embedding tables in files in this folder, not in memory (optimizer rowwise_adagrad)."),
]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run: checkpoints, model, settings, logs.")],
    data: OwnTables = None,
    dataset: BuiltIn = "xmarket",
    model: Method = "adi",
    config: Settings = "tuned",
    markets: Markets = None,
    valid: Valid = None,
    test: Test = None,
    seed: Seed = 0,
    change: Changes = None,
    device: Device = "cpu",
    bf16: BF16 = False,
    tables_on_disk: TablesOnDisk = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last finished epoch in OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Train a method and keep the model in OUT.

    OUT gets run.json, model.safetensors, and the course of the training as metrics.jsonl and, for TensorBoard, in logs/.

    Tables larger than memory: --tables-on-disk DIR --set optimizer=rowwise_adagrad --set sparse_embeddings=true.
    """
    from adi_lite.training.checkpoint import RESUME_FILE
    from adi_lite.training.log import RunLog
    from adi_lite.training.ranks import check_device
    from adi_lite.training.storage import check_tables
    from adi_lite.training.trainer import fit

    changes = {"seed": seed, **changes_of(change or [])}
    check_device(device)
    check_goes_on(out, resume, RESUME_FILE)
    about, settings = plan_run(data, dataset, model, config, markets, valid, test, changes)
    check_tables(settings, tables_on_disk, device)
    tables = about.load_data()
    settings = fitted(settings, about, tables, changes)
    keep_run(out, about, resume)
    log = RunLog(out, resume=resume)

    def progress(epoch: dict) -> None:
        log.add(epoch)
        console.print(epoch_line(epoch, settings))

    result = fit(
        tables,
        settings,
        out=out,
        resume=resume,
        progress=progress,
        device=device,
        bf16=bf16,
        tables=tables_on_disk,
    )
    log.complete(result.epochs)
    log.close()
    report = report_of(out, about, result, result.scorer.num_parameters())
    show(report, as_json, lambda: show_lines(report))


def check_goes_on(out: Path, resume: bool, own: str) -> None:
    """Refuse a folder that holds a run, unless it is to be gone on with and its checkpoints are of the kind ``own``."""
    from adi_lite.training.checkpoint import MODEL_FILE, RESUME_FILE, SHARDS_FILE

    check_folder_free(out)
    makers = {RESUME_FILE: "adi-lite train", SHARDS_FILE: "torchrun -m adi_lite.train"}
    made = [p for p in (out / RUN_FILE, out / MODEL_FILE, *(out / name for name in makers)) if p.exists()]
    if made and not resume:
        raise ValueError(
            f"{out} holds a run already ({made[0].name}): add --resume to go on with it, or name another folder"
        )
    for name, maker in makers.items():
        if name != own and (found := next(out.rglob(name), None)):
            raise ValueError(f"{found} was written by {maker}: go on with the run there, or name another folder")


def plan_run(
    data: Path | None,
    dataset: str,
    model: str,
    config: str,
    markets: str | None,
    valid: float | None,
    test: float | None,
    changes: dict,
) -> tuple[RunInfo, Config]:
    """What ``run.json`` will say, and the settings, from what the command was given."""
    settings = config_of(OWN if data is not None else known(dataset), config, model, changes)
    options = own_options(data, valid, test, markets) if data is not None else options_of(dataset, markets)
    if data is None and (valid, test) != (None, None):
        raise ValueError("--valid and --test cut your own tables (--data); a built-in data set has its own split")
    if data is None and settings.train.patience is None and _has_validation(dataset):
        options["validation"] = None  # no early stopping: train on everything before the test
    about = RunInfo(
        dataset=data.resolve().name if data is not None else dataset,
        folder=str(data.resolve()) if data is not None else None,
        options=options,
        model=settings.model.method,  # --set may have changed it, and the seed
        config=config,
        seed=settings.train.seed,
    )
    return about, settings


def fitted(settings: Config, about: RunInfo, tables: MultiDomainDataset, changes: dict) -> Config:
    """The settings, with what tables of one's own ask for."""
    from adi_lite.experiments.named import settings_to_fit

    if about.folder is None or is_file(about.config):
        return settings
    return config_of(OWN, about.config, about.model, {**settings_to_fit(tables), **changes})


def report_of(out: Path, about: RunInfo, result: Trained | Course, parameters: dict[str, int]) -> dict:
    """What the command prints of a finished run."""
    from adi_lite.experiments.runner import machine

    return {
        "out": str(out),
        "model": about.model,
        "epochs": len(result.epochs),
        "best_epoch": result.best_epoch,
        "seconds": round(result.seconds, 2),
        "records_per_second": round(len(result.epochs) and _rate(result.epochs)),
        "parameters": parameters,
        "loss": result.epochs[-1]["loss"],
        "machine": machine(),
    }


@app.command()
def compare(
    folder: Annotated[Path, typer.Argument(help="Folder of your own tables; see adi-lite data check.")],
    methods: Annotated[str, typer.Option(help="Methods to train, e.g. dnn_single,dnn,adi; all by default.")] = "",
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of each method; 5 for a decision.")] = 3,
    k: Annotated[int, typer.Option(min=1, help="Cut-off of Recall@k.")] = 10,
    valid: Valid = None,
    test: Test = None,
    change: Changes = None,
    store: Annotated[Path | None, typer.Option(help="Where finished runs are kept; FOLDER/compare by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether a multi-domain model pays off on your own domains: baselines and references at equal budget."""
    from adi_lite.experiments.compare import ALL
    from adi_lite.experiments.compare import compare as judge

    options = own_options(folder, valid, test)
    data = load_own(folder, **options)
    found = judge(
        data,
        methods=words(methods) or ALL,
        seeds=seeds,
        k=k,
        changes=changes_of(change or []),
        store=store or folder / "compare",
        report=console.print,
    )
    if out is not None:
        with replacing(out) as partial:
            found.table.to_csv(partial, index=False)
    show(found.to_dict(), as_json, lambda: _compared(found))


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

    about, data, trained = open_run(run)
    protocol = protocol or ("candidates" if split in data.candidates else "corpus")
    result = measure(trained.scorer, data, split, protocol, ks=numbers(k))
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
    show(report, as_json, lambda: _metrics(report))
    if save is not None:
        result.save(save)


def _has_validation(dataset: str) -> bool:
    return dataset.startswith("xmarket")


def _compared(found: Comparison) -> None:
    table = Table(title=f"{found.metric} over the whole catalogue, interval of the average, difference to {found.main}")
    domains = [c for c in found.table.columns if c.startswith(f"{found.metric} ")]
    for column in ("", *(c.removeprefix(f"{found.metric} ") for c in domains), "average", "", "difference", "p (Holm)"):
        table.add_column(column, justify="right", no_wrap=True)
    for _, row in found.table.iterrows():
        table.add_row(
            row["title"],
            *(f"{row[c]:.4f}" for c in (*domains, "average")),
            f"[{row['low']:.4f}, {row['high']:.4f}]",
            "–" if row["difference"] != row["difference"] else f"{row['difference']:+.4f}",
            "–" if row["p"] != row["p"] else f"{row['p']:.2g}",
        )
    out = Console()
    (out if out.is_terminal else Console(width=80 + 14 * len(domains))).print(table)
    typer.echo(found.verdict)
    for note in found.notes:
        typer.echo(note)


def keep_run(out: Path, about: RunInfo, resume: bool) -> None:
    """Write ``run.json``, or see that the one of the run to be resumed says the same."""
    path = out / RUN_FILE
    if resume and path.exists() and any(out.rglob("*.safetensors")):  # settings are compared with the checkpoint's
        RunInfo.read(out).check_resumes(about, out)
        return
    about.write(out)


def _rate(epochs: list[dict]) -> float:
    records = sum(e["records_per_second"] * e["seconds"] for e in epochs)
    return records / sum(e["seconds"] for e in epochs)


def epoch_line(epoch: dict, config: Config) -> str:
    domain = f"{epoch['domain']} " if "domain" in epoch else ""
    left = (config.train.epochs - epoch["epoch"] - 1) * epoch["seconds"]
    valid = f", validation {config.train.metric} {epoch['valid']:.4f}" if "valid" in epoch else ""
    return (
        f"{domain}epoch {epoch['epoch'] + 1}/{config.train.epochs}: loss {epoch['loss']:.4f}{valid}, "
        f"{epoch['records_per_second']:,.0f} records/s, {left:.0f} s left"
    )


def _metrics(report: dict) -> None:
    names = list(report["average"])
    table = Table(title=f"{report['model']} on {report['dataset']}, {report['protocol']}")
    for column in ("domain", *names):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for domain, values in {**report["domains"], "average": report["average"], "micro": report["micro"]}.items():
        table.add_row(domain, *(f"{values[n]:.4f}" for n in names))
    Console().print(table)
    typer.echo(report["definition"])
    show_lines(report["notes"])
