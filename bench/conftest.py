"""pytest-benchmark over the suites: ``pytest bench`` times each contender by itself, ``--smoke`` only runs everything
once, small, on every backend. For figures to quote use ``bench/run.py``, which interleaves."""

from __future__ import annotations

from typing import Any

import pytest

from bench.provenance import provenance, usable_cores
from bench.suite import entries


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--smoke", action="store_true", help="tiny sizes, simulators included")
    parser.addoption("--device", default="cpu", choices=("cpu", "cuda"), help="where to time (default: cpu)")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if {"race", "contender"} <= set(metafunc.fixturenames):
        suite = metafunc.module.__name__.removeprefix("bench.").removeprefix("bench_")
        pairs = list(entries(suite, metafunc.config.getoption("device"), metafunc.config.getoption("smoke")))
        ids = [f"{race.operation}-{race.case}-{race.dtype}-{name}".replace(" ", "_") for race, name in pairs]
        metafunc.parametrize(("race", "contender"), pairs, ids=ids)


@pytest.fixture(autouse=True)
def _describe(request: pytest.FixtureRequest) -> None:
    """Groups a race's contenders in pytest-benchmark's tables and notes the work beside the times."""
    if {"benchmark", "race"} <= set(request.fixturenames):
        benchmark, race = request.getfixturevalue("benchmark"), request.getfixturevalue("race")
        benchmark.group = f"{race.operation} {race.case}"
        benchmark.extra_info.update(flops=race.flops, bytes=race.bytes, dtype=race.dtype, device=race.device)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """pytest-benchmark's saved files carry the same provenance as ours, and no host name."""
    machine_info.clear()
    machine_info.update(provenance(len(usable_cores())))
