"""Measured choices among the CUDA kernels, on the emulator: every candidate computes the same, and with a clock that is
planted the choice is determined."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import tuning
from cnnengine.backends import _conv2d_plans as conv2d
from cnnengine.backends import _kernel_library as library
from cnnengine.backends.contract import CONV2D_VERBS, IDENTITY, Backend
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.planning import PlanningBackend
from cnnengine.backends.registry import get, unavailable, using
from cnnengine.cuda.precompile import plan
from cnnengine.errors import KernelError, Unsupported
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import EmulatorRuntime, Kernel
from cnnengine.jit.source import KernelSource
from cnnengine.shapes import Conv2dShape, conv2d_shape
from cnnengine.tuning import Tuner, candidates, host_timer

from .compare import assert_close
from .harness import oracle, root_of_squares, run_verb

pytestmark = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
ROOT = Path(__file__).resolve().parent.parent
DENSE = conv2d_shape((2, 9, 8, 16), (24, 3, 3, 16), 1, 1)
SHAPES = {
    "dense": DENSE,
    "strided": conv2d_shape((3, 11, 9, 8), (16, 3, 2, 8), (2, 1), 1),
    "pixels for splits": conv2d_shape((3, 17, 15, 8), (8, 1, 1, 8)),
    "first layer": conv2d_shape((2, 13, 9, 3), (16, 3, 3, 3), 2, 1),
    "groups": conv2d_shape((2, 7, 6, 24), (36, 3, 3, 12), 1, 1, 1, 2),
    "depthwise": conv2d_shape((1, 9, 40, 16), (16, 3, 3, 1), 1, 1, 1, 16),
}
SMALL_TILE, LARGE_TILE = library.MMA_SMALL, library.MMA_LARGE


def call(backend: Backend, verb: str, s: Conv2dShape, algorithm: str | None) -> tuple[Any, tuple[str, str], str, int]:
    """(call, names of its inputs, name of its output, products summed into one element)"""
    if verb == "conv2d_forward":
        return (
            lambda x, w, y: backend.conv2d_forward(s, x, w, y, IDENTITY, algorithm), ("x", "w"), "y", s.reduction
        )  # fmt: skip
    if verb == "conv2d_backward_input":
        terms = s.R * s.S * (s.K // s.groups)
        return lambda dy, w, dx: backend.conv2d_backward_input(s, dy, w, dx, algorithm), ("y", "w"), "x", terms
    terms = s.N * s.P * s.Q
    return lambda x, dy, dw: backend.conv2d_backward_weight(s, x, dy, dw, algorithm), ("x", "y"), "w", terms


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("verb", CONV2D_VERBS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_candidate_computes_the_same(name: str, verb: str, dtype: str, rng: np.random.Generator) -> None:
    emulator, s = get("emulator"), SHAPES[name]
    reference, inputs, output, terms = call(oracle(), verb, s, None)
    given = [rng.standard_normal(getattr(s, key), np.float32).astype(dtype) for key in inputs]
    out = getattr(s, output)
    wide = [a.astype("float32") for a in given]
    (expected,) = run_verb(oracle(), reference, wide, [(out, "float32")], "oracle")
    scale = root_of_squares(reference, wide, out)
    names = candidates(emulator, verb, s, dtype)
    assert len(set(names)) == len(names)
    for rung in conv2d.ROUNDED:
        names += candidates(emulator, verb, s, dtype, rung)
    for algorithm in names:
        what = f"{verb} {algorithm} {dtype}"
        (actual,) = run_verb(emulator, call(emulator, verb, s, algorithm)[0], given, [(out, dtype)], what)
        rung, *_ = conv2d.parsed(algorithm)
        assert_close(actual, expected, terms, what, scale, rung)


def kernels(verb: str, s: Conv2dShape, algorithm: str | None, given: conv2d.Given) -> str:
    """All that a plan launches."""
    if padded := conv2d.first_layer(verb, s, algorithm, given):
        return kernels(verb, padded.shape, padded.algorithm, given)
    return repr(getattr(conv2d, verb)(s, algorithm, given))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("verb", CONV2D_VERBS)
def test_the_first_candidate_is_the_documented_choice_and_all_differ(verb: str, dtype: str) -> None:
    large = conv2d_shape((64, 56, 56, 64), (256, 3, 3, 64), 2, 1)
    for capability in (75, 80, 90):
        given = conv2d.Given(dtype, 16, capability)
        for s in (*SHAPES.values(), large):
            names = conv2d.candidates(verb, s, None, given)
            plans = [kernels(verb, s, name, given) for name in names]
            assert plans[0] == kernels(verb, s, None, given)
            assert len(set(plans)) == len(plans), names
            for rung in conv2d.ALGORITHMS:
                named = conv2d.candidates(verb, s, rung, given)
                assert all(conv2d.parsed(name)[0] == rung for name in named)
                if named:
                    assert kernels(verb, s, named[0], given) == kernels(verb, s, rung, given)


class Clocked(EmulatorRuntime):
    """A launch takes 1 second, or what ``seconds`` says of its kernel; a kernel that names ``broken`` does not
    compile."""

    def __init__(self) -> None:
        super().__init__(default_cache())
        self.now, self.seconds, self.broken = 0.0, dict[str, float](), "nothing"
        self.launched: list[str] = []

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        if self.broken in expression:
            raise KernelError(f"{expression} does not compile, as planted")
        launch = super().kernel(source, expression)

        def clocked(*arguments: Any) -> None:
            self.launched.append(expression)
            self.now += next((s for part, s in self.seconds.items() if part in expression), 1.0)
            launch(*arguments)

        return clocked


class Bench:
    """A backend on such a clock, with a tuner that times it; ``run`` is a convolution as users call it."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self.runtime = path, Clocked()
        self.backend = EmulatorBackend(self.runtime)
        self.measured: list[str] = []
        monkeypatch.setattr(tuning, "_tuner", lambda: self.tuner)
        monkeypatch.setattr(tuning, "SAMPLES", 1)  # the planted clock always says the same
        self.forget()

    def forget(self) -> None:
        """As another process: what is known lies in the file."""
        self.tuner = Tuner(self.path, self.machine, self.timer)

    def machine(self, backend: Backend) -> str:
        return "GPU"

    def timer(self, backend: Backend, run: Any) -> float:
        self.measured.append(run.args[0])
        return host_timer(lambda: self.runtime.now)(backend, run)

    def run(self, s: Conv2dShape = DENSE, dtype: str = "float16", shift: int = 0, **options: Any) -> str:
        """The first kernel that runs once all is measured; x begins ``shift`` elements behind 16 bytes' multiple."""
        size = int(np.prod(s.x))
        x = np.ones(size + 8, dtype)[shift : shift + size].reshape(s.x)
        with using(self.backend), cnn.autotune():
            call = {"stride": (s.stride_h, s.stride_w), "padding": (s.pad_h, s.pad_w), **options}
            F.conv2d(x, np.ones(s.w, dtype), **call)
            self.runtime.launched.clear()
            F.conv2d(x, np.ones(s.w, dtype), **call)
        return self.runtime.launched[0]

    @property
    def choices(self) -> dict[str, str]:
        known: dict[str, str] = json.loads(self.path.read_text())["choices"]["GPU"]
        return known


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    yield Bench(tmp_path / "autotune.json", monkeypatch)
    assert not tuning.on


