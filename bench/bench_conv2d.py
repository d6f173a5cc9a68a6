"""The three convolution passes on the layer list: ours against NumPy (im2col), PyTorch and, on a GPU, cuDNN."""

from __future__ import annotations

from typing import Any

from bench import layers, task
from bench.suite import Race, layer_races, run_alone


def races(device: str = "cpu", smoke: bool = False) -> list[Race]:
    return layer_races("conv2d", task.CONV2D, layers.CONV2D, device, smoke)


def test_conv2d(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
