"""Which convolution kernel runs a shape, on how many blocks: the documented choice behind ``algorithm=None``, and what
a named rung takes. A plan follows from the shape, the dtype, how arrays are aligned and the GPU's compute capability.

    direct                 any shape; chosen where a group has too few channels for a tile
    first_layer            one to three channels, one group: padded with zeros to two or four, then implicit_gemm_mma,
                           or implicit_gemm for float32; chosen but for backward_input, which nobody wants
    depthwise              one input channel a group; chosen for it, where there is more than one and few filters each
    grouped                groups of several channels; chosen up to 32 channels and filters a group: for float32
                           multiples of four, in 16 bits four, 8, 16 and 32 of both
    tiled                  any shape, CUDA cores; chosen where outputs fill less than half of implicit_gemm's small tile
    implicit_gemm          any shape, CUDA cores, float32 sums; chosen for float32
    winograd               3x3 filters in float32 without stride, dilation and groups, but for backward_weight; chosen
                           where it is allowed and has fewer multiply-adds to do (_winograd_plans.wins)
    implicit_gemm_mma      any shape, float16 (compute capability 7.5) and bfloat16 (8.0), tensor cores; chosen for both
    implicit_gemm_tf32     as mma for float32 operands rounded to TF32 (8.0); only where it is asked for
    implicit_gemm_3xtf32   the same with three products for each: about float32's accuracy; only where it is asked for
    implicit_gemm_wgmma    float16 and bfloat16 on compute capability 9.0, one group, channels in multiples of 8; chosen
                           from WIDE channels on

Behind a rung may stand one of its configurations: "implicit_gemm_mma: MmaTile<64, 64, 32, 2, 2, 4>", as ``candidates``
lists them for ``cnn.autotune``. One that does not fit the arrays at hand gives way to the rung's documented choice, and
with " or another" behind it a rung that does not gives way to the backend's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, TypeVar

from ..errors import Unsupported
from ..jit.tensor_map import TensorMap
from ..shapes import CACHED_SHAPES, Conv2dShape
from . import _conv2d_wgmma as wgmma
from . import _depthwise_plans as depthwise
from . import _grouped_mma_plans as grouped_mma
from . import _grouped_plans as grouped
from . import _kernel_plans as plans
from . import _winograd_plans as winograd
from ._kernel_library import (
    ITEM_BYTES,
    MMA_LARGE,
    MMA_MEDIUM,
    MMA_SMALL,
    SIMT_SMALL,
    SIMT_TILES,
    SIMT_VARIANTS,
    TILES,
    MmaTile,
    SimtTile,
    Tile,
    mma_variants,
)
from ._kernel_plans import FULL_GPU, NARROW, THREADS, Plan
from .contract import CONV2D_VERBS

TENSOR_CORES = {"float16": 75, "bfloat16": 80, "float32": 80}  # compute capability whose mma takes them
MMA = {  # algorithm -> what becomes of its operands, in csrc/cuda/mma_tile.cuh
    "implicit_gemm_mma": "Rounded::no",
    "implicit_gemm_tf32": "Rounded::tf32",
    "implicit_gemm_3xtf32": "Rounded::tf32_3x",
}
WGMMA = "implicit_gemm_wgmma"
FIRST_LAYER = "first_layer"
WINOGRAD = "winograd"
ALGORITHMS = ("direct", FIRST_LAYER, "depthwise", "grouped", "tiled", "implicit_gemm", *MMA, WGMMA)  # of every verb
ROUNDED = ("implicit_gemm_tf32", "implicit_gemm_3xtf32")  # never chosen, and not measured unless they are named
CONFIGURED, OR_ANOTHER = ": ", " or another"  # in names
TILED = ("tiled", "implicit_gemm", *MMA)  # rungs whose tiles are this module's
DEPTHWISE = "conv2d/depthwise"  # the family
WIDEST_GROUP = 32  # channels and filters of a group up to which a tile of the implicit GEMMs is at most half full
WIDE = 64  # channels that fill a step of wgmma's reduction
SPLIT_PIXELS = 128  # least pixels of a split of backward_weight, so that its tile is worth its loads
LONGEST_SPLIT = 1 << 30  # pixels, which kernels count in an int

AnyTile = Tile | SimtTile | MmaTile
T = TypeVar("T")

Size = tuple[int, int, int]  # rows, columns and number of the matrices that tiles cover


class Given(NamedTuple):
    """What a plan depends on beside the shape."""

    dtype: str
    alignment: int  # bytes, of all arrays: 16 or a smaller power of two
    capability: int  # 90 for 9.0
    winograd: bool = True  # whether it is allowed


class ConvPlan(NamedTuple):
    """One launch of a kernel of ``family``: on both operands and the shape, or on their tensor maps and a geometry.
    Where there is ``filters``, this launch before it puts the second operand into a workspace in the kernel's order.
    ``sizes`` go before the shape."""

    family: str
    launch: Plan
    algorithm: str
    maps: tuple[TensorMap, ...] = ()
    geometry: bytes = b""
    filters: Plan | None = None
    workspace: int = 0  # bytes
    sizes: tuple[int, ...] = ()
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
    algorithm, configuration, _ = parsed(algorithm)
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
    rung = "implicit_gemm_mma" if on_tensor_cores else "implicit_gemm"
    return Padded(replace(shape, C=channels), rung + (CONFIGURED + configuration if configuration else ""))


@lru_cache(CACHED_SHAPES)
def conv2d_forward(shape: Conv2dShape, algorithm: str | None, given: Given) -> ConvPlan:
    """Where nothing is named ``direct`` takes groups of fewer than NARROW output channels, but for depthwise shapes."""
    size = _size("conv2d_forward", shape)
    chosen, configuration = _choose("conv2d_forward", algorithm, shape, given, size, narrow=size[1] < NARROW)
    if chosen == WINOGRAD:
        return _transformed("conv2d_forward", shape)
    if chosen == "depthwise":
        options = depthwise.forward(shape, given.dtype, given.alignment)
        return ConvPlan(DEPTHWISE, _pick(options, configuration), chosen)
    if chosen == "grouped":
        return _grouped("conv2d_forward", shape, given)
    if chosen == "direct":
        return _direct("conv2d_forward", shape.N * shape.P, shape.Q * shape.K)
    if chosen == WGMMA:
        choice = _wgmma_gathers("conv2d_forward", shape).get(configuration)
        return _on_maps(wgmma.forward(shape, choice))._replace(moment_pixels=wgmma.CONSUMER_ROWS)
    plans.reduction(shape.reduction)
    tile, vector = _pick(tiles(chosen, shape, given, size), configuration)
    return _launch("conv2d_forward", chosen, tile, vector, size)


@lru_cache(CACHED_SHAPES)
def conv2d_backward_input(shape: Conv2dShape, algorithm: str | None, given: Given) -> tuple[ConvPlan, ...]:
    """One launch, or one for each phase of a stride. Where nothing is named ``direct`` takes groups of fewer than
    NARROW input channels, but for depthwise shapes."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    size = _size("conv2d_backward_input", shape)
    chosen, configuration = _choose("conv2d_backward_input", algorithm, shape, given, size, narrow=Cg < NARROW)
    if chosen == WINOGRAD:
        return (_transformed("conv2d_backward_input", shape),)
    if chosen == "depthwise":
        options = depthwise.backward_input(shape, given.dtype, given.alignment)
        return (ConvPlan(DEPTHWISE, _pick(options, configuration), chosen),)
    if chosen == "grouped":
        return (_grouped("conv2d_backward_input", shape, given),)
    if chosen == "direct":
        return (_direct("conv2d_backward_input", shape.N * shape.H, shape.W * shape.C),)
    if chosen == WGMMA:
        choice = _wgmma_gathers("conv2d_backward_input", shape).get(configuration)
        return (_on_maps(wgmma.backward_input(shape, choice)),)
    plans.reduction(shape.R * shape.S * max(Cg, Kg))
    size = _size("conv2d_backward_input", shape, chosen)
    tile, vector = _pick(tiles(chosen, shape, given, size), configuration)
    return (_launch("conv2d_backward_input", chosen, tile, vector, size),)


