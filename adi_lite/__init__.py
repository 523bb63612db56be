"""Multi-domain retrieval that can be reproduced: the Adaptive Domain Interest network and its baselines."""

import torch

# Softmax tails fall below the smallest normal number, and arithmetic on such numbers is up to a hundred times slower on
# a CPU. It has to be set before the first parallel operation, so it is set at import.
torch.set_flush_denormal(True)

__version__ = "0.1.0"
