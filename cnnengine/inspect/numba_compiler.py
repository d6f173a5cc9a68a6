"""``python -m cnnengine.inspect.numba_compiler 80``: reads a request, writes the Numba kernels that it launches,
compiled to PTX for compute capability 8.0; both as JSON.
"""

from __future__ import annotations

import json
import sys
from inspect import getsource
from pathlib import Path
from typing import Any

import numpy as np
from numba import cuda, float32, typeof, void

from ..backends._overlaid import OverlaidMemory
from ..backends.numba.backend import NumbaBackend
from .operations import build
from .problem import Request


class CompilingLauncher:
    """In place of a GPU: compiles what it is asked to launch."""

    def __init__(self, capability: int) -> None:
        self.capability = divmod(capability, 10)
        self.made: list[dict[str, Any]] = []

    def __call__(self, kernel: Any, grid: int, block: int | tuple[int, int], *args: Any) -> None:
        types = [float32 if isinstance(a, float) else typeof(a) for a in args]
        ptx, _ = cuda.compile_ptx(kernel.py_func, void(*types), cc=self.capability)
        self.made.append(
            {
                "name": kernel.py_func.__name__,
                "file": "/".join(Path(kernel.py_func.__code__.co_filename).parts[-2:]),
                "source": getsource(kernel.py_func),
                "grid": int(grid),
                "block": [int(n) for n in (block if isinstance(block, tuple) else (block,))],
                "ptx": ptx,
            }
        )

    def out(self, array: Any) -> Any:
        return array

    def integer(self, value: int) -> Any:
        return np.int32(value)

    def ints(self, tuple_class: Any, members: Any) -> Any:
        return tuple_class(*map(np.int32, members if isinstance(members, tuple) else members.members()))

    def workspace(self, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape, np.float32)


class CompilingBackend(NumbaBackend):
    def refuse_tensor_cores(self) -> str | None:
        return None


def main(capability: str) -> None:
    problem, memory = build(Request.from_json(sys.stdin.read())), OverlaidMemory()
    backend: Any = CompilingBackend()
    backend.launch = launcher = CompilingLauncher(int(capability))
    problem.run(backend, {name: memory.empty(o.shape, o.dtype) for name, o in problem.operands.items()})
    print(json.dumps(launcher.made))


if __name__ == "__main__":
    main(sys.argv[1])
