"""``adi-lite index | retrieve | export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from adi_lite.atomic import replacing
from adi_lite.cli.common import Json, show
from adi_lite.run_folder import open_run

app = typer.Typer()

Run = Annotated[Path, typer.Argument(help="Folder of a finished run.")]
_USERS_AT_A_TIME = 4096


@app.command()
def index(
    run: Run,
    kind: Annotated[
        Literal["flat", "ivf", "hnsw"], typer.Option(help="flat is exact; the others are faster over many items.")
    ] = "flat",
    nlist: Annotated[int | None, typer.Option(min=1, help="IVF: lists in all.")] = None,
    nprobe: Annotated[int | None, typer.Option(min=1, help="IVF: lists searched.")] = None,
    m: Annotated[int | None, typer.Option(min=2, help="HNSW: links of a node.")] = None,
    ef_search: Annotated[int | None, typer.Option(min=1, help="HNSW: breadth of the search.")] = None,
    as_json: Json = False,
) -> None:
    """Write a faiss index for each domain into RUN, with its measured recall of exact retrieval."""
    from adi_lite.serving.index import write_index

    given = {"nlist": nlist, "nprobe": nprobe, "m": m, "ef_search": ef_search}
    options = {name: value for name, value in given.items() if value is not None}
    belongs = {"nlist": "ivf", "nprobe": "ivf", "m": "hnsw", "ef_search": "hnsw"}
    if wrong := [name for name in options if belongs[name] != kind]:
        raise ValueError(f"--{wrong[0].replace('_', '-')} belongs to --kind {belongs[wrong[0]]}, not to {kind}")
    _, data, trained = open_run(run)
    about = write_index(run, data, trained, kind, **options)
    show(about, as_json, lambda: _indexed(about))


@app.command()
def retrieve(
    run: Annotated[Path, typer.Argument(help="Folder of a run that adi-lite index has indexed.")],
    domain: Annotated[str, typer.Option(help="Name of the domain.")],
    users: Annotated[Path, typer.Option(help="Parquet or CSV file with a column user_id.")],
    out: Annotated[Path, typer.Option(help="Parquet file: user_id, rank, item_id, score.")],
    k: Annotated[int, typer.Option(min=1, help="Items a user.")] = 100,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave out what the user has taken.")] = False,
    unknown: Annotated[
        Literal["error", "cold", "skip"],
        typer.Option(help="Unknown users: refuse, answer as for somebody of whom nothing is known, or leave out."),
    ] = "error",
    as_json: Json = False,
) -> None:
    """Write the best K items of a domain for each user, as Parquet."""
    from adi_lite.serving.retriever import Retriever

    ids = _user_ids(users)
    if out.is_dir():
        raise ValueError(f"{out} is a folder; --out needs the name of a Parquet file")
    retriever = Retriever.open(run)
    rows = 0
    with replacing(out) as partial:
        writer = None
        try:
            for start in range(0, max(len(ids), 1), _USERS_AT_A_TIME):  # the lists never lie in memory all together
                part = ids[start : start + _USERS_AT_A_TIME]
                frame = retriever.retrieve(part, domain, k, exclude_seen=exclude_seen, unknown=unknown)
                table = pa.Table.from_pandas(frame, preserve_index=False)
                writer = writer or pq.ParquetWriter(partial, table.schema)
                writer.write_table(table.cast(writer.schema))
                rows += len(frame)
        finally:
            if writer is not None:
                writer.close()
    report = {"out": str(out), "domain": domain, "users": len(ids), "rows": rows, "k": k}
    show(report, as_json, lambda: typer.echo(f"{out}: {rows:,} rows for {len(ids):,} users in {domain}"))


@app.command()
def export(
    run: Run,
    domain: Annotated[str, typer.Option(help="Name of the domain.")],
    out: Annotated[Path, typer.Option(help="ONNX file of the user tower.")],
    as_json: Json = False,
) -> None:
    """Export the user tower of one domain to ONNX, checked against the model."""
    from adi_lite.serving.export import export_user_tower

    _, data, trained = open_run(run)
    d = data.schema.domain_index(domain)
    report = export_user_tower(trained.scorer.models[d], d, out, domain_name=domain)
    show(report, as_json, lambda: typer.echo("\n".join(f"{name}: {value}" for name, value in report.items())))


def _user_ids(path: Path) -> list:
    """Distinct ids of the column user_id, in their order."""
    if not path.is_file():
        raise ValueError(f"no file {path}; --users needs a Parquet or CSV file with a column user_id")
    try:
        if path.suffix == ".csv":
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            frame = pq.read_table(path).to_pandas()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as {'CSV' if path.suffix == '.csv' else 'Parquet'}: {error}") from None
    if "user_id" not in frame.columns:
        raise ValueError(
            f"{path} has no column user_id; its columns are {', '.join(map(str, frame.columns)) or 'none'}"
        )
    ids = frame["user_id"]
    empty = ids.isna() | (ids.astype(str).str.strip() == "")
    if empty.any():
        raise ValueError(f"{path}, column user_id: row {int(empty.to_numpy().argmax()) + 1} is empty")
    return list(dict.fromkeys(ids.tolist()))


def _indexed(about: dict) -> None:
    table = Table(title=f"{about['kind']} index of {about['data']}, vectors of {about['width']} numbers")
    for column in ("domain", "items", "MiB", "recall of the exact top 100"):
        table.add_column(column, justify="left" if column == "domain" else "right")
    for d in about["domains"]:
        table.add_row(d["name"], f"{d['items']:,}", f"{d['bytes'] / 2**20:.1f}", f"{d['recall_of_exact@100']:.4f}")
    Console().print(table)
