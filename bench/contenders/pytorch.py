"""PyTorch, eager: oneDNN on the CPU, cuDNN on the GPU (``cudnn.benchmark``; TF32 off for float32, on for tf32)."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..provenance import usable_cores
from ..task import TF32, Prepared, Task
from .device import arrays_on_device, from_torch, to_torch


class PyTorch:
    """``variant`` is one of the task's ways; "nchw" keeps torch's default memory layout, any other is channels-last, ""
    where there is no layout to choose. Operators are called below autograd."""

    def __init__(self, variant: str, device: str = "cpu") -> None:
        self.name = f"PyTorch {variant}".strip()
        self.device = device
        self._variant = variant

    def unavailable(self) -> str | None:
        if find_spec("torch") is None:
            return "PyTorch is not installed"
        if self.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                return "PyTorch sees no CUDA device"
        return None

    def prepare(self, task: Task) -> Prepared | None:
        if self._variant not in task.torch:
            return None
        torch = configured_torch()
        if self.device == "cuda":
            return self._on_gpu(torch, task)
        tensors = {name: self.tensor(a, task.storage) for name, a in task.arrays.items()}
        return Prepared(task.torch[self._variant](torch, tensors), to_host)

    def _on_gpu(self, torch: Any, task: Task) -> Prepared:
        """Over the arrays that the others read too, copied only into the other layout."""
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = task.dtype == TF32
        tensors = {name: to_torch(torch, a) for name, a in arrays_on_device(task).items()}
        if self._variant == "nchw":
            tensors = {name: t.contiguous() if t.ndim == 4 else t for name, t in tensors.items()}
        notes = {"cudnn": torch.backends.cudnn.version(), "allow_tf32": torch.backends.cudnn.allow_tf32}
        run = task.torch[self._variant](torch, tensors)
        return Prepared(run, lambda result: None if result is None else from_torch(result), notes)

    def tensor(self, array: np.ndarray, dtype: str) -> Any:
        """An (N, H, W, C) array as PyTorch wants it, (N, C, H, W), in this contender's layout; others as they are."""
        torch = configured_torch()
        kind = getattr(torch, dtype) if array.dtype == np.float32 else None
        if array.ndim != 4:
            return torch.from_numpy(array).to(self.device, kind)
        nchw = torch.from_numpy(array).permute(0, 3, 1, 2).to(self.device, kind)
        return nchw.contiguous(
            memory_format=torch.contiguous_format if self._variant == "nchw" else torch.channels_last
        )


def configured_torch() -> Any:
    """torch with as many threads as cores, and exact float32 on the GPU."""
    torch = _torch()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch


@cache
def _torch() -> Any:
    import torch

    torch.set_num_threads(len(usable_cores()))
    torch.backends.cudnn.benchmark = True
    return torch


def to_host(result: Any) -> np.ndarray | None:
    """A PyTorch result as a float32 array, (N, C, H, W) as (N, H, W, C)."""
    if result is None:
        return None
    host = result.detach().float().cpu()
    array: np.ndarray = (host.permute(0, 2, 3, 1) if host.ndim == 4 else host).numpy()
    return array
