"""Which convolution kernel runs a shape, on how many blocks: the documented choice behind ``algorithm=None``, and what
a named rung takes. A plan follows from the shape, the dtype, how arrays are aligned and the GPU's compute capability.

    direct                 any shape; chosen where a group has too few channels for a tile
    first_layer            one to three channels, one group: padded with zeros to two or four, then implicit_gemm_mma,
                           or implicit_gemm for float32; chosen but for backward_input, which nobody wants
    depthwise              one input channel a group; chosen for it, where there is more than one and few filters each
    tiled                  any shape, CUDA cores; chosen where outputs fill less than half of implicit_gemm's small tile
    implicit_gemm          any shape, CUDA cores, float32 sums; chosen for float32
    implicit_gemm_mma      any shape, float16 (compute capability 7.5) and bfloat16 (8.0), tensor cores; chosen for both
    implicit_gemm_tf32     as mma for float32 operands rounded to TF32 (8.0); only where it is asked for
    implicit_gemm_3xtf32   the same with three products for each: about float32's accuracy; only where it is asked for
    implicit_gemm_wgmma    float16 and bfloat16 on compute capability 9.0, one group, channels in multiples of 8; chosen
                           from WIDE channels on
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ..errors import Unsupported
from ..jit.tensor_map import TensorMap
from ..shapes import CACHED_SHAPES, Conv2dShape
from . import _conv2d_wgmma as wgmma
from . import _depthwise_plans as depthwise
from . import _kernel_plans as plans
from ._kernel_library import (
    ITEM_BYTES,
    MMA_LARGE,
    MMA_MEDIUM,
    MMA_SMALL,
    SIMT_SMALL,
    SIMT_TILES,
    MmaTile,
    SimtTile,
    Tile,
)
from ._kernel_plans import FULL_GPU, NARROW, THREADS, Plan

TENSOR_CORES = {"float16": 75, "bfloat16": 80, "float32": 80}  # compute capability whose mma takes them
MMA = {  # algorithm -> what becomes of its operands, in csrc/cuda/mma_tile.cuh
    "implicit_gemm_mma": "Rounded::no",
    "implicit_gemm_tf32": "Rounded::tf32",
    "implicit_gemm_3xtf32": "Rounded::tf32_3x",
}
WGMMA = "implicit_gemm_wgmma"
FIRST_LAYER = "first_layer"
ALGORITHMS = ("direct", FIRST_LAYER, "depthwise", "tiled", "implicit_gemm", *MMA, WGMMA)
DEPTHWISE = "conv2d/depthwise"  # the family
WIDE = 64  # channels that fill a step of wgmma's reduction
SPLIT_PIXELS = 128  # least pixels of a split of backward_weight, so that its tile is worth its loads
LONGEST_SPLIT = 1 << 30  # pixels, which kernels count in an int

AnyTile = Tile | SimtTile | MmaTile


Size = tuple[int, int, int]  # rows, columns and number of the matrices that tiles cover


class Given(NamedTuple):
    """What a plan depends on beside the shape."""

    dtype: str
    alignment: int  # bytes, of all arrays: 16 or a smaller power of two
    capability: int  # 90 for 9.0


class ConvPlan(NamedTuple):
    """One launch of a kernel of ``family``: on both operands and the shape, or on their tensor maps and a geometry."""

    family: str
    launch: Plan
    algorithm: str
    maps: tuple[TensorMap, ...] = ()
    geometry: bytes = b""
    moment_pixels: int = 0  # of a tile, where the forward kernel can leave its tiles' moments (tile_moments.cuh)


class WeightPlan(NamedTuple):
    """backward_weight: the products, and where they are split the second kernel that adds the partial sums."""

    products: ConvPlan
    total: Plan | None
    splits: int
    pixels: int  # a split adds; of depthwise runs of pixels
    workspace: int  # bytes


class Padded(NamedTuple):
    """What ``first_layer`` runs instead: the shape with more channels, and the rung."""

    shape: Conv2dShape
    algorithm: str


@lru_cache(CACHED_SHAPES)
def first_layer(verb: str, shape: Conv2dShape, algorithm: str | None, given: Given) -> Padded | None:
    """None where another rung runs the shape. Raises Unsupported where this one is named and does not take it."""
    takes = shape.C <= 3 and shape.groups == 1
    if algorithm == FIRST_LAYER and not takes:
        raise Unsupported(
            f"{FIRST_LAYER}: takes one to three channels in one group, received {shape.C} in {shape.groups}"
        )
    wanted = takes and shape.K >= NARROW and verb != "conv2d_backward_input"
    if algorithm != FIRST_LAYER and not (algorithm is None and wanted):
        return None
    on_tensor_cores = given.dtype != "float32" and given.capability >= TENSOR_CORES[given.dtype]
    channels = 2 if shape.C == 1 and on_tensor_cores else 4  # 4 or 8 bytes; 16 of float32
    return Padded(replace(shape, C=channels), "implicit_gemm_mma" if on_tensor_cores else "implicit_gemm")


@lru_cache(CACHED_SHAPES)
def conv2d_forward(shape: Conv2dShape, algorithm: str | None, given: Given) -> ConvPlan:
    """Where nothing is named ``direct`` takes groups of fewer than NARROW output channels, but for depthwise shapes."""
    size = shape.N * shape.P * shape.Q, shape.K // shape.groups, shape.groups
    chosen = _choose(algorithm, shape, given, size, narrow=size[1] < NARROW)
    if chosen == "depthwise":
        return ConvPlan(DEPTHWISE, depthwise.forward(shape, given.dtype, given.alignment), chosen)
    if chosen == "direct":
        return _direct("conv2d_forward", shape.N * shape.P, shape.Q * shape.K)
    if chosen == WGMMA:
        return _on_maps(wgmma.forward(shape))
    plans.reduction(shape.reduction)
    return _tiled("conv2d_forward", chosen, shape, given, size)


@lru_cache(CACHED_SHAPES)
def conv2d_backward_input(shape: Conv2dShape, algorithm: str | None, given: Given) -> tuple[ConvPlan, ...]:
    """One launch, or one for each phase of a stride. Where nothing is named ``direct`` takes groups of fewer than
    NARROW input channels, but for depthwise shapes."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    phases, pixels = _phases(shape)
    size = pixels, Cg, shape.groups * phases
    chosen = _choose(algorithm, shape, given, size, narrow=Cg < NARROW)
    if chosen == "depthwise":
        return (ConvPlan(DEPTHWISE, depthwise.backward_input(shape, given.dtype, given.alignment), chosen),)
    if chosen == "direct":
        return (_direct("conv2d_backward_input", shape.N * shape.H, shape.W * shape.C),)
    if chosen == WGMMA:
        return tuple(_on_maps(launch) for launch in wgmma.backward_input(shape))
    plans.reduction(shape.R * shape.S * max(Cg, Kg))
    if chosen == "tiled":
        size = shape.N * shape.H * shape.W, Cg, shape.groups
    return (_tiled("conv2d_backward_input", chosen, shape, given, size),)


