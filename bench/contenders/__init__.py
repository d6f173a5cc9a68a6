"""Who takes part: the engine's backends and what they are measured against, each present or absent with a reason."""

from __future__ import annotations

from typing import Protocol

from ..task import Prepared, Task


class Contender(Protocol):
    """``prepare`` sets a task up outside the timing; None: this contender does not have the operation."""

    name: str
    device: str  # "cpu" or "cuda"

    def unavailable(self) -> str | None: ...
    def prepare(self, task: Task) -> Prepared | None: ...


SIMULATORS = ("emulator", "numba")  # on the CPU: right, but nothing to time


def contenders(task: Task, device: str, simulators: bool = False) -> list[Contender]:
    """All that could take part on ``device``, available or not; ours first. ``simulators`` adds the backends that run
    GPU kernels on the CPU, and the plain NumPy backend."""
    from .cudnn import Cudnn
    from .engine import Engine
    from .numpy_im2col import Numpy
    from .pytorch import PyTorch

    theirs = [PyTorch(variant, device) for variant in task.torch]
    if device == "cuda":
        ours = [Engine(backend, variant, "cuda") for backend in task.backends for variant in task.ours]
        return [*ours, *([Cudnn()] if task.shape is not None else []), *theirs]
    slow = [Engine("numpy"), *(Engine(name) for name in SIMULATORS)] if simulators else []
    numpy = [Numpy()] if task.numpy is not None else []
    return [*(Engine("native", variant) for variant in task.ours), *slow, *theirs, *numpy]
