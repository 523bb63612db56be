"""Routing: what runs through contiguous slices equals a loop over the rows, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm, NoNorm
from adi_lite.nn.stacked import StackedLinear, StackedMLP, by_domain, route

COUNTS = [(7,), (1,), (3, 4), (0, 5), (5, 0), (2, 1, 4), (0, 0, 6), (2, 0, 1, 3, 1), (0, 3, 0, 0, 2)]


def domains_of(counts) -> list[int]:
    return [d for d, n in enumerate(counts) for _ in range(n)]


@pytest.mark.parametrize("counts", COUNTS)
def test_routed_equals_a_loop_over_rows(counts):
    layer = StackedLinear(len(counts), 4, 3).double()
    x = torch.randn(sum(counts), 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn(sum(counts), 3, dtype=torch.float64)
    out = layer.routed(x, counts)
    (out * g).sum().backward()

    xs, w, b, gs = x.detach().numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy(), g.numpy()
    grad_w, grad_b = np.zeros_like(w), np.zeros_like(b)
    for r, d in enumerate(domains_of(counts)):
        for o in range(3):
            assert out[r, o].item() == pytest.approx(b[d, o] + sum(xs[r, i] * w[d, i, o] for i in range(4)))
        grad_w[d] += np.outer(xs[r], gs[r])
        grad_b[d] += gs[r]
        np.testing.assert_allclose(x.grad[r].numpy(), w[d] @ gs[r])
    np.testing.assert_allclose(layer.weight.grad.numpy(), grad_w, atol=1e-12)
    np.testing.assert_allclose(layer.bias.grad.numpy(), grad_b, atol=1e-12)


@pytest.mark.parametrize("networks", [1, 2, 5])
@pytest.mark.parametrize("own_input", [False, True])
def test_forward_runs_every_network_on_every_row(networks, own_input):
    layer = StackedLinear(networks, 4, 3).double()
    x = torch.randn(6, *([networks] if own_input else []), 4, dtype=torch.float64, requires_grad=True)
    g = torch.randn(6, networks, 3, dtype=torch.float64)
    out = layer(x)
    assert out.shape == (6, networks, 3)
    (out * g).sum().backward()
    w, b = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    grad_w, grad_x = np.zeros_like(w), np.zeros(x.shape)
    for r in range(6):
        for k in range(networks):
            row = (x[r, k] if own_input else x[r]).detach().numpy()
            np.testing.assert_allclose(out[r, k].detach().numpy(), row @ w[k] + b[k])
            grad_w[k] += np.outer(row, g[r, k].numpy())
            grad_x[(r, k) if own_input else r] += w[k] @ g[r, k].numpy()
    np.testing.assert_allclose(layer.weight.grad.numpy(), grad_w)
    np.testing.assert_allclose(x.grad.numpy(), grad_x)
    np.testing.assert_allclose(layer.bias.grad.numpy(), g.sum(0).numpy())


def test_routing_refuses_another_number_of_domains():
    with pytest.raises(ValueError, match="2 domains for 3 networks"):
        route(torch.randn(4, 2), (2, 2), torch.randn(3, 2, 2), torch.randn(3, 2))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=5).filter(sum))
def test_by_domain_repeats_the_row_of_each_domain(counts):
    parameter = torch.arange(len(counts) * 6, dtype=torch.float64).view(len(counts), 2, 3)
    assert torch.equal(by_domain(parameter, counts), parameter[domains_of(counts)])


def test_start_is_that_of_torch_linear_and_differs_between_networks():
    torch.manual_seed(1)
    layer = StackedLinear(3, 25, 400)
    reference = nn.Linear(25, 400)
    for d in range(3):
        assert layer.weight[d].std().item() == pytest.approx(reference.weight.std().item(), rel=0.05)
        assert layer.weight[d].abs().max() <= 0.2 and layer.bias[d].abs().max() <= 0.2
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (layer.weight[a] - layer.weight[b]).abs().mean() > 0.05


def test_networks_still_differ_after_a_step():
    mlp = StackedMLP(3, (6, 5, 4), BatchNorm)
    x = torch.randn(40, 6)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=0.1)
    mlp(x, (40,)).pow(2).sum().backward()
    optimizer.step()
    out = mlp(x, (40,))
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (out[:, a] - out[:, b]).abs().mean() > 0.01


@pytest.mark.parametrize("final_activation", [False, True])
def test_mlp_is_linear_norm_relu_and_its_last_layer_linear_unless_asked(final_activation):
    """Against torch.nn layers, one network at a time, with ordinary batch normalisation in training mode."""
    counts = (5, 4)
    mlp = StackedMLP(3, (6, 5, 4, 2), BatchNorm, final_activation=final_activation)
    x = torch.randn(9, 6)
    out = mlp(x, counts)
    for k in range(3):
        h = x
        for i, layer in enumerate(mlp.layers):
            h = h @ layer.weight[k] + layer.bias[k]
            if i < 2 or final_activation:
                h = torch.relu(nn.BatchNorm1d(h.shape[1])(h))
        torch.testing.assert_close(out[:, k], h, rtol=1e-4, atol=1e-5)
    assert (out < 0).any() != final_activation


def test_routed_mlp_equals_one_plain_network_for_each_domain():
    counts = (4, 0, 3)
    mlp = StackedMLP(3, (6, 5, 2), lambda n: DomainBatchNorm(3, n), routed=True, final_activation=True)
    x = torch.randn(7, 6)
    out = mlp(x, counts)
    for d, rows in ((0, slice(0, 4)), (2, slice(4, 7))):
        h = x[rows]
        for layer in mlp.layers:
            h = torch.relu(nn.BatchNorm1d(layer.out_size)(h @ layer.weight[d] + layer.bias[d]))
        torch.testing.assert_close(out[rows], h, rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only():
    mlp = StackedMLP(1, (6, 400), lambda n: NoNorm(), dropout=0.5, final_activation=True)
    x = torch.randn(3, 6)
    mlp.train()
    dropped = mlp(x, (3,))
    mlp.eval()
    kept = mlp(x, (3,))
    gone = (dropped == 0) & (kept > 0)
    assert 0.4 < gone.sum() / (kept > 0).sum() < 0.6
    torch.testing.assert_close(dropped[~gone], 2 * kept[~gone])
