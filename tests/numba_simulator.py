"""A fast and strict scheduler for Numba's CUDA simulator, for the tests.

Numba's simulator runs every CUDA thread of a block as a thread of the operating system and polls them: 0.2-0.5 ms a
CUDA thread. Here a block's threads run one after the other inside a greenlet; only a thread that stops at a barrier
keeps its greenlet, and the next threads go on in a new one. A kernel without barriers is a plain loop of calls.

It is stricter than Numba's own: it names, with block and thread,

* a barrier that not all threads of a block reach, or reach at different lines (``DivergentBarrier``);
* shared memory read before it was written (``UninitializedRead``; local memory starts as NaN);
* shared memory that two threads touch, one of them writing, without a barrier between (``SharedMemoryRace``);
* an index below zero (Numba wraps it, C++ reads astray), and a kernel that writes an argument passed as ``cuda.In``;
* a warp's instruction that not all of its lanes reach (``DivergentBarrier``).

What a warp does together, matrix products among it, it does with ``meet_warp``: each thread brings something and gets
what all lanes of its warp brought. kernels/ptx.py has the instructions in these terms. All warps of a block meet at the
same time; what they do to shared memory before and after is no more ordered than without.

The order of threads is fixed: first to last, or last to first with ``order("reverse")``.

``install()`` puts it in the place of Numba's own. It touches names that Numba keeps private; where one is missing, or
greenlet is, it returns False, ``why_not()`` tells the reason, and kernels run under Numba's own scheduler, slowly.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

_lock = threading.RLock()
_launch: Launch | None = None
_reverse = False
_why_not = "install() has not been called"
SEVERAL = -2
WARP = 32


class DivergentBarrier(RuntimeError):
    """Some threads of a block wait at a barrier that others never reach, or wait for at another line."""


class UninitializedRead(RuntimeError):
    """Shared memory is read that no thread has written."""


class SharedMemoryRace(RuntimeError):
    """Two threads touch one cell of shared memory, at least one writes, and no barrier lies between."""


def install() -> bool:
    """Puts the scheduler in place. False, with ``why_not()``, where Numba's own stays; that is no error."""
    global _why_not
    if "numba" not in sys.modules:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    try:
        _patch()
    except (ImportError, AttributeError) as missing:
        _why_not = f"{type(missing).__name__}: {missing}"
        return False
    _why_not = ""
    return True


def meet_warp(value: Any) -> list[Any]:
    """What all lanes of the running thread's warp brought; each brings ``value``."""
    if _launch is None:
        raise RuntimeError("meet_warp is called outside a kernel")
    return _launch.meet(value)


def why_not() -> str:
    """Why ``install()`` returned False; empty where the scheduler is in place."""
    return _why_not


@contextlib.contextmanager
def order(direction: str) -> Iterator[None]:
    """Runs the threads of each block "forward" or "reverse" within the block."""
    global _reverse
    if direction not in ("forward", "reverse"):
        raise ValueError(f"order must be 'forward' or 'reverse', received {direction!r}")
    before, _reverse = _reverse, direction == "reverse"
    try:
        yield
    finally:
        _reverse = before


def _patch() -> None:
    """Raises ImportError or AttributeError where greenlet or a name of Numba's simulator is missing."""
    import greenlet  # noqa: F401
    from numba import config, cuda

    if not config.ENABLE_CUDASIM:
        raise ImportError("numba was imported without NUMBA_ENABLE_CUDASIM=1")
    from numba.cuda.simulator import kernel, kernelapi

    for owner, names in (
        (kernel, ("FakeCUDAKernel", "normalize_kernel_dimensions")),
        (kernelapi, ("FakeCUDAModule", "FakeCUDAShared", "FakeCUDALocal", "Dim3")),
        (cuda, ("In", "Out", "InOut")),
    ):
        for name in names:
            getattr(owner, name)
    kernel.FakeCUDAKernel.__call__ = _call
    from cnnengine.kernels import ptx

    ptx.meet_warp = meet_warp


