"""What the CUDA kernels cost by the emulator's counters: why a rung is better than the one below it, without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as keep
from functools import partial
from math import prod

import numpy as np
import pytest

from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _kernel_library as library
from cnnengine.backends import _kernel_plans as plans
from cnnengine.backends.contract import IDENTITY
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import unavailable
from cnnengine.jit import host
from cnnengine.jit.cache import default_cache
from cnnengine.jit.counters import Counters, Counts, aligned
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.shapes import conv2d_shape, norm_shape

from .every_kernel import planned, wgmma_planned

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


class AlignedBackend(EmulatorBackend):
    """Its workspace, too, begins where a GPU's would."""

    def workspace(self, nbytes: int) -> np.ndarray:
        return aligned(np.empty(nbytes, np.uint8))


@keep
def backend() -> EmulatorBackend:
    return AlignedBackend(EmulatorRuntime(default_cache(), count=True))


def counted_by_line(launch: Callable[[EmulatorBackend], None]) -> Counters:
    backend().runtime.take_counters()
    launch(backend())
    return backend().runtime.take_counters()


def counted(launch: Callable[[EmulatorBackend], None]) -> Counts:
    return counted_by_line(launch).total


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


@pytest.mark.parametrize("tile", library.WGMMA_TILES, ids=str)
@pytest.mark.parametrize("verb", VERBS[:2])
def test_implicit_gemm_wgmma_stores_without_conflicts(verb: str, tile: library.WgmmaTile) -> None:
    """Results leave by panels of 16 rows of 64, written by four stmatrix, and by nothing else."""
    with wgmma_planned(tile, together=1):
        total = measured(verb, "implicit_gemm_wgmma", "float16")
    assert total.conflicts == 0, total
    assert total.bulk_store.nbytes == output_bytes(verb, "float16")
    assert total.stmatrix.requests == 4 * total.bulk_store.requests == 4 * PIXELS // 16
    assert total.global_sectors == 0


def test_a_cluster_asks_for_half_of_the_filters() -> None:
    """Two tiles of 128 pixels by 64 filters, nine steps each: a stage is 16 KB of pixels and 8 KB of filters."""
    s = conv2d_shape((1, 16, 16, 64), (64, 3, 3, 64), padding=1)
    x, w, y = (zeros(shape, "float16") for shape in (s.x, s.w, s.y))
    asked = []
    for together in (1, 2):
        with wgmma_planned(library.WGMMA_TILES[2], together):
            total = counted(lambda b: b.conv2d_forward(s, x, w, y, IDENTITY, "implicit_gemm_wgmma"))
        asked.append(total.bulk_load.nbytes)
    assert asked == [2 * 9 * (16 + 8) << 10, 2 * 9 * (16 + 4) << 10]


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


NORM = norm_shape(1, 1024, 64, 1)
MANY_ROWS = partial(planned, plans, "NORM_ROWS", (16,), is_function=False)  # a thread's, as of large arrays


def norm_forward(dtype: str, residual: bool) -> Counters:
    x, more, y = (zeros(NORM.x, dtype) for _ in range(3))
    gain, offset = (zeros((NORM.channels,), dtype) for _ in range(2))
    mean, variance = (zeros(NORM.statistics, "float32") for _ in range(2))
    known = gain, offset, more if residual else None, y, mean, variance, 1e-5, "relu"
    with MANY_ROWS():
        return counted_by_line(lambda b: b.norm_forward(NORM, x, *known))


def norm_backward(dtype: str, activation: str, residual: bool) -> Counters:
    x, y, dy, dx, dresidual = (zeros(NORM.x, dtype) for _ in range(5))
    gain, dgain, doffset = (zeros((NORM.channels,), dtype) for _ in range(3))
    mean, variance = (zeros(NORM.statistics, "float32") for _ in range(2))
    known = gain, mean, variance, y if activation == "relu" else None, dy
    gradients = dx, dgain, doffset, dresidual if residual else None
    with MANY_ROWS():
        return counted_by_line(lambda b: b.norm_backward(NORM, x, *known, *gradients, 1e-5, activation))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_norms_move_16_bytes_at_a_time_from_full_sectors(dtype: str) -> None:
    """All but the kernels that join blocks, one for each channel. Of what belongs to a channel float32 beside
    narrower elements moves in two parts, each half of its sectors."""
    for counters in (norm_forward(dtype, True), norm_backward(dtype, "relu", True)):
        assert counters.total.conflicts == 0
        runs = {place: c for place, c in counters.lines.items() if "run.cuh" in place or "epilogue.cuh" in place}
        parts = {place for place, c in runs.items() if min(c.global_load.efficiency, c.global_store.efficiency) < 1}
        assert len(parts) == (0 if dtype == "float32" else 2), "one that loads and one that stores"
        for place, c in runs.items():
            assert set(c.global_load.sizes) | set(c.global_store.sizes) <= {16}, place
        elsewhere = counters.total.global_load.nbytes - sum(c.global_load.nbytes for c in runs.values())
        assert elsewhere < 0.05 * prod(NORM.x) * library.ITEM_BYTES[dtype]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_passes_of_norms_over_memory(dtype: str) -> None:
    """x twice and a residual once; backward x, dy and y twice, but where the first pass writes the masked dy."""
    whole = prod(NORM.x) * library.ITEM_BYTES[dtype]

    def passes(counters: Counters) -> tuple[int, int]:
        """Loads and stores of whole arrays; what belongs to a channel is less than one"""
        return counters.total.global_load.nbytes // whole, counters.total.global_store.nbytes // whole

    def more(a: Counters, b: Counters) -> tuple[float, float]:
        loads, stores = a.total.global_load.nbytes, a.total.global_store.nbytes
        return (loads - b.total.global_load.nbytes) / whole, (stores - b.total.global_store.nbytes) / whole

    forward, plain = norm_forward(dtype, False), norm_backward(dtype, "identity", False)
    assert passes(forward) == (2, 1)
    assert passes(plain) == (4, 1)
    assert more(norm_forward(dtype, True), forward) == (1, 0)
    assert more(norm_backward(dtype, "relu", False), plain) == (2, 0)
    assert more(norm_backward(dtype, "relu", True), plain) == (1, 1)


@pytest.mark.parametrize(
    ("algorithm", "dtype"),
    [("implicit_gemm_wgmma", "float16"), ("implicit_gemm_mma", "float16"), ("implicit_gemm", "float32")],
)
def test_moments_of_a_convolution_spare_a_pass(algorithm: str, dtype: str) -> None:
    x, w, y, z = (zeros(shape, dtype) for shape in (S.x, S.w, S.y, S.y))
    mean, variance = (zeros((1, S.K), "float32") for _ in range(2))
    norm = None, None, None, z, mean, variance, 1e-5, "relu"
    together = counted(lambda b: b.conv2d_norm_forward(S, x, w, None, y, algorithm, *norm))
    walk = norm_shape(1, PIXELS, S.K, 1)
    apart = convolution("forward", algorithm, dtype) + counted(lambda b: b.norm_forward(walk, y, *norm))
    tiles = PIXELS // 64
    moments = tiles * 2 * S.K * 4
    spared = apart.global_load.nbytes - together.global_load.nbytes
    assert spared >= y.nbytes - moments
    assert together.global_store.nbytes <= apart.global_store.nbytes + moments
    assert together.conflicts == 0
