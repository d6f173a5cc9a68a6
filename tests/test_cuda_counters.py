"""What the CUDA kernels cost by the emulator's counters: why a rung is better than the one below it, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as keep
from math import prod

import numpy as np
import pytest

from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import unavailable
from cnnengine.jit import host
from cnnengine.jit.cache import default_cache
from cnnengine.jit.counters import Counts, aligned
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.shapes import conv2d_shape

from .every_kernel import planned

REASON = unavailable("emulator")
NO_GCC = REASON is None and not host.can_count(host.compiler())
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
    pytest.mark.skipif(NO_GCC, reason="the counters need g++"),
]

VERBS = ("forward", "backward_input", "backward_weight")
S = conv2d_shape((1, 8, 16, 64), (64, 3, 3, 64), padding=1)
PIXELS, REDUCTION = 8 * 16, 3 * 3 * 64
MULTIPLY_ADDS = PIXELS * 64 * REDUCTION  # of every verb


@keep
def backend() -> EmulatorBackend:
    return EmulatorBackend(EmulatorRuntime(default_cache(), count=True))


def counted(launch: Callable[[EmulatorBackend], None]) -> Counts:
    backend().runtime.take_counters()
    launch(backend())
    return backend().runtime.take_counters().total


def zeros(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return aligned(np.zeros(shape, "float32").astype(dtype))


def measured(verb: str, algorithm: str, dtype: str) -> Counts:
    x, w, y = (zeros(shape, dtype) for shape in (S.x, S.w, S.y))
    calls: dict[str, Callable[[EmulatorBackend], None]] = {
        "forward": lambda b: b.conv2d_forward(S, x, w, y, IDENTITY, algorithm),
        "backward_input": lambda b: b.conv2d_backward_input(S, y, w, x, algorithm),
        "backward_weight": lambda b: b.conv2d_backward_weight(S, x, y, w, algorithm),
    }
    return counted(calls[verb])


convolution = keep(measured)


def output_bytes(verb: str, dtype: str) -> int:
    return prod({"forward": S.y, "backward_input": S.x, "backward_weight": S.w}[verb]) * library.ITEM_BYTES[dtype]


@pytest.mark.parametrize("tile", library.MMA_TILES, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("verb", VERBS)
def test_implicit_gemm_mma_has_no_conflicts_and_full_sectors(verb: str, dtype: str, tile: library.MmaTile) -> None:
    """With 64 channels copies have 16 bytes; those of padding fill zeros and read nothing."""
    algorithm = "implicit_gemm_mma" if dtype == "float16" else "implicit_gemm_tf32"
    with planned(conv2d, "mma_choice", (tile.of(dtype), 16 // library.ITEM_BYTES[dtype])):
        total = measured(verb, algorithm, dtype)
    assert total.shared_copy.requests > 0
    assert total.conflicts == 0, total
    assert set(total.global_copy.sizes) == {16}
    assert total.global_copy.efficiency == 1
    assert total.global_store.efficiency == 1
    assert total.global_load.requests == 0


def test_implicit_gemm_mma_instructions() -> None:
    """Blocks of 64 x 64 by four warps of 32 x 32: per 16 of the reduction 2 + 2 ldmatrix and 2 * 4 mma."""
    total = convolution("forward", "implicit_gemm_mma", "float16")
    warps, steps = 2 * 4, REDUCTION // 16
    assert total.ldmatrix.requests == warps * steps * 4
    assert total.mma.requests == warps * steps * 8
    assert total.mma.multiply_adds == MULTIPLY_ADDS
    tile_bytes, blocks = 2 * 64 * REDUCTION * 2, 2
    assert total.shared_copy.nbytes == blocks * tile_bytes
    assert total.block_barrier.requests == warps * (REDUCTION // 32 + 1)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_rung_touches_fewer_sectors_than_the_one_below(verb: str, dtype: str) -> None:
    """The same multiply-adds from less global memory, and from less shared memory."""
    mma = "implicit_gemm_mma" if dtype == "float16" else "implicit_gemm_tf32"
    direct, tiled, tensor_cores = (convolution(verb, algorithm, dtype) for algorithm in ("direct", "tiled", mma))
    assert direct.global_sectors > 10 * tiled.global_sectors
    assert tiled.global_sectors > 2 * tensor_cores.global_sectors
    assert tiled.wavefronts > 4 * tensor_cores.wavefronts
    assert direct.wavefronts == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("algorithm", ["direct", "tiled"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_output_is_stored_once(verb: str, algorithm: str, dtype: str) -> None:
    """The counters miss no store, of a class such as __half neither."""
    assert convolution(verb, algorithm, dtype).global_store.nbytes == output_bytes(verb, dtype)


def test_direct_reads_both_factors_of_every_product() -> None:
    """4 bytes each, but for taps in the padding."""
    taps_h, taps_w = 8 * 3 - 2, 16 * 3 - 2
    products = taps_h * taps_w * 64 * 64
    assert convolution("forward", "direct", "float32").global_load.nbytes == 2 * 4 * products
