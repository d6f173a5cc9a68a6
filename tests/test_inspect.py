"""``cnnengine inspect`` on the rungs of conv2d: counts that are reckoned by hand; what is reported without tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import CONV2D_VERBS
from cnnengine.backends.registry import unavailable
from cnnengine.cli import main
from cnnengine.errors import BackendUnavailable, Unsupported
from cnnengine.inspect import Inspection, inspect, inspect_kernel, machine_code, measured, native_set
from cnnengine.inspect.operations import OPERATIONS, build, reduced
from cnnengine.inspect.planned import launches
from cnnengine.inspect.problem import Request, work
from cnnengine.inspect.source_text import line_of, written_out
from cnnengine.jit import host, nvrtc, sass
from cnnengine.jit.cache import default_folder
from cnnengine.jit.counters import Counts, aligned
from cnnengine.jit.source import KernelSource

from .lines import ROOT

NO_EMULATOR = unavailable("emulator") or (
    None if host.can_count(host.compiler()) else "the counters need g++, which the compiler is not"
)
counting = pytest.mark.skipif(NO_EMULATOR is not None, reason=str(NO_EMULATOR))
compiling = pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
disassembling = pytest.mark.skipif(
    (nvrtc.problem() or sass.problem()) is not None, reason=str(nvrtc.problem() or sass.problem())
)
NO_NATIVE = unavailable("native")
native = pytest.mark.skipif(NO_NATIVE is not None, reason=str(NO_NATIVE))

# of each operation one call, small
CALLS: dict[str, dict[str, Any]] = {
    "activation": {"x": (4, 100), "kind": "silu"},
    "binary": {"x": (2, 5, 16), "w": (16,)},
    "conv2d": {"x": (1, 6, 6, 8), "w": (16, 3, 3, 8), "padding": 1},
    "dropout": {"x": (4, 100)},
    "gemm": {"x": (40, 24), "w": (24, 33)},
    "norm": {"x": (64, 64), "kind": "layer"},
    "normalize_images": {"x": (2, 5, 5, 3)},
    "optimizer_step": {"x": (100,), "kind": "adam"},
    "pool2d": {"x": (1, 8, 8, 16), "window": 3, "stride": 2, "padding": 1},
    "reduce": {"x": (50, 8)},
    "softmax_cross_entropy": {"x": (6, 40)},
    "unary": {"x": (4, 100), "kind": "exp"},
}


def rung(algorithm: str, x: tuple[int, ...], w: tuple[int, ...], dtype: str = "float32", **options: int) -> Inspection:
    found = inspect("conv2d", x=x, w=w, algorithm=algorithm, dtype=dtype, measure=False, **options)
    assert found.algorithm == algorithm
    assert found.emulated is not None, found.missing
    assert (found.emulated.whole, found.emulated.differs) == (True, "")
    return found


def at(found: Inspection, file: str, text: str) -> Counts:
    """What was counted on the line of a file whose source has ``text``."""
    assert found.emulated is not None
    lines = {place: c for place, c in found.emulated.counters.lines.items() if text in line_of(place)}
    (place,) = [place for place in lines if place.startswith(file)]
    return lines[place]


# ---- three rungs by hand


@counting
@pytest.mark.parametrize(("channels", "of_w"), [(1, 4), (8, 32)])
def test_direct_reads_filters_side_by_side_or_apart(channels: int, of_w: int) -> None:
    """16 pixels, a warp each: its 32 lanes are the 32 filters. Of every channel all read the same element of x, one
    sector; their elements of w are 4 bytes apart where there is one channel, and 32 where there are eight."""
    found = rung("direct", (1, 4, 4, channels), (32, 1, 1, channels))
    loads = at(found, "conv2d/direct.cuh", "sum += ").global_load
    assert loads.requests == 16 * channels * 2
    assert loads.sectors == 16 * channels * (1 + of_w)
    store = at(found, "conv2d/direct.cuh", "y[at.index] = ").global_store
    assert (store.requests, store.sectors_per_request) == (16, 4)  # 32 floats side by side
    total = found.emulated.counters.total  # type: ignore[union-attr]
    assert (total.wavefronts, total.conflicts, total.branch.divergent) == (0, 0, 0)
    assert total.block_barrier.requests == 0


@counting
def test_direct_parts_at_the_borders_of_the_image() -> None:
    """A line of y is 8 pixels of 8 filters, two warps. Rows of the filter that lie outside are skipped by whole warps:
    2, 3, 3 and 2 of them are inside. Of each the left warp parts at the left tap, the right warp at the right one."""
    found = rung("direct", (1, 4, 8, 1), (8, 3, 3, 1), padding=1)
    border = at(found, "conv2d/direct.cuh", "column >= shape.W) continue").branch
    assert border.divergent == (2 + 3 + 3 + 2) * 2
    assert found.emulated.counters.total.branch.divergent == border.divergent  # type: ignore[union-attr]


@counting
def test_tiled_pays_two_wavefronts_to_turn_its_tiles() -> None:
    """Two blocks of 64 threads, tiles of 32 x 32 x 16, two steps: of both operands 2 * 32 * 16 elements a step, 8 loads
    a warp each. A load is two runs of 16 floats: 4 sectors. It is stored as two columns of 16 rows that are 36 floats
    long: rows 0 and 8 lie in the same bank. Fragments are read as float4, by quarters, without conflicts."""
    found = rung("tiled", (1, 8, 8, 32), (32, 1, 1, 32))
    assert found.kernels[0].expression.endswith("Tile<32, 32, 16, 4, 4>>")
    warps, steps = 4, 2
    loads = at(found, "cuda/tile.cuh", "to_float(*element)").global_load
    assert (loads.requests, loads.sectors_per_request) == (warps * steps * 2 * 8, 4)  # 128
    stores = at(found, "cuda/tile.cuh", "shared[near][far + i * STEP]").shared_store
    assert (stores.requests, stores.wavefronts, stores.conflicts) == (128, 256, 128)
    reads = at(found, "cuda/tile.cuh", "const float4 four").shared_load
    assert (reads.requests, reads.wavefronts, reads.conflicts) == (warps * 32 * 2, warps * 32 * 2 * 4, 0)
    results = at(found, "conv2d/tiled.cuh", "y[index + j] = ").global_store
    assert (results.requests, results.sectors_per_request) == (warps * 4 * 4, 16)  # 4 lines, each fourth float of 32
    total = found.emulated.counters.total  # type: ignore[union-attr]
    assert total.block_barrier.requests == warps * steps
    assert total.branch.divergent == 0


@counting
def test_implicit_gemm_mma_moves_16_bytes_a_lane_without_conflicts() -> None:
    """One tile of 64 x 64, two steps of 32: 2 * 64 * 32 halves a step are 512 copies of 16 bytes, 16 sectors a warp.
    A warp's 32 x 32 takes 2 + 2 ldmatrix and 2 * 4 products for 16 of the 64 channels."""
    found = rung("implicit_gemm_mma", (1, 8, 8, 64), (64, 1, 1, 64), "float16")
    warps, steps = 4, 2
    copies = at(found, "cuda/mma_tile.cuh", "ptx::cp_async")
    assert (copies.global_copy.requests, copies.global_copy.sectors_per_request) == (16 * steps, 16)
    assert (copies.shared_copy.wavefronts, copies.shared_copy.conflicts) == (4 * 16 * steps, 0)
    total = found.emulated.counters.total  # type: ignore[union-attr]
    assert (total.ldmatrix.requests, total.ldmatrix.conflicts) == (warps * 4 * 4, 0)
    assert (total.mma.requests, total.mma.multiply_adds) == (warps * 4 * 8, 64 * 64 * 64)
    assert total.block_barrier.requests == warps * (steps + 1)
    assert (total.conflicts, total.branch.divergent) == (0, 0)


