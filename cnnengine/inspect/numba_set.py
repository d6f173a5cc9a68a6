"""The Numba kernels of a call, compiled for an architecture: PTX by Numba, registers by ptxas. Needs no GPU.

Whether Numba simulates is settled when it is first imported, so its compiler runs in a process of its own
(``numba_compiler.py``).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..errors import BackendUnavailable, KernelError
from ..jit import nvrtc, sass
from .architectures import Limits, capability
from .inspection import Kernel
from .machine_code import machine_code
from .occupancy import occupancy
from .problem import Problem

VERSION = re.compile(r"^\.version [\d.]+$", re.MULTILINE)
OLDER = re.compile(r"Unsupported \.version [\d.]+; current version is '([\d.]+)'")


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
        [sys.executable, "-m", "cnnengine.inspect.numba_compiler", str(capability(arch))],
        input=problem.request.as_json(),
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
    """By ptxas; where it is older than what wrote the PTX, the version that is written there is lowered to its own.
    Raises BackendUnavailable where there is none, KernelError with its complaint."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "kernel.ptx", Path(folder) / "kernel.cubin"
        path.write_text(ptx)
        command = [_ptxas(), f"-arch={arch}", "-v", str(path), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if own := OLDER.search(done.stderr):
            path.write_text(VERSION.sub(f".version {own[1]}", ptx, count=1))
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
