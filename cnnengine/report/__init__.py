"""Benchmark results: rows, what they are compared with, and the page that ``cnnengine report`` makes of them."""
