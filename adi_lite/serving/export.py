"""The user tower of one domain as an ONNX file, so that a server computes users' vectors without this library."""

from __future__ import annotations

import copy
import importlib
import itertools
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adi_lite import __version__
from adi_lite.atomic import replacing
from adi_lite.data.batches import HISTORY, Bag, Inputs, mean_bag
from adi_lite.data.schema import Feature
from adi_lite.models.two_tower import Tower, TwoTower
from adi_lite.nn.embedding import FeatureEmbedding

if TYPE_CHECKING:
    import onnx

OUTPUT = "vector"
PAD = -1
"""Fills the rows of a bag up to the longest one."""
TOLERANCE = 1e-5
"""Largest difference from the model's vectors, as a share of their largest absolute value."""
_MAX_BYTES = 2**31 - 2**20  # a protobuf message ends at 2 GiB; the graph itself is small


def export_user_tower(
    model: TwoTower, domain: int, path: str | Path, *, check: bool = True, domain_name: str | None = None
) -> dict:
    """Write what :meth:`TwoTower.user_vectors` computes for users of ``domain`` as an ONNX file.

    The graph has one input for each user feature, called like the feature, and one output:

    - categorical feature: int64 ``(n,)`` codes, 0 for unknown;
    - dense feature: float32 ``(n, size)``;
    - bag: int64 ``(n, L)`` codes, rows filled up with -1 (any negative number is padding, wherever it stands). A row's
      field is the mean over its codes, and zero where the row has none;
    - ``history``, if the model reads histories: a bag of past items, an item's code being its row + 1; 0 is unknown;
    - output ``vector``: float32 ``(n, width)``, to be used as it is in an index for inner products.

    n >= 1 and each bag's L >= 0 may differ from call to call. A feature that differs by domain is given as it is in
    ``domain``. The file's metadata hold ``adi_lite_version``, ``width``, ``domain`` (the number) and, if it was given,
    ``domain_name``.

    Args:
        model: a trained model; it is left as it is, in its mode and on its device.
        domain: number of the domain that all rows are in.
        path: file to write; it appears whole, or the old one stays.
        check: compare the graph, run by onnxruntime, with the model on random inputs of 1 and of 7 rows.
        domain_name: name for the metadata.

    Returns:
        ``path``; ``inputs``, by name, type, shape and meaning in words; and ``max_abs_error``, the largest absolute
        difference that the check met, None without it.

    Raises:
        ValueError: the extra packages are missing, there is no such domain, the tower reads no feature, a feature is
            called ``vector``, the tables exceed the 2 GiB of an ONNX file, or the graph's vectors differ from the
            model's by more than 1e-5 of the largest absolute value among the model's vectors of that call.
    """
    _require_packages()
    import onnx

    if not 0 <= domain < model.num_domains:
        raise ValueError(f"no domain {domain}: the model has the domains 0 to {model.num_domains - 1}")
    if any(m.training for m in model.modules()) or any(p.device.type != "cpu" for p in model.parameters()):
        model = copy.deepcopy(model).cpu().eval()
    _refuse(model)
    embedding = model.user.embedding
    inputs = {f.name: _describe(f, f.name == HISTORY and embedding.reads_history) for f in _fields(embedding)}
    proto = _to_onnx(model, domain, inputs)
    metadata = {
        "adi_lite_version": __version__,
        "domain": str(domain),
        "width": str(proto.graph.output[0].type.tensor_type.shape.dim[-1].dim_value),
    }
    if domain_name is not None:
        metadata["domain_name"] = domain_name
    onnx.helper.set_model_props(proto, metadata)
    content = proto.SerializeToString()
    error = _check(content, model, domain) if check else None
    with replacing(path) as partial:
        partial.write_bytes(content)
    return {"path": str(path), "inputs": inputs, "max_abs_error": error}


