"""Writes what retrieval needs beside a finished run: a faiss index for each domain, users, histories, and the model.

An index is a folder of its own that nothing changes later; ``index.json`` names the one in use and is replaced in one
step. So a reader, or a writer that is killed, meets the old index or the new one.
"""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import faiss
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from adi_lite import __version__
from adi_lite.atomic import replacing
from adi_lite.data.schema import Column, Interactions, MultiDomainDataset, Ragged
from adi_lite.evaluation.retrieval import IndexKind, build_faiss, exact_topk, faiss_topk, save_faiss, topk_overlap
from adi_lite.models.scorer import ModelScorer
from adi_lite.training import checkpoint
from adi_lite.training.trainer import Trained

FORMAT = 1
INDEX_FILE, DATA_FILE, USERS_FILE, ITEMS_FILE = "index.json", "users.safetensors", "users.parquet", "items.parquet"
PREFIX = "index-"
_SAMPLE, _K = 1000, 100


def write_index(
    run: Path, data: MultiDomainDataset, trained: Trained, kind: IndexKind = "flat", **options: int
) -> dict:
    """Index every domain of a finished run, and make it the run's index.

    Args:
        run: folder of the run.
        data: its data set.
        trained: its model, as :func:`adi_lite.training.trainer.load_trained` gives it.
        kind: ``flat`` is exact; ``ivf`` and ``hnsw`` are faster over many items and miss some.
        options: of :func:`adi_lite.evaluation.retrieval.build_faiss`, such as ``nprobe``.

    Returns:
        What ``index.json`` says: for each domain its items, bytes of the index, and its recall of the exact top 100
        over up to 1,000 of the domain's users.
    """
    folder = run / f"{PREFIX}{uuid.uuid4().hex[:12]}"
    folder.mkdir()
    try:
        domains = []
        for d, name in enumerate(data.domains):
            vectors = trained.scorer.item_vectors(d)
            index = build_faiss(vectors, kind, **options)
            save_faiss(index, folder / index_file(d))
            domains.append(
                {
                    "name": name,
                    "items": len(vectors),
                    "bytes": (folder / index_file(d)).stat().st_size,
                    f"recall_of_exact@{_K}": _recall(index, vectors, trained.scorer, data, d),
                }
            )
        _write_models(folder, data, trained)
        _write_data(folder, data)
        about = {
            "format": FORMAT,
            "version": __version__,
            "folder": folder.name,
            "kind": kind,
            "options": options,
            "width": vectors.shape[1],
            "model": trained.config.model.method,
            "data": data.name,
            "domains": domains,
        }
        with replacing(run / INDEX_FILE) as partial:
            partial.write_text(json.dumps(about, indent=1))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    for old in run.glob(f"{PREFIX}*"):  # the former index, and what a killed writer left
        if old.is_dir() and old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return about


def index_file(domain: int) -> str:
    """Domains are numbered: their names may be any text, and no text of a table becomes a path."""
    return f"items-{domain}.faiss"


def model_file(model: int) -> str:
    return f"model-{model}.safetensors"


def _recall(index: faiss.Index, vectors: Tensor, scorer: ModelScorer, data: MultiDomainDataset, domain: int) -> float:
    users = torch.unique(data.train.user[data.train.domain == domain])
    if len(users) > _SAMPLE:
        users = users[torch.randperm(len(users), generator=torch.Generator().manual_seed(0))[:_SAMPLE]]
    queries = scorer.user_vectors(users, domain)
    k = min(_K, len(vectors))
    return topk_overlap(faiss_topk(index, queries, k)[1], exact_topk(queries, vectors, k)[1])


def _write_models(folder: Path, data: MultiDomainDataset, trained: Trained) -> None:
    models = list({id(m): m for m in trained.scorer.models.values()}.values())
    for n, model in enumerate(models):
        about = checkpoint.describe_model(model, trained.config, data)
        checkpoint.save(folder / model_file(n), model.state_dict(), about)


def _write_data(folder: Path, data: MultiDomainDataset) -> None:
    """Users' features, histories, what each user has taken anywhere, and catalogues. All of it goes through memory."""
    records = Interactions.concat([data.train, data.valid, data.test])
    tensors = {f"catalogue.{d}": c for d, c in enumerate(data.catalogues)}
    tensors |= _column("seen", Ragged.from_pairs(records.user, records.item, data.num_users))
    if data.history is not None:
        tensors |= _column("history", data.history)
    for name, column in data.users.items():
        tensors |= _column(f"user.{name}", column)
    tensors["trained_items"] = torch.unique(data.train.item)
    about = {
        "schema": data.schema.to_dict(),
        "data": data.name,
        "notes": dict(data.notes),
        "encoders": data.encoders.to_dict() if data.encoders is not None else None,
    }
    checkpoint.save(folder / DATA_FILE, tensors, about)
    for file, name, ids in ((USERS_FILE, "user_id", data.user_ids), (ITEMS_FILE, "item_id", data.item_ids)):
        pq.write_table(pa.table({name: ids}), folder / file)


def _column(name: str, column: Column) -> dict[str, Tensor]:
    if isinstance(column, Ragged):
        return {f"{name}|values": column.values, f"{name}|offsets": column.offsets}
    return {name: column}


def read_column(name: str, tensors: dict[str, Tensor]) -> Column | None:
    """What :func:`_write_data` kept under ``name``."""
    if f"{name}|values" in tensors:
        return Ragged(tensors[f"{name}|values"], tensors[f"{name}|offsets"])
    return tensors.get(name)
