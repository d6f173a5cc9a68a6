"""What the kernels that are bound by memory move, by the emulator's counters: 16 bytes at a time, full sectors, and no
more than what has to be moved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest

from cnnengine.backends import _kernel_library as library
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.jit.cache import default_cache
from cnnengine.jit.counters import Counts, aligned
from cnnengine.jit.launch import EmulatorRuntime, Kernel
from cnnengine.jit.source import KernelSource
from cnnengine.shapes import broadcast_shape, norm_shape, pool2d_shape

from .test_cuda_counters import counted, pytestmark, zeros  # noqa: F401 - the skips are the same

N = 8192  # whole blocks of every elementwise kernel
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float16"])  # bfloat16 is as wide as float16
SECTOR = 32


def size(dtype: str) -> int:
    return library.ITEM_BYTES[dtype]


def wide(total: Counts) -> None:
    """Every access has 16 bytes, every request four full sectors for eight lanes."""
    for one in (total.global_load, total.global_store):
        assert set(one.sizes) == {16}
        assert one.efficiency == 1
        assert one.partial == 0


ELEMENTWISE: dict[str, tuple[int, Callable[..., Callable[[EmulatorBackend], None]]]] = {  # name: operands, call
    "activation_forward": (1, lambda x, y: lambda b: b.activation_forward("relu", x, y, 0.0)),
    "activation_backward": (2, lambda x, dy, dx: lambda b: b.activation_backward("silu", x, dy, dx, 0.0)),
    "unary": (1, lambda x, y: lambda b: b.unary("exp", x, y)),
    "binary": (2, lambda x, z, y: lambda b: b.binary("add", broadcast_shape("add", x.shape, z.shape)[1], x, z, y)),
}


@DTYPES
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_kernels_move_every_element_once(name: str, dtype: str) -> None:
    operands, call = ELEMENTWISE[name]
    total = counted(call(*(zeros((N,), dtype) for _ in range(operands + 1))))
    wide(total)
    assert total.global_load.nbytes == operands * N * size(dtype)
    assert total.global_store.nbytes == N * size(dtype)


@DTYPES
def test_a_thread_loads_two_runs_before_it_stores(dtype: str) -> None:
    """32 KB of a large GPU's 2048 threads a multiprocessor for each of them."""
    x, y = zeros((N,), dtype), zeros((N,), dtype)
    total = counted(lambda b: b.activation_forward("relu", x, y, 0.0))
    threads = N * size(dtype) // 32
    assert total.global_load.lanes == 2 * threads


@DTYPES
def test_an_array_that_is_not_aligned_is_moved_element_by_element(dtype: str) -> None:
    """The same bytes, not one past the end."""
    x, y = zeros((N + 1,), dtype)[1:], zeros((N,), dtype)
    total = counted(lambda b: b.activation_forward("relu", x, y, 0.0))
    assert set(total.global_load.sizes) == {size(dtype)}
    assert total.global_load.nbytes == total.global_store.nbytes == N * size(dtype)


