"""The cases of each operation, declared once: tests, gradient checks and benchmarks read the same lists.

Every list has an awkward half: primes, 1x1, stride past the filter, padding R-1, dilation, groups, N = 1, sizes one off
a tile. ``tier`` is the smallest machine that runs a case: "tiny" (Numba's simulator), "small" (the emulator), "layer".
"""
