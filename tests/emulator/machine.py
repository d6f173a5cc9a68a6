"""The emulator as its tests see it: kernels of this folder, compiled once a variant and launched on NumPy arrays."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache as keep
from pathlib import Path
from typing import Any

import numpy as np

from cnnengine.errors import KernelError
from cnnengine.jit.cache import default_cache
from cnnengine.jit.host import HostModule, build
from cnnengine.jit.source import KernelSource

FOLDER = Path(__file__).parent
SCHEDULES = (0, 1, 12345)  # forward, reverse, a random order
DTYPES = {"uint8": 0, "uint16": 1, "int32": 3, "float16": 6, "float32": 7, "bfloat16": 9}  # CUtensorMapDataType
MARGIN = 256  # bytes around every array: one array's overrun is not the next one's element


def planted(file: str) -> tuple[str, ...]:
    """The file's lines, of which a comment names those that hold a planted bug."""
    return tuple((FOLDER / file).read_text().splitlines())


def line_of(file: str, mark: str) -> str:
    """``emulator/threads.cuh:12``: the line whose comment is ``mark``."""
    numbers = [i + 1 for i, line in enumerate(planted(file)) if line.rstrip().endswith("// " + mark)]
    assert len(numbers) == 1, (file, mark, numbers)
    return f"{FOLDER.name}/{file}:{numbers[0]}"


def source(file: str, kernels: tuple[str, ...]) -> KernelSource:
    path = FOLDER / file
    return KernelSource("cuda/wgmma.cuh", kernels, f'#line 1 "{path}"\n{path.read_text()}')


