"""Tensor: an array, its gradient, and the operation it came from. No mathematics here: operators call functional."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from . import autograd, replay
from . import functional as F
from ._border import as_array
from .backends.contract import Array, Backend
from .backends.registry import active_on, device_of


class Tensor:
    """A float16, bfloat16, float32 or float64 array, C-contiguous, on the CPU (NumPy) or a GPU (CuPy).

    ``Tensor(array)`` shares the array's memory where it can: NumPy and CuPy arrays and anything with ``__dlpack__``
    that is C-contiguous; Python numbers and lists become float32. Images are (N, H, W, C). Raises TypeError for a dtype
    that is no floating-point type.

    ``data`` is the array, ``grad`` a Tensor or None, ``requires_grad`` asks for gradients, ``node`` is the recorded
    operation (None for a leaf), ``version[0]`` counts changes in place and is shared by views of the memory.
    Tensors are compared by identity: for their values compare ``data``.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad", "version")
    __array_priority__ = 1000  # array + Tensor is the Tensor's business; CuPy's own arrays have 100
    data: Array
    grad: Tensor | None
    node: autograd.Function | None
    requires_grad: bool
    version: list[int]

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data, self.version = (data.data, data.version) if isinstance(data, Tensor) else (as_array(data), [0])
        self.grad = None
        self.node = None
        self.requires_grad = bool(requires_grad)

    # ---- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return self.data.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        return self.data.size  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype  # type: ignore[no-any-return]

    @property
    def device(self) -> str:
        return device_of(self.data)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.numpy(), prefix='Tensor(', threshold=50)}, dtype={self.dtype}{grad})"

    # ---- giving the data away

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array: without a copy on the CPU, copied from the GPU."""
        return active_on(self.device).to_host(self.data)

    def item(self) -> float:
        """The only element as a Python float. Raises ValueError if there are more."""
        if self.size != 1:
            raise ValueError(f"item: expected one element, this tensor has shape {self.shape}")
        return float(self.numpy().reshape(-1)[0])

    def __float__(self) -> float:
        return self.item()

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.data.__dlpack__(**arguments)

    def __dlpack_device__(self) -> Any:
        return self.data.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> Any:
        return self.data.__cuda_array_interface__

    # ---- gradients

    def backward(self, gradient: Any = None) -> None:
        """Add the gradients of this tensor to every leaf it came from; frees the recorded graph.

        ``gradient`` has this tensor's shape; for a single element it may be a number, or left out, which is 1.
        Raises RuntimeError, changing nothing, where there is nothing to differentiate, the graph is freed or what it
        needs was changed; ValueError for a wrong shape.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor does not require a gradient; nothing it came from does")
        if gradient is None or isinstance(gradient, int | float):
            if self.size != 1:
                raise ValueError(f"backward: a tensor of shape {self.shape} needs a gradient of that shape")
            backend = active_on(self.device)
            start = backend.empty(self.shape, self.dtype)
            backend.fill(start, 1.0 if gradient is None else gradient)
        else:
            start = as_array(gradient.data if isinstance(gradient, Tensor) else gradient)
            if start.shape != self.shape or start.dtype != self.dtype:
                raise ValueError(
                    f"backward: expected a gradient {self.shape} {self.dtype}, received {start.shape} {start.dtype}"
                )
            if device_of(start) != self.device:
                raise ValueError(f"backward: the gradient is on {device_of(start)}, the tensor on {self.device}")
        autograd.backward(self, start)

    def add_gradient(self, dx: Array, backend: Backend, shared: bool) -> None:
        """grad += dx; an array that others may hold is copied first, so that a gradient is its owner's alone."""
        before = self.grad
        if before is None:
            self.grad = wrap(replay.copied(dx) if shared else dx)
        else:
            self.grad = wrap(autograd.add(backend, before.data, dx, in_place=replay.recording()))
        replay.leaf(self, before)

    def detach(self) -> Tensor:
        """The same data, outside the graph."""
        return wrap(self.data, self.version)

    def bump_version(self) -> None:
        """Say that the data was changed in place: a backward pass that needs the old values will raise."""
        self.version[0] += 1

    # ---- moving and shaping

    def to(self, device: str) -> Tensor:
        """This tensor on "cpu" or "cuda"; itself if it is there."""
        return F.to(self, device)

    def astype(self, dtype: Any) -> Tensor:
        """This tensor in another floating-point dtype; itself if it has it."""
        return F.cast(self, dtype)

    def reshape(self, *shape: Any) -> Tensor:
        return F.reshape(self, _flat(shape))

    def flatten(self, start: int = 0) -> Tensor:
        return F.flatten(self, start)

    def permute(self, *axes: Any) -> Tensor:
        return F.permute(self, _flat(axes))

    transpose = permute

    @property
    def T(self) -> Tensor:
        return F.permute(self, tuple(reversed(range(self.ndim))))

    def __getitem__(self, key: Any) -> Tensor:
        return F.index(self, key)

    # ---- reductions

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return F.sum(self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return F.mean(self, axis, keepdims)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        return F.max(self, axis, keepdims)

    def argmax(self, axis: int | None = None) -> Array:
        """Positions of the largest elements, an integer array; no gradient."""
        replay.refuse_deferred("argmax")
        return self.data.argmax(axis)

    # ---- operators

    def __add__(self, other: Any) -> Tensor:
        return F.add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return F.add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return F.sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return F.sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return F.mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return F.mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return F.div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return F.div(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return F.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return F.pow(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return F.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return F.matmul(other, self)

    def __neg__(self) -> Tensor:
        return F.neg(self)


def wrap(data: Array, version: list[int] | None = None) -> Tensor:
    """A leaf around an array that is known to be fit: no checks, no copy. A view brings its memory's ``version``."""
    tensor = Tensor.__new__(Tensor)
    tensor.data = data
    tensor.grad = tensor.node = None
    tensor.requires_grad = False
    tensor.version = [0] if version is None else version
    return tensor


def record(data: Array, node: autograd.Function, version: list[int] | None = None) -> Tensor:
    """The result of a recorded operation. A view brings its memory's ``version``."""
    tensor = Tensor.__new__(Tensor)
    tensor.data = data
    tensor.grad = None
    tensor.node = node
    tensor.requires_grad = True
    tensor.version = version = [0] if version is None else version
    if node.reads_result:
        node.read.append((data, version, version[0], -1))
    return tensor


def _flat(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    """f(2, 3) and f((2, 3)) are the same"""
    if len(arguments) == 1 and isinstance(arguments[0], tuple | list):
        return tuple(arguments[0])
    return arguments
