"""Training by one process or several: ``torchrun --nproc-per-node N -m adi_lite.train --dataset NAME --out DIR``.

The folder is as ``adi-lite train`` leaves it, so that ``adi-lite evaluate``, ``index`` and ``retrieve`` work on it. A
process that dies is started again by ``torchrun --max-restarts 1 ...``, with all others, and the run goes on from its last
finished epoch. All end when torchrun does, whatever ended it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from adi_lite.cli import run
from adi_lite.cli.common import Changes, Json, Markets, Test, Valid, changes_of, console, show, show_lines
from adi_lite.cli.train import (
    BF16,
    BuiltIn,
    Device,
    Method,
    OwnTables,
    Seed,
    Settings,
    TablesOnDisk,
    check_goes_on,
    epoch_line,
    fitted,
    keep_run,
    plan_run,
    report_of,
)
from adi_lite.training.checkpoint import SHARDS_FILE
from adi_lite.training.distributed import fit_distributed
from adi_lite.training.log import RunLog
from adi_lite.training.process_group import process_group
from adi_lite.training.storage import check_tables

app = typer.Typer(add_completion=False)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run, which all processes see.")],
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
    resume: Annotated[
        bool, typer.Option(help="Go on from the last finished epoch in OUT, with any processes.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.05, help="Minutes that a process waits for the others before it ends with an error.")
    ] = 10,
    as_json: Json = False,
) -> None:
    """Train a method with as many processes as torchrun starts (or this one), and keep the model in OUT."""
    changes = {"seed": seed, **changes_of(change or [])}
    with process_group(device, timedelta(minutes=timeout)) as ranks:
        first, goes_on = ranks.rank == 0, ranks.goes_on()
        resume = resume or goes_on
        check_goes_on(out, resume, SHARDS_FILE)
        about, settings = plan_run(data, dataset, model, config, markets, valid, test, changes)
        check_tables(settings, tables_on_disk, device)
        ranks.barrier()  # all have seen the folder as it was
        if first:
            ranks.begin()
            keep_run(out, about, resume)
            tables = about.load_data()  # which may fetch files; the others then find them
        ranks.barrier()
        if not first:
            tables = about.load_data()
        settings = fitted(settings, about, tables, changes)
        log = RunLog(out, resume=resume) if first else None

        def progress(epoch: dict) -> None:
            log.add(epoch)
            console.print(epoch_line(epoch, settings))

        if first and ranks.world > 1:
            console.print(f"{ranks.world} processes, {device}" + (", started again" if goes_on else ""))
        result = fit_distributed(
            tables, settings, ranks, out=out, resume=resume, progress=progress, bf16=bf16, tables=tables_on_disk
        )
        if first:
            log.complete(result.epochs)
            log.close()
            report = {**report_of(out, about, result, result.parameters), "processes": ranks.world}
            show(report, as_json, lambda: show_lines(report))


if __name__ == "__main__":
    run(app)
