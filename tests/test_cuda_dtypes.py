"""Every CUDA kernel in every dtype, on the emulator, against the NumPy backend in float64."""

from __future__ import annotations

import numpy as np
import pytest

from cnnengine.backends import _kernel_library as library
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import get, unavailable
from cnnengine.errors import Unsupported
from cnnengine.shapes import pool2d_shape, reduce_shape

from . import every_kernel
from .compare import assert_close, assert_identical

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
LONGEST_SUM = 6000  # of the reductions; no other kernel of the suite adds more than 288 products


@pytest.mark.parametrize("dtype", library.TYPES)
def test_every_kernel_in_every_dtype(dtype: str) -> None:
    backend = EmulatorBackend(every_kernel.RecordingRuntime())
    results = every_kernel.run(backend, dtype)
    expected = every_kernel.run(get("numpy"), dtype, computed="float64")
    assert backend.runtime.launched == every_kernel.listed(dtype), "every kernel ran"
    assert results.keys() == expected.keys()
    for name, result in results.items():
        if result.dtype.kind in "iu" or name.startswith(("cast", "equal")):
            assert_identical(result, expected[name].astype(result.dtype), name)
        elif not (dtype != "float32" and name.endswith("of y")):  # y as rounded: test_conv2d_batch_norm.py
            algorithm = next((word for word in name.split() if word.startswith(("implicit_gemm", "winograd"))), None)
            reduction = LONGEST_SUM if str(LONGEST_SUM) in name else 288
            assert_close(result, expected[name], reduction, name, algorithm=algorithm)


def test_what_has_no_kernel_is_refused() -> None:
    backend, x = EmulatorBackend(every_kernel.RecordingRuntime()), np.zeros((1, 4, 4, 1), "float32")
    pool = pool2d_shape("pool", x.shape, 2)
    for call, message in (
        (lambda: backend.activation_forward("mish", x, x, 0.0), "activation: .* 'mish', there are identity, relu"),
        (lambda: backend.unary("sin", x, x), "unary: .* 'sin', there are neg, exp, log, sqrt"),
        (lambda: backend.reduce("min", reduce_shape(1, 16, 1), x, x), "reduce: .* 'min', there are sum, max"),
        (lambda: backend.pool2d_forward("lp", pool, x, x, None), "pool2d: .* 'lp', there are max, avg"),
        (lambda: backend.optimizer_step("adagrad", [x], [x], [], x), "has no 'adagrad', it has sgd, adam"),
    ):
        with pytest.raises(Unsupported, match=message):
            call()


def test_the_comparison_can_fail() -> None:
    """A result of another dtype is beyond the tolerance of this one."""
    low = every_kernel.run(EmulatorBackend(every_kernel.RecordingRuntime()), "bfloat16")
    expected = every_kernel.run(get("numpy"), "float32", computed="float64")
    with pytest.raises(AssertionError, match="elements are off"):
        assert_close(low["exp"].astype("float32"), expected["exp"], 288, "exp")
    assert np.isfinite(low["exp"].astype("float32")).all()