def _call(kernel: Any, *args: Any) -> Any:
    """What ``kernel[grid, block](...)`` and the call of a device function inside a kernel do."""
    if _launch is not None and threading.get_ident() == _launch.ident:
        return _launch.device_call(kernel.fn, args)
    from numba.cuda.simulator.kernel import normalize_kernel_dimensions

    with _lock:
        grid, block = normalize_kernel_dimensions(kernel.grid_dim, kernel.block_dim)
        Launch(kernel.fn, grid, block, kernel.dynshared_size).run(args)


class GlobalArray:
    """An array argument inside a kernel: no negative index, no write to what was passed as ``cuda.In``."""

    __slots__ = ("array", "dtype", "ndim", "shape", "size", "writable")

    def __init__(self, array: np.ndarray, writable: bool) -> None:
        if not array.flags.c_contiguous:
            raise ValueError(f"kernels take C-contiguous arrays, received strides {array.strides}, shape {array.shape}")
        self.array, self.writable = array, writable
        self.shape, self.size, self.ndim, self.dtype = array.shape, array.size, array.ndim, array.dtype

    def __getitem__(self, index: Any) -> Any:
        if (min(index) if type(index) is tuple else index) < 0:
            raise IndexError(f"index {index} is below zero")
        return self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        if (min(index) if type(index) is tuple else index) < 0:
            raise IndexError(f"index {index} is below zero")
        if not self.writable:
            raise ValueError("the kernel writes an argument that was passed as cuda.In")
        self.array[index] = value


class SharedArray:
    """``cuda.shared.array``: the cells that were written, and who touched them since the last barrier."""

    __slots__ = ("cells", "convert", "epoch", "launch", "readers", "shape", "where", "writers")

    def __init__(self, launch: Launch, where: str, shape: int | tuple[int, ...], dtype: np.dtype) -> None:
        self.launch, self.where = launch, where
        self.shape = shape if isinstance(shape, tuple) else (shape,)
        self.convert = dtype.type
        self.cells: dict[Any, Any] = {}
        self.epoch = -1
        self.readers: dict[Any, int] = {}  # index -> thread, or SEVERAL, since the last barrier
        self.writers: dict[Any, int] = {}

    def __getitem__(self, index: Any) -> Any:
        launch = self.launch
        if self.epoch != launch.epoch:
            self.forget()
        me = launch.thread
        if self.writers and self.writers.get(index, me) != me:
            raise SharedMemoryRace(self.message("reads", index, "written", self.writers[index]))
        if self.readers.setdefault(index, me) != me:
            self.readers[index] = SEVERAL
        try:
            return self.cells[index]
        except KeyError:
            self.check(index)
            raise UninitializedRead(f"{self.where}: cell {index} is read before any thread wrote it") from None

    def __setitem__(self, index: Any, value: Any) -> None:
        launch = self.launch
        if self.epoch != launch.epoch:
            self.forget()
        me = launch.thread
        if self.writers.setdefault(index, me) != me:
            raise SharedMemoryRace(self.message("writes", index, "written", self.writers[index]))
        if self.readers and self.readers.get(index, me) != me:
            raise SharedMemoryRace(self.message("writes", index, "read", self.readers[index]))
        if index not in self.cells:
            self.check(index)
        self.cells[index] = self.convert(value)

    def forget(self) -> None:
        self.epoch = self.launch.epoch
        self.readers.clear()
        self.writers.clear()

    def check(self, index: Any) -> None:
        full = index if isinstance(index, tuple) else (index,)
        if len(full) != len(self.shape) or any(not 0 <= i < n for i, n in zip(full, self.shape, strict=True)):
            raise IndexError(f"{self.where}: index {index} lies outside a shared array of shape {self.shape}")

    def message(self, mine: str, index: Any, theirs: str, other: int) -> str:
        who = "several threads" if other == SEVERAL else f"thread {self.launch.threads[other]}"
        return f"{self.where}: this thread {mine} cell {index}, {theirs} by {who} since the last barrier"


