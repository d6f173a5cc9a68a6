"""Which backends the tests run on, said aloud: each is either tested or named with the reason why it is not.

``CNNENGINE_TEST_BACKENDS=cuda,numba`` restricts the run; ``CNNENGINE_REQUIRE_BACKENDS=numpy,native`` makes an absence
fail.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("CNNENGINE_CACHE", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "kernels"))

if EXTENSION := os.environ.get("CNNENGINE_TEST_EXTENSION"):  # another build of cnnengine._native (sanitize.py)
    spec = spec_from_file_location("cnnengine._native", EXTENSION)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])

import cnnengine as cnn
from cnnengine import backends
from cnnengine.backends.contract import Backend
from cnnengine.backends.numba import simulated
from cnnengine.backends.registry import NAMES

CHOSEN = [name for name in os.environ.get("CNNENGINE_TEST_BACKENDS", ",".join(NAMES)).split(",") if name]
REASONS = backends.available()
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"  # real data beside a checkout, where there is any

LONGEST = (
    "test_cuda_sanitizers.py",
    "test_nvrtc.py",
    "test_cuda_race.py",
    "test_conv2d.py",
    "test_launch.py",
    "test_sanitizers.py",
    "test_numba_compile.py",
    "test_cuda_random.py",
    "test_gpu_run.py",
)


def pytest_configure(config: pytest.Config) -> None:
    # a script's background jobs begin with it ignored, and what tests start and interrupt would too
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "numba" in CHOSEN and REASONS["numba"] is None and simulated() and "numba" not in sys.modules:
        from . import numba_simulator

        numba_simulator.install()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that last longest first: what begins last ends alone."""
    position = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: position.get(item.path.name, len(LONGEST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The list of backends, at the end, where a quiet run shows it too."""
    terminalreporter.section("backends")
    for name in NAMES:
        state = "present" if REASONS[name] is None else f"absent: {REASONS[name]}"
        chosen = "" if name in CHOSEN else " (not chosen by CNNENGINE_TEST_BACKENDS)"
        terminalreporter.write_line(f"{name:9s} {state}{chosen}")
    if "CNNENGINE_FUZZ" in os.environ:
        from .random_runs import TALLY

        terminalreporter.section("random runs")
        for line in TALLY.lines():
            terminalreporter.write_line(line)


@pytest.fixture(params=CHOSEN)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, active for its device."""
    name = request.param
    if REASONS[name] is not None:
        pytest.skip(f"backend {name} is absent: {REASONS[name]}")
    with cnn.use_backend(name) as chosen:
        yield chosen


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers that depend on the test's name alone."""
    return np.random.default_rng(list(request.node.name.encode()))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference outputs; tests that want it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real data and reference outputs is not beside this checkout")
    return SHARED
