"""What the emulator counted of a call."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..jit.counters import Counters

MOST = 20_000_000  # operations of an emulated call: some seconds


@dataclass(frozen=True, slots=True)
class Emulated:
    """``what``: the call that ran, ``whole`` whether on the arrays that were asked for. ``kernels``: what it launched,
    and ``differs`` how that is not what the GPU would, or ""."""

    what: str
    whole: bool
    kernels: tuple[str, ...]
    differs: str
    counters: Counters = field(repr=False)
