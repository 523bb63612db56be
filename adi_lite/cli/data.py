"""``adi-lite data fetch | describe | check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adi_lite.atomic import replacing
from adi_lite.cli.common import Json, Markets, Test, Valid, known, options_of, own_options, show, show_lines
from adi_lite.data.defects import Report
from adi_lite.data.registry import load_dataset
from adi_lite.data.tables import check_folder

app = typer.Typer(help="Data sets.", no_args_is_help=True)


@app.command("fetch")
def data_fetch(name: str, markets: Markets = None, as_json: Json = False) -> None:
    """Download and verify the files of a data set, into the cache."""
    data = load_dataset(known(name), **options_of(name, markets))
    report = {
        "name": data.name,
        "domains": list(data.domains),
        "records": len(data.train) + len(data.valid),
        **data.notes,
    }
    show(report, as_json, lambda: show_lines(report))


@app.command("describe")
def data_describe(name: str, markets: Markets = None, as_json: Json = False) -> None:
    """Sizes, overlaps and skew of a data set, by domain."""
    from adi_lite.data.describe import describe

    report = describe(load_dataset(known(name), **options_of(name, markets)))
    show(report, as_json, lambda: _describe(report))


@app.command("check")
def data_check(
    folder: Annotated[Path, typer.Argument(help="Folder with interactions.parquet or .csv, perhaps users and items.")],
    valid: Valid = None,
    test: Test = None,
    write_schema: Annotated[
        bool, typer.Option("--write-schema", help="Write the schema to FOLDER/schema.yaml, to be corrected there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read your own tables and say everything that is wrong with them, and what their columns are taken for."""
    report = check_folder(folder, **own_options(folder, valid, test))
    path = folder / "schema.yaml"
    if write_schema and report.schema:
        if path.exists():
            raise ValueError(f"{path} is there already; remove it to have one inferred anew")
        with replacing(path) as partial:
            partial.write_text(report.schema)
    show(report.to_dict(), as_json, lambda: _checked(folder, report))
    if not report.ok:
        raise typer.Exit(2)


def _checked(folder: Path, report: Report) -> None:
    if report.schema:
        typer.echo(f"schema (correct it in {folder / 'schema.yaml'}):\n{report.schema}")
    typer.echo(str(report))
    if report.ok:
        typer.echo(f"the tables can be loaded: adi-lite train --data {folder} --out RUN")


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
    show_lines(report["notes"])
