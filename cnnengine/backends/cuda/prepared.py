"""Verbs whose launches are planned once a kind of call: csrc/launch/prepared.h says what a kind is.

The first call runs the verb of ``KernelBackend`` on a runtime that only writes its launches down. From each launch's
arguments an array is known again as an array of the call, or as memory that the verb asked for; everything else in them
follows from the kind of call. Later calls are one call into ``cnnengine._launch``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cupy

from ... import _launch
from ...jit.launch import CudaKernel, CudaRuntime
from ...jit.recording import Launch, Mapped, RecordingRuntime
from ...jit.tensor_map import TensorMap
from ...shapes import BroadcastShape, Conv2dShape, GemmShape, NormShape, Pool2dShape, ReduceShape
from .. import winograd
from .._kernels import KernelBackend
from ..contract import Array, PackedWeight

SHAPES = (BroadcastShape, Conv2dShape, GemmShape, NormShape, Pool2dShape, ReduceShape)
PREPARED = (
    "conv2d_forward",
    "conv2d_backward_input",
    "conv2d_backward_weight",
    "pool2d_forward",
    "pool2d_backward",
    "activation_forward",
    "activation_backward",
    "unary",
    "binary",
    "cast",
    "reduce",
    "gemm",
    "apply_epilogue",
    "norm_forward",
    "norm_backward",
    "softmax_cross_entropy_forward",
    "softmax_cross_entropy_backward",
    "dropout",
)  # not optimizer_step, whose arrays' addresses lie in a table


class PreparedBackend(KernelBackend):
    """A KernelBackend on a CudaRuntime whose verbs of PREPARED are planned once a kind of call."""

    runtime: CudaRuntime

    def __init__(self, runtime: CudaRuntime, *, constant_shapes: bool = False) -> None:
        super().__init__(runtime, constant_shapes=constant_shapes)
        self._prepared = _launch.PreparedVerbs(runtime.stream, _encode, SHAPES)
        winograd.follow(lambda _: self.forget_plans())

    def forget_plans(self) -> None:
        """Plan anew at the next calls: what a plan depends on beside the call has changed."""
        self._prepared.clear()

    def _prepare(self, verb: str, arguments: tuple[Any, ...]) -> None:
        """Makes the call, and prepares calls of its kind where that is possible."""
        planner = _Planner(self)
        try:
            getattr(planner, verb)(*arguments)
            arrays = [*arrays_of(arguments), *(array for array, _ in planner.temporaries)]
            launches = [_packed(launch, arrays) for launch in planner.launches]
        except NotPlanned:
            getattr(KernelBackend, verb)(self, *arguments)
            return
        makers = tuple(make for _, make in planner.temporaries)
        if not launches or not self._prepared.add(verb, arguments, launches, makers):
            for launch in planner.launches:
                launch.make(self.runtime)
            return
        self._prepared.run(verb, arguments)


def _verb(name: str) -> Callable[..., None]:
    plain = getattr(KernelBackend, name)

    def verb(self: PreparedBackend, *arguments: Any, **named: Any) -> None:
        if named:
            plain(self, *arguments, **named)
        elif not self._prepared.run(name, arguments):
            self._prepare(name, arguments)

    def on_packed_weights(self: PreparedBackend, *arguments: Any, **named: Any) -> None:
        shape, x, w, *rest = arguments
        verb(self, shape, x, w.packed if isinstance(w, PackedWeight) else w, *rest, **named)

    chosen = on_packed_weights if name == "conv2d_forward" else verb
    chosen.__name__, chosen.__doc__ = name, plain.__doc__
    return chosen


for _name in PREPARED:
    setattr(PreparedBackend, _name, _verb(_name))


class NotPlanned(Exception):
    """The verb does what is no launch, or with arrays that overlap."""


class _Planner(KernelBackend):
    """Runs one verb; its launches and the memory it asks for are written down."""

    def __init__(self, backend: PreparedBackend) -> None:
        self.backend, self.name, self.device = backend, backend.name, backend.device
        self.launches: list[Launch] = []
        self.temporaries: list[tuple[Array, Callable[[], Array]]] = []
        super().__init__(
            RecordingRuntime(backend.runtime, self.launches.append), constant_shapes=backend.constant_shapes
        )

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self._temporary(partial(self.backend.empty, shape, dtype))

    def workspace(self, nbytes: int) -> Array:
        return self._temporary(partial(self.backend.workspace, nbytes))

    def _temporary(self, make: Callable[[], Array]) -> Array:
        array = make()
        self.temporaries.append((array, make))
        return array

    def fill(self, y: Array, value: float) -> None:
        raise NotPlanned

    def permute(self, x: Array, y: Array, axes: tuple[int, ...]) -> None:
        raise NotPlanned


def arrays_of(arguments: Sequence[Any]) -> list[Array]:
    """The arrays of a call, in the order in which csrc/launch/prepared.cpp meets them."""
    found: list[Array] = []
    for value in arguments:
        if isinstance(value, tuple):
            found += arrays_of(value)
        elif isinstance(value, cupy.ndarray):
            found.append(value)
    return found


def _packed(launch: Launch, arrays: Sequence[Array]) -> tuple[Any, ...]:
    """A launch as ``PreparedVerbs.add`` takes it. Raises NotPlanned where an array of its arguments is none of
    ``arrays``, or part of two that begin at different places."""
    values, slots, maps = list(launch.arguments), [], []
    for i, value in enumerate(launch.arguments):
        if isinstance(value, cupy.ndarray):
            slots.append((i, *place_of(value, arrays)))
            values[i] = None
        elif isinstance(value, Mapped):
            array, offset = place_of(value.array, arrays)
            if offset:
                raise NotPlanned
            maps.append((i, array, value.spec, value.array.dtype.name))
            values[i] = bytes(128)
    kernel = launch.kernel
    assert isinstance(kernel, CudaKernel)
    function = kernel.function(launch.shared_bytes)
    cluster, programmatic = launch.options.get("cluster"), launch.options.get("programmatic", False)
    sizes = function, launch.grid, launch.block, launch.shared_bytes, cluster, programmatic
    return (*sizes, tuple(values), slots, maps)


def place_of(array: Array, arrays: Sequence[Array]) -> tuple[int, int]:
    """(which array holds it, from which byte on)"""
    start = array.data.ptr
    holders = [i for i, other in enumerate(arrays) if other.data.ptr <= start < other.data.ptr + other.nbytes]
    if len({arrays[i].data.ptr for i in holders}) != 1:
        raise NotPlanned
    return holders[0], start - arrays[holders[0]].data.ptr


def _encode(spec: TensorMap, dtype: str, address: int) -> bytes:
    return spec.encode(_launch, dtype, address)
