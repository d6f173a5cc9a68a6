"""The engine's own backends, one contract verb at a time: what is timed is the output's allocation and the kernel."""

from __future__ import annotations

import numpy as np

from cnnengine import backends
from cnnengine.shapes import Conv2dShape

from ..task import Prepared, Task
from .device import DTYPES, arrays_on_device, rerun_into_nan, single


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
        if task.storage not in backend.dtypes or self._variant not in task.ours:
            return None
        if self.device == "cuda":
            return self._on_gpu(task)
        dtype = DTYPES[task.storage]
        arrays = {
            name: backend.to_device(a.astype(dtype, copy=False) if a.dtype == np.float32 else a)
            for name, a in task.arrays.items()
        }
        run = task.ours[self._variant](backend, arrays)
        if run is None:
            return None
        return Prepared(run, lambda y: None if y is None else backend.to_host(y).astype(np.float32, copy=False))

    def _on_gpu(self, task: Task) -> Prepared | None:
        run = task.ours[self._variant](backends.get(self._backend), arrays_on_device(task))
        if run is None:
            return None
        if isinstance(task.shape, Conv2dShape):  # whose result is new memory
            return Prepared(run, rerun_into_nan(run))
        return Prepared(run, lambda y: None if y is None else single(y))
