"""32 threads read 32 numbers that lie 1, 2, 4, ... apart: how many sectors of memory does it take?

    python examples/ladder/coalescing.py [STRIDE ...]

A warp, 32 threads in step, asks for memory once for all of its threads. Memory answers in sectors of 32 bytes.
"""

import sys

import numpy as np

from cnnengine.jit.cache import default_cache
from cnnengine.jit.counters import aligned
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.jit.source import KernelSource

KERNEL = """
#line 1 "coalescing"
__global__ void read(const float* x, float* y, int stride) {
  y[threadIdx.x] = x[threadIdx.x * stride];
}
"""


def main() -> None:
    strides = [int(argument) for argument in sys.argv[1:]] or [0, 1, 2, 4, 8, 64]
    source = KernelSource("cuda/platform.cuh", ("read",), KERNEL)
    runtime = EmulatorRuntime(default_cache(), count=True)
    print("stride  sectors a request  bytes moved  bytes used")
    for stride in strides:
        x, y = aligned(np.arange(31 * stride + 1, dtype=np.float32)), aligned(np.zeros(32, np.float32))
        runtime.kernel(source, "read")((1, 1, 1), (32, 1, 1), 0, (x, y, stride))  # one block of one warp
        if not np.array_equal(y, x[np.arange(32) * stride]):
            raise SystemExit("the kernel read something else")
        load = runtime.take_counters().total.global_load
        used = x[np.unique(np.arange(32) * stride)].nbytes
        print(f"{stride:6}  {load.sectors_per_request:17.0f}  {32 * load.sectors:11}  {used:10}")


if __name__ == "__main__":
    main()
