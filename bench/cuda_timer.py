"""Timing on a GPU: device events around each call, the L2 cache overwritten before it."""

from __future__ import annotations

from collections.abc import Callable

FLUSH_BYTES = 1 << 30  # 0.25 ms at 4.3 TB/s


class CudaTimer:
    """A sample is one call. Overwriting a gigabyte empties the L2 of the operands, and takes longer than any contender
    takes to launch: launches queue up behind it, so that the events see the device's time and not the host's."""

    name = "CUDA events, L2 flushed"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._flush = cupy.empty(FLUSH_BYTES, cupy.uint8)
        self._start, self._end = cupy.cuda.Event(), cupy.cuda.Event()

    def calls(self, run: Callable[[], object]) -> int:
        run()
        self._cupy.cuda.Device().synchronize()
        return 1

    def seconds(self, run: Callable[[], object], calls: int) -> float:
        total = 0.0
        for _ in range(calls):
            self._flush.fill(0)
            self._start.record()
            run()
            self._end.record()
            self._end.synchronize()
            total += 1e-3 * float(self._cupy.cuda.get_elapsed_time(self._start, self._end))
        return total / calls