class _PaddedEmbedding(FeatureEmbedding):
    """The same tables and layers, but a bag is a padded (n, L) tensor of codes."""

    def __init__(self, embedding: FeatureEmbedding) -> None:
        nn.Module.__init__(self)  # not the base's, which would draw new tables
        self.features, self.dim, self.names = embedding.features, embedding.dim, embedding.names
        self.reads_history = embedding.reads_history
        self.tables, self.dense = embedding.tables, embedding.dense
        self.domain, self.domain_field = embedding.domain, embedding.domain_field

    def _bag(self, rows: Tensor, place: Tensor, codes: Tensor, sparse: bool) -> Tensor:
        real = (codes >= 0).unsqueeze(-1).float()
        embedded = F.embedding(codes.clamp(min=0), rows)
        return (embedded * real).sum(1) / real.sum(1).clamp(min=1)


class _PaddedTower(Tower):
    """The same tower, reading padded bags."""

    def __init__(self, tower: Tower) -> None:
        nn.Module.__init__(self)
        self.embedding = _PaddedEmbedding(tower.embedding)
        self.network, self.final_relu, self.gain = tower.network, tower.final_relu, tower.gain


class _UserVectors(nn.Module):
    """:meth:`TwoTower.user_vectors` for rows of one domain, with padded bags: tensors by feature -> (n, width)."""

    def __init__(self, model: TwoTower, domain: int) -> None:
        super().__init__()
        self.tower, self.config, self.has_bias = _PaddedTower(model.user), model.config, model.bias is not None
        self.domain, self.num_domains = domain, model.num_domains

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        n = next(iter(features.values())).shape[0]  # len() would fix n in the graph
        out = self.tower(_inputs(features, n, self.domain, self.num_domains))
        if self.config.similarity == "cosine":
            out = F.normalize(out, dim=1) / self.config.temperature
        return torch.cat([out, out.new_ones(n, 1)], 1) if self.has_bias else out


def _inputs(features: Mapping[str, Tensor | Bag], n: int, domain: int, num_domains: int) -> Inputs:
    counts = tuple(n if d == domain else 0 for d in range(num_domains))
    return Inputs(torch.full((n,), domain, dtype=torch.int64), counts, dict(features))


def _refuse(model: TwoTower) -> None:
    """Refuse a tower that no graph can hold."""
    names = [f.name for f in _fields(model.user.embedding)]
    if not names:
        raise ValueError("the user tower reads no feature: every user of a domain has the same vector, and no input")
    if OUTPUT in names or "" in names:
        raise ValueError(f"a user feature may not be called {OUTPUT!r}, as the output is, nor ''; rename it")
    size = sum(p.numel() * p.element_size() for p in model.user.parameters())
    if size > _MAX_BYTES:
        raise ValueError(
            f"the user tower has {size / 2**30:.1f} GiB of weights, and an ONNX file holds 2 GiB; "
            "train with a smaller dim, or with user='history', which needs no table of users"
        )


def _require_packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ValueError(f"the export needs {name}, which is not installed: pip install adi-lite[export]") from None


def _fields(embedding: FeatureEmbedding) -> list[Feature]:
    """The inputs of the graph, in order; the history is a bag like any other."""
    fields = list(embedding.features)
    if embedding.reads_history:
        fields.append(Feature(HISTORY, "bag", embedding.tables[HISTORY].num_embeddings))
    return fields


def _describe(f: Feature, is_history: bool) -> str:
    if f.kind == "dense":
        return f"float32 (n, {f.size})"
    codes = f"codes 0 to {f.size - 1}, 0 is unknown"
    if f.kind == "categorical":
        return f"int64 (n,), {codes}"
    return f"int64 (n, L), {codes}, padded with {PAD}" + (", code of an item is its row + 1" if is_history else "")


