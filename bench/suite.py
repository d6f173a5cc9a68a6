"""What a suite is made of: races. ``run.py`` times them interleaved; pytest-benchmark runs each contender by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from .contenders import Contender, contenders
from .task import Task, check_agreement

AS_SHIPPED = ", as shipped"  # ends the name of a contender that runs with malloc's own settings
SUITES = (  # bench/bench_NAME.py
    "lenet5",
    "overhead",
    "conv2d",
    "pool2d",
    "activation",
    "binary",
    "norm",
    "softmax_cross_entropy",
    "dropout",
    "normalize_images",
    "optimizer_step",
)


@dataclass(frozen=True, eq=False)
class Race:
    """Functions that do the same work. ``build`` makes them, by contender, checked against each other where they return
    something; ``flops`` and ``bytes`` are 0 where a roofline says nothing; ``items`` is images a call; ``absent`` gives
    the reason for each contender that is missing; ``streams``, as in ``Task``, tells the roofs measured beside it."""

    suite: str
    operation: str
    case: str
    device: str
    dtype: str
    names: tuple[str, ...]
    build: Callable[[tuple[str, ...]], dict[str, Callable[[], Any]]]
    flops: int = 0
    bytes: int = 0
    items: int = 0
    absent: dict[str, str] = field(default_factory=dict)
    streams: tuple[int, int] | None = None


def races(suite: str, device: str = "cpu", smoke: bool = False) -> list[Race]:
    """The races of ``bench/bench_SUITE.py``. Raises ValueError for an unknown suite."""
    if suite not in SUITES:
        raise ValueError(f"unknown suite {suite!r}; there are {', '.join(SUITES)}")
    found: list[Race] = import_module(f"bench.bench_{suite}").races(device, smoke)
    return found


def task_races(suite: str, tasks: list[Task], device: str, smoke: bool) -> list[Race]:
    """One race a task. ``smoke`` lets the simulators take part."""
    dtypes = ("float32", "bfloat16") if device == "cuda" else ("float32",)
    return [_task_race(suite, task.with_dtype(dtype), device, smoke) for task in tasks for dtype in dtypes]


def _task_race(suite: str, task: Task, device: str, smoke: bool) -> Race:
    everyone = contenders(task, device, simulators=smoke)
    absent = {c.name: reason for c in everyone if (reason := c.unavailable()) is not None}
    present = [c for c in everyone if c.name not in absent]
    return Race(
        suite,
        task.operation,
        task.case,
        device,
        task.dtype,
        tuple(c.name for c in present),
        _Builder(task, present),
        task.flops,
        task.bytes,
        absent=absent,
        streams=task.streams,
    )


class _Builder:
    """Prepares the named contenders for one task and checks that they agree; leaves out those without the operation."""

    def __init__(self, task: Task, present: list[Contender]) -> None:
        self._task, self._present = task, present

    def __call__(self, names: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
        prepared = {c.name: c.prepare(self._task) for c in self._present if c.name in names}
        entered = {name: p for name, p in prepared.items() if p is not None}
        return {name: p.run for name, p in check_agreement(self._task, entered).items()}


def run_alone(benchmark: Any, race: Race, contender: str) -> None:
    """One contender under pytest-benchmark."""
    import pytest  # here, so that the demo needs no test packages

    run = race.build((contender,)).get(contender)
    if run is None:
        pytest.skip(f"{contender} has no {race.operation} in {race.dtype}")
    benchmark(run)


def entries(suite: str, device: str, smoke: bool) -> Iterator[tuple[Race, str]]:
    """Every contender of every race, for pytest's parametrisation."""
    for race in races(suite, device, smoke):
        for name in race.names:
            yield race, name
