"""What a suite is made of: races. ``run.py`` times them interleaved; pytest-benchmark runs each contender by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from .contenders import Contender, contenders
from .task import Prepared, Task, check_agreement, summary

CUDA_DTYPES = ("float16", "bfloat16", "float32")
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
CUDA_SUITES = ("conv2d_bias_relu", "ladder")  # on a GPU alone
LONG_SUITES = ("networks",)  # run where they are named


@dataclass(frozen=True, eq=False)
class Race:
    """Functions that do the same work. ``build`` makes them, by contender, checked against each other where they return
    something; ``flops`` and ``bytes`` are 0 where a roofline says nothing; ``items`` is images a call; ``absent`` gives
    the reason for each contender that is missing; ``streams``, as in ``Task``, tells the roofs measured beside it.
    ``build`` adds to ``notes`` what belongs into a contender's row, to ``left_out`` why one that was made is not timed.
    """

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
    notes: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def races(suite: str, device: str = "cpu", smoke: bool = False) -> list[Race]:
    """The races of ``bench/bench_SUITE.py``. Raises ValueError for an unknown suite."""
    known = (*SUITES, *LONG_SUITES, *(CUDA_SUITES if device == "cuda" else ()))
    if suite not in known:
        raise ValueError(f"unknown suite {suite!r}; on device {device} there are {', '.join(known)}")
    found: list[Race] = import_module(f"bench.bench_{suite}").races(device, smoke)
    return found


def task_races(
    suite: str, tasks: list[Task], device: str, smoke: bool, dtypes: tuple[str, ...] | None = None
) -> list[Race]:
    """One race a task and dtype. ``smoke`` lets the simulators take part."""
    dtypes = dtypes or (CUDA_DTYPES if device == "cuda" else ("float32",))
    return [_task_race(suite, task.with_dtype(dtype), device, smoke) for task in tasks for dtype in dtypes]


def _task_race(suite: str, task: Task, device: str, smoke: bool) -> Race:
    everyone = contenders(task, device, simulators=smoke)
    absent = {c.name: reason for c in everyone if (reason := c.unavailable()) is not None}
    present = [c for c in everyone if c.name not in absent]
    builder = _Builder(task, present, tolerant=device == "cuda")
    return Race(
        suite,
        task.operation,
        task.case,
        device,
        task.dtype,
        tuple(c.name for c in present),
        builder,
        task.flops,
        task.bytes,
        absent=absent,
        streams=task.streams,
        notes=builder.notes,
        left_out=builder.left_out,
    )


class _Builder:
    """Prepares the named contenders for one task and checks that they agree; leaves out those without the operation.
    ``tolerant``: one that breaks or is wrong is left out too, instead of ending the race."""

    def __init__(self, task: Task, present: list[Contender], tolerant: bool) -> None:
        self._task, self._present, self._tolerant = task, present, tolerant
        self.notes: dict[str, Mapping[str, Any]] = {}
        self.left_out: dict[str, str] = {}

    def __call__(self, names: tuple[str, ...]) -> dict[str, Callable[[], Any]]:
        self.left_out.clear()
        entered = {}
        for contender in self._present:
            prepared = self._prepared(contender) if contender.name in names else None
            if prepared is not None:
                entered[contender.name] = prepared
        agreeing = check_agreement(self._task, entered, self.left_out if self._tolerant else None)
        self.notes.update({name: p.notes for name, p in agreeing.items()})
        return {name: p.run for name, p in agreeing.items()}

    def _prepared(self, contender: Contender) -> Prepared | None:
        try:
            return contender.prepare(self._task)
        except Exception as error:
            if not self._tolerant:
                raise
            self.left_out[contender.name] = summary(error)
            return None


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
