"""What every operation does at its edge: take tensors, agree on device and dtype, find the backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import tuning
from .._border import as_array
from ..backends.contract import CONV2D_VERBS, Array, Backend
from ..backends.registry import active, device_of
from ..backends.winograd import check as check_winograd
from ..backends.winograd import winograd_allowed
from ..errors import Unsupported
from ..shapes import Conv2dShape
from ..tensor import Tensor

if TYPE_CHECKING:
    from ._autocast import Region

S = TypeVar("S")
NUMBERS = (int, float, np.integer, np.floating)
_accepted: dict[np.dtype[Any], Backend] = {}  # the backend that was last found to compute in a dtype
_algorithms: ContextVar[Mapping[str, str]] = ContextVar("algorithms", default={})  # noqa: B039 (never changed in place)
_autocast: ContextVar[Region | None] = ContextVar("autocast", default=None)
autocast_region, set_autocast_region = _autocast.get, _autocast.set


def tensor(value: Any) -> Tensor:
    """The value itself, or a Tensor around it."""
    return value if type(value) is Tensor or isinstance(value, Tensor) else Tensor(value)


def backend_of(operation: str, x: Tensor) -> Backend:
    """The backend that computes on x. Raises Unsupported if it does not take x's dtype."""
    data = x.data
    backend = active(data)
    if _accepted.get(data.dtype) is not backend:
        _accept(operation, backend, data.dtype)
    return backend


def shape_of(make: Callable[..., S], *arguments: Any) -> S:
    """What a factory of ``shapes`` makes of the arguments; lists serve as tuples."""
    try:
        return make(*arguments)
    except TypeError:  # a list has no hash
        return make(*map(_tupled, arguments))


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list | tuple) else value


def same_kind(operation: str, x: Tensor, name: str, other: Tensor) -> None:
    """Raises TypeError unless ``other`` has x's dtype and device."""
    a, b = x.data, other.data
    if b.dtype != a.dtype:
        raise TypeError(
            f"{operation}: {name} is {b.dtype}, x is {a.dtype}: nothing is converted silently; use .astype()"
        )
    if type(b) is not type(a) and device_of(b) != device_of(a):
        raise ValueError(f"{operation}: {name} is on {device_of(b)}, x on {device_of(a)}: move one with .to(device)")


def operands(operation: str, a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Two operands of arithmetic; a number, Python's or NumPy's, takes the other's dtype and device. Two dtypes are
    made to agree within ``autocast``."""
    a_is_tensor, b_is_tensor = isinstance(a, Tensor), isinstance(b, Tensor)
    if a_is_tensor and b_is_tensor:
        try:
            same_kind(operation, a, "the second operand", b)
        except TypeError:
            if autocast_region() is None:
                raise
            a, b = agreed(a, b)
            same_kind(operation, a, "the second operand", b)
        return a, b
    if not (a_is_tensor or b_is_tensor):
        return operands(operation, a, Tensor(b)) if isinstance(a, NUMBERS) else operands(operation, Tensor(a), b)
    known, other = (a, b) if a_is_tensor else (b, a)
    if isinstance(other, NUMBERS):
        other = Tensor(_scalar(other, known))
    else:
        other = Tensor(as_array(other))
        if autocast_region() is not None:
            known, other = agreed(known, other)
        same_kind(operation, known, "an operand", other)
    return (known, other) if a_is_tensor else (other, known)


def agreed(*tensors: Tensor) -> Sequence[Tensor]:
    """Tensors of different dtypes in float32; as they are where they agree, and where one is float64."""
    from .layout import cast

    dtypes = {t.dtype for t in tensors}
    if len(dtypes) == 1 or any(dtype.itemsize > 4 for dtype in dtypes):
        return tensors
    return [cast(t, np.float32) for t in tensors]


def _scalar(value: Any, like: Tensor) -> Array:
    array = np.full((), value, like.dtype)
    return array if type(like.data) is np.ndarray else active(like.data).to_device(array)


def _accept(operation: str, backend: Backend, dtype: np.dtype[Any]) -> None:
    if dtype.name not in backend.dtypes:
        raise Unsupported(
            f"{operation}: backend {backend.name!r} computes in {', '.join(sorted(backend.dtypes))}, received {dtype};"
            " convert with .astype('float32'), or compute with NumPy: with cnn.use_backend('numpy')"
        )
    _accepted[dtype] = backend


def algorithm_for(
    backend: Backend, verb: str, name: str | None, shape: Conv2dShape | None = None, dtype: Any = None
) -> str | None:
    """The algorithm a verb is to use: the call's, else the innermost ``algorithms`` scope's, else what ``autotune``
    measured where that is on and a shape is given with a dtype, else None: the backend's choice. Raises ValueError for
    a name the backend does not have, listing those it has, and for one that is forbidden."""
    if name is None:
        name = _algorithms.get().get(verb)
        if name is None:
            name = tuning.choice(backend, verb, shape, dtype) if tuning.on and shape is not None else None
            forbidden = name is not None and name.startswith("winograd") and not winograd_allowed()
            return None if forbidden else name  # it may have been measured before
    known = backend.algorithms[verb]
    if name not in known:
        raise ValueError(f"{verb}: backend {backend.name!r} has no algorithm {name!r}; it has {', '.join(known)}")
    check_winograd(verb, name)
    return tuning.configured(backend, verb, shape, dtype, name) if tuning.on and shape is not None else name


@contextmanager
def algorithms(**choices: str) -> Iterator[None]:
    """Within the block, verbs use the named algorithms: ``with cnn.algorithms(conv2d_backward_weight="direct"): ...``.

    Raises ValueError for an unknown verb; an unknown algorithm raises where it is used, since backends differ.
    """
    unknown = set(choices) - set(CONV2D_VERBS)
    if unknown:
        raise ValueError(f"algorithms: no verb {sorted(unknown)}; there are {', '.join(CONV2D_VERBS)}")
    token = _algorithms.set({**_algorithms.get(), **choices})
    try:
        yield
    finally:
        _algorithms.reset(token)
