"""Max-pooling, forward and backward, with the index that training needs."""

from __future__ import annotations

from typing import Any

from bench import layers, task
from bench.suite import Race, layer_races, run_alone


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    return layer_races("pool2d", task.POOL, layers.POOL, device, smoke)


def test_pool2d(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
