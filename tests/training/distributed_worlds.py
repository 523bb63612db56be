"""What each process of the distributed tests does. One start serves many cases: starting is what takes the time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist
from torch import multiprocessing

from adi_lite.nn import embedding
from adi_lite.nn.embedding import Table
from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm
from adi_lite.nn.sharded_embedding import ShardedTable, own_rows, share
from adi_lite.nn.synced_normalization import SyncedBatchNorm
from adi_lite.training import tensor_file, trainer
from adi_lite.training.config import Config
from adi_lite.training.distributed import fit_distributed
from adi_lite.training.process_group import ProcessGroup, process_group

# 294 records: batches of 97 end in one of 3 rows, of which the last of 4 processes has none, and some domain perhaps one.
CASES = {
    "adi": {"adaptation": "se", "dropout": 0.3, "patience": 3, "batch_size": 97},
    "dnn": {
        "method": "dnn",
        "sampler": "popularity",
        "tie_history": True,
        "weight_decay": 0.01,
        "schedule": "linear",
    },
    "mixed": {
        "method": "ple",
        "sampler": "mixed",
        "correct_positive": True,
        "dropout": 0.2,
        "optimizer": "sparse_adam",
        "sparse_embeddings": True,
    },
    "full": {
        "adaptation": "se",
        "se_placement": "network",
        "num_shared": 2,
        "loss": "full",
        "optimizer": "rowwise_adagrad",
        "sparse_embeddings": True,
    },
    "fixed": {"method": "star", "fixed_negatives": True, "double_softmax": True, "dropout": 0.2},
    "self": {"self_training": {"portion": 0.2, "start_epoch": 1, "weight": 0.5}, "sampler": "mixed"},
    "likely": {"self_training": {"portion": 0.3, "score": "probability"}, "batch_size": 97, "dropout": 0.2},
    "single": {"method": "dnn_single", "sampler": "in_batch", "patience": 2},
}
RICH = ("mixed", "full")
RESHARDED = ("adi", "mixed", "full")
FOUR = ("adi", "dnn", "self", "likely")
"""Cases that four processes train from the start; the others go through RESHARDED, or differ from these in one layer."""


class Stopped(Exception):
    """Every process stops here, between two epochs."""


def config(case: str) -> Config:
    small = {"dim": 4, "out_dim": 8, "hidden": (8,), "epochs": 3, "batch_size": 64, "num_negatives": 9}
    return Config().with_changes(**{**small, **CASES[case]})


def data(case: str):
    from small_worlds import tiny

    found = tiny(records=300, rich=case in RICH)
    columns = ({k: c.double() if isinstance(c, torch.Tensor) and c.is_floating_point() else c for k, c in side.items()}
               for side in (found.users, found.items))  # fmt: skip
    return found.replace(**dict(zip(("users", "items"), columns, strict=True)))


@contextmanager
def float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def train_until(epoch: int | None, case: str, ranks: ProcessGroup, out: Path) -> None:
    """Go on with a run, and stop before ``epoch``."""
    right = trainer._Run._epoch

    def stopping(self, number):
        if number == epoch:
            raise Stopped
        return right(self, number)

    trainer._Run._epoch = stopping
    try:
        fit_distributed(data(case), config(case), ranks, out=out, resume=True)
    except Stopped:
        pass
    finally:
        trainer._Run._epoch = right


def spawn(world: int, folder: Path, argv: list[str] | None = None) -> None:
    """Run all that follows in ``world`` processes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun's agent keeps one
    multiprocessing.spawn(_work, (world, store.port, folder, argv), world)


def _work(rank: int, world: int, port: int, folder: Path, argv: list[str] | None) -> None:
    launch = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    launch["TORCHELASTIC_USE_AGENT_STORE"] = True
    os.environ |= {name: str(value) for name, value in launch.items()}
    sys.path.insert(0, str(Path(__file__).parents[1]))
    torch.set_num_threads(1)
    embedding.BLOCK, tensor_file.BLOCK_BYTES = 32, 64  # small tables too are drawn and written in many blocks
    with process_group() as ranks:
        with float64():
            errors = {**norm_errors(ranks), **table_errors(ranks)}
            (folder / f"errors-{world}-{rank}.json").write_text(json.dumps(errors))
            for case in CASES if world == 2 else FOUR:
                fit_distributed(data(case), config(case), ranks, out=folder / f"{case}-{world}")
            for case in RESHARDED:
                train_until({2: 1, 4: None}[world], case, ranks, folder / f"{case}-resharded")
        if world == 2:
            fit_distributed(data("adi"), config("adi"), ranks, out=folder / "again-a")
            fit_distributed(data("adi"), config("adi"), ranks, out=folder / "again-b")
    if argv is not None:
        from adi_lite import train

        sys.argv = ["adi_lite.train", *argv]
        train.run(train.app)


