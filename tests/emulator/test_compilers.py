"""NVRTC accepts what the emulator accepts: every instruction of ptx.cuh and wgmma.cuh, and these tests' kernels."""

from __future__ import annotations

import pytest

from cnnengine.jit import nvrtc

from .machine import ASYNCHRONOUS, CLUSTERS, COUNTERS, THREADS, machine, source

pytestmark = pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
ARCHITECTURES = ("sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120")
PROBES = (
    *("probe_warp", "probe_sm80", "probe_sm90", "probe_sm90a"),
    *(f"probe_conversions<{t}>" for t in ("float", "__half", "__nv_bfloat16")),
)
# the probe of every size of wgmma holds 128 sums a thread and more; in it, and nowhere else, sums may go to memory
MAY_SPILL = {"probe_sm90a"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_instruction_compiles(arch: str) -> None:
    usage = nvrtc.compile_source(source("probe.cuh", PROBES), arch).usage()
    assert set(usage) == set(PROBES)
    for expression, used in usage.items():
        assert used.spill_bytes == 0 or expression in MAY_SPILL, f"{expression} for {arch}: {used}"


@pytest.mark.parametrize("arch", ["sm_75", "sm_90a"])
def test_kernels_on_threads_compile(arch: str) -> None:
    assert set(nvrtc.compile_source(source("threads.cuh", THREADS), arch).usage()) == set(THREADS)


@pytest.mark.parametrize(("file", "kernels"), [("asynchronous.cuh", ASYNCHRONOUS), ("clusters.cuh", CLUSTERS)])
def test_kernels_of_sm90_compile(file: str, kernels: tuple[str, ...]) -> None:
    assert set(nvrtc.compile_source(source(file, kernels), "sm_90a").usage()) == set(kernels)


def test_kernels_to_count_compile() -> None:
    assert set(nvrtc.compile_source(source("counters.cuh", COUNTERS), "sm_90a").usage()) == set(COUNTERS)


def test_the_emulator_accepts_the_probe() -> None:
    assert machine("probe.cuh", kernels=PROBES).module.expressions == PROBES
