"""Benchmarks: ours against NumPy, PyTorch and cuDNN, interleaved, each row with its provenance (docs/measuring.md)."""
