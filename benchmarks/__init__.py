"""Speed and memory of training, beside a plain loop over domains and experts: ``python -m benchmarks``."""
