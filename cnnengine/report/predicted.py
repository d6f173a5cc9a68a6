"""The rungs of the CUDA convolution before anybody has timed them: what NVRTC made of them, what the emulator counted,
and what a GPU could make of them at best. Rows of the suite ``predicted``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

from ..backends._conv2d_plans import ALGORITHMS, WINOGRAD
from ..backends._winograd_plans import FREQUENCIES
from ..errors import Unsupported
from ..inspect.emulated import MOST
from ..inspect.gpus import GPU, find
from ..inspect.inspection import Inspection, Kernel
from ..inspect.inspector import inspect
from ..inspect.operations import reduced
from .rows import PREDICTED, Row

SECTOR = 32  # bytes
DTYPES = ("float32", "float16")
_AFTER = ALGORITHMS.index("implicit_gemm") + 1
RUNGS = (*ALGORITHMS[:_AFTER], WINOGRAD, *ALGORITHMS[_AFTER:])  # in the order of the ladder
PRODUCTS = {WINOGRAD: FREQUENCIES / (4 * 9), "implicit_gemm_3xtf32": 3.0}  # over those of the definition; F(2x2, 3x3)
PACKAGES = ("cnnengine", "numpy", "nvidia-cuda-nvrtc", "nvidia-cuda-nvdisasm")


@dataclass(frozen=True)
class Case:
    """A convolution with padding of half the filter: x (N, H, W, C), w (K, R, S, C/groups)."""

    name: str
    x: tuple[int, int, int, int]
    w: tuple[int, int, int, int]
    groups: int = 1


CASES = (Case("r50 3x3 64>64 @56 (64)", (64, 56, 56, 64), (64, 3, 3, 64)),)  # as bench/layers.py calls it


def predictions(
    gpu: str, cases: tuple[Case, ...] = CASES, dtypes: tuple[str, ...] = DTYPES, rungs: tuple[str, ...] = RUNGS
) -> Iterator[Row]:
    """A row for each rung that takes a case, in the order of the ladder. ValueError at once for an unknown GPU."""
    return _predictions(find(gpu), cases, dtypes, rungs)


def _predictions(gpu: GPU, cases: tuple[Case, ...], dtypes: tuple[str, ...], rungs: tuple[str, ...]) -> Iterator[Row]:
    origin = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["cnnengine", *(Path(a).name if Path(a).is_absolute() else a for a in sys.argv[1:])]),
        "versions": {name: metadata.version(name) for name in PACKAGES if _installed(name)},
    }
    for case in cases:
        for dtype in dtypes:
            for rung in rungs:
                try:
                    found = inspect(
                        "conv2d", x=case.x, w=case.w, padding=case.w[1] // 2, groups=case.groups, dtype=dtype,
                        algorithm=rung, gpu=gpu.name, measure=False,
                    )  # fmt: skip
                except Unsupported:
                    continue
                yield {"suite": PREDICTED, "case": case.name, "dtype": dtype, "rung": rung, **_fields(found), **origin}


def _fields(found: Inspection) -> dict[str, Any]:
    main = max(found.kernels, key=_threads)
    row: dict[str, Any] = {
        "operation": found.problem.verb,
        "gpu": found.bound.gpu if found.bound else None,
        "arch": found.arch,
        "flops": found.problem.flops,
        "bytes": found.problem.nbytes,
        "kernels": [kernel.expression for kernel in found.kernels],
        "registers": main.registers,
        "spill_bytes": main.spill_bytes,
        "shared_bytes": main.dynamic_shared + (main.static_shared or 0),
        "threads": prod(main.block) if main.block else None,
        "occupancy": main.occupancy.share if main.occupancy else None,
        "limiters": list(main.occupancy.limiters) if main.occupancy else [],
        "waves": main.waves,
        "missing": found.missing,
    }
    if found.bound is not None:
        best, products = found.bound, PRODUCTS.get(found.algorithm or "", 1.0)
        arithmetic = products * (best.arithmetic if best.rounds is None else best.rounds)
        row |= {
            "bound": "arithmetic" if arithmetic > best.memory else "memory",
            "milliseconds_at_best": max(arithmetic, best.memory),
            "tflops_at_most": best.peak,
        }
    if found.emulated is not None:
        row |= _counts(found)
    return row


def _counts(found: Inspection) -> dict[str, Any]:
    """Of the emulated run. Traffic is what is asked of memory before any cache answers: sectors, and the boxes that
    TMA moves."""
    assert found.emulated is not None
    total, small = found.emulated.counters.total, reduced(found.problem, MOST)
    reads = [part for part in (total.global_load, total.global_copy) if part.requests]
    requests = sum(part.requests for part in reads)
    bulk = total.bulk_load.nbytes + total.bulk_store.nbytes
    return {
        "emulated": found.emulated.what,
        "differs": found.emulated.differs,
        "emulated_flops": small.flops,
        "sectors_a_load": sum(part.sectors for part in reads) / requests if requests else None,
        "sectors_a_store": total.global_store.sectors_per_request if total.global_store.requests else None,
        "traffic": total.global_sectors * SECTOR + bulk,
        "bulk": bulk,
        "wavefronts": total.wavefronts,
        "conflicts": total.conflicts,
    }


def _threads(kernel: Kernel) -> int:
    return prod(kernel.grid or (0,)) * prod(kernel.block or (0,))


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
