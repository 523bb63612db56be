"""The truth of pseudo-labels, with a model that knows it and with one that knows nothing."""

import pytest
import torch

from adi_lite.data.simulator import SimulatorConfig, simulate_with_truth
from adi_lite.experiments.pseudo_labels import _likely, truth_of_pseudo_labels
from adi_lite.models.config import ModelConfig
from adi_lite.models.two_tower import TwoTower


@pytest.fixture(scope="module")
def world():
    return simulate_with_truth(SimulatorConfig.preset("smoke", scale=0.3), 0)


def test_likely_against_a_plain_loop(world):
    data, truth = world
    user, domain = data.train.user[:60], data.train.domain[:60]
    item = data.train.item[:60]
    found = _likely(truth, user, item, domain, 20, chunk=7)
    for i in range(60):
        d = int(domain[i])
        ranked = truth.scores(user[i : i + 1], d)[0].argsort(descending=True)[:20]
        assert bool(found[i]) == (int(item[i]) in data.catalogues[d][ranked].tolist())
    assert 0 < found.float().mean() < 1


def test_more_pseudo_labels_as_p_grows_and_all_of_them_are_the_blind_choice(world):
    data, truth = world
    torch.manual_seed(0)
    model = TwoTower(ModelConfig(dim=4, out_dim=4, hidden=(4,)), data.schema, data.num_items)
    table = truth_of_pseudo_labels(model, data, truth, (0.1, 0.5, 1.0), k=30, batch_size=512, max_batches=3)
    assert table.index.tolist() == [0.1, 0.5, 1.0] and table.index.name == "p"
    assert table["pseudo-labels"].is_monotonic_increasing and table["pseudo-labels"].iloc[0] > 0
    assert table["true"].between(0, 1).all()
    # At p = 1 a group holds all that the other domain can show, unless it has fewer places than that.
    assert table["true"].iloc[-1] == pytest.approx(table["at random"].iloc[0])
    assert table["at random"].nunique() == 1
