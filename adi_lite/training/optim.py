"""Optimizers: one for the networks, and perhaps another for the embedding tables that moves only the rows of a batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, SparseAdam

from adi_lite.nn.embedding import Zeros
from adi_lite.training.config import TrainConfig


class RowwiseAdagrad(Optimizer):
    """Adagrad with one accumulator for each row of an embedding table, for sparse gradients.

    A row's accumulator grows by the mean square of its gradient; rows that a batch lacks are not touched. One number
    a row, where Adam holds two for each element.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, eps: float = 1e-10, zeros: Zeros = torch.zeros) -> None:
        """``zeros`` makes the accumulators of a table."""
        super().__init__(params, {"lr": lr, "eps": eps})
        self.zeros = zeros

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if not p.grad.is_sparse:
                    raise ValueError("RowwiseAdagrad needs sparse gradients: make the table with sparse=True")
                grad = p.grad.coalesce()
                rows, values = grad.indices()[0], grad.values()
                state = self.state[p]
                if not state:
                    state["sum"] = self.zeros(len(p), dtype=p.dtype).to(p.device)
                state["sum"].index_add_(0, rows, values.pow(2).mean(1))
                scale = state["sum"][rows].sqrt().add_(group["eps"]).reciprocal_().unsqueeze(1)
                p.index_add_(0, rows, values * scale, alpha=-group["lr"])

    def load_state_dict(self, state_dict: dict) -> None:
        """The accumulators are copied: they are not to stay in the file that they were read from."""
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            state["sum"] = self.zeros(len(p), dtype=p.dtype).copy_(state["sum"]).to(p.device)


def build_optimizers(model: nn.Module, config: TrainConfig, zeros: Zeros = torch.zeros) -> list[Optimizer]:
    """The optimizers of a model; every parameter belongs to exactly one. ``zeros`` makes what row-wise Adagrad keeps."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and m.sparse}
    sparse = [p for p in model.parameters() if id(p) in tables]
    embedding = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)} - tables
    lr = config.learning_rate
    groups = [
        {
            "params": [p for p in model.parameters() if id(p) in embedding],
            "lr": config.embedding_learning_rate or lr,
        },
        {
            "params": [p for p in model.parameters() if id(p) not in embedding | tables],
            "weight_decay": config.weight_decay,
        },
    ]
    for group in groups[:1]:
        group["weight_decay"] = 0.0
    dense = (AdamW if config.optimizer == "adamw" or config.weight_decay else Adam)(
        [g for g in groups if g["params"]], lr=lr, fused=True
    )
    if not sparse:
        return [dense]
    lr = config.embedding_learning_rate or lr
    own = SparseAdam(sparse, lr=lr) if config.optimizer == "sparse_adam" else RowwiseAdagrad(sparse, lr, zeros=zeros)
    return [dense, own]


def optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """All state of the optimizers as named tensors (for safetensors)."""
    out = {}
    for o, optimizer in enumerate(optimizers):
        for p, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                out[f"{o}.{p}.{name}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return out


def load_optimizer_tensors(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` gave."""
    for o, optimizer in enumerate(optimizers):
        whole = optimizer.state_dict()
        whole["state"] = {}
        for key, value in tensors.items():
            which, p, name = key.split(".", 2)
            if int(which) == o:
                # SparseAdam counts its steps in a plain int.
                plain = isinstance(optimizer, SparseAdam) and name == "step"
                whole["state"].setdefault(int(p), {})[name] = int(value) if plain else value
        optimizer.load_state_dict(whole)
