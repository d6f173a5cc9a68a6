"""Puts an inspection together: plans, compiles, runs on the emulator, and measures where that is possible."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod
from typing import Any

import numpy as np

from ..backends.registry import unavailable
from ..errors import BackendUnavailable, KernelError, Unsupported
from ..jit.source import KernelSource
from ..shapes import Padding, Pair
from . import cpu, cuda_set, measured, native_set, numba_set
from .architectures import LIMITS, capability
from .emulated import MOST, Emulated
from .gpus import GPU, find, of_device, typical
from .inspection import Inspection, Kernel
from .launches import Launch, rung
from .operations import build
from .problem import Operand, Problem, Request, Size3
from .roofline import Bound, bound, cpu_bound

SETS = ("cuda", "numba", "native")
ARCH = "sm_90a"  # where neither an architecture nor a GPU is named


def inspect(
    operation: str,
    *,
    x: tuple[int, ...],
    w: tuple[int, ...] | None = None,
    verb: str = "forward",
    kind: str | None = None,
    window: int | Pair | None = None,
    stride: int | Pair | None = None,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    dtype: str = "float32",
    algorithm: str | None = None,
    kernels: str = "cuda",
    arch: str | None = None,
    gpu: str | None = None,
    specialised: bool = True,
    emulate: int = MOST,
    measure: bool = True,
) -> Inspection:
    """Opens up the kernels that a call runs.

    ``operation``: activation, binary, conv2d, dropout, gemm, norm, normalize_images, optimizer_step, pool2d, reduce,
    softmax_cross_entropy or unary. ``x`` (N, H, W, C), for gemm (M, K), for softmax_cross_entropy (rows, classes), else
    any shape; ``w`` (K, R, S, C/groups), for gemm (K, N), for binary the other operand's shape. ``verb``: "forward",
    "backward", of conv2d "backward_input" and "backward_weight". ``kind``: of activation, binary, norm ("batch",
    "layer", "group"), optimizer_step, pool2d ("max", "avg"), reduce and unary. ``window``, ``stride``, ``padding``,
    ``dilation``, ``groups`` and ``algorithm`` are those of the operation.

    ``kernels``: "cuda", "numba" or "native". ``arch`` is what to compile for, such as "sm_90a", ``gpu`` a name of
    ``cnnengine.inspect.gpus.GPUS`` to predict for. Without either it is the GPU that is here, else sm_90a; without
    ``gpu`` a typical one of the architecture. ``specialised``: shapes
    are compiled in where they may be. ``emulate``: operations that the emulated run may take, 0 for none. ``measure``:
    time it where there is a GPU, and let Nsight Compute count it where that is there.

    What needs a compiler, a disassembler or a GPU that is not here is named in ``missing`` with the reason. Raises
    ValueError for arguments, Unsupported for what the kernels cannot do.
    """
    if kernels not in SETS:
        raise ValueError(f"kernels must be one of {', '.join(SETS)}; received {kernels!r}")
    problem = build(Request(operation, x, w, verb, kind, window, stride, padding, dilation, groups, dtype, algorithm))
    missing: dict[str, str] = {}
    timed = None
    if measure:
        try:
            timed = measured.measure(problem, kernels)
        except (BackendUnavailable, KernelError) as error:
            missing["measured time, bandwidth, FLOP/s, ncu's counters"] = str(error)
    if kernels == "native":
        return _native(problem, timed, missing)
    target = find(gpu) if gpu is not None else None
    if target is None and arch is None and timed is not None:
        target = of_device(timed.device)
    arch = arch or (target.arch if target else ARCH)
    target = target or typical(capability(arch))
    if kernels == "numba":
        return _numba(problem, arch, target, timed, missing)
    return _cuda(problem, arch, target, specialised, emulate, timed, missing)


def inspect_kernel(
    source: KernelSource,
    expression: str,
    grid: Size3,
    block: Size3,
    arguments: tuple[Any, ...],
    *,
    shared_bytes: int = 0,
    flops: int = 0,
    on_tensor_cores: bool = False,
    arch: str | None = None,
    gpu: str | None = None,
) -> Inspection:
    """The same of a kernel of your own, launched once on these arguments: NumPy arrays, which the emulated run reads
    and writes, and numbers as in docs/emulator.md.

    ``source`` is the translation unit, ``expression`` the kernel in it, ``shared_bytes`` its dynamic shared memory,
    ``flops`` what it computes (the bound needs it; the traffic is every array once). The others are those of
    ``inspect``. The dtype of the first array decides on the rate of arithmetic. Raises ValueError for arguments,
    KernelError for what the emulator finds wrong.
    """
    arrays = {f"argument {i}": a for i, a in enumerate(arguments) if isinstance(a, np.ndarray)}
    if not arrays:
        raise ValueError(f"inspect_kernel: the arguments of {expression} must have an array, received {arguments!r}")
    first = next(iter(arrays.values()))
    operands = {name: Operand(a.shape, a.dtype.name) for name, a in arrays.items()}
    request = Request("kernel", first.shape, dtype=first.dtype.name)
    launch = Launch(source.only(expression), expression, grid, block, shared_bytes, None)
    problem = Problem(request, launch.name, operands, flops, lambda *_: None)
    missing: dict[str, str] = {}
    _needs_launch()
    target = find(gpu) if gpu is not None else None
    arch = arch or (target.arch if target else ARCH)
    target = target or typical(capability(arch))
    limits = LIMITS[capability(arch)]
    made = cuda_set.kernels([launch], arch, limits, target.multiprocessors if target else None, missing)
    ran = None
    try:
        from .emulation import emulate_kernel

        ran = emulate_kernel(problem, launch, arguments)
    except BackendUnavailable as error:
        missing["counters"] = str(error)
    best = _bound(problem, target, arch, on_tensor_cores, made, missing)
    return Inspection(problem, "cuda", None, arch, made, best, ran, None, missing)


def _cuda(
    problem: Problem,
    arch: str,
    gpu: GPU | None,
    specialised: bool,
    emulate: int,
    timed: measured.Measured | None,
    missing: dict[str, str],
) -> Inspection:
    capability(arch)
    _needs_launch()
    from .planned import launches

    arch, planned = launches(problem, arch, specialised=specialised)
    algorithm = rung(problem, planned)
    limits = LIMITS[capability(arch)]
    made = cuda_set.kernels(planned, arch, limits, gpu.multiprocessors if gpu else None, missing)
    ran = _emulated(problem, planned, algorithm, emulate, missing)
    on_tensor_cores = any(launch.on_tensor_cores for launch in planned)
    best = _bound(problem, gpu, arch, on_tensor_cores, made, missing)
    return Inspection(problem, "cuda", algorithm, arch, made, best, ran, timed, missing)


def _needs_launch() -> None:
    if find_spec("cnnengine._launch") is None:
        raise BackendUnavailable("cnnengine._launch is not built: pip install -e .")


def _emulated(
    problem: Problem, planned: list[Launch], algorithm: str | None, most: int, missing: dict[str, str]
) -> Emulated | None:
    if most == 0:
        missing["counters"] = "no emulated run was asked for"
        return None
    try:
        from .emulation import emulate

        return emulate(problem, planned, algorithm, most)
    except (BackendUnavailable, KernelError, Unsupported) as error:
        missing["counters"] = str(error)
        return None


def _numba(
    problem: Problem, arch: str, gpu: GPU | None, timed: measured.Measured | None, missing: dict[str, str]
) -> Inspection:
    limits = LIMITS[capability(arch)]
    made = numba_set.kernels(problem, arch, limits, gpu.multiprocessors if gpu else None, missing)
    missing["counters"] = "the emulator runs the CUDA C++ kernels: --set cuda counts theirs"
    best = _bound(problem, gpu, arch, False, made, missing)
    return Inspection(problem, "numba", problem.request.algorithm, arch, made, best, None, timed, missing)


def _native(problem: Problem, timed: measured.Measured | None, missing: dict[str, str]) -> Inspection:
    if reason := unavailable("native"):
        raise BackendUnavailable(f"backend 'native' is not available: {reason}")
    from .. import _native as extension

    algorithm = native_set.chosen(problem)
    made = native_set.kernels(problem, algorithm, missing)
    missing["counters"] = "the emulator runs GPU kernels"
    peaks = cpu.peaks()
    best = cpu_bound(cpu.name(), peaks.tflops, peaks.gbps, problem.flops, problem.nbytes)
    return Inspection(problem, "native", algorithm, str(extension.isa()), made, best, None, timed, missing)


def _bound(
    problem: Problem, gpu: GPU | None, arch: str, on_tensor_cores: bool, made: list[Kernel], missing: dict[str, Any]
) -> Bound | None:
    if gpu is None:
        missing["bound, waves"] = f"no GPU of {arch} is in the table: name one with gpu"
        return None
    blocks = max(((prod(k.grid) * prod(k.block), prod(k.grid)) for k in made if k.grid and k.block), default=None)
    most = blocks[1] if blocks else None  # of the launch with the most threads
    try:
        return bound(gpu, problem.request.dtype, on_tensor_cores, problem.flops, problem.nbytes, most)
    except ValueError as error:
        missing["bound"] = str(error)
        return None
