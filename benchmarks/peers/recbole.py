"""Models of RecBole, trained by its ``Trainer`` over its own data loader, which draws uniform negatives for each batch.

They read ids alone: no histories and no domains, which spares them work that ADI and torch-rechub do.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from adi_lite.data.schema import MultiDomainDataset
from benchmarks.learners import Learner
from benchmarks.peers import MissingPackageError

Model = Literal["DSSM", "BPR"]
OLD_NAMES = {
    "float_": np.float64,
    "complex_": np.complex128,
    "object_": np.object_,
    "str_": np.str_,
    "unicode_": np.str_,
}
"""Names that NumPy 2 dropped and RecBole reads when it is set up."""


def learner(
    data: MultiDomainDataset,
    model: Model,
    *,
    width: int = 64,
    batch_size: int = 1024,
    row_negatives: int = 1,
    seed: int = 0,
) -> Learner:
    """``DSSM``: two towers, point-wise, each record beside ``row_negatives`` others. ``BPR``: two tables, pair-wise.

    A batch has ``batch_size`` records and as many negatives for each as asked for.

    Raises:
        MissingPackageError: RecBole, or a package that it imports, is not installed.
    """
    try:
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.data.interaction import Interaction
        from recbole.utils import get_model, get_trainer
    except ImportError as error:
        raise MissingPackageError("recbole", error) from error
    for name, now in OLD_NAMES.items():
        if not hasattr(np, name):
            setattr(np, name, now)

    folder = tempfile.TemporaryDirectory(prefix="recbole")
    _write(data, Path(folder.name) / "bench")
    settings = {
        "data_path": folder.name,
        "checkpoint_dir": folder.name,
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": None, "mode": "full"},
        "train_neg_sample_args": {"distribution": "uniform", "sample_num": row_negatives, "alpha": 1.0},
        "train_batch_size": batch_size * (row_negatives + (model == "DSSM")),
        "metrics": ["Recall"],
        "valid_metric": "Recall@10",
        "embedding_size": width,
        "mlp_hidden_size": [width, width],
        "dropout_prob": 0.0,
        "learning_rate": 3e-3,
        "epochs": 1,
        "device": "cpu",
        "use_gpu": False,
        "seed": seed,
        "state": "ERROR",
        "show_progress": False,
    }
    if model == "BPR":
        del settings["mlp_hidden_size"], settings["dropout_prob"]
    torch.manual_seed(seed)
    with contextlib.chdir(folder.name), _without_arguments(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = Config(model=model, dataset="bench", config_dict=settings)
        prepared = create_dataset(config)
        loader = data_preparation(config, prepared)[0]
        net = get_model(model)(config, loader.dataset).to("cpu")
        trainer = get_trainer(config["MODEL_TYPE"], model)(config, net)
        trainer.tensorboard.close()
    folder.cleanup()
    trainer.tensorboard = _NoLog()
    user_code = _codes(prepared.field2token_id["user_id"], len(data.user_ids))
    item_code = _codes(prepared.field2token_id["item_id"], data.num_items)

    def epoch() -> int:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(loader, saved=False, verbose=False)
        return len(data.train)

    class _Pairs:
        """Scores of all pairs by the model's own ``predict``, as the towers of RecBole are not apart."""

        @torch.no_grad()
        def scores(self, users: Tensor, domain: int) -> Tensor:
            catalogue = data.catalogues[domain]
            u = user_code[users].repeat_interleave(len(catalogue))
            pairs = Interaction({"user_id": u, "item_id": item_code[catalogue].repeat(len(users))})
            return net.predict(pairs).view(len(users), -1)

    def scorer() -> _Pairs:
        net.eval()
        return _Pairs()

    return Learner(epoch, scorer, f"{row_negatives}, of the row, drawn for each batch")


@contextlib.contextmanager
def _without_arguments() -> Iterator[None]:
    """RecBole reads the command line of the process for settings."""
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = kept


class _NoLog:
    """Stands in for RecBole's log, which would go to the folder in which it was set up: some numbers an epoch."""

    def add_scalar(self, *args: object) -> None:
        pass

    def add_hparams(self, *args: object) -> None:
        pass


def _write(data: MultiDomainDataset, folder: Path) -> None:
    """The records as a file of RecBole's own format. All users and items of the data set get a row of the tables."""
    folder.mkdir()
    lines = ["user_id:token\titem_id:token"]
    lines += [f"{u}\t{i}" for u, i in zip(data.train.user.tolist(), data.train.item.tolist(), strict=True)]
    (folder / "bench.inter").write_text("\n".join(lines) + "\n")


def _codes(token_id: dict[str, int], size: int) -> Tensor:
    """(size,) RecBole's code of each row; 0, its padding, for what training does not show."""
    return torch.tensor([token_id.get(str(row), 0) for row in range(size)])
