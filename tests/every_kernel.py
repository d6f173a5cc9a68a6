"""Every CUDA kernel once, on tiny inputs: what the race checker and the schedules run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest

from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _conv2d_wgmma as wgmma
from cnnengine.backends import _kernel_library as library
from cnnengine.backends import _kernel_plans as plans
from cnnengine.backends.contract import IDENTITY, Backend, Epilogue
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import EmulatorRuntime, Kernel
from cnnengine.jit.source import KernelSource
from cnnengine.jit.tensor_map import TensorMap
from cnnengine.shapes import (
    Conv2dShape,
    adaptive_pool2d_shape,
    broadcast_shape,
    conv2d_shape,
    gemm_shape,
    norm_shape,
    pool2d_shape,
    reduce_shape,
)

Results = dict[str, np.ndarray]
PLANS = (
    conv2d.conv2d_forward,
    conv2d.conv2d_backward_input,
    conv2d.conv2d_backward_weight,
    wgmma.forward,
    wgmma.backward_input,
    wgmma.backward_weight,
    plans.gemm,
    plans.norm_columns,
    plans.norm_tiles,
    plans.rows,
)
ROWS = (33, 64, 259, 1032, 1501, 3016)  # singly and in runs: kept by part of a warp, by a block, not kept
LONG = 1500
# more than a tile of pixels, channels past a step, uneven sides, a phase of dx that no tap reaches
WGMMA_SHAPE = conv2d_shape((3, 9, 13, 72), (136, 1, 3, 72), (2, 1), ((0, 1), (2, 1)))


class RecordingRuntime(EmulatorRuntime):
    """Remembers which kernels ran; tells the race checker which arrays a kernel is given, so that it reports any access
    outside them as well."""

    def __init__(self, **options: Any) -> None:
        super().__init__(default_cache(), **options)
        self.launched: set[str] = set()
        self.tables: list[np.ndarray] = []  # arrays whose addresses lie in a table
        self.mapped: list[np.ndarray] = []  # arrays that the next kernel reaches through tensor maps

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        module, launch = self.module(source), super().kernel(source, expression)

        def recorded(grid: Any, block: Any, shared_bytes: int, arguments: tuple[Any, ...], cluster: Any = None) -> None:
            self.launched.add(expression)
            if self.race:
                module.watch(0, 0, "")
                arrays = [(f"argument {i}", a) for i, a in enumerate(arguments) if isinstance(a, np.ndarray)]
                arrays += [("an array of the table", a) for a in self.tables]
                arrays += [("the array of a tensor map", a) for a in self.mapped]
                for name, array in arrays:
                    module.watch(array.ctypes.data, array.nbytes, name)
            self.mapped = []
            launch(grid, block, shared_bytes, arguments, cluster)

        return recorded

    def tensor_map(self, source: KernelSource, spec: TensorMap, array: Any) -> bytes:
        self.mapped.append(array)
        return super().tensor_map(source, spec, array)


def listed(dtype: str) -> set[str]:
    """The library's kernels for a dtype."""
    return {expression for family in library.FAMILIES for expression in library.source(family, dtype).expressions}


