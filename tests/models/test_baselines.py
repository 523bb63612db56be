"""Each comparing method against a plain loop over rows, written from its paper (normalisation off), and its start."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import NETWORKS, build_network

DIM, FIELDS, OUT = 3, 4, 5
HIDDEN = (6, 4)
COUNTS = [(2, 0, 4), (3, 2, 1), (1,), (2, 3)]


def arr(t: Tensor) -> np.ndarray:
    return t.detach().numpy()


def softmax(x) -> np.ndarray:
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


def linear(layer, n: int, x: np.ndarray) -> np.ndarray:
    return x @ arr(layer.weight[n]) + arr(layer.bias[n])


def mlp(stack, n: int, x: np.ndarray, final_relu: bool = True) -> np.ndarray:
    for i, layer in enumerate(stack.layers):
        x = linear(layer, n, x)
        if final_relu or i < len(stack.layers) - 1:
            x = np.maximum(x, 0)
    return x


def dnn(net, x, d, num_domains, k):
    return linear(net.head, 0, mlp(net.network, 0, x))


def shared_bottom(net, x, d, num_domains, k):
    return mlp(net.top, d, mlp(net.bottom, 0, x), final_relu=False)


def cross_stitch(net, x, d, num_domains, k):
    """x_i <- sum over j of a_ij x_j, after each layer (Misra et al. 2016, Eq. 1)."""
    h = [x] * num_domains
    for layer, unit in zip(net.layers, net.units, strict=True):
        own = [np.maximum(linear(layer, i, h[i]), 0) for i in range(num_domains)]
        h = [sum(unit[i, j].item() * own[j] for j in range(num_domains)) for i in range(num_domains)]
    return linear(net.head, d, h[d])


def mmoe(net, x, d, num_domains, k):
    """f^d(x) = sum over n of g^d(x)_n f_n(x), g^d = softmax(W^d x) (Ma et al. 2018, Eq. 4-6)."""
    gate = softmax(linear(net.gate, d, x))
    return linear(net.head, d, sum(gate[n] * mlp(net.experts, n, x) for n in range(num_domains + k)))


def ple(net, x, d, num_domains, k):
    """Tang et al. 2020: the gate of a domain sees its own expert and the shared ones, the shared gate sees them all."""
    streams, shared = [x] * num_domains, x
    for level in net.levels:
        of_domain = [mlp(level.specific, i, streams[i]) for i in range(num_domains)]
        of_shared = [mlp(level.shared, n, shared) for n in range(k)]
        following = []
        for i in range(num_domains):
            gate = softmax(linear(level.gate, i, streams[i]))
            following.append(sum(g * e for g, e in zip(gate, [of_domain[i], *of_shared], strict=True)))
        if level.shared_gate is not None:
            gate = softmax(linear(level.shared_gate, 0, shared))
            shared = sum(g * e for g, e in zip(gate, [*of_domain, *of_shared], strict=True))
        streams = following
    return linear(net.head, d, streams[d])


def star(net, x, d, num_domains, k):
    def star_linear(layer, x):
        w = arr(layer.shared.weight[0]) * arr(layer.weight[d])
        return x @ w + arr(layer.shared.bias[0]) + arr(layer.bias[d])

    for layer in net.network.layers:
        x = np.maximum(star_linear(layer, x), 0)
    return star_linear(net.head, x)


REFERENCE = {
    "dnn_single": dnn,
    "dnn": dnn,
    "shared_bottom": shared_bottom,
    "cross_stitch": cross_stitch,
    "mmoe": mmoe,
    "ple": ple,
    "star": star,
}


def make(method: str, num_domains: int, **options):
    options = {"dim": DIM, "out_dim": OUT, "hidden": HIDDEN, "equal_size": False, **options}
    return build_network(ModelConfig(method=method, **options), num_domains, FIELDS).double()


def rows(counts) -> tuple[Tensor, list[int]]:
    domains = [d for d, n in enumerate(counts) for _ in range(n)]
    return torch.randn(len(domains), FIELDS, DIM, dtype=torch.float64), domains


def test_every_method_has_a_reference():
    assert {*REFERENCE, "adi"} == set(NETWORKS)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(
    ("method", "options"),
    [(m, {"num_shared": k}) for m in REFERENCE for k in (1, 3)]
    + [("ple", {"levels": 2, "num_shared": k}) for k in (1, 2)]
    + [("ple", {"levels": 3, "num_shared": 2})],
)
def test_method_equals_the_loop_over_rows(method, options, counts):
    net = make(method, len(counts), norm="none", **options)
    for p in net.parameters():
        p.data += 0.2 * torch.randn_like(p)  # away from neutral starts
    x, domains = rows(counts)
    out = arr(net(x, torch.zeros(len(counts), DIM, dtype=torch.float64), counts))
    for r, d in enumerate(domains):
        expected = REFERENCE[method](net, arr(x[r]).ravel(), d, len(counts), options["num_shared"])
        np.testing.assert_allclose(out[r], expected, rtol=1e-9)


@pytest.mark.parametrize("method", NETWORKS)
@pytest.mark.parametrize("levels", [1, 2])
def test_gradient_equals_that_of_single_rows(method, levels):
    """Backward through the routing: the gradient of a batch is the sum of the gradients of its rows."""
    net = make(method, 3, norm="none", num_shared=2, levels=levels)
    x, domains = rows((2, 0, 3))
    f = torch.randn(3, DIM, dtype=torch.float64)
    g = torch.randn(5, OUT, dtype=torch.float64)
    (net(x, f, (2, 0, 3)) * g).sum().backward()
    whole = {n: p.grad.clone() for n, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    for r, d in enumerate(domains):
        counts = tuple(int(d == e) for e in range(3))
        (net(x[r : r + 1], f, counts) * g[r]).sum().backward()
    for name, p in net.named_parameters():
        if name in whole:
            torch.testing.assert_close(whole[name], p.grad, msg=name)


def test_cross_stitch_starts_near_the_identity():
    for unit in make("cross_stitch", 4).units:
        torch.testing.assert_close(unit.sum(1), torch.ones(4, dtype=torch.float64))
        assert unit.diagonal().tolist() == pytest.approx([0.9] * 4) and unit.min().item() == pytest.approx(0.1 / 3)
    assert make("cross_stitch", 1).units[0].tolist() == [[1.0]]


def test_gates_of_mmoe_sum_to_one_and_read_input_and_domain():
    net = make("mmoe", 3, num_shared=2)
    x = torch.randn(1, FIELDS * DIM, dtype=torch.float64).expand(3, -1)
    weights = net.gate_weights(x, (1, 1, 1))
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))
    assert weights.shape == (3, 5) and not torch.allclose(weights[0], weights[1])
    other = net.gate_weights(x + 1, (1, 1, 1))
    assert not torch.allclose(weights[0], other[0])


def test_star_with_unit_factors_is_one_shared_network():
    """The start is neutral: all domains give the same, and that is the shared weights alone."""
    net = make("star", 3, norm="none")
    x = torch.randn(1, FIELDS, DIM, dtype=torch.float64).expand(3, -1, -1)
    out = net(x, torch.zeros(3, DIM, dtype=torch.float64), (1, 1, 1))
    h = x.flatten(1)
    for layer in net.network.layers:
        h = torch.relu(layer.shared(h).squeeze(1))
    h = net.head.shared(h).squeeze(1)
    torch.testing.assert_close(out, h)
    assert (out < 0).any(), "no ReLU on the output"


@pytest.mark.parametrize("method", ["cross_stitch", "mmoe", "ple", "adi"])
def test_experts_differ_at_the_start_and_after_a_step(method):
    net = make(method, 3, num_shared=2).float()
    x, _ = rows((8, 8, 8))
    x, f = x.float(), torch.randn(3, DIM)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    stacks = [m for m in net.modules() if type(m).__name__ in ("StackedLinear",) and m.networks > 1 and m.out_size > 1]
    assert stacks
    for _ in range(2):
        for layer in stacks:
            for a in range(layer.networks):
                for b in range(a):
                    assert (layer.weight[a] - layer.weight[b]).abs().mean() > 0.05
        net(x, f, (8, 8, 8)).pow(2).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("method", NETWORKS)
@pytest.mark.parametrize("num_domains", [1, 2, 5])
def test_any_number_of_domains_with_missing_ones(method, num_domains):
    net = make(method, num_domains).float().train()
    for present in range(num_domains):
        counts = tuple(3 * (d == present) for d in range(num_domains))
        out = net(torch.randn(3, FIELDS, DIM), torch.randn(len(counts), DIM), counts)
        assert out.shape == (3, OUT) and torch.isfinite(out).all()