@lru_cache(CACHED_SHAPES)
def conv2d_backward_weight(shape: Conv2dShape, algorithm: str | None, given: Given) -> WeightPlan:
    """Never ``direct`` by itself, which has one thread a weight: few of them, with long sums."""
    Cg, pixels = shape.C // shape.groups, shape.N * shape.P * shape.Q
    Kg, elements, groups = size = _size("conv2d_backward_weight", shape)
    plans.reduction(elements)
    chosen, configuration = _choose("conv2d_backward_weight", algorithm, shape, given, size, narrow=False)
    if chosen == "depthwise":
        parts = _pick(depthwise.backward_weight(shape, given.dtype, given.alignment), configuration)
        return _added(ConvPlan(DEPTHWISE, parts[0], chosen), shape, *parts[1:])
    if chosen == "grouped" and _on_grouped_mma("conv2d_backward_weight", shape, given):
        parts, sizes = grouped_mma.backward_weight(shape)
        return _added(ConvPlan(grouped_mma.FAMILY, parts[0], chosen, sizes=sizes), shape, *parts[1:])
    if chosen == "grouped":
        parts = grouped.backward_weight(shape, given.dtype, given.alignment)
        return _added(ConvPlan(grouped.FAMILY, parts[0], chosen), shape, *parts[1:])
    if chosen == "direct":
        return WeightPlan(_direct("conv2d_backward_weight", shape.K * shape.R, shape.S * Cg), None, 1, pixels, 0)
    if chosen == WGMMA:
        launch, splits, share = wgmma.backward_weight(shape, _wgmma_weights(shape).get(configuration))
        return _added(_on_maps(launch), shape, splits, share)
    tile, vector, splits, share = _pick(_splits(chosen, shape, given, size), configuration)
    products = _launch("conv2d_backward_weight", chosen, tile, vector, (Kg, elements, groups * splits))
    return _added(products, shape, splits, share)