def test_the_quickest_plan_runs_from_then_on(bench: Bench) -> None:
    bench.runtime.seconds = {f"mma<__half, Conv2dShape, {LARGE_TILE}": 0.5}
    assert str(LARGE_TILE) in bench.run()
    (name,), (chosen,) = bench.choices.keys(), bench.choices.values()
    assert name.startswith("conv2d_forward: float16, x (2, 9, 8, 16), w (24, 3, 3, 16)")
    assert chosen == f"implicit_gemm_mma: {LARGE_TILE} or another"
    assert len(set(bench.measured)) == len(candidates(bench.backend, "conv2d_forward", DENSE, "float16")) > 10
    bench.measured.clear()
    bench.run()
    assert bench.measured == []


def test_each_dtype_and_verb_has_its_choice(bench: Bench) -> None:
    bench.runtime.seconds = {"mma<__half": 0.5, "direct<float": 0.25}
    assert "mma<__half" in bench.run()
    assert "direct<float" in bench.run(dtype="float32")
    x, w = np.ones(DENSE.x, np.float16), cnn.Tensor(np.ones(DENSE.w, np.float16), requires_grad=True)
    bench.runtime.seconds = {"weight_mma<__half": 0.5}
    with using(bench.backend), cnn.autotune():
        y = F.conv2d(x, w, padding=1)
        y.backward(np.ones(DENSE.y, np.float16))
    assert any(name.startswith("conv2d_backward_weight: float16") for name in bench.choices)
    assert len(bench.choices) == 3


def test_splits_are_measured_too(bench: Bench) -> None:
    """The planted clock counts launches: a sum in one part needs no second kernel."""
    s = SHAPES["pixels for splits"]
    given = conv2d.Given("float16", 16, 90)
    assert conv2d.conv2d_backward_weight(s, "implicit_gemm_mma", given).splits > 1
    chosen = bench.tuner.choice(bench.backend, "conv2d_backward_weight", s, "float16", "implicit_gemm_mma")
    assert chosen is not None
    assert chosen.endswith(", 1 splits")
    assert conv2d.conv2d_backward_weight(s, chosen, given).splits == 1


def test_a_named_rung_is_tuned_for_itself(bench: Bench) -> None:
    bench.runtime.seconds = {"tiled": 0.1, str(LARGE_TILE): 0.5}
    assert str(LARGE_TILE) in bench.run(algorithm="implicit_gemm_mma")
    assert {conv2d.parsed(name)[0] for name in bench.measured} == {"implicit_gemm_mma"}
    assert "tiled" in bench.run()
    with cnn.algorithms(conv2d_forward="implicit_gemm_mma"):
        assert str(LARGE_TILE) in bench.run()
    assert sorted(name.split(": ")[0] for name in bench.choices) == [
        "conv2d_forward",
        "conv2d_forward by implicit_gemm_mma",
    ]


