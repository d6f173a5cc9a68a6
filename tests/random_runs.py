"""One random case on the native backend: every instruction set, every algorithm that computes it, against one run of
the float64 oracle; and the tally of what has been run, which `make fuzz` prints."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings

from cnnengine.backends.contract import Backend
from cnnengine.errors import Unsupported

from .compare import assert_close, assert_identical
from .harness import oracle, root_of_squares, run_verb, used_algorithm

FUZZ = int(os.environ.get("CNNENGINE_FUZZ", "0"))  # examples a test; 0: the share that every test run has
# the same examples in every test run; `make fuzz` draws new ones
RANDOM = settings(
    max_examples=FUZZ or 200,
    deadline=None,
    derandomize=not FUZZ,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=True,
)
Call = Callable[[Backend, str | None], Callable[..., None]]


class Tally:
    """Distinct shapes by verb, and runs by verb, instruction set and algorithm."""

    def __init__(self) -> None:
        self.shapes: dict[str, set[Any]] = {}
        self.runs: Counter[tuple[str, str, str]] = Counter()

    def lines(self) -> list[str]:
        """Markdown"""
        lines = ["| verb | shapes | instruction set | algorithm | runs | failures |", "|---|--:|---|---|--:|--:|"]
        for (verb, isa, algorithm), runs in sorted(self.runs.items()):
            lines.append(f"| {verb} | {len(self.shapes[verb])} | {isa} | {algorithm} | {runs} | 0 |")
        return lines


TALLY = Tally()


def every_isa() -> Iterator[str]:
    """Each instruction set of this CPU in turn; then the one that was in use."""
    from cnnengine import _native

    before = _native.isa()
    try:
        for name in _native.isas():
            _native.set_isa(name)
            yield name
    finally:
        _native.set_isa(before)


def runs_of(verb: str, shape: Any) -> Iterator[str]:
    """What is being run, once for each instruction set, which is set meanwhile."""
    TALLY.shapes.setdefault(verb, set()).add(shape)
    for isa in every_isa():
        yield f"{verb} {isa} {shape}"
        TALLY.runs[verb, isa, "its own choice"] += 1


def check_everywhere(
    verb: str,
    shape: Any,
    native: Backend,
    call: Call,
    arrays: Sequence[np.ndarray],
    out: Sequence[int],
    reduction: int,
    squares: Call | None = None,
) -> None:
    """``call(backend, algorithm)(*arrays, y)`` with the backend's own choice and each of its algorithms, everywhere.

    ``squares`` is the same sum without what is no sum (an activation): over squared inputs it gives the squares of all
    terms, which is what the comparator goes by. Raises AssertionError.
    """
    (expected,) = run_verb(oracle(), call(oracle(), None), arrays, [(out, "float64")], "oracle")
    terms = root_of_squares((squares or call)(oracle(), None), arrays, out)
    TALLY.shapes.setdefault(verb, set()).add(shape)
    for isa in every_isa():
        for algorithm in (None, *native.algorithms.get(verb, ())):
            what = f"{verb} {isa} {algorithm} {shape}"
            try:
                (actual,) = run_verb(native, call(native, algorithm), arrays, [(out, "float32")], what)
            except Unsupported:
                assert algorithm is not None, f"{what}: the backend's own choice refused"
                continue
            TALLY.runs[verb, isa, algorithm or "its own choice"] += 1
            assert_close(actual, expected, reduction, what, terms, used_algorithm(native, verb, shape, algorithm))


def check_identical(
    verb: str,
    shape: Any,
    native: Backend,
    call: Callable[[Backend], Callable[..., None]],
    arrays: Sequence[Any],
    outputs: Sequence[tuple[Sequence[int], Any]],
) -> None:
    """The oracle's bits on every instruction set. Raises AssertionError."""
    expected = run_verb(oracle(), call(oracle()), arrays, outputs, "oracle")
    for what in runs_of(verb, shape):
        for a, e in zip(run_verb(native, call(native), arrays, outputs, what), expected, strict=True):
            assert_identical(a, e, what)