# ---- kernels with planted faults


PLANTED = """
#line 1 "planted/turned.cuh"
struct Rows { float v[32 * 34]; };

__global__ void turned(const float* x, float* y, int width, int step, int few) {
  DYN_SMEM(Rows, rows);
  const int lane = threadIdx.x;
  for (int i = 0; i < 32; i++) rows->v[i * width + lane] = x[(i * 32 + lane) * step];
  __syncthreads();
  if (lane < few) y[lane] = 0.0f;
  __syncthreads();
  for (int i = 0; i < 32; i++) y[i * 32 + lane] = rows->v[lane * width + i];
}
"""


@counting
@pytest.mark.parametrize(
    ("width", "step", "sectors", "conflicts"),
    [(32, 1, 4, 31), (33, 1, 4, 0), (33, 8, 32, 0), (34, 2, 8, 1)],
    ids=["32-way conflicts", "conflict-free", "strided", "two-way conflicts, every second float"],
)
def test_planted_faults(width: int, step: int, sectors: int, conflicts: int) -> None:
    """Columns of rows that are ``width`` floats long; every ``step``-th float of global memory. 20 of 32 lanes go
    another way."""
    source = KernelSource("cuda/platform.cuh", ("turned",), PLANTED)
    x, y = (aligned(np.zeros(1024 * n, np.float32)) for n in (step, 1))
    arguments = (x, y, np.int32(width), np.int32(step), np.int32(20))
    found = inspect_kernel(source, "turned", (1, 1, 1), (32, 1, 1), arguments, shared_bytes=32 * 34 * 4)
    assert found.emulated is not None
    lines = found.emulated.counters.lines
    load, store = lines["planted/turned.cuh:6"].global_load, lines["planted/turned.cuh:6"].shared_store
    assert (load.requests, load.sectors_per_request, store.conflicts) == (32, sectors, 0)
    read = lines["planted/turned.cuh:10"].shared_load
    assert (read.requests, read.conflicts) == (32, 32 * conflicts)
    assert lines["planted/turned.cuh:8"].branch.divergent == 1
    total = found.emulated.counters.total
    assert (total.block_barrier.requests, total.branch.divergent) == (2, 1)
    assert found.problem.nbytes == x.nbytes + y.nbytes


