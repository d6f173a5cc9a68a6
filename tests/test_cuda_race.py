"""Every CUDA kernel under the emulator's race checker, and in three orders of its threads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cnnengine import _paths
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.registry import unavailable
from cnnengine.errors import KernelError
from cnnengine.jit import host
from cnnengine.jit import source as source_module
from cnnengine.jit.source import KernelSource
from cnnengine.shapes import conv2d_shape, gemm_shape, reduce_shape

from . import every_kernel

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
SCHEDULES = {"reverse": 1, "random": 2026}


@pytest.fixture(scope="module")
def forward() -> dict[str, every_kernel.Results]:
    """Results with threads in ascending order, by dtype."""
    return {d: every_kernel.run(EmulatorBackend(every_kernel.RecordingRuntime()), d) for d in ("float32", "float16")}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_no_kernel_has_a_race(dtype: str) -> None:
    """A race, an access outside the arrays given, or a barrier that not all threads reach raises KernelError."""
    backend = EmulatorBackend(every_kernel.RecordingRuntime(flags=("-O1",), race=True))
    every_kernel.run(backend, dtype)
    assert backend.runtime.launched == every_kernel.listed(dtype), "every kernel ran"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_order_of_threads_does_not_matter(
    forward: dict[str, every_kernel.Results], schedule: str, dtype: str
) -> None:
    backend = EmulatorBackend(every_kernel.RecordingRuntime(schedule=SCHEDULES[schedule], threads=1))
    for name, result in every_kernel.run(backend, dtype).items():
        np.testing.assert_array_equal(result, forward[dtype][name], err_msg=name)


def test_the_tile_does_not_matter(forward: dict[str, every_kernel.Results]) -> None:
    """Sums run in the order of the reduction, whatever the tile: the same bits, but for the split backward_weight."""
    first, *others = (str(tile) for tile in library.TILES)
    results = forward["float32"]
    names = [name for name in results if name.endswith(first) and "backward_weight" not in name]
    assert len(names) == 6  # forward, backward_input, four ways to transpose
    for name in names:
        for other in others:
            np.testing.assert_array_equal(results[name.replace(first, other)], results[name], err_msg=name)


def test_implicit_gemm_adds_in_the_order_of_tiled(forward: dict[str, every_kernel.Results]) -> None:
    """The same bits with every tile, though backward_input passes the zeros of its stride by."""
    results = forward["float32"]
    names = [n for n in results if "implicit_gemm" in n and "SimtTile" in n and not n.startswith("norm")]
    assert len(names) == 3 * len(library.SIMT_VARIANTS)
    for name in names:
        other = name[: name.index("SimtTile")] + "tiled"
        np.testing.assert_array_equal(results[name], results[other], err_msg=name)


@pytest.mark.parametrize(
    ("file", "reported"),
    [("reduce.cuh",) * 2, ("tile.cuh",) * 2, ("simt_tile.cuh",) * 2, ("simt_tile.cuh", "tile_moments.cuh")],
)
def test_a_barrier_taken_away_is_reported(
    file: str, reported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checker sees these kernels: without their barriers, or without the last, it says so, and where."""
    edited = tmp_path / "csrc"
    shutil.copytree(_paths.csrc_dir(), edited)
    for module in (host, source_module):
        monkeypatch.setattr(module, "csrc_dir", lambda: edited)
    path = edited / "cuda" / file
    text = path.read_text()
    assert "__syncthreads();" in text
    with_moments = reported == "tile_moments.cuh"
    path.write_text("".join(text.rsplit("__syncthreads();", 1 if with_moments else -1)))

    if file == "reduce.cuh":
        family, expression, threads, shared = "reduce", "reduce<float, float, Sum, ReduceShape>", (1, 64, 1), 1024
        arguments = (np.ones(64, "float32"), np.zeros(1, "float32"), 64, 1, reduce_shape(1, 64, 1).packed)
    elif file == "simt_tile.cuh":
        simt = library.SIMT_SMALL
        family = "conv2d/implicit_gemm"
        expression = f"conv2d_forward_implicit_gemm<float, Conv2dShape, {simt}, 4>"
        threads, shared = (simt.threads, 1, 1), simt.shared_bytes
        conv = conv2d_shape((1, 8, 8, 32), (64, 1, 1, 32))
        matrices = [np.ones(s, "float32") for s in (conv.x, conv.w, conv.y)]
        moments = np.zeros((1, 2, conv.K), "float32") if with_moments else None
        arguments = (*matrices, None, None, None, None, 0, moments, conv.packed)
    else:
        tile = library.SMALL
        family, expression = "gemm", f"gemm_tiled<float, GemmShape, {tile}, false, false>"
        threads, shared = (tile.threads, 1, 1), tile.shared_bytes
        matrices = [np.ones((32, 32), "float32") for _ in range(3)]
        shape = gemm_shape(1, 32, 32, 32, False, False, False, False)
        arguments = (*matrices, None, None, None, None, 0, shape.packed)
    runtime = every_kernel.RecordingRuntime(flags=("-O1",), race=True)
    kernel = runtime.kernel(KernelSource(f"cuda/{family}.cuh", (expression,)), expression)
    with pytest.raises(KernelError, match=rf"(data race|uninitialised shared memory).* at \S*/{reported}"):
        kernel((1, 1, 1), threads, shared, arguments)
