"""Random convolutions on the emulator: every rung that takes a shape and dtype, against the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnengine.backends.contract import IDENTITY, Backend, Epilogue
from cnnengine.backends.registry import get, unavailable
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape

from .compare import assert_close
from .harness import oracle, root_of_squares, run_verb
from .random_runs import RANDOM
from .test_native_random import convolutions, seeds, values

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
MOST_FLOPS = 3_000_000  # what the emulator does in a tenth of a second
EXAMPLES = RANDOM if RANDOM.max_examples > 300 else type(RANDOM)(RANDOM, max_examples=300)
shapes = convolutions().filter(lambda s: s.flops() <= MOST_FLOPS)
dtypes = st.sampled_from(["float32", "float16", "bfloat16"])
Call = Callable[[Backend, str | None], Callable[..., None]]


def check(verb: str, call: Call, arrays: list[np.ndarray], out: Any, reduction: int, dtype: str, squares: Call) -> None:
    """Every algorithm of the verb on inputs rounded to ``dtype``; at least its own choice must run."""
    emulator = get("emulator")
    given_arrays = [a.astype(dtype) for a in arrays]
    wide = [a.astype("float32") for a in given_arrays]
    (expected,) = run_verb(oracle(), call(oracle(), None), wide, [(out, "float32")], "oracle")
    terms = root_of_squares(squares(oracle(), None), wide, out)
    for algorithm in (None, *emulator.algorithms[verb]):
        what = f"{verb} {algorithm} {dtype}"
        try:
            (actual,) = run_verb(emulator, call(emulator, algorithm), given_arrays, [(out, dtype)], what)
        except Unsupported:
            assert algorithm is not None, f"{what}: the backend's own choice refused"
            continue
        assert_close(actual, expected, reduction, what, terms, algorithm)


@EXAMPLES
@given(shapes, seeds, dtypes)
def test_conv2d_forward(s: Conv2dShape, seed: int, dtype: str) -> None:
    def call(backend: Backend, algorithm: str | None, activation: str = "relu") -> Callable[..., None]:
        def run(x: Any, w: Any, bias: Any, residual: Any, y: Any) -> None:
            backend.conv2d_forward(s, x, w, y, Epilogue(bias, residual=residual, activation=activation), algorithm)

        return run

    arrays = values(seed, s.x, s.w, (s.K,), s.y)
    check("conv2d_forward", call, arrays, s.y, s.reduction + 2, dtype, lambda b, a: call(b, a, IDENTITY.activation))


@EXAMPLES
@given(shapes, seeds, dtypes)
def test_conv2d_backward_input(s: Conv2dShape, seed: int, dtype: str) -> None:
    def call(backend: Backend, algorithm: str | None) -> Callable[..., None]:
        return lambda dy, w, dx: backend.conv2d_backward_input(s, dy, w, dx, algorithm)

    terms = s.R * s.S * (s.K // s.groups)
    check("conv2d_backward_input", call, values(seed, s.y, s.w), s.x, terms, dtype, call)


@EXAMPLES
@given(shapes, seeds, dtypes)
def test_conv2d_backward_weight(s: Conv2dShape, seed: int, dtype: str) -> None:
    def call(backend: Backend, algorithm: str | None) -> Callable[..., None]:
        return lambda x, dy, dw: backend.conv2d_backward_weight(s, x, dy, dw, algorithm)

    check("conv2d_backward_weight", call, values(seed, s.x, s.y), s.w, s.N * s.P * s.Q, dtype, call)
