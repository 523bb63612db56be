"""Dropout by bytes: the share, the scale, and the independence of the eight decisions of one word."""

from __future__ import annotations

import pytest
import torch

from adi_lite.nn.dropout import dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_share_and_scale(p):
    n = 200_000
    out = dropout(torch.ones(n), p, True)
    exact = round(p * 256) / 256
    kept = out != 0
    assert abs(kept.double().mean().item() - (1 - exact)) < 5 * (exact * (1 - exact) / n) ** 0.5
    torch.testing.assert_close(out[kept], torch.full((int(kept.sum()),), 1 / (1 - exact)))
    assert abs(exact - p) <= 1 / 512


def test_decisions_of_one_word_are_independent():
    kept = (dropout(torch.ones(80_000), 0.5, True) != 0).view(-1, 8).double()
    correlation = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlation.abs().max() < 5 / 10_000**0.5
    assert (kept.mean(0) - 0.5).abs().max() < 5 * 0.5 / 10_000**0.5


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 5), (2, 3, 7)])
def test_any_shape_and_gradient(shape):
    x = torch.randn(shape, requires_grad=True)
    out = dropout(x, 0.5, True)
    assert out.shape == x.shape
    out.sum().backward()
    assert torch.equal(x.grad == 0, (out == 0) | (x == 0))


def test_off_in_evaluation_and_at_zero():
    x = torch.randn(5, 4)
    assert dropout(x, 0.5, False) is x and dropout(x, 0.0, True) is x
    assert (dropout(torch.ones(10_000), 1e-6, True) == 0).any(), "a positive share never rounds to none"


def test_follows_the_seed():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(1000), 0.5, True))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
