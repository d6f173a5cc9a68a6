"""The emulator backend: NumPy's memory, the kernels of the GPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import ClassVar

from ...jit.cache import default_cache
from ...jit.launch import EmulatorRuntime
from .._host import HostMemory
from .._kernels import KernelBackend


class EmulatorBackend(KernelBackend, HostMemory):
    """``runtime.configure`` chooses the order in which the threads of a block run."""

    name = "emulator"
    notes: ClassVar[Mapping[str, str]] = {
        "conv2d_prepare": "composed: every rung reads w as it is",
        "fill": "composed: NumPy's fill",
        "permute": "composed: NumPy's transpose and copy",
    }
    runtime: EmulatorRuntime

    def __init__(self, runtime: EmulatorRuntime | None = None) -> None:
        HostMemory.__init__(self)
        constant_shapes = os.environ.get("CNNENGINE_CONSTANT_SHAPES") == "1"
        KernelBackend.__init__(self, runtime or EmulatorRuntime(default_cache()), constant_shapes=constant_shapes)
