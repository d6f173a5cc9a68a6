"""Tensor maps: how TMA sees an array, as ``cuTensorMapEncodeTiled`` and ``cuTensorMapEncodeIm2col`` take it. Axes are
innermost first, sizes in elements, strides in bytes (of the second axis and up); the swizzle is 128 bytes, what lies
outside the array is 0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import _launch

DATA_TYPES = {"float16": 6, "float32": 7, "bfloat16": 9}  # CUtensorMapDataType
SWIZZLE_128, PROMOTION_256 = 3, 3  # CUtensorMapSwizzle, CUtensorMapL2promotion
KEPT_MAPS = 4096  # half a megabyte


@dataclass(frozen=True, slots=True)
class TiledMap:
    """Boxes of a tensor."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]

    def encode(self, encoder: Any, dtype: str, address: int) -> bytes:
        """``encoder``: ``_launch`` for a GPU, a HostModule for the emulator. Raises what that raises."""
        steps = (1,) * len(self.sizes)
        made: bytes = encoder.encode_tensor_map_tiled(
            DATA_TYPES[dtype], address, self.sizes, self.strides, self.box, steps, 0, SWIZZLE_128, PROMOTION_256, 0
        )
        return made


@dataclass(frozen=True, slots=True)
class Im2colMap:
    """Pixels of (N, H, W, C), ``pixels`` at a time with ``channels`` of each: w, then h, then n run over the positions
    lower, lower + step, ... up to size - 1 + upper; a load adds the offset of a tap to all of them."""

    sizes: tuple[int, int, int, int]  # C, W, H, N
    strides: tuple[int, int, int]
    lower: tuple[int, int]  # w, h
    upper: tuple[int, int]
    steps: tuple[int, int]
    channels: int
    pixels: int

    def encode(self, encoder: Any, dtype: str, address: int) -> bytes:
        """As TiledMap's."""
        made: bytes = encoder.encode_tensor_map_im2col(
            DATA_TYPES[dtype], address, self.sizes, self.strides, self.lower, self.upper, self.channels, self.pixels,
            (1, *self.steps, 1), 0, SWIZZLE_128, PROMOTION_256, 0,
        )  # fmt: skip
        return made


TensorMap = TiledMap | Im2colMap


class TensorMaps:
    """Encoded maps by what they describe and where it lies; the oldest go when there are many."""

    def __init__(self) -> None:
        self._found: dict[tuple[TensorMap, str, int], bytes] = {}

    def find(self, spec: TensorMap, array: Any, encoder: Any) -> bytes:
        address = int.from_bytes(_launch.pack_pointers((array,), encoder is _launch), "little")
        key = spec, array.dtype.name, address
        made = self._found.get(key)
        if made is None:
            made = self._found[key] = spec.encode(encoder, key[1], address)
            if len(self._found) > KEPT_MAPS:
                self._found.pop(next(iter(self._found)), None)
        return made
