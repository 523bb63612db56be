"""Eq. (8)-(10) against loops over rows, networks and units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adi_lite.nn.experts import SharedNetworks, SpecificNetworks
from adi_lite.nn.normalization import NoNorm


def plain(features: int) -> NoNorm:
    return NoNorm()


def mlp(x: np.ndarray, layers, k: int, final_activation: bool) -> np.ndarray:
    for i, layer in enumerate(layers):
        x = x @ layer.weight[k].detach().numpy() + layer.bias[k].detach().numpy()
        if final_activation or i < len(layers) - 1:
            x = np.maximum(x, 0)
    return x


@pytest.mark.parametrize("gate", ["softmax", "linear"])
@pytest.mark.parametrize("networks", [1, 2, 4])
@pytest.mark.parametrize("gate_rows", [True, False])
def test_equations_8_and_9(gate, networks, gate_rows):
    options = {"gate": gate, "gate_rows": gate_rows, "final_activation": True}
    shared = SharedNetworks(networks, (6, 5, 3), 2, plain, **options).double()
    x, f_domain = torch.randn(7, 6, dtype=torch.float64), torch.randn(7 if gate_rows else 2, 2, dtype=torch.float64)
    out = shared(x, f_domain, (4, 3)).detach().numpy()
    for r in range(7):
        scores = []
        for k in range(networks):
            w, b = shared.gate.weight[k, :, 0].detach().numpy(), shared.gate.bias[k, 0].item()
            scores.append(sum(w[e] * f_domain[r if gate_rows else int(r >= 4), e].item() for e in range(2)) + b)
        if gate == "softmax":
            scores = [np.exp(s) for s in scores]
        alpha = [s / sum(scores) for s in scores]
        expected = sum(alpha[k] * mlp(x[r].numpy(), shared.mlp.layers, k, True) for k in range(networks))
        np.testing.assert_allclose(out[r], expected)


@pytest.mark.parametrize("gate", ["softmax", "linear"])
def test_gate_weights_sum_to_one(gate):
    shared = SharedNetworks(4, (6, 3), 5, plain, gate=gate).double()
    weights = shared.weights(torch.randn(9, 5, dtype=torch.float64))
    torch.testing.assert_close(weights.sum(1), torch.ones(9, dtype=torch.float64))
    assert weights.std(0).min() > 0, "the gate must read its input"
    if gate == "softmax":
        assert (weights > 0).all()


def test_shared_networks_take_an_input_of_their_own():
    shared = SharedNetworks(3, (6, 4), 2, plain, gate="softmax", gate_rows=True).double()
    x, f = torch.randn(5, 3, 6, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    weights = shared.weights(f)
    expected = torch.stack(
        [
            sum(
                weights[r, k] * (x[r, k] @ shared.mlp.layers[0].weight[k] + shared.mlp.layers[0].bias[k])
                for k in range(3)
            )
            for r in range(5)
        ]
    )
    torch.testing.assert_close(shared(x, f, (5,)), expected)


def test_equation_10_each_row_through_the_network_of_its_domain():
    specific = SpecificNetworks(3, (6, 5, 4), plain, final_activation=True).double()
    x = torch.randn(6, 6, dtype=torch.float64)
    out = specific(x, (2, 0, 4)).detach().numpy()
    for r, d in enumerate([0, 0, 2, 2, 2, 2]):
        np.testing.assert_allclose(out[r], mlp(x[r].numpy(), specific.layers, d, True))
