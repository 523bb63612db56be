"""Eq. (11)-(17), number by number."""

from __future__ import annotations

import math

import pytest
import torch

from adi_lite.nn.fusion import ConcatFusion, StarLinear, SumFusion

COUNTS, DOMAINS = (2, 0, 3), [0, 0, 2, 2, 2]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def inputs(width: int = 4, gate: int = 3):
    return (
        torch.randn(5, width, dtype=torch.float64),
        torch.randn(5, width, dtype=torch.float64),
        torch.randn(5, gate, dtype=torch.float64),
    )


def gate_value(layer, d: int, f, unit: int) -> float:
    return sigmoid(
        sum(layer.weight[d, e, unit].item() * f[e].item() for e in range(len(f))) + layer.bias[d, unit].item()
    )


@pytest.mark.parametrize("gate_rows", [True, False])
@pytest.mark.parametrize("per_feature", [True, False])
def test_concat_equations_11_to_13(per_feature, gate_rows):
    fusion = ConcatFusion(3, 3, 4, per_feature=per_feature, gate_rows=gate_rows).double()
    specific, shared, f = inputs()
    f = f if gate_rows else f[:3]
    out = fusion(specific, shared, f, COUNTS)
    assert out.shape == (5, fusion.out_size) == (5, 12)
    for r, d in enumerate(DOMAINS):
        for h in range(4):
            unit = h if per_feature else 0
            a = gate_value(fusion.gate_specific, d, f[r if gate_rows else d], unit) * specific[r, h].item()
            b = gate_value(fusion.gate_shared, d, f[r if gate_rows else d], unit) * shared[r, h].item()
            assert [out[r, h].item(), out[r, 4 + h].item(), out[r, 8 + h].item()] == pytest.approx([a, a * b, b])


@pytest.mark.parametrize("gate_rows", [True, False])
@pytest.mark.parametrize("per_feature", [True, False])
def test_sum_equations_14_and_15(per_feature, gate_rows):
    fusion = SumFusion(3, 3, 4, per_feature=per_feature, gate_rows=gate_rows).double()
    specific, shared, f = inputs()
    f = f if gate_rows else f[:3]
    out = fusion(specific, shared, f, COUNTS)
    assert out.shape == (5, fusion.out_size) == (5, 4)
    for r, d in enumerate(DOMAINS):
        for h in range(4):
            a = gate_value(fusion.gate, d, f[r if gate_rows else d], h if per_feature else 0)
            assert out[r, h].item() == pytest.approx(a * specific[r, h].item() + (1 - a) * shared[r, h].item())


def test_network_mul_equation_16():
    star = StarLinear(3, 4, 2).double()
    torch.nn.init.normal_(star.weight)
    torch.nn.init.normal_(star.bias)
    x = torch.randn(5, 4, dtype=torch.float64)
    out = star(x, COUNTS)
    for r, d in enumerate(DOMAINS):
        for o in range(2):
            expected = star.shared.bias[0, o].item() + star.bias[d, o].item()
            for i in range(4):
                expected += star.shared.weight[0, i, o].item() * star.weight[d, i, o].item() * x[r, i].item()
            assert out[r, o].item() == pytest.approx(expected)


def test_star_starts_as_the_shared_network_in_every_domain():
    star = StarLinear(3, 4, 2)
    x = torch.randn(5, 4)
    assert torch.equal(star(x, COUNTS), star.shared(x).squeeze(1))


def test_star_gradient_reaches_the_shared_and_the_own_factors_only():
    star = StarLinear(3, 4, 2)
    star(torch.randn(5, 4), COUNTS).sum().backward()
    assert star.shared.weight.grad.abs().sum() > 0
    assert star.weight.grad[1].abs().sum() == 0 == star.bias.grad[1].abs().sum()
    assert star.weight.grad[0].abs().sum() > 0 and star.weight.grad[2].abs().sum() > 0
