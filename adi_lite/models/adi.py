"""The network of an ADI tower (paper, Figure 1): adapt, normalise, shared and specific networks, fuse, forward."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from adi_lite.models.baselines import StarNetwork
from adi_lite.models.config import ModelConfig
from adi_lite.nn.adaptation import (
    AttentionAdaptation,
    LinearAdaptation,
    NoAdaptation,
    SEBlock,
)
from adi_lite.nn.experts import SharedNetworks, SpecificNetworks
from adi_lite.nn.fusion import ConcatFusion, SumFusion
from adi_lite.nn.stacked import Norm, StackedLinear, by_domain


class ADINetwork(nn.Module):
    """Fields (b, f, e), rows sorted by domain, and f_domain (D, e) -> (b, out_dim).

    With ``fusion="network_mul"`` the shared and specific networks are one star network (Eq. 16, 17), as in STAR.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_domains: int,
        fields: int,
        hidden: Sequence[int],
        norm: Norm,
    ) -> None:
        super().__init__()
        in_size = fields * config.dim
        self.gate_on_fields = config.gate_input == "domain+fields"
        self.adaptation = _adaptation(config, num_domains, fields)
        per_network = config.adaptation == "se" and config.se_placement == "network"
        self.network_se = nn.ModuleList(
            SEBlock(n, fields, sigmoid=config.se_sigmoid) for n in (num_domains, config.num_shared) if per_network
        )
        self.input_norm = norm(in_size)
        sizes = (in_size, *hidden)
        if config.fusion == "network_mul":
            self.star = StarNetwork(num_domains, sizes, norm, dropout=config.dropout)
            fused = hidden[-1]
        else:
            options = {"dropout": config.dropout, "final_activation": True}
            self.specific = SpecificNetworks(num_domains, sizes, norm, **options)
            rows = {"gate_rows": self.gate_on_fields}
            self.shared = SharedNetworks(
                config.num_shared, sizes, config.dim, norm, gate=config.gate, **rows, **options
            )
            fusion = ConcatFusion if config.fusion == "concat" else SumFusion
            self.fusion = fusion(num_domains, config.dim, hidden[-1], per_feature=config.gate_per_feature, **rows)
            fused = self.fusion.out_size
        self.forward_network = StackedLinear(num_domains, fused, config.out_dim)  # Eq. (18)

    def forward(self, x: Tensor, f_domain: Tensor, counts: Sequence[int]) -> Tensor:
        if self.gate_on_fields:
            f_domain = by_domain(f_domain, counts) + x.mean(1)
        flat = self.input_norm(self.adaptation(x, counts).flatten(1), counts)
        if hasattr(self, "star"):
            return self.forward_network.routed(self.star(flat, counts), counts)
        for_specific, for_shared = self._inputs_of_networks(x, flat, counts)
        fused = self.fusion(
            self.specific(for_specific, counts),
            self.shared(for_shared, f_domain, counts),
            f_domain,
            counts,
        )
        return self.forward_network.routed(fused, counts)

    def _inputs_of_networks(self, x: Tensor, flat: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Both (b, in); with an SE-block in each network (4-SE), the shared ones' is (b, K, in)."""
        if not self.network_se:
            return flat, flat
        specific_se, shared_se = self.network_se
        fields = flat.view_as(x)
        for_shared = shared_se.weights_of_all(x).unsqueeze(-1) * fields.unsqueeze(1)  # (b, K, f, e)
        return (specific_se.weights(x, counts).unsqueeze(-1) * fields).flatten(1), for_shared.flatten(2)


def _adaptation(config: ModelConfig, num_domains: int, fields: int) -> nn.Module:
    if config.adaptation == "linear":
        return LinearAdaptation(num_domains, fields, config.dim)
    if config.adaptation == "attention":
        return AttentionAdaptation(num_domains, fields, config.dim)
    if config.adaptation == "se" and config.se_placement != "network":
        blocks = num_domains if config.se_placement == "domain" else 1
        return SEBlock(blocks, fields, sigmoid=config.se_sigmoid)
    return NoAdaptation()