@contextmanager
def planned(module: Any, choice: str, result: Any, is_function: bool = True) -> Iterator[None]:
    """Within the block the plans' function ``choice`` always returns ``result``, or the constant is ``result``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, choice, (lambda *_: result) if is_function else result)
        for plan in PLANS:
            plan.cache_clear()
        yield
    for plan in PLANS:
        plan.cache_clear()


@contextmanager
def wgmma_planned(tile: library.WgmmaTile, together: int) -> Iterator[None]:
    """Within the block implicit_gemm_wgmma takes this tile, in clusters of ``together``, and two multiprocessors."""
    choices = {"WGMMA_TILES": (tile,), "WGMMA_WEIGHT_TILES": (tile,), "TOGETHER": (together,), "MULTIPROCESSORS": 2}
    with ExitStack() as stack:
        for name, value in choices.items():
            stack.enter_context(planned(wgmma, name, value, is_function=False))
        yield


def run(backend: Backend, dtype: str = "float32", computed: str | None = None) -> Results:
    """Every kernel's outputs, by name; inputs are rounded to ``dtype``, then held and computed in ``computed``."""
    rng = np.random.default_rng(7)
    results: Results = {}
    held = computed or dtype

    def random(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype("float32").astype(dtype).astype(held)

    def out(name: str, shape: tuple[int, ...], of: str = held) -> np.ndarray:
        results[name] = np.zeros(shape, of)
        return results[name]

    _convolutions(backend, random, out, dtype)
    _products(backend, random, out)
    for name, s in (
        ("pool", pool2d_shape("pool", (1, 7, 6, 3), 3, 2, 1)),
        ("pool of pairs", pool2d_shape("pool", (2, 7, 6, 6), (3, 2), 1, 1, 2)),
        ("pool of runs", pool2d_shape("pool", (2, 7, 6, 16), 3, 2, 1)),
        ("wide pool", pool2d_shape("pool", (1, 20, 20, 1), 17)),  # its index has 4 bytes
        ("large pool of pairs", pool2d_shape("pool", (1, 7, 8, 10), 6, 1, 1)),
        ("large pool of runs", pool2d_shape("pool", (1, 7, 8, 24), 6, 1, 1)),
        ("adaptive pool", adaptive_pool2d_shape("pool", (1, 7, 5, 2), 3)),
        ("large adaptive pool", adaptive_pool2d_shape("pool", (1, 13, 15, 2), 2)),
    ):
        x, dy, index = random(*s.x), random(*s.y), out(f"{name} index", s.y, s.index_dtype)
        backend.pool2d_forward("max", s, x, out(f"{name} max", s.y), index)
        backend.pool2d_backward("max", s, dy, index, out(f"{name} max back", s.x))
        if s.dilation_h == 1:
            backend.pool2d_forward("avg", s, x, out(f"{name} avg", s.y), None)
            backend.pool2d_backward("avg", s, dy, None, out(f"{name} avg back", s.x))

    x, dy = random(5, 33), random(5, 33)
    y = (np.abs(random(5, 33)) + 0.5).astype(dtype).astype(held)  # powers and quotients stay in float16's range
    for kind in library.ACTIVATIONS:
        backend.activation_forward(kind, x, out(kind, x.shape), 0.25)
        backend.activation_backward(kind, x, dy, out(f"{kind} back", x.shape), 0.25)
    for op in library.UNARY:
        backend.unary(op, y, out(op, y.shape))
    for op, other in product(library.BINARY, ((5, 33), (5, 1))):
        shape, walk = broadcast_shape(op, x.shape, other)
        backend.binary(op, walk, y, random(*other), out(f"{op} {other}", shape))
    z = random(3, 5, 16)  # rows of whole runs
    for other in ((16,), (5, 1), (3, 1, 16), ()):
        shape, walk = broadcast_shape("sub", z.shape, other)
        backend.binary("sub", walk, z, random(*other), out(f"sub {z.shape} {other}", shape))
    for to in library.TYPES:
        backend.cast(x, out(f"cast {to}", x.shape, to))
    for op, shape in product(library.REDUCE, ((3, 5, 4), (1, 6000, 3))):
        s = reduce_shape(*shape)
        backend.reduce(op, s, random(*shape), out(f"{op} {shape}", (s.outer, s.inner)))

    _norms(backend, random, out)

    for classes in ROWS:
        logits, probability = random(5, classes), out(f"probability {classes}", (5, classes))
        labels = np.array([0, classes - 1, 32, 3, 1])
        with row_plans(classes):
            backend.softmax_cross_entropy_forward(logits, labels, out(f"loss {classes}", (5,)), probability)
        dx = out(f"loss back {classes}", logits.shape)
        backend.softmax_cross_entropy_backward(probability, labels, random(5), dx)
    images, numbers = rng.integers(0, 256, (5, 33, 3), np.uint8), rng.standard_normal((2, 3)).astype("float32")
    backend.normalize_images(images, *numbers, out("normalize_images", images.shape))
    backend.dropout(x, out("dropout", x.shape), 2**31, 2.0, np.array([7, 9], np.uint64))
    _optimizers(backend, random, results, computed is None)
    return results


def _convolutions(backend: Backend, random: Any, out: Any, dtype: str) -> None:
    s = conv2d_shape((2, 9, 15, 6), (10, 3, 2, 3), stride=(1, 2), padding=1, groups=2)
    all_verbs = _three_verbs(backend, s, random, out)
    all_verbs("direct", "direct")
    images = conv2d_shape((2, 9, 8, 3), (5, 3, 2, 3), (2, 1), 1)
    _three_verbs(backend, images, random, out)(conv2d.FIRST_LAYER, conv2d.FIRST_LAYER)
    for tile in library.TILES:
        with planned(plans, "tile", tile):
            all_verbs("tiled", str(tile))
    _on_cuda_cores(backend, random, out)
    _on_tensor_cores(backend, random, out, dtype)
    _depthwise(backend, random, out, dtype)
    _grouped(backend, random, out)
    _grouped_on_tensor_cores(backend, random, out, dtype)
    _winograd(backend, random, out, dtype)
    for channels in (12, 5):  # tiles enough to be joined by two kernels
        s = conv2d_shape((2, 10, 11, 4), (channels, 1, 1, 4))
        arrays = random(*s.x), random(*s.w), random(s.K), random(*s.y)
        with planned(plans, "FEW_TILES", 2, is_function=False):
            _with_norm(backend, s, arrays, out, "implicit_gemm", f"norm of tiles {channels}")
    s = conv2d_shape((2, 12, 12, 2), (3, 1, 1, 2))  # pixels enough for two splits and their sum
    backend.conv2d_backward_weight(s, random(*s.x), random(*s.y), out("backward_weight split", s.w), "tiled")


def _three_verbs(backend: Backend, s: Conv2dShape, random: Any, out: Any) -> Callable[[str, str], None]:
    """(algorithm, name) -> runs all verbs on the same arrays."""
    x, w, dy, per_channel = random(*s.x), random(*s.w), random(*s.y), random(s.K)
    epilogue = Epilogue(per_channel, per_channel, per_channel, dy, "relu")

    def run(algorithm: str, name: str) -> None:
        backend.conv2d_forward(s, x, w, out(f"forward {name}", s.y), epilogue, algorithm)
        backend.conv2d_backward_input(s, dy, w, out(f"backward_input {name}", s.x), algorithm)
        backend.conv2d_backward_weight(s, x, dy, out(f"backward_weight {name}", s.w), algorithm)
        if algorithm in ("implicit_gemm", conv2d.WGMMA) or algorithm in conv2d.MMA:
            _with_norm(backend, s, (x, w, per_channel, dy), out, algorithm, f"norm {name}")

    return run


def _with_norm(
    backend: Backend, s: Conv2dShape, arrays: tuple[np.ndarray, ...], out: Any, algorithm: str, name: str
) -> None:
    """The convolution with the moments of its tiles, and the norm by them. arrays: x, w, a value a channel, a
    residual"""
    x, w, per_channel, residual = arrays
    kind = "float32" if x.dtype.itemsize < 4 else x.dtype.name
    y, z = out(f"{name} y", s.y, x.dtype), out(f"{name} norm of y", s.y, x.dtype)
    mean, variance = (out(f"{name} {part}", (1, s.K), kind) for part in ("mean of y", "variance of y"))
    norm = per_channel, per_channel, residual, z, mean, variance, 1e-3, "relu"
    backend.conv2d_norm_forward(s, x, w, per_channel, y, algorithm, *norm)


def _on_cuda_cores(backend: Backend, random: Any, out: Any) -> None:
    """Every tile of implicit_gemm; those that move four elements at a time compute the same and are compared."""
    for vector in (4, 1):
        s = conv2d_shape((2, 9, 7, 2 * 3 * vector), (2 * 5 * vector, 3, 2, 3 * vector), (1, 2), 1, groups=2)
        all_verbs = _three_verbs(backend, s, random, out)
        for tile in (tile for tile, moved in library.SIMT_VARIANTS if moved == vector):
            with planned(conv2d, "simt_choice", (tile, vector)):
                all_verbs("implicit_gemm", f"implicit_gemm {vector} {tile}")
        all_verbs("tiled", f"implicit_gemm {vector} tiled")


def _on_tensor_cores(backend: Backend, random: Any, out: Any, dtype: str) -> None:
    """Every tile of implicit_gemm_wgmma and of implicit_gemm_mma, which has two ways to round float32."""
    names = [n for n, rounding in conv2d.MMA.items() if (rounding == "Rounded::no") != (dtype == "float32")]
    for number, tile in enumerate(library.WGMMA_WEIGHT_TILES if dtype != "float32" else ()):
        with wgmma_planned(tile, together=1 + number % 2):
            _on_wgmma(backend, random, out, tile)
    for tile, vector in library.mma_variants(dtype):
        s = conv2d_shape((2, 9, 7, 2 * 3 * vector), (2 * 5 * vector, 3, 2, 3 * vector), (1, 2), 1, groups=2)
        all_verbs = _three_verbs(backend, s, random, out)
        with planned(conv2d, "mma_choice", (tile, vector)):
            for name in names:
                all_verbs(name, f"{name} {tile} {vector}")


def _on_wgmma(backend: Backend, random: Any, out: Any, tile: library.WgmmaTile) -> None:
    name = f"{conv2d.WGMMA} {tile}"
    if tile in library.WGMMA_TILES:
        _three_verbs(backend, WGMMA_SHAPE, random, out)(conv2d.WGMMA, name)
        s = conv2d_shape((1, 9, 17, 72), (72, 1, 2, 72), 1, 1)  # without phases
        dx = out(f"backward_input 1 {name}", s.x)
        backend.conv2d_backward_input(s, random(*s.y), random(*s.w), dx, conv2d.WGMMA)
    else:
        s = WGMMA_SHAPE
        dw = out(f"backward_weight {name}", s.w)
        backend.conv2d_backward_weight(s, random(*s.x), random(*s.y), dw, conv2d.WGMMA)


def _depthwise(backend: Backend, random: Any, out: Any, dtype: str) -> None:
    """Channels for every vector; filters and strides for every kernel, the last three shapes for those that take any:
    two filters a channel, strips that interleave, filters too large to be staged at once (and a backward_weight that is
    split)."""
    widest = 16 // library.ITEM_BYTES[dtype]
    for size, stride, channels in product(library.DEPTHWISE_TAPS, (1, 2), (widest, 2, 3)):
        s = conv2d_shape((2, 9, 15, 3 * channels), (3 * channels, 3, size, 1), stride, (1, size // 2), 1, 3 * channels)
        _three_verbs(backend, s, random, out)("depthwise", f"depthwise {size} {stride} {channels}")
    for s in (
        conv2d_shape((2, 9, 15, 3), (6, 3, 2, 1), (2, 1), 1, (1, 2), 3),
        conv2d_shape((2, 9, 15, widest), (widest, 3, 4, 1), (2, 4), (1, 5), (3, 6), widest),
        conv2d_shape((1, 7, 19, 8 * widest), (8 * widest, 16, 17, 1), 1, (8, 8), 1, 8 * widest),
    ):
        _three_verbs(backend, s, random, out)("depthwise", f"depthwise {s.x} {s.w}")


def _grouped(backend: Backend, random: Any, out: Any) -> None:
    """Groups of 8 to 12 and of 3 to 5 channels; filters and strides for every kernel, weights that are staged in parts,
    strips that interleave, a block past the last group and a backward_weight that is split."""
    for s in (
        conv2d_shape((2, 9, 18, 24), (36, 3, 3, 8), 1, 1, 1, 3),
        conv2d_shape((2, 9, 18, 24), (36, 3, 3, 8), 2, 1, 1, 3),
        conv2d_shape((2, 8, 19, 24), (36, 3, 4, 8), (2, 4), (1, 3), (2, 6), 3),
        conv2d_shape((1, 5, 9, 24), (36, 1, 1, 8), groups=3),
        conv2d_shape((2, 8, 9, 33), (55, 2, 3, 3), 1, 1, 1, 11),
        conv2d_shape((1, 4, 9, 6), (10, 1, 1, 3), (1, 2), groups=2),
    ):
        _three_verbs(backend, s, random, out)("grouped", f"grouped {s.x} {s.w} {s.stride_h}")


def _grouped_on_tensor_cores(backend: Backend, random: Any, out: Any, dtype: str) -> None:
    """A block past the last group; strides, dilations that share a factor with them, rectangles past the outputs."""
    for group in library.GROUPED_MMA if dtype != "float32" else ():
        channels = 64 + group
        for s in (
            conv2d_shape((2, 9, 13, channels), (channels, 3, 2, group), 1, 1, 1, channels // group),
            conv2d_shape((1, 9, 14, channels), (channels, 2, 3, group), (1, 2), (2, 0), (3, 1), channels // group),
            conv2d_shape((1, 7, 11, channels), (channels, 1, 3, group), (3, 2), (0, 2), (1, 2), channels // group),
        ):
            _three_verbs(backend, s, random, out)("grouped", f"grouped {s.x} {s.w} {s.stride_h}")


def _winograd(backend: Backend, random: Any, out: Any, dtype: str) -> None:
    """Tiles, channels and filters past whole ones, in both passes; more tiles than a block has, in several images."""
    if dtype != "float32":
        return
    s = conv2d_shape((2, 9, 12, 11), (70, 3, 3, 11), 1, ((0, 2), (3, 1)))
    x, w, dy, per_channel = random(*s.x), random(*s.w), random(*s.y), random(s.K)
    epilogue = Epilogue(per_channel, per_channel, per_channel, dy, "relu")
    backend.conv2d_forward(s, x, w, out("forward winograd", s.y), epilogue, "winograd")
    backend.conv2d_backward_input(s, dy, w, out("backward_input winograd", s.x), "winograd")


def _products(backend: Backend, random: Any, out: Any) -> None:
    for a_transposed, b_transposed in product((False, True), repeat=2):
        s = gemm_shape(2, 37, 33, 19, a_transposed, b_transposed, False, True)
        a = random(2, 19, 37) if a_transposed else random(2, 37, 19)
        b, bias = random(33, 19) if b_transposed else random(19, 33), random(33)
        for tile in library.TILES:
            with planned(plans, "tile", tile):
                name = f"gemm({a_transposed}, {b_transposed}) {tile}"
                backend.gemm(s, a, b, out(name, (2, 37, 33)), Epilogue(bias))
    s = gemm_shape(1, 3, 9, 5, False, False, False, False)
    backend.gemm(s, random(1, 3, 5), random(1, 5, 9), out("gemm direct", (1, 3, 9)), IDENTITY)


def _optimizers(backend: Backend, random: Any, results: Results, in_dtype: bool) -> None:
    """Steps of a few and of many parameters; ``in_dtype``: not in float64, so that states beside may be float32."""
    kinds = {
        "sgd": ([0.1, 0.9, 0.01, 1, 0.5], ("none", "own", "float32")),
        "adam": ([0.01, 0.75, 0.25, 0.875, 0.125, 1.25, 0.25, 0.01, 0.99, 0.5], ("own", "float32")),
    }
    for few, (kind, (hyper, states_of)) in product((True, False), kinds.items()):
        shapes = [(5, 33), (7,)] if few else [(3,), (2, 5)] * library.STEP_TENSORS[0]
        for dtype in states_of:
            parameters, gradients = ([random(*shape) for shape in shapes] for _ in range(2))
            count = {"none": 0, "sgd": 1, "adam": 2}["none" if dtype == "none" else kind]
            states = [np.abs(random(*shape)) for shape in shapes * count]
            if dtype == "float32" and in_dtype:
                states = [state.astype("float32") for state in states]
            if isinstance(backend, EmulatorBackend) and isinstance(backend.runtime, RecordingRuntime):
                backend.runtime.tables = [*parameters, *gradients, *states]
            backend.optimizer_step(kind, parameters, gradients, states, np.array(hyper, "float32"))
            results |= {f"{kind} {i} {few} {dtype}": a for i, a in enumerate([*parameters, *states])}


@contextmanager
def row_plans(length: int) -> Iterator[None]:
    """Within the block rows of more than LONG elements are too long to be kept."""
    with planned(plans, "ROW_THREADS", 64 if length > LONG else plans.ROW_THREADS, is_function=False):
        yield


def _norms(backend: Backend, random: Any, out: Any) -> None:
    """In splits, in groups and by rows, with channels for single elements and for vectors of 16 bytes."""
    columns = (1, 601, 5, 1), (1, 601, 24, 1), (2, 37, 3, 11), (2, 37, 2, 12)
    for size in (*columns, *((3, 1, 2, length) for length in ROWS)):
        s = norm_shape(*size)
        x, residual, dy, gain, offset = random(*s.x), random(*s.x), random(*s.x), random(s.channels), random(s.channels)
        kind = "float32" if x.dtype.itemsize < 4 else x.dtype.name
        mean, variance = (out(f"norm {size} {name}", s.statistics, kind) for name in ("mean", "variance"))
        y = out(f"norm {size}", s.x)
        with row_plans(s.D):
            backend.norm_forward(s, x, gain, offset, residual, y, mean, variance, 1e-3, "relu")
        gradients = [out(f"norm {size} {name}", shape) for name, shape in (
            ("dx", s.x), ("dgain", gain.shape), ("doffset", gain.shape), ("dresidual", s.x)
        )]  # fmt: skip
        with row_plans(s.D):
            backend.norm_backward(s, x, gain, mean, variance, y, dy, *gradients, 1e-3, "relu")
    for channels in (33, 40):
        x, parts = random(67, channels), [random(channels) for _ in range(3)]
        backend.apply_epilogue(x, out(f"epilogue {channels}", x.shape), Epilogue(*parts, x, "relu"))
