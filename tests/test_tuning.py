"""Measured choices of algorithms: with a clock and a backend that are planted, the choice is determined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from cnnengine import backends, tuning
from cnnengine.errors import Unsupported
from cnnengine.shapes import Conv2dShape, conv2d_shape
from cnnengine.tuning import SAMPLES, Tuner, host_timer

SHAPE = conv2d_shape((1, 6, 6, 2), (3, 3, 3, 2))
LARGE = conv2d_shape((8, 64, 64, 32), (64, 3, 3, 32))
VERB = "conv2d_forward"


class Planted:
    """A backend whose algorithms take the given seconds on its own clock; None refuses the shape."""

    name, now = "planted", 0.0

    def __init__(self, **seconds: float | None) -> None:
        self.seconds, self.calls = seconds, []  # type: ignore[var-annotated]
        self.algorithms = dict.fromkeys(("conv2d_forward", "conv2d_backward_input"), tuple(seconds))

    def run(self, shape: Conv2dShape, a: Any, b: Any, y: Any, *rest: Any) -> None:
        taken = self.seconds[rest[-1]]
        if taken is None:
            raise Unsupported("planted")
        self.calls.append(rest[-1])
        self.now += taken

    conv2d_forward = conv2d_backward_input = run

    def to_device(self, a: np.ndarray) -> np.ndarray:
        return a

    def synchronize(self) -> None:
        pass


def tuner(folder: Path, backend: Planted, machine: str | None = "machine") -> Tuner:
    return Tuner(folder / "cache" / "autotune.json", lambda _: machine, host_timer(lambda: backend.now))


def test_the_quickest_is_chosen_once(tmp_path: Path) -> None:
    backend = Planted(direct=3.0, gemm=1.0, winograd=2.0, columns=None)
    tuned = tuner(tmp_path, backend)
    assert tuned.choice(backend, VERB, SHAPE) == "gemm"
    calls = len(backend.calls)
    assert tuned.choice(backend, VERB, SHAPE) == "gemm"
    assert len(backend.calls) == calls
    assert tuned.choice(backend, "conv2d_backward_input", SHAPE) == "gemm"
    assert len(backend.calls) > calls


def test_a_hopeless_algorithm_is_sampled_once(tmp_path: Path) -> None:
    backend = Planted(gemm=1.0, slow=10.0)
    tuner(tmp_path, backend).choice(backend, VERB, SHAPE)
    assert backend.calls.count("gemm") == SAMPLES + 1  # and the first, uncounted
    assert backend.calls.count("slow") == 2


def test_the_definition_is_not_tried_on_large_shapes_nor_the_less_accurate_ever(tmp_path: Path) -> None:
    backend = Planted(direct=1.0, winograd_6x6=1.0, gemm=2.0)
    tuned = tuner(tmp_path, backend)
    assert tuned.choice(backend, VERB, LARGE) == "gemm"
    assert set(backend.calls) == {"gemm"}
    assert tuned.choice(backend, VERB, SHAPE) == "direct"
    assert "winograd_6x6" not in backend.calls


def test_another_process_finds_the_choice(tmp_path: Path) -> None:
    first, second = Planted(gemm=1.0, other=2.0), Planted(gemm=2.0, other=1.0)
    assert tuner(tmp_path, first).choice(first, VERB, SHAPE) == "gemm"
    assert tuner(tmp_path, second).choice(second, VERB, SHAPE) == "gemm"
    assert second.calls == []
    elsewhere = Tuner(tmp_path / "cache" / "autotune.json", lambda _: "another machine", host_timer(lambda: second.now))
    assert elsewhere.choice(second, VERB, SHAPE) == "other"
    assert tuner(tmp_path, second).choice(second, VERB, SHAPE) == "gemm"  # nothing was lost


def test_two_processes_add_to_one_file(tmp_path: Path) -> None:
    backend = Planted(gemm=1.0)
    first, second = tuner(tmp_path, backend), tuner(tmp_path, backend)
    first.choice(backend, VERB, SHAPE)
    second.choice(backend, VERB, LARGE)
    first.choice(backend, "conv2d_backward_input", SHAPE)
    choices = json.loads((tmp_path / "cache" / "autotune.json").read_text())["choices"]
    assert len(choices["machine"]) == 3
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / "autotune.json"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 1, "choices": {}}', '{"format": 2, "choices": 3}', '{"format": 2}']
)
def test_a_damaged_file_is_measured_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cache" / "autotune.json"
    path.parent.mkdir()
    path.write_text(content)
    backend = Planted(gemm=1.0)
    assert tuner(tmp_path, backend).choice(backend, VERB, SHAPE) == "gemm"
    assert json.loads(path.read_text())["choices"]


def test_a_choice_that_no_longer_exists_is_measured_anew(tmp_path: Path) -> None:
    old, new = Planted(gone=1.0), Planted(gemm=1.0)
    tuner(tmp_path, old).choice(old, VERB, SHAPE)
    assert tuner(tmp_path, new).choice(new, VERB, SHAPE) == "gemm"


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    backend = Planted(gemm=1.0)
    tuned = tuner(tmp_path, backend)
    with pytest.warns(RuntimeWarning, match=r"autotune\.json cannot be written"):
        assert tuned.choice(backend, VERB, SHAPE) == "gemm"
    assert tuned.choice(backend, VERB, LARGE) == "gemm"


def test_a_backend_without_choices_keeps_its_own(tmp_path: Path) -> None:
    backend = Planted(gemm=1.0)
    assert tuner(tmp_path, backend, machine=None).choice(backend, VERB, SHAPE) is None
    assert backend.calls == []
    assert tuning.machine(SimpleNamespace(name="numpy")) is None  # type: ignore[arg-type]


needs_native = pytest.mark.skipif(backends.available()["native"] is not None, reason="the native backend is absent")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The verbs that the tuner is asked for; it answers "direct"."""
    verbs: list[str] = []

    def choice(backend: Any, verb: str, shape: Conv2dShape, dtype: Any) -> str:
        verbs.append(verb)
        return "direct"

    monkeypatch.setattr(tuning, "choice", choice)
    with cnn.use_backend("native"):
        yield verbs
    assert not tuning.on


