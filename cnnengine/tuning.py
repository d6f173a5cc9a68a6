"""``cnn.autotune()``: which algorithm is the quickest for a shape, found by timing each once, and remembered.

Without it a backend chooses by rule from the shape. With it the first call of a verb with a shape times what can
compute it, on random arrays of that shape, and every later call uses the quickest: on the native backend one of its
algorithms, on a GPU a rung with its tile and splits, which within a named rung is a choice of its own. Choices are kept
in a file, so that the next process finds them: for the same file the same kernels run and results have the same bits.
Measured once per verb, shape, dtype and machine: the instruction set and the number of threads, or the GPU's
architecture. See docs/tuning.md.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache, partial
from math import prod
from pathlib import Path
from threading import RLock
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes  # noqa: F401 (NumPy knows bfloat16 by name from here on)
import numpy as np

from .backends.contract import IDENTITY, Array, Backend
from .backends.winograd import winograd_allowed
from .errors import KernelError, Unsupported
from .jit.cache import default_folder
from .shapes import Conv2dShape

if TYPE_CHECKING:
    from .backends._kernels import KernelBackend

SAMPLES = 5  # of each algorithm; the least counts
HOPELESS = 3.0  # an algorithm whose first sample takes this many times the best is not sampled again
DIRECT_FLOPS = 10**8  # beyond which the definition is not tried: seconds for what takes others milliseconds
RANDOM_ELEMENTS = 1 << 20  # of an array; a larger one repeats them
FORMAT = 2
KERNELS = ("cuda", "emulator", "planning")  # backends whose rungs have configurations
on = False  # what functional asks before anything else
_lock = RLock()


class autotune:  # called like a function
    """From now on, in the whole process, calls that name no algorithm use the one that was measured to be the quickest:
    ``cnn.autotune()``. ``cnn.autotune(False)`` ends that; ``with cnn.autotune(): ...`` ends it after the block.

    ``algorithm=`` of a call and ``cnn.algorithms(...)`` come first. Winograd's convolution over 6x6 outputs, which is
    less accurate, is never chosen, nor any where ``cnn.allow_winograd(False)`` forbids it. The native and the cuda
    backend have choices to make; the others keep their own. On a GPU a rung that is named is tuned for itself.
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


Timer = Callable[[Backend, Callable[[], None]], float]  # seconds of one call


def host_timer(clock: Callable[[], float]) -> Timer:
    """From the call until the backend has done everything."""

    def seconds(backend: Backend, call: Callable[[], None]) -> float:
        start = clock()
        call()
        backend.synchronize()
        return clock() - start

    return seconds


def timer(backend: Backend, call: Callable[[], None]) -> float:
    """On a GPU by the device's own events."""
    if backend.device != "cuda":
        return host_timer(perf_counter)(backend, call)
    from .jit.device_timer import DeviceTimer

    return DeviceTimer().seconds(call)  # whose memory is free again behind it


class Tuner:
    """Choices by (machine, verb, shape, dtype), in memory and, where ``path`` can be written, in a JSON file."""

    def __init__(self, path: Path, machine: Callable[[Backend], str | None], timer: Timer = timer) -> None:
        self.path = path
        self._machine, self._timer = machine, timer
        self._chosen: dict[tuple[str, str, Conv2dShape, str, str | None], str | None] = {}
        self._known: dict[str, dict[str, str]] | None = None  # the file: machine -> verb and shape -> algorithm

    def choice(
        self, backend: Backend, verb: str, shape: Conv2dShape, dtype: str = "float32", rung: str | None = None
    ) -> str | None:
        """The algorithm to use, of ``rung`` where one is named; None: the backend's own choice."""
        machine = self._machine(backend)
        if machine is None:
            return rung
        key = machine, verb, shape, dtype, rung
        if key not in self._chosen:
            with _lock:
                chosen = self._recalled(machine, verb, shape, dtype, rung, backend)
                if chosen is None:
                    if backend.name == "planning":  # computes nothing: the next step on a GPU measures
                        return rung
                    chosen = self._measured(machine, verb, shape, dtype, rung, backend)
                self._chosen[key] = chosen
        return self._chosen[key]

    def _recalled(
        self, machine: str, verb: str, shape: Conv2dShape, dtype: str, rung: str | None, backend: Backend
    ) -> str | None:
        if self._known is None:
            self._known = self._read()
        name = self._known.get(machine, {}).get(_name(verb, shape, dtype, rung))
        return name if name in candidates(backend, verb, shape, dtype, rung) else None

    def _measured(
        self, machine: str, verb: str, shape: Conv2dShape, dtype: str, rung: str | None, backend: Backend
    ) -> str | None:
        """The named rung where nothing can be measured: then the call itself says why."""
        seconds: dict[str, float] = {}
        call = _call(backend, verb, shape, dtype)
        for algorithm in candidates(backend, verb, shape, dtype, rung):
            run = partial(call, algorithm)
            try:
                run()  # the first call compiles, makes scratch memory and packs
                backend.synchronize()
            except (Unsupported, KernelError, MemoryError):
                continue
            for _ in range(SAMPLES):
                taken = self._timer(backend, run)
                seconds[algorithm] = min(taken, seconds.get(algorithm, taken))
                if taken > HOPELESS * min(seconds.values()):
                    break
        if not seconds:
            return rung
        best = min(seconds, key=lambda name: seconds[name])
        self._remember(machine, _name(verb, shape, dtype, rung), best)
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


