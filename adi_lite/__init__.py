"""Multi-domain retrieval that can be reproduced: the Adaptive Domain Interest network and its baselines."""

import ctypes

import torch

# Softmax tails fall below the smallest normal number, and arithmetic on such numbers is up to a hundred times slower on
# a CPU. It has to be set before the first parallel operation, so it is set at import.
torch.set_flush_denormal(True)


def _keep_freed_memory() -> None:
    """Let the C library keep large buffers for the next step, in place of new pages from the system each time.

    A training step allocates the same tens of megabytes again and again; fetching and clearing their pages took a sixth
    of its time. Only glibc has the two settings; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 32 << 20)
    mallopt(trim_threshold, 1 << 30)


_keep_freed_memory()

__version__ = "0.1.0"