def test_what_does_not_compile_or_refuses_is_passed_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.runtime.seconds = {
        f"mma<__half, Conv2dShape, {LARGE_TILE}": 0.1,
        f"mma<__half, Conv2dShape, {SMALL_TILE}": 0.5,
    }
    bench.runtime.broken = str(LARGE_TILE)
    assert str(SMALL_TILE) in bench.run()
    assert not any(str(LARGE_TILE) in name for name in bench.measured)

    forward = bench.backend.conv2d_forward

    def refuse(shape: Any, x: Any, w: Any, y: Any, epilogue: Any, algorithm: str | None) -> None:
        if str(SMALL_TILE) in str(algorithm):
            raise Unsupported("planted")
        forward(shape, x, w, y, epilogue, algorithm)

    monkeypatch.setattr(bench.backend, "conv2d_forward", refuse)
    bench.runtime.seconds["wgmma"] = 0.7
    assert "wgmma" in bench.run(conv2d_shape((2, 8, 8, 16), (24, 3, 3, 16)))


def test_what_refuses_everything_says_why(bench: Bench) -> None:
    with pytest.raises(Unsupported, match="depthwise: takes one input channel a group"):
        bench.run(algorithm="depthwise")
    assert not bench.path.exists()


def test_a_choice_that_does_not_fit_unaligned_arrays(bench: Bench) -> None:
    """Arrays that begin anywhere run another rung where none is named; a named one refuses, as without a tuner."""
    bench.runtime.seconds = {"wgmma": 0.5}
    assert "wgmma" in bench.run()
    assert "implicit_gemm_wgmma" in next(iter(bench.choices.values()))
    assert "_mma<__half" in bench.run(shift=1)
    with pytest.raises(Unsupported, match="takes arrays that begin at multiples of 16 bytes, received 2"):
        bench.run(shift=1, algorithm="implicit_gemm_wgmma")
    bench.runtime.seconds = {str(LARGE_TILE): 0.5}  # which copies 16 bytes at a time
    assert str(SMALL_TILE) in bench.run(shift=1, algorithm="implicit_gemm_mma")


def test_a_prepared_weight_keeps_the_choice(bench: Bench) -> None:
    bench.runtime.seconds = {"implicit_gemm<__half": 0.5}
    w = cnn.Tensor(np.ones(DENSE.w, np.float16))
    with using(bench.backend):
        with cnn.autotune():
            packed = F.conv2d_prepare(DENSE.x, w, padding=1)
        bench.runtime.launched.clear()
        y = F.conv2d(np.ones((5, *DENSE.x[1:]), np.float16), packed, padding=1)
    assert "implicit_gemm<__half" in bench.runtime.launched[0]
    assert y.numpy().max() == 9 * 16


def test_a_planned_step_uses_what_was_measured(bench: Bench) -> None:
    model = cnn.nn.Conv2d(16, 24, 3, padding=1, bias=False)

    def planned() -> list[str]:
        kernels, _ = plan(lambda x: model(x), [DENSE.x], True, "float32", None, "sm_90a")
        return [kernel.expressions[0] for kernel in kernels]

    own = planned()
    with cnn.autotune():
        assert planned() == own  # it measures nothing
    bench.runtime.seconds = {"direct": 0.5}
    assert "direct" in bench.run(dtype="float32")
    with cnn.autotune():
        assert planned() == ["conv2d_forward_direct<float, Conv2dShape>"] != own
    assert planned() == own


def test_the_machine_of_a_gpu_is_its_architecture() -> None:
    assert tuning.machine(PlanningBackend("sm_90a")) == f"cnnengine {cnn.__version__}, sm_90a"
    constant = PlanningBackend("sm_80", constant_shapes=True)
    assert tuning.machine(constant) == f"cnnengine {cnn.__version__}, sm_80, constant shapes"
    assert tuning.machine(get("emulator")) is None  # whose seconds say nothing


SECOND = """
import sys
from pathlib import Path
import pytest
from tests import test_tuning_kernels as first

with pytest.MonkeyPatch.context() as patch:
    bench = first.Bench(Path(sys.argv[1]), patch)
    print(bench.run(), bench.measured)
"""


def test_another_process_finds_the_choice(bench: Bench) -> None:
    bench.runtime.seconds = {f"mma<__half, Conv2dShape, {LARGE_TILE}": 0.5}
    kernel = bench.run()
    command = [sys.executable, "-c", SECOND, str(bench.path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{kernel} []"


def test_the_file_of_an_older_format_is_measured_anew(bench: Bench) -> None:
    bench.path.write_text('{"format": 1, "choices": {"GPU": {"conv2d_forward: x (2, 9, 8, 16)": "direct"}}}')
    bench.run()
    assert bench.measured
    assert json.loads(bench.path.read_text())["format"] == tuning.FORMAT
