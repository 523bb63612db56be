"""The parts of :mod:`adi_lite.data.simulator`."""
