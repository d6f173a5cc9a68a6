"""Compiles every CUDA kernel for the GPU at hand and for the emulator, on all cores, so that nothing that follows waits
for a compiler. What is in the cache (``CNNENGINE_CACHE``) is not compiled again.

    python bench/compile_kernels.py --probes     # also the small kernels of tests/emulator
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.emulator_probes import PROBES
from bench.provenance import usable_cores
from cnnengine import _launch
from cnnengine.backends import _kernel_library as library
from cnnengine.jit import host, nvrtc
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import CAPABILITY_MAJOR, CAPABILITY_MINOR

Job = tuple[str, str, str, str]  # "nvrtc", "host" or one of PROBES_FOR; family or file; dtype; architecture
PROBES_FOR = ("probes", "probes on the GPU")


def main(arguments: list[str] | None = None) -> int:
    """1 where something does not compile, 2 where there is no GPU to compile for."""
    p = argparse.ArgumentParser(prog="bench/compile_kernels.py", description=(__doc__ or "").splitlines()[0])
    p.add_argument("--probes", action="store_true", help="also the emulator's own test kernels, for the emulator")
    p.add_argument("--family", action="append", default=[], choices=tuple(library.FAMILIES), help="of these alone")
    options = p.parse_args(arguments)
    if (reason := _launch.driver_problem()) is not None:
        print(f"bench/compile_kernels.py: {reason}", file=sys.stderr)
        return 2
    capability = [_launch.device_attribute(which, 0) for which in (CAPABILITY_MAJOR, CAPABILITY_MINOR)]
    architecture = nvrtc.architecture((capability[0], capability[1]))
    families = options.family or library.FAMILIES
    jobs: list[Job] = [
        (how, family, dtype, architecture)
        for family in sorted(families, key=lambda f: not f.startswith("conv2d"))  # the long ones first
        for dtype in library.TYPES
        for how in ("host", "nvrtc")
    ]
    if options.probes:
        jobs[:0] = [(how, file, "", architecture) for file in sorted(probe_files()) for how in PROBES_FOR]
    start = time.perf_counter()
    with ProcessPoolExecutor(len(usable_cores())) as pool:
        failures = [message for message in pool.map(compiled, jobs) if message]
    for message in failures:
        print(message)
    print(f"{len(jobs)} compilations for {architecture} in {time.perf_counter() - start:.0f} s, {len(failures)} failed")
    return 1 if failures else 0


def probe_files() -> set[str]:
    from importlib import import_module

    return {import_module(f"tests.emulator.{module}").FILE for module in PROBES if module != "test_im2col"}


def compiled(job: Job) -> str:
    """What went wrong, or nothing."""
    how, family, dtype, architecture = job
    try:
        if how in PROBES_FOR:
            from tests.emulator.machine import FILES, machine, source

            if how == "probes":
                machine(family)
            else:
                nvrtc.build(source(family, FILES[family]), architecture, default_cache())
        elif how == "host":
            host.build(library.source(family, dtype), cache=default_cache())
        else:
            nvrtc.build(library.source(family, dtype), architecture, default_cache())
    except Exception as error:
        return f"{how} {family} {dtype}: {type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
