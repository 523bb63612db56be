"""The training loop: mixed batches of all domains, early stopping, and runs that survive being killed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor

from adi_lite.data.batches import Batch, iterate_batches
from adi_lite.data.chunks import CHUNK
from adi_lite.data.fingerprint import records_fingerprint
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.evaluation.metrics import evaluate
from adi_lite.models.scorer import ModelScorer
from adi_lite.models.two_tower import ITEM_ID, TwoTower
from adi_lite.training import checkpoint
from adi_lite.training.config import Config, TrainConfig
from adi_lite.training.objective import FixedNegativesObjective, Objective
from adi_lite.training.optim import (
    build_optimizers,
    load_optimizer_tensors,
    optimizer_tensors,
)
from adi_lite.training.ranks import OneProcess
from adi_lite.training.self_training import SelfTraining, merge
from adi_lite.training.storage import storage

Progress = Callable[[dict], None]
"""Called after each epoch with its record: epoch, loss, seconds, records_per_second, and the validation metric."""


@dataclass
class Trained:
    """What training gives: a scorer over the data, and one record for each epoch (of each domain, for DNN-Single)."""

    scorer: ModelScorer
    config: Config
    epochs: list[dict] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def seconds(self) -> float:
        return sum(e["seconds"] for e in self.epochs)


def fit(
    data: MultiDomainDataset,
    config: Config,
    *,
    out: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    device: str = "cpu",
    bf16: bool = False,
    tables: Path | None = None,
) -> Trained:
    """Train a method on all domains.

    Every random choice follows from ``config.train.seed`` and the epoch's number, so that a run that was killed and
    resumed ends with the same bits as one that was not (on one machine, with the same number of threads).

    Args:
        data: training records, and validation records if ``config.train.patience`` asks for early stopping.
        out: folder for the checkpoint of each epoch and the finished model; None keeps nothing.
        resume: go on from ``out``'s last finished epoch, if there is one.
        progress: called after each epoch.
        device: "cpu" or "cuda", where training computes. The model that is given back is on the CPU.
        bf16: products of matrices (networks, scores of users and items) in bfloat16. Weights, tables, optimizers,
            statistics of normalisation, the loss and validation stay in float32.
        tables: folder on a disk in which embedding tables and their optimizer's state are kept, for tables that memory
            does not hold; they are the same bits. Needs ``optimizer="rowwise_adagrad"``. What still grows in memory:
            the data, and with ``patience`` the vectors of catalogues, which validation makes.

    Raises:
        ValueError: a domain without training records, early stopping without a validation split, or a device or
            ``tables`` that this run cannot have.
        CheckpointError: ``resume`` from a run of other settings, precision or data.
    """
    kind = partial(_Run, ranks=OneProcess(device), bf16=bf16, tables=tables)
    models, epochs, best = [], [], 0
    for run, name in runs_of(kind, data, config, out, resume, progress):
        run.train()
        models.append(run.model)
        epochs += [{**name, **e} for e in run.epochs]
        best = max(best, run.best_epoch)
    if len(models) == 1:
        models *= data.num_domains
    return Trained(ModelScorer(dict(enumerate(models)), data), config, epochs, best)


def runs_of(
    kind: Callable[..., _Run],
    data: MultiDomainDataset,
    config: Config,
    out: Path | None,
    resume: bool,
    progress: Progress | None,
) -> Iterator[tuple[_Run, dict]]:
    """The runs that make one method, each to be trained before the next is made, with what its epochs' records add: one
    of all domains, or, for DNN-Single, one of each domain, whose name is the ``domain`` of its records."""
    _check(data, config)
    if config.model.method != "dnn_single":
        yield kind(data, config, out, resume, progress), {}
        return
    for d, domain in enumerate(data.domains):
        named = progress and (lambda record, domain=domain: progress({"domain": domain, **record}))
        folder = out and out / domain_folder(domain)
        yield kind(data.only_domain(d), config, folder, resume, named), {"domain": domain}


def load_trained(folder: Path, data: MultiDomainDataset) -> Trained:
    """The finished model of ``fit(..., out=folder)``, ready to score ``data``."""
    parts = [folder / checkpoint.MODEL_FILE]
    if not parts[0].exists():
        parts = [folder / domain_folder(name) / checkpoint.MODEL_FILE for name in data.domains]
    if not all(p.exists() for p in parts):
        raise checkpoint.CheckpointError(f"no finished model in {folder}: it has no {checkpoint.MODEL_FILE}")
    models, epochs, best = [], [], 0
    for path, domain in zip(parts, data.domains, strict=False):
        tensors, about = checkpoint.load(path)
        checkpoint.check_fits(about, data, path)
        model, config = checkpoint.build_from(about, tensors, path)
        models.append(model)
        name = {"domain": domain} if config.model.method == "dnn_single" else {}
        epochs += [{**name, **e} for e in about["epochs"]]
        best = max(best, about["best_epoch"])
    if len(models) == 1:
        models *= data.num_domains
    return Trained(ModelScorer(dict(enumerate(models)), data), config, epochs, best)


def domain_folder(name: str) -> str:
    """The folder of a domain's own model: the name, written so that no text of a table leads out of the run."""
    safe = quote(name, safe=" ").replace(".", "%2E")
    return safe if len(safe) <= 120 else f"{safe[:100]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def build_objective(
    data: MultiDomainDataset, train: TrainConfig, ranks: OneProcess | None = None
) -> Objective | FixedNegativesObjective:
    """The loss that the settings ask for, on the records of ``data``."""
    if train.fixed_negatives:
        return FixedNegativesObjective(data, train, _generator(train.seed, "negatives"), ranks)
    return Objective(data, train, ranks)


