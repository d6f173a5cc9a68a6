"""Benchmarks of whole networks: races run small, who is missing is named, and what a run shows is read off its rows."""

from __future__ import annotations

import copy
import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench import bench_networks, cifar10_speed, requirements
from bench.bench_networks import NETWORKS, distance
from bench.contenders import networks as contenders
from bench.interleave import LONG_SECONDS, SMOKE, Budget, HostTimer, is_long, race
from bench.requirements_networks import TRAINING
from bench.suite import races
from cnnengine import backends
from cnnengine.models import names
from cnnengine.report.samples import Samples

from .harness import LONG

REASONS = backends.available()
needs_native = pytest.mark.skipif(
    REASONS["native"] is not None, reason=f"backend native is absent: {REASONS['native']}"
)
LIGHT = ("LeNet-5", "ViT-Ti")  # of inference; trained here: ResNet-18
HEAD = {"suite": "networks", "device": "cpu", "dtype": "float32", "calls": 1, "disturbed": []}


def run_small(chosen: Any) -> None:
    entries = [entry for entry in races("networks", smoke=True) if chosen(entry)]
    assert entries
    for entry in entries:
        steps = entry.build(entry.names)
        assert steps.keys() == set(entry.names), entry.left_out
        for step in steps.values():
            step()
        assert all(len(reason) > 10 for reason in entry.absent.values())


@needs_native
@pytest.mark.parametrize("title", LIGHT)
def test_small_networks_race_and_agree(title: str) -> None:
    run_small(lambda entry: entry.operation == "inference" and entry.case.startswith(title))


@needs_native
def test_a_training_step_races_and_agrees() -> None:
    run_small(lambda entry: entry.operation == "training step" and entry.case.startswith("ResNet-18"))


