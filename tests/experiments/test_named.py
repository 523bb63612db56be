"""Named configurations: every method has each of them, and changes are checked."""

import pytest
import yaml

from adi_lite.experiments import named
from adi_lite.experiments.named import NAMES, named_config, reference_settings
from adi_lite.experiments.references import REFERENCES, build_reference
from adi_lite.models.registry import NETWORKS


@pytest.mark.parametrize("method", NETWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_every_method_has_every_configuration(name, method):
    config = named_config("xmarket", name, method)
    assert config.model.method == method
    assert named_config("xmarket", name, method, seed=3).train.seed == 3


@pytest.mark.parametrize("method", NETWORKS)
def test_data_without_a_file_have_the_general_settings(method):
    assert named_config("mine", "tuned", method).model.method == method
    with pytest.raises(ValueError, match="unknown configuration 'as_published' of 'mine'; it has tuned"):
        named_config("mine", "as_published", method)


@pytest.mark.parametrize("dataset", ["xmarket-sample", "xmarket-s1-s2-s3", "xmarket-t1"])
def test_a_sample_or_some_markets_have_the_settings_of_the_whole(dataset):
    for name in NAMES:
        assert named_config(dataset, name, "adi") == named_config("xmarket", name, "adi")
    assert reference_settings(dataset) == reference_settings("xmarket") != {}


def test_as_published_is_the_public_code():
    config = named_config("xmarket", "as_published", "adi")
    assert (config.model.dim, config.model.hidden, config.model.out_dim) == (8, (64, 32, 16), 8)
    assert (config.model.similarity, config.model.final_relu, config.model.user) == ("dot", True, "id")
    assert (config.train.epochs, config.train.shuffle, config.train.double_softmax) == (5, False, True)
    assert config.train.fixed_negatives


def test_a_methods_own_settings_win_over_the_common_ones_and_changes_over_both(monkeypatch):
    sections = yaml.safe_load("tuned: {common: {dim: 8, epochs: 2}, methods: {adi: {dim: 16, out_dim: 24}}}")
    monkeypatch.setattr(named, "_read", lambda _: sections)
    adi, dnn = (named_config("d", "tuned", m) for m in ("adi", "dnn"))
    assert (adi.model.dim, adi.model.out_dim, adi.train.epochs) == (16, 24, 2)
    assert dnn.model.dim == 8
    assert named_config("d", "tuned", "adi", dim=4).model.dim == 4


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown configuration 'best' of 'xmarket'; it has tuned, as_published"):
        named_config("xmarket", "best", "adi")
    with pytest.raises(ValueError, match="unknown setting 'wings'"):
        named_config("xmarket", "tuned", "adi", wings=2)
    with pytest.raises(ValueError, match="method"):
        named_config("xmarket", "tuned", "nope")


def test_settings_of_references_build_them():
    settings = reference_settings("xmarket")
    assert set(settings) == set(REFERENCES)
    for name, own in settings.items():
        assert isinstance(build_reference(name, own), REFERENCES[name])
    with pytest.raises(ValueError, match="unknown reference 'nope'; choose popularity"):
        build_reference("nope", {})
    with pytest.raises(ValueError, match="reference 'ease'.*wings"):
        build_reference("ease", {"wings": 2})
