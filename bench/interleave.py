"""Timing several functions against each other on one machine that others use too.

All contenders are timed in rounds, in a new random order each round, so that a slow minute hits all of them. At every
switch there is a short pause (the last one's worker threads stop spinning) and an uncounted call; functions that take
long do without it behind the first round, since no cache holds what they read. A sample repeats the function until it
lasts about two milliseconds. All samples are kept; one during which a thread of this process stood in the run queue
(another process had the core) or the hypervisor took a core away is marked as disturbed; medians go by the others as
long as there are five. What is compared are ratios within a round, by their median. A contender may live in another
process (``remote.py``) or be a roof of the machine (``peaks.py``).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Protocol

from cnnengine.report.samples import Samples

from .provenance import usable_cores

PAUSE_SECONDS = 0.005
SAMPLE_SECONDS = 2e-3
LONG_SECONDS = 0.2  # a sample that makes an uncounted call before it pointless
DISTURBED_SHARE = 0.02  # of the sample's time spent waiting for a core


@dataclass(frozen=True)
class Budget:
    """How long one race may take. Rounds stop at ``seconds``, but not before ``min_rounds``."""

    seconds: float = 4.0
    min_rounds: int = 5
    max_rounds: int = 200


SMOKE = Budget(seconds=0.0, min_rounds=1, max_rounds=1)


class Timer(Protocol):
    """``calls``: how many calls make one sample (the function is warm afterwards). ``seconds``: seconds per call."""

    name: str

    def calls(self, run: Callable[[], object]) -> int: ...
    def seconds(self, run: Callable[[], object], calls: int) -> float: ...


class HostTimer:
    """The wall clock, for functions that return when they are done."""

    name = "wall clock"

    def calls(self, run: Callable[[], object]) -> int:
        once = self.seconds(run, 1)
        if once < LONG_SECONDS:
            once = min(self.seconds(run, 1) for _ in range(2))
        return max(1, ceil(SAMPLE_SECONDS / max(once, 1e-9)))

    def seconds(self, run: Callable[[], object], calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            run()
        return (time.perf_counter() - start) / calls


class Sampler(Protocol):
    """A contender of a race: ``calls`` per sample, an uncounted call, and a sample: the seconds per call and whether
    others disturbed it."""

    def calls(self) -> int: ...
    def warm_up(self) -> object: ...
    def sample(self, calls: int) -> tuple[float, bool]: ...


class Local:
    """A function of this process under a timer."""

    def __init__(self, run: Callable[[], object], timer: Timer) -> None:
        self.warm_up, self._timer = run, timer

    def calls(self) -> int:
        return self._timer.calls(self.warm_up)

    def sample(self, calls: int) -> tuple[float, bool]:
        return watched(lambda: self._timer.seconds(self.warm_up, calls), calls)


def watched(seconds: Callable[[], float], calls: int) -> tuple[float, bool]:
    """What ``seconds`` returns, and whether others held a core for a noticeable share of that time."""
    lost = lost_seconds()
    each = seconds()
    return each, lost_seconds() - lost > DISTURBED_SHARE * each * calls


def race(
    contenders: Mapping[str, Callable[[], object] | Sampler],
    budget: Budget,
    timer: Timer | None = None,
    seed: int = 0,
) -> dict[str, Samples]:
    """Times every contender in interleaved rounds; the order is random, but the same for the same seed."""
    order = random.Random(seed)
    clock = timer or HostTimer()
    entered = {name: Local(c, clock) if callable(c) else c for name, c in contenders.items()}
    samples: dict[str, Samples] = {}
    with PinnedThreads() as pins:
        for name, contender in entered.items():
            contender.warm_up()
            pins.adopt()
            samples[name] = Samples(contender.calls())
        pins.settle()
        names, end = list(entered), time.perf_counter() + budget.seconds
        for finished in range(budget.max_rounds):
            if finished >= budget.min_rounds and time.perf_counter() > end:
                break
            order.shuffle(names)
            for name in names:
                time.sleep(PAUSE_SECONDS)
                if not is_long(samples[name]):
                    entered[name].warm_up()
                seconds, disturbed = entered[name].sample(samples[name].calls)
                samples[name].milliseconds.append(1e3 * seconds)
                samples[name].disturbed.append(disturbed)
    return samples


def is_long(samples: Samples) -> bool:
    """Whether the last sample was."""
    last = samples.milliseconds[-1:]
    return bool(last) and 1e-3 * last[0] * samples.calls > LONG_SECONDS


def lost_seconds() -> float:
    """What others have taken so far: the time this process's threads stood in a run queue, together, and the time the
    hypervisor kept a core for itself (counted by the system in hundredths of a second); 0 where it does not tell."""
    return _waited_seconds() + _stolen_seconds()


def _stolen_seconds() -> float:
    try:
        fields = Path("/proc/stat").read_text().split(maxsplit=9)
        return int(fields[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def _waited_seconds() -> float:
    total = 0
    for thread in _threads():
        try:
            total += int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1])
        except (OSError, IndexError):
            continue  # a thread that has just ended
    return 1e-9 * total


class PinnedThreads:
    """Keeps this thread on the first core and every library's worker threads on the others, so that no two spinning
    threads of one library share a core: a library with n - 1 workers beside its caller is what n cores suggest. On
    leaving all may run anywhere again. Where affinity cannot be set it does nothing."""

    def __init__(self) -> None:
        self.cores = usable_cores()
        self.possible = hasattr(os, "sched_setaffinity") and len(self.cores) > 1
        self.own = threading.get_native_id()
        self.pinned: list[int] = []

    def __enter__(self) -> PinnedThreads:
        self.adopt()
        return self

    def adopt(self) -> None:
        """Pins the workers made since the last call, in the order they were made, the second core first."""
        workers = sorted(set(_threads()) - {self.own, *self.pinned})
        for i, thread in enumerate(workers):
            self._pin(thread, [self.cores[1 + i % (len(self.cores) - 1)]] if self.possible else self.cores)
        self.pinned += workers

    def settle(self) -> None:
        """Pins this thread; before, threads that it makes may still count its cores."""
        self._pin(self.own, self.cores[:1])

    def __exit__(self, *exception: object) -> None:
        for thread in (self.own, *self.pinned):
            self._pin(thread, self.cores)

    def _pin(self, thread: int, cores: list[int]) -> None:
        if not self.possible:
            return
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:
            return  # the thread has just ended
        except OSError:
            self.possible = False


def _threads() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/task")]
    except OSError:
        return []
