"""Compilation ahead: what is planned is what a step launches, and another process finds it compiled."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from bench import precompile as bench
from cnnengine import nn, random
from cnnengine.backends._overlaid import OWN_BYTES
from cnnengine.backends.emulator.backend import EmulatorBackend
from cnnengine.backends.planning import PlanningBackend
from cnnengine.backends.registry import get, unavailable, using
from cnnengine.cuda.precompile import plan, precompile
from cnnengine.errors import BackendUnavailable, KernelError
from cnnengine.jit import nvrtc, workers
from cnnengine.jit.cache import default_cache
from cnnengine.jit.launch import EmulatorRuntime, Kernel
from cnnengine.jit.source import KernelSource

needs_emulator = pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
needs_nvrtc = pytest.mark.skipif(nvrtc.problem() is not None, reason=str(nvrtc.problem()))
SHAPE = (2, 8, 8, 3)


class Noting(EmulatorRuntime):
    """Which kernels a step launches."""

    launched: dict[KernelSource, None]

    def kernel(self, source: KernelSource, expression: str) -> Kernel:
        self.launched[source.only(expression)] = None
        return super().kernel(source, expression)


class Small(nn.Module):
    """Convolutions of several kinds, both ways to use batch norm, pooling, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 64, 3, 2, padding=1)
        self.wide = nn.Conv2d(64, 64, 1)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: cnn.Tensor) -> cnn.Tensor:
        x = F.max_pool2d(self.norm(self.first(x), "relu"), 2)
        x = self.depthwise(F.gelu(self.wide(self.second(x, "relu"))))
        return self.linear(self.dropout(F.global_avg_pool2d(x).reshape((x.shape[0], -1))))


def launched(model: nn.Module, training: bool, dtype: str) -> list[KernelSource]:
    """By a step as users write it, on the emulator."""
    runtime = Noting(default_cache())
    runtime.launched = {}
    with using(EmulatorBackend(runtime)):
        x, labels = cnn.Tensor(np.random.default_rng(0).random(SHAPE, np.float32)), np.arange(2)
        with cnn.amp.autocast("float16" if dtype == "float32" else dtype, enabled=dtype != "float32"):
            if not training:
                with cnn.no_grad():
                    model.eval()(x)
                return list(runtime.launched)
            loss = F.cross_entropy(model.train()(x), labels)
        optimizer = cnn.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        scaler = cnn.amp.GradScaler(enabled=dtype == "float16")
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    return list(runtime.launched)


@needs_emulator
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("training", [True, False])
def test_the_plan_is_what_a_step_launches(training: bool, dtype: str) -> None:
    model = Small()
    kernels, arch = plan(model, [SHAPE], training, dtype, None, "sm_90")
    assert arch == "sm_90a"
    assert kernels == launched(model, training, dtype)
    assert all(len(kernel.expressions) == 1 for kernel in kernels)


@needs_emulator
def test_a_frozen_model_is_planned_as_it_runs() -> None:
    model = Small().freeze()
    kernels, _ = plan(model, [SHAPE], False, "float16", None, "sm_90a")
    assert kernels == launched(model, False, "float16")


def test_planning_changes_nothing() -> None:
    model = Small().eval()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    state = random.get_state()
    plan(model, [SHAPE], True, "float16", None, "sm_90a")
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    assert random.get_state() == state
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_the_architecture_decides() -> None:
    def names(arch: str) -> str:
        return " ".join(k.expressions[0] for k in plan(Small(), [SHAPE], True, "bfloat16", None, arch)[0])

    assert "wgmma" in names("sm_90a")
    assert "wgmma" not in names("sm_80")
    assert "_mma<" in names("sm_80")
    assert "_mma<" not in names("sm_75")  # which has no bfloat16


def test_a_callable_does_everything_itself() -> None:
    def step(x: cnn.Tensor, y: cnn.Tensor) -> None:
        F.relu(x @ y)

    kernels, _ = plan(step, [(40, 50), (50, 60)], True, "float32", None, "sm_80")
    assert [kernel.file for kernel in kernels] == ["cuda/gemm.cuh", "cuda/activation.cuh"]


def test_an_optimizer_is_asked_for() -> None:
    def adam(parameters: Any) -> cnn.optim.Adam:
        return cnn.optim.Adam(parameters)

    kernels, _ = plan(nn.Linear(4, 3), [(2, 4)], True, "float32", adam, "sm_80")
    assert "adam<float, float, 64>" in [kernel.expressions[0] for kernel in kernels]


