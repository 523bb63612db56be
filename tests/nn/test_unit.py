"""Vectors of one length, against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adi_lite.nn.unit import SHORTEST, unit


@pytest.mark.parametrize("length", [1.0, 1 / 0.15])
def test_rows_and_gradients_are_those_of_ready_made_operations(length):
    x = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(7, 5, dtype=torch.float64)
    ours, theirs = unit(x, length), F.normalize(x, dim=1) * length
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(ours.norm(dim=1), torch.full((7,), length, dtype=torch.float64))
    torch.testing.assert_close(*(torch.autograd.grad((y * slope).sum(), x)[0] for y in (ours, theirs)))
    assert torch.autograd.gradcheck(lambda v: unit(v, length), x)


def test_a_row_of_zeros_stays_and_has_the_gradient_of_its_division():
    x = torch.zeros(2, 3, requires_grad=True)
    out = unit(x, 2.0)
    assert torch.equal(out, torch.zeros(2, 3))
    out.sum().backward()
    torch.testing.assert_close(x.grad, torch.full((2, 3), 2.0 / SHORTEST))


def test_without_gradients_the_rows_are_the_same():
    x = torch.randn(6, 4, requires_grad=True)
    with torch.no_grad():
        torch.testing.assert_close(unit(x, 3.0), unit(x.detach(), 3.0), rtol=0, atol=0)
    torch.testing.assert_close(unit(x, 3.0), unit(x.detach(), 3.0))
