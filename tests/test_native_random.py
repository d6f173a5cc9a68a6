"""Random shapes and values on the native backend, against the float64 oracle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cnnengine import backends
from cnnengine.backends.contract import BINARY, IDENTITY, REDUCE, Epilogue
from cnnengine.shapes import (
    Conv2dShape,
    GemmShape,
    Pool2dShape,
    adaptive_pool2d_shape,
    broadcast_shape,
    conv2d_shape,
    gemm_shape,
    pool2d_shape,
    reduce_shape,
)

from .compare import assert_close, assert_identical
from .harness import oracle, run_verb
from .random_runs import RANDOM, check_everywhere, check_identical, runs_of

pytest.importorskip("cnnengine._native", reason="the native extension is not built")
NATIVE = backends.get("native")
MOST_FLOPS = 20_000_000
FEW = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)
channels = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 48, 63, 64, 65, 96, 100, 130]))
sizes = st.integers(1, 17)
AXIS = st.tuples(st.sampled_from([1, 2, 3, 16, 40]), st.sampled_from(["both", "a", "b"]))


def values(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


@st.composite
def convolutions(draw: st.DrawFn) -> Conv2dShape:
    """Small enough for the oracle. A seventh each is 3x3 of stride 1, 5x5, depthwise, of groups narrower than a vector,
    and of few channels and many images."""
    kind = draw(st.sampled_from(["3x3", "5x5", "depthwise", "narrow groups", "images", "any", "any"]))
    if kind == "depthwise":
        groups, c, k = draw(channels), 1, draw(st.sampled_from([1, 1, 1, 2]))
    elif kind == "narrow groups":
        groups, c, k = draw(st.integers(2, 40)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    elif kind == "images":
        groups, c, k = 1, draw(st.integers(1, 16)), draw(st.integers(1, 17))
    else:
        groups, c, k = draw(st.sampled_from([1, 1, 1, 2, 3, 8])), draw(channels), draw(channels)
    assume(groups * max(c, k) <= 200)
    stride, dilation = (1, 1), (1, 1)
    if kind in ("3x3", "5x5"):
        r = s = int(kind[0])
    else:
        r, s = draw(st.integers(1, 5)), draw(st.integers(1, 7))
        stride = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
        dilation = (draw(st.sampled_from([1, 1, 1, 2])), draw(st.sampled_from([1, 1, 1, 2, 3])))
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    h, w = draw(sizes), draw(sizes)
    assume(h + sum(padding[0]) > dilation[0] * (r - 1) and w + sum(padding[1]) > dilation[1] * (s - 1))
    n = draw(st.sampled_from([8, 9, 17, 31, 32, 33, 40, 65]) if kind == "images" else FEW)
    shape = conv2d_shape((n, h, w, groups * c), (groups * k, r, s, c), stride, padding, dilation, groups)
    assume(shape.flops() <= MOST_FLOPS)
    return shape


@RANDOM
@given(convolutions(), seeds, st.sampled_from(["none", "bias", "all"]), st.booleans())
def test_conv2d_forward(s: Conv2dShape, seed: int, parts: str, prepared: bool) -> None:
    def call(backend, algorithm, activation="relu"):
        def run(x, w, bias, scale, shift, residual, y):
            epilogue = {
                "none": IDENTITY,
                "bias": Epilogue(bias),
                "all": Epilogue(bias, scale, shift, residual, activation),
            }[parts]
            weight = backend.conv2d_prepare(s, w, algorithm) if prepared else w
            backend.conv2d_forward(s, x, weight, y, epilogue, algorithm)

        return run

    def squares(backend, algorithm):
        return call(backend, algorithm, "identity")

    arrays = values(seed, s.x, s.w, (s.K,), (s.K,), (s.K,), s.y)
    check_everywhere("conv2d_forward", s, NATIVE, call, arrays, s.y, s.reduction + 4, squares)


@RANDOM
@given(convolutions(), seeds)
def test_conv2d_backward_input(s: Conv2dShape, seed: int) -> None:
    def call(backend, algorithm):
        return lambda dy, w, dx: backend.conv2d_backward_input(s, dy, w, dx, algorithm)

    arrays, terms = values(seed, s.y, s.w), s.R * s.S * (s.K // s.groups)
    check_everywhere("conv2d_backward_input", s, NATIVE, call, arrays, s.x, terms)


@RANDOM
@given(convolutions(), seeds)
def test_conv2d_backward_weight(s: Conv2dShape, seed: int) -> None:
    def call(backend, algorithm):
        return lambda x, dy, dw: backend.conv2d_backward_weight(s, x, dy, dw, algorithm)

    arrays = values(seed, s.x, s.y)
    check_everywhere("conv2d_backward_weight", s, NATIVE, call, arrays, s.w, s.N * s.P * s.Q)


@st.composite
def poolings(draw: st.DrawFn) -> tuple[str, Pool2dShape]:
    kind = draw(st.sampled_from(["max", "avg"]))
    x = (draw(FEW), draw(sizes), draw(sizes), draw(channels))
    if draw(st.integers(0, 3)) == 0:
        return kind, adaptive_pool2d_shape("pool", x, (draw(st.integers(1, x[1])), draw(st.integers(1, x[2]))))
    window = draw(st.one_of(st.just((3, 3)), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    stride = draw(st.one_of(st.none(), st.just((2, 2)), st.tuples(st.integers(1, 4), st.integers(1, 4))))
    padding = (draw(st.integers(0, window[0] // 2)), draw(st.integers(0, window[1] // 2)))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2)])) if kind == "max" else 1
    try:
        return kind, pool2d_shape(
            "pool", x, window, stride, padding, dilation, draw(st.booleans()), draw(st.booleans())
        )
    except ValueError:
        assume(False)
        raise


@RANDOM
@given(poolings(), seeds, st.booleans())
def test_pool2d(pooling: tuple[str, Pool2dShape], seed: int, not_all_numbers: bool) -> None:
    kind, s = pooling
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, s.x).astype(np.float32)  # many ties, and exact sums
    if kind == "max" and not_all_numbers:  # here and there, and half of them: whole windows
        odd = rng.random(s.x) < (0.02 if seed % 2 else 0.5)
        x[odd] = rng.choice(np.array([np.nan, -np.inf, np.inf], np.float32), s.x)[odd]
    dy = rng.uniform(0.5, 1.5, s.y).astype(np.float32)  # sums of the size of their terms
    indexed = kind == "max" and not s.adaptive

    def forward(backend):
        return lambda x, y, index: backend.pool2d_forward(kind, s, x, y, index if kind == "max" else None)

    def backward(backend):
        return lambda dy, index, dx: backend.pool2d_backward(kind, s, dy, index if kind == "max" else None, dx)

    outputs = [(s.y, "float32"), (s.y, s.index_dtype)]
    expected, expected_index = run_verb(oracle(), forward(oracle()), [x], outputs, "oracle")
    (expected_dx,) = run_verb(oracle(), backward(oracle()), [dy, expected_index], [(s.x, "float32")], "oracle")
    for what in runs_of(f"{kind}_pool2d", s):
        actual, index = run_verb(NATIVE, forward(NATIVE), [x], outputs, what)
        assert_close(actual, expected, s.R * s.S, what)
        if indexed:
            assert_identical(index, expected_index, f"index, {what}")
        (actual,) = run_verb(NATIVE, backward(NATIVE), [dy, index], [(s.x, "float32")], f"backward, {what}")
        assert_close(actual, expected_dx, s.R * s.S, f"backward, {what}")


@st.composite
def products(draw: st.DrawFn) -> GemmShape:
    m, n, k = (draw(st.one_of(channels, st.sampled_from([1, 2, 200, 513]))) for _ in range(3))
    batch = draw(st.sampled_from([1, 1, 2, 3]))
    shared = draw(st.sampled_from([(False, False), (True, False), (False, True)])) if batch > 1 else (False, False)
    return gemm_shape(batch, m, n, k, draw(st.booleans()), draw(st.booleans()), *shared)


@RANDOM
@given(products(), seeds, st.booleans())
def test_gemm(s: GemmShape, seed: int, finished: bool) -> None:
    a_shape = ((1 if s.shared_a else s.batch) * s.M * s.K,)
    b_shape = ((1 if s.shared_b else s.batch) * s.K * s.N,)
    c_shape = (s.batch, s.M, s.N)

    def reshaped(a, b):
        a = a.reshape((() if s.shared_a else (s.batch,)) + ((s.K, s.M) if s.transpose_a else (s.M, s.K)))
        return a, b.reshape((() if s.shared_b else (s.batch,)) + ((s.N, s.K) if s.transpose_b else (s.K, s.N)))

    def call(backend, algorithm, activation="relu"):
        def run(a, b, bias, residual, c):
            epilogue = Epilogue(bias, residual=residual, activation=activation) if finished else IDENTITY
            backend.gemm(s, *reshaped(a, b), c, epilogue)

        return run

    def squares(backend, algorithm):
        return call(backend, algorithm, "identity")

    arrays = values(seed, a_shape, b_shape, (s.N,), c_shape)
    check_everywhere("gemm", s, NATIVE, call, arrays, c_shape, s.K + 2, squares)


@RANDOM
@given(
    st.sampled_from(REDUCE),
    st.sampled_from([1, 2, 7, 65]),
    st.one_of(st.integers(1, 40), st.sampled_from([64, 513, 2000, 20_000])),
    st.one_of(st.integers(1, 40), st.sampled_from([64, 100])),
    seeds,
)
def test_reduce(op: str, outer: int, reduced: int, inner: int, seed: int) -> None:
    assume(outer * reduced * inner <= 500_000)
    s = reduce_shape(outer, reduced, inner)
    arrays = values(seed, (outer, reduced, inner))

    def call(backend, algorithm=None):
        return lambda x, y: backend.reduce(op, s, x, y)

    if op == "sum":
        check_everywhere("reduce_sum", s, NATIVE, call, arrays, (outer, inner), reduced)
    else:
        check_identical(f"reduce_{op}", s, NATIVE, call, arrays, [((outer, inner), "float32")])


@RANDOM
@given(
    st.sampled_from(BINARY),
    st.lists(AXIS, min_size=1, max_size=4),
    seeds,
)
def test_binary(op: str, axes: list[tuple[int, str]], seed: int) -> None:
    a_shape = tuple(n if who != "b" else 1 for n, who in axes)
    b_shape = tuple(n if who != "a" else 1 for n, who in axes)
    y_shape, s = broadcast_shape(op, a_shape, b_shape)
    a, b = values(seed, a_shape, b_shape)
    if op == "pow":
        a = np.abs(a) + np.float32(0.1)
    if op == "equal":
        a, b = np.round(a), np.round(b)

    def call(backend):
        return lambda a, b, y: backend.binary(op, s, a, b, y)

    (expected,) = run_verb(oracle(), call(oracle()), [a, b], [(y_shape, "float32")], "oracle")
    for what in runs_of(op, s):
        (actual,) = run_verb(NATIVE, call(NATIVE), [a, b], [(y_shape, "float32")], what)
        assert_close(actual, expected, 1, what)


@RANDOM
@given(st.integers(1, 40), st.one_of(st.integers(1, 40), st.sampled_from([64, 100, 1000])), seeds)
def test_softmax_cross_entropy(rows: int, classes: int, seed: int) -> None:
    x, dloss = values(seed, (rows, classes), (rows,))
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    x *= 10
    outputs = [((rows,), "float32"), ((rows, classes), "float32")]
    expected = run_verb(oracle(), oracle().softmax_cross_entropy_forward, [x, labels], outputs, "oracle")
    arrays = [expected[1], labels, dloss]
    (expected_dx,) = run_verb(oracle(), oracle().softmax_cross_entropy_backward, arrays, outputs[1:], "oracle")
    # as in test_softmax_cross_entropy.py: the loss is the difference of rounded numbers of the logits' size, and exp
    # amplifies the rounding of x - max by its size
    largest = float(np.abs(x).max())
    for what in runs_of("softmax_cross_entropy", (rows, classes)):
        actual = run_verb(NATIVE, NATIVE.softmax_cross_entropy_forward, [x, labels], outputs, what)
        error = np.abs(actual[0].astype(np.float64) - expected[0])
        assert (error <= 8 * 2.0**-24 * (classes**0.5 + largest)).all(), what
        assert_close(actual[1], expected[1], classes + int((4 * largest) ** 2), f"probability, {what}")
        (dx,) = run_verb(NATIVE, NATIVE.softmax_cross_entropy_backward, arrays, outputs[1:], what)
        assert_close(dx, expected_dx, 1, f"dx, {what}")


@RANDOM
@given(st.integers(1, 3000), st.floats(0, 1), seeds, st.integers(0, 2**64 - 1))
def test_dropout(n: int, p: float, seed: int, offset: int) -> None:
    (x,) = values(seed, (n,))
    state = np.array([seed * 2**20 + 7, offset], np.uint64)
    threshold, scale = min(round(p * 2**32), 2**32 - 1), 1 / (1 - p) if p < 1 else 1.0

    def call(backend):
        return lambda x, state, y: backend.dropout(x, y, threshold, scale, state)

    check_identical("dropout", (n, threshold), NATIVE, call, [x, state], [((n,), "float32")])