@LONG
@needs_native
def test_every_network_races_and_agrees() -> None:
    run_small(lambda entry: True)


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("coatnet_0", 32, {"image_size": 32, "depths": (1, 1, 1, 1)}),
        ("mobilevit_s", 64, {}),
        ("vit_tiny", 32, {"image_size": 32, "depth": 1}),
        ("efficientnet_lite0", 33, {}),
        ("efficientnet_lite0", 32, {}),
        ("resnet18", 32, {}),
    ],
)
def test_made_quick_pytorch_computes_the_same(name: str, side: int, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from bench.contenders.torch_quick import quick

    from .torch_models import coatnet, mobile, mobilevit, resnet, vit

    torch.manual_seed(0)
    plain = {
        "coatnet_0": lambda: coatnet.CoAtNet(False, 10, **options),
        "mobilevit_s": lambda: mobilevit.MobileViT(10),
        "vit_tiny": lambda: vit.VisionTransformer(192, 3, 10, **options),
        "efficientnet_lite0": lambda: mobile.EfficientNetLite(name, 10),
        "resnet18": lambda: resnet.ResNet(name, 10),
    }[name]().double()
    for parameter in plain.parameters():  # those that start as 0 too
        parameter.data += 0.02 * torch.randn_like(parameter)
    made = quick(copy.deepcopy(plain))
    assert {type(m) for m in made.modules()} != {type(m) for m in plain.modules()}
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        expected = plain.eval()(x)
        torch.testing.assert_close(made.eval()(x.clone()), expected, rtol=1e-10, atol=1e-10 * float(expected.std()))


def test_the_races_are_those_that_are_required() -> None:
    entries = races("networks")
    cases = {(entry.operation, entry.case) for entry in entries}
    assert {case for operation, case in cases if operation == "training step"} == set(TRAINING)
    assert {n.name for n in NETWORKS} <= set(names())
    assert {(n.title, b) for n in NETWORKS for b in n.inference} >= {(n.title, 1) for n in NETWORKS}
    on_gpu = [(entry.case, entry.dtype) for entry in races("networks", "cuda")]
    assert on_gpu == [
        (f"{title} batch 256", dtype) for title in ("ResNet-50", "EfficientNet-B0") for dtype in ("float16", "bfloat16")
    ]


def test_who_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    reason = contenders.absent("OpenVINO", "cpu")
    assert reason == "torch and openvino not installed: pip install cnnengine[networks]"


@needs_native
def test_one_that_differs_is_an_error_and_one_that_breaks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(values: dict[str, Any]) -> Any:
        def runner(name: str, work: Any) -> Any:
            if values[name] is None:
                raise RuntimeError(f"{name} has no such operation")
            return contenders.Runner(lambda: name, lambda: np.full((2, 3), values[name]))

        monkeypatch.setattr(bench_networks, "runner", runner)
        work = SimpleNamespace(network="planted", x=np.zeros(2))
        return bench_networks._Builder(lambda: work, 1e-3, tolerant=False)  # type: ignore[arg-type, return-value]

    builder = made({"native": 1.0, "ONNX Runtime": 1.0005, "OpenVINO": None})
    assert builder(("native", "ONNX Runtime", "OpenVINO")).keys() == {"native", "ONNX Runtime"}
    assert builder.left_out == {"OpenVINO": "RuntimeError: OpenVINO has no such operation"}
    with pytest.raises(ArithmeticError, match=r"OpenVINO differs from native by 5\.0e-01"):
        made({"native": 1.0, "OpenVINO": 1.5})(("native", "OpenVINO"))
    with pytest.raises(RuntimeError, match="native has no such operation"):
        made({"native": None})(("native",))


def test_distance_is_of_logits_or_of_each_number() -> None:
    assert distance(np.array([[3.0, 4.5]]), np.array([[3.0, 4.0]])) == pytest.approx(0.1)
    assert distance(np.array([1.0, 200.0]), np.array([1.1, 200.0])) == pytest.approx(0.1 / 1.1)
    assert distance(np.array([1.0, np.nan]), np.array([1.0, 1.0])) == np.inf


def test_what_takes_long_is_called_less_often() -> None:
    """Four times with two rounds: before anything, for the number of calls, and once a round; not the quick one."""
    calls = {"slow": 0, "quick": 0}

    class Clock(HostTimer):
        def seconds(self, run: Any, calls: int) -> float:
            name = run()
            return 2 * LONG_SECONDS if name == "slow" else 1e-2

    def step(name: str) -> Any:
        def run() -> str:
            calls[name] += 1
            return name

        return run

    race({name: step(name) for name in calls}, Budget(0.0, 2, 2), Clock())
    assert calls["slow"] == 1 + 1 + 2 + 1  # the first round has its uncounted call
    assert calls["quick"] == 1 + 3 + 2 + 2
    assert not is_long(Samples(1))
    assert not is_long(Samples(1, [1e3 * LONG_SECONDS]))
    assert is_long(Samples(10, [200 * LONG_SECONDS]))
    assert SMOKE.max_rounds == 1


def rows(operation: str, case: str, **milliseconds: float) -> list[dict[str, Any]]:
    return [
        {**HEAD, "operation": operation, "case": case, "contender": name.replace("_", " "), "milliseconds": [ms]}
        for name, ms in milliseconds.items()
    ]


def test_requirements_of_networks() -> None:
    measured = [
        *rows("training step", "ResNet-18 batch 16", native=10, PyTorch_nhwc=14, PyTorch_compiled=12),
        *rows("training step", "ViT-Ti batch 16", native=10, PyTorch_nhwc=11, PyTorch_compiled=13),
        *rows("inference", "ResNet-18 batch 1", native=3, native_graph=1, PyTorch_nhwc=4, ONNX_Runtime=2, OpenVINO=1.5),
        *rows("inference", "ResNet-18 batch 32", native_graph=10, PyTorch_nhwc=18, OpenVINO=13),
        *rows("inference", "LeNet-5 batch 1", native=1, native_graph=1, OpenVINO=0.5),
    ]
    (table,) = requirements.requirements_table(measured)
    assert "| ResNet-18 batch 16, training step | >= 1.3x PyTorch | 1.20x PyTorch compiled | **no** |" in table
    assert "| ViT-Ti batch 16, training step | >= 1x PyTorch | 1.10x PyTorch nhwc | yes |" in table
    assert "| AlexNet batch 16, training step | >= 1.3x PyTorch |  | not measured |" in table
    assert "each >= 0.9x the best of all | 0.50x OpenVINO (LeNet-5 batch 1), of 3 | **no** |" in table
    assert f"mean >= 1.2x the best of all | {(1.5 * 1.3) ** 0.5:.2f}x of 2 | yes |" in table
    assert (
        "ResNet-18 | each >= 1.4x the best of all | 1.50x (ResNet-18 batch 1), 1.30x (ResNet-18 batch 32) | **no**"
        in table
    )
    assert "LeNet-5 batch 64" not in table  # single operations were not run


@needs_native
def test_cifar10_runs_are_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "rows.jsonl"
    assert cifar10_speed.main(["--smoke", "--device", "cpu", "--runs", "2", "--output", str(output)]) == 0
    timed, absent = (json.loads(line) for line in output.read_text().splitlines())
    assert (timed["contender"], len(timed["milliseconds"]), len(timed["accuracy"])) == ("native", 2, 2)
    assert all(0 <= a <= 1 for a in timed["accuracy"])
    assert (absent["contender"], absent["absent"]) == ("airbench", "it needs a GPU")
    assert "mean accuracy" in capsys.readouterr().out


@pytest.mark.skipif(find_spec("airbench") is not None, reason="airbench is here")
def test_cifar10_names_the_missing_package() -> None:
    assert (cifar10_speed.missing() or "").startswith("airbench")


def test_cifar10_without_data_says_where_it_looked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--device", "cpu", "--data", str(tmp_path), "--output", str(tmp_path / "rows.jsonl")]
    assert cifar10_speed.main(command) == 2
    assert not (tmp_path / "rows.jsonl").exists()
    assert str(tmp_path) in capsys.readouterr().err or REASONS["native"]
