"""The documented choice of a convolution's kernel on the GPU, its tile and its blocks."""

from __future__ import annotations

import pytest

from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _kernel_library as library
from cnnengine.backends._conv2d_plans import Given
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
