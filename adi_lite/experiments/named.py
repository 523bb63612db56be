"""Named configurations: YAML files beside this one, a section for each name, settings for all methods and for each."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml

from adi_lite.data.schema import MultiDomainDataset
from adi_lite.models.two_tower import ITEM_ID
from adi_lite.training.config import Config
from adi_lite.training.trainer import can_tie_history

NAMES = ("tuned", "as_published")


def named_config(dataset: str, name: str, method: str, **changes: object) -> Config:
    """The configuration called ``name`` of ``method`` on ``dataset``, with further ``changes`` by setting.

    ``tuned`` was chosen on validation data, with the same number of trials for every method (``data/results/tuning``).
    ``as_published`` follows the public code of the paper's authors. A data set without a file of its own has the
    general settings of ``default.yaml``; some markets of a data set, or a drawn sample of it, have those of the data set.

    Raises:
        ValueError: an unknown name, method or setting.
    """
    sections = _read(dataset)
    if name not in sections:
        raise ValueError(f"unknown configuration {name!r} of {dataset!r}; it has {', '.join(sections)}")
    section = sections[name]
    settings = {**section["common"], **section.get("methods", {}).get(method, {}), "method": method, **changes}
    return Config().with_changes(**settings)


def reference_settings(dataset: str) -> dict[str, dict]:
    """Settings of the non-neural references on ``dataset``, by name."""
    return _read(dataset)["tuned"].get("references", {})


def settings_to_fit(data: MultiDomainDataset) -> dict:
    """Changes of a named configuration that ``data`` asks for: empty where it has all that the configuration reads.

    Without validation records nothing stops early. Without histories, users are their ids and features; past items share the items' table where
    :func:`~adi_lite.training.trainer.can_tie_history` allows it.
    """
    changes: dict = {} if ITEM_ID in data.items else {"item_bias": False}
    if not data.schema.history:
        changes["user"] = "id"
    if not can_tie_history(data):
        changes["tie_history"] = False
    if not len(data.valid):
        changes["patience"] = None  # nothing to stop early by
    return changes


@cache
def _read(dataset: str) -> dict:
    folder = files("adi_lite.experiments") / "configs"
    own = folder / f"{dataset.split('-')[0]}.yaml"  # "xmarket-s1-s2-s3" and "xmarket-sample" are "xmarket"
    return yaml.safe_load((own if own.is_file() else folder / "default.yaml").read_text())
