"""What the GPU's convolutions should take, before anybody has measured it: the roofline and whole rounds of tiles.

python bench/predicted.py                                        # prints the tables
python bench/predicted.py --page docs/kernels/conv2d-cuda.md     # puts them between the page's marks

A launch takes the longest of three times: its least traffic at the memory's rate; its rounds of tiles, a tile being
multiplied by one multiprocessor at its share of the arithmetic rate, padding included; and what its tiles ask of L2.
And a constant for the launch. Where a kernel on CUDA cores or with a tensor core's small instructions is compared with
another, a block takes the instructions of its main loop instead, which tests/test_sass.py reads from the machine code.
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.layers import CONV2D
from bench.summary import replaced
from cnnengine.backends import _conv2d_plans as plans
from cnnengine.backends import _conv2d_wgmma as wgmma
from cnnengine.backends import _grouped_mma_plans as grouped_mma
from cnnengine.backends import _grouped_plans as grouped
from cnnengine.backends import _kernel_library as library
from cnnengine.backends import _winograd_plans as winograd
from cnnengine.backends._kernel_plans import Plan
from cnnengine.backends.contract import CONV2D_VERBS
from cnnengine.shapes import Conv2dShape, conv2d_shape

MULTIPROCESSORS = 132  # of an H200
TENSOR_RATE = 790e12  # operations a second, 16 bits, attainable by wgmma
SYNC_SHARE = 0.6  # of it that mma.sync reaches on Hopper: an estimate
MEMORY_RATE = 4.3e12  # bytes a second, attainable
L2_RATE = 8.3e12  # bytes a second, of L2 to all multiprocessors: at least, what a GEMM at 704 TFLOP/s has got
LAUNCH_SECONDS = 2.5e-6  # in a graph, its gap to the next
BATCH = 64
ITEM = 2
GIVEN = plans.Given("float16", 16, 90)
ISSUE_RATE = 4 * 1.7e9  # instructions of a warp a second, of one multiprocessor
MULTIPLY_ADDS = 0.8  # of implicit_gemm's instructions
WINOGRAD_STEP, WINOGRAD_REST = 1290, 1200  # instructions of a warp: of 8 channels; of what is left, an estimate
STRIP_TURN = {"float32": 440, "float16": 480}  # of grouped: a strip of 7 outputs, a row of 3 taps, 4 channels
WEIGHT_TURN = {"float32": 180, "float16": 210}  # of its backward_weight: three outputs
RECTANGLE_TAP = {8: 115, 16: 82}  # of grouped on tensor cores, by group: 32 pixels, 64 outputs
RECTANGLE_STEP = {8: 175, 16: 195}  # of its backward_weight: 16 pixels
COPY, ENDING = 25, 400  # of 16 bytes that a thread copies; of outputs on their way to memory: estimates


@dataclass(frozen=True)
class Predicted:
    """Of one verb: milliseconds by the memory, by L2, by rounds of tiles, and together; ``share`` of the rate."""

    rung: str
    tile: str
    rounds: float
    memory: float
    l2: float
    arithmetic: float
    total: float
    share: float


def predict(shape: Conv2dShape, verb: str) -> Predicted:
    """Of the rung that is chosen for float16 on compute capability 9.0."""
    padded = plans.first_layer(verb, shape, None, GIVEN)
    if padded is not None:  # two launches and a pass over x before it
        p = predict_rung(padded.shape, verb, padded.algorithm)
        moved = ITEM * (prod(shape.x) + prod(padded.shape.x)) / MEMORY_RATE
        total = 1e-3 * p.total + moved + 2 * LAUNCH_SECONDS
        share = shape.flops() / total / TENSOR_RATE
        return replace(p, rung=plans.FIRST_LAYER, memory=p.memory + 1e3 * moved, total=1e3 * total, share=share)
    return predict_rung(shape, verb, None)


def predict_rung(shape: Conv2dShape, verb: str, algorithm: str | None) -> Predicted:
    found = getattr(plans, verb)(shape, algorithm, GIVEN)
    launches, extra = _launches(found), 2 * getattr(found, "workspace", 0)  # partial sums, written and read
    works = [_work(launch, shape, verb, algorithm) for launch in launches]
    seconds, l2 = sum(work.seconds for work in works), sum(work.l2 for work in works)
    memory = (shape.bytes(ITEM) + extra) / MEMORY_RATE
    total = max(seconds, l2, memory) + LAUNCH_SECONDS * (len(launches) + (1 if extra else 0))
    first = launches[0]
    return Predicted(
        first.algorithm, _tile_name(first.launch), sum(work.rounds for work in works), 1e3 * memory, 1e3 * l2,
        1e3 * seconds, 1e3 * total, shape.flops() / total / TENSOR_RATE,
    )  # fmt: skip


def _launches(found: plans.ConvPlan | plans.WeightPlan | tuple[plans.ConvPlan, ...]) -> tuple[plans.ConvPlan, ...]:
    if isinstance(found, plans.WeightPlan):
        return (found.products,)
    return (found,) if isinstance(found, plans.ConvPlan) else found


def _tile_name(plan: Plan) -> str:
    for tile in (*library.WGMMA_WEIGHT_TILES, *library.MMA_TILES):
        if str(tile) in plan.kernel:
            return f"{tile.m} x {tile.n}{' x 2' if plan.cluster else ''}"
    return ""


class Work(NamedTuple):
    """Tiles a multiprocessor; seconds of the busiest, by its products and by what it asks of L2."""

    rounds: float = 0.0
    seconds: float = 0.0
    l2: float = 0.0


def _work(plan: plans.ConvPlan, shape: Conv2dShape, verb: str, algorithm: str | None) -> Work:
    """Of a launch; a rung without tiles is left to the memory."""
    share, l2_share = TENSOR_RATE / MULTIPROCESSORS, L2_RATE / MULTIPROCESSORS
    if plan.family == wgmma.FAMILY:
        tile, together, parts = wgmma_work(plan, verb)
        tiles = sum(count for count, _ in parts) * together / MULTIPROCESSORS
        steps = wgmma.busiest(parts, MULTIPROCESSORS // together)
        products = steps * 2 * tile.m * tile.n * wgmma.BLOCK
        return Work(tiles, products / share, steps * wgmma.step_bytes(tile, together) / l2_share)
    for small in library.MMA_TILES:
        if str(small) in plan.launch.kernel:
            reduction = shape.reduction if verb == "conv2d_forward" else shape.R * shape.S * shape.K // shape.groups
            if verb == "conv2d_backward_weight":
                reduction = plans.conv2d_backward_weight(shape, algorithm, GIVEN).pixels
            count = plan.launch.grid[0]
            rounds = -(-count // MULTIPROCESSORS)
            products, read = 2 * small.m * small.n * reduction, (small.m + small.n) * reduction * ITEM
            seconds = rounds * products / (share * SYNC_SHARE)
            return Work(count / MULTIPROCESSORS, seconds, rounds * read / l2_share)
    return Work()


def wgmma_work(plan: plans.ConvPlan, verb: str) -> tuple[library.WgmmaTile, int, list[tuple[int, int]]]:
    """The tile, blocks of a cluster, and (sets of tiles, steps of each) by phase: of the geometry the kernel takes."""
    (tile,) = (tile for tile in library.WGMMA_WEIGHT_TILES if str(tile) in plan.launch.kernel)
    together, step = (plan.launch.cluster or (1,))[0], wgmma.BLOCK
    if verb == "conv2d_backward_weight":
        n, p, q, *_, r, s, _, _, c, k, splits = struct.unpack("<14i", plan.geometry)
        sets = -(-k // (tile.m * together)) * -(-r * s * -(-c // step) // (tile.n // step))
        return tile, together, [(sets * splits, -(-n * p * q // step // splits))]
    values = struct.unpack(f"<{20 + 8 * wgmma.PHASES}i", plan.geometry)
    (n, rows, columns), channels, outputs = values[:3], values[12], values[13]
    sets = -(-n * rows * columns // (tile.m * together)) * -(-outputs // tile.n)
    taps_h, taps_w = (values[at + 2 : at + 4 * count : 4] for at, count in ((20, values[18]), (52, values[19])))
    return tile, together, [(sets, h * w * -(-channels // step)) for h in taps_h for w in taps_w]


def by_instructions(shape: Conv2dShape, verb: str, algorithm: str, dtype: str) -> float:
    """Seconds of a rung on CUDA cores, or of ``grouped``."""
    given = plans.Given(dtype, 16, 90)
    found = getattr(plans, verb)(shape, algorithm, given)
    (plan,) = _launches(found)
    blocks, warps = plan.launch.grid[0], prod(plan.launch.block) / 32
    extra = 2 * (found.workspace if isinstance(found, plans.WeightPlan) else plan.workspace)  # written and read
    forward, items = verb == "conv2d_forward", getattr(found, "pixels", 0)
    group = shape.C // shape.groups
    if algorithm == plans.WINOGRAD:
        each = winograd.Pass.of(verb, shape).steps * WINOGRAD_STEP + WINOGRAD_REST
    elif algorithm == "implicit_gemm":
        tile = next(tile for tile in library.SIMT_TILES if str(tile) in plan.launch.kernel)
        channels = group if forward else shape.K // shape.groups
        reduction = items or shape.R * shape.S * channels
        each = tile.m * tile.n * reduction / 32 / MULTIPLY_ADDS / warps
    elif plan.family == grouped.FAMILY and items:
        runs = -(-shape.Q // 16)
        each = items / plan.launch.block[1] * -(-shape.Q // runs // 3) * WEIGHT_TURN[dtype]
    elif plan.family == grouped.FAMILY:
        each = shape.R * group / 4 * STRIP_TURN[dtype] + ENDING
    else:
        each = _rectangles(shape, verb, group, items, warps)
    rounds = -(-blocks // MULTIPROCESSORS)
    memory = (shape.bytes(library.ITEM_BYTES[dtype]) + extra) / MEMORY_RATE
    return max(rounds * each * warps / ISSUE_RATE, memory) + LAUNCH_SECONDS * (2 if extra else 1)


def _rectangles(shape: Conv2dShape, verb: str, group: int, items: int, warps: float) -> float:
    """Instructions of a warp of grouped on tensor cores at stride 1, where every block has all taps."""
    found = grouped_mma.rectangle(verb, shape)
    assert found is not None
    pixels, taps = found.height * found.width, shape.R * shape.S
    under = (found.height + shape.R - 1) * (found.width + shape.S - 1)
    if verb == "conv2d_backward_weight":
        return items * (-(-pixels // 16) * RECTANGLE_STEP[group] + (under + pixels) * 8 / (32 * warps) * COPY)
    copies = under * 8 + 64 * shape.reduction / 8
    return taps * RECTANGLE_TAP[group] + copies / (32 * warps) * COPY + ENDING


def compared() -> Iterator[tuple[str, str, str, str, float, str, float]]:
    """(layer, dtype, pass, rung, its seconds, another rung, its seconds)"""
    for channels, size in ((64, 56), (128, 28), (256, 14), (512, 7)):
        shape = conv2d_shape((BATCH, size, size, channels), (channels, 3, 3, channels), 1, 1)
        for verb in CONV2D_VERBS[:2]:
            pair = [by_instructions(shape, verb, name, "float32") for name in (plans.WINOGRAD, "implicit_gemm")]
            yield (
                f"3x3 {channels}>{channels} @{size}",
                "float32",
                verb,
                plans.WINOGRAD,
                pair[0],
                "implicit_gemm",
                pair[1],
            )
    for group, size in ((4, 56), (8, 56), (8, 28), (16, 28)):
        channels = 32 * group
        shape = conv2d_shape((BATCH, size, size, channels), (channels, 3, 3, group), 1, 1, 1, 32)
        for dtype in ("float32", "float16"):
            other = "implicit_gemm" if dtype == "float32" else "implicit_gemm_mma"
            for verb in CONV2D_VERBS:
                ours = by_instructions(shape, verb, "grouped", dtype)
                if dtype == "float32":
                    theirs = by_instructions(shape, verb, other, dtype)
                else:
                    theirs = 1e-3 * predict_rung(shape, verb, other).total
                yield f"3x3 {channels} in 32 groups @{size}", dtype, verb, "grouped", ours, other, theirs


def resnet50(batch: int) -> Iterator[tuple[str, Conv2dShape]]:
    """Its 53 convolutions (v1.5: the stride is in the 3x3)."""

    def layer(c: int, k: int, kernel: int, size: int, stride: int = 1) -> tuple[str, Conv2dShape]:
        shape = conv2d_shape((batch, size, size, c), (k, kernel, kernel, c), stride, kernel // 2)
        return f"{kernel}x{kernel}{f'/{stride}' if stride > 1 else ''} {c}>{k} @{size}", shape

    yield layer(3, 64, 7, 224, 2)
    channels, size = 64, 56
    for number, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if block == 0 and number > 0 else 1
            yield layer(channels, width, 1, size)
            yield layer(width, width, 3, size, stride)
            yield layer(width, 4 * width, 1, size // stride)
            if block == 0:
                yield layer(channels, 4 * width, 1, size, stride)
            channels, size = 4 * width, size // stride


def _l2_bytes(batch: int) -> Iterator[tuple[int, int]]:
    """Of ResNet-50's launches of implicit_gemm_wgmma: what their tiles ask L2 for, and would without clusters."""
    for (_, shape), verb in product(resnet50(batch), CONV2D_VERBS):
        if plans.first_layer(verb, shape, None, GIVEN) is not None:
            continue
        for plan in _launches(getattr(plans, verb)(shape, None, GIVEN)):
            if plan.family == wgmma.FAMILY:
                tile, together, parts = wgmma_work(plan, verb)
                steps = together * sum(sets * steps for sets, steps in parts)
                yield steps * wgmma.step_bytes(tile, together), steps * wgmma.step_bytes(tile, 1)


