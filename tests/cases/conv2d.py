"""Convolution cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnengine.shapes import Conv2dShape, conv2d_shape


@dataclass(frozen=True)
class Conv2dCase:
    name: str
    tier: str
    x: tuple[int, int, int, int]  # N, H, W, C
    w: tuple[int, int, int, int]  # K, R, S, C/groups
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    @property
    def shape(self) -> Conv2dShape:
        return conv2d_shape(self.x, self.w, self.stride, self.padding, self.dilation, self.groups)

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    def __str__(self) -> str:
        return self.name


CASES = [
    Conv2dCase("one_element", "tiny", (1, 1, 1, 1), (1, 1, 1, 1)),
    Conv2dCase("textbook", "tiny", (1, 5, 5, 1), (1, 3, 3, 1)),
    Conv2dCase("uneven", "tiny", (2, 5, 4, 3), (4, 3, 2, 3), (2, 1), (1, 0)),
    Conv2dCase("groups", "tiny", (1, 4, 5, 4), (6, 3, 3, 2), 1, 1, 1, 2),
    Conv2dCase("depthwise_stride_2", "tiny", (1, 5, 5, 3), (3, 3, 3, 1), 2, 1, 1, 3),
    Conv2dCase("dilation", "tiny", (1, 7, 6, 2), (3, 3, 2, 2), 1, (0, 1), (2, 3)),
    Conv2dCase("stride_past_filter", "tiny", (1, 7, 7, 2), (2, 2, 2, 2), 3),
    Conv2dCase("padding_r_minus_1", "tiny", (1, 3, 3, 2), (2, 3, 3, 2), 1, 2),
    Conv2dCase("1x1_stride_2", "tiny", (2, 5, 5, 3), (5, 1, 1, 3), 2),
    Conv2dCase("same_even_filter", "tiny", (1, 5, 6, 2), (3, 4, 2, 2), 1, "same"),
    Conv2dCase("uneven_sides", "tiny", (1, 4, 4, 2), (2, 3, 3, 2), 2, ((0, 1), (0, 1))),
    Conv2dCase("filter_is_input", "tiny", (3, 3, 4, 2), (5, 3, 4, 2)),
    Conv2dCase("padding_past_filter", "tiny", (1, 2, 2, 1), (1, 2, 2, 1), 1, 3),
    Conv2dCase("past_filter_unreached_edges", "tiny", (2, 8, 7, 3), (3, 2, 1, 3), (5, 3), (1, 0)),
    Conv2dCase("stride_past_input", "tiny", (2, 3, 4, 2), (2, 2, 2, 2), (7, 9)),
    Conv2dCase("dilation_2_stride_2", "tiny", (1, 8, 9, 2), (3, 3, 2, 2), 2, 2, 2),
    Conv2dCase("depthwise_times_2_phases", "tiny", (1, 5, 9, 2), (4, 3, 4, 1), (1, 2), (1, 4), (1, 3), 2),
    Conv2dCase("primes", "small", (2, 13, 11, 7), (5, 3, 5, 7), 1, (1, 2)),
    Conv2dCase("one_off_tiles", "small", (1, 9, 7, 33), (65, 3, 3, 33), 1, 1),
    Conv2dCase("one_below_tiles", "small", (3, 5, 5, 31), (15, 3, 3, 31), 1, 1),
    Conv2dCase("3x3_on_tiles_of_4", "small", (1, 12, 8, 64), (64, 3, 3, 64), 1, 1),
    Conv2dCase("3x3_past_tiles_of_4", "small", (2, 11, 15, 40), (70, 3, 3, 40)),
    Conv2dCase("3x3_past_tiles_of_6", "small", (1, 13, 5, 19), (33, 3, 3, 19), 1, 2),
    Conv2dCase("3x3_uneven_sides", "small", (1, 6, 9, 48), (32, 3, 3, 48), 1, ((0, 2), (3, 1))),
    Conv2dCase("5x5_on_tiles_of_2", "small", (1, 8, 6, 64), (64, 5, 5, 64), 1, 2),
    Conv2dCase("5x5_past_tiles_of_2", "small", (2, 9, 11, 40), (70, 5, 5, 40)),
    Conv2dCase("5x5_uneven_sides", "small", (1, 6, 7, 48), (32, 5, 5, 48), 1, ((0, 3), (5, 1))),
    Conv2dCase("5x5_one_output", "small", (3, 5, 5, 33), (17, 5, 5, 33)),
    Conv2dCase("1x1_17_to_129", "small", (2, 5, 7, 17), (129, 1, 1, 17)),
    Conv2dCase("lenet_conv1", "small", (2, 28, 28, 1), (6, 5, 5, 1), 1, 2),
    Conv2dCase("lenet_conv2", "small", (2, 14, 14, 6), (16, 5, 5, 6)),
    Conv2dCase("stem_7x7", "small", (1, 19, 17, 3), (8, 7, 7, 3), 2, 3),
    Conv2dCase("stem_11x11_stride_4", "small", (1, 27, 23, 3), (8, 11, 11, 3), 4, 2),
    Conv2dCase("depthwise_3x3", "small", (2, 9, 11, 20), (20, 3, 3, 1), 1, 1, 1, 20),
    Conv2dCase("depthwise_5x5_stride_2", "small", (1, 14, 13, 18), (18, 5, 5, 1), 2, 2, 1, 18),
    Conv2dCase("depthwise_times_2", "small", (1, 7, 7, 5), (10, 3, 3, 1), 1, 1, 1, 5),
    Conv2dCase("depthwise_dilated", "small", (1, 11, 11, 16), (16, 3, 3, 1), 1, 2, 2, 16),
    Conv2dCase("depthwise_7x7", "small", (1, 15, 16, 35), (35, 7, 7, 1), 1, 3, 1, 35),
    Conv2dCase("depthwise_7x7_stride_2", "small", (1, 17, 15, 16), (16, 7, 7, 1), 2, 3, 1, 16),
    Conv2dCase("depthwise_5x5_map_of_7", "small", (2, 7, 7, 40), (40, 5, 5, 1), 1, 2, 1, 40),
    Conv2dCase("depthwise_3x3_stride_2", "small", (1, 16, 18, 48), (48, 3, 3, 1), 2, 1, 1, 48),
    Conv2dCase("depthwise_3x3_stride_3", "small", (1, 23, 23, 17), (17, 3, 3, 1), 3, 1, 1, 17),
    Conv2dCase("depthwise_4x6", "small", (1, 9, 17, 18), (18, 4, 6, 1), 1, 0, 1, 18),
    Conv2dCase("depthwise_few_channels", "small", (2, 9, 10, 6), (6, 3, 3, 1), 1, 1, 1, 6),
    Conv2dCase("depthwise_times_3", "small", (1, 8, 9, 24), (72, 3, 3, 1), 1, 1, 1, 24),
    Conv2dCase("depthwise_13x13", "small", (1, 9, 14, 8), (8, 13, 13, 1), 1, 6, 1, 8),
    Conv2dCase("depthwise_31x31", "small", (1, 11, 17, 8), (8, 31, 31, 1), 1, 15, 1, 8),
    Conv2dCase("depthwise_9_taps_stride_2", "small", (2, 5, 23, 12), (12, 2, 9, 1), 2, (0, 4), 1, 12),
    Conv2dCase("depthwise_stride_4_dilation_6", "small", (1, 9, 29, 8), (8, 3, 5, 1), (2, 4), (1, 3), (3, 6), 8),
    Conv2dCase("depthwise_7x7_strides_differ", "small", (2, 8, 31, 16), (16, 3, 7, 1), (3, 2), ((1, 0), (5, 1)), 1, 16),
    Conv2dCase("depthwise_one_pixel", "small", (33, 1, 1, 20), (20, 1, 1, 1), 1, 0, 1, 20),
    Conv2dCase("depthwise_times_3_dilated", "small", (1, 9, 19, 6), (18, 4, 3, 1), (3, 2), ((1, 0), (3, 1)), (2, 4), 6),
    Conv2dCase("groups_of_2_to_4", "small", (1, 9, 15, 18), (36, 3, 3, 2), 2, 1, 1, 9),
    Conv2dCase("groups_of_8_to_4", "small", (1, 8, 15, 40), (20, 3, 3, 8), 1, 1, 1, 5),
    Conv2dCase("groups_of_3_to_5", "small", (2, 8, 9, 33), (55, 3, 3, 3), 1, 1, 1, 11),
    Conv2dCase("groups_of_4_1x1", "small", (1, 5, 9, 36), (36, 1, 1, 4), 1, 0, 1, 9),
    Conv2dCase("groups_of_4_dilated", "small", (1, 12, 12, 20), (20, 3, 3, 4), 1, 2, 2, 5),
    Conv2dCase("groups_of_8", "small", (2, 7, 9, 40), (40, 3, 3, 8), 1, 1, 1, 5),
    Conv2dCase("groups_of_16_stride_2", "small", (1, 10, 9, 80), (80, 3, 2, 16), 2, (1, 0), 1, 5),
    Conv2dCase("grouped_8", "small", (1, 6, 6, 32), (32, 3, 3, 4), 1, 1, 1, 8),
    Conv2dCase("3x3_stride_2", "small", (1, 10, 9, 16), (24, 3, 3, 16), 2, 1),
    Conv2dCase("3x3_stride_2_many_channels", "small", (2, 11, 10, 68), (72, 3, 3, 68), 2, 1),
    Conv2dCase("3x3_stride_2_odd_channels", "small", (1, 10, 11, 35), (37, 3, 3, 35), 2, (0, 1)),
    Conv2dCase("5x4_stride_3_by_2", "small", (2, 13, 11, 36), (40, 5, 4, 36), (3, 2), ((2, 1), (0, 3))),
    Conv2dCase("3x3_dilated_stride_2", "small", (1, 13, 14, 36), (40, 3, 3, 36), 2, (2, 1), 2),
    Conv2dCase("4x5_dilated_stride_4_by_3", "small", (1, 19, 17, 12), (36, 4, 5, 12), (4, 3), (3, 2), (6, 2)),
    Conv2dCase("stride_4_past_filter", "small", (1, 15, 14, 40), (36, 2, 3, 40), 4, 1),
    Conv2dCase("1x1_stride_2_many_channels", "small", (2, 9, 8, 36), (68, 1, 1, 36), 2),
    Conv2dCase("3x3_dilated", "small", (1, 12, 12, 8), (16, 3, 3, 8), 1, 2, 2),
    Conv2dCase("1_by_7", "small", (1, 9, 9, 4), (6, 1, 7, 4), 1, (0, 3)),
    Conv2dCase("one_row", "small", (1, 1, 37, 3), (9, 1, 3, 3), 1, (0, 1)),
    Conv2dCase("images_as_lanes", "small", (37, 6, 7, 3), (5, 3, 3, 3), (2, 1), 1),
    Conv2dCase("images_as_lanes_dilated", "small", (70, 11, 8, 2), (6, 5, 3, 2), (1, 3), (2, 1), (2, 1)),
    Conv2dCase("images_as_lanes_past_filter", "small", (33, 7, 9, 1), (3, 2, 2, 1), 3, 2),
    Conv2dCase("lenet_conv1_batch_64", "layer", (64, 28, 28, 1), (6, 5, 5, 1), 1, 2),
    Conv2dCase("lenet_conv2_batch_64", "layer", (64, 14, 14, 6), (16, 5, 5, 6)),
    Conv2dCase("alexnet_conv1", "layer", (2, 224, 224, 3), (64, 11, 11, 3), 4, 2),
    Conv2dCase("alexnet_conv2", "layer", (1, 27, 27, 64), (192, 5, 5, 64), 1, 2),
    Conv2dCase("resnet_conv1", "layer", (1, 224, 224, 3), (64, 7, 7, 3), 2, 3),
    Conv2dCase("resnet_3x3_64", "layer", (2, 56, 56, 64), (64, 3, 3, 64), 1, 1),
    Conv2dCase("resnet_3x3_stride_2", "layer", (1, 56, 56, 128), (128, 3, 3, 128), 2, 1),
    Conv2dCase("resnet_1x1_256_to_128", "layer", (1, 28, 28, 256), (128, 1, 1, 256)),
    Conv2dCase("resnet_1x1_2048_to_80", "layer", (3, 7, 7, 2048), (80, 1, 1, 2048)),
    Conv2dCase("efficientnet_1x1_past_the_caches", "layer", (4, 56, 57, 16), (192, 1, 1, 16)),
    Conv2dCase("resnet_3x3_512", "layer", (1, 7, 7, 512), (512, 3, 3, 512), 1, 1),
    Conv2dCase("efficientnet_dw5x5_stride_2", "layer", (2, 56, 56, 144), (144, 5, 5, 1), 2, 2, 1, 144),
    Conv2dCase("efficientnet_dw3x3", "layer", (1, 112, 112, 32), (32, 3, 3, 1), 1, 1, 1, 32),
    Conv2dCase("efficientnet_dw5x5", "layer", (3, 14, 14, 672), (672, 5, 5, 1), 1, 2, 1, 672),
    Conv2dCase("resnext_3x3", "layer", (2, 56, 56, 128), (128, 3, 3, 4), 1, 1, 1, 32),
    Conv2dCase("efficientnet_1x1_16_to_96", "layer", (1, 112, 112, 16), (96, 1, 1, 16)),
]
