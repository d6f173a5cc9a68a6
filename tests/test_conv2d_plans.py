"""The documented choice of a convolution's kernel on the GPU, its tile and its blocks."""

from __future__ import annotations

import struct

import pytest

from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _conv2d_wgmma as wgmma
from cnnengine.backends import _kernel_library as library
from cnnengine.backends._conv2d_plans import Given
from cnnengine.backends._kernel_plans import Plan
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, conv2d_shape

FLOAT32 = Given("float32", 16, 90, winograd=False)
RESNET = conv2d_shape((32, 28, 28, 128), (128, 3, 3, 128), 1, 1)


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        (RESNET, Given("float32", 16, 90), "winograd"),
        (RESNET, FLOAT32, "implicit_gemm"),
        (RESNET, Given("float16", 16, 75), "implicit_gemm_mma"),
        (RESNET, Given("bfloat16", 16, 80), "implicit_gemm_mma"),
        (RESNET, Given("bfloat16", 16, 75), "implicit_gemm"),  # whose tensor cores do not have it
        (conv2d_shape((8, 28, 28, 64), (33, 3, 3, 64)), FLOAT32, "implicit_gemm"),
        (conv2d_shape((8, 28, 28, 64), (32, 3, 3, 64)), FLOAT32, "tiled"),
        (conv2d_shape((1, 7, 6, 64), (64, 3, 3, 64)), FLOAT32, "tiled"),  # 20 pixels
        (conv2d_shape((8, 28, 28, 64), (64, 3, 3, 1), groups=64), FLOAT32, "depthwise"),
    ],
)
def test_choice(shape: Conv2dShape, given: Given, expected: str) -> None:
    assert conv2d.conv2d_forward(shape, None, given).algorithm == expected


@pytest.mark.parametrize(
    ("verb", "channels", "algorithm", "dtype", "expected"),
    [
        ("conv2d_forward", 3, None, "float16", (4, "implicit_gemm_mma")),
        ("conv2d_forward", 1, None, "bfloat16", (2, "implicit_gemm_mma")),
        ("conv2d_backward_weight", 3, None, "float32", (4, "implicit_gemm")),
        ("conv2d_backward_input", 3, None, "float16", None),  # nobody wants it
        ("conv2d_backward_input", 3, "first_layer", "float16", (4, "implicit_gemm_mma")),
        ("conv2d_forward", 4, None, "float16", None),
        ("conv2d_forward", 3, "tiled", "float16", None),
    ],
)
def test_first_layers_get_channels(
    verb: str, channels: int, algorithm: str | None, dtype: str, expected: tuple[int, str] | None
) -> None:
    shape = conv2d_shape((8, 32, 32, channels), (16, 3, 3, channels), 2, 1)
    padded = conv2d.first_layer(verb, shape, algorithm, Given(dtype, 16, 90))
    assert (padded and (padded.shape.C, padded.algorithm)) == expected
    if padded:
        wanted = conv2d_shape((8, 32, 32, expected[0]), (16, 3, 3, expected[0]), 2, 1)
        assert padded.shape.members() == wanted.members()


def test_a_first_layer_of_many_channels_is_refused() -> None:
    with pytest.raises(Unsupported, match="takes one to three channels in one group, received 8 in 1"):
        conv2d.first_layer("conv2d_forward", conv2d_shape((1, 8, 8, 8), (8, 3, 3, 8)), "first_layer", FLOAT32)