# ---- whole reports


@counting
@compiling
def test_a_report_is_printed_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "inspect conv2d --x 8,56,56,64 --w 64,3,3,64 --padding 1 --algorithm tiled --gpu A100 --emulate 100000"
    assert main([*arguments.split(), "--no-measure", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for part in (
        "conv2d_forward: x (8, 56, 56, 64), w (64, 3, 3, 64), y (8, 56, 56, 64), float32",
        "set cuda, sm_80, algorithm tiled",
        "1.85 GFLOP, 12.99 MB at least, 142.37 FLOPs a byte",
        "A100 SXM 80GB: 19.5 TFLOP/s, ridge at 9.6 FLOPs a byte",
        "bound by arithmetic",
        "grid 392, block 256",
        "0 bytes spilled, 0 + 17408 bytes of shared memory",
        "on a smaller call: conv2d_forward: x (1, 4, 4, 64)",
        "const float4 four",
    ):
        assert part in printed, part
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["flops"] == 2 * 8 * 56 * 56 * 64 * 576
    assert saved["bytes"] == 4 * (2 * 8 * 56 * 56 * 64 + 64 * 576)
    (kernel,) = saved["kernels"]
    assert kernel["spill_bytes"] == 0
    assert kernel["waves"] == pytest.approx(392 / (108 * kernel["occupancy"]["blocks"]))
    assert saved["emulated"]["total"]["block_barrier"]["requests"] > 0
    assert ".target sm_80" in (tmp_path / "1-conv2d_forward_tiled.ptx").read_text()
    source = (tmp_path / "1-conv2d_forward_tiled.cu").read_text()
    assert "static constexpr int H = 56, W = 56, C = 64" in source
    assert '#include "' not in source
    assert (tmp_path / "report.txt").read_text().strip() in printed


@compiling
@disassembling
def test_machine_code_has_its_source_beside_it() -> None:
    found = inspect(
        "conv2d", x=(1, 56, 56, 64), w=(64, 3, 3, 64), padding=1, algorithm="implicit_gemm_mma", dtype="float16",
        emulate=0, measure=False,
    )  # fmt: skip
    code = found.kernels[0].code
    assert code is not None
    assert code.mix["tensor cores"] == code.names["HMMA"] > 0
    assert sum(code.mix.values()) == sum(code.names.values()) == code.instructions
    assert code.loop is not None
    assert code.loop["HMMA"] > 0
    assert "// cuda/mma_tile.cuh:" in code.listing
    assert "ptx::cp_async" in code.listing
    assert re.search(r"\*/ @!?U?P\d +BRA", code.listing), "predicates are shown"
    assert sum(code.by_line.values()) == code.instructions
    assert found.missing == {"counters": "no emulated run was asked for"}
    assert "instructions:" in found.text()


@counting
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "conv2d"])
def test_every_operation_is_planned_and_counted(operation: str) -> None:
    found = inspect(operation, measure=False, **CALLS[operation])
    assert found.kernels
    assert found.emulated is not None, found.missing
    assert found.emulated.counters.total.global_sectors * 32 >= found.problem.nbytes / 2
    assert {k.expression.split("<")[0] for k in found.kernels} == {e.split("<")[0] for e in found.emulated.kernels}
    assert found.bound is not None


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_pass_is_planned(operation: str) -> None:
    for verb in OPERATIONS[operation].verbs:
        problem = build(Request(operation, verb=verb, **CALLS[operation]))
        assert problem.verb.startswith(operation)
        for arch in ("sm_75", "sm_90a", "sm_120"):
            _, planned = launches(problem, arch)
            assert planned
            assert all(launch.blocks > 0 and launch.threads > 0 for launch in planned), planned