def _draw(fields: list[Feature], n: int, lengths: Iterator[int], generator: torch.Generator) -> dict[str, Tensor]:
    """Random inputs of the graph; about a third of each bag is padding, and the first row's bag is empty if n > 1."""
    features = {}
    for f in fields:
        if f.kind == "dense":
            features[f.name] = torch.randn(n, f.size, generator=generator)
            continue
        shape = (n,) if f.kind == "categorical" else (n, next(lengths))
        codes = torch.randint(0, f.size, shape, generator=generator)
        if f.kind == "bag":
            codes[torch.rand(shape, generator=generator) < 1 / 3] = PAD
            if n > 1:
                codes[0] = PAD
        features[f.name] = codes
    return features


def _to_onnx(model: TwoTower, domain: int, inputs: Mapping[str, str]) -> onnx.ModelProto:
    fields = _fields(model.user.embedding)
    # Sizes that differ from one another, so that none is taken for another's.
    example = _draw(fields, 3, itertools.count(4), torch.Generator().manual_seed(0))
    rows = torch.export.Dim("n")
    shapes = {}
    for i, f in enumerate(fields):
        shapes[f.name] = {0: rows, 1: torch.export.Dim(f"L{i}")} if f.kind == "bag" else {0: rows}
    with _silence(), torch.no_grad():
        program = torch.export.export(
            _UserVectors(model, domain).eval(), (), {"features": example}, dynamic_shapes={"features": shapes}
        )
        proto = torch.onnx.export(program, dynamo=True, verbose=False).model_proto
    graph = proto.graph
    del graph.value_info[:]  # shapes on the way, which every runtime finds by itself
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]  # stack traces, with this machine's paths
    _rename(graph, list(inputs))
    for value in graph.input:
        value.doc_string = inputs[value.name]
    return proto


def _rename(graph: onnx.GraphProto, inputs: list[str]) -> None:
    """Give inputs, output and sizes their names, and everything else names that no feature has."""
    prefix = "tower/"
    while any(name.startswith(prefix) for name in inputs):
        prefix = "_" + prefix
    names = dict(zip((value.name for value in graph.input), inputs, strict=True)) | {graph.output[0].name: OUTPUT}

    def new(name: str) -> str:
        return names.get(name, prefix + name) if name else ""  # an optional input that is left out has no name

    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new(value.name)
    for node in graph.node:
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
    for value in (*graph.input, *graph.output):
        for dim, name in zip(value.type.tensor_type.shape.dim, ("n", f"L of {value.name}"), strict=False):
            if dim.dim_param:
                dim.dim_param = name


@contextmanager
def _silence() -> Iterator[None]:
    """Keep back what the exporter says about packages that it does without and nodes that it does not simplify."""
    logs = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@torch.no_grad()
def _check(content: bytes, model: TwoTower, domain: int) -> float:
    """The largest absolute difference between the graph's vectors and the model's."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    worst = 0.0
    for n, length in ((1, 3), (7, 6)):
        features = _draw(_fields(model.user.embedding), n, itertools.count(length), generator)
        (got,) = session.run([OUTPUT], {name: x.numpy() for name, x in features.items()})
        ragged = {
            f.name: _bag(features[f.name]) if f.kind == "bag" else features[f.name]
            for f in _fields(model.user.embedding)
        }
        want = model.user_vectors(_inputs(ragged, n, domain, model.num_domains))
        if got.shape != tuple(want.shape):
            raise ValueError(f"the exported graph gives vectors of shape {got.shape}, the model {tuple(want.shape)}")
        error, largest = float((torch.from_numpy(got) - want).abs().max()), float(want.abs().max())
        if not error <= TOLERANCE * largest:  # also true of NaN
            raise ValueError(
                f"the exported graph differs from the model by {error:.3g} on {n} random users, where the vectors "
                f"reach {largest:.3g}: more than {TOLERANCE:g} of that. Nothing was written"
            )
        worst = max(worst, error)
    return worst


def _bag(padded: Tensor) -> Bag:
    real = padded >= 0
    offsets = torch.zeros(len(padded) + 1, dtype=torch.int64)
    torch.cumsum(real.sum(1), 0, out=offsets[1:])
    return mean_bag(padded[real], offsets)