class _Period:
    """What training needs of one period of the training time: its records and, as they were known then, all else."""

    def __init__(self, data: MultiDomainDataset, train: TrainConfig, ranks: OneProcess) -> None:
        self.data, self.steps = data, -(-len(data.train) // train.batch_size)
        self.objective = build_objective(data, train, ranks)
        self.self_training = train.self_training and SelfTraining(data, train.self_training, ranks)


class _Run:
    """The state of one model's training.

    ``ranks`` are the processes that share the work; what differs where there are several is theirs, and in
    :class:`~adi_lite.training.distributed.DistributedRun`.
    """

    resume_file = checkpoint.RESUME_FILE

    def __init__(
        self,
        data: MultiDomainDataset,
        config: Config,
        out: Path | None,
        resume: bool,
        progress: Progress | None,
        ranks: OneProcess | None = None,
        bf16: bool = False,
        tables: Path | None = None,
    ) -> None:
        self.data, self.config, self.out, self.progress = data, config, out, progress
        self.ranks = ranks or OneProcess()
        self.precision = "bfloat16" if bf16 else "float32"
        self.storage = storage(config, tables, self.ranks.device.type)
        train = config.train
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(train.seed)
            table = partial(self.ranks.table, zeros=self.storage.zeros)
            self.model = TwoTower(config.model, data.schema, data.num_items, table=table)
        # Hashing the data takes a while where they have no stamp, and neither it nor the model's description changes over the run.
        self.described = checkpoint.describe_model(self.model, config, data) if out is not None else {}
        self.records = records_fingerprint(data) if out is not None else ""
        self.ranks.place(self.model)
        self.optimizers = build_optimizers(self.model, train, self.storage.zeros)
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.periods = [_Period(part, train, self.ranks) for part in data.train_periods()]
        self.epochs: list[dict] = []
        self.best_epoch, self.best_metric, self.best_weights = 0, -1.0, {}
        if resume and out is not None and (out / self.resume_file).exists():
            self._load(out / self.resume_file)

    def train(self) -> None:
        train = self.config.train
        while len(self.epochs) < train.epochs and not self._stop():
            record = self._epoch(len(self.epochs))
            self.epochs.append(record)
            if train.patience is not None and record["valid"] > self.best_metric:
                self.best_epoch, self.best_metric = record["epoch"], record["valid"]
                self.best_weights = {}  # gives its place back first
                self.best_weights = {k: self.storage.copy(v) for k, v in self.model.state_dict().items()}
            if self.out is not None:
                self._save()
            if self.progress is not None:
                self.progress(record)
        if train.patience is None:
            self.best_epoch = len(self.epochs) - 1
        else:
            self.model.load_state_dict(self.best_weights)
        self.model.eval()
        if self.out is not None:
            self._finish()
        self.model.cpu()

    def _stop(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and bool(self.epochs) and len(self.epochs) - 1 - self.best_epoch >= patience

    def _epoch(self, epoch: int) -> dict:
        train = self.config.train
        generator = _generator(train.seed, epoch)
        started = time.perf_counter()
        self.model.train()
        total = pseudo = 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())  # dropout has no generator of its own
            for step, (period, batch) in enumerate(self._batches(generator)):
                self._schedule(epoch, step)
                size = len(batch)
                if period.self_training:
                    portion = train.self_training.portion_at(epoch)
                    labels = period.self_training.pseudo_labels(self.model, batch, portion)
                    batch = merge(batch, labels, self.data.num_domains)
                    pseudo += len(labels)
                with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
                    losses = period.objective(self.model, batch, generator)
                loss = self._weigh(losses, batch.record) / size
                for optimizer in self.optimizers:
                    optimizer.zero_grad()
                loss.backward()
                self.ranks.sum_gradients(self.model)
                for optimizer in self.optimizers:
                    optimizer.step()
                total += float(loss.detach()) * size
        total = self.ranks.total(total)
        seconds = time.perf_counter() - started
        records = len(self.data.train)
        result = {
            "epoch": epoch,
            "loss": total / records,
            "seconds": seconds,
            "records_per_second": records / seconds,
        }
        if train.self_training:
            result["pseudo_labels"] = int(pseudo)
        if not torch.isfinite(torch.tensor(result["loss"])):
            raise FloatingPointError(
                f"the loss became {result['loss']} in epoch {epoch}; a smaller learning_rate usually mends it. "
                f"The last finished epoch is kept."
            )
        if train.patience is not None:
            result["valid"] = self._validate()
        return result

    def _batches(self, generator: torch.Generator) -> Iterator[tuple[_Period, Batch]]:
        """One epoch: batches of one period each, in an order that mixes periods (in order of time without shuffling)."""
        train = self.config.train
        each = [iterate_batches(p.data, train.batch_size, generator, shuffle=train.shuffle) for p in self.periods]
        turns = torch.arange(len(each)).repeat_interleave(torch.tensor([p.steps for p in self.periods]))
        if train.shuffle and len(each) > 1:
            turns = turns[torch.randperm(len(turns), generator=generator)]
        for turn in turns.tolist():
            yield self.periods[turn], next(each[turn])

    def _weigh(self, losses: Tensor, record: Tensor) -> Tensor:
        """Eq. (27): the sum over records plus, weighted, the sum over pseudo-labels, of this process's ``losses``.

        ``record`` is that of the whole batch.
        """
        if not self.config.train.self_training:
            return losses.sum()
        pseudo = record[self.ranks.share(len(record))].to(losses.device) < 0
        return torch.where(pseudo, self.config.train.self_training.weight, 1.0) @ losses

    def _schedule(self, epoch: int, step: int) -> None:
        if self.config.train.schedule == "constant":
            return
        steps = sum(p.steps for p in self.periods)
        left = 1.0 - (epoch * steps + step) / (self.config.train.epochs * steps)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * left

    def _validate(self) -> float:
        data = self.data.as_of("valid")
        scorer = ModelScorer(dict.fromkeys(range(data.num_domains), self.model), data)
        protocol = "candidates" if "valid" in data.candidates else "corpus"
        k = int(self.config.train.metric.split("@")[1]) if "@" in self.config.train.metric else 10
        value = evaluate(scorer, data, "valid", protocol=protocol, ks=(k,)).average()[self.config.train.metric]
        return float(value)

    def _about(self) -> dict:
        return {
            **self.described,
            "records": self.records,
            "epochs": self.epochs,
            "best_epoch": self.best_epoch,
            "best_metric": self.best_metric,
            "threads": torch.get_num_threads(),
            "precision": self.precision,
        }

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best_weights.items()}
        tensors |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizers).items()}
        self._write(self.out / self.resume_file, tensors)

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        checkpoint.save(path, tensors, self._about())

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict]:
        return checkpoint.load(path)

    def _finish(self) -> None:
        checkpoint.save(self.out / checkpoint.MODEL_FILE, self.model.state_dict(), self._about())

    def _load(self, path: Path) -> None:
        tensors, about = self._read(path)
        checkpoint.check_fits(about, self.data, path)
        if checkpoint.config_of(about, path) != self.config:
            raise checkpoint.CheckpointError(
                f"{path} is a run with other settings; resume with the same ones, or choose another folder"
            )
        if about.get("records") != self.records:
            raise checkpoint.CheckpointError(
                f"{path} is a run on other records, catalogues or feature values; start again in another folder"
            )
        if (precision := about.get("precision", "float32")) != self.precision:
            raise checkpoint.CheckpointError(
                f"{path} is a run in {precision}, not {self.precision}: resume {'with' if precision == 'bfloat16' else 'without'} "
                "--bf16, or choose another folder"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
        try:
            for key, value in tensors.items():
                group, name = key.split(".", 1)
                parts[group][name] = value
            self.model.load_state_dict(parts["model"])
            load_optimizer_tensors(self.optimizers, parts["optimizer"])
        except (KeyError, ValueError, RuntimeError):
            raise checkpoint.CheckpointError(f"{path} does not hold the run that it describes") from None
        self.best_weights = parts["best"]
        self.epochs, self.best_epoch, self.best_metric = (
            about["epochs"],
            about["best_epoch"],
            about["best_metric"],
        )


def _generator(seed: int, purpose: int | str) -> torch.Generator:
    """A generator for one purpose of a run (an epoch's number, or a word), independent of all others."""
    import numpy as np

    key = purpose if isinstance(purpose, int) else sum(purpose.encode()) + 1_000_000
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, key]).generate_state(1, np.uint64)[0] >> 1))