@pytest.mark.parametrize(
    ("w", "alignment", "tile", "vector"),
    [
        ((128, 3, 3, 128), 16, library.SIMT_LARGE, 4),
        ((64, 3, 3, 128), 16, library.SIMT_MEDIUM, 4),
        ((128, 3, 3, 128), 8, library.SIMT_SMALL, 1),  # arrays that start between two float4
        ((126, 3, 3, 128), 16, library.SIMT_SMALL, 1),
    ],
)
def test_tile(w: tuple[int, ...], alignment: int, tile: library.SimtTile, vector: int) -> None:
    shape = conv2d_shape((64, 28, 28, 128), w, 1, 1)
    plan = conv2d.conv2d_forward(shape, None, FLOAT32._replace(alignment=alignment))
    assert plan.family == "conv2d/implicit_gemm"
    assert plan.launch.kernel == f"conv2d_forward_implicit_gemm<{{T}}, Conv2dShape, {tile}, {vector}>"
    assert plan.launch.block == (tile.threads, 1, 1)
    assert plan.launch.shared_bytes == tile.shared_bytes
    tiles = -(-64 * 28 * 28 // tile.m) * -(-w[0] // tile.n)
    assert plan.launch.grid == (tiles, 1, 1)


@pytest.mark.parametrize("algorithm", ["implicit_gemm", "implicit_gemm_tf32"])
def test_backward_input_has_blocks_for_every_phase(algorithm: str) -> None:
    """Six phases of stride 3 by 2, the largest of 5 x 8 pixels an image; a stride past the input has one a pixel."""
    shape = conv2d_shape((4, 13, 15, 64), (64, 3, 3, 64), (3, 2), 1)
    (count, _, _) = conv2d.conv2d_backward_input(shape, algorithm, FLOAT32)[0].launch.grid
    assert count == 6 * -(-4 * 5 * 8 // 64)
    shape = conv2d_shape((4, 2, 3, 64), (64, 1, 1, 64), 9)
    (count, _, _) = conv2d.conv2d_backward_input(shape, algorithm, FLOAT32)[0].launch.grid
    assert count == 2 * 3


def test_a_split_counts_its_pixels_in_an_int() -> None:
    shape = conv2d_shape((60_000, 200, 200, 256), (256, 3, 3, 256), 1, 1)  # 2.4e9 pixels, 36 tiles
    plan = conv2d.conv2d_backward_weight(shape, None, FLOAT32)
    assert plan.pixels <= conv2d.LONGEST_SPLIT
    assert plan.splits * plan.pixels >= 60_000 * 200 * 200
    wide = conv2d_shape((60_000, 200, 200, 1024), (1024, 3, 3, 1024), 1, 1)  # 576 tiles fill a GPU without splits
    plan = conv2d.conv2d_backward_weight(wide, None, FLOAT32)
    assert 1 < plan.splits < 8
    assert plan.pixels <= conv2d.LONGEST_SPLIT


HALF = Given("float16", 16, 90)


def wgmma_plan(shape: Conv2dShape, verb: str = "conv2d_forward") -> tuple[str, Plan]:
    """(tile, plan) of implicit_gemm_wgmma"""
    found = getattr(conv2d, verb)(shape, conv2d.WGMMA, HALF)
    plan = (found.products if verb.endswith("weight") else found[0] if verb.endswith("input") else found).launch
    return plan.kernel.removesuffix(">").split(", ", 1)[1], plan


@pytest.mark.parametrize(
    ("shape", "tile", "grid", "cluster"),
    [
        # 392 tiles of pixels in 196 pairs for 66 clusters
        (conv2d_shape((64, 28, 28, 128), (128, 3, 3, 128), 1, 1), library.WGMMA_TILES[1], 132, (2, 1, 1)),
        # 98 tiles of pixels and all filters at once: one round, as of narrower tiles that ask more of L2
        (conv2d_shape((64, 14, 14, 256), (256, 3, 3, 256), 1, 1), library.WGMMA_TILES[0], 98, (2, 1, 1)),
        # one tile of pixels: the second block of a cluster would have none
        (conv2d_shape((1, 8, 8, 64), (256, 1, 1, 64)), library.WGMMA_TILES[2], 4, None),
    ],
)
def test_tiles_and_clusters_of_wgmma(
    shape: Conv2dShape, tile: library.WgmmaTile, grid: int, cluster: tuple[int, int, int] | None
) -> None:
    name, plan = wgmma_plan(shape)
    assert (name, plan.grid, plan.cluster) == (str(tile), (grid, 1, 1), cluster)


@pytest.mark.parametrize(("filters", "rows"), [(64, 64), (256, 128)])
def test_few_filters_take_tiles_of_64_rows_in_backward_weight(filters: int, rows: int) -> None:
    name, _ = wgmma_plan(conv2d_shape((64, 56, 56, 64), (filters, 3, 3, 64), 1, 1), "conv2d_backward_weight")
    assert name.startswith(f"WgmmaTile<{rows}, ")


def test_all_phases_are_one_launch_of_wgmma() -> None:
    """Stride 2 of a 3x3 filter: phases of 2x2, 2, 2 and 1 taps, the ones with most first, where dx has 5 rows and 4
    columns and the first phase 3 x 2."""
    shape = conv2d_shape((2, 5, 4, 64), (64, 3, 3, 64), 2, 1)
    (plan,) = conv2d.conv2d_backward_input(shape, conv2d.WGMMA, HALF)
    assert plan.launch.kernel.startswith("conv2d_backward_input_phases_wgmma<")
    values = struct.unpack("<84i", plan.geometry)
    assert values[:3] == (2, 3, 2)
    assert values[18:20] == (2, 2)
    # (first output, first tap, taps, shift); odd positions see taps 2 and 0 of outputs p and p + 1
    assert values[20:28] == (1, 2, 2, 0, 0, 1, 1, 0)


def test_the_busiest() -> None:
    """Seven tiles of 5 and four of 2 for three: 3, 2 and 2 of the long ones, then 1, 2 and 1 of the short ones."""
    assert wgmma.busiest([(7, 5), (4, 2)], 3) == 17
    assert wgmma.busiest([(132, 3)], 132) == 3
    assert wgmma.busiest([], 4) == 0
