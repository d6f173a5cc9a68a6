"""One block of a convolution, run on the emulator: every warp request, and where everything it moved comes from.

The kernel runs twice, on the values and on *tags*: inputs whose elements are all different. Control flow does not
depend on values, so both runs make the same requests, and what a request of the second moves tells which element of
which input it is, whatever way it took through registers and shared memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..backends.contract import IDENTITY
from ..backends.emulator.backend import EmulatorBackend
from ..errors import KernelError, Unsupported
from ..jit import trace
from ..jit.cache import Cache, default_cache
from ..jit.counters import Counters, aligned
from ..jit.launch import EmulatorRuntime, Kernel, Size3
from ..jit.source import KernelSource
from ..shapes import Conv2dShape
from .rungs import ALGORITHMS, VERBS

ELEMENTS = 60_000  # of both operands: 16 bits have 63486 tags, and a picture shows no more


@dataclass(frozen=True, slots=True)
class Launched:
    expression: str
    grid: Size3
    threads: Size3
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class Recording:
    """``arrays``: both operands and the whole result, by name, and their ``addresses`` in the launch. ``tags``
    (n, 32, 16): the bytes that each request of ``trace`` moved when the operands were tags. ``counters``: of the
    launch, all its blocks."""

    verb: str
    algorithm: str
    shape: Conv2dShape
    launched: Launched
    block: Size3
    arrays: dict[str, np.ndarray]
    addresses: dict[str, int]
    trace: trace.Trace
    tags: np.ndarray
    counters: Counters

    @property
    def result(self) -> np.ndarray:
        return self.arrays[VERBS[self.verb][2]]


class _TracingRuntime(EmulatorRuntime):
    """Compiles a kernel by itself, not its family; traces what it launches between ``begin`` and ``end``."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache, count=True)
        self.block: Size3 = (0, 0, 0)
        self.made: list[tuple[Launched, trace.Trace]] = []

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        alone = source.only(expression)
        module, launch = self.module(alone), super().kernel(alone, expression)
        module.take_counters()  # what a recording before this one has left

        def traced(
            grid: Size3, block: Size3, shared_bytes: int, arguments: tuple[Any, ...], cluster: Size3 | None = None
        ) -> None:
            if any(not 0 <= b < g for b, g in zip(self.block, grid, strict=True)):
                raise ValueError(f"trace: block {self.block} is not in the grid of {grid} blocks, numbered from 0")
            trace.start(module.library, self.block)
            launch(grid, block, shared_bytes, arguments, cluster)
            self.made.append((Launched(expression, grid, block, shared_bytes), trace.take(module.library)))

        return traced


def record(
    shape: Conv2dShape,
    first: np.ndarray,
    second: np.ndarray,
    *,
    verb: str = "forward",
    algorithm: str = "tiled",
    block: Size3 = (0, 0, 0),
    cache: Cache | None = None,
) -> Recording:
    """Runs ``conv2d_<verb>`` of both operands (``VERBS``). Raises ValueError for a block outside the grid, for operands
    of a wrong shape and for too many elements; Unsupported for what the rung does not take; KernelError where the block
    makes too many requests."""
    names = VERBS[verb]
    shapes = {"x": shape.x, "w": shape.w, "y": shape.y, "dx": shape.x, "dw": shape.w, "dy": shape.y}
    for name, array in zip(names, (first, second), strict=False):
        if array.shape != shapes[name]:
            raise ValueError(f"trace: {name} must be {shapes[name]}, received {array.shape}")
    if first.size + second.size > ELEMENTS:
        raise ValueError(
            f"trace: {names[0]} and {names[1]} have {first.size + second.size} elements, a picture holds {ELEMENTS}:"
            " make the image smaller, or the channels fewer"
        )
    if algorithm not in ALGORITHMS:
        raise Unsupported(f"trace: algorithm must be one of {', '.join(ALGORITHMS)}, received {algorithm!r}")
    runtime = _TracingRuntime(cache or default_cache())
    runtime.block = block
    operands = aligned(first), aligned(second)
    result = aligned(np.zeros(shapes[names[2]], first.dtype))
    call = _verb(EmulatorBackend(runtime), shape, verb, algorithm)

    call(*operands, result)
    if len(runtime.made) != 1:
        raise Unsupported(
            f"trace: {verb} of this shape splits its sum over {prod(runtime.made[0][0].grid)} blocks and adds them in a"
            " second kernel; make N, P or Q smaller"
        )
    counters = runtime.take_counters()
    ((launched, kept),) = runtime.made
    if not len(kept.requests):
        raise ValueError(f"trace: block {block} of {launched.grid} has nothing to do")
    arrays = dict(zip(names, (first.copy(), second.copy(), result.copy()), strict=True))
    addresses = {name: a.ctypes.data for name, a in zip(names, (*operands, result), strict=True)}
    for operand, tags in zip(operands, tags_of(*operands), strict=True):
        operand[...] = tags
    call(*operands, result)
    again = runtime.made[-1][1].requests
    same = all(np.array_equal(kept.requests[name], again[name]) for name in ("place", "kind", "warp", "lanes"))
    if not same or not np.array_equal(_addresses(kept.requests), _addresses(again)):
        raise KernelError(
            f"{launched.expression}: what it reads depends on the values that it reads, no trace shows it"
        )
    return Recording(verb, algorithm, shape, launched, block, arrays, addresses, kept, again["value"], counters)


def _addresses(requests: np.ndarray) -> np.ndarray:
    """Of memory; those of an mma's sums are the emulator's own."""
    addresses: np.ndarray = requests["address"][requests["kind"] != trace.KINDS.index("mma")]
    return addresses


def tags_of(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arrays like these, whose elements are all different, finite and not 0."""
    count = first.size + second.size
    if first.dtype == np.float32:
        tags = np.arange(1, count + 1, dtype=np.float32)
    else:
        patterns = np.arange(1, 1 << 16, dtype=np.uint16).view(first.dtype)
        tags = patterns[np.isfinite(patterns.astype(np.float32)) & (patterns.astype(np.float32) != 0)][:count]
    return tags[: first.size].reshape(first.shape), tags[first.size :].reshape(second.shape)


def _verb(backend: EmulatorBackend, shape: Conv2dShape, verb: str, algorithm: str) -> Any:
    if verb == "forward":
        return lambda x, w, y: backend.conv2d_forward(shape, x, w, y, IDENTITY, algorithm)
    if verb == "backward_input":
        return lambda dy, w, dx: backend.conv2d_backward_input(shape, dy, w, dx, algorithm)
    return lambda x, dy, dw: backend.conv2d_backward_weight(shape, x, dy, dw, algorithm)