def _splits(chosen: str, shape: Conv2dShape, given: Given, size: Size) -> dict[str, tuple[AnyTile, int, int, int]]:
    """Tile, vector, splits and pixels of a split of backward_weight by configuration, the documented choice first."""
    Kg, elements, groups = size
    pixels = shape.N * shape.P * shape.Q
    found: dict[str, tuple[AnyTile, int, int, int]] = {}
    for name, (tile, vector) in tiles(chosen, shape, given, size).items():
        count = groups * -(-Kg // tile.m) * -(-elements // tile.n)
        for wanted in plans.splits_around(max(1, min(-(-FULL_GPU // count), pixels // SPLIT_PIXELS))):
            share = -(-pixels // max(wanted, -(-pixels // LONGEST_SPLIT)))
            share = -(-share // tile.k) * tile.k  # whole steps: a split must not read into the next
            splits = -(-pixels // share)
            found.setdefault(f"{name}, {splits} splits", (tile, vector, splits, share))
    return found


def _wgmma_gathers(verb: str, shape: Conv2dShape) -> dict[str, wgmma.Choice]:
    return {str(choice): choice for choice in wgmma.gather_choices(verb, shape)}


def _wgmma_weights(shape: Conv2dShape) -> dict[str, tuple[wgmma.Choice, int]]:
    found: dict[str, tuple[wgmma.Choice, int]] = {}
    for choice in wgmma.weight_choices(shape):  # some of which make the same splits
        found.setdefault(f"{choice[0]}, {wgmma.backward_weight(shape, choice).splits} splits", choice)
    return found


def _added(products: ConvPlan, shape: Conv2dShape, splits: int, share: int) -> WeightPlan:
    """With the kernel that adds the parts, where there are more than one."""
    if splits == 1:
        return WeightPlan(products, None, 1, share, 0)
    weights = shape.K * shape.reduction
    total = Plan("conv2d_backward_weight_sum<{T}>", plans.blocks(-(-weights // THREADS)), (THREADS, 1, 1), 0)
    return WeightPlan(products, total, splits, share, splits * weights * 4)


def _size(verb: str, shape: Conv2dShape, rung: str = "") -> Size:
    """Of the products that a rung makes; ``tiled`` takes the phases of a stride together."""
    Cg, Kg = shape.C // shape.groups, shape.K // shape.groups
    if verb == "conv2d_forward":
        return shape.N * shape.P * shape.Q, Kg, shape.groups
    if verb == "conv2d_backward_weight":
        return Kg, shape.reduction, shape.groups
    if rung == "tiled":
        return shape.N * shape.H * shape.W, Cg, shape.groups
    phases, pixels = _phases(shape)
    return pixels, Cg, shape.groups * phases


def _phases(shape: Conv2dShape) -> tuple[int, int]:
    """Their number, and the pixels of the largest, as in csrc/cuda/conv2d/phases.cuh."""
    rows, columns = -(-shape.H // shape.stride_h), -(-shape.W // shape.stride_w)
    return min(shape.stride_h, shape.H) * min(shape.stride_w, shape.W), shape.N * rows * columns


def parsed(algorithm: str | None) -> tuple[str | None, str, bool]:
    """(rung, configuration or "", whether another rung may take its place)"""
    if algorithm is None:
        return None, "", True
    rung, _, configuration = algorithm.removesuffix(OR_ANOTHER).partition(CONFIGURED)
    return rung, configuration, algorithm.endswith(OR_ANOTHER)


def _pick(options: Mapping[str, T], configuration: str) -> T:
    """The first is the documented choice."""
    return options[configuration] if configuration in options else next(iter(options.values()))


def _choose(
    verb: str, algorithm: str | None, shape: Conv2dShape, given: Given, size: Size, *, narrow: bool
) -> tuple[str, str]:
    """The rung, and the configuration that is asked of it or "". Raises Unsupported as ``_rung``."""
    rung, configuration, replaceable = parsed(algorithm)
    try:
        return _rung(verb, rung, shape, given, size, narrow=narrow), configuration
    except Unsupported:
        if not replaceable:
            raise
        return _rung(verb, None, shape, given, size, narrow=narrow), ""


def _rung(verb: str, algorithm: str | None, shape: Conv2dShape, given: Given, size: Size, *, narrow: bool) -> str:
    """The rung. Raises Unsupported where the named one does not take this shape or dtype or this GPU lacks its
    instructions."""
    refusal = depthwise.refusal(shape, given.dtype)
    if algorithm == "depthwise" and refusal is not None:
        raise Unsupported(f"depthwise: {refusal}")
    wide = grouped.refusal(shape)
    if algorithm == "grouped" and wide is not None:
        raise Unsupported(f"grouped: {wide}")
    if algorithm is None:
        if refusal is None and shape.C > 1 and shape.K // shape.groups < NARROW:
            return "depthwise"
        if wide is None and _wants_grouped(shape, given):
            return "grouped"
        if narrow:
            return "direct"
        if min(shape.C, shape.K) >= WIDE and _wgmma_refuses(shape, given) is None:
            return WGMMA
        fits = given.dtype != "float32" and given.capability >= TENSOR_CORES[given.dtype]
        if fits:
            return "implicit_gemm_mma"
        rows, columns, _ = size
        if rows <= SIMT_SMALL.m // 2 or columns <= SIMT_SMALL.n // 2:
            return "tiled"
        fewer_products = given.winograd and _winograd_refuses(verb, shape, given) is None and winograd.wins(verb, shape)
        return WINOGRAD if fewer_products else "implicit_gemm"
    if algorithm == WINOGRAD and (reason := _winograd_refuses(verb, shape, given)) is not None:
        raise Unsupported(f"{WINOGRAD}: {reason}")
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


def _wants_grouped(shape: Conv2dShape, given: Given) -> bool:
    """Whether ``grouped`` is chosen where it takes the shape. On tensor cores a tile that is an eighth full or more is
    better than CUDA cores."""
    widest = max(shape.C, shape.K) // shape.groups
    if widest > WIDEST_GROUP:
        return False
    if widest >= NARROW and given.dtype != "float32" and given.capability >= TENSOR_CORES[given.dtype]:
        return all(_on_grouped_mma(verb, shape, given) for verb in CONV2D_VERBS)
    return grouped.vector(shape, given.dtype, given.alignment) == 4


def _on_grouped_mma(verb: str, shape: Conv2dShape, given: Given) -> bool:
    fits = given.capability >= TENSOR_CORES[given.dtype]
    return fits and grouped_mma.takes(verb, shape, given.dtype, given.alignment)


def _grouped(verb: str, shape: Conv2dShape, given: Given) -> ConvPlan:
    """forward or backward_input"""
    if _on_grouped_mma(verb, shape, given):
        launch, sizes = grouped_mma.plan(verb, shape)
        return ConvPlan(grouped_mma.FAMILY, launch, "grouped", sizes=sizes)
    strips = grouped.forward if verb == "conv2d_forward" else grouped.backward_input
    return ConvPlan(grouped.FAMILY, strips(shape, given.dtype, given.alignment), "grouped")


def _winograd_refuses(verb: str, shape: Conv2dShape, given: Given) -> str | None:
    if verb == "conv2d_backward_weight":
        return "takes conv2d_forward and conv2d_backward_input"
    return winograd.refusal(shape, given.dtype)


def _transformed(verb: str, shape: Conv2dShape) -> ConvPlan:
    found = winograd.plan(verb, shape)
    return ConvPlan(winograd.FAMILY, found.convolution, WINOGRAD, filters=found.filters, workspace=found.workspace)


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


def tiles(chosen: str, shape: Conv2dShape, given: Given, size: Size) -> dict[str, tuple[AnyTile, int]]:
    """Tile and vector of a rung by configuration, the documented choice first."""
    if chosen == "tiled":
        found: list[tuple[AnyTile, int]] = [(plans.tile(*size), 1), *((tile, 1) for tile in TILES)]
    else:
        simt = chosen == "implicit_gemm"
        first = simt_choice(shape, given, size) if simt else mma_choice(shape, given, size)
        variants = SIMT_VARIANTS if simt else mma_variants(given.dtype)
        found = [first, *((tile, vector) for tile, vector in variants if vector == first[1])]
    return {str(tile): (tile, vector) for tile, vector in dict.fromkeys(found)}


def candidates(verb: str, shape: Conv2dShape, algorithm: str | None, given: Given) -> list[str]:
    """Every rung that takes a shape, or the named one, in every configuration; the documented choice first. Without
    the rungs that round more, unless one is named. Empty where the named one refuses."""
    if algorithm is not None:
        rungs = [algorithm]
    else:
        own = FIRST_LAYER if first_layer(verb, shape, None, given) else _planned(verb, shape, None, given).algorithm
        others = (*ALGORITHMS, WINOGRAD) if given.winograd else ALGORITHMS
        rungs = [own, *(rung for rung in others if rung != own and rung not in ROUNDED)]
    found: list[str] = []
    for rung in rungs:
        try:
            found += (rung + (CONFIGURED + text if text else "") for text in configurations(verb, shape, rung, given))
        except Unsupported:
            continue
    return found


def configurations(verb: str, shape: Conv2dShape, rung: str, given: Given) -> list[str]:
    """What may stand behind a rung for a shape, the documented choice first; "" where there is nothing to choose.
    Raises Unsupported where the rung does not take the shape."""
    if padded := first_layer(verb, shape, rung, given):
        return configurations(verb, padded.shape, padded.algorithm, given)
    _planned(verb, shape, rung, given)
    weight, size = verb == "conv2d_backward_weight", _size(verb, shape, rung)
    if rung == "depthwise":
        by_verb = getattr(depthwise, verb.removeprefix("conv2d_"))
        return list(by_verb(shape, given.dtype, given.alignment))
    if rung == WGMMA and weight:
        return list(_wgmma_weights(shape))
    if rung == WGMMA:
        return list(_wgmma_gathers(verb, shape))
    if rung not in TILED:
        return [""]
    return list((_splits if weight else tiles)(rung, shape, given, size))


def _planned(verb: str, shape: Conv2dShape, algorithm: str | None, given: Given) -> ConvPlan:
    """The first launch of a verb."""
    if verb == "conv2d_forward":
        return conv2d_forward(shape, algorithm, given)
    if verb == "conv2d_backward_input":
        return conv2d_backward_input(shape, algorithm, given)[0]
    return conv2d_backward_weight(shape, algorithm, given).products


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
