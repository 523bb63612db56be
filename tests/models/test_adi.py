"""The whole network of an ADI tower against a slow reference, written from the paper: plain numpy, row by row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adi_lite.models.adi import ADINetwork
from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import build_network
from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm, NoNorm

DIM, FIELDS, DOMAINS = 3, 4, 3


def arr(t: Tensor) -> np.ndarray:
    return t.detach().numpy()


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def normalise(layer, rows: list[np.ndarray], domains: list[int], training: bool) -> list[np.ndarray]:
    """Eq. (19) or (20): by the moments of the rows of one group, which is all rows or those of one domain."""
    if isinstance(layer, NoNorm):
        return rows
    out = []
    for row, d in zip(rows, domains, strict=True):
        g = 0 if isinstance(layer, BatchNorm) else d
        group = [r for r, e in zip(rows, domains, strict=True) if isinstance(layer, BatchNorm) or e == d]
        if training and len(group) > 1:
            mu = sum(group) / len(group)
            var = sum((r - mu) ** 2 for r in group) / len(group)
        else:
            mu, var = arr(layer.running_mean[g]), arr(layer.running_var[g])
        out.append(arr(layer.weight[g]) * (row - mu) / np.sqrt(var + layer.eps) + arr(layer.bias[g]))
    return out


def linear(layer, n: int, x: np.ndarray) -> np.ndarray:
    return x @ arr(layer.weight[n]) + arr(layer.bias[n])


def se_scores(block, n: int, fields: np.ndarray) -> np.ndarray:
    scores = linear(block.excite, n, np.maximum(linear(block.squeeze, n, fields.mean(1)), 0))  # Eq. (25)
    return sigmoid(scores) if block.sigmoid else scores


def reference(
    net: ADINetwork, config: ModelConfig, x: Tensor, f_domain: Tensor, domains: list[int], training: bool
) -> np.ndarray:
    fields, f = list(arr(x)), list(arr(f_domain))
    rows = range(len(fields))
    if config.gate_input == "domain+fields":
        f = [f[r] + fields[r].mean(0) for r in rows]
    adapted = []
    for r in rows:
        d, ad = domains[r], net.adaptation
        if config.adaptation == "linear":  # Eq. (22)
            adapted.append(arr(ad.weight[d]) * fields[r] + arr(ad.bias[d]))
        elif config.adaptation == "attention":  # Eq. (23), (24)
            adapted.append(
                np.stack([sigmoid(arr(ad.query[d, i]) @ fields[r][i]) * fields[r][i] for i in range(FIELDS)])
            )
        elif config.adaptation == "se" and config.se_placement != "network":  # Eq. (26)
            n = d if config.se_placement == "domain" else 0
            adapted.append(se_scores(ad, n, fields[r])[:, None] * fields[r])
        else:
            adapted.append(fields[r])
    flat = normalise(net.input_norm, [a.ravel() for a in adapted], domains, training)

    if config.fusion == "network_mul":  # Eq. (16), (17)
        h = flat
        for layer, norm in zip(net.star.layers, net.star.norms, strict=True):
            ws, bs = arr(layer.shared.weight[0]), arr(layer.shared.bias[0])
            h = [h[r] @ (ws * arr(layer.weight[domains[r]])) + bs + arr(layer.bias[domains[r]]) for r in rows]
            h = [np.maximum(v, 0) for v in normalise(norm, h, domains, training)]
        return np.stack([linear(net.forward_network, domains[r], h[r]) for r in rows])

    def input_of(r: int, kind: int, n: int) -> np.ndarray:
        if not net.network_se:
            return flat[r]
        return (se_scores(net.network_se[kind], n, fields[r])[:, None] * flat[r].reshape(FIELDS, DIM)).ravel()

    h = [input_of(r, 0, domains[r]) for r in rows]  # Eq. (10)
    for layer, norm in zip(net.specific.layers, net.specific.norms, strict=True):
        h = normalise(norm, [linear(layer, domains[r], h[r]) for r in rows], domains, training)
        h = [np.maximum(v, 0) for v in h]
    specific = h

    networks = config.num_shared  # Eq. (8), (9)
    hk = [[input_of(r, 1, k) for k in range(networks)] for r in rows]
    for layer, norm in zip(net.shared.mlp.layers, net.shared.mlp.norms, strict=True):
        out = [np.concatenate([linear(layer, k, hk[r][k]) for k in range(networks)]) for r in rows]
        hk = [np.maximum(v, 0).reshape(networks, -1) for v in normalise(norm, out, domains, training)]
    shared = []
    for r in rows:
        scores = np.array([linear(net.shared.gate, k, f[r])[0] for k in range(networks)])
        alpha = softmax(scores) if config.gate == "softmax" else scores / scores.sum()
        shared.append(sum(alpha[k] * hk[r][k] for k in range(networks)))

    result = []
    for r in rows:
        d = domains[r]
        if config.fusion == "concat":  # Eq. (11)-(13)
            b1, b2 = (sigmoid(linear(g, d, f[r])) for g in (net.fusion.gate_specific, net.fusion.gate_shared))
            a, b = b1 * specific[r], b2 * shared[r]
            fused = np.concatenate([a, a * b, b])
        else:  # Eq. (14), (15)
            alpha = sigmoid(linear(net.fusion.gate, d, f[r]))
            fused = alpha * specific[r] + (1 - alpha) * shared[r]
        result.append(linear(net.forward_network, d, fused))  # Eq. (18)
    return np.stack(result)


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    """Every parameter and statistic away from its neutral start, or a wrong one would not show."""
    for module in net.modules():
        if isinstance(module, DomainBatchNorm):
            module.weight.data.uniform_(0.5, 2)
            module.bias.data.normal_()
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    for name, p in net.named_parameters():
        if "adaptation" in name or "star" in name:
            p.data += 0.3 * torch.randn_like(p)
    return net


CASES = [
    {},
    {"num_shared": 3},
    {"num_shared": 3, "gate": "linear"},
    {"num_shared": 2, "gate_input": "domain+fields"},
    {"gate_per_feature": False},
    {"fusion": "sum"},
    {"fusion": "sum", "gate_per_feature": False, "num_shared": 2},
    {"fusion": "network_mul"},
    {"fusion": "network_mul", "adaptation": "se"},
    {"adaptation": "linear"},
    {"adaptation": "attention", "norm": "bn"},
    {"adaptation": "se", "se_placement": "global"},
    {"adaptation": "se", "se_placement": "domain", "num_shared": 2},
    {"adaptation": "se", "se_placement": "network", "num_shared": 2},
    {"adaptation": "se", "se_placement": "network", "se_sigmoid": True, "fusion": "sum"},
    {"norm": "bn", "num_shared": 2},
    {"norm": "none", "adaptation": "se"},
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", CASES, ids=lambda o: "-".join(map(str, o.values())) or "plain")
def test_network_equals_the_loop_over_rows(options, training):
    config = ModelConfig(dim=DIM, out_dim=5, hidden=(6, 4), equal_size=False, **options)
    net = randomised(build_network(config, DOMAINS, FIELDS).double()).train(training)
    for counts in ((3, 4, 2), (1, 0, 6), (0, 3, 1)):
        domains = [d for d, n in enumerate(counts) for _ in range(n)]
        x = torch.randn(len(domains), FIELDS, DIM, dtype=torch.float64)
        f_domain = torch.randn(DOMAINS, DIM, dtype=torch.float64)
        expected = reference(net, config, x, f_domain[domains], domains, training)
        np.testing.assert_allclose(arr(net(x, f_domain, counts)), expected, rtol=1e-9, atol=1e-9)


def test_number_of_networks_is_d_plus_k():
    """ "The total number of FCs is D + K" (Section 4.1.2)."""
    for d, k in ((1, 1), (3, 1), (5, 4)):
        net = build_network(ModelConfig(num_shared=k, hidden=(6,), dim=4, equal_size=False), d, 2)
        networks = net.specific.layers[0].networks + net.shared.mlp.layers[0].networks
        assert networks == d + k


def test_placements_of_the_se_block_have_their_number_of_blocks():
    """1-SE, 3-SE and 4-SE for three domains and one shared network (Section 5.3.4)."""
    blocks = {}
    for placement in ("global", "domain", "network"):
        net = build_network(ModelConfig(adaptation="se", se_placement=placement, equal_size=False), 3, 4)
        blocks[placement] = sum(m.networks for m in net.modules() if type(m).__name__ == "SEBlock")
    assert blocks == {"global": 1, "domain": 3, "network": 4}
