"""Grouped convolution on the GPU, by the emulator: where it is chosen, that a group does not see its neighbours, what
it costs beside the rungs for any shape."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnnengine._paths import csrc_dir
from cnnengine.backends import _conv2d_plans as plans
from cnnengine.backends import _grouped_mma_plans as grouped_mma
from cnnengine.backends import _grouped_plans as grouped
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import CONV2D_VERBS, IDENTITY, Backend
from cnnengine.backends.registry import get, unavailable
from cnnengine.errors import Unsupported
from cnnengine.jit import host
from cnnengine.jit.counters import Counts, aligned
from cnnengine.shapes import Conv2dShape, conv2d_shape

from .cases.conv2d import CASES
from .compare import assert_close
from .harness import oracle, root_of_squares, run_verb
from .random_runs import FUZZ
from .test_cuda_counters import backend, counted, zeros

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
GROUPED = [case for case in CASES if 1 < case.groups < case.x[3]]


def shape(C: int, K: int, groups: int, size: int = 3, **geometry: Any) -> Conv2dShape:
    return conv2d_shape((2, 14, 14, C), (K, size, size, C // groups), groups=groups, padding=size // 2, **geometry)


def planned(verb: str, s: Conv2dShape, algorithm: str | None, given: plans.Given) -> plans.ConvPlan:
    plan: Any = getattr(plans, verb)(s, algorithm, given)
    if verb == "conv2d_backward_weight":
        plan = plan.products
    found: plans.ConvPlan = plan[0] if verb == "conv2d_backward_input" else plan
    return found


@pytest.mark.parametrize("verb", CONV2D_VERBS)
@pytest.mark.parametrize(
    ("s", "dtype", "family"),
    [
        (shape(128, 128, 32), "float32", "conv2d/grouped"),
        (shape(128, 128, 32), "float16", "conv2d/grouped"),
        (shape(256, 256, 32), "float32", "conv2d/grouped"),
        (shape(256, 256, 32), "float16", "conv2d/grouped_mma"),
        (shape(512, 512, 32, stride=2), "bfloat16", "conv2d/grouped_mma"),
        (shape(1024, 1024, 32), "float16", "conv2d/grouped_mma"),
        (shape(1024, 1024, 32), "float32", "conv2d/grouped"),
        (shape(48, 48, 2), "float32", "conv2d/grouped"),
        (shape(48, 48, 2), "float16", "conv2d/implicit_gemm_mma"),  # groups of 24
        (shape(512, 512, 8), "float16", "conv2d/implicit_gemm_mma"),
        (shape(256, 256, 2), "float32", "conv2d/implicit_gemm"),
        (shape(64, 64, 64), "float32", "conv2d/depthwise"),
    ],
)
def test_choice(verb: str, s: Conv2dShape, dtype: str, family: str) -> None:
    s = conv2d_shape((64, s.H, s.W, s.C), s.w, (s.stride_h, s.stride_w), 1, 1, s.groups)
    assert planned(verb, s, None, plans.Given(dtype, 16, 90)).family == family


def test_tensor_cores_without_bfloat16() -> None:
    s = shape(256, 256, 32)
    assert planned(CONV2D_VERBS[0], s, "grouped", plans.Given("bfloat16", 16, 75)).family == "conv2d/grouped"
    assert planned(CONV2D_VERBS[0], s, "grouped", plans.Given("float16", 16, 75)).family == "conv2d/grouped_mma"
    assert planned(CONV2D_VERBS[0], s, "grouped", plans.Given("float16", 8, 90)).family == "conv2d/grouped"


@pytest.mark.parametrize("verb", CONV2D_VERBS)
@pytest.mark.parametrize(
    ("refused", "words"),
    [
        (shape(32, 32, 1), r"grouped: takes groups of several channels .1 < groups < C., received groups 1 and C 32"),
        (shape(32, 32, 32), "received groups 32 and C 32"),
        (conv2d_shape((1, 1, 9000, 4), (4, 1, 7000, 2), groups=2), "rows of filters of at most 6144 taps, received S"),
        (conv2d_shape((2**16, 2**8, 2**7, 4), (4, 1, 1, 2), groups=2), r"up to 2\^30, received 2147483648 pixels"),
    ],
)
def test_what_is_refused(verb: str, refused: Conv2dShape, words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        planned(verb, refused, "grouped", plans.Given("float32", 16, 90))
    assert planned(verb, refused, None, plans.Given("float32", 16, 90)).algorithm != "grouped"


@pytest.mark.parametrize("dtype", library.TYPES)
@pytest.mark.parametrize("case", [*GROUPED, shape(512, 512, 32, 5), shape(1024, 1024, 32, stride=2)], ids=str)
def test_plans_name_kernels_of_the_library_and_fit_a_gpu(case: Any, dtype: str) -> None:
    s = case if isinstance(case, Conv2dShape) else case.shape
    for verb, alignment in product(CONV2D_VERBS, (16, 4, 2)):
        plan = planned(verb, s, "grouped", plans.Given(dtype, alignment, 90))
        x, y, z = plan.launch.block
        assert plan.launch.kernel in library.templates(plan.family, dtype)
        assert 0 < x * y * z <= (256 if plan.sizes else grouped.THREADS)
        assert z <= 64
        assert 0 < plan.launch.shared_bytes <= grouped_mma.SHARED_BYTES


def test_a_rectangle_too_large_for_shared_memory_leaves_it_to_cuda_cores() -> None:
    far = conv2d_shape((1, 200, 200, 64), (64, 3, 3, 8), 1, 60, 60, 8)
    for verb in CONV2D_VERBS:
        assert grouped_mma.rectangle(verb, far) is None
        assert planned(verb, far, "grouped", plans.Given("float16", 16, 90)).family == "conv2d/grouped"


def calls(s: Conv2dShape) -> dict[str, tuple[Callable[[Backend, str | None], Callable[..., None]], tuple[Any, ...]]]:
    """verb -> (backend, algorithm) -> call, and its inputs' and output's shapes"""
    return {
        "conv2d_forward": (lambda b, a: lambda x, w, y: b.conv2d_forward(s, x, w, y, IDENTITY, a), (s.x, s.w, s.y)),
        "conv2d_backward_input": (
            lambda b, a: lambda dy, w, dx: b.conv2d_backward_input(s, dy, w, dx, a),
            (s.y, s.w, s.x),
        ),
        "conv2d_backward_weight": (
            lambda b, a: lambda x, dy, dw: b.conv2d_backward_weight(s, x, dy, dw, a),
            (s.x, s.y, s.w),
        ),
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("group", [4, 8, 16, 32])
@pytest.mark.parametrize("verb", CONV2D_VERBS)
def test_a_nan_stays_in_its_group(verb: str, group: int, dtype: str) -> None:
    """NaN and infinities in one group, in the last row and column too, which not every tap meets: they are where the
    oracle has them, and its zeros past the outputs take none in."""
    s = conv2d_shape((1, 8, 9, 3 * group), (3 * group, 3, 3, group), (2, 1), ((0, 1), (1, 0)), 1, 3)
    call, (*inputs, out) = calls(s)[verb]
    rng = np.random.default_rng(5)
    arrays = [rng.standard_normal(shape).astype("float32").astype(dtype) for shape in inputs]
    first, second = arrays
    first[0, -1, 2, group + 1] = np.nan
    first[0, 1, -1, 2 * group - 1] = np.inf
    if verb == "conv2d_backward_weight":
        second[0, 1, 3, group] = np.inf
    wide = [a.astype("float32") for a in arrays]
    (expected,) = run_verb(oracle(), call(oracle(), None), wide, [(out, "float32")], "oracle")
    (actual,) = run_verb(get("emulator"), call(get("emulator"), "grouped"), arrays, [(out, dtype)], verb)
    assert np.isnan(expected).any()
    assert_close(actual, expected, 9 * group, f"{verb} {group} {dtype}")


def random_shapes(count: int) -> Iterator[tuple[Conv2dShape, str]]:
    """Of groups that tensor cores take, and a dtype; the same in every run."""
    rng = np.random.default_rng(2026)
    while count > 0:
        group, groups = int(rng.choice(library.GROUPED_MMA)), int(rng.integers(2, 10))
        n, h, w, r, s, *geometry = (int(rng.integers(1, most)) for most in (4, 15, 19, 6, 6, 5, 5, 5, 5))
        pads = [int(pad) for pad in rng.integers(0, 5, 4)]
        x, filters = (n, h, w, group * groups), (group * groups, r, s, group)
        try:
            found = conv2d_shape(
                x, filters, tuple(geometry[:2]), ((pads[0], pads[1]), (pads[2], pads[3])), tuple(geometry[2:]), groups
            )
        except ValueError:  # filters past the padded image
            continue
        if found.flops() <= 6_000_000:
            count -= 1
            yield found, str(rng.choice(["float16", "bfloat16"]))


@pytest.mark.parametrize("verb", CONV2D_VERBS)
def test_random_shapes_on_tensor_cores(verb: str) -> None:
    emulator, taken = get("emulator"), 0
    for number, (s, dtype) in enumerate(random_shapes(max(10, FUZZ))):
        call, (*inputs, out) = calls(s)[verb]
        rng = np.random.default_rng(number)
        arrays = [rng.standard_normal(one).astype("float32").astype(dtype) for one in inputs]
        wide = [a.astype("float32") for a in arrays]
        (expected,) = run_verb(oracle(), call(oracle(), None), wide, [(out, "float32")], "oracle")
        terms = root_of_squares(call(oracle(), None), wide, out)
        what = f"{verb} {s} {dtype}"
        (actual,) = run_verb(emulator, call(emulator, "grouped"), arrays, [(out, dtype)], what)
        assert_close(actual, expected, s.N * s.P * s.Q if verb.endswith("weight") else s.reduction, what, terms)
        taken += grouped_mma.takes(verb, s, dtype, 16)
    assert taken >= 8


def constants() -> list[tuple[str, str, list[int]]]:
    """(file, pattern, values) of what Python repeats of the kernels"""
    tiles = [
        (8, r"WARPS = (\d+), GROUPS = 2"),
        (16, r"WARPS = (\d+), GROUPS = 1, PAIRS = GROUPED"),
        (32, r"WARPS = (8)"),
    ]
    return [
        ("grouped.cuh", r"int BYTES = (\d+);", [grouped.FILTER_BYTES]),
        ("grouped.cuh", r"GROUPED_THREADS = (\d+);", [grouped.THREADS]),
        ("grouped.cuh", r"STRIP = KNOWN \? (\d+) : \d;", [grouped.STRIP]),
        ("grouped.cuh", r"STRIP = KNOWN \? \d : (\d+);", [grouped.STRIP_OF_ANY]),
        ("grouped_mma.cuh", r"GROUPED_MMA_CHANNELS = (\d+);", [grouped_mma.CHANNELS]),
        ("grouped_mma.cuh", r"GROUPED_MMA_PIXELS = (\d+);", [grouped_mma.PIXELS]),
        ("grouped_mma.cuh", r"GROUPED_MMA_TAPS = (\d+);", [grouped_mma.TAPS]),
        *(("grouped_mma.cuh", pattern, [grouped_mma.WARPS[group]]) for group, pattern in tiles),
    ]


@pytest.mark.parametrize(("file", "pattern", "values"), constants())
def test_constants_are_those_of_the_kernels(file: str, pattern: str, values: list[int]) -> None:
    text = Path(csrc_dir(), "cuda", "conv2d", file).read_text()
    assert [int(found) for found in re.findall(pattern, text)] == values


@pytest.mark.skipif(
    unavailable("emulator") is None and not host.can_count(host.compiler()), reason="the counters need g++"
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("group", [4, 8, 16])
@pytest.mark.parametrize("verb", CONV2D_VERBS)
def test_counters(verb: str, group: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the implicit GEMM for any shape, whose tile of 64 filters a group fills with 4 to 16: from fewer sectors
    of global memory, a quarter or less of the wavefronts of shared memory, and none of them for a conflict."""
    monkeypatch.setattr(backend(), "workspace", lambda nbytes: aligned(np.zeros(nbytes, np.uint8)))
    s = conv2d_shape((1, 8, 14, 16 * group), (16 * group, 3, 3, group), 1, 1, 1, 16)
    call, shapes = calls(s)[verb]
    arrays = [zeros(one, dtype) for one in shapes]

    def measured(algorithm: str) -> Counts:
        return counted(lambda b: call(b, algorithm)(*arrays))

    other = "implicit_gemm" if dtype == "float32" else "implicit_gemm_mma"
    ours, plain = measured("grouped"), measured(other)
    assert ours.shared_load.conflicts == ours.shared_store.conflicts == ours.ldmatrix.conflicts == 0
    if dtype == "float16" and group >= 8:
        assert ours.mma.requests > 0
        assert ours.global_copy.efficiency == 1
        assert ours.shared_copy.conflicts <= 0.05 * ours.wavefronts  # a line of weights ends with a gap of 16 bytes
        assert 2 * ours.global_sectors < plain.global_sectors
    else:
        assert ours.conflicts == 0
        assert ours.global_sectors < plain.global_sectors
    if verb != "conv2d_backward_weight":
        assert ours.global_store.efficiency == 1
    assert (3 if dtype == "float16" else 4) * ours.wavefronts < plain.wavefronts
