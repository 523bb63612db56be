"""Eq. (21)-(26), number by number, and the placements of the SE-block (Table 8)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adi_lite.nn.adaptation import AttentionAdaptation, LinearAdaptation, NoAdaptation, SEBlock

COUNTS, DOMAINS = (2, 0, 3), [0, 0, 2, 2, 2]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def x():
    return torch.randn(5, 4, 3, dtype=torch.float64)  # rows, fields, width


def test_linear_transformation_equation_22(x):
    layer = LinearAdaptation(3, 4, 3).double()
    torch.testing.assert_close(layer(x, COUNTS), x)  # starts as the identity
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    out, weights = layer(x, COUNTS), layer.weights(x, COUNTS)
    for r, d in enumerate(DOMAINS):
        for f in range(4):
            assert weights[r, f].item() == pytest.approx(sum(abs(layer.weight[d, f, e].item()) for e in range(3)) / 3)
            for e in range(3):
                expected = layer.weight[d, f, e].item() * x[r, f, e].item() + layer.bias[d, f, e].item()
                assert out[r, f, e].item() == pytest.approx(expected)


def test_vanilla_attention_equations_23_and_24(x):
    layer = AttentionAdaptation(3, 4, 3).double()
    out, weights = layer(x, COUNTS), layer.weights(x, COUNTS)
    for r, d in enumerate(DOMAINS):
        for f in range(4):
            a = sigmoid(sum(layer.query[d, f, e].item() * x[r, f, e].item() for e in range(3)))
            assert weights[r, f].item() == pytest.approx(a)
            for e in range(3):
                assert out[r, f, e].item() == pytest.approx(a * x[r, f, e].item())


def se_scores(block: SEBlock, n: int, row: np.ndarray, final_sigmoid: bool) -> list[float]:
    fields, hidden = row.shape[0], block.squeeze.out_size
    squeezed = [sum(row[f]) / row.shape[1] for f in range(fields)]
    h = []
    for u in range(hidden):
        z = block.squeeze.bias[n, u].item() + sum(
            block.squeeze.weight[n, f, u].item() * squeezed[f] for f in range(fields)
        )
        h.append(max(z, 0.0))
    scores = []
    for f in range(fields):
        z = block.excite.bias[n, f].item() + sum(block.excite.weight[n, u, f].item() * h[u] for u in range(hidden))
        scores.append(sigmoid(z) if final_sigmoid else z)
    return scores


@pytest.mark.parametrize("final_sigmoid", [False, True])
@pytest.mark.parametrize("placement", ["global", "domain"])
def test_se_block_equations_25_and_26(x, final_sigmoid, placement):
    block = SEBlock(1 if placement == "global" else 3, 4, sigmoid=final_sigmoid).double()
    out, weights = block(x, COUNTS), block.weights(x, COUNTS)
    for r, d in enumerate(DOMAINS):
        expected = se_scores(block, 0 if placement == "global" else d, x[r].numpy(), final_sigmoid)
        assert weights[r].tolist() == pytest.approx(expected)
        np.testing.assert_allclose(out[r].detach(), np.array(expected)[:, None] * x[r].numpy())


def test_se_scores_of_all_networks(x):
    block = SEBlock(2, 4).double()
    scores = block.weights_of_all(x)
    assert scores.shape == (5, 2, 4)
    for r in range(5):
        for k in range(2):
            assert scores[r, k].tolist() == pytest.approx(se_scores(block, k, x[r].numpy(), False))


@pytest.mark.parametrize(("fields", "reduction", "hidden"), [(1, 2, 1), (4, 2, 2), (9, 2, 4), (9, 3, 3), (2, 5, 1)])
def test_se_hidden_layer_is_reduced_but_never_empty(fields, reduction, hidden):
    block = SEBlock(2, fields, reduction=reduction)
    assert block.squeeze.out_size == hidden
    assert block(torch.randn(3, fields, 2), (1, 2)).shape == (3, fields, 2)


def test_se_starts_near_the_features_as_they_are():
    scores = SEBlock(3, 8).weights(0.1 * torch.randn(50, 8, 16), (20, 10, 20))
    assert scores.mean().item() == pytest.approx(1.0, abs=0.25)
    assert (scores > 0).all()


def test_blocks_of_domains_differ(x):
    for layer in (SEBlock(3, 4), AttentionAdaptation(3, 4, 3)):
        same = x[:1].expand(3, -1, -1).float()
        weights = layer.weights(same, (1, 1, 1))
        assert not torch.allclose(weights[0], weights[1]) and not torch.allclose(weights[1], weights[2])


def test_no_adaptation_is_the_identity(x):
    assert NoAdaptation()(x, COUNTS) is x