def norm_errors(ranks: ProcessGroup) -> dict[str, float]:
    """Greatest differences to one process, over domains that are missing here, missing everywhere, and one row."""
    errors = {}
    for name, whole in (("dsbn", DomainBatchNorm(4, 5)), ("bn", BatchNorm(5))):
        generator = torch.Generator().manual_seed(1)
        counts = (6, 0, 1, 9)
        x = torch.randn(16, 5, generator=generator) * 3 + 100  # sums of squares would cancel
        goal = torch.randn(16, 5, generator=generator)
        with torch.no_grad():
            for tensor in (*whole.parameters(), whole.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
        synced = SyncedBatchNorm(type(whole)(*((4, 5) if name == "dsbn" else (5,))))
        synced.load_state_dict(whole.state_dict())
        own = ranks.share(16)
        domain = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))[own]
        mine = torch.bincount(domain, minlength=4).tolist()
        a, b = x.clone().requires_grad_(), x[own].clone().requires_grad_()
        for _ in range(2):
            y, z = whole(a, counts), synced(b, mine)
            (y * goal).sum().backward()
            (z * goal[own]).sum().backward()
        ranks.sum_gradients(synced)
        pairs = {"output": (y[own], z), "gradient": (a.grad[own], b.grad)}
        pairs |= {n: (getattr(whole, n), getattr(synced, n)) for n in ("running_mean", "running_var")}
        pairs |= {
            f"gradient of {n}": (p.grad, q.grad)
            for (n, p), q in zip(whole.named_parameters(), synced.parameters(), strict=True)
        }
        errors |= {
            f"{name} {n}": float((p - q).detach().abs().max()) if p.numel() else 0.0 for n, (p, q) in pairs.items()
        }
    return errors


def table_errors(ranks: ProcessGroup) -> dict[str, float]:
    """Greatest differences to a whole table, with fewer rows than fit evenly, and with codes on one process only."""
    errors = {}
    for sparse in (False, True):
        weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
        whole = Table.from_pretrained(weight.clone(), freeze=False, sparse=sparse)
        table = ShardedTable(5, weight[own_rows(5)].clone(), sparse)
        asked = {0: torch.tensor([4, 4, 0, 1])}
        codes = asked.get(ranks.rank, torch.zeros(0, dtype=torch.int64))
        out = table(codes)
        errors[f"rows {sparse}"] = float((out - weight[codes]).detach().abs().sum())
        out.square().sum().backward()
        whole(asked[0]).square().sum().backward()
        own = share(5, ranks.rank, ranks.world)
        expected, found = (g.to_dense() if g.is_sparse else g for g in (whole.weight.grad, table.weight.grad))
        errors[f"gradient {sparse}"] = float((expected[own] - found).abs().sum())
        errors[f"kind {sparse}"] = float(table.weight.grad.is_sparse != sparse)
    return errors | _together(ranks)


def _together(ranks: ProcessGroup) -> dict[str, float]:
    """Several lookups in two tables at once, against whole tables: rows, and gradients of all processes' codes."""
    random = torch.Generator().manual_seed(1)
    sizes, errors = (7, 11), {}
    weights = [torch.randn(n, 3, generator=random) for n in sizes]
    # In the first table twice, in the second once; process 1 asks nothing of the second.
    every = [
        [torch.randint(sizes[t], (6 * (t == 0 or r != 1),), generator=random) for t in (0, 1, 0)]
        for r in range(ranks.world)
    ]
    tables = [ShardedTable(n, w[own_rows(n)].clone(), True) for n, w in zip(sizes, weights, strict=True)]
    lookups = [(tables[t], codes) for t, codes in zip((0, 1, 0), every[ranks.rank], strict=True)]
    found = [rows[place] for rows, place in ShardedTable.fetch(lookups)]
    expected = [weights[t][codes] for t, codes in zip((0, 1, 0), every[ranks.rank], strict=True)]
    errors["rows together"] = sum(float((f - e).detach().abs().sum()) for f, e in zip(found, expected, strict=True))
    sum((n + 1) * f.square().sum() for n, f in enumerate(found)).backward()
    whole = [w.clone().requires_grad_() for w in weights]
    sum(
        (n + 1) * whole[t][codes].square().sum()
        for each in every
        for n, (t, codes) in enumerate(zip((0, 1, 0), each, strict=True))
    ).backward()
    pairs = [(w.grad[own_rows(len(w))], t.weight.grad.to_dense()) for w, t in zip(whole, tables, strict=True)]
    errors["gradients together"] = sum(float((a - b).abs().sum()) for a, b in pairs)
    return errors
