"""Settings of a model, checked when they are made."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Method = Literal["dnn_single", "dnn", "shared_bottom", "cross_stitch", "mmoe", "ple", "star", "adi"]


class ModelConfig(BaseModel):
    """Everything that shapes a model. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Method = "adi"
    """Which network stands in both towers; see :mod:`adi_lite.models.registry`."""

    # The frame, the same for every method.
    user: Literal["id", "history", "both"] = "both"
    """Users as an id embedding, as a bag of their past items, or both."""
    tie_history: bool = False
    """Past items are embedded with the item tower's own table, not with one for themselves."""
    dim: int = Field(64, ge=1)
    """Width e of an embedded field."""
    out_dim: int = Field(64, ge=1)
    """Width of the vectors of users and items."""
    domain_field: bool = True
    """The domain indicator is one of the fields (Table 1)."""
    similarity: Literal["dot", "cosine"] = "cosine"
    """``dot``: inner product, as in the paper. ``cosine``: of unit vectors, divided by ``temperature``."""
    temperature: float = Field(0.15, gt=0)
    item_bias: bool = True
    """A learned number for each item in each domain, added to the score."""
    residual: bool = False
    """The vector is the mean of the fields plus a learned multiple of the network's output, so that the network learns
    what the embeddings alone cannot say (needs ``out_dim == dim``)."""
    residual_gain: float = 0.1
    """Where that multiple starts."""
    final_relu: bool = False
    """ReLU on the vectors, as in the settings used in public; it takes away half of the space."""
    sparse_embeddings: bool = False
    """Sparse gradients of the embedding tables, for optimizers that touch only the rows of a batch."""
    embedding_std: float = Field(0.1, gt=0)

    # The network of each tower.
    hidden: tuple[int, ...] = (64,)
    """Widths of one network (of ADI: of each shared and each domain-specific one)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    norm: Literal["dsbn", "bn", "none"] | None = None
    """Normalisation; by default DSBN for ADI and ordinary BN for the others, as in the paper (5.1.4)."""
    num_shared: int = Field(1, ge=1)
    """K, shared networks of ADI and PLE (and MMoE's experts beyond the number of domains)."""
    levels: int = Field(1, ge=1)
    """Extraction levels of PLE."""

    # ADI only.
    fusion: Literal["concat", "sum", "network_mul"] = "concat"
    adaptation: Literal["none", "linear", "attention", "se"] = "none"
    se_placement: Literal["global", "domain", "network"] = "domain"
    """1-SE, 3-SE and 4-SE of Table 8."""
    se_sigmoid: bool = False
    gate: Literal["softmax", "linear"] = "softmax"
    gate_input: Literal["domain", "domain+fields"] = "domain"
    """f_domain of Eq. (8), (11), (12): the domain's embedding, or the same plus the mean of the fields."""
    gate_per_feature: bool = True

    # Size.
    equal_size: bool = True
    """Widen or narrow ``hidden`` so that the networks hold as many parameters as those of ADI with one shared network."""

    @field_validator("hidden")
    @classmethod
    def _positive_widths(cls, hidden: tuple[int, ...]) -> tuple[int, ...]:
        if not hidden or min(hidden) < 1:
            raise ValueError(f"hidden needs at least one width, all of them positive; got {hidden}")
        return hidden

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.residual and self.out_dim != self.dim:
            raise ValueError(f"residual needs out_dim == dim, got {self.out_dim} and {self.dim}")
        if self.method != "adi":
            own = {
                "fusion": "concat",
                "adaptation": "none",
                "se_placement": "domain",
                "gate_input": "domain",
            }
            for name, default in own.items():
                if getattr(self, name) != default:
                    raise ValueError(f"{name} belongs to method 'adi', not to {self.method!r}")
        if self.fusion == "network_mul" and (self.num_shared != 1 or self.se_placement == "network"):
            raise ValueError("fusion 'network_mul' has one shared network, and no SE-block of its own in each network")
        return self

    @property
    def shows_domain(self) -> bool:
        """Whether the domain indicator is a field of the network's input.

        Never under a normalisation of each domain by itself (DSBN, or a model for each domain): there the field is
        constant, which normalisation turns into nothing in training, and in serving into its drift since, times
        1 / sqrt(eps). It cost 0.02 of Recall@10. Such networks know the domain anyway.
        """
        return self.domain_field and self.norm_kind != "dsbn" and self.method != "dnn_single"

    @property
    def norm_kind(self) -> str:
        return self.norm or ("dsbn" if self.method == "adi" else "bn")
