"""Models and interrupted runs on disk: safetensors only, each file replaced in one step, nothing pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from adi_lite import __version__
from adi_lite.atomic import replacing
from adi_lite.data.fingerprint import fingerprint
from adi_lite.data.schema import MultiDomainDataset, Schema
from adi_lite.models.two_tower import TwoTower
from adi_lite.nn.embedding import Table
from adi_lite.training.config import Config
from adi_lite.training.tensor_file import Blocks, blocks_of, write

FORMAT = 1
MODEL_FILE, RESUME_FILE = "model.safetensors", "resume.safetensors"
SHARDS_FILE = "resume.json"
"""What a run of several processes goes on from; see :mod:`adi_lite.training.shards`."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used here; the message says why."""


def save(path: Path, tensors: Mapping[str, Tensor | Blocks], about: Mapping) -> None:
    """Write tensors with a description; a reader sees the old file or the new one, never a part.

    No tensor is copied whole. A table that two towers share has two names, and is written for each.
    """
    text = json.dumps({"format": FORMAT, "version": __version__, **about})
    parts = {name: t if isinstance(t, Blocks) else blocks_of(t) for name, t in tensors.items()}
    with replacing(path) as partial:
        write(partial, parts, {"adi_lite": text})


def load(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what :func:`save` wrote: the tensors and the description. The tensors lie in the file, until they are used."""
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("adi_lite", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from None
    if not isinstance(about, dict) or "format" not in about:
        raise CheckpointError(f"{path} was not written by adi_lite: it lacks the description")
    if about["format"] != FORMAT:
        raise CheckpointError(f"{path} has format {about['format']}, this version reads format {FORMAT}")
    return tensors, about


def describe_model(model: TwoTower, config: Config, data: MultiDomainDataset) -> dict:
    """What a checkpoint says about its model: enough to build it again and to refuse other data."""
    return {
        "config": config.model_dump(mode="json"),
        "schema": data.schema.to_dict(),
        "num_items": data.num_items,
        "data": data.name,
        "fingerprint": fingerprint(data),
        "parameters": model.num_parameters(),
    }


def build_from(about: Mapping, tensors: Mapping[str, Tensor], path: Path) -> tuple[TwoTower, Config]:
    """The model that a checkpoint describes, with its weights. Its tables stay in the file, of which rows are read as
    they are looked up."""
    config = config_of(about, path)
    model = TwoTower(config.model, Schema.from_dict(about["schema"]), about["num_items"], table=_without_rows)
    named = model.named_modules(remove_duplicate=False)
    tables = {f"{name}.weight" for name, module in named if isinstance(module, Table)}
    try:
        model.load_state_dict({n: t if n in tables else t.clone() for n, t in tensors.items()}, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not hold the model that it describes: {error}") from None
    return model.eval(), config


def _without_rows(rows: int, width: int, std: float, sparse: bool) -> Table:
    return Table.from_pretrained(torch.empty(rows, width, device="meta"), freeze=False, sparse=sparse)


def config_of(about: Mapping, path: Path) -> Config:
    """The settings that a checkpoint was made with."""
    try:
        return Config.model_validate(about["config"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise CheckpointError(f"{path} has settings that this version does not know: {where}: {first['msg']}") from None


def check_fits(about: Mapping, data: MultiDomainDataset, path: Path) -> None:
    """Refuse a checkpoint of other data, in a sentence."""
    missing = [part for part in ("config", "schema", "fingerprint", "epochs", "best_epoch") if part not in about]
    if missing:
        raise CheckpointError(f"{path} describes no model of adi_lite: it lacks {', '.join(missing)}")
    domains = tuple(about["schema"]["domains"])
    if domains != data.domains:
        raise CheckpointError(f"{path} was trained on the domains {', '.join(domains)}, not {', '.join(data.domains)}")
    if about["fingerprint"] != fingerprint(data):
        raise CheckpointError(
            f"{path} was trained on other data ({about['data']!r}): its users, items or features are not those of {data.name!r}"
        )