class Launch:
    """One kernel launch: its blocks one after the other, each block's threads from barrier to barrier."""

    def __init__(self, kernel: Any, grid: tuple[int, ...], block: tuple[int, ...], dynamic_shared: int) -> None:
        self.kernel, self.grid, self.block = kernel, grid, block
        self.ident = threading.get_ident()
        self.module = _module(self, grid, block, dynamic_shared)
        self.swapped: dict[int, tuple[dict[str, Any], dict[str, Any]]] = {}
        self.threads = [(x, y, z) for z in range(block[2]) for y in range(block[1]) for x in range(block[0])]
        self.epoch = 0  # barriers passed, over the whole launch
        self.thread = 0  # the running thread's number in its block
        self.parked: list[tuple[Any, int, tuple[str, int]]] = []  # (greenlet, thread, (file, line) of its barrier)
        self.finished = 0
        self.ballot: dict[int, bool] = {}
        self.brought: dict[int, Any] = {}  # thread -> what it brought to the meeting of its warp
        self.met: dict[int, Any] = {}  # the same, of the last meeting

    def run(self, args: tuple[Any, ...]) -> None:
        global _launch
        self.args = tuple(_argument(a) for a in args)
        self.indices = [_dim3(t) for t in self.threads]
        self.order = range(len(self.threads))[:: -1 if _reverse else 1]
        self.swap(self.kernel)
        _launch = self
        try:
            for z in range(self.grid[2]):
                for y in range(self.grid[1]):
                    for x in range(self.grid[0]):
                        self.run_block((x, y, z))
        finally:
            _launch = None
            for namespace, originals in self.swapped.values():
                namespace.update(originals)

    def swap(self, function: Any) -> None:
        """In the function's module, ``cuda`` becomes the one that knows this launch."""
        from numba import cuda

        namespace = function.__globals__
        self.swapped[id(namespace)] = (namespace, {k: v for k, v in namespace.items() if v is cuda})
        namespace.update(dict.fromkeys(self.swapped[id(namespace)][1], self.module))

    def device_call(self, function: Any, args: tuple[Any, ...]) -> Any:
        if id(function.__globals__) not in self.swapped:
            self.swap(function)
        return function(*args)

    def run_block(self, block: tuple[int, int, int]) -> None:
        from greenlet import greenlet

        self.module.blockIdx = _dim3(block)
        self.module.begin_block()
        self.ballot.clear()
        self.epoch += 1
        self.finished, self.parked = 0, []
        todo = iter(self.order)
        main = greenlet.getcurrent()
        self.main = main

        def work() -> None:
            for thread in todo:
                self.thread = thread
                self.module.threadIdx = self.indices[thread]
                self.kernel(*self.args)
                self.finished += 1

        try:
            while self.finished + len(self.parked) < len(self.threads):
                worker = greenlet(work, main)
                worker.gr_context = contextvars.copy_context()  # NumPy's error state is the caller's
                worker.switch()
            while self.parked:
                self.check_barrier()
                self.epoch += not self.brought  # a meeting of warps orders no accesses to shared memory
                self.met, self.brought = self.brought, {}
                waiting, self.parked = self.parked, []
                for worker, thread, _ in waiting:
                    self.thread = thread
                    self.module.threadIdx = self.indices[thread]
                    worker.switch()
        except Exception as e:
            for worker, _, _ in self.parked:
                worker.throw()
            where = f"{self.kernel.__name__}: thread {self.threads[self.thread]} of block {block}"
            if len(e.args) == 1 and isinstance(e.args[0], str):
                e.args = (f"{where}: {e.args[0]}",)
            else:
                e.add_note(where)
            raise

    def check_barrier(self) -> None:
        lines: dict[tuple[str, int], int] = {}  # a barrier -> a thread that waits there
        for _, thread, line in self.parked:
            lines.setdefault(line, thread)
        waits = " and ".join(
            f"thread {self.threads[t]} waits at {os.path.basename(f)}:{line}" for (f, line), t in lines.items()
        )
        if len(lines) > 1:
            raise DivergentBarrier(f"threads wait at different barriers: {waits}")
        if self.finished:
            raise DivergentBarrier(f"{self.finished} of {len(self.threads)} threads never reach a barrier: {waits}")

    def barrier(self, depth: int = 2) -> None:
        from greenlet import getcurrent

        frame = sys._getframe(depth)
        self.parked.append((getcurrent(), self.thread, (frame.f_code.co_filename, frame.f_lineno)))
        self.main.switch()

    def meet(self, value: Any) -> list[Any]:
        """What the lanes of this thread's warp brought, in order."""
        first = self.thread // WARP * WARP
        if first + WARP > len(self.threads):
            raise DivergentBarrier(f"a warp has {WARP} threads, the last of a block of {len(self.threads)} has fewer")
        self.brought[self.thread] = value
        self.barrier(3)
        return [self.met[thread] for thread in range(first, first + WARP)]

    def vote(self, value: Any) -> list[bool]:
        """Every thread's value, between two barriers."""
        self.ballot[self.thread] = bool(value)
        self.barrier(3)
        votes = list(self.ballot.values())
        self.barrier(3)
        return votes


