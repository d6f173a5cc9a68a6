"""Every rung of the convolution on a GPU, C++ and Numba, on a layer of each kind at a batch that the slowest bear. The
rungs that round to TF32 race by themselves: they compute something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.bench_conv2d import TF32_RUNG, tasks
from bench.layers import CONV2D
from bench.suite import Race, run_alone, task_races
from bench.task import TF32
from cnnengine.backends._conv2d_plans import ALGORITHMS

LAYERS = ("r50 3x3 64>64 @56", "r50 1x1 256>128 @56", "eff dw3x3 480 @14", "r50.conv1 7x7/2 3>64 @224")
RUNGS = tuple(name for name in ALGORITHMS if name != TF32_RUNG)


def races(device: str = "cuda", smoke: bool = False) -> list[Race]:
    layers = [layer for layer in CONV2D if layer.name in LAYERS]
    return [
        race
        for dtype in ("float32", "float16", TF32)
        for race in task_races(
            "ladder",
            [replace(task, backends=("cuda", "numba")) for task in tasks(device, smoke, dtype, layers, RUNGS)],
            device,
            smoke,
            (dtype,),
        )
    ]


def test_ladder(benchmark: Any, race: Race, contender: str) -> None:
    run_alone(benchmark, race, contender)