def candidates(
    backend: Backend, verb: str, shape: Conv2dShape, dtype: str = "float32", rung: str | None = None
) -> list[str]:
    """What is timed: all but the less accurate, the forbidden and, on large shapes, the definition; of a named rung its
    configurations."""
    if backend.name in KERNELS:
        names = _configured(cast("KernelBackend", backend), verb, shape, dtype, rung)
    else:
        names = list(backend.algorithms[verb]) if rung is None else [rung]
    if rung is not None:
        return names
    names = [name for name in names if not name.startswith("winograd_6x6")]
    names = [name for name in names if not name.startswith("winograd") or winograd_allowed()]
    return [name for name in names if not name.startswith("direct") or shape.flops() <= DIRECT_FLOPS]


def _configured(backend: KernelBackend, verb: str, shape: Conv2dShape, dtype: str, rung: str | None) -> list[str]:
    """On arrays as a GPU's allocator makes them. Where no rung is named another may run those that are not."""
    from .backends import _conv2d_plans as conv2d

    given = conv2d.Given(dtype, 16, backend.runtime.capability(), winograd_allowed())
    names = conv2d.candidates(verb, shape, rung, given)
    return names if rung is not None else [name + conv2d.OR_ANOTHER for name in names]


def choice(backend: Backend, verb: str, shape: Conv2dShape, dtype: Any = "float32") -> str | None:
    """This process's tuner's choice."""
    return _tuner().choice(backend, verb, shape, np.dtype(dtype).name)


def configured(backend: Backend, verb: str, shape: Conv2dShape, dtype: Any, rung: str) -> str:
    """A named algorithm in its best configuration, where it has several."""
    if backend.name not in KERNELS:
        return rung
    return _tuner().choice(backend, verb, shape, np.dtype(dtype).name, rung) or rung


@cache
def _tuner() -> Tuner:
    return Tuner(default_folder() / "autotune.json", machine)


def machine(backend: Backend) -> str | None:
    """What a choice depends on besides verb, shape and dtype; None where choices are not measured."""
    describe = MACHINES.get(backend.name)
    if describe is None:
        return None
    return describe(backend) + ("" if winograd_allowed() else ", no Winograd")


def _native_machine(backend: Backend) -> str:
    from . import _native

    return f"{_cpu()}, {_native.isa()}, {_native.get_num_threads()} threads"


def _gpu_machine(backend: Any) -> str:
    """The engine's version, the architecture, and whether shapes are compiled in."""
    from . import __version__
    from .jit import nvrtc

    arch = nvrtc.architecture(divmod(backend.runtime.capability(), 10))
    return f"cnnengine {__version__}, {arch}{', constant shapes' if backend.constant_shapes else ''}"


# backends whose choices are measured; a planning backend looks them up, an emulator's seconds say nothing
MACHINES: Mapping[str, Callable[[Any], str]] = {
    "native": _native_machine,
    "cuda": _gpu_machine,
    "planning": _gpu_machine,
}


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


def _name(verb: str, s: Conv2dShape, dtype: str, rung: str | None) -> str:
    geometry = f"stride {s.stride_h}x{s.stride_w}, pad {s.pad_h}x{s.pad_w}, dilation {s.dilation_h}x{s.dilation_w}"
    sizes = f"x {s.x}, w {s.w}, y {s.y}"
    return f"{verb}{f' by {rung}' if rung else ''}: {dtype}, {sizes}, {geometry}, groups {s.groups}"


def _call(backend: Backend, verb: str, s: Conv2dShape, dtype: str) -> Callable[[str], None]:
    """A verb on random arrays of its own, as a function of the algorithm."""
    rng = np.random.default_rng(0)

    def random(shape: tuple[int, ...]) -> Array:
        values = rng.standard_normal(min(prod(shape), RANDOM_ELEMENTS), np.float32).astype(dtype)
        return backend.to_device(np.resize(values, shape))

    x, w, y = random(s.x), random(s.w), random(s.y)
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
