"""Training by several processes, which equals training by one (data parallel networks, tables cut by rows).

Start it with ``torchrun --nproc-per-node N -m adi_lite.train ...``; see :mod:`adi_lite.training.process_group` for what is
where.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from adi_lite.data.batches import InputBuilder, Inputs
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.models.two_tower import TwoTower
from adi_lite.training import checkpoint, shards
from adi_lite.training.config import Config
from adi_lite.training.process_group import ProcessGroup
from adi_lite.training.trainer import Progress, _Run, runs_of


@dataclass
class Course:
    """What distributed training gives: a record for each epoch (of each domain, for DNN-Single). The model is on disk."""

    config: Config
    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    parameters: dict[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return sum(e["seconds"] for e in self.epochs)


def fit_distributed(
    data: MultiDomainDataset,
    config: Config,
    ranks: ProcessGroup,
    *,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
    bf16: bool = False,
    tables: Path | None = None,
) -> Course:
    """Train a method with all processes of ``ranks``, each of which calls this with the same arguments.

    The loss of each epoch and the weights are those of :func:`~adi_lite.training.trainer.fit`, up to the order of sums: the
    same batches, negatives and dropout, statistics of normalisation over the whole batch. The same number of processes
    gives the same bits (on CPUs).

    Args:
        data: the same on every process.
        out: folder that all processes see, for the checkpoint of each epoch and the finished model, which process 0
            writes whole, as ``fit`` does. Any number of processes can go on from it.
        resume: go on from ``out``'s last finished epoch, if there is one.
        progress: called after each epoch, on process 0.
        bf16: as of ``fit``.
        tables: as of ``fit``; each process keeps its own rows in it, so it may be a folder of each machine.

    Raises:
        ValueError: as ``fit``.
        CheckpointError: ``resume`` from a run of other settings or other data.
    """
    course = Course(config, parameters={"networks": 0, "embeddings": 0})
    kind = partial(DistributedRun, ranks=ranks, bf16=bf16, tables=tables)
    for run, name in runs_of(kind, data, config, out, resume, progress if ranks.rank == 0 else None):
        run.train()
        course.epochs += [{**name, **e} for e in run.epochs]
        course.best_epoch = max(course.best_epoch, run.best_epoch)
        sizes = run.described["parameters"]
        course.parameters = {
            "networks": course.parameters["networks"] + sizes["networks"],
            "embeddings": sizes["embeddings"],  # of DNN-Single, each model trains its own rows of the same tables
        }
    return course


class DistributedRun(_Run):
    """One process's part of one model's training."""

    resume_file = checkpoint.SHARDS_FILE

    def __init__(
        self,
        data: MultiDomainDataset,
        config: Config,
        out: Path,
        resume: bool,
        progress: Progress | None,
        ranks: ProcessGroup,
        bf16: bool = False,
        tables: Path | None = None,
    ) -> None:
        if not resume:  # else a part of this run's first checkpoint could be taken for one of an old run
            if ranks.rank == 0:
                (out / self.resume_file).unlink(missing_ok=True)
            ranks.barrier()
        super().__init__(data, config, out, resume, progress, ranks, bf16, tables)

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        shards.save(path, tensors, self._sharded(tensors), self._about(), self.ranks)

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict]:
        return shards.load(path, self.ranks, self.storage.zeros)

    def _sharded(self, tensors: dict[str, Tensor]) -> dict[str, int]:
        """The tensors of a checkpoint that are cut by rows, with the number of rows of the whole."""
        tables = self.ranks.tables(self.model)
        of_model = {f"{part}.{n}": t.num_embeddings for part in ("model", "best") for n, t in tables.items()}
        rows = {id(t.weight): t.num_embeddings for t in tables.values()}
        of_state = {
            f"optimizer.{o}.{p}": rows[id(parameter)]
            for o, optimizer in enumerate(self.optimizers)
            for p, parameter in enumerate(_parameters(optimizer))
            if id(parameter) in rows
        }
        found = {}
        for name, value in tensors.items():
            total = of_model.get(name) or of_state.get(name.rpartition(".")[0])
            if total is not None and value.dim():  # a count of steps is one number
                found[name] = total
        return found

    def _finish(self) -> None:
        sharded = {name: t.num_embeddings for name, t in self.ranks.tables(self.model).items()}
        path = self.out / checkpoint.MODEL_FILE
        shards.save_whole(path, self.model.state_dict(), sharded, self._about(), self.ranks)

    def _validate(self) -> float:
        """The metric of the whole split: each process ranks for its own users."""
        data, ranks = self.data.as_of("valid"), self.ranks
        self.model.eval()
        scorer = _VectorScorer(self.model, data, ranks)
        records = data.valid
        mine = torch.zeros(len(records), dtype=torch.bool)
        for d, users in enumerate(scorer.users):
            mine |= (records.domain == d) & torch.isin(records.user, users)
        sums = torch.zeros(data.num_domains, 2, dtype=torch.float64)  # of the metric, and of ones
        if bool(mine.any()):
            metric = self.config.train.metric
            k = int(metric.split("@")[1]) if "@" in metric else 10
            protocol = "candidates" if "valid" in data.candidates else "corpus"
            found = evaluate(scorer, data.some_of("valid", mine), "valid", protocol=protocol, ks=(k,))
            domain = torch.from_numpy(found.domain)
            sums[:, 0].index_add_(0, domain, torch.from_numpy(found.metrics[metric]))
            sums[:, 1] = torch.bincount(domain, minlength=data.num_domains)
        sums = ranks.sum_of(sums)
        asked = sums[:, 1] > 0
        return float((sums[asked, 0] / sums[asked, 1]).mean())


class _VectorScorer:
    """Scores of this process's users of the validation split over whole catalogues.

    All vectors are made at once, by all processes together, since a lookup needs them all.
    """

    chunk = 4096

    def __init__(self, model: TwoTower, data: MultiDomainDataset, ranks: ProcessGroup) -> None:
        self.inputs, self.ranks = InputBuilder(data), ranks
        self.items, self.users, self.vectors = [], [], []
        for d, catalogue in enumerate(data.catalogues):
            own = self._own_vectors(catalogue, lambda rows, d=d: model.item_vectors(self._items(rows, d)))
            self.items.append(ranks.gather(own, len(catalogue)))
            users = torch.unique(data.valid.user[data.valid.domain == d])
            self.users.append(users[ranks.share(len(users))])
            self.vectors.append(self._own_vectors(users, lambda rows, d=d: model.user_vectors(self._users(rows, d))))

    def scores(self, users: Tensor, domain: int) -> Tensor:
        rows = torch.searchsorted(self.users[domain], users)
        return self.vectors[domain][rows.to(self.ranks.device)] @ self.items[domain].T

    @torch.no_grad()
    def _own_vectors(self, rows: Tensor, vectors: Callable[[Tensor], Tensor]) -> Tensor:
        """Vectors of this process's share of ``rows``, in as many chunks as the largest share has."""
        own, each = rows[self.ranks.share(len(rows))], -(-len(rows) // self.ranks.world)
        starts = range(0, max(1, each), self.chunk)
        return torch.cat([vectors(own[start : start + self.chunk]) for start in starts])

    def _items(self, rows: Tensor, domain: int) -> Inputs:
        return self.ranks.to_device(self.inputs.items_in(rows, domain))

    def _users(self, rows: Tensor, domain: int) -> Inputs:
        return self.ranks.to_device(self.inputs.users_in(rows, domain))


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    """In the order of the numbers in the optimizer's state."""
    return [p for group in optimizer.param_groups for p in group["params"]]