def array(values: Any, dtype: Any = None) -> np.ndarray:
    """A copy of ``values`` with margins around it, aligned to 128 bytes."""
    values = np.asarray(values, dtype)
    store = np.zeros(values.nbytes + 2 * MARGIN + 128, np.uint8)
    start = MARGIN + -(store.ctypes.data + MARGIN) % 128
    result = store[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    result[...] = values
    return result


@dataclass(frozen=True)
class Machine:
    module: HostModule
    race: bool

    def launch(
        self, kernel: str, grid: Any, block: Any, *arguments: Any, shared: int = 0, also: Any = (), cluster: Any = 1
    ) -> None:
        """Runs a kernel: arrays go as pointers, NumPy scalars and bytes by value; ``also`` are arrays that it reaches
        through tensor maps, ``cluster`` how many blocks run together. Raises KernelError with the report."""
        pointers, held = [], []
        if self.race:
            self.module.watch(0, 0, "")
            for tensor in also:
                self.module.watch(tensor.ctypes.data, tensor.nbytes, "a tensor")
        for i, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                if self.race:
                    self.module.watch(argument.ctypes.data, argument.nbytes, f"argument {i}")
                argument = np.uint64(argument.ctypes.data)
            value = array(np.frombuffer(argument, np.uint8) if isinstance(argument, bytes) else argument)
            held.append(value)
            pointers.append(value.ctypes.data)
        error = ctypes.create_string_buffer(4096)
        failed = self.module.library.cnn_emulator_launch(
            self.module.index(kernel),
            (ctypes.c_uint * 3)(*three(grid)),
            (ctypes.c_uint * 3)(*three(block)),
            (ctypes.c_uint * 3)(*three(cluster)),
            ctypes.c_size_t(shared),
            (ctypes.c_void_p * len(pointers))(*pointers),
            error,
            len(error),
        )
        if failed:
            raise KernelError(error.value.decode())

    def report(self, *arguments: Any, **options: Any) -> str:
        """The report of a launch that must fail."""
        try:
            self.launch(*arguments, **options)
        except KernelError as error:
            return str(error)
        raise AssertionError("the launch gave no report")

    def tensor_map(self, tensor: np.ndarray, box: tuple[int, ...], swizzle: int = 0, steps: Any = None) -> bytes:
        """A CUtensorMap of a C-contiguous tensor; ``box`` in the order of its axes, ``swizzle`` 0 to 3 for none, 32, 64
        and 128 bytes."""
        return self.module.encode_tensor_map_tiled(
            DTYPES[tensor.dtype.name],
            tensor.ctypes.data,
            tensor.shape[::-1],
            tensor.strides[-2::-1],
            box[::-1],
            (steps or (1,) * tensor.ndim)[::-1],
            interleave=0,
            swizzle=swizzle,
            promotion=0,
            fill=0,
        )

    def im2col_map(
        self,
        tensor: np.ndarray,
        lower: tuple[int, int],
        upper: tuple[int, int],
        channels: int,
        pixels: int,
        swizzle: int = 0,
        steps: tuple[int, ...] = (1, 1),
    ) -> bytes:
        """A CUtensorMap of columns of a C-contiguous tensor (N, H, W, C); corners and steps are (h, w)."""
        return self.module.encode_tensor_map_im2col(
            DTYPES[tensor.dtype.name],
            tensor.ctypes.data,
            tensor.shape[::-1],
            tensor.strides[-2::-1],
            lower[::-1],
            upper[::-1],
            channels,
            pixels,
            (1, *steps[::-1], 1),
            interleave=0,
            swizzle=swizzle,
            promotion=0,
            fill=0,
        )


def three(size: Any) -> tuple[int, int, int]:
    size = (size,) if isinstance(size, int) else tuple(size)
    return (*size, 1, 1)[:3]  # type: ignore[return-value]


THREADS = (
    *(f"reversed<{bug}>" for bug in range(10)),
    *(f"{name}<{bug}>" for name in ("row_sum", "rotated", "histogram", "last_block_sum", "chained") for bug in (0, 1)),
    *(f"warp_masks<{bug}>" for bug in range(7)),
    *(f"piped<{bug}>" for bug in range(3)),
    *(f"arithmetic<{bug}>" for bug in range(4)),
    *("warp_results", "votes", "locked", "atomics", "places", "arguments"),
    *("converted", "half_bits_to_float", "half_arithmetic", "intrinsics"),
)
ASYNCHRONOUS = (
    *(f"copied<{bug}>" for bug in range(4)),
    *(f"multiplied<{t}, {i}>" for t in ("__half", "__nv_bfloat16") for i in (0, 1)),
    *("multiplied_k8<0>", "multiplied_k8<1>", "copied_small", "matrices", "matrices_back"),
    *(f"boxed<{rank}>" for rank in range(2, 6)),
    *(f"stored<{bug}>" for bug in range(5)),
    *(f"columned<{bug}>" for bug in range(2)),
    *("stored_swizzled<float>", "stored_swizzled<__half>", "stored_swizzled<__nv_bfloat16>"),
    *(f"stored_fragments<{bug}>" for bug in range(4)),
    *(f"ring<{bug}>" for bug in range(12)),
    *(f"warpgroup_product<__half, {n}, 0, 0>" for n in (16, 96, 256)),
    "warpgroup_product<__nv_bfloat16, 64, 0, 0>",
    "warpgroup_product<ptx::tf32, 64, 0, 0>",
    "warpgroup_product<__half, 64, 1, 0>",
    *(f"warpgroup_product<__half, {n}, 0, 1>" for n in (64, 128, 256)),
    "warpgroup_product<__nv_bfloat16, 256, 0, 1>",
    *(f"weight_gradient<{t}, {n}>" for t in ("__half", "__nv_bfloat16") for n in (64, 128, 256)),
    *(f"arrivals<{bug}>" for bug in range(5)),
)
CLUSTERS = (
    *("ranks", "returned_early"),
    *(f"exchanged<{bug}>" for bug in range(8)),
    *(f"signalled<{bug}>" for bug in range(5)),
    *(f"parts<{blocks}, 0>" for blocks in (1, 2, 4)),
    *(f"parts<2, {bug}>" for bug in range(1, 6)),
    *(f"multicast<{rank}, 0>" for rank in (0, 3, 4)),
    *("multicast<3, 1>", "multicast<3, 2>"),
)
COUNTERS = (
    *("strided", "vectors", "shared_words", "columns", "matrices", "copies", "diverging", "branches", "barriers"),
    "product",
    "triples",
    *(f"typed<{t}>" for t in ("float", "__half", "__nv_bfloat16")),
    *(f"shared_vectors<{t}>" for t in ("float2", "float4")),
)
FILES = {
    "threads.cuh": THREADS,
    "asynchronous.cuh": ASYNCHRONOUS,
    "clusters.cuh": CLUSTERS,
    "counters.cuh": COUNTERS,
}


@keep
def machine(
    file: str,
    race: bool = False,
    flags: tuple[str, ...] = ("-O1",),
    kernels: tuple[str, ...] = (),
    count: bool = False,
) -> Machine:
    """The file's kernels, or some of them, compiled and loaded."""
    flags = (*flags, "-DCNN_EMULATOR_PATIENCE_SECONDS=2")
    wanted = source(file, kernels or FILES[file])
    return Machine(build(wanted, cache=default_cache(), flags=flags, race=race, count=count), race)