def tables() -> str:
    """The layer list, and ResNet-50's sums."""
    lines = [
        f"Batch {BATCH}, float16, an H200 taken at {TENSOR_RATE * 1e-12:.0f} TFLOP/s, {L2_RATE * 1e-12:.1f} TB/s of L2"
        f" and {MEMORY_RATE * 1e-12:.1f} TB/s from memory (attainable, not from a datasheet). Predicted, not measured."
        " `x 2`: a cluster of two blocks.",
        "",
        "| layer | pass | rung | tile | rounds | tiles, us | L2, us | memory, us | predicted, us | of the rate |",
        "|---|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for layer in CONV2D:
        x, w = (BATCH, *layer.shape.x[1:]), layer.shape.w
        shape = conv2d_shape(x, w, layer.stride, layer.padding, 1, layer.groups)
        for verb in CONV2D_VERBS:
            p = predict(shape, verb)
            times = (p.arithmetic, p.l2, p.memory, p.total)
            numbers = " | ".join(f"{1e3 * time:.1f}" for time in times) + f" | {p.share:.0%}"
            name = verb.removeprefix("conv2d_")
            lines.append(f"| {layer.name} | {name} | `{p.rung}` | {p.tile} | {p.rounds:.1f} | {numbers} |")
    sums = {verb: sum(predict(shape, verb).total for _, shape in resnet50(BATCH)) for verb in CONV2D_VERBS}
    # nobody wants the gradient of the images
    sums["conv2d_backward_input"] -= predict(next(resnet50(BATCH))[1], "conv2d_backward_input").total
    forward, *backward = sums.values()
    asked, alone = (sum(column) for column in zip(*_l2_bytes(BATCH), strict=True))
    lines += [
        "",
        f"ResNet-50's 53 convolutions at batch {BATCH}: forward {forward:.2f} ms, backward {sum(backward):.2f} ms"
        f" (backward_input {backward[0]:.2f}, backward_weight {backward[1]:.2f}).",
        "",
        f"Its tiles on `implicit_gemm_wgmma` ask L2 for {1e-9 * asked:.1f} GB in all three passes; without clusters it"
        f" would be {1e-9 * alone:.1f} GB.",
        "",
        f"Rungs for some shapes beside those for any, at batch {BATCH}, by the instructions of their main loops:",
        "",
        "| layer | dtype | pass | rung | predicted, us | beside | predicted, us | times |",
        "|---|---|---|---|--:|---|--:|--:|",
    ]
    for name, dtype, verb, rung, seconds, other, others in compared():
        numbers = f"`{rung}` | {1e6 * seconds:.0f} | `{other}` | {1e6 * others:.0f} | {others / seconds:.1f}"
        lines.append(f"| {name} | {dtype} | {verb.removeprefix('conv2d_')} | {numbers} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    p = argparse.ArgumentParser(prog="bench/predicted.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--page", type=Path, help="page between whose marks the tables go")
    options = p.parse_args(arguments)
    if options.page is None:
        print(tables())
    else:
        options.page.write_text(replaced(options.page.read_text(), tables()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