def tensors() -> tuple[cnn.Tensor, cnn.Tensor]:
    x = cnn.Tensor(np.ones((1, 4, 4, 1), np.float32))
    return x, cnn.Tensor(np.ones((1, 3, 3, 1), np.float32), requires_grad=True)


@needs_native
def test_off_unless_asked_for(asked: list[str]) -> None:
    F.conv2d(*tensors())
    assert asked == []
    with cnn.autotune():
        F.conv2d(*tensors())
    assert asked == ["conv2d_forward", "conv2d_backward_weight"]  # x wants no gradient
    F.conv2d(*tensors())
    assert len(asked) == 2
    cnn.autotune()
    with cnn.autotune(False):
        F.conv2d(*tensors())
    assert len(asked) == 2
    F.conv2d(*tensors())
    assert len(asked) == 4
    cnn.autotune(False)


@needs_native
def test_what_is_named_comes_first(asked: list[str]) -> None:
    with cnn.autotune():
        F.conv2d(*tensors(), algorithm="implicit_gemm")
        with cnn.algorithms(conv2d_forward="implicit_gemm", conv2d_backward_weight="direct"):
            F.conv2d(*tensors())
    assert asked == []


@needs_native
def test_native_choices_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Tuner(tmp_path / "autotune.json", tuning.machine)
    monkeypatch.setattr(tuning, "_tuner", lambda: own)
    x, w = tensors()
    with cnn.use_backend("native"):
        expected = F.conv2d(x, w).numpy()
        with cnn.autotune():
            y = F.conv2d(x, w)
            y.sum().backward()
            packed = F.conv2d_prepare(x.shape, w)
            np.testing.assert_allclose(F.conv2d(x, packed).numpy(), expected)
    np.testing.assert_allclose(y.numpy(), expected)
    (choices,) = json.loads((tmp_path / "autotune.json").read_text())["choices"].values()
    assert {name.split(":")[0] for name in choices} == {"conv2d_forward", "conv2d_backward_weight"}
