"""Winograd's convolution on the GPU, by the emulator: its stated accuracy, where it is chosen and forbidden, prepared
weights, what it costs by the counters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _winograd_plans as winograd
from cnnengine.backends._conv2d_plans import Given
from cnnengine.backends.contract import CONV2D_VERBS
from cnnengine.backends.registry import get, unavailable
from cnnengine.errors import Unsupported
from cnnengine.jit import host
from cnnengine.jit.counters import Counts, aligned
from cnnengine.shapes import Conv2dShape, conv2d_shape

from .harness import oracle, run_verb
from .test_cuda_counters import S, backend, counted, zeros

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
VERBS = CONV2D_VERBS[:2]
BOUND = 1.0  # rounding errors over those of implicit_gemm, root mean square and largest: 0.73 and 0.56 were measured
FLOAT32 = Given("float32", 16, 90)
LAYER = conv2d_shape((32, 56, 56, 64), (64, 3, 3, 64), 1, 1)


@pytest.fixture(autouse=True)
def allowed() -> Iterator[None]:
    with cnn.allow_winograd(True):
        yield


def planned(verb: str, shape: Conv2dShape, algorithm: str | None, given: Given = FLOAT32) -> str:
    plan: Any = getattr(conv2d, verb)(shape, algorithm, given)
    chosen: str = (plan if verb == "conv2d_forward" else plan[0]).algorithm
    return chosen


def errors(verb: str, s: Conv2dShape, algorithm: str, seed: int = 0) -> np.ndarray:
    """Against the float64 sum of the same inputs."""
    rng = np.random.default_rng(seed)
    names = ("x", "w", "y") if verb == "conv2d_forward" else ("y", "w", "x")
    arrays = [rng.standard_normal(getattr(s, name), dtype=np.float32) for name in names[:2]]
    out = getattr(s, names[2])

    def call(b: Any, name: str | None) -> Any:
        if verb == "conv2d_forward":
            return lambda x, w, y: b.conv2d_forward(s, x, w, y, cnn.backends.contract.IDENTITY, name)
        return lambda dy, w, dx: b.conv2d_backward_input(s, dy, w, dx, name)

    wide = [a.astype(np.float64) for a in arrays]
    (exact,) = run_verb(oracle(), call(oracle(), None), wide, [(out, "float64")], "oracle")
    (ours,) = run_verb(get("emulator"), call(get("emulator"), algorithm), arrays, [(out, "float32")], algorithm)
    return ours - exact


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "shape",
    [
        conv2d_shape((1, 12, 10, 64), (64, 3, 3, 64), 1, 1),
        conv2d_shape((1, 9, 8, 96), (72, 3, 3, 96)),
        conv2d_shape((1, 5, 7, 256), (128, 3, 3, 256), 1, 1),
    ],
    ids=str,
)
def test_accuracy(shape: Conv2dShape, verb: str) -> None:
    ours, plain = (errors(verb, shape, name) for name in ("winograd", "implicit_gemm"))
    assert np.sqrt(np.mean(ours**2)) <= BOUND * np.sqrt(np.mean(plain**2))
    assert np.abs(ours).max() <= BOUND * np.abs(plain).max()


@pytest.mark.parametrize("verb", VERBS)
def test_it_is_chosen_where_it_is_allowed_and_has_less_to_do(verb: str) -> None:
    assert planned(verb, LAYER, None) == "winograd"
    assert planned(verb, LAYER, None, FLOAT32._replace(winograd=False)) == "implicit_gemm"
    assert planned(verb, LAYER, None, Given("float16", 16, 90)) != "winograd"
    few_channels = conv2d_shape((32, 56, 56, 16), (16, 3, 3, 16), 1, 1)
    few_tiles = conv2d_shape((1, 5, 5, 512), (512, 3, 3, 512), 1, 1)
    strided = conv2d_shape((32, 56, 56, 64), (64, 3, 3, 64), 2, 1)
    for other in (few_channels, few_tiles, strided):
        assert planned(verb, other, None) != "winograd"


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        (LAYER, "float16", "winograd: takes float32, received float16"),
        (conv2d_shape((1, 9, 9, 8), (8, 3, 3, 8), 2), "float32", r"received 3x3, stride \(2, 2\), dilation \(1, 1\)"),
        (conv2d_shape((1, 9, 9, 8), (8, 3, 3, 8), 1, 1, 2), "float32", r"dilation \(2, 2\), groups 1"),
        (conv2d_shape((1, 9, 9, 8), (8, 3, 3, 4), groups=2), "float32", "groups 2"),
        (conv2d_shape((1, 9, 9, 8), (8, 5, 3, 8)), "float32", "received 5x3"),
        (conv2d_shape((1, 1, 2**30, 1), (1, 3, 3, 1), 1, 1), "float32", r"counts rows and columns up to 2\^30"),
    ],
)
@pytest.mark.parametrize("verb", VERBS)
def test_what_it_does_not_take(verb: str, shape: Conv2dShape, dtype: str, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        planned(verb, shape, "winograd", Given(dtype, 16, 90))


def test_the_switch_forbids_it_on_this_backend() -> None:
    x, w = (cnn.Tensor(np.ones(shape, np.float32)) for shape in ((1, 6, 6, 8), (8, 3, 3, 8)))
    emulator = get("emulator")
    with cnn.use_backend("emulator"):
        packed = F.conv2d_prepare(x.shape, w, algorithm="winograd")
        assert emulator._given(x.data).winograd
        with cnn.allow_winograd(False):
            assert not emulator._given(x.data).winograd
            for weight, name in ((w, "winograd"), (packed, None)):
                with pytest.raises(ValueError, match="algorithm 'winograd' is forbidden"):
                    F.conv2d(x, weight, algorithm=name)


@pytest.mark.parametrize("n", [1, 2])
def test_a_prepared_weight_is_transformed_once(n: int) -> None:
    rng = np.random.default_rng(1)
    x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((n, 7, 6, 11), (70, 3, 3, 11)))
    with cnn.use_backend("emulator"):
        packed = F.conv2d_prepare((1, *x.shape[1:]), cnn.Tensor(w), padding=1, algorithm="winograd")
        assert packed.algorithm == "winograd"
        assert packed.packed.size == 2 * 2 * winograd.FREQUENCIES * winograd.CHANNELS * winograd.FILTERS
        for name, plain in ((None, "winograd"), ("winograd", "winograd"), ("tiled", "tiled")):
            y = F.conv2d(cnn.Tensor(x), packed, padding=1, algorithm=name).numpy()
            expected = F.conv2d(cnn.Tensor(x), cnn.Tensor(w), padding=1, algorithm=plain).numpy()
            np.testing.assert_array_equal(y, expected)


def test_a_nan_stays_in_its_tiles() -> None:
    """A 4 x 4 patch of inputs makes 2 x 2 outputs: the tiles over rows and columns 4 and 5 of y see input (5, 5)."""
    x, w = np.ones((1, 12, 12, 3), np.float32), np.ones((2, 3, 3, 3), np.float32)
    x[0, 5, 5, 1] = np.nan
    with cnn.use_backend("emulator"):
        y = F.conv2d(cnn.Tensor(x), cnn.Tensor(w), padding=1, algorithm="winograd").numpy()
    poisoned = np.isnan(y).any((0, 3))
    assert np.isnan(y[0, 4:7, 4:7]).all(), "the outputs whose windows hold it"
    assert not poisoned[:4].any()
    assert not poisoned[8:].any()
    assert not poisoned[:, :4].any()
    assert not poisoned[:, 8:].any()


@pytest.mark.skipif(
    unavailable("emulator") is None and not host.can_count(host.compiler()), reason="the counters need g++"
)
@pytest.mark.parametrize("verb", VERBS)
def test_counters(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 x 16 pixels are 32 tiles, one block of 8 warps: 2.25 times fewer products than pixels by taps."""
    # a GPU's workspace begins with a sector
    monkeypatch.setattr(backend(), "workspace", lambda nbytes: aligned(np.zeros(nbytes, np.uint8)))
    x, w, y = (zeros(shape, "float32") for shape in (S.x, S.w, S.y))

    def measured(algorithm: str) -> Counts:
        if verb == "conv2d_forward":
            identity = cnn.backends.contract.IDENTITY
            return counted(lambda b: b.conv2d_forward(S, x, w, y, identity, algorithm))
        return counted(lambda b: b.conv2d_backward_input(S, y, w, x, algorithm))

    ours, plain = measured("winograd"), measured("implicit_gemm")
    assert ours.conflicts == 0
    assert ours.global_load.efficiency == 1
    assert ours.global_store.efficiency == 1
    warps, steps = 8, 64 // winograd.CHANNELS
    fragments = warps * steps * winograd.CHANNELS * 2 * 4  # two frequencies, four float4
    outputs = warps * 4 * 2 * 16  # rounds, tiles and frequencies of a thread
    places = warps * 4 * 2
    copied = steps * winograd.FREQUENCIES * winograd.CHANNELS * winograd.FILTERS // 4 // 32  # of the filters' kernel
    sixteen = ours.shared_load.sizes[16]
    assert fragments + copied <= sixteen <= fragments + copied + places
    assert ours.shared_load.requests - sixteen <= outputs + 3 * places
    assert fragments * 64 // 4 == S.flops() // 2 // 2.25 // 32, "multiply-adds of a warp"
    assert 2 * ours.wavefronts < plain.wavefronts