def test_large_arrays_share_their_memory() -> None:
    backend = PlanningBackend("sm_80")
    large, other = (backend.empty((OWN_BYTES, 4), ml_dtypes.bfloat16) for _ in range(2))
    assert large.ctypes.data == other.ctypes.data
    assert large.flags.c_contiguous
    small, another = backend.empty((3,), np.float32), backend.empty((3,), np.float32)
    assert not np.shares_memory(small, another)


def test_resnet50_is_planned() -> None:
    """The network of bench/precompile.py: its sizes meet where they should, without a product."""
    model = bench.ResNet50()
    assert sum(p.size for p in model.parameters()) == 25_557_032  # as torchvision's
    kernels, _ = plan(model, [(64, 224, 224, 3)], True, "float16", None, "sm_90a")
    assert {k.file for k in kernels} >= {"cuda/norm.cuh", "cuda/conv2d/implicit_gemm_wgmma.cuh", "cuda/pool2d.cuh"}


def test_the_script_lists_what_it_would_compile(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--kernels", "--arch", "sm_80", "--batch", "8"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(set(listed)) > 20
    assert bench.main(["--kernels", "--arch", "hopper"]) == 2
    assert "received 'hopper'" in capsys.readouterr().err


@needs_nvrtc
def test_a_kernel_that_does_not_compile_brings_the_log_of_its_process() -> None:
    wrong = KernelSource("cuda/activation.cuh", ("activation_forward<float, Nonsense>",))
    right = KernelSource("cuda/dropout.cuh", ("dropout<float>",))
    (cubin,) = nvrtc.build_many([(right, "sm_80")], default_cache(), 1)
    assert list(cubin.names) == ["dropout<float>"]
    with pytest.raises(KernelError, match=r"(?s)cuda/activation.cuh does not compile for sm_80.*Nonsense"):
        nvrtc.build_many([(right, "sm_80"), (wrong, "sm_80")], default_cache(), 2)


@needs_nvrtc
def test_another_process_finds_the_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNENGINE_CACHE", str(tmp_path))

    def step(x: cnn.Tensor) -> None:
        F.relu(x + x)

    first = precompile(step, (3, 5), arch="sm_75", workers=2)
    assert (first.kernels, first.compiled, first.workers) == (2, 2, 2)
    again = precompile(step, (3, 5), arch="sm_75")
    assert (again.kernels, again.compiled) == (2, 0)
    assert precompile(step, (3, 5), dtype="float16", arch="sm_80").compiled == 2  # of another architecture
    script = (
        "from tests.test_precompile import *; import tests.test_precompile as t\n"
        "print(precompile(lambda x: F.relu(x + x), (3, 5), arch='sm_75').compiled)"
    )
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float64", "arch": "sm_80"}, "dtype must be one of float32, float16, bfloat16, received 'float64'"),
        ({"arch": "hopper"}, "arch must be an architecture such as 'sm_90a', received 'hopper'"),
        ({"arch": "sm_80", "workers": 0}, "workers must be at least 1, received 0"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        precompile(F.relu, (3, 5), **arguments)


@pytest.mark.skipif(unavailable("cuda") is None, reason="there is a GPU")
def test_without_a_gpu_an_architecture_is_asked_for() -> None:
    with pytest.raises(BackendUnavailable, match=r"no GPU to compile for .*; name an architecture"):
        precompile(F.relu, (3, 5))


def test_workers_keep_the_order() -> None:
    assert workers.run([partial(pow, 2, n) for n in range(9)], 2) == [2**n for n in range(9)]
    assert workers.run([], 2) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (partial(int, "three"), ValueError, "invalid literal"),
        (partial(sys.exit, 3), KernelError, "a process that compiles kernels ended with status 3"),
    ],
)
def test_workers_that_fail(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        workers.run([call, *[partial(pow, 2, 3)] * 3], 1)
    with pytest.raises(ValueError, match="processes must be at least 1, received 0"):
        workers.run([call], 0)


@needs_emulator
def test_planning_refuses_what_the_emulator_refuses() -> None:
    def step(x: cnn.Tensor) -> None:
        F.conv2d(x, np.ones((8, 3, 3, 3), np.float32), algorithm="implicit_gemm_wgmma")

    with pytest.raises(cnn.Unsupported, match="implicit_gemm_wgmma: takes float16 and bfloat16") as planned:
        plan(step, [SHAPE], True, "float32", None, "sm_90a")
    with using(get("emulator")), pytest.raises(cnn.Unsupported) as ran:
        step(cnn.Tensor(np.ones(SHAPE, np.float32)))
    assert str(planned.value) == str(ran.value)
