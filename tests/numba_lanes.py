"""A kernel that shows each lane's registers, for tests/test_numba_tensor_cores.py, which has its twin in C++.

Imports numba: only a test that runs in Numba's simulator imports this."""

from __future__ import annotations

from typing import Any

from cnnengine.kernels import ptx
from numba import cuda, float32


@cuda.jit
def registers(rows: Any, a: Any, b: Any, d: Any, x: Any, words: Any, sums: Any, rounded: Any) -> None:
    shared = cuda.shared.array(128, float32)
    lane = cuda.threadIdx.x
    for i in range(4):
        shared[4 * lane + i] = rows[4 * lane + i]
    cuda.syncthreads()
    matrix = ptx.ldmatrix_x4(shared, 4 * ((5 * lane + 3) % 32))
    left = a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]
    right = b[2 * lane], b[2 * lane + 1]
    total = d[4 * lane], d[4 * lane + 1], d[4 * lane + 2], d[4 * lane + 3]
    total = ptx.mma_m16n8k8_tf32(total, left, right)
    for i in range(4):
        words[4 * lane + i] = matrix[i]
        sums[4 * lane + i] = total[i]
    rounded[lane] = ptx.as_word(ptx.to_tf32(x[lane]))
