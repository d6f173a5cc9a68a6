"""32 threads read 32 numbers of shared memory that lie 1, 2, 3, ... apart: in how many turns?

    python examples/ladder/banks.py [STRIDE ...]

Shared memory has 32 banks; word i lies in bank i % 32. A bank gives one word a turn, to all threads that want it.
"""

import sys

import numpy as np

from cnnengine.jit.cache import default_cache
from cnnengine.jit.counters import aligned
from cnnengine.jit.launch import EmulatorRuntime
from cnnengine.jit.source import KernelSource

WORDS = 2048
KERNEL = """
#line 1 "banks"
struct Words { float v[2048]; };

__global__ void read(float* y, int stride) {
  DYN_SMEM(Words, shared);
  for (int i = threadIdx.x; i < 2048; i += 32) shared->v[i] = i;
  __syncwarp();
  y[threadIdx.x] = shared->v[threadIdx.x * stride];
}
"""


def main() -> None:
    strides = [int(argument) for argument in sys.argv[1:]] or [0, 1, 2, 3, 4, 32, 33]
    if not all(0 <= stride <= WORDS // 32 for stride in strides):
        raise SystemExit(f"a stride must lie between 0 and {WORDS // 32}")
    source = KernelSource("cuda/platform.cuh", ("read",), KERNEL)
    runtime = EmulatorRuntime(default_cache(), count=True)
    print("stride  turns  of them conflicts")
    for stride in strides:
        y = aligned(np.zeros(32, np.float32))
        runtime.kernel(source, "read")((1, 1, 1), (32, 1, 1), 4 * WORDS, (y, stride))  # one block of one warp
        if not np.array_equal(y, np.arange(32) * stride):
            raise SystemExit("the kernel read something else")
        load = runtime.take_counters().total.shared_load
        print(f"{stride:6}  {load.wavefronts:5}  {load.conflicts:17}")


if __name__ == "__main__":
    main()
