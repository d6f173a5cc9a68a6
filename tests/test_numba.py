"""What is the numba backend's own: when it can run, and what its simulator promises (test_<op>.py has the verbs)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnengine.backends import get
from cnnengine.backends.contract import Backend, Epilogue
from cnnengine.errors import Unsupported
from cnnengine.shapes import conv2d_shape, reduce_shape

from . import numba_simulator
from .conftest import CHOSEN, REASONS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def simulator() -> Backend:
    if "numba" not in CHOSEN or REASONS["numba"] is not None:
        pytest.skip(f"backend numba is not tested: {REASONS['numba'] or 'not in CNNENGINE_TEST_BACKENDS'}")
    backend = get("numba")
    if backend.device != "cpu":
        pytest.skip("a GPU is present: the kernels do not run in the simulator")
    return backend


def python(script: str, **variables: str) -> str:
    hidden = ("NUMBA_ENABLE_CUDASIM", "CNNENGINE_NUMBA_SIMULATOR")
    environment = {k: v for k, v in os.environ.items() if k not in hidden} | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_asking_imports_neither_numba_nor_cupy() -> None:
    script = """
import sys
import cnnengine
cnnengine.backends.available()
print(sorted({"numba", "cupy"} & set(sys.modules)))
"""
    assert python(script) == "[]"


def test_the_environment_asks_for_the_simulator() -> None:
    pytest.importorskip("numba", reason="Numba is not installed")
    script = "from cnnengine.backends import get, numba; print(numba.unavailable(), get('numba').device)"
    assert python(script, CNNENGINE_NUMBA_SIMULATOR="1") == "None cpu"


def test_numba_imported_too_early_is_said() -> None:
    pytest.importorskip("numba", reason="Numba is not installed")
    script = """
import numba.core.config
from cnnengine.backends import numba
from cnnengine.errors import BackendUnavailable
numba._no_gpu = lambda: "there is no CUDA driver"
try:
    numba.load()
except BackendUnavailable as e:
    print(e)
"""
    said = python(script)
    assert "there is no CUDA driver, and numba was imported before cnnengine, without its simulator" in said
    assert "NUMBA_ENABLE_CUDASIM=1" in said


def test_read_only_inputs_and_values_a_gpu_would_not_warn_of(simulator: Backend) -> None:
    x = np.float32([-np.inf, -1, -0.0, 0, np.nan, 200, np.inf])
    x.flags.writeable = False
    y = np.empty_like(x)
    simulator.activation_forward("relu", x, y, 0.0)
    np.testing.assert_array_equal(y, np.float32([0, 0, 0, 0, np.nan, 200, np.inf]))
    simulator.unary("exp", x, y)
    np.testing.assert_array_equal(y[[0, 3, 4, 5]], np.float32([0, 1, np.nan, np.inf]))
    simulator.unary("log", x, y)
    np.testing.assert_array_equal(y[[0, 1, 3, 6]], np.float32([np.nan, np.nan, -np.inf, np.inf]))


@pytest.mark.parametrize(
    ("x", "w", "groups", "rung"),
    [
        ((1, 8, 8, 4), (1, 3, 3, 4), 1, "direct"),
        ((1, 8, 8, 6), (6, 3, 3, 1), 6, "depthwise"),
        ((1, 8, 8, 1), (6, 3, 3, 1), 1, "tiled"),  # one group is no depthwise convolution
        ((1, 8, 8, 4), (6, 3, 3, 4), 1, "tiled"),
        ((1, 4, 4, 4), (6, 3, 3, 4), 1, "tiled"),
        ((1, 8, 8, 4), (16, 3, 3, 4), 1, "implicit_gemm"),
    ],
)
def test_the_documented_choice(
    simulator: Backend, x: tuple[int, ...], w: tuple[int, ...], groups: int, rung: str
) -> None:
    """Of the simulator's tiles: 16 x 16 sums of implicit_gemm, 8 x 8 of tiled."""
    shape = conv2d_shape(x, w, groups=groups)  # type: ignore[arg-type]
    assert simulator.conv2d_prepare(shape, np.zeros(w, np.float32), None).algorithm == rung


def test_depthwise_takes_one_channel_a_group(simulator: Backend) -> None:
    shape = conv2d_shape((1, 4, 4, 4), (4, 3, 3, 2), groups=2)
    with pytest.raises(Unsupported, match=r"takes one input channel a group .* received groups 2, C 4"):
        simulator.conv2d_prepare(shape, np.zeros(shape.w, np.float32), "depthwise")


@pytest.mark.parametrize("rung", ["tiled", "implicit_gemm", "implicit_gemm_tf32"])
def test_the_order_of_threads_changes_no_bit(simulator: Backend, rung: str, rng: np.random.Generator) -> None:
    if numba_simulator.why_not():
        pytest.skip(f"the scheduler with a chosen order is not in place: {numba_simulator.why_not()}")
    shape = conv2d_shape((2, 7, 6, 3), (9, 3, 2, 3), 2, (1, 0))
    x, w, dy, bias = (rng.standard_normal(s).astype(np.float32) for s in (shape.x, shape.w, shape.y, (9,)))
    results = []
    for order in ("forward", "reverse"):
        y, dx, dw, db = (np.empty(s, np.float32) for s in (shape.y, shape.x, shape.w, (9,)))
        with numba_simulator.order(order):
            simulator.conv2d_forward(shape, x, w, y, Epilogue(bias=bias), rung)
            simulator.conv2d_backward_input(shape, dy, w, dx, rung)
            simulator.conv2d_backward_weight(shape, x, dy, dw, rung)
            simulator.reduce("sum", reduce_shape(1, dy.size // 9, 9), dy, db)
        results.append((y, dx, dw, db))
    for forward, reverse in zip(*results, strict=True):
        np.testing.assert_array_equal(forward, reverse)


def test_a_long_reduction_is_split_and_added_in_order(simulator: Backend, rng: np.random.Generator) -> None:
    """Several blocks share an output, and a second kernel adds their parts: enough pixels for four splits."""
    shape = conv2d_shape((2, 7, 7, 1), (2, 1, 1, 1))
    x, dy = (rng.standard_normal(s).astype(np.float32) for s in (shape.x, shape.y))
    dw, again = (np.empty(shape.w, np.float32) for _ in range(2))
    simulator.conv2d_backward_weight(shape, x, dy, dw, "tiled")
    simulator.conv2d_backward_weight(shape, x, dy, again, "tiled")
    np.testing.assert_array_equal(dw, again)
    expected = np.einsum("npqc,npqk->kc", x.astype(np.float64), dy.astype(np.float64)).reshape(shape.w)
    np.testing.assert_allclose(dw, expected, rtol=1e-5, atol=1e-5)
    rows = rng.standard_normal(100).astype(np.float32)
    total = np.empty(1, np.float32)
    simulator.reduce("sum", reduce_shape(1, 100, 1), rows, total)
    np.testing.assert_allclose(total, rows.astype(np.float64).sum(keepdims=True), rtol=1e-5, atol=1e-5)
