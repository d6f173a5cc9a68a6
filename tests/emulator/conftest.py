"""Every way in which the emulator runs a kernel: builds with both fiber switches and the checker, schedules, cores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cnnengine.errors import BackendUnavailable
from cnnengine.jit.host import compiler

from .machine import SCHEDULES, Machine, machine

try:
    compiler()
    NO_COMPILER = None
except BackendUnavailable as error:
    NO_COMPILER = str(error)

UCONTEXT = ("-O1", "-DCNN_EMULATOR_UCONTEXT")
VARIANTS = {"assembly": (False, ("-O1",)), "ucontext": (False, UCONTEXT), "race": (True, ("-O1",))}
Choose = Callable[[str], Machine]


@pytest.fixture(autouse=True)
def _compiler() -> None:
    if NO_COMPILER is not None:
        pytest.skip(NO_COMPILER)


@pytest.fixture(params=SCHEDULES, ids=("forward", "reverse", "random"))
def schedule(request: pytest.FixtureRequest) -> int:
    return request.param


# the race build runs its blocks on one core
WAYS = [(name, cores) for name, (race, _) in VARIANTS.items() for cores in ((1,) if race else (1, 2))]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}_{way[1]}")
def emulate(request: pytest.FixtureRequest, schedule: int) -> Choose:
    """The machine for a file of kernels, in this variant, number of cores and schedule."""
    name, cores = request.param
    race, flags = VARIANTS[name]

    def choose(file: str) -> Machine:
        chosen = machine(file, race, flags)
        chosen.module.configure(schedule, cores)
        return chosen

    return choose


@pytest.fixture
def checked(schedule: int) -> Choose:
    """The race build, which names every planted bug, in this schedule."""

    def choose(file: str) -> Machine:
        chosen = machine(file, race=True)
        chosen.module.configure(schedule, 1)
        return chosen

    return choose


@pytest.fixture
def plain(schedule: int) -> Choose:
    """The ordinary build, in this schedule."""

    def choose(file: str) -> Machine:
        chosen = machine(file)
        chosen.module.configure(schedule, 1)
        return chosen

    return choose
