"""ReLU, forward and backward: pure memory traffic."""

from __future__ import annotations

from typing import Any

from bench import layers, task
from bench.suite import Race, layer_races, run_alone


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    return layer_races("activation", task.ACTIVATION, layers.ACTIVATION, device, smoke)


def test_activation(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
