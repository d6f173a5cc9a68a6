"""``graph(step)``: a step whose kernels are called again from a list, without Python in between.

The first call with arguments of some shapes runs the step as it is: kernels are compiled, optimizers make their states,
and what memory the step takes is measured. The second captures it over an arena of that size and launches what was
captured; all further ones launch it again. So every call is one step, and none is run for show.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import replay
from ..autograd import grad_enabled
from ..backends import registry
from ..backends.contract import Backend
from ..errors import Unsupported
from ..functional._common import autocast_region
from ..tensor import Tensor

if TYPE_CHECKING:
    from .on_gpu import GpuCapture, GpuRun
    from .on_host import HostCapture, HostRun

CAPTURED = ("native", "cuda", "emulator")  # backends whose steps can be captured; and any on a GPU


class Graph:
    """A captured step; ``graph`` says what it may do. ``reset()`` forgets all captures."""

    def __init__(self, step: Callable[..., Any], device: str | None = None) -> None:
        if not callable(step):
            raise TypeError(f"cnn.graph: expected a function, received {type(step).__name__}")
        self._step = step
        self._device = device
        self._found: dict[Hashable, _Captured] = {}

    def __call__(self, *inputs: Any) -> Any:
        """One step. Raises Unsupported for what cannot be captured, ValueError for inputs on two devices."""
        if replay.current() is not None:
            raise Unsupported("cnn.graph: a graph is called in the step of another; call its step itself there")
        if autocast_region() is not None:
            raise Unsupported("cnn.graph: called within cnn.amp.autocast; enter it in the step instead")
        device = self._device_of(inputs)
        backend = registry.active_on(device)
        if backend.name not in CAPTURED and backend.device != "cuda":
            raise Unsupported(
                f"cnn.graph: what backend {backend.name!r} on device {device!r} does cannot be captured; call the step"
                f" itself, or use backend {', '.join(CAPTURED)}"
            )
        key = (backend.name, grad_enabled(), *map(_kind, inputs))
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = _Captured(self._step, backend, inputs)
        return found(inputs)

    @property
    def captures(self) -> int:
        """How many kinds of arguments were captured."""
        return sum(found.capture is not None for found in self._found.values())

    @property
    def nodes(self) -> int:
        """Launches, fills and copies of all captures."""
        return sum(found.capture.nodes for found in self._found.values() if found.capture is not None)

    @property
    def arena_bytes(self) -> int:
        """Memory of all captures, beside their inputs."""
        return sum(found.capture.arena.nbytes for found in self._found.values() if found.capture is not None)

    def reset(self) -> None:
        """Forget all captures: the next two calls run and capture the step anew."""
        self._found.clear()

    def __repr__(self) -> str:
        name = getattr(self._step, "__name__", type(self._step).__name__)
        return f"Graph({name}: {self.captures} captures, {self.nodes} nodes, arena {self.arena_bytes / 1e6:.1f} MB)"

    def _device_of(self, inputs: tuple[Any, ...]) -> str:
        arrays = {f"argument {i}": x for i, x in enumerate(inputs) if isinstance(x, Tensor) or _on_gpu(x)}
        devices = {name: x.device if isinstance(x, Tensor) else "cuda" for name, x in arrays.items()}
        if len(set(devices.values())) > 1:
            raise ValueError(f"cnn.graph: inputs are on two devices: {devices}; move them with .to(device)")
        if devices:
            return next(iter(devices.values()))
        return self._device or ("cpu" if registry.unavailable("cuda") else "cuda")


def graph(step: Callable[..., Any], device: str | None = None) -> Graph:
    """The step as a graph: ``fast = cnn.graph(step); loss = fast(images, labels)``. Also a decorator.

    ``step`` may be a whole training step, forward, loss, backward and optimizer, or inference. Its arguments are
    Tensors, NumPy or CuPy arrays, which are copied into static memory before each run, or constants. It returns
    Tensors, arrays or nested tuples, lists and dicts of them: static memory that the next call overwrites. Other shapes
    or constants are captured for themselves. ``device`` says where the step runs if its arguments do not.

    Learning rates, step counts and dropout go on from call to call as without a graph, bit for bit. What else the step
    does beside launches happens at the capture only. It must not read results (``float(loss)``, ``GradScaler.step``)
    nor move host arrays: that raises Unsupported, in the first run already.
    """
    return Graph(step, device)


class _Captured:
    """A step with arguments of one kind."""

    def __init__(self, step: Callable[..., Any], backend: Backend, inputs: tuple[Any, ...]) -> None:
        self.step = step
        self.backend = backend
        self.static = [_static(backend, x) for x in inputs]
        self.first: HostRun | GpuRun | None = None
        self.capture: HostCapture | GpuCapture | None = None
        self.result: Any = None

    def __call__(self, inputs: tuple[Any, ...]) -> Any:
        for static, given in zip(self.static, inputs, strict=True):
            if static is not given:
                _copy(self.backend, static, given)
        if self.capture is not None:
            self.capture.again()
            return self.result
        if self.first is None:
            first = _first_run(self.backend)
            with _under_way(first), first.running():
                result = self.step(*self.static)
            self.first = first
            return _detached(result)
        capture = self.first.capture()
        with _under_way(capture), capture.running():
            result = self.step(*self.static)
        capture.launch()
        self.first, self.capture, self.result = None, capture, _detached(result)
        return self.result


@contextmanager
def _under_way(step: replay.Capture) -> Iterator[None]:
    """Within the block operations see the step."""
    token = replay.capture.set(step)
    try:
        yield
    finally:
        replay.capture.reset(token)


def _first_run(backend: Backend) -> HostRun | GpuRun:
    if backend.device == "cuda":
        from .on_gpu import GpuRun

        return GpuRun(backend)
    from .on_host import HostRun

    return HostRun(backend, import_module(f".on_{backend.name}", __package__))


def _on_gpu(x: Any) -> bool:
    return type(x).__module__.split(".")[0] == "cupy"


def _kind(x: Any) -> Hashable:
    """What tells two arguments apart that need captures of their own. Raises TypeError, ValueError."""
    if isinstance(x, Tensor):
        if x.requires_grad:
            raise ValueError("cnn.graph: an argument requires a gradient; only parameters that the step holds may")
        return "tensor", x.shape, x.dtype
    if isinstance(x, np.ndarray) or _on_gpu(x):
        return "array", x.shape, x.dtype
    try:
        hash(x)
    except TypeError:
        raise TypeError(
            f"cnn.graph: arguments are Tensors, arrays or constants, received a {type(x).__name__}"
        ) from None
    return "constant", type(x), x


def _static(backend: Backend, x: Any) -> Any:
    """Memory of the backend's device for an argument, as the step gets it; a constant itself."""
    if isinstance(x, Tensor):
        return Tensor(backend.empty(x.shape, x.dtype))
    if isinstance(x, np.ndarray) or _on_gpu(x):
        return backend.empty(x.shape, x.dtype)
    return x


def _copy(backend: Backend, static: Any, given: Any) -> None:
    to, values = (static.data, given.data) if isinstance(static, Tensor) else (static, given)
    if backend.device == "cuda" and isinstance(values, np.ndarray):
        from .on_gpu import upload

        upload(to, values)
    elif backend.name == "native" and values.dtype == np.float32 and values.flags.c_contiguous:
        backend.activation_forward("identity", values, to, 0.0)  # in parallel
    elif isinstance(to, np.ndarray):
        np.copyto(to, values)
    else:
        backend.permute(values, to, tuple(range(to.ndim)))
    if isinstance(static, Tensor):
        static.bump_version()


def _detached(result: Any) -> Any:
    """A step's result without the graph that is recorded for a backward pass."""
    if isinstance(result, Tensor):
        return result.detach()
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*map(_detached, result))
    if isinstance(result, tuple | list):
        return type(result)(map(_detached, result))
    if isinstance(result, dict):
        return {key: _detached(value) for key, value in result.items()}
    return result