def _check(data: MultiDomainDataset, config: Config) -> None:
    """Refuse what cannot be trained."""
    for d, name in enumerate(data.domains):
        if not any(bool((part.domain == d).any()) for part in data.train.chunks()):
            raise ValueError(f"domain {name!r} is empty: it has no training records")
    if config.train.patience is not None and len(data.valid) == 0:
        raise ValueError("early stopping (patience) needs a validation split, and this data set has none")
    if config.train.patience is not None and config.model.method == "dnn_single":
        for d, name in enumerate(data.domains):
            if not bool((data.valid.domain == d).any()):
                raise ValueError(
                    f"domain {name!r} has no validation records: its own model cannot stop early (patience)"
                )
    if config.model.tie_history and config.model.user != "id" and not can_tie_history(data):
        raise ValueError(
            f"tie_history needs the codes of {ITEM_ID!r} to be the rows plus 1 of all items of the history, as the "
            f"history's codes are; those of {data.name!r} are not"
        )


def can_tie_history(data: MultiDomainDataset) -> bool:
    """Whether past items can share the items' table: the code of each item of a history is its row plus 1.

    Items in no history may have code 0, as those without training records have.
    """
    codes = data.items.get(ITEM_ID)
    if codes is None or data.history is None:
        return False
    past = torch.zeros(data.num_items, dtype=torch.bool)
    for part in data.history.values.split(CHUNK):
        past[part] = True
    past = past.nonzero().squeeze(1)
    return torch.equal(codes[past], past + 1)
