"""What the machine code of the rungs is made of: the instructions each is named for, their share of the main loop, no
local memory. Needs NVRTC and nvdisasm, no GPU."""

from __future__ import annotations

import pytest

from bench import predicted
from cnnengine.backends import _conv2d_plans as plans
from cnnengine.backends import _kernel_library as library
from cnnengine.jit import nvrtc, sass
from cnnengine.jit.cache import default_cache
from cnnengine.jit.source import KernelSource, constant_shape
from cnnengine.shapes import Conv2dShape, conv2d_shape

MISSING = nvrtc.problem() or sass.problem()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
LAYER = conv2d_shape((64, 56, 56, 64), (64, 3, 3, 64), padding=1)  # ResNet-50's
MMA, WGMMA = "conv2d/implicit_gemm_mma", "conv2d/implicit_gemm_wgmma"
GROUPED_MMA = "conv2d/grouped_mma"
ARCHITECTURE = {75: "sm_75", 80: "sm_80", 90: "sm_90a"}


def family(name: str, dtype: str, arch: str) -> dict[str, sass.Kernel]:
    return sass.disassemble(nvrtc.build(library.source(name, dtype), arch, default_cache()))


def chosen(shape: Conv2dShape, algorithm: str, dtype: str, capability: int) -> dict[str, sass.Kernel]:
    """verb -> the kernel that runs a layer, its shape compiled in where it may be."""
    given = plans.Given(dtype, 16, capability)
    launches = {
        "forward": plans.conv2d_forward(shape, algorithm, given),
        "backward_input": plans.conv2d_backward_input(shape, algorithm, given)[0],
        "backward_weight": plans.conv2d_backward_weight(shape, algorithm, given).products,
    }
    name, definition = constant_shape(shape)
    expressions = {
        verb: p.launch.kernel.format(T=library.TYPES[dtype]).replace("Conv2dShape", name)
        for verb, p in launches.items()
    }
    source = KernelSource(f"cuda/{launches['forward'].family}.cuh", tuple(expressions.values()), definition)
    kernels = sass.disassemble(nvrtc.build(source, ARCHITECTURE[capability], default_cache()))
    return {verb: kernels[expression] for verb, expression in expressions.items()}


@pytest.mark.parametrize(
    ("name", "dtype", "arch", "needed"),
    [
        (WGMMA, "float16", "sm_90a", ("HGMMA", "UTMALDG", "SYNCS", "USETMAXREG")),
        (WGMMA, "bfloat16", "sm_90a", ("HGMMA", "UTMALDG", "SYNCS", "USETMAXREG")),
        (MMA, "float16", "sm_75", ("HMMA", "LDSM")),
        (MMA, "float16", "sm_80", ("HMMA", "LDSM")),
        (MMA, "bfloat16", "sm_90a", ("HMMA", "LDSM")),
        (MMA, "float32", "sm_80", ("HMMA",)),
        (GROUPED_MMA, "float16", "sm_75", ("HMMA", "LDSM")),
        (GROUPED_MMA, "float16", "sm_90a", ("HMMA", "LDSM", "LDGSTS")),
    ],
)
def test_a_rung_has_the_instructions_it_is_named_for(name: str, dtype: str, arch: str, needed: tuple[str, ...]) -> None:
    for expression, kernel in family(name, dtype, arch).items():
        missing = [opcode for opcode in needed if not kernel.count(opcode)]
        assert not missing, f"{expression} for {arch} has no {missing}"
        assert kernel.count(*sass.LOCAL_MEMORY) == 0, f"{expression} for {arch} uses local memory"


@pytest.mark.parametrize("name", [n for n in library.FAMILIES if not n.startswith("conv2d/")])
def test_no_kernel_uses_local_memory(name: str) -> None:
    for expression, kernel in family(name, "float32", "sm_90a").items():
        assert kernel.count(*sass.LOCAL_MEMORY) == 0, expression


def test_wgmma_stores_by_tma_and_multicasts() -> None:
    """Results of 16 bits leave by stmatrix and TMA, none by a thread's own store, which forward's moments do; residuals
    come by ldmatrix. Every kernel can share an operand with its neighbour, and both halves of setmaxnreg are there."""
    for expression, kernel in family(WGMMA, "float16", "sm_90a").items():
        by_tma = expression.startswith(("conv2d_forward_wgmma", "conv2d_backward_input_wgmma"))
        for opcode in ("UTMASTG", "STSM"):
            assert (kernel.count(opcode) > 0) == by_tma, f"{expression}: {opcode}"
        widths = {i.opcode for i in kernel.instructions if i.name == "STG"}
        if expression.startswith("conv2d_forward"):
            assert widths == {"STG.E"}, f"{expression}: {widths}, but for one float a moment"
        else:
            assert (not widths) == by_tma, f"{expression}: {widths}"
        assert (kernel.count("LDSM") > 0) == expression.startswith("conv2d_forward"), expression
        modifiers = {part for i in kernel.instructions if i.name == "UTMALDG" for part in i.opcode.split(".")}
        assert {"IM2COL", "MULTICAST"} <= modifiers, f"{expression}: {modifiers}"
        assert {i.text.split(", ")[-1].split()[-1] for i in kernel.instructions if i.name == "USETMAXREG"} == {
            "0xe8",
            "0x28",
        }


def test_copies_of_16_bytes_pass_the_registers_by() -> None:
    """LDGSTS is cp.async; a step of the ring issues as many of them as it has chunks."""
    for verb, kernel in chosen(LAYER, "implicit_gemm_mma", "float16", 80).items():
        loop = kernel.main_loop("HMMA")
        copies = [i for i in loop if i.name == "LDGSTS"]
        assert copies, verb
        assert all("128" in i.opcode for i in copies), f"{verb}: {[i.opcode for i in copies]}"


