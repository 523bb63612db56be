"""Names of the methods, and their networks brought to one size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import torch
from torch import nn

from adi_lite.models.adi import ADINetwork
from adi_lite.models.baselines import DNN, PLE, STAR, CrossStitch, MMoE, SharedBottom
from adi_lite.models.config import ModelConfig
from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm, NoNorm
from adi_lite.nn.stacked import Norm

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "dnn_single": DNN,
    "dnn": DNN,
    "shared_bottom": SharedBottom,
    "cross_stitch": CrossStitch,
    "mmoe": MMoE,
    "ple": PLE,
    "star": STAR,
    "adi": ADINetwork,
}

TITLES = {
    "dnn_single": "DNN-Single",
    "dnn": "DNN",
    "shared_bottom": "Shared-Bottom",
    "cross_stitch": "Cross-Stitch",
    "mmoe": "MMoE",
    "ple": "PLE",
    "star": "STAR",
    "adi": "ADI",
}


def build_network(config: ModelConfig, num_domains: int, fields: int) -> nn.Module:
    """The network of one tower, at the size that ``config.equal_size`` asks for."""
    hidden = tower_widths(config, num_domains, fields)
    return _make(config, num_domains, fields, hidden)


def tower_widths(config: ModelConfig, num_domains: int, fields: int) -> tuple[int, ...]:
    """Widths of the hidden layers, scaled so that the network is as large as the reference.

    The reference is ADI's backbone with one shared network and the same ``hidden`` (Section 5.1.4: 3 + 1 networks for
    ADI and PLE, 4 for MMoE, all methods of one size). The scale is the one whose parameter count comes closest.
    DNN-Single trains one model for each domain: its share is the reference divided by the number of domains.
    """
    if not config.equal_size:
        return config.hidden
    reference = ModelConfig(
        method="adi",
        dim=config.dim,
        out_dim=config.out_dim,
        hidden=config.hidden,
        residual=False,
    )
    own_fields = max(1, fields - config.shows_domain)  # the reference has no domain field, whoever is compared with it
    target = network_size(reference, num_domains, own_fields, config.hidden)
    if config.method == "dnn_single":
        target /= num_domains
    return _closest_widths(config, num_domains, fields, target)


@lru_cache(maxsize=256)
def _closest_widths(config: ModelConfig, num_domains: int, fields: int, target: float) -> tuple[int, ...]:
    def scaled(first: int) -> tuple[int, ...]:
        return tuple(max(1, round(first * h / config.hidden[0])) for h in config.hidden)

    low, high = 1, 2
    while network_size(config, num_domains, fields, scaled(high)) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if network_size(config, num_domains, fields, scaled(middle)) < target:
            low = middle
        else:
            high = middle
    return min(
        (scaled(low), scaled(high)),
        key=lambda h: abs(network_size(config, num_domains, fields, h) - target),
    )


@lru_cache(maxsize=4096)
def network_size(config: ModelConfig, num_domains: int, fields: int, hidden: tuple[int, ...]) -> int:
    """Parameters of one tower's network, without its embeddings. Counted on the meta device: nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in _make(config, num_domains, fields, hidden).parameters())


def _make(config: ModelConfig, num_domains: int, fields: int, hidden: Sequence[int]) -> nn.Module:
    norms: dict[str, Norm] = {
        "dsbn": partial(DomainBatchNorm, num_domains),
        "bn": BatchNorm,
        "none": lambda features: NoNorm(),
    }
    return NETWORKS[config.method](config, num_domains, fields, hidden, norms[config.norm_kind])
