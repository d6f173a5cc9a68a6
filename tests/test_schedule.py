"""Learning rates by step: values by hand, and those of PyTorch's schedulers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from cnnengine import optim
from cnnengine.optim import schedule

STEPS = 20


def test_warmup_rises_to_its_rate() -> None:
    assert [schedule.warmup(1.0, step, 3) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert schedule.warmup(0.3, 0, 0) == 0.3


def test_warmup_cosine_rises_and_then_falls_over_the_rest() -> None:
    values = [optim.warmup_cosine(0.4, step, 24, 4, last=0.1) for step in range(25)]
    assert values[:4] == pytest.approx([0.08, 0.16, 0.24, 0.32])
    assert values[4] == 0.4
    assert values[14] == pytest.approx(0.25)
    assert values[24] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(values[4:]))
    assert [optim.warmup_cosine(0.4, step, 9, 0) for step in range(9)] == [optim.cosine(0.4, s, 9) for s in range(9)]


def test_values_by_hand() -> None:
    assert schedule.constant(0.3, 7) == 0.3
    assert [schedule.step_decay(1.0, step, 2, 0.5) for step in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert [schedule.multi_step(1.0, step, [1, 3], 0.5) for step in range(5)] == [1, 0.5, 0.5, 0.25, 0.25]
    assert [schedule.exponential(1.0, step, 0.5) for step in range(3)] == [1, 0.5, 0.25]
    assert [schedule.polynomial(1.0, step, 4) for step in range(6)] == [1, 0.75, 0.5, 0.25, 0, 0]
    assert schedule.polynomial(1.0, 2, 4, power=2, last=0.5) == 0.625
    cycle = [optim.one_cycle(1.0, step, 10, pct_start=0.5, div_factor=10, final_div_factor=2) for step in range(10)]
    assert cycle[0] == pytest.approx(0.1)
    assert cycle[2] == pytest.approx(0.55)
    assert cycle[4] == pytest.approx(1)
    assert cycle[9] == pytest.approx(0.05)


CASES: dict[str, tuple[Callable[[int], float], str, dict[str, Any]]] = {
    "step": (lambda s: schedule.step_decay(0.1, s, 3, 0.5), "StepLR", {"step_size": 3, "gamma": 0.5}),
    "multi_step": (lambda s: schedule.multi_step(0.1, s, (2, 9)), "MultiStepLR", {"milestones": [2, 9]}),
    "exponential": (lambda s: schedule.exponential(0.1, s, 0.9), "ExponentialLR", {"gamma": 0.9}),
    "polynomial": (
        lambda s: schedule.polynomial(0.1, s, STEPS, 2.0),
        "PolynomialLR",
        {"total_iters": STEPS, "power": 2.0},
    ),
    "cosine": (lambda s: schedule.cosine(0.1, s, STEPS), "CosineAnnealingLR", {"T_max": STEPS}),
    "one_cycle": (lambda s: schedule.one_cycle(0.1, s, STEPS), "OneCycleLR", {"max_lr": 0.1, "total_steps": STEPS}),
    "one_cycle_other": (
        lambda s: schedule.one_cycle(0.1, s, STEPS, 0.22, 10.0, 100.0),
        "OneCycleLR",
        {"max_lr": 0.1, "total_steps": STEPS, "pct_start": 0.22, "div_factor": 10.0, "final_div_factor": 100.0},
    ),
}


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")  # no optimizer steps here
@pytest.mark.parametrize("name", CASES)
def test_values_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    rate, scheduler, options = CASES[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    theirs = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options)
    for step in range(STEPS):
        assert rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15), step
        if step + 1 < STEPS:
            theirs.step()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule.warmup(1, 0, -1), "warmup: steps must be at least 0, received -1"),
        (lambda: schedule.warmup_cosine(1, 0, 4, 4), r"warmup_steps must lie in \[0, steps\), received 4 of 4"),
        (lambda: schedule.step_decay(1, 0, 0), "every must be at least 1, received 0"),
        (lambda: schedule.polynomial(1, 0, 0), "steps must be at least 1, received 0"),
        (lambda: schedule.one_cycle(1, 0, 1), "steps must be at least 2, received 1"),
        (lambda: schedule.one_cycle(1, 0, 5, 1.5), r"pct_start must lie in \[0, 1\]"),
        (lambda: schedule.one_cycle(1, 0, 5, 0.5, 0), "the factors be above 0"),
    ],
)
def test_what_cannot_be_is_refused(call: Callable[[], float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_ends_of_a_cycle_are_finite() -> None:
    for share in (0.0, 0.01, 1.0):
        values = [schedule.one_cycle(0.1, step, STEPS, share) for step in range(STEPS + 3)]
        assert all(math.isfinite(v) and 0 < v <= 0.1 + 1e-12 for v in values)