@lru_cache(CACHED_SHAPES)
def conv2d_backward_weight(shape: Conv2dShape, algorithm: str | None, given: Given) -> WeightPlan:
    """Never ``direct`` by itself, which has one thread a weight: few of them, with long sums."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    elements, pixels = plans.reduction(shape.reduction), shape.N * shape.P * shape.Q
    size = Kg, elements, shape.groups
    chosen = _choose(algorithm, shape, given, size, narrow=False)
    if chosen == "depthwise":
        parts = depthwise.backward_weight(shape, given.dtype, given.alignment)
        return _added(ConvPlan(DEPTHWISE, parts[0], chosen), shape, *parts[1:])
    if chosen == "direct":
        return WeightPlan(_direct("conv2d_backward_weight", shape.K * shape.R, shape.S * Cg), None, 1, pixels, 0)
    if chosen == WGMMA:
        launch, splits, share = wgmma.backward_weight(shape)
        return _added(_on_maps(launch), shape, splits, share)
    tile, vector = _tile(chosen, shape, given, size)
    count = shape.groups * -(-Kg // tile.m) * -(-elements // tile.n)
    splits = max(1, min(-(-FULL_GPU // count), pixels // SPLIT_PIXELS), -(-pixels // LONGEST_SPLIT))
    share = -(-pixels // splits)
    share = -(-share // tile.k) * tile.k  # whole steps: a split must not read into the next
    splits = -(-pixels // share)
    products = _launch("conv2d_backward_weight", chosen, tile, vector, (Kg, elements, shape.groups * splits))
    return _added(products, shape, splits, share)


def _added(products: ConvPlan, shape: Conv2dShape, splits: int, share: int) -> WeightPlan:
    """With the kernel that adds the parts, where there are more than one."""
    if splits == 1:
        return WeightPlan(products, None, 1, share, 0)
    weights = shape.K * shape.reduction
    total = Plan("conv2d_backward_weight_sum<{T}>", plans.blocks(-(-weights // THREADS)), (THREADS, 1, 1), 0)
    return WeightPlan(products, total, splits, share, splits * weights * 4)


def _phases(shape: Conv2dShape) -> tuple[int, int]:
    """Their number, and the pixels of the largest, as in csrc/cuda/conv2d/phases.cuh."""
    rows, columns = -(-shape.H // shape.stride_h), -(-shape.W // shape.stride_w)
    return min(shape.stride_h, shape.H) * min(shape.stride_w, shape.W), shape.N * rows * columns


def _choose(algorithm: str | None, shape: Conv2dShape, given: Given, size: Size, *, narrow: bool) -> str:
    """The rung. Raises Unsupported where the named one does not take this shape or dtype or this GPU lacks its
    instructions."""
    refusal = depthwise.refusal(shape, given.dtype)
    if algorithm == "depthwise" and refusal is not None:
        raise Unsupported(f"depthwise: {refusal}")
    if algorithm is None:
        if refusal is None and shape.C > 1 and shape.K // shape.groups < NARROW:
            return "depthwise"
        if narrow:
            return "direct"
        if min(shape.C, shape.K) >= WIDE and _wgmma_refuses(shape, given) is None:
            return WGMMA
        fits = given.dtype != "float32" and given.capability >= TENSOR_CORES[given.dtype]
        if fits:
            return "implicit_gemm_mma"
        rows, columns, _ = size
        return "implicit_gemm" if rows > SIMT_SMALL.m // 2 and columns > SIMT_SMALL.n // 2 else "tiled"
    if algorithm == WGMMA and (reason := _wgmma_refuses(shape, given)) is not None:
        raise Unsupported(f"{WGMMA}: {reason}")
    if algorithm not in MMA:
        return algorithm
    if algorithm == "implicit_gemm_mma" and given.dtype == "float32":
        raise Unsupported(
            "implicit_gemm_mma: takes float16 and bfloat16, received float32, which stays exact unless"
            " implicit_gemm_tf32 or implicit_gemm_3xtf32 is asked for"
        )
    if algorithm != "implicit_gemm_mma" and given.dtype != "float32":
        raise Unsupported(f"{algorithm}: takes float32, received {given.dtype}; use implicit_gemm_mma")
    if given.capability < TENSOR_CORES[given.dtype]:
        needed = TENSOR_CORES[given.dtype]
        raise Unsupported(
            f"{algorithm}: {given.dtype} on tensor cores needs compute capability {needed / 10}, this GPU has"
            f" {given.capability / 10}"
        )
    return algorithm


def _wgmma_refuses(shape: Conv2dShape, given: Given) -> str | None:
    if given.dtype == "float32":
        return "takes float16 and bfloat16, received float32"
    if given.capability != 90:  # its instructions are those of one architecture
        return f"needs compute capability 9.0, this GPU has {given.capability / 10}"
    return wgmma.refuses(shape, given.alignment)


def _on_maps(launch: wgmma.Launch) -> ConvPlan:
    return ConvPlan(wgmma.FAMILY, launch.plan, WGMMA, launch.maps, launch.geometry)


def vector(shape: Conv2dShape, given: Given, counts: tuple[int, ...]) -> int:
    """The first of ``counts``, else 1: elements that lie side by side in every array and may be moved at once."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    for count in counts:
        if given.alignment % (count * ITEM_BYTES[given.dtype]) == 0 and Cg % count == 0 and Kg % count == 0:
            return count
    return 1


