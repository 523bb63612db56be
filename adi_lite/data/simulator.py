"""A simulator of multi-domain display advertising: the stand-in for the paper's private log (Tables 1, 4 and 5).

The generative model is the book's page *The simulator*. It knows its truth: see :class:`Truth`.
"""

from adi_lite.data.simulation.config import SimulatorConfig
from adi_lite.data.simulation.dataset import load_simulator, simulate, simulate_with_truth
from adi_lite.data.simulation.overlap import Overlap
from adi_lite.data.simulation.parquet import simulate_to_parquet
from adi_lite.data.simulation.truth import Truth

__all__ = [
    "Overlap",
    "SimulatorConfig",
    "Truth",
    "load_simulator",
    "simulate",
    "simulate_to_parquet",
    "simulate_with_truth",
]
