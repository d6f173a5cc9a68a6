"""Every kernel compiles for every architecture, without spills and within its registers. Needs NVRTC, no GPU."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnengine._paths import csrc_dir
from cnnengine.backends import _kernel_library as library
from cnnengine.errors import KernelError
from cnnengine.jit import nvrtc
from cnnengine.jit.cache import default_cache
from cnnengine.jit.source import KernelSource, constant_shape
from cnnengine.shapes import conv2d_shape

from .random_runs import FUZZ

ARCHITECTURES = ("sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120")
# What every run compiles for some architectures only; `make fuzz`, all for all five
SAME_TEXT = ("conv2d/winograd", "conv2d/grouped", "conv2d/grouped_mma")  # or it differs before and after sm_80 alone
NO_TENSOR_CORES = (
    "conv2d", "conv2d/depthwise", "conv2d/implicit_gemm", "conv2d/first_layer", "gemm", "reduce", "activation",
    "binary", "pool2d", "norm", "norm_rows", "softmax_cross_entropy", "dropout", "normalize_images", "optimizer_step",
)  # fmt: skip
REGISTERS = 80  # 256 threads of 80 registers: 3 blocks on a multiprocessor
TILE_REGISTERS = {
    library.SMALL: 168,  # 64 threads: 6 blocks on a multiprocessor
    library.MEDIUM: 128,  # 256 threads: 2 blocks
    library.LARGE: 255,  # 256 threads: 1 block, 64 of the registers are sums
    library.SIMT_LARGE: 128,  # 256 threads: 2 blocks
    library.SIMT_MEDIUM: 168,  # 128 threads: 3 blocks
    library.SIMT_SMALL: 128,  # 128 threads: 4 blocks
}
LARGEST_FIRST = sorted(library.FAMILIES, key=lambda family: -len(library.templates(family, "float32")))

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))


def compiled(family: str, dtype: str, arch: str) -> bool:
    """Kernels without tensor cores name no instruction of an architecture: in float32 the oldest, Hopper and the newest
    tell enough, of 2 bytes an element Hopper, and one type on the oldest. On tensor cores bfloat16 differs from float16
    in a letter, and sm_100a from sm_120 not at all."""
    if FUZZ:
        return True
    if family in SAME_TEXT:
        return arch == "sm_90a" or (arch == "sm_75" and dtype != "bfloat16")
    if family in NO_TENSOR_CORES:
        if dtype == "float32":
            return arch in ("sm_75", "sm_90a", "sm_120")
        return arch == "sm_90a" or (arch == "sm_75" and dtype == "bfloat16")
    return arch in ("sm_80", "sm_90a") if dtype == "bfloat16" else arch != "sm_100a"


@pytest.fixture(scope="module")
def cubins() -> dict[tuple[str, str, str], nvrtc.Cubin]:
    """(family, dtype, architecture) -> cubin, all that are compiled, in two processes."""
    listed = library.sources()
    keys = [
        (*key, arch)
        for key in sorted(listed, key=lambda key: LARGEST_FIRST.index(key[0]))
        for arch in ARCHITECTURES
        if compiled(*key, arch)
    ]
    jobs = [(library.source(family, dtype), arch) for family, dtype, arch in keys]
    return dict(zip(keys, nvrtc.build_many(jobs, default_cache(), processes=2), strict=True))


def ceiling(expression: str, arch: str) -> int:
    if "WgmmaTile" in expression:
        return 168  # 384 threads share the registers, setmaxnreg then divides them anew
    if "MmaTile" in expression:
        if "Rounded::no" not in expression or arch == "sm_75":
            return 192
        if str(library.MMA_LARGE) in expression:
            return 192 if arch == "sm_120" else 128  # its shared memory leaves room for one block
        return 168
    if "_winograd<" in expression:
        return 255  # 256 threads, 128 sums each: 1 block
    if "weight_grouped_mma<" in expression and not expression.endswith(" 8>"):
        return 255  # 128 threads, 72 sums each: 2 blocks; 256 threads: 1 block
    if "_grouped<" in expression or "_grouped_mma<" in expression:
        return 168  # 128 threads: 3 blocks
    if "_rows<" in expression or "softmax_cross_entropy_forward" in expression:
        return 128  # 512 threads, of which each keeps 32 elements of a row, and 32 of its gradient
    if "depthwise" in expression or "NormShape, 8" in expression:
        return 128  # 256 threads: 2 blocks
    return next((limit for tile, limit in TILE_REGISTERS.items() if str(tile) in expression), REGISTERS)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("dtype", library.TYPES)
def test_every_kernel_compiles_without_spills(
    cubins: dict[tuple[str, str, str], nvrtc.Cubin], dtype: str, arch: str
) -> None:
    families = [family for family, of in library.sources() if of == dtype and compiled(family, of, arch)]
    if not families:
        pytest.skip(f"{dtype} for {arch} is compiled by make fuzz")
    for family in families:
        cubin = cubins[family, dtype, arch]
        assert cubin.image[:4] == b"\x7fELF"
        usage = cubin.usage()
        assert set(usage) == set(library.source(family, dtype).expressions)
        for expression, used in usage.items():
            where = f"{expression} for {arch}: {used}"
            assert used.spill_bytes == 0, where
            assert 0 < used.registers <= ceiling(expression, arch), where
            assert used.shared_bytes == 0, f"{where}: shared memory is dynamic, one struct a kernel"


def kernel_names() -> Iterator[str]:
    """The __global__ functions of csrc/cuda."""
    for path in sorted(Path(csrc_dir(), "cuda").rglob("*.cuh")):
        yield from re.findall(r"__global__\s+void\s+(?:__launch_bounds__\([^;{]*?\)\s+)?(\w+)\(", path.read_text())


def test_no_kernel_is_left_out() -> None:
    listed = {e.split("<")[0] for source in library.sources().values() for e in source.expressions}
    assert set(kernel_names()) == listed


def test_the_folders_files_are_the_families() -> None:
    files = {path.stem for path in Path(csrc_dir(), "cuda").glob("*.cuh") if "__global__" in path.read_text()}
    assert files == {family for family in library.FAMILIES if not family.startswith("conv2d")}  # which is a folder
    assert Path(csrc_dir(), "cuda", "conv2d.cuh").is_file()


def test_a_constant_shape_compiles_to_fewer_registers() -> None:
    name, definition = constant_shape(conv2d_shape((8, 28, 28, 64), (64, 3, 3, 64), padding=1))
    template = "conv2d_forward_tiled<float, {}, " + f"{library.MEDIUM}>"
    expressions = (template.format(name), template.format("Conv2dShape"))
    cubin = nvrtc.build(KernelSource("cuda/conv2d.cuh", expressions, definition), "sm_90a", default_cache())
    constant, runtime = (cubin.usage()[e] for e in expressions)
    assert constant.spill_bytes == 0
    assert constant.registers < runtime.registers


def test_a_kernel_that_does_not_compile_brings_the_compilers_log() -> None:
    with pytest.raises(KernelError, match=r"(?s)cuda/activation.cuh does not compile for sm_90a.*Nonsense"):
        nvrtc.compile_source(KernelSource("cuda/activation.cuh", ("activation_forward<float, Nonsense>",)), "sm_90a")


@pytest.mark.parametrize(
    ("capability", "arch"),
    [((7, 5), "sm_75"), ((8, 9), "sm_89"), ((9, 0), "sm_90a"), ((10, 0), "sm_100a"), ((12, 0), "sm_120")],
)
def test_architecture(capability: tuple[int, int], arch: str) -> None:
    assert nvrtc.architecture(capability) == arch


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="this system does not tell what a process has loaded")
def test_the_second_library_of_nvrtc_is_loaded_with_the_first() -> None:
    if not Path(nvrtc._library()._name).is_absolute():
        pytest.skip("the system's linker finds NVRTC")
    script = "from cnnengine.jit import nvrtc; nvrtc.version(); print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "libnvrtc-builtins.so" in done.stdout
