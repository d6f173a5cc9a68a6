"""Every CUDA kernel of the project, by family and dtype: the one list that the backends launch from, that NVRTC checks
for every architecture, and that the race checker runs.

A kernel is named by a template such as ``activation_forward<{T}, Relu>``; ``{T}`` becomes the element type. One family
and dtype are one compilation. A kernel that is not listed cannot be launched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from ..jit.source import KernelSource

TYPES = {"float32": "float", "float16": "__half", "bfloat16": "__nv_bfloat16"}  # dtype -> {T}
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
ACTIVATIONS = {
    "identity": "Identity",
    "relu": "Relu",
    "relu6": "Relu6",
    "leaky_relu": "LeakyRelu",
    "silu": "Silu",
    "gelu": "Gelu",
    "gelu_tanh": "GeluTanh",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "Hardswish",
    "hardsigmoid": "Hardsigmoid",
    "elu": "Elu",
}
UNARY = {"neg": "Neg", "exp": "Exp", "log": "Log", "sqrt": "Sqrt"}
BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "equal": "Equal"}
REDUCE = {"sum": "Sum", "max": "Max"}
OPTIMIZERS = ("sgd", "adam")
STEP_TENSORS = (64, 704)  # parameters in a launch: tables of 2824 and 30984 of the 32764 bytes that arguments may have
POOL = {"max": "max", "avg": "avg"}
POOL_AVG = ("forward_avg", "forward_avg_shared")  # by a thread, by a block
INDEX = {"uint8": "unsigned char", "int32": "int"}  # of max-pooling
CONV2D = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight")
BOOL = ("false", "true")


@dataclass(frozen=True, slots=True)
class Tile:
    """The template of the same name in csrc/cuda/tile.cuh."""

    m: int
    n: int
    k: int
    thread_m: int
    thread_n: int

    def __str__(self) -> str:
        return f"Tile<{self.m}, {self.n}, {self.k}, {self.thread_m}, {self.thread_n}>"

    @property
    def threads(self) -> int:
        return (self.m // self.thread_m) * (self.n // self.thread_n)

    @property
    def shared_bytes(self) -> int:
        """Two buffers of an a-tile and a b-tile in float32, their rows padded by 4."""
        return 2 * self.k * (self.m + 4 + self.n + 4) * 4


SMALL = Tile(32, 32, 16, 4, 4)  # 64 threads: many blocks where there is little work, little waste on narrow outputs
MEDIUM = Tile(64, 64, 16, 4, 4)  # 256 threads
LARGE = Tile(128, 128, 8, 8, 8)  # 256 threads, 64 sums each: the most arithmetic for each byte of shared memory
TILES = (SMALL, MEDIUM, LARGE)


@dataclass(frozen=True, slots=True)
class SimtTile:
    """The template of the same name in csrc/cuda/simt_tile.cuh."""

    m: int
    n: int
    k: int
    groups_m: int
    groups_n: int

    def __str__(self) -> str:
        return f"SimtTile<{self.m}, {self.n}, {self.k}, {self.groups_m}, {self.groups_n}>"

    @property
    def threads(self) -> int:
        return (self.m // (4 * self.groups_m)) * (self.n // (4 * self.groups_n))

    @property
    def shared_bytes(self) -> int:
        """Two buffers of an a-tile and a b-tile in float32, lines padded by 4; and where the block's tile lies."""
        return 2 * self.k * (self.m + 4 + self.n + 4) * 4 + 128


SIMT_LARGE = SimtTile(128, 128, 8, 2, 2)  # 256 threads, 64 sums each
SIMT_MEDIUM = SimtTile(128, 64, 8, 2, 2)  # 128 threads, 64 sums each: narrow outputs
SIMT_SMALL = SimtTile(64, 64, 8, 2, 1)  # 128 threads, 32 sums each: where there is little work
SIMT_TILES = (SIMT_LARGE, SIMT_MEDIUM, SIMT_SMALL)
SIMT_VARIANTS = ((SIMT_LARGE, 4), (SIMT_MEDIUM, 4), (SIMT_SMALL, 4), (SIMT_SMALL, 1))  # elements moved at a time


