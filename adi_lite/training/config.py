"""Settings of a training run, checked when they are made."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adi_lite.models.config import ModelConfig


class SelfTrainingConfig(BaseModel):
    """Algorithm 1: pseudo-labels across domains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    portion: float = Field(0.05, ge=0, le=1)
    """p, the share of a domain's records in a batch that become pseudo-labels in another domain, in the first epoch."""
    growth: float = Field(0.05, ge=0)
    """What p grows by after each epoch (the paper's delta p); p never exceeds 1."""
    start_epoch: int = Field(0, ge=0)
    """Epochs of ordinary training before the first pseudo-label."""
    weight: float = Field(1.0, ge=0)
    """Weight of the pseudo-labels' term in Eq. (27)."""
    score: Literal["logit", "probability"] = "logit"
    """What ranks candidates. ``logit``: f(u, v | j), the letter of Algorithm 1, line 10. ``probability``: the same after
    a softmax over the batch's candidate items of domain j, which does not favour users with long vectors."""

    def portion_at(self, epoch: int) -> float:
        """p in ``epoch`` (from 0)."""
        if epoch < self.start_epoch:
            return 0.0
        return min(1.0, self.portion + self.growth * (epoch - self.start_epoch))


class TrainConfig(BaseModel):
    """Everything that shapes a training run. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(15, ge=1)
    batch_size: int = Field(1024, ge=1)
    shuffle: bool = True
    optimizer: Literal["adam", "adamw", "sparse_adam", "rowwise_adagrad"] = "adam"
    """``sparse_adam`` and ``rowwise_adagrad`` move only the embedding rows of a batch (``sparse_embeddings`` of the
    model), and Adam moves the rest. SparseAdam keeps the moments of other rows as they are: not the same as Adam."""
    learning_rate: float = Field(3e-3, gt=0)
    embedding_learning_rate: float | None = Field(None, gt=0)
    """Of the embedding tables; ``learning_rate`` when absent."""
    weight_decay: float = Field(0.0, ge=0)
    """Of the networks (decoupled, AdamW)."""
    schedule: Literal["constant", "linear"] = "constant"
    """``linear``: the learning rate falls linearly to zero over the run."""

    loss: Literal["full", "sampled"] = "sampled"
    """``full``: softmax over the domain's catalogue (Eq. 2). ``sampled``: over the positive and shared negatives, with
    the log Q correction (Eq. 4, 5); a domain whose catalogue is no larger than ``num_negatives`` gets the full softmax,
    which is exact and cheaper."""
    num_negatives: int = Field(1024, ge=1)
    sampler: Literal["uniform", "popularity", "log_uniform", "in_batch", "mixed"] = "uniform"
    """``in_batch``: the other positives of the batch, of the same domain. ``mixed``: those and uniform ones."""
    sampler_alpha: float = Field(0.75, ge=0)
    """Exponent of the ``popularity`` sampler."""
    log_q: bool = True
    """The correction. Without it the model learns popularity relative to the sampler's."""
    correct_positive: bool = False
    """Also correct the positive's score, the letter of Eq. (5), in which negatives are a set: each counts once, and Q is
    the chance that a draw holds the item. Without it the loss tends to the full softmax loss as negatives grow; with
    it, it does not, but has nearly the same optimum whatever their number."""
    history_dropout: float = Field(0.3, ge=0, lt=1)

    # How the public code trained; kept so that its figures can be had again.
    fixed_negatives: bool = False
    """``num_negatives`` uniform ones for each record, drawn once before the first epoch, not shared and fresh ones."""
    double_softmax: bool = False
    """Cross-entropy of scores that have been through a softmax already, which flattens the gradient."""

    self_training: SelfTrainingConfig | None = None
    patience: int | None = Field(None, ge=1)
    """Stop after so many epochs without a better validation ``metric``, and keep the best epoch. None: train all
    ``epochs`` and keep the last."""
    metric: str = Field("recall@10", pattern=r"^((recall|ndcg)@[1-9]\d*|mrr)$")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> TrainConfig:
        if self.fixed_negatives and (self.loss, self.sampler, self.self_training) != (
            "sampled",
            "uniform",
            None,
        ):
            raise ValueError("fixed_negatives needs loss 'sampled', sampler 'uniform' and no self_training")
        if self.double_softmax and not self.fixed_negatives:
            raise ValueError("double_softmax belongs to fixed_negatives, the settings used in public")
        return self


class Config(BaseModel):
    """A model and its training: what a run is made from, and what its checkpoint says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _fits(self) -> Config:
        sparse = self.train.optimizer in ("sparse_adam", "rowwise_adagrad")
        if sparse != self.model.sparse_embeddings:
            raise ValueError(
                f"optimizer {self.train.optimizer!r} needs sparse_embeddings={sparse}, got {self.model.sparse_embeddings}"
            )
        return self

    def with_changes(self, **changes: object) -> Config:
        """A copy with settings changed by name, e.g. ``with_changes(seed=1, dropout=0.2)``; refuses unknown names."""
        model, train = self.model.model_dump(), self.train.model_dump()
        for name, value in changes.items():
            if name in model:
                model[name] = value
            elif name in train:
                train[name] = value
            else:
                raise ValueError(f"unknown setting {name!r}; the settings are {', '.join([*model, *train])}")
        return Config.model_validate({"model": model, "train": train})
