"""Benchmarks: ours against NumPy, PyTorch and cuDNN, interleaved, each row with its provenance (docs/measuring.md)."""

import os

# Read when NumPy is first imported: OpenBLAS's threads sleep 2**4 cycles after a product instead of spinning for 2**26,
# in which time they hold the core that the next contender's thread needs.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
