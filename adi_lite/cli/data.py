"""``adi-lite data fetch | describe | check | pack``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from adi_lite.atomic import replacing
from adi_lite.cli.common import Json, Markets, Test, Valid, known, options_of, own_options, show, show_lines
from adi_lite.data.defects import Report
from adi_lite.data.packed import check_packed, is_packed, load_own, pack
from adi_lite.data.registry import DATASETS, load_dataset
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
def data_describe(
    name: Annotated[str, typer.Argument(help="A built-in data set, or the folder of your own tables or a packed one.")],
    markets: Markets = None,
    as_json: Json = False,
) -> None:
    """Sizes, overlaps and skew of a data set, by domain."""
    from adi_lite.data.describe import describe

    if name not in DATASETS and Path(name).is_dir():
        data = load_own(name, **own_options(Path(name), None, None, markets))
    else:
        data = load_dataset(known(name), **options_of(name, markets))
    report = describe(data)
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
    """Read your own tables and say everything that is wrong with them, and what their columns are taken for.

    Of a packed folder: whether every file still holds what was packed, and whether the tables have changed since.
    """
    options = own_options(folder, valid, test)
    report = check_packed(folder) if is_packed(folder) else check_folder(folder, **options)
    path = folder / "schema.yaml"
    if write_schema and is_packed(folder):
        raise ValueError("--write-schema belongs to a folder of tables; a packed one keeps its schema")
    if write_schema and report.schema:
        if path.exists():
            raise ValueError(f"{path} is there already; remove it to have one inferred anew")
        with replacing(path) as partial:
            partial.write_text(report.schema)
    show(report.to_dict(), as_json, lambda: _checked(folder, report))
    if not report.ok:
        raise typer.Exit(2)


@app.command("pack")
def data_pack(
    tables: Annotated[Path, typer.Argument(help="Folder of your own tables; see adi-lite data check.")],
    packed: Annotated[Path, typer.Argument(help="Folder to be made, which train --data then takes.")],
    valid: Valid = None,
    test: Test = None,
    as_json: Json = False,
) -> None:
    """Write your tables as arrays that training reads in place, for more records than memory holds."""
    if is_packed(tables):
        raise ValueError(f"{tables} is packed already")
    report = pack(tables, packed, **own_options(tables, valid, test))
    show({"packed": str(packed), **report.to_dict()}, as_json, lambda: _packed(packed, report))


def _packed(packed: Path, report: Report) -> None:
    typer.echo(str(report))
    typer.echo(f"packed: adi-lite train --data {packed} --out RUN")


def _checked(folder: Path, report: Report) -> None:
    if report.schema and not is_packed(folder):
        typer.echo(f"schema (correct it in {folder / 'schema.yaml'}):\n{report.schema}")
    typer.echo(str(report))
    if report.ok:
        what = "packed data are whole" if is_packed(folder) else "tables can be loaded"
        typer.echo(f"the {what}: adi-lite train --data {folder} --out RUN")


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
