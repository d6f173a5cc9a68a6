"""What every shape is: frozen, and handed to kernels as consecutive int32."""

from __future__ import annotations

import struct
from dataclasses import fields

CACHED_SHAPES = 4096  # of each kind, interned by its factory

Packed = bytes  # the classes have a method of the name bytes


class PackedShape:
    """Members as consecutive int32, made once."""

    __slots__ = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "packed", struct.pack(f"<{len(self.members())}i", *self.members()))

    def members(self) -> tuple[int, ...]:
        return tuple(int(getattr(self, f.name)) for f in fields(self) if f.name != "packed")  # type: ignore[arg-type]