def test_wgmma_products_follow_one_another() -> None:
    """Four products a step of 64, the next step's issued before the last one's are waited for: nothing between them but
    descriptors, and one group may be in flight."""
    for verb, kernel in chosen(LAYER, "implicit_gemm_wgmma", "float16", 90).items():
        loop = kernel.main_loop("HGMMA")
        assert sass.mix(loop)["HGMMA"] == 4, verb
        assert len(loop) <= 70, f"{verb}: {len(loop)} instructions"
        names = [i.name for i in loop]
        first, last = names.index("HGMMA"), len(names) - 1 - names[::-1].index("HGMMA")
        between = set(names[first:last])
        assert not between & {"WARPGROUP", "BAR", "LDG", "STG", "LDS", "STS"}, f"{verb}: {between}"
        assert not set(names) & {"MEMBAR", "CCTL"}, f"{verb}: a stage is given back without a fence"
        assert any("DEPBAR" in i.opcode and "0x1" in i.text for i in loop), f"{verb}: no group stays in flight"


def test_share_of_multiply_adds_in_the_main_loop_of_tiled() -> None:
    for expression, kernel in family("conv2d", "float32", "sm_90a").items():
        if "_tiled<" in expression:
            loop = kernel.main_loop("FFMA")
            assert sass.mix(loop)["FFMA"] >= 0.8 * len(loop), f"{expression}: {sass.mix(loop)}"


def test_share_of_multiply_adds_in_the_main_loop_of_winograd() -> None:
    """A step of 8 channels is one turn: 8 x 8 sums of two frequencies a thread."""
    name, definition = constant_shape(LAYER)
    expressions = tuple(f"conv2d_{verb}_winograd<{name}>" for verb in ("forward", "backward_input"))
    source = KernelSource("cuda/conv2d/winograd.cuh", expressions, definition)
    for arch in ("sm_75", "sm_90a"):
        for expression, kernel in sass.disassemble(nvrtc.build(source, arch, default_cache())).items():
            loop = kernel.main_loop("FFMA")
            mix = sass.mix(loop)
            assert mix["FFMA"] == 8 * 2 * 64, expression
            assert mix["FFMA"] >= 0.8 * len(loop), f"{expression} for {arch}: {len(loop)}, {mix}"
            check_length(loop, predicted.WINOGRAD_STEP, f"{expression} for {arch}")
            assert kernel.count(*sass.LOCAL_MEMORY) == 0, expression


def check_length(loop: tuple[sass.Instruction, ...], stated: int, what: str) -> None:
    assert 0.9 * stated <= len(loop) <= stated, f"{what}: {len(loop)} instructions, {stated} stated; {sass.mix(loop)}"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_main_loops_of_grouped_on_cuda_cores(dtype: str) -> None:
    """A turn: 7 outputs, 3 taps, 4 by 4 weights; backward_weight: 3 outputs, 3 taps, 4 by 4. As bench/predicted.py
    counts."""
    layer = conv2d_shape((64, 56, 56, 128), (128, 3, 3, 4), 1, 1, 1, 32)
    for verb, kernel in chosen(layer, "grouped", dtype, 90).items():
        loop = kernel.main_loop("FFMA")
        weights = verb == "backward_weight"
        assert sass.mix(loop)["FFMA"] == (3 * 3 * 16 if weights else 7 * 3 * 16), verb
        assert sass.mix(loop)["FFMA"] >= 0.7 * len(loop), f"{verb}: {sass.mix(loop)}"
        check_length(loop, (predicted.WEIGHT_TURN if weights else predicted.STRIP_TURN)[dtype], f"{verb} {dtype}")
        assert kernel.count(*sass.LOCAL_MEMORY) == 0, verb


@pytest.mark.parametrize("group", [8, 16])
def test_main_loops_of_grouped_on_tensor_cores(group: int) -> None:
    """A tap of 32 pixels and 64 outputs is 16 mma, of 8 or of 16 channels; 16 pixels of backward_weight are 5 pairs of
    taps of two groups, or 9 taps of 16 filters."""
    layer = conv2d_shape((64, 56, 56, 32 * group), (32 * group, 3, 3, group), 1, 1, 1, 32)
    for verb, kernel in chosen(layer, "grouped", "float16", 90).items():
        loop, weights = kernel.main_loop("HMMA"), verb == "backward_weight"
        assert sass.mix(loop)["HMMA"] == ({8: 10, 16: 18}[group] if weights else 16), verb
        stated = predicted.RECTANGLE_STEP if weights else predicted.RECTANGLE_TAP
        check_length(loop, stated[group], f"{verb} {group}")
        assert not {"LDG", "LDS", "BAR"} & set(sass.mix(loop)), verb


def test_loops_are_found() -> None:
    """A branch backwards makes a loop; the innermost one with the most of an instruction is the main loop."""
    step = [sass.Instruction(16 * i, name, name, None) for i, name in enumerate(("MOV", "FFMA", "FFMA", "BRA", "BRA"))]
    code = (*step[:3], *(sass.Instruction(16 * i, "BRA", "BRA", target) for i, target in ((3, "inner"), (4, "outer"))))
    kernel = sass.Kernel(code, {"outer": 0, "inner": 1})
    assert [len(loop) for loop in kernel.loops()] == [3, 5]
    assert sass.mix(kernel.main_loop("FFMA")) == {"FFMA": 2, "BRA": 1}
    with pytest.raises(ValueError, match="no loop has one of HMMA"):
        kernel.main_loop("HMMA")
