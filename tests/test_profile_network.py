"""bench/profile_network.py: the table of a network's terms, and the clock that fills it."""

from __future__ import annotations

import time

import numpy as np
import pytest

import cnnengine as cnn
import cnnengine.functional as F
from bench import profile_network
from bench.profile_network import Clock, profile, profiled
from bench.steps import images_and_labels, training_step
from cnnengine import backends
from cnnengine.backends.registry import using


def test_a_training_step_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lenet5", "--batch", "2", "--training", "--backend", "numpy", "--steps", "2", "--top", "100"]
    assert profile_network.main(command) == 0
    text = capsys.readouterr().out
    assert text.startswith("lenet5, batch 2, training step on numpy")
    (forward,) = (line for line in text.splitlines() if "| conv2d_forward | 2x14x14 5x5 6>16 |" in line)
    assert forward.split(" | ")[2] == "1"
    (verb,) = (line for line in text.splitlines() if line.startswith("| conv2d_backward_weight | 2 |"))
    assert float(verb.split(" | ")[2]) > 0
    assert "| optimizer_step | 31 arrays sgd | 1 |" in text  # 10 parameters, gradients, velocities and the rates
    assert profile_network.OUTSIDE in text


def test_inference_has_no_backward(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile_network.main(["lenet5", "--batch", "1", "--backend", "numpy", "--steps", "1", "--top", "3"]) == 0
    text = capsys.readouterr().out
    assert "more (--top)" in text
    assert "backward" not in text


def test_terms_add_up_and_change_nothing() -> None:
    x, labels = images_and_labels(2, (28, 28, 1), 10)

    def losses(steps: int) -> list[float]:
        cnn.manual_seed(0)
        step = training_step(cnn.models.lenet5(), cnn.Tensor(x), labels)
        return [step().item() for _ in range(steps)]

    with cnn.use_backend("numpy") as backend:
        plain, clock = losses(3), Clock()
        with using(profiled(backend, clock)):
            assert losses(3) == plain
        found = profile(training_step(cnn.models.lenet5(), cnn.Tensor(x), labels), backend, steps=1, warm_up=0)
    (call,) = (c for c in clock.terms if c.what == "2x28x28 5x5 1>6" and c.verb == "conv2d_backward_weight")
    assert clock.terms[call].calls == 3
    assert call.flops == 2 * 2 * 28 * 28 * 6 * 25
    assert call.bytes == 4 * (2 * 28 * 28 + 2 * 28 * 28 * 6 + 6 * 25)
    assert sum(term.milliseconds for term, *_ in found.by_verb().values()) == pytest.approx(found.milliseconds)


def test_a_verb_made_of_others_keeps_its_own_time_only() -> None:
    class Slow:
        def synchronize(self) -> None:
            pass

    clock, backend = Clock(), Slow()

    def outer() -> None:
        time.sleep(0.01)
        clock.timed(backend, "fill", time.sleep, (0.05,))

    clock.timed(backend, "cast", outer, ())
    by_verb = {call.verb: term.milliseconds for call, term in clock.terms.items()}
    assert by_verb["fill"] >= 50
    assert 10 <= by_verb["cast"] < 40  # of 60 in all


def test_a_fused_verb_shows_its_parts() -> None:
    """On a backend that composes it, as its notes say."""
    x = cnn.Tensor(np.ones((1, 4, 4, 2), np.float32))
    w = cnn.Tensor(np.ones((3, 1, 1, 2), np.float32))
    clock = Clock()
    with using(profiled(backends.get("numpy"), clock)):
        F.conv2d_batch_norm(x, w, None, None, cnn.Tensor(np.ones(3, np.float32)), None, training=True)
    verbs = {call.verb for call in clock.terms}
    assert {"conv2d_norm_forward", "conv2d_forward", "norm_forward"} <= verbs