def _argument(value: Any) -> Any:
    from numba import cuda

    writable = True
    if isinstance(value, (cuda.In, cuda.Out, cuda.InOut)):
        value, writable = value.value, not isinstance(value, cuda.In)
    return GlobalArray(value, writable) if isinstance(value, np.ndarray) and value.ndim else value


def _dim3(index: tuple[int, int, int]) -> Any:
    from numba.cuda.simulator.kernelapi import Dim3

    return Dim3(*index)


def _numpy_dtype(dtype: Any) -> np.dtype:
    from numba.cuda import types
    from numba.cuda.np import numpy_support

    return numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)


def _module(launch: Launch, grid: tuple[int, ...], block: tuple[int, ...], dynamic_shared: int) -> Any:
    """What the name ``cuda`` means inside a running kernel."""
    from numba.cuda.simulator import kernelapi

    class Shared(kernelapi.FakeCUDAShared):
        def array(self, shape: Any, dtype: Any, alignment: Any = None) -> SharedArray:
            if not shape:
                raise NotImplementedError("dynamic shared memory: this scheduler has only arrays of a fixed shape")
            frame = sys._getframe(1)
            place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
            array = arrays.get((frame.f_code, frame.f_lasti))
            if array is None:
                if any(a.where == place for a in arrays.values()):
                    raise NotImplementedError(f"{place}: two shared arrays on one line alias in Numba's own simulator")
                array = SharedArray(launch, place, shape, _numpy_dtype(dtype))
                arrays[frame.f_code, frame.f_lasti] = array
            return array

    class Local(kernelapi.FakeCUDALocal):
        def array(self, shape: Any, dtype: Any, alignment: Any = None) -> np.ndarray:
            array = np.empty(shape, _numpy_dtype(dtype))
            array.view(np.uint8).fill(0xFF)  # NaN, or -1: what is read before it is written shows
            return array

    class Module(kernelapi.FakeCUDAModule):
        threadIdx = blockIdx = None  # set as the threads run, where Numba's own asks the thread

        def begin_block(self) -> None:
            arrays.clear()

        @property
        def laneid(self) -> int:
            return launch.thread % WARP

        def syncthreads(self) -> None:
            launch.barrier()

        def syncthreads_count(self, value: Any) -> int:
            return sum(launch.vote(value))

        def syncthreads_and(self, value: Any) -> int:
            return int(all(launch.vote(value)))

        def syncthreads_or(self, value: Any) -> int:
            return int(any(launch.vote(value)))

    arrays: dict[tuple[Any, int], SharedArray] = {}
    module = Module(grid, block, dynamic_shared)
    module._shared, module._local = Shared(dynamic_shared), Local()
    return module
