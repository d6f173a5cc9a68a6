"""The Numba kernels of a call, compiled for an architecture: PTX by Numba, registers by ptxas. Needs no GPU.

Whether Numba simulates is settled when it is first imported, so the compiler runs in a process of its own: this module
as a program, which reads a request and writes the kernels, both as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from inspect import getsource
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable, KernelError
from ..jit import nvrtc, sass
from .architectures import Limits, capability
from .inspection import Kernel
from .machine_code import machine_code
from .occupancy import occupancy
from .operations import build
from .problem import Problem, Request


def kernels(
    problem: Problem, arch: str, limits: Limits, multiprocessors: int | None, missing: dict[str, str]
) -> list[Kernel]:
    """What is known of each launch; why the rest is not goes into ``missing``. Raises KernelError with the compiler's
    complaint."""
    return [_kernel(launch, arch, limits, multiprocessors, missing) for launch in _compiled(problem, arch, missing)]


def _compiled(problem: Problem, arch: str, missing: dict[str, str]) -> list[dict[str, Any]]:
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"}
    folders = [str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH", "")]
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "CNNENGINE_NUMBA_SIMULATOR": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "cnnengine.inspect.numba_set"],
        input=json.dumps({"request": asdict(problem.request), "capability": capability(arch)}),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        missing["PTX, machine code, registers, occupancy"] = f"Numba's compiler failed: {reason}"
        return []
    launches: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return launches


def _kernel(
    launch: dict[str, Any], arch: str, limits: Limits, multiprocessors: int | None, missing: dict[str, str]
) -> Kernel:
    block = tuple(launch["block"])
    given: dict[str, Any] = {
        "name": launch["name"],
        "expression": launch["name"],
        "file": launch["file"],
        "grid": (launch["grid"], 1, 1),
        "block": (*block, *(1,) * (3 - len(block))),
        "cluster": None,
        "dynamic_shared": 0,
        "source": launch["source"],
        "ptx": launch["ptx"],
    }
    try:
        cubin = assemble(launch["ptx"], arch)
    except (BackendUnavailable, KernelError) as error:
        missing["registers, occupancy, machine code"] = str(error)
        return Kernel(**given)
    (symbol,) = cubin.names.values()
    usage = cubin.usage()[symbol]
    threads = given["block"][0] * given["block"][1] * given["block"][2]
    held = occupancy(limits, threads, usage.registers, usage.shared_bytes)
    at_once = held.blocks * (multiprocessors or 0)
    given |= {
        "registers": usage.registers,
        "spill_bytes": usage.spill_bytes,
        "static_shared": usage.shared_bytes,
        "occupancy": held,
        "waves": launch["grid"] / at_once if at_once else None,
    }
    try:
        given["code"] = machine_code(sass.disassemble(cubin)[symbol])
    except (BackendUnavailable, KernelError) as error:
        missing["machine code, instruction mix"] = str(error)
    return Kernel(**given)


def assemble(ptx: str, arch: str) -> nvrtc.Cubin:
    """By ptxas. Raises BackendUnavailable where there is none, KernelError with its complaint."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        path.write_text(ptx)
        command = [_ptxas(), f"-arch={arch}", "-v", str(path), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise KernelError(f"ptxas failed: {done.stderr.strip()}")
        symbols = [match["name"] for match in nvrtc.ENTRY.finditer(done.stderr)]
        return nvrtc.Cubin(out.read_bytes(), {symbol: symbol for symbol in symbols}, done.stderr)


def _ptxas() -> str:
    for root in nvrtc.roots():
        if os.access(root / "bin" / "ptxas", os.X_OK):
            return str(root / "bin" / "ptxas")
    if on_path := shutil.which("ptxas"):
        return on_path
    raise BackendUnavailable("ptxas is not installed: pip install nvidia-cuda-nvcc, or set CUDA_HOME")


class _CompilingLauncher:
    """In place of a GPU: compiles what it is asked to launch."""

    def __init__(self, capability_: int) -> None:
        self.capability = divmod(capability_, 10)
        self.made: list[dict[str, Any]] = []

    def __call__(self, kernel: Any, grid: int, block: int | tuple[int, int], *args: Any) -> None:
        from numba import cuda, float32, typeof, void

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
        from numpy import int32

        return int32(value)

    def ints(self, tuple_class: Any, members: Any) -> Any:
        from numpy import int32

        return tuple_class(*map(int32, members if isinstance(members, tuple) else members.members()))

    def workspace(self, shape: tuple[int, ...]) -> Any:
        from numpy import zeros

        return zeros(shape, "float32")


def _main() -> None:
    from ..backends._overlaid import OverlaidMemory
    from ..backends.numba.backend import NumbaBackend

    asked = json.load(sys.stdin)
    request: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in asked["request"].items()}
    problem, memory = build(Request(**request)), OverlaidMemory()
    backend: Any = type("CompilingBackend", (NumbaBackend,), {})()
    backend.launch = launcher = _CompilingLauncher(asked["capability"])
    problem.run(backend, {name: memory.empty(o.shape, o.dtype) for name, o in problem.operands.items()})
    print(json.dumps(launcher.made))


if __name__ == "__main__":
    _main()
