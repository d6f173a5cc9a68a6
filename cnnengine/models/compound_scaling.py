"""Compound scaling: a family of networks from one table of stages, all wider, deeper and finer by one rule.

Tan and Le: EfficientNet: rethinking model scaling for convolutional neural networks, ICML 2019, arXiv 1905.11946. Table
1 is the base, section 3.3 the rule: depth 1.2^phi, width 1.1^phi and resolution 1.15^phi, whose product of arithmetic,
1.2 * 1.1^2 * 1.15^2, is about 2 for each step of phi.
"""

from __future__ import annotations

import math
from typing import NamedTuple

DEPTH, WIDTH, RESOLUTION = 1.2, 1.1, 1.15  # alpha, beta and gamma of the paper
MULTIPLE = 8  # of which numbers of channels are
PADDING = 32  # pixels an image is larger than its centre crop, of which a network sees the crop


class Stage(NamedTuple):
    """``blocks`` blocks of one kind: the first with ``stride``, all with the same kernel and channels."""

    expand: int  # times the channels within a block
    kernel: int
    stride: int
    channels: int
    blocks: int


BASE = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
STEM, HEAD = 32, 1280  # channels before the first stage and behind the last
SIZE = 224  # pixels of the base's images


class Scaling(NamedTuple):
    """How much wider and deeper than the base a network is, and the side of its images in pixels."""

    width: float
    depth: float
    size: int


def compound(phi: float) -> Scaling:
    """The paper's rule, for any ``phi``; 0 is the base."""
    return Scaling(WIDTH**phi, DEPTH**phi, round(SIZE * RESOLUTION**phi))


def channels(base: int, width: float) -> int:
    """``width * base`` as the nearest multiple of 8 that is not more than a tenth below it."""
    wanted = base * width
    near = max(MULTIPLE, int(wanted + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return near if near >= 0.9 * wanted else near + MULTIPLE


def blocks(base: int, depth: float) -> int:
    """``depth * base``, rounded up."""
    return math.ceil(depth * base)


def scaled(scaling: Scaling) -> tuple[Stage, ...]:
    """The base's stages, wider and deeper."""
    width, depth, _ = scaling
    return tuple(s._replace(channels=channels(s.channels, width), blocks=blocks(s.blocks, depth)) for s in BASE)
