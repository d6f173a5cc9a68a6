"""The scheduler of tests/numba_simulator.py: it finds planted bugs by name, and it can be done without.

Runs in processes of their own: whether numba simulates is settled when it is first imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="Numba is not installed")
pytest.importorskip("greenlet", reason="greenlet is not installed: kernels run under Numba's own scheduler")

ROOT = Path(__file__).resolve().parent.parent

# every kernel runs on one block of eight threads; y (8,) float32 is the output
PRELUDE = """
import sys
import numpy as np
from tests import numba_simulator
assert numba_simulator.install(), numba_simulator.why_not()
from numba import cuda, float32

def run(kernel, *args, threads=8):
    try:
        kernel[1, threads](*args)
    except Exception as e:
        print(type(e).__name__, e)
    else:
        print("nothing found")

x, y = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
"""

REVERSE = """
@cuda.jit
def reverse(x, y):
    tile = cuda.shared.array(8, float32)
    t = cuda.threadIdx.x
    tile[t] = x[t]
    {between}
    y[t] = tile[7 - t]
"""

BUGS = {
    "correct": (
        REVERSE.format(between="cuda.syncthreads()") + "run(reverse, x, y); assert (y == x[::-1]).all()",
        "nothing",
    ),
    "missing_barrier": (
        REVERSE.format(between="pass") + "run(reverse, x, y)",
        r"UninitializedRead reverse: thread \(0, 0, 0\)",
    ),
    "missing_second_barrier": (
        """
@cuda.jit
def sums(x, y):
    tile = cuda.shared.array(8, float32)
    t = cuda.threadIdx.x
    for i in range(2):
        tile[t] = x[t]
        cuda.syncthreads()
        y[t] += tile[7 - t]
run(sums, x, y)
""",
        r"SharedMemoryRace sums: thread \(4, 0, 0\) .*reads cell 3, written by thread \(3, 0, 0\)",
    ),
    "two_writers": (
        """
@cuda.jit
def last(x, y):
    tile = cuda.shared.array(1, float32)
    tile[0] = x[cuda.threadIdx.x]
    cuda.syncthreads()
    y[cuda.threadIdx.x] = tile[0]
run(last, x, y)
""",
        r"SharedMemoryRace last: thread \(1, 0, 0\) .*writes cell 0, written by thread \(0, 0, 0\)",
    ),
    "half_the_threads_at_a_barrier": (
        """
@cuda.jit
def half(y):
    if cuda.threadIdx.x < 4:
        cuda.syncthreads()
    y[cuda.threadIdx.x] = 1
run(half, y)
""",
        r"DivergentBarrier half: .*4 of 8 threads never reach a barrier",
    ),
    "two_barriers": (
        """
@cuda.jit
def two(y):
    if cuda.threadIdx.x < 4:
        cuda.syncthreads()
    else:
        cuda.syncthreads()
    y[cuda.threadIdx.x] = 1
run(two, y)
""",
        r"DivergentBarrier two: .*different barriers: thread \(0, 0, 0\) waits at .* and thread \(4, 0, 0\) waits at",
    ),
    "half_a_warp": (
        """
@cuda.jit
def half(y):
    if cuda.threadIdx.x < 16:
        numba_simulator.meet_warp(cuda.threadIdx.x)
    y[0] = 1
run(half, y, threads=32)
""",
        r"DivergentBarrier half: .*16 of 32 threads never reach a barrier",
    ),
    "no_whole_warp": (
        """
@cuda.jit
def small(y):
    numba_simulator.meet_warp(0)
run(small, y)
""",
        r"DivergentBarrier small: .*a warp has 32 threads, the last of a block of 8 has fewer",
    ),
    "a_warp_is_no_barrier": (
        """
@cuda.jit
def unordered(y):
    tile = cuda.shared.array(32, float32)
    t = cuda.threadIdx.x
    tile[t] = numba_simulator.meet_warp(t)[31 - t]
    numba_simulator.meet_warp(t)
    y[t % 8] = tile[31 - t]
run(unordered, y, threads=32)
""",
        r"SharedMemoryRace unordered: thread \(0, 0, 0\) .*reads cell 31, written by thread \(31, 0, 0\)",
    ),
    "lanes_meet": (
        """
