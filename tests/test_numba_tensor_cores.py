"""The Numba rung on tensor cores without a GPU: each lane's registers are those of the C++ emulator's instructions,
whose layout is the PTX manual's, and so are the results of whole convolutions, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cnnengine.backends import get
from cnnengine.backends.contract import IDENTITY, Backend, Epilogue
from cnnengine.backends.registry import unavailable
from cnnengine.errors import Unsupported
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.jit.source import KernelSource
from cnnengine.shapes import Conv2dShape, conv2d_shape

from . import numba_simulator
from .conftest import CHOSEN, REASONS

RUNG = "implicit_gemm_tf32"
PROBE = """
#include "cuda/platform.cuh"
#include "cuda/ptx.cuh"
__global__ void __launch_bounds__(32)
    registers(const float4* rows, const uint32_t* a, const uint32_t* b, const float* d, const float* x, uint32_t* words,
              float* sums, uint32_t* rounded) {
  DYN_SMEM(float4, shared);
  const int l = threadIdx.x;
  shared[l] = rows[l];
  __syncwarp();
  uint32_t matrix[4], fa[4], fb[2];
  float fd[4];
  ptx::ldmatrix_x4(matrix, shared + (5 * l + 3) % 32);
  for (int i = 0; i < 4; i++) words[4 * l + i] = matrix[i], fa[i] = a[4 * l + i], fd[i] = d[4 * l + i];
  for (int i = 0; i < 2; i++) fb[i] = b[2 * l + i];
  ptx::mma_m16n8k8_tf32(fd, fa, fb);
  for (int i = 0; i < 4; i++) sums[4 * l + i] = fd[i];
  rounded[l] = ptx::to_tf32(x[l]);
}
"""
SHAPES = [
    conv2d_shape((2, 5, 4, 3), (4, 3, 2, 3), (2, 1), (1, 0)),
    conv2d_shape((1, 4, 5, 36), (38, 2, 1, 18), groups=2),
    conv2d_shape((1, 9, 7, 3), (17, 3, 3, 3), 2, 1),
]


@pytest.fixture
def simulator() -> Backend:
    if "numba" not in CHOSEN or REASONS["numba"] is not None:
        pytest.skip(f"backend numba is not tested: {REASONS['numba'] or 'not in CNNENGINE_TEST_BACKENDS'}")
    backend = get("numba")
    if backend.device != "cpu":
        pytest.skip("a GPU is present: the kernels do not run in the simulator")
    if numba_simulator.why_not():
        pytest.skip(f"the scheduler that lets warps meet is not in place: {numba_simulator.why_not()}")
    return backend


@pytest.fixture
def emulator() -> Backend:
    if (reason := unavailable("emulator")) is not None:
        pytest.skip(f"backend emulator is absent: {reason}")
    return get("emulator")


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def test_every_lane_holds_what_the_emulators_does(
    simulator: Backend, emulator: Backend, rng: np.random.Generator
) -> None:
    from numba import cuda

    from .numba_lanes import registers

    x = random(rng, 32)
    x[:6] = [np.inf, -np.inf, np.nan, 0.0, -0.0, np.float32(1 + 2.0**-11)]  # the last lies between two of TF32's
    given = [random(rng, n).view(dtype) for n, dtype in ((128, "f4"), (128, "u4"), (64, "u4"), (128, "f4"))]
    outputs = [[np.zeros(n, dtype) for n, dtype in ((128, "u4"), (128, "f4"), (32, "u4"))] for _ in range(2)]
    registers[1, 32](*map(cuda.In, (*given, x)), *map(cuda.InOut, outputs[0]))
    source = KernelSource("cuda/ptx.cuh", ("registers",), PROBE)
    kernel = EmulatorRuntime(default_cache()).kernel(source, "registers")
    kernel((1, 1, 1), (32, 1, 1), 512, (*given, x, *outputs[1]))
    for name, mine, theirs in zip(("ldmatrix", "mma", "cvt"), *outputs, strict=True):
        np.testing.assert_array_equal(mine.view("u4"), theirs.view("u4"), err_msg=name)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s.x} {s.w}")
def test_convolutions_have_the_emulators_bits(
    simulator: Backend, emulator: Backend, shape: Conv2dShape, rng: np.random.Generator
) -> None:
    x, w, dy, bias = random(rng, *shape.x), random(rng, *shape.w), random(rng, *shape.y), random(rng, shape.K)
    results = []
    for backend in (simulator, emulator):
        y, dx = (np.empty(s, np.float32) for s in (shape.y, shape.x))
        backend.conv2d_forward(shape, x, w, y, Epilogue(bias=bias), RUNG)
        backend.conv2d_backward_input(shape, dy, w, dx, RUNG)
        results.append((y, dx))
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_float32_stays_exact_unless_it_is_asked_for(simulator: Backend, rng: np.random.Generator) -> None:
    shape = conv2d_shape((1, 8, 8, 4), (16, 3, 3, 4))
    assert simulator.conv2d_prepare(shape, random(rng, *shape.w), None).algorithm == "implicit_gemm"


def test_it_is_refused_where_warps_cannot_meet(simulator: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnengine.kernels import ptx

    monkeypatch.setattr(ptx, "meet_warp", None)
    shape = conv2d_shape((1, 3, 3, 1), (1, 1, 1, 1))
    arrays: list[Any] = [np.zeros(s, np.float32) for s in (shape.x, shape.w, shape.y)]
    with pytest.raises(
        Unsupported, match="implicit_gemm_tf32: needs a GPU: in Numba's simulator the threads of a warp"
    ):
        simulator.conv2d_forward(shape, *arrays, IDENTITY, RUNG)