def test_the_written_out_source_is_one_file() -> None:
    text = written_out(library.source("pool2d", "float32"))
    assert '#include "' not in text
    assert "#pragma once" not in text
    assert text.count('#line 1 "cuda/run.cuh"') == 1
    assert "cnn_kernel_0 = &pool2d_forward_max<float" in text


# ---- smaller calls, wrong calls


@pytest.mark.parametrize("operation", OPERATIONS)
def test_smaller_calls(operation: str) -> None:
    large = {"x": (64, 56, 56, 256)} | {
        "conv2d": {"w": (512, 3, 3, 256), "padding": 1},
        "gemm": {"x": (4096, 4096), "w": (4096, 1000)},
        "softmax_cross_entropy": {"x": (4096, 1000)},
        "pool2d": {"window": 3},
        "binary": {"w": (256,)},
    }.get(operation, {})
    problem = build(Request(operation, **large))
    small = reduced(problem, 20_000_000)
    assert work(small) <= 20_000_000 < work(problem)
    assert small.verb == problem.verb


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("conv2d --x 8,64,56,56 --w 64,64,3,3", r"x and w look like \(N, C, H, W\) and .*--layout NCHW"),
        ("conv2d --x 8,56,56,64", "conv2d: needs w"),
        ("conv2d --x 1,8,8,8 --w 8,3,3,8 --verb backward", "conv2d: verb must be one of forward, backward_input, back"),
        ("pool2d --x 1,8,8,8", "pool2d: needs window"),
        ("gemm --x 8,8 --w 9,8", r"gemm: x \(M, K\) \(8, 8\) times w \(K, N\): received w \(9, 8\)"),
        ("activation --x 8 --kind max", "activation: kind must be one of relu"),
        ("activation --x 8 --algorithm direct", "activation: takes no algorithm, received 'direct'"),
        ("conv2d --x 1,8,8,8 --w 8,3,3,8 --gpu K80", "gpu must be one of T4"),
        ("conv2d --x 1,8,8,8 --w 8,3,3,8 --arch sm_70", "arch must be one of sm_75"),
        (
            "conv2d --x 1,8,8,8 --w 8,3,3,8 --algorithm implicit_gemm_mma",
            "takes float16 and bfloat16, received float32",
        ),
        ("gemm --x 8,8 --w 8,8 --layout NCHW", "--x must have four sizes, received 8,8"),
    ],
)
def test_wrong_calls(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", *arguments.split(), "--no-measure", "--emulate", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("cnnengine: error: ")
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_sizes_in_pytorchs_order(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = "inspect conv2d --x 8,64,56,48 --w 32,64,3,5 --layout NCHW --emulate 0 --no-measure --arch sm_80"
    assert main(arguments.split()) == 0
    assert "x (8, 56, 48, 64), w (32, 3, 5, 64), y (8, 54, 44, 32)" in capsys.readouterr().out


# ---- what is missing is named


def test_without_compilers_there_is_a_partial_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise BackendUnavailable("it is not installed: pip install it")

    monkeypatch.setattr(nvrtc, "build", absent)
    monkeypatch.setattr(host, "compiler", absent)
    found = inspect("conv2d", x=(8, 56, 56, 64), w=(64, 3, 3, 64), algorithm="tiled", arch="sm_80")
    assert set(found.missing) == {
        "measured time, bandwidth, FLOP/s, ncu's counters",
        "PTX, machine code, registers, occupancy",
        "counters",
    }
    assert found.missing["counters"] == "it is not installed: pip install it"
    assert found.kernels[0].source
    assert found.kernels[0].registers is None
    assert found.bound is not None
    assert "missing\n" in found.text()


def test_without_the_extension_the_command_line_works() -> None:
    """What needs it is not imported before it is used."""
    program = (
        "import sys; sys.modules['cnnengine._launch'] = None\n"
        "from cnnengine.cli import main\n"
        "from cnnengine.inspect import gpus\n"
        "sys.exit(main(['backends']))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@compiling
def test_without_nvdisasm_there_are_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> Any:
        raise BackendUnavailable("nvdisasm is not installed")

    monkeypatch.setattr(sass, "disassemble", absent)
    found = inspect("gemm", x=(64, 64), w=(64, 64), emulate=0, measure=False)
    assert found.kernels[0].registers
    assert found.kernels[0].code is None
    assert found.missing["machine code, instruction mix"] == "nvdisasm is not installed"


def test_an_architecture_without_a_gpu_in_the_table() -> None:
    found = inspect("gemm", x=(64, 64), w=(64, 64), arch="sm_87", emulate=0, measure=False)
    assert found.bound is None
    assert found.missing["bound, waves"] == "no GPU of sm_87 is in the table: name one with gpu"


# ---- machine code in classes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("HGMMA", "tensor cores"),
        ("FFMA", "float32"),
        ("LDGSTS", "copies past registers"),
        ("LDG", "global memory"),
        ("LDS", "shared memory"),
        ("LDSM", "shared memory"),
        ("LDL", "local memory"),
        ("ULDC", "constants"),
        ("BAR", "synchronisation"),
        ("BRA", "control"),
        ("IMAD", machine_code.OTHERS),
    ],
)
def test_classes_of_instructions(name: str, kind: str) -> None:
    assert machine_code.class_of(name) == kind


# ---- the CPU


@native
def test_native_kernels_multiply_and_add() -> None:
    """For every algorithm of every pass the functions that are found have vector multiply-adds."""
    if missing := [name for name in ("nm", "objdump") if native_set.shutil.which(name) is None]:
        pytest.skip(f"{missing} of the GNU binutils are not installed")
    shape = {"x": (1, 12, 12, 32), "w": (32, 3, 3, 32), "padding": 1}
    narrow = {"depthwise": {"w": (32, 3, 3, 1), "groups": 32}, "grouped": {"w": (32, 3, 3, 4), "groups": 8}}
    for verb in CONV2D_VERBS:
        algorithms = [name for name, passes in native_set.CONVOLUTIONS.items() if verb[7] in _letters(passes)]
        for algorithm in algorithms:
            request = Request("conv2d", **shape | narrow.get(algorithm, {}), verb=verb[7:], algorithm=algorithm)
            problem = build(request)
            try:
                chosen = native_set.chosen(problem)
            except Unsupported:
                continue
            assert chosen == algorithm
            gaps: dict[str, str] = {}
            kernels = native_set.kernels(problem, chosen, gaps)
            assert not gaps
            mixes = [k.code.mix for k in kernels if k.code]
            least = 1 if algorithm == "direct" else 4  # a scalar loop
            arithmetic = [mix.get("multiply-adds", 0) + mix.get("other vector arithmetic", 0) for mix in mixes]
            assert max(arithmetic, default=0) >= least, (verb, algorithm)


def _letters(passes: dict[str, str]) -> str:
    return "".join({"f": "f", "i": "b", "w": "b"}[letter] for letter in passes)


@native
def test_a_report_of_the_cpu() -> None:
    found = inspect("pool2d", x=(1, 16, 16, 16), window=2, kernels="native")
    assert found.measured is not None
    assert found.measured.milliseconds > 0
    assert found.bound is not None
    assert found.missing["counters"] == "the emulator runs GPU kernels"
    assert "measured on" in found.text()


# ---- Numba's kernels


def test_a_report_of_numbas_kernels() -> None:
    found = inspect(
        "conv2d", x=(1, 16, 16, 16), w=(32, 3, 3, 16), algorithm="tiled", kernels="numba", arch="sm_80", measure=False
    )
    if not found.kernels:
        pytest.skip(found.missing["PTX, machine code, registers, occupancy"])
    (kernel,) = found.kernels
    assert kernel.name == "conv2d_forward_tiled"
    assert ".target sm_80" in kernel.ptx
    assert "def conv2d_forward_tiled" in kernel.source
    if kernel.registers is None:
        pytest.skip(found.missing["registers, occupancy, machine code"])
    assert kernel.spill_bytes == 0
    assert kernel.occupancy is not None


# ---- a GPU's counters


NCU = """==PROF== Connected to process 1
"ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","conv2d_forward_tiled","l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum","sector","1,024"
"0","conv2d_forward_tiled","dram__bytes_read.sum","Mbyte","1.5"
"1","conv2d_forward_tiled","l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum","sector","1,000"
"1","conv2d_forward_tiled","gpc__cycles_elapsed.max","cycle","7"
"""


def test_ncus_table() -> None:
    assert measured.parse_ncu(NCU) == {
        "conv2d_forward_tiled": {"sectors of loads": 2024.0, "bytes from memory": 1_500_000.0}
    }
    with pytest.raises(Exception, match="ncu wrote no table"):
        measured.parse_ncu("==ERROR== no permission")


@pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
@compiling
def test_on_a_fake_gpu(tmp_path: Path) -> None:
    """It is timed, Nsight Compute counts it, and predictions are for the GPU that is here."""
    folder = Path(__file__).parent / "fake_gpu"
    driver = tmp_path / "libcuda.so"
    source = str(folder / "libcuda.cpp")
    subprocess.run([*host.compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", source, "-o", str(driver)], check=True)
    environment = os.environ | {
        "CNNENGINE_LIBCUDA": str(driver),
        "CNNENGINE_CACHE": str(default_folder()),
        "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT))),
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    }
    environment.pop("CNNENGINE_BACKEND", None)
    command = [sys.executable, str(folder / "inspect_session.py")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "done\n"


@counting
@compiling
def test_the_report_on_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    """But for what depends on the compiler's version, and the machine code that needs nvdisasm."""
    page = (ROOT / "docs/inspect.md").read_text(encoding="utf-8")
    block = re.search(r"```console\n\$ cnnengine (.*?)\n(.*?)```", page, re.DOTALL)
    assert block is not None
    assert main([*block[1].split(), "--no-measure"]) == 0
    printed = capsys.readouterr().out.splitlines()
    shown = block[2].splitlines()
    assert shown[:5] == printed[:5]
    columns = next(line for line in shown if line.endswith("SASS  source")).index("  SASS  source")

    def counted(lines: list[str]) -> list[str]:
        table = next(i for i, line in enumerate(lines) if line.startswith("counted by the emulator"))
        end = next(i for i, line in enumerate(lines) if line.startswith("  global, shared"))
        return [line[:columns].rstrip() for line in lines[table + 1 : end]]

    assert counted(shown) == counted(printed)
    assert len(counted(shown)) > 10
