"""The engine's own backends, one contract verb at a time: what is timed is the output's allocation and the kernel."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from cnnengine import backends

from ..task import Prepared, Task

DTYPES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16), "float32": np.dtype(np.float32)}


class Engine:
    """``variant`` is one of the task's ways to ask for the operation; "" is the backend's documented choice."""

    def __init__(self, backend: str, variant: str = "", device: str = "cpu") -> None:
        self.name = f"{backend} {variant}".strip()
        self.device = device
        self._backend, self._variant = backend, variant

    def unavailable(self) -> str | None:
        reason = backends.available()[self._backend]
        if reason is None and backends.get(self._backend).device != self.device:
            return f"runs on {backends.get(self._backend).device} here, not on {self.device}"
        return reason

    def prepare(self, task: Task) -> Prepared | None:
        backend = backends.get(self._backend)
        if task.dtype not in backend.dtypes or self._variant not in task.ours:
            return None
        dtype = DTYPES[task.dtype]
        arrays = {
            name: backend.to_device(a.astype(dtype, copy=False) if a.dtype == np.float32 else a)
            for name, a in task.arrays.items()
        }
        run = task.ours[self._variant](backend, arrays)
        if run is None:
            return None
        return Prepared(run, lambda y: None if y is None else backend.to_host(y).astype(np.float32, copy=False))
