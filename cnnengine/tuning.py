"""``cnn.autotune()``: which algorithm is the quickest for a shape, found by timing each once, and remembered.

Without it a backend chooses by rule from the shape (docs/kernels/conv2d-cpu.md). With it the first call of a verb with
a shape that names no ``algorithm`` times those that can compute it, on random arrays of that shape, and every later
call uses the quickest. Choices are kept in a file, so that the next process finds them: for the same file the same
kernels run and results have the same bits. Measured once per verb, shape, instruction set and number of threads.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import Any

import numpy as np

from .backends.contract import IDENTITY, Backend
from .backends.winograd import winograd_allowed
from .errors import Unsupported
from .jit.cache import default_folder
from .shapes import Conv2dShape

SAMPLES = 5  # of each algorithm; the least counts
HOPELESS = 3.0  # an algorithm whose first sample takes this many times the best is not sampled again
DIRECT_FLOPS = 10**8  # beyond which the definition is not tried: seconds for what takes others milliseconds
FORMAT = 1
on = False  # what functional asks before anything else
_lock = RLock()


class autotune:  # called like a function
    """From now on, in the whole process, calls that name no algorithm use the one that was measured to be the quickest:
    ``cnn.autotune()``. ``cnn.autotune(False)`` ends that; ``with cnn.autotune(): ...`` ends it after the block.

    ``algorithm=`` of a call and ``cnn.algorithms(...)`` come first. Winograd's convolution over 6x6 outputs, which is
    less accurate, is never chosen, nor any where ``cnn.allow_winograd(False)`` forbids it. The native backend has
    choices to make; the others keep their own.
    """

    def __init__(self, enabled: bool = True) -> None:
        global on
        self._before = on
        on = bool(enabled)

    def __enter__(self) -> autotune:
        return self

    def __exit__(self, *exception: object) -> None:
        global on
        on = self._before


class Tuner:
    """Choices by (machine, verb, shape), in memory and, where ``path`` can be written, in a JSON file."""

    def __init__(
        self, path: Path, machine: Callable[[Backend], str | None], clock: Callable[[], float] = perf_counter
    ) -> None:
        self.path = path
        self._machine, self._clock = machine, clock
        self._chosen: dict[tuple[str, str, Conv2dShape], str] = {}
        self._known: dict[str, dict[str, str]] | None = None  # the file: machine -> verb and shape -> algorithm

    def choice(self, backend: Backend, verb: str, shape: Conv2dShape) -> str | None:
        """The algorithm to use; None: the backend's own choice."""
        machine = self._machine(backend)
        if machine is None:
            return None
        key = machine, verb, shape
        chosen = self._chosen.get(key)
        if chosen is None:
            with _lock:
                chosen = self._chosen[key] = self._recalled(machine, verb, shape, backend) or self._measured(
                    machine, verb, shape, backend
                )
        return chosen

    def _recalled(self, machine: str, verb: str, shape: Conv2dShape, backend: Backend) -> str | None:
        if self._known is None:
            self._known = self._read()
        name = self._known.get(machine, {}).get(_name(verb, shape))
        return name if name in backend.algorithms[verb] else None

    def _measured(self, machine: str, verb: str, shape: Conv2dShape, backend: Backend) -> str:
        seconds: dict[str, float] = {}
        call = _call(backend, verb, shape)
        for algorithm in candidates(backend, verb, shape):
            try:
                call(algorithm)  # the first call makes scratch memory and packs
                backend.synchronize()
            except Unsupported:
                continue
            for _ in range(SAMPLES):
                start = self._clock()
                call(algorithm)
                backend.synchronize()
                taken = self._clock() - start
                seconds[algorithm] = min(taken, seconds.get(algorithm, taken))
                if taken > HOPELESS * min(seconds.values()):
                    break
        best = min(seconds, key=lambda name: seconds[name])
        self._remember(machine, _name(verb, shape), best)
        return best

    def _remember(self, machine: str, name: str, algorithm: str) -> None:
        """Adds to what other processes have written meanwhile; the file is replaced as a whole."""
        known = self._read()
        known.setdefault(machine, {})[name] = algorithm
        self._known = known
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix="autotune-", dir=self.path.parent)
            with os.fdopen(handle, "w") as file:
                json.dump({"format": FORMAT, "choices": known}, file, indent=1, sort_keys=True)
            Path(temporary).replace(self.path)
        except OSError as error:
            warn_once(self.path, error.strerror or str(error))

    def _read(self) -> dict[str, dict[str, str]]:
        """What the file holds; nothing where it is absent, damaged or of another format."""
        try:
            content = json.loads(self.path.read_text())
            choices = content["choices"] if content["format"] == FORMAT else {}
            return {str(m): {str(k): str(v) for k, v in by_name.items()} for m, by_name in choices.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def candidates(backend: Backend, verb: str, shape: Conv2dShape) -> list[str]:
    """What is timed: all but the less accurate, the forbidden and, on large shapes, the definition."""
    names = [name for name in backend.algorithms[verb] if name != "winograd_6x6"]
    names = [name for name in names if name != "winograd" or winograd_allowed()]
    return [name for name in names if name != "direct" or shape.flops() <= DIRECT_FLOPS]


def choice(backend: Backend, verb: str, shape: Conv2dShape) -> str | None:
    """This process's tuner's choice."""
    return _tuner().choice(backend, verb, shape)


@cache
def _tuner() -> Tuner:
    return Tuner(default_folder() / "autotune.json", machine)


def machine(backend: Backend) -> str | None:
    """What a choice depends on besides verb and shape; None where choices are not measured."""
    describe = MACHINES.get(backend.name)
    return None if describe is None else describe()


def _native_machine() -> str:
    from . import _native

    return f"{_cpu()}, {_native.isa()}, {_native.get_num_threads()} threads"


# backends whose choices are measured. A GPU's would name the device; its kernels take their tiles from elsewhere
MACHINES: Mapping[str, Callable[[], str]] = {"native": _native_machine}


@cache
def _cpu() -> str:
    """The engine's version, which changes kernels, and the processor's name."""
    from . import __version__

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"cnnengine {__version__}, {name}"


def _name(verb: str, s: Conv2dShape) -> str:
    geometry = f"stride {s.stride_h}x{s.stride_w}, pad {s.pad_h}x{s.pad_w}, dilation {s.dilation_h}x{s.dilation_w}"
    sizes = f"x {s.x}, w {s.w}, y {s.y}"
    return f"{verb}: {sizes}, {geometry}, groups {s.groups}"


def _call(backend: Backend, verb: str, s: Conv2dShape) -> Callable[[str], None]:
    """A verb on random arrays of its own, as a function of the algorithm."""
    rng = np.random.default_rng(0)
    x, w, y = (backend.to_device(rng.standard_normal(shape, np.float32)) for shape in (s.x, s.w, s.y))
    calls: dict[str, Callable[[str], Any]] = {
        "conv2d_forward": lambda algorithm: backend.conv2d_forward(s, x, w, y, IDENTITY, algorithm),
        "conv2d_backward_input": lambda algorithm: backend.conv2d_backward_input(s, y, w, x, algorithm),
        "conv2d_backward_weight": lambda algorithm: backend.conv2d_backward_weight(s, x, y, w, algorithm),
    }
    return calls[verb]


@cache
def warn_once(path: Path, reason: str) -> None:
    warnings.warn(
        f"autotune: {path} cannot be written ({reason}); choices are kept for this process alone: set CNNENGINE_CACHE"
        " to a writable folder",
        RuntimeWarning,
        stacklevel=4,
    )