def test_the_last_run_is_moved_element_by_element() -> None:
    x, y = zeros((N + 3,), "float32"), zeros((N + 3,), "float32")
    total = counted(lambda b: b.activation_forward("relu", x, y, 0.0))
    assert total.global_load.sizes == {16: N // 128, 4: 3}
    assert total.global_load.nbytes == total.global_store.nbytes == (N + 3) * 4


def test_a_cast_moves_16_bytes_of_the_wider_type() -> None:
    total = counted(lambda b: b.cast(zeros((N,), "float32"), zeros((N,), "float16")))
    assert set(total.global_load.sizes) == {16}
    assert set(total.global_store.sizes) == {8}
    assert total.global_load.efficiency == total.global_store.efficiency == 1


@DTYPES
def test_adding_a_bias_moves_runs_of_both(dtype: str) -> None:
    x, bias, y = zeros((N // 64, 64), dtype), zeros((64,), dtype), zeros((N // 64, 64), dtype)
    wide(counted(lambda b: b.binary("add", broadcast_shape("add", x.shape, bias.shape)[1], x, bias, y)))


@DTYPES
def test_dropout_reads_and_writes_every_element_once(dtype: str) -> None:
    """Beside it each thread reads the seed and the offset, which a warp shares: one sector each."""
    x, y, state = zeros((N,), dtype), zeros((N,), dtype), aligned(np.array([1, 2], np.uint64))
    total = counted(lambda b: b.dropout(x, y, 2**31, 2.0, state))
    warps = N * size(dtype) // 32 // 32
    assert total.global_load.sizes == {16: 2 * warps, 8: 2 * warps}
    assert total.global_load.sectors == N * size(dtype) // SECTOR + 2 * warps
    assert total.global_store.nbytes == N * size(dtype)
    assert total.global_store.efficiency == 1


@DTYPES
def test_images_are_read_byte_by_byte_once(dtype: str) -> None:
    """Factors and offsets, one of each an element, come from L1: they lie in one sector."""
    images, factor, offset = aligned(np.zeros((N // 4, 4), np.uint8)), zeros((4,), "float32"), zeros((4,), "float32")
    y = zeros(images.shape, dtype)
    total = counted(lambda b: b.normalize_images(images, factor, offset, y))
    length = 16 // size(dtype)
    requests = N // length // 32
    assert total.global_load.sizes == Counter({length: requests}) + Counter({4: 2 * length * requests})
    assert total.global_load.sectors == N // SECTOR + 2 * length * requests
    assert set(total.global_store.sizes) == {16}
    assert total.global_store.nbytes == N * size(dtype)
    assert total.global_store.efficiency == 1


# ---- pooling


def pooled(dtype: str, window: int, stride: int, padding: int = 0) -> dict[str, tuple[Counts, int, int]]:
    """verb: counts, bytes of the larger and of the smaller arrays"""
    s = pool2d_shape("pool", (2, 16, 16, 64), window, stride, padding)
    x, y, index = zeros(s.x, dtype), zeros(s.y, dtype), zeros(s.y, "uint8")
    larger, smaller = prod(s.x) * size(dtype), prod(s.y) * size(dtype)
    return {
        "max": (counted(lambda b: b.pool2d_forward("max", s, x, y, index)), larger, smaller + prod(s.y)),
        "max back": (counted(lambda b: b.pool2d_backward("max", s, y, index, x)), larger, smaller + prod(s.y)),
        "avg": (counted(lambda b: b.pool2d_forward("avg", s, x, y, None)), larger, smaller),
        "avg back": (counted(lambda b: b.pool2d_backward("avg", s, y, None, x)), larger, smaller),
    }


@DTYPES
def test_pooling_moves_16_bytes_of_channels_and_a_byte_of_index_each(dtype: str) -> None:
    channels = 16 // size(dtype)
    for name, (total, larger, smaller) in pooled(dtype, 2, 2).items():
        sizes = {16, channels} if "max" in name else {16}
        back = "back" in name
        assert set(total.global_load.sizes) == (sizes if back else {16}), name
        assert set(total.global_store.sizes) == ({16} if back else sizes), name
        assert total.global_load.efficiency == total.global_store.efficiency == 1, name
        assert total.global_load.partial == total.global_atomic.requests == 0, name
        assert total.global_store.nbytes == (larger if back else smaller), name
        if not back:
            assert total.global_load.nbytes == larger, name


@DTYPES
def test_overlapping_windows_read_from_l1_at_most_five_times_what_memory_gives(dtype: str) -> None:
    """L1 gives 128 bytes a clock and multiprocessor, on an H200 more than six times what memory gives: what windows
    share may be read again. 3 x 3 taps of stride 2 meet 9 / 4 of the elements, at stride 1 all of them nine times."""
    for (window, stride, padding), most in (((3, 2, 1), 2.5), ((3, 1, 1), 5.3)):
        for name, (total, larger, smaller) in pooled(dtype, window, stride, padding).items():
            assert total.global_sectors * SECTOR <= most * (larger + smaller), name
            assert total.global_load.efficiency > 0.99, name


@DTYPES
def test_global_average_pooling_reads_once_and_shares_a_window(dtype: str) -> None:
    s = pool2d_shape("pool", (2, 7, 7, 256), 7)
    x, y = zeros(s.x, dtype), zeros(s.y, dtype)
    total = counted(lambda b: b.pool2d_forward("avg", s, x, y, None))
    assert set(total.global_load.sizes) == set(total.global_store.sizes) == {16}
    assert total.global_load.nbytes == prod(s.x) * size(dtype)
    assert total.global_store.nbytes == prod(s.y) * size(dtype)
    assert total.global_load.efficiency == 1
    assert total.conflicts == 0
    threads = prod(s.y) // (16 // size(dtype)) * 8  # eight for each run of channels
    assert total.block_barrier.lanes == 3 * threads


@pytest.mark.parametrize(("channels", "dtype", "nbytes"), [(6, "float16", 4), (6, "float32", 4), (5, "float16", 2)])
def test_fewer_channels_are_moved_by_4_bytes_or_one_element(channels: int, dtype: str, nbytes: int) -> None:
    s = pool2d_shape("pool", (1, 8, 8, channels), 2)
    x, y, index = zeros(s.x, dtype), zeros(s.y, dtype), zeros(s.y, "uint8")
    total = counted(lambda b: b.pool2d_forward("max", s, x, y, index))
    assert set(total.global_load.sizes) == {nbytes}
    assert total.global_load.nbytes == prod(s.x) * size(dtype)


# ---- rows


@pytest.mark.parametrize("classes", [16, 96, 1024, 4096])
@DTYPES
def test_softmax_reads_its_rows_once(classes: int, dtype: str) -> None:
    """And of each row its label, the logit of that, and writes its loss."""
    rows = 32
    x, probability, loss = zeros((rows, classes), dtype), zeros((rows, classes), dtype), zeros((rows,), dtype)
    labels = aligned(np.arange(rows) % classes)
    total = counted(lambda b: b.softmax_cross_entropy_forward(x, labels, loss, probability))
    nbytes = rows * classes * size(dtype)
    assert set(total.global_load.sizes) == {16, 8, size(dtype)}
    assert total.global_load.nbytes == nbytes + rows * (8 + size(dtype))
    assert total.global_store.nbytes == nbytes + rows * size(dtype)
    assert total.conflicts == 0
    back = counted(lambda b: b.softmax_cross_entropy_backward(probability, labels, loss, x))
    assert back.global_store.nbytes == nbytes
    assert set(back.global_store.sizes) == {16}
    assert back.global_sectors * SECTOR < 1.2 * 2 * nbytes


def test_rows_too_long_for_registers_are_read_twice() -> None:
    rows, classes = 1, 20000
    x, probability, loss = (zeros(shape, "float32") for shape in ((rows, classes), (rows, classes), (rows,)))
    total = counted(lambda b: b.softmax_cross_entropy_forward(x, np.zeros(1, np.int64), loss, probability))
    assert total.global_load.nbytes == 2 * classes * 4 + 8 + 4


@pytest.mark.parametrize("channels", [96, 768, 2048])
@DTYPES
def test_layer_norm_reads_its_rows_once(channels: int, dtype: str) -> None:
    """Gain and offset are read anew for every row, from L1."""
    rows = 16
    s = norm_shape(rows, 1, 1, channels)
    x, y, dx = (zeros(s.x, dtype) for _ in range(3))
    gain, offset, mean, variance = (zeros((n,), t) for n, t in ((channels, dtype),) * 2 + ((rows, "float32"),) * 2)
    nbytes = rows * channels * size(dtype)
    total = counted(lambda b: b.norm_forward(s, x, gain, offset, None, y, mean, variance, 1e-3, "identity"))
    assert set(total.global_load.sizes) == {16}
    assert total.global_load.nbytes == 3 * nbytes
    assert total.global_store.nbytes == nbytes + 2 * rows * 4
    back = counted(
        lambda b: b.norm_backward(s, x, gain, mean, variance, None, y, dx, None, None, None, 1e-3, "identity")
    )
    assert set(back.global_load.sizes) == {16, 4}
    assert set(back.global_store.sizes) == {16}
    assert back.global_store.nbytes == nbytes
    assert back.global_load.sectors * SECTOR < 3.2 * nbytes  # and mean and variance, for each warp
    for one in (total, back):
        assert one.global_load.efficiency == one.global_store.efficiency == 1
        assert one.conflicts == 0


def test_the_gradients_of_layer_norms_parameters_are_sums_in_two_stages() -> None:
    rows, channels = 128, 64
    s = norm_shape(rows, 1, 1, channels)
    x, dy, gain, dgain, doffset = (zeros(shape, "float32") for shape in (s.x, s.x, (64,), (64,), (64,)))
    mean, variance = zeros((rows,), "float32"), zeros((rows,), "float32")
    total = counted(
        lambda b: b.norm_backward(s, x, gain, mean, variance, None, dy, None, dgain, doffset, None, 1e-3, "identity")
    )
    assert total.global_atomic.requests == 0
    assert total.global_load.sizes[16] * 512 == 2 * rows * channels * 4
    assert total.conflicts == 0


# ---- optimizers


@pytest.mark.parametrize(("dtype", "state"), [("float32", "float32"), ("float16", "float32"), ("float16", "float16")])
def test_optimizers_move_every_array_once(dtype: str, state: str) -> None:
    """Runs of as many elements of each array: 16 bytes of the states, 16 or 8 of the others."""
    moved = {size(a) * 16 // size(state) for a in (dtype, state)}
    for kind, states, hypers in (("sgd", 1, 5), ("adam", 2, 10)):
        p, g = zeros((N,), dtype), zeros((N,), dtype)
        kept = [zeros((N,), state) for _ in range(states)]
        hyper = aligned(np.full(hypers, 0.5, np.float32))
        total = counted(lambda b, k=kind, a=(p, g, kept, hyper): b.optimizer_step(k, [a[0]], [a[1]], a[2], a[3]))
        warps = N // 2048 * 8
        assert set(total.global_load.sizes) == moved | {4}
        assert total.global_load.sizes[4] == warps * hypers
        assert (
            total.global_load.sectors
            == N * (2 * size(dtype) + states * size(state)) // SECTOR + total.global_load.sizes[4]
        )
        assert set(total.global_store.sizes) == moved
        assert total.global_store.nbytes == N * (size(dtype) + states * size(state))
        assert total.global_store.efficiency == 1


class LaunchedRuntime(EmulatorRuntime):
    """Remembers each launch: its kernel and how many blocks."""

    def __init__(self) -> None:
        super().__init__(default_cache())
        self.launches: list[tuple[str, int]] = []

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        launch = super().kernel(source, expression)

        def remembered(grid: Any, block: Any, shared_bytes: int, arguments: tuple[Any, ...]) -> None:
            self.launches.append((expression, grid[0]))
            launch(grid, block, shared_bytes, arguments)

        return remembered


@pytest.mark.parametrize(
    ("parameters", "launches"),
    [
        (10, [("64", 10)]),  # LeNet-5
        (161, [("704", 161)]),  # ResNet-50
        (705, [("704", 704), ("704", 1)]),
    ],
)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_all_parameters_of_a_model_share_a_launch(kind: str, parameters: int, launches: list[tuple[str, int]]) -> None:
    """Each of them is stepped once; a block has elements of one."""
    runtime = LaunchedRuntime()
    backend = EmulatorBackend(runtime)
    values = [np.full(1 + i % 7, i, np.float32) for i in range(parameters)]
    gradients = [np.full_like(p, 0.25) for p in values]
    states = [np.zeros_like(p) for p in values * (1 if kind == "sgd" else 2)]
    hyper = {"sgd": [1, 0, 0, 0, 1], "adam": [1, 0, 1, 0, 1, 1, 0, 0, 1, 1]}[kind]
    backend.optimizer_step(kind, values, gradients, states, np.array(hyper, np.float32))
    assert runtime.launches == [(f"{kind}<float, float, {table}>", blocks) for table, blocks in launches]
    for i, p in enumerate(values):
        np.testing.assert_array_equal(p, np.float32(i - (0.25 if kind == "sgd" else 1)))  # adam: 0.25 / sqrt(0.25^2)
