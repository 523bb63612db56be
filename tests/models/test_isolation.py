"""What one domain may learn about another: nothing but through what is shared."""

from __future__ import annotations

import pytest
import torch

from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import NETWORKS, build_network
from adi_lite.nn.normalization import DomainBatchNorm

COUNTS = (4, 5, 3)
A, B = slice(0, 4), slice(4, 9)


def make(**options):
    torch.manual_seed(3)
    return build_network(ModelConfig(dim=4, out_dim=5, hidden=(8, 6), **options), 3, 3)


def run(net, x, f):
    """Output, gradients of what belongs to domain 0, and its statistics, when only domain 0's rows carry a loss."""
    net.train()
    out = net(x, f, COUNTS)
    out[A].pow(2).sum().backward()
    gradients = {n: p.grad[0].clone() for n, p in net.named_parameters() if p.grad is not None and len(p) == 3}
    statistics = {n: b[0].clone() for n, b in net.named_buffers()}
    return out.detach(), gradients, statistics


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_shared": 2},
        {"fusion": "sum"},
        {"fusion": "network_mul"},
        {"adaptation": "se"},
        {"adaptation": "attention"},
        {"adaptation": "se", "se_placement": "network"},
        {"method": "star", "norm": "dsbn"},
        {"method": "ple", "norm": "dsbn"},
        {"method": "shared_bottom", "norm": "dsbn"},
        {"method": "mmoe", "norm": "dsbn"},
        {"method": "cross_stitch", "norm": "dsbn"},
    ],
    ids=lambda o: "-".join(map(str, o.values())) or "adi",
)
def test_rows_of_one_domain_leave_another_alone_to_the_bit(options):
    x, f = torch.randn(12, 3, 4), torch.randn(3, 4)
    changed = x.clone()
    changed[B] = 10 * torch.randn(5, 3, 4)
    first, second = run(make(**options), x, f), run(make(**options), changed, f)
    assert torch.equal(first[0][A], second[0][A])
    assert not torch.equal(first[0][B], second[0][B])
    assert first[1] and first[1].keys() == second[1].keys()
    for part in (1, 2):
        for name in first[part]:
            assert torch.equal(first[part][name], second[part][name]), name
    assert any(n.endswith("running_mean") for n in first[2])


@pytest.mark.parametrize("options", [{"norm": "bn"}, {"method": "dnn"}, {"method": "star"}])
def test_pooled_normalisation_does_not_isolate(options):
    """The counterpart: with ordinary BN, the other domain's rows move everything."""
    x, f = torch.randn(12, 3, 4), torch.randn(3, 4)
    changed = x.clone()
    changed[B] = 10 * torch.randn(5, 3, 4)
    first, second = run(make(**options), x, f), run(make(**options), changed, f)
    assert (first[0][A] - second[0][A]).abs().max() > 0.01
    assert any(not torch.equal(first[2][n], second[2][n]) for n in first[2])


def test_a_loss_in_one_domain_trains_no_network_of_another():
    net = make(num_shared=2)
    net(torch.randn(12, 3, 4), torch.randn(3, 4), COUNTS)[A].sum().backward()
    per_domain = [
        net.specific.layers[0].weight,
        net.forward_network.weight,
        net.fusion.gate_specific.weight,
        net.input_norm.weight,
    ]
    for p in per_domain:
        assert p.grad[0].abs().sum() > 0 and p.grad[1:].abs().sum() == 0
    assert (net.shared.mlp.layers[0].weight.grad.abs().sum((1, 2)) > 0).all(), "every shared network learns from it"


@pytest.mark.parametrize("method", NETWORKS)
def test_evaluation_does_not_depend_on_the_batch(method):
    net = make(method=method)
    for _ in range(3):
        net(torch.randn(12, 3, 4) + 1, torch.randn(3, 4), COUNTS)
    net.eval()
    x, f = torch.randn(12, 3, 4), torch.randn(3, 4)
    whole = net(x, f, COUNTS)
    torch.testing.assert_close(net(x[B], f, (0, 5, 0)), whole[B])
    torch.testing.assert_close(net(x[8:9], f, (0, 1, 0)), whole[8:9])
    statistics = {n: b.clone() for n, b in net.named_buffers()}
    net(100 * x, f, COUNTS)
    assert all(torch.equal(b, statistics[n]) for n, b in net.named_buffers())


@pytest.mark.parametrize("counts", [(1, 6, 5), (0, 7, 5)])
def test_one_row_or_none_of_a_domain_leaves_its_statistics_and_is_defined(counts):
    net = make().train()
    net(torch.randn(12, 3, 4), torch.randn(3, 4), COUNTS)
    norms = [m for m in net.modules() if isinstance(m, DomainBatchNorm) and len(m.weight) == 3]
    before = [(m.running_mean.clone(), m.running_var.clone()) for m in norms]
    out = net(torch.randn(12, 3, 4), torch.randn(3, 4), counts)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    for m, (mean, var) in zip(norms, before, strict=True):
        assert torch.equal(m.running_mean[0], mean[0]) and torch.equal(m.running_var[0], var[0])
        assert not torch.equal(m.running_mean[1], mean[1])
