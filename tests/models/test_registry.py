"""One size for all methods (Section 5.1.4), cost that does not grow with the number of domains, settings checked."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adi_lite.models.config import ModelConfig
from adi_lite.models.registry import NETWORKS, TITLES, build_network, network_size, tower_widths
from adi_lite.models.two_tower import TwoTower


def size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("method", NETWORKS)
@pytest.mark.parametrize(
    ("num_domains", "dim", "out_dim", "hidden", "fields"),
    [
        (3, 64, 64, (64,), 3),
        (3, 32, 48, (64, 32), 4),
        (2, 16, 16, (48,), 2),
        (5, 32, 32, (128, 64), 8),
        (10, 32, 64, (64,), 3),
    ],
)
def test_equal_size(method, num_domains, dim, out_dim, hidden, fields):
    shape = {"dim": dim, "out_dim": out_dim, "hidden": hidden}
    reference = size(build_network(ModelConfig(**shape, equal_size=False), num_domains, fields))
    if method == "dnn_single":
        reference /= num_domains
    config = ModelConfig(method=method, **shape)
    net = build_network(config, num_domains, fields + config.shows_domain)
    assert size(net) == pytest.approx(reference, rel=0.03)


@pytest.mark.parametrize("rich", [False, True])
def test_whole_models_are_of_equal_size(make_tiny, rich):
    """A tower with the domain field has one field more than ADI's, which has none: its network must not be larger."""
    data = make_tiny(rich=rich)
    sizes = {
        m: TwoTower(ModelConfig(method=m), data.schema, data.num_items).num_parameters()["networks"] for m in NETWORKS
    }
    sizes["dnn_single"] *= data.num_domains
    assert max(sizes.values()) / min(sizes.values()) < 1.04, sizes


def test_the_reference_has_the_size_counted_by_hand():
    """ADI, D = 3, K = 1, fields 2 x 4, one hidden layer of 6, output 5."""
    per_network = 8 * 6 + 6
    networks = 4 * per_network + 3 * 2 * 6 * 2  # and DSBN after each: specific and shared, 3 domains, scale and shift
    gates = 1 * (4 + 1) + 2 * 3 * (4 * 6 + 6)
    forward = 3 * (18 * 5 + 5)
    input_norm = 3 * 8 * 2
    config = ModelConfig(dim=4, out_dim=5, hidden=(6,))
    assert size(build_network(config, 3, 2)) == networks + gates + forward + input_norm
    assert tower_widths(config, 3, 2) == (6,)


def test_size_is_counted_without_building():
    config = ModelConfig(method="ple", levels=2, hidden=(10, 7), equal_size=False)
    assert network_size(config, 4, 3, (10, 7)) == size(build_network(config, 4, 3))


def test_widths_are_left_alone_when_sizes_may_differ():
    for method in NETWORKS:
        assert tower_widths(ModelConfig(method=method, hidden=(10, 7), equal_size=False), 3, 2) == (10, 7)


def test_every_network_has_a_title_and_the_size_is_its_own():
    assert NETWORKS.keys() == TITLES.keys()


def flops_a_row(method: str, num_domains: int, rows: int = 240, **options) -> float:
    config = ModelConfig(method=method, dim=8, out_dim=8, hidden=(16, 16), equal_size=False, **options)
    net = build_network(config, num_domains, 3)
    counts = (rows // num_domains,) * num_domains
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(rows, 3, 8), torch.randn(len(counts), 8), counts)
    return counter.get_total_flops() / rows


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("adi", {}),
        ("adi", {"num_shared": 3}),
        ("adi", {"fusion": "network_mul"}),
        ("adi", {"adaptation": "se"}),
        ("dnn", {}),
        ("shared_bottom", {}),
        ("star", {}),
        ("ple", {}),
    ],
)
def test_cost_of_a_row_does_not_grow_with_the_number_of_domains(method, options):
    assert flops_a_row(method, 16, **options) == pytest.approx(flops_a_row(method, 2, **options), rel=0.02)


@pytest.mark.parametrize(("method", "options"), [("cross_stitch", {}), ("mmoe", {}), ("ple", {"levels": 2})])
def test_methods_that_run_all_networks_grow_by_design(method, options):
    assert flops_a_row(method, 16, **options) > 4 * flops_a_row(method, 2, **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hiden": (3,)}, "hiden"),
        ({"method": "mlp"}, "method"),
        ({"hidden": ()}, "at least one width"),
        ({"hidden": (8, 0)}, "all of them positive"),
        ({"dropout": 1.0}, "dropout"),
        ({"residual": True, "out_dim": 32}, "residual needs out_dim == dim, got 32 and 64"),
        ({"method": "dnn", "adaptation": "se"}, "adaptation belongs to method 'adi', not to 'dnn'"),
        ({"method": "star", "fusion": "sum"}, "fusion belongs to method 'adi'"),
        ({"fusion": "network_mul", "num_shared": 2}, "one shared network"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**settings)


def test_norm_is_dsbn_for_adi_and_bn_for_the_others():
    assert [m for m in NETWORKS if ModelConfig(method=m).norm_kind == "dsbn"] == ["adi"]
    assert ModelConfig(method="star", norm="dsbn").norm_kind == "dsbn"
