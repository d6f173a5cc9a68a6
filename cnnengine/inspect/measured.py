"""What a call takes on the GPU that is here: its time by events, and Nsight Compute's counters where there is ncu."""

from __future__ import annotations

import csv
import io
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from ..backends.registry import get, unavailable
from ..errors import BackendUnavailable, KernelError
from ..jit.device_timer import DeviceTimer
from .problem import Problem

SAMPLES = 20
NCU = {  # what the emulator counts, by Nsight Compute's names
    "sectors of loads": "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
    "sectors of stores": "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
    "requests of loads": "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum",
    "requests of stores": "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum",
    "conflicts of shared loads": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum",
    "conflicts of shared stores": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum",
    "divergent branches": "smsp__sass_branch_targets_threads_divergent.sum",
    "bytes from memory": "dram__bytes_read.sum",
    "bytes to memory": "dram__bytes_write.sum",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """``milliseconds``: the median of ``samples`` with the L2 cache emptied before each; GB/s and GFLOP/s are of the
    least traffic and the definition's operations. ``ncu``: by kernel, what NCU names; empty without ncu."""

    device: str
    milliseconds: float
    samples: list[float]
    gbps: float
    gflops: float
    ncu: dict[str, dict[str, float]] = field(default_factory=dict)
    without_ncu: str = ""


def problem_of(kernels: str) -> str | None:
    """None, or why the kernels of a set cannot be measured here."""
    if kernels == "native":
        return None
    backend = get(kernels) if unavailable(kernels) is None else None
    if backend is None:
        return str(unavailable(kernels))
    return None if backend.device == "cuda" else "it runs in Numba's simulator here"


def measure(problem: Problem, kernels: str) -> Measured:
    """Times a call on the GPU, or of the native set on the CPU; of the cuda set ncu counts it, too, where it is on the
    path. Raises BackendUnavailable where there is no GPU."""
    if reason := problem_of(kernels):
        raise BackendUnavailable(f"backend {kernels!r} cannot be measured: {reason}")
    samples = sorted(_seconds(problem, kernels))
    seconds = statistics.median(samples)
    ncu, without = _ncu(problem) if kernels == "cuda" else ({}, "")
    return Measured(
        _device(kernels),
        1e3 * seconds,
        [1e3 * s for s in samples],
        1e-9 * problem.nbytes / seconds,
        1e-9 * problem.flops / seconds,
        ncu,
        without,
    )


def prepared(problem: Problem, kernels: str) -> Callable[[], None]:
    """The call, with its arrays on the device."""
    backend: Any = get(kernels)
    rng = np.random.default_rng(0)
    arrays = {name: backend.to_device(operand.values(rng)) for name, operand in problem.operands.items()}
    return partial(problem.run, backend, arrays)


def _seconds(problem: Problem, kernels: str) -> list[float]:
    backend, run = get(kernels), prepared(problem, kernels)
    run()  # compiles
    backend.synchronize()
    if backend.device == "cuda":
        timer = DeviceTimer()
        return [timer.seconds(run) for _ in range(SAMPLES)]
    times = []
    for _ in range(SAMPLES):
        start = perf_counter()
        run()
        times.append(perf_counter() - start)
    return times


def _device(kernels: str) -> str:
    if kernels == "native":
        from .cpu import name

        return name()
    import cupy

    name_of: Any = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"]
    return name_of.decode() if isinstance(name_of, bytes) else str(name_of)


def _ncu(problem: Problem) -> tuple[dict[str, dict[str, float]], str]:
    """(counters by kernel, "") or ({}, why not)"""
    program = shutil.which("ncu")
    if program is None:
        return {}, "ncu (Nsight Compute) is not on the path"
    call = [sys.executable, "-m", "cnnengine.inspect.call_once", problem.request.as_json(), "cuda"]
    command = [program, "--csv", "--metrics", ",".join(NCU.values()), *call]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        return {}, f"ncu ended with {done.returncode}: {said[-1] if said else 'it says nothing'}"
    return parse_ncu(done.stdout), ""


def parse_ncu(text: str) -> dict[str, dict[str, float]]:
    """From ``ncu --csv``: a row a kernel and metric, behind lines that begin with ==. Launches of one kernel add up.
    Raises KernelError where there is no table."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    if not lines:
        raise KernelError("ncu wrote no table of metrics")
    names = {metric: name for name, metric in NCU.items()}
    found: dict[str, dict[str, float]] = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        if row["Metric Name"] in names and row["Metric Value"]:
            of_kernel = found.setdefault(row["Kernel Name"], {})
            name = names[row["Metric Name"]]
            of_kernel[name] = of_kernel.get(name, 0.0) + float(row["Metric Value"].replace(",", "")) * _unit(row)
    return found


def _unit(row: dict[str, str]) -> float:
    return {"Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}.get(row.get("Metric Unit", ""), 1.0)
