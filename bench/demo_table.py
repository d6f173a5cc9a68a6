"""The table at the end of `make demo`: our convolution, max-pooling and ReLU against NumPy, and PyTorch if installed.

Takes about 20 seconds. Interleaved medians on this machine; for figures to quote use bench/run.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.interleave import Budget, race
from bench.provenance import cpu_model, usable_cores
from bench.suite import Race, races

CASES = (
    ("conv2d", "lenet.conv2 5x5 6>16 @14"),
    ("conv2d", "r50 3x3 64>64 @56"),
    ("pool2d", "lenet.pool1 2x2/2 6 @28"),
    ("pool2d", "r50.pool 3x3/2 64 @112"),
    ("activation", "lenet.relu1 6 @28"),
    ("activation", "r50 relu 64 @112"),
)


def main(seconds: float = 1.0, smoke: bool = False) -> int:
    """Prints the table; every race is checked for equal results before it is timed."""
    entries = [r for suite, case in CASES for r in races(suite, smoke=smoke) if r.case == case]
    columns = [n for n in ("native", "NumPy", "PyTorch nhwc", "PyTorch nchw") if any(n in e.names for e in entries)]
    print(f"\nmilliseconds, median; {cpu_model()}, {len(usable_cores())} cores, float32, batch as in training")
    print(f"{'operation':24}{'layer':28}" + "".join(f"{name:>14}" for name in columns) + "   against NumPy")
    for entry in entries:
        print(line(entry, columns, Budget(seconds)), flush=True)
    for name, reason in entries[0].absent.items():
        print(f"{name}: {reason}")
    return 0


def line(entry: Race, columns: list[str], budget: Budget) -> str:
    times = {name: s.median for name, s in race(entry.build(tuple(columns)), budget).items()}
    cells = "".join(f"{times[name]:14.3f}" if name in times else f"{'-':>14}" for name in columns)
    faster = f"{times['NumPy'] / times['native']:13.1f}x" if "native" in times else ""
    return f"{entry.operation:24}{entry.case:28}{cells}{faster}"


if __name__ == "__main__":
    sys.exit(main())
