"""What test_sanitizers.py runs in processes of their own: ``python -m tests.emulator.sanitized WHAT``."""

from __future__ import annotations

import sys

import numpy as np

from .machine import SCHEDULES, Machine, machine

FLAGS = ("-O1", "-g", "-fsanitize=address,undefined,bounds-strict", "-fno-sanitize-recover=undefined")
VALUES = 64 * 4
KERNELS = {
    "threads.cuh": (*(f"reversed<{bug}>" for bug in (0, 2, 5, 6, 7, 9)), "rotated<0>", "piped<0>", "histogram<0>"),
    "asynchronous.cuh": ("copied<0>", "ring<0>"),
    "clusters.cuh": ("parts<2, 0>",),
}


def correct(threads: Machine, copies: Machine, clusters: Machine) -> None:
    """Kernels without a bug, in every schedule, and a report in between, which leaves fibers where they were."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(64, np.float32), np.zeros(64, np.float32)
    for schedule in SCHEDULES:
        for each in (threads, copies, clusters):
            each.module.configure(schedule, 2)
        for _ in range(3):
            threads.launch("reversed<0>", 3, 64, x, y, shared=VALUES)
            np.testing.assert_array_equal(y, x[::-1])
            assert "divergent barrier" in threads.report("reversed<2>", 3, 64, x, y, shared=VALUES)
        threads.launch("rotated<0>", 1, 64, x, y, np.int32(3), shared=VALUES)
        threads.launch("piped<0>", 1, 64, np.tile(x, 2), np.zeros(128, np.float32), np.int32(4), shared=256)
        counts = np.zeros(10, np.int32)
        threads.launch("histogram<0>", 4, 64, rng.integers(0, 10, 500, np.int32), counts, np.int32(500))
        assert counts.sum() == 500
        n = 300
        out = np.zeros(n, np.float32)
        copies.launch("copied<0>", 1, 32, np.ones(n, np.float32), out, np.int32(n), shared=2 * 128 * 4)
        assert out[:256].tolist() == [2] * 256
        a, b = (rng.standard_normal((64, 128)).astype(np.float16) for _ in range(2))
        product = np.zeros((64, 64), np.float32)
        maps = [copies.tensor_map(aligned(v), (64, 64), swizzle=3) for v in (a, b)]
        copies.launch("ring<0>", 1, 160, *maps, product, np.int32(2), shared=4 * 64 * 64 * 2 + 1024, also=(a, b))
        assert np.isfinite(product).all()
        tensor = aligned(rng.standard_normal((3 * 2 * 8, 32), np.float32))
        seen, held = np.zeros((4, *tensor.shape), np.float32), clusters.tensor_map(tensor, (8, 32))
        clusters.launch("parts<2, 0>", 4, 64, held, seen, np.int32(3), shared=4 * 1024 + 128, cluster=2)
        np.testing.assert_array_equal(seen, np.broadcast_to(tensor, seen.shape))


HELD = []  # tensors that maps point to


def aligned(values: np.ndarray) -> np.ndarray:
    store = np.zeros(values.nbytes + 16, np.uint8)
    HELD.append(store)
    start = -store.ctypes.data % 16
    result = store[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    result[...] = values
    return result


def main(what: str) -> None:
    flags = (*FLAGS, "-DCNN_EMULATOR_UCONTEXT") if what == "ucontext" else FLAGS
    threads, copies, clusters = (machine(file, flags=flags, kernels=kernels) for file, kernels in KERNELS.items())
    if what in ("assembly", "ucontext"):
        correct(threads, copies, clusters)
    else:
        threads.module.configure(0, 1)
        x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
        threads.launch(f"reversed<{what}>", 1, 64, x, y, shared=VALUES)
    print("finished")


if __name__ == "__main__":
    main(sys.argv[1])
