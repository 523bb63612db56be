"""Data sets by name, for the command line, the plans and the notebooks."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from adi_lite.data.globo import load_globo
from adi_lite.data.globo_sample import load_globo_sample
from adi_lite.data.kuairand import load_kuairand
from adi_lite.data.kuairand_sample import load_kuairand_sample
from adi_lite.data.schema import MultiDomainDataset
from adi_lite.data.simulator import load_simulator
from adi_lite.data.xmarket import load_xmarket
from adi_lite.data.xmarket_sample import load_xmarket_sample

Loader = Callable[..., MultiDomainDataset]

DATASETS: dict[str, Loader] = {
    "globo": load_globo,
    "globo-sample": load_globo_sample,
    "kuairand": load_kuairand,
    "kuairand-sample": load_kuairand_sample,
    "simulator": load_simulator,
    "xmarket": load_xmarket,
    "xmarket-sample": load_xmarket_sample,
}


def load_dataset(name: str, **options) -> MultiDomainDataset:
    """Load the data set called ``name``; ``options`` go to its loader.

    Raises:
        ValueError: no data set of this name, or an option that its loader does not have.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(sorted(DATASETS))}")
    known = options_of(name)
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"data set {name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return DATASETS[name](**options)


def options_of(name: str) -> tuple[str, ...]:
    """Names of the options that the loader of a data set has."""
    return tuple(inspect.signature(DATASETS[name]).parameters)
