"""Normalisation cases."""

from __future__ import annotations

from dataclasses import dataclass

from cnnengine.shapes import NormShape, norm_shape


@dataclass(frozen=True)
class NormCase:
    name: str
    tier: str
    N: int
    L: int
    G: int
    D: int

    @property
    def shape(self) -> NormShape:
        return norm_shape(self.N, self.L, self.G, self.D)

    def __str__(self) -> str:
        return self.name


def _batch(name: str, tier: str, M: int, C: int) -> NormCase:
    return NormCase(f"batch_{name}", tier, 1, M, C, 1)


def _layer(name: str, tier: str, M: int, C: int) -> NormCase:
    return NormCase(f"layer_{name}", tier, M, 1, 1, C)


CASES = [
    _batch("2_by_1", "tiny", 2, 1),
    _batch("5_by_3", "tiny", 5, 3),
    _batch("37_by_9", "tiny", 37, 9),
    _layer("1_by_2", "tiny", 1, 2),
    _layer("3_by_7", "tiny", 3, 7),
    _layer("2_by_33", "tiny", 2, 33),
    NormCase("group_2_of_6", "tiny", 2, 5, 2, 3),
    NormCase("group_of_one_pixel", "tiny", 3, 1, 2, 5),
    NormCase("instance_3", "tiny", 2, 7, 3, 1),
    NormCase("one_group", "tiny", 2, 3, 1, 4),
    NormCase("one_value", "tiny", 2, 1, 1, 1),
    _batch("3_channels", "small", 1033, 3),
    _batch("6_channels", "small", 517, 6),
    _batch("24_channels", "small", 211, 24),
    _batch("64_channels", "small", 199, 64),
    _batch("101_channels", "small", 67, 101),
    _batch("few_rows", "small", 5, 131),
    _layer("192", "small", 37, 192),
    _layer("257", "small", 5, 257),
    NormCase("group_32_of_64", "small", 3, 35, 32, 2),
    NormCase("group_3_of_33", "small", 2, 41, 3, 11),
    NormCase("instance_17", "small", 3, 29, 17, 1),
    NormCase("group_of_one_pixel_wide", "small", 9, 1, 5, 37),
    _batch("resnet_stem", "layer", 2 * 56 * 56, 64),
    _batch("rgb", "layer", 4 * 111 * 113, 3),
    _batch("resnet_end", "layer", 8 * 7 * 7, 2048),
    _batch("beyond_the_caches", "layer", 36000, 64),
    _batch("beyond_the_caches_odd", "layer", 31003, 72),
    _layer("vit", "layer", 2 * 197, 192),
    _layer("long", "layer", 3, 50176),
    _layer("beyond_the_caches", "layer", 12000, 192),
    NormCase("group_32", "layer", 2, 784, 32, 8),
    NormCase("instance_64", "layer", 4, 784, 64, 1),
]