@cuda.jit
def turned(x, y):
    t = cuda.threadIdx.x
    brought = numba_simulator.meet_warp(x[t % 8] + t // 32)
    again = numba_simulator.meet_warp(brought[31 - t % 32])
    if t % 32 < 8 and t >= 32:
        y[t % 32] = again[31 - t % 32]
run(turned, x, y, threads=64); assert (y == x + 1).all(), y
""",
        "nothing",
    ),
    "negative_index": (
        """
@cuda.jit
def shift(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x - 1]
run(shift, x, y)
""",
        r"IndexError shift: thread \(0, 0, 0\) of block \(0, 0, 0\): index -1 is below zero",
    ),
    "index_past_the_end": (
        """
@cuda.jit
def shift(x, y):
    y[cuda.threadIdx.x] = x[cuda.threadIdx.x + 1]
run(shift, x, y)
""",
        r"IndexError shift: thread \(7, 0, 0\) .*index 8 is out of bounds",
    ),
    "shared_index_past_the_end": (
        """
@cuda.jit
def grow(y):
    tile = cuda.shared.array(8, float32)
    tile[cuda.threadIdx.x + 1] = 1
run(grow, y)
""",
        r"IndexError grow: thread \(7, 0, 0\) .*index 8 lies outside a shared array of shape \(8,\)",
    ),
    "written_input": (
        """
@cuda.jit
def clear(x):
    x[cuda.threadIdx.x] = 0
run(clear, cuda.In(x))
assert x[7] == 7
""",
        r"ValueError clear: thread \(0, 0, 0\) .*passed as cuda.In",
    ),
    "two_shared_arrays_on_a_line": (
        """
@cuda.jit
def pair(y):
    a, b = cuda.shared.array(8, float32), cuda.shared.array(8, float32)
run(pair, y)
""",
        r"NotImplementedError pair: .*two shared arrays on one line",
    ),
}


def run(script: str, tmp_path: Path, prelude: str = PRELUDE) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "planted.py"  # shared arrays are told apart by file and line, so the kernel needs a file
    path.write_text(prelude + script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_named(bug: str, tmp_path: Path) -> None:
    script, expected = BUGS[bug]
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.match(expected, done.stdout), done.stdout


def test_local_memory_starts_as_nan(tmp_path: Path) -> None:
    script = """
@cuda.jit
def unset(y):
    cell = cuda.local.array(2, float32)
    cell[0] = 1
    y[cuda.threadIdx.x] = cell[0] + cell[1]
run(unset, y)
assert np.isnan(y).all()
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_votes_and_device_functions(tmp_path: Path) -> None:
    script = """
@cuda.jit(device=True)
def odd(t):
    return t % 2 == 1

@cuda.jit
def vote(y):
    t = cuda.threadIdx.x
    count = cuda.syncthreads_count(odd(t))
    either = cuda.syncthreads_or(t == 3)
    every = cuda.syncthreads_and(t == 3)
    y[t] = 100 * count + 10 * either + every
for order in ("forward", "reverse"):
    with numba_simulator.order(order):
        vote[1, 8](y)
    assert (y == 410).all(), y
"""
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_without_greenlet_the_own_scheduler_of_numba_serves(tmp_path: Path) -> None:
    """install() returns False with the reason, and kernels give the same results, slowly."""
    prelude = """
import sys
sys.modules["greenlet"] = None
import numpy as np
from tests import numba_simulator
assert not numba_simulator.install()
assert "greenlet" in numba_simulator.why_not(), numba_simulator.why_not()
"""
    script = """
import warnings
warnings.simplefilter("error")
from cnnengine.backends import get
from cnnengine.backends.contract import IDENTITY, Epilogue
from cnnengine.shapes import conv2d_shape, reduce_shape
numba, numpy = get("numba"), get("numpy")
rng = np.random.default_rng(0)
shape = conv2d_shape((1, 4, 4, 2), (3, 3, 3, 2), 1, 1)
x, w, dy, bias = (rng.standard_normal(s).astype(np.float32) for s in (shape.x, shape.w, shape.y, (3,)))
x.flags.writeable = False
for algorithm in ("direct", "tiled"):
    y, dw = [np.empty(shape.y, np.float32) for _ in "ab"], [np.empty(shape.w, np.float32) for _ in "ab"]
    for backend, y, dw, chosen in zip((numba, numpy), y, dw, (algorithm, None)):
        backend.conv2d_forward(shape, x, w, y, Epilogue(bias=bias, activation="relu"), chosen)
        backend.conv2d_backward_weight(shape, x, dy, dw, chosen)
        if backend is numba:
            got = y, dw
    np.testing.assert_allclose(got[0], y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got[1], dw, rtol=1e-4, atol=1e-5)
x = np.float32([-np.inf, 0, 200, np.nan, 1])
y = np.empty_like(x)
numba.unary("exp", x, y)
assert np.array_equal(y[:4], np.float32([0, 1, np.inf, np.nan]), equal_nan=True), y
"""
    done = run(script, tmp_path, prelude)
    assert done.returncode == 0, done.stderr