def simt_choice(shape: Conv2dShape, given: Given, size: Size) -> tuple[SimtTile, int]:
    """The tile and the vector. Single elements need so many addresses that only the small tile has registers."""
    length = vector(shape, given, (4,))
    return plans.fitting(SIMT_TILES if length == 4 else (SIMT_SMALL,), *size), length


def mma_choice(shape: Conv2dShape, given: Given, size: Size) -> tuple[MmaTile, int]:
    """The tile and the vector: 16 bytes, four elements, 4 bytes or one element. Copies of less than 16 bytes cost more
    than the products: the small tile has most of them in flight."""
    widest = 16 // ITEM_BYTES[given.dtype]
    length = vector(shape, given, (widest, 4, widest // 4))
    tiles = (MMA_LARGE, MMA_MEDIUM, MMA_SMALL)[{widest: 0, 4: 1}.get(length, 2) :]
    return plans.fitting([tile.of(given.dtype) for tile in tiles], *size), length


def _tile(chosen: str, shape: Conv2dShape, given: Given, size: Size) -> tuple[AnyTile, int]:
    if chosen == "tiled":
        return plans.tile(*size), 1
    return simt_choice(shape, given, size) if chosen == "implicit_gemm" else mma_choice(shape, given, size)


def _tiled(verb: str, chosen: str, shape: Conv2dShape, given: Given, size: Size) -> ConvPlan:
    return _launch(verb, chosen, *_tile(chosen, shape, given, size), size)


def _launch(verb: str, chosen: str, tile: AnyTile, vector: int, size: Size) -> ConvPlan:
    if isinstance(tile, Tile):
        return ConvPlan("conv2d", plans.tiled(f"{verb}_tiled<{{T}}, Conv2dShape, {tile}>", tile, *size), chosen)
    if isinstance(tile, SimtTile):
        family, kernel = "conv2d/implicit_gemm", f"{verb}_implicit_gemm<{{T}}, Conv2dShape, {tile}, {vector}>"
    else:
        family = "conv2d/implicit_gemm_mma"
        kernel = f"{verb}_mma<{{T}}, Conv2dShape, {tile}, {MMA[chosen]}, {vector}>"
    moment_pixels = tile.m if verb == "conv2d_forward" else 0
    return ConvPlan(family, plans.tiled(kernel, tile, *size), chosen, moment_pixels=moment_pixels)


def _direct(verb: str, count: int, width: int) -> ConvPlan:
    return ConvPlan("conv2d", plans.lines(f"{verb}_direct<{{T}}, Conv2dShape>", count, width), "direct")