@dataclass(frozen=True, slots=True)
class MmaTile:
    """The template of the same name in csrc/cuda/mma_tile.cuh."""

    m: int
    n: int
    k: int
    warps_m: int
    warps_n: int
    stages: int
    item_bytes: int = 2

    def __str__(self) -> str:
        return f"MmaTile<{self.m}, {self.n}, {self.k}, {self.warps_m}, {self.warps_n}, {self.stages}>"

    def of(self, dtype: str) -> MmaTile:
        """The same tile with as many bytes of k of another dtype."""
        size = ITEM_BYTES[dtype]
        return replace(self, k=self.k * self.item_bytes // size, item_bytes=size)

    @property
    def threads(self) -> int:
        return 32 * self.warps_m * self.warps_n

    @property
    def shared_bytes(self) -> int:
        """The stages of both operands; afterwards a row of fragments of each warp and the tile's moments, in
        float32."""
        operands = self.stages * (self.m + self.n) * self.k * self.item_bytes
        fragments = self.warps_m * self.warps_n * 16 * (self.n // self.warps_n + 8) * 4
        return max(operands, fragments + self.warps_m * self.n * 3 * 4)


MMA_LARGE = MmaTile(128, 128, 32, 2, 4, 4)  # 256 threads, 64 sums each; 64 KB: one or two blocks a multiprocessor
MMA_MEDIUM = MmaTile(128, 64, 32, 2, 2, 4)  # 128 threads, 64 sums each: narrow outputs
MMA_SMALL = MmaTile(64, 64, 32, 2, 2, 4)  # 128 threads, 32 sums each: where there is little work
MMA_TILES = (MMA_LARGE, MMA_MEDIUM, MMA_SMALL)


def mma_variants(dtype: str) -> list[tuple[MmaTile, int]]:
    """(tile, elements copied at a time): all tiles copy 16 bytes, the small one also 4 bytes and single elements; four
    channels of 2 bytes, as first layers have them, all but the large one."""
    size = ITEM_BYTES[dtype]
    fewer = sorted({4 // size, 1}, reverse=True)
    whole = [(tile.of(dtype), 16 // size) for tile in MMA_TILES]
    halves = [(tile, 4) for tile in (MMA_MEDIUM, MMA_SMALL)] if size == 2 else []
    return whole + halves + [(MMA_SMALL.of(dtype), count) for count in fewer]


def _mma(dtype: str) -> tuple[str, ...]:
    """implicit_gemm_mma, by dtype."""
    roundings = ("Rounded::tf32", "Rounded::tf32_3x") if dtype == "float32" else ("Rounded::no",)
    return tuple(
        f"{verb}_mma<{{T}}, Conv2dShape, {tile}, {rounding}, {vector}>"
        for verb in CONV2D
        for tile, vector in mma_variants(dtype)
        for rounding in roundings
    )


@dataclass(frozen=True, slots=True)
class WgmmaTile:
    """The template of the same name in csrc/cuda/wgmma_tile.cuh."""

    m: int
    n: int
    stages: int

    def __str__(self) -> str:
        return f"WgmmaTile<{self.m}, {self.n}, {self.stages}>"

    @property
    def threads(self) -> int:
        return 384

    @property
    def shared_bytes(self) -> int:
        """The ring of stages, two panels of 16 rows by 64 columns a warp, two barriers a stage; a multiple of 1024."""
        ring, panels = self.stages * (self.m + self.n) * 64 * 2, 8 * 2 * 16 * 64 * 2
        return -(-(ring + panels + 16 * self.stages) // 1024) * 1024


WGMMA_TILES = (WgmmaTile(128, 256, 4), WgmmaTile(128, 128, 6), WgmmaTile(128, 64, 8))  # 225 KB
WGMMA_WEIGHT_TILES = (*WGMMA_TILES, WgmmaTile(64, 256, 4), WgmmaTile(64, 128, 8))  # few filters
WGMMA_GATHERS = ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_input_phases")


def _wgmma(dtype: str) -> tuple[str, ...]:
    """implicit_gemm_wgmma, float16 and bfloat16."""
    if dtype == "float32":
        return ()
    gathers = tuple(f"{kernel}_wgmma<{{T}}, {tile}>" for kernel in WGMMA_GATHERS for tile in WGMMA_TILES)
    return (*gathers, *(f"conv2d_backward_weight_wgmma<{{T}}, {tile}>" for tile in WGMMA_WEIGHT_TILES))


DEPTHWISE_TAPS = (3, 5, 7)  # of a filter's row, for which there are kernels of their own


def depthwise_weight_vector(vector: int, taps: int, dtype: str) -> int:
    """Channels that a thread of backward_weight takes: up to 16 bytes at 3 taps, 8 bytes at 5, two channels at 7. With
    more, its sums and inputs would take more than 128 registers."""
    return min(vector, {3: vector, 5: 8 // ITEM_BYTES[dtype], 7: 2}[taps])


def _depthwise(dtype: str) -> tuple[str, ...]:
    """depthwise, by dtype: VECTOR of 16 bytes, 4 bytes and one element. Only 16 bytes have kernels of their own for
    filter widths and strides that are common; 0, 0 takes any."""
    size = ITEM_BYTES[dtype]
    vectors = sorted({16 // size, 4 // size, 1}, reverse=True)
    common = [(vectors[0], taps, stride) for taps in DEPTHWISE_TAPS for stride in (1, 2)]
    strips = common + [(vector, 0, 0) for vector in vectors]
    parts = [(depthwise_weight_vector(vector, taps, dtype), taps) for vector in vectors for taps in DEPTHWISE_TAPS]
    return (
        *(f"{verb}_depthwise<{{T}}, Conv2dShape, {v}, {t}, {s}>" for verb in CONV2D[:2] for v, t, s in strips),
        *(f"conv2d_backward_weight_depthwise<{{T}}, Conv2dShape, {vector}, {taps}>" for vector, taps in parts),
    )


GROUPED_TAPS = (1, 3)  # of a filter's row that a thread of backward_weight adds
GROUPED_STRIPS = ((4, 3, 1), (4, 3, 2), (4, 0, 0), (1, 0, 0))  # VECTOR, TAPS and STRIDE; 0, 0 takes any

_GROUPED = (
    *(f"{verb}_grouped<{{T}}, Conv2dShape, {v}, {t}, {s}>" for verb in CONV2D[:2] for v, t, s in GROUPED_STRIPS),
    *(f"conv2d_backward_weight_grouped<{{T}}, Conv2dShape, {v}, {t}>" for v in (4, 1) for t in GROUPED_TAPS),
)


GROUPED_MMA = (8, 16, 32)  # channels and filters of a group


def _grouped_mma(dtype: str) -> tuple[str, ...]:
    """grouped on tensor cores, float16 and bfloat16."""
    if dtype == "float32":
        return ()
    return tuple(f"{verb}_grouped_mma<{{T}}, Conv2dShape, {group}>" for verb in CONV2D for group in GROUPED_MMA)


def _winograd(dtype: str) -> tuple[str, ...]:
    """winograd, float32."""
    if dtype != "float32":
        return ()
    filters = tuple(f"conv2d_winograd_filters<{turned}, Conv2dShape>" for turned in BOOL)
    return (*filters, *(f"{verb}_winograd<Conv2dShape>" for verb in CONV2D[:2]))


def norm_vectors(dtype: str) -> tuple[int, int]:
    """Channels that the kernels which walk by columns take at a time: 16 bytes, or one."""
    return 16 // ITEM_BYTES[dtype], 1


def _norm(dtype: str) -> tuple[str, ...]:
    """norm, by dtype."""
    columns = (
        "apply_epilogue<{T}, NormShape, %d>",
        "norm_channel_moments<{T}, NormShape, %d>",
        "norm_apply<{T}, NormShape, %d>",
        "norm_channel_sums<{T}, NormShape, %d>",
        "norm_backward_apply<{T}, NormShape, %d>",
    )
    return (
        *(kernel % vector for kernel in columns for vector in norm_vectors(dtype)),
        *(f"norm_join_tiles<NormShape, {vector}>" for vector in norm_vectors("float32")),
        "norm_group_moments<{T}, NormShape>",
        "norm_group_sums<{T}, NormShape>",
    )


POOL_VECTORS = {"float32": (4, 1), "float16": (8, 2, 1), "bfloat16": (8, 2, 1)}  # channels: 16 bytes, 4 bytes, one


def _pool(dtype: str) -> tuple[str, ...]:
    """pool2d, by dtype. Windows whose index takes more than a byte are rare: one channel a thread."""
    vectors = POOL_VECTORS[dtype]
    index = [(INDEX["uint8"], vector) for vector in vectors] + [(INDEX["int32"], 1)]
    ways = ("forward", "backward")
    return (
        *(f"pool2d_{way}_max<{{T}}, {i}, Pool2dShape, {vector}>" for way in ways for i, vector in index),
        *(f"pool2d_{way}<{{T}}, Pool2dShape, {v}>" for way in (*POOL_AVG, "backward_avg") for v in vectors),
    )


ROW_KEPT = (8, 32, 0)  # elements of a row that a thread keeps, in csrc/cuda/row.cuh; 0: it reads them again


def _rows(*templates: str) -> Callable[[str], tuple[str, ...]]:
    """Kernels over rows, by dtype: for every length of a row with runs of 16 bytes, and with runs of one element, each
    of which has an address of its own, so that a thread keeps few."""

    def of(dtype: str) -> tuple[str, ...]:
        kinds = [(16 // ITEM_BYTES[dtype], kept) for kept in ROW_KEPT] + [(1, ROW_KEPT[0]), (1, 0)]
        return tuple(f"{template}, {run}, {kept}>" for template in templates for run, kept in kinds)

    return of


def _softmax(dtype: str) -> tuple[str, ...]:
    return (*_rows("softmax_cross_entropy_forward<{T}")(dtype), "softmax_cross_entropy_backward<{T}>")


def _norm_rows(dtype: str) -> tuple[str, ...]:
    rows = _rows("norm_forward_rows<{T}, NormShape", "norm_backward_rows<{T}, NormShape")(dtype)
    sums = (f"norm_parameter_sums<{{T}}, NormShape, {run}>" for run in (16 // ITEM_BYTES[dtype], 1))
    return (*rows, *sums, "norm_parameter_totals<{T}>")


Templates = tuple[str, ...] | Callable[[str], tuple[str, ...]]  # the second of a dtype
FAMILIES: dict[str, Templates] = {
    "conv2d": (
        *(f"{verb}_direct<{{T}}, Conv2dShape>" for verb in CONV2D),
        *(f"{verb}_tiled<{{T}}, Conv2dShape, {tile}>" for verb in CONV2D for tile in TILES),
        "conv2d_backward_weight_sum<{T}>",
    ),
    "conv2d/implicit_gemm": tuple(
        f"{verb}_implicit_gemm<{{T}}, Conv2dShape, {tile}, {vector}>"
        for verb in CONV2D
        for tile, vector in SIMT_VARIANTS
    ),
    "conv2d/first_layer": ("conv2d_first_layer_pad<{T}>", "conv2d_first_layer_cut<{T}>"),
    "conv2d/implicit_gemm_mma": _mma,
    "conv2d/implicit_gemm_wgmma": _wgmma,
    "conv2d/depthwise": _depthwise,
    "conv2d/grouped": _GROUPED,
    "conv2d/grouped_mma": _grouped_mma,
    "conv2d/winograd": _winograd,
    "pool2d": _pool,
    "activation": tuple(
        f"activation_{way}<{{T}}, {kind}>" for way in ("forward", "backward") for kind in ACTIVATIONS.values()
    ),
    "binary": (
        *(f"unary<{{T}}, {op}>" for op in UNARY.values()),
        *(f"binary<{{T}}, {op}, BroadcastShape>" for op in BINARY.values()),
        *(f"cast<{{T}}, {to}>" for to in TYPES.values()),
    ),
    "reduce": (
        *(f"reduce<{{T}}, {{T}}, {op}, ReduceShape>" for op in REDUCE.values()),
        *(f"reduce<{{T}}, float, {op}, ReduceShape>" for op in REDUCE.values()),  # a split's partial results
        *(f"reduce<float, {{T}}, {op}, ReduceShape>" for op in REDUCE.values()),
    ),
    "gemm": (
        "gemm_direct<{T}, GemmShape>",
        *(f"gemm_tiled<{{T}}, GemmShape, {tile}, {a}, {b}>" for tile in TILES for a in BOOL for b in BOOL),
    ),
    "norm": _norm,
    "norm_rows": _norm_rows,
    "softmax_cross_entropy": _softmax,
    "dropout": ("dropout<{T}>",),
    "normalize_images": ("normalize_images<{T}>",),
    "optimizer_step": tuple(
        f"{kind}<{{T}}, {state}, {most}>" for kind in OPTIMIZERS for state in ("{T}", "float") for most in STEP_TENSORS
    ),
}


def templates(family: str, dtype: str) -> tuple[str, ...]:
    listed = FAMILIES[family]
    return listed if isinstance(listed, tuple) else listed(dtype)


@cache
def source(family: str, dtype: str) -> KernelSource:
    """All kernels of a family for one dtype, one compilation."""
    expressions = (template.format(T=TYPES[dtype]) for template in templates(family, dtype))
    return KernelSource(f"cuda/{family}.cuh", tuple(dict.fromkeys(expressions)))


def sources() -> dict[tuple[str, str], KernelSource]:
    """(family, dtype) -> source, all of them."""
    pairs = ((family, dtype) for family in FAMILIES for dtype in TYPES)
    return {pair: source(*pair) for pair in pairs if templates(*pair)}
