"""The CUDA C++ kernels of a call, compiled for an architecture by NVRTC and taken apart by nvdisasm."""

from __future__ import annotations

from dataclasses import replace

from ..errors import BackendUnavailable, KernelError
from ..jit import nvrtc, sass
from ..jit.cache import default_cache
from .architectures import Limits
from .inspection import Kernel
from .launches import Launch
from .machine_code import machine_code
from .occupancy import occupancy
from .source_text import written_out


def kernels(
    launches: list[Launch], arch: str, limits: Limits, multiprocessors: int | None, missing: dict[str, str]
) -> list[Kernel]:
    """What is known of each launch; why the rest is not goes into ``missing``."""
    return [_kernel(launch, arch, limits, multiprocessors, missing) for launch in launches]


def _kernel(launch: Launch, arch: str, limits: Limits, multiprocessors: int | None, missing: dict[str, str]) -> Kernel:
    kernel = Kernel(
        launch.name,
        launch.expression,
        f"csrc/{launch.source.file}",
        launch.grid,
        launch.block,
        launch.cluster,
        launch.shared_bytes,
        source=written_out(launch.source),
    )
    try:
        cubin = nvrtc.build(launch.source, arch, default_cache())
        ptx = nvrtc.ptx(launch.source, arch)
    except (BackendUnavailable, KernelError) as error:
        missing["PTX, machine code, registers, occupancy"] = str(error)
        return kernel
    usage = cubin.usage()[launch.expression]
    held = occupancy(limits, launch.threads, usage.registers, usage.shared_bytes + launch.shared_bytes)
    at_once = held.blocks * (multiprocessors or 0)
    kernel = replace(
        kernel,
        registers=usage.registers,
        spill_bytes=usage.spill_bytes,
        static_shared=usage.shared_bytes,
        occupancy=held,
        waves=launch.blocks / at_once if at_once else None,
        ptx=ptx,
    )
    try:
        return replace(kernel, code=machine_code(sass.disassemble(cubin)[launch.expression]))
    except (BackendUnavailable, KernelError) as error:
        missing["machine code, instruction mix"] = str(error)
        return kernel
