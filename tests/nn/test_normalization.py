"""Eq. (19) and (20) against torch.nn.BatchNorm1d, one layer for each domain, and the cases in which they differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from adi_lite.nn.normalization import BatchNorm, DomainBatchNorm, NoNorm


def randomised(layer: nn.Module) -> nn.Module:
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.normal_()
    return layer


def test_equation_20_by_hand():
    """A column with the values 1, 3 in domain 0 (mean 2, variance 1) and 10, 10, 16 in domain 1 (mean 12, variance 8)."""
    layer = DomainBatchNorm(2, 1, eps=1e-12).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[2.0], [1.0]]))
        layer.bias.copy_(torch.tensor([[0.5], [0.0]]))
    out = layer(torch.tensor([[1.0], [3], [10], [10], [16]], dtype=torch.float64), (2, 3)).squeeze()
    np.testing.assert_allclose(out.detach(), [-1.5, 2.5, -2 / 8**0.5, -2 / 8**0.5, 4 / 8**0.5])


def test_dsbn_equals_a_batchnorm_for_each_domain_with_running_statistics_and_gradients():
    layer = randomised(DomainBatchNorm(3, 4).double())
    references = [nn.BatchNorm1d(4).double() for _ in range(3)]
    for d, reference in enumerate(references):
        reference.weight.data.copy_(layer.weight[d])
        reference.bias.data.copy_(layer.bias[d])
    for counts in ((5, 2, 3), (0, 4, 2), (3, 3, 3), (2, 0, 7)):
        x = torch.randn(sum(counts), 4, dtype=torch.float64) * 3 + 1
        g = torch.randn_like(x)
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        out = layer(ours, counts)
        (out * g).sum().backward()
        parts = [references[d](rows) if len(rows) else rows for d, rows in enumerate(theirs.split(list(counts)))]
        expected = torch.cat(parts)
        (expected * g).sum().backward()
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(ours.grad, theirs.grad)
        for d, reference in enumerate(references):
            torch.testing.assert_close(layer.running_mean[d], reference.running_mean)
            torch.testing.assert_close(layer.running_var[d], reference.running_var)
    for d, reference in enumerate(references):
        torch.testing.assert_close(layer.weight.grad[d], reference.weight.grad)
        torch.testing.assert_close(layer.bias.grad[d], reference.bias.grad)
    layer.eval()
    x = torch.randn(6, 4, dtype=torch.float64)
    expected = torch.cat([references[d].eval()(rows) for d, rows in enumerate(x.split(2))])
    torch.testing.assert_close(layer(x, (2, 2, 2)), expected)


def test_ordinary_batchnorm_pools_the_domains():
    layer, reference = randomised(BatchNorm(4).double()), nn.BatchNorm1d(4).double()
    reference.weight.data.copy_(layer.weight[0])
    reference.bias.data.copy_(layer.bias[0])
    for counts in ((5, 2, 3), (0, 4, 2)):
        x = torch.randn(sum(counts), 4, dtype=torch.float64)
        torch.testing.assert_close(layer(x, counts), reference(x))
    torch.testing.assert_close(layer.running_mean[0], reference.running_mean)
    torch.testing.assert_close(layer.running_var[0], reference.running_var)


def test_a_domain_without_rows_keeps_its_statistics_to_the_bit():
    layer = DomainBatchNorm(3, 4)
    layer(torch.randn(9, 4), (3, 3, 3))
    mean, var = layer.running_mean.clone(), layer.running_var.clone()
    layer(torch.randn(6, 4) + 5, (3, 0, 3))
    assert torch.equal(layer.running_mean[1], mean[1]) and torch.equal(layer.running_var[1], var[1])
    assert not torch.equal(layer.running_mean[0], mean[0]) and not torch.equal(layer.running_var[2], var[2])


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_a_single_row_is_normalised_by_the_running_statistics(value):
    layer = DomainBatchNorm(2, 4)
    for _ in range(20):
        layer(torch.randn(16, 4) * 2 + 3, (8, 8))
    mean, var = layer.running_mean.clone(), layer.running_var.clone()
    x = torch.randn(5, 4)
    x[0] = value
    out = layer(x, (1, 4))
    torch.testing.assert_close(out[0], (x[0] - mean[0]) / (var[0] + layer.eps).sqrt())
    assert torch.equal(layer.running_mean[0], mean[0]) and torch.equal(layer.running_var[0], var[0])
    assert not torch.equal(layer.running_mean[1], mean[1])


def test_evaluation_does_not_depend_on_the_company_of_a_row():
    for layer in (DomainBatchNorm(3, 4), BatchNorm(4)):
        layer(torch.randn(9, 4), (3, 3, 3))
        layer.eval()
        x = torch.randn(6, 4)
        whole = layer(x, (2, 2, 2))
        assert torch.equal(layer(x[2:4], (0, 2, 0)), whole[2:4])
        assert torch.equal(layer(x[5:], (0, 0, 1)), whole[5:])


def test_no_norm_is_the_identity():
    x = torch.randn(3, 4)
    assert NoNorm()(x, (1, 2)) is x
