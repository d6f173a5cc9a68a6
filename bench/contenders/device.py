"""Arrays on the GPU as contenders share them: CuPy's, PyTorch's views of the same memory, and how results compare.

A task's arrays are sent once. Everything works on CuPy's current stream, which is PyTorch's too (the default stream).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from ..task import Draw, Task, drawn

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}


def arrays_on_device(task: Task) -> Mapping[str, Any]:
    """The task's arrays as CuPy arrays, floating-point ones in its storage type."""
    return _sent(task.draw, task.storage)


@lru_cache(maxsize=1)  # those of the last race are dropped
def _sent(draw: Draw, storage: str) -> dict[str, Any]:
    dtype = DTYPES[storage]
    return {
        name: to_device(a.astype(dtype, copy=False) if a.dtype == np.float32 else a) for name, a in drawn(draw).items()
    }


def to_device(a: np.ndarray) -> Any:
    """Elements of two bytes travel as their bits: CuPy need not know the type."""
    import cupy

    return cupy.asarray(a.view(np.uint16)).view(a.dtype) if a.dtype.itemsize == 2 else cupy.asarray(a)


def to_torch(torch: Any, a: Any) -> Any:
    """A PyTorch tensor over the same memory; (N, H, W, C) becomes (N, C, H, W) in channels_last."""
    if a.dtype.name == "bfloat16":
        tensor = torch.from_dlpack(a.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_dlpack(a)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


def from_torch(result: Any) -> Any:
    """A PyTorch result as a CuPy array of float32, (N, C, H, W) as (N, H, W, C)."""
    import cupy

    tensor = result.detach().float()
    return cupy.from_dlpack((tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor).contiguous())


def single(a: Any) -> Any:
    """The same values in float32."""
    if a.dtype.name == "bfloat16":  # its bits are the upper half of a float32's
        return (a.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return a.astype(np.float32)


def fill_with_nan(a: Any) -> None:
    """All bits set is a NaN in every floating-point type."""
    a.view(np.uint8).fill(0xFF)


def rerun_into_nan(run: Callable[[], Any]) -> Callable[[Any], Any]:
    """For ``Prepared.result``: what a second call returns, in float32, whose memory held NaN. The pool hands out the
    block that was freed last, so that an element that a kernel does not write is a NaN and not the last right value."""

    def result(y: Any) -> Any:
        fill_with_nan(y)
        del y
        return single(run())

    return result
