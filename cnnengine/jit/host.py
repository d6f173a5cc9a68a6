"""g++ in place of NVRTC: a kernel file becomes a shared object that runs on the emulator (see docs/emulator.md)."""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._paths import csrc_dir
from ..errors import BackendUnavailable, KernelError
from .cache import Cache
from .counters import Counters, parse
from .source import KernelSource, fingerprint

COMPILERS = ("g++", "clang++", "c++")
# no strict aliasing: kernels reinterpret floats as vectors, as CUDA lets them; symbols stay inside, so that many
# families can be loaded side by side, each with an emulator of its own
COMMON = (
    "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-fno-math-errno", "-pthread",
    "-Wno-unknown-pragmas", "-Wno-psabi", "-DCNN_EMULATOR",
)  # fmt: skip
# the race build: every memory access of a kernel calls the checker; its own run-time part is not instrumented
RACE = ("-DCNN_EMULATOR_RACE", "-g1", "-gdwarf-4")
RACE_CHECKS = ("thread", "alignment", "signed-integer-overflow", "shift", "integer-divide-by-zero")
# the build that counts: the same calls, other callbacks
COUNT = ("-DCNN_EMULATOR_COUNT", "-g1", "-gdwarf-4")
# Of its kernels: one access of the source is one call. Functions are inlined as nvcc does it (an access by a call that
# returns a struct would not be seen); the passes that merge, split, move or double accesses are off. Basic blocks and
# comparisons are calls, too, and blocks stay in the order of the source.
COUNT_ACCESSES = (
    "-fsanitize=thread", "-fsanitize-coverage=trace-pc,trace-cmp", "-fno-reorder-blocks", "-O1",
    "-finline-functions", "-finline-small-functions", "-finline-limit=1000000",
    *(f"--param={name}=1000000" for name in (
        "large-function-insns", "large-function-growth", "large-unit-insns", "inline-unit-growth",
        "early-inlining-insns", "large-stack-frame", "large-stack-frame-growth",
    )),
    *(f"-fno-{name}" for name in (
        "tree-sra", "ipa-sra", "tree-fre", "tree-dse", "tree-sink", "tree-loop-im", "tree-ch", "tree-phiprop",
        "tree-cselim", "tree-dominator-opts", "thread-jumps", "ssa-phiopt", "partial-inlining",
    )),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostModule:
    """A loaded shared object."""

    path: Path
    launch_address: int  # of cnn_emulator_launch
    expressions: tuple[str, ...]
    library: ctypes.CDLL
    counts: bool = False

    def index(self, expression: str) -> int:
        """The number by which ``cnn_emulator_launch`` knows a kernel. Raises KernelError where there is none."""
        try:
            return self.expressions.index(expression)
        except ValueError:
            raise KernelError(f"{self.path.name} has no kernel {expression}, it has {list(self.expressions)}") from None

    def configure(self, schedule: int = 0, threads: int = 0) -> None:
        """``schedule``: 0 threads of a block run in ascending order, 1 descending, else the seed of a random order.
        ``threads``: how many cores run blocks at once, 0 for all."""
        self.library.cnn_emulator_configure(schedule, threads)

    def watch(self, address: int, nbytes: int, name: str) -> None:
        """Race build: kernels may read and write these bytes, and the checker looks for races on them."""
        self.library.cnn_emulator_watch(ctypes.c_void_p(address), ctypes.c_size_t(nbytes), name.encode())

    def encode_tensor_map_tiled(
        self,
        dtype: int,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        box: Sequence[int],
        steps: Sequence[int],
        interleave: int,
        swizzle: int,
        promotion: int,
        fill: int,
    ) -> bytes:
        """What ``_launch.encode_tensor_map_tiled`` is to a GPU: a map for this module's kernels, checked as the driver
        checks it. Raises KernelError with what is wrong."""
        shape = (dtype, len(sizes), ctypes.c_void_p(address), _array(ctypes.c_uint64, sizes))
        rest = (_array(ctypes.c_uint64, strides), _array(ctypes.c_uint32, box), _array(ctypes.c_uint32, steps))
        return self._encode(self.library.cnn_emulator_encode_tiled, (*shape, *rest, swizzle), interleave, fill)

    def encode_tensor_map_im2col(
        self,
        dtype: int,
        address: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        lower: Sequence[int],
        upper: Sequence[int],
        channels: int,
        pixels: int,
        steps: Sequence[int],
        interleave: int,
        swizzle: int,
        promotion: int,
        fill: int,
    ) -> bytes:
        """The same of ``_launch.encode_tensor_map_im2col``."""
        shape = (dtype, len(sizes), ctypes.c_void_p(address), _array(ctypes.c_uint64, sizes))
        corners = (_array(ctypes.c_uint64, strides), _array(ctypes.c_int, lower), _array(ctypes.c_int, upper))
        rest = (ctypes.c_uint32(channels), ctypes.c_uint32(pixels), _array(ctypes.c_uint32, steps), swizzle)
        return self._encode(self.library.cnn_emulator_encode_im2col, (*shape, *corners, *rest), interleave, fill)

    def _encode(self, function: Any, arguments: tuple[Any, ...], interleave: int, fill: int) -> bytes:
        if interleave or fill:
            raise KernelError(f"the emulator has tensor maps with interleave 0 and fill 0, not {interleave} and {fill}")
        encoded, error = ctypes.create_string_buffer(128), ctypes.create_string_buffer(512)
        if function(encoded, *arguments, error, len(error)):
            raise KernelError(error.value.decode())
        return encoded.raw

    def take_counters(self) -> Counters:
        """What launches have cost since the last call. Raises ValueError where the build does not count."""
        if not self.counts:
            raise ValueError(f"{self.path.name} does not count what launches cost: it was built without count=True")
        take = self.library.cnn_emulator_take_counters
        take.restype = ctypes.c_char_p
        return parse(take().decode())


def _array(element: Any, values: Sequence[int]) -> Any:
    return (element * max(1, len(values)))(*values)


def compiler() -> tuple[str, ...]:
    """The C++ compiler's command: ``CXX``, else the first of ``COMPILERS`` on the path. Raises BackendUnavailable."""
    chosen = os.environ.get("CXX")
    if chosen:
        try:
            command = tuple(shlex.split(chosen))
        except ValueError as error:
            raise BackendUnavailable(f"no C++ compiler: CXX is {chosen!r}, which is no command: {error}") from error
        if command and shutil.which(command[0]):
            return command
        raise BackendUnavailable(f"no C++ compiler: CXX is {chosen!r}, which is not found")
    for name in COMPILERS:
        if shutil.which(name):
            return (name,)
    raise BackendUnavailable(f"no C++ compiler: none of {', '.join(COMPILERS)} is found; install one or set CXX")


def build(
    source: KernelSource,
    *,
    cache: Cache | Path,
    flags: tuple[str, ...] = ("-O2",),
    race: bool = False,
    count: bool = False,
) -> HostModule:
    """Compiles ``source`` (or finds it in ``cache``) and loads it. ``race`` adds the race checker, ``count`` the
    counters. Raises BackendUnavailable without a compiler, KernelError with the compiler's log."""
    if race and count:
        raise ValueError("race=True and count=True: a build has the race checker or the counters")
    store = cache if isinstance(cache, Cache) else Cache(cache)
    command = compiler()
    if count and not can_count(command):
        raise BackendUnavailable(f"count=True needs g++, the compiler is {shlex.join(command)}")
    look = RACE if race else COUNT if count else ()
    details = (_version(command), flags, look, COUNT_ACCESSES if count else (), _runtime_text())
    path = store.fetch(
        fingerprint(source, *details), ".so", lambda out: _compile(command, source, flags, look, store, out)
    )
    library = ctypes.CDLL(str(path))
    address = ctypes.cast(library.cnn_emulator_launch, ctypes.c_void_p).value
    assert address is not None
    return HostModule(path, address, source.expressions, library, count)


def _compile(
    command: tuple[str, ...],
    source: KernelSource,
    flags: tuple[str, ...],
    look: tuple[str, ...],
    store: Cache,
    out: Path,
) -> None:
    """``look``: RACE, COUNT or nothing"""
    runtime = _runtime(command, (*flags, *look), store)
    kernels = "".join(f"  EMULATOR_KERNEL({e}),\n" for e in source.expressions)
    text = (
        f"{source.text()}\nconst emulator::Kernel cnn_emulator_kernels[] = {{\n{kernels}}};\n"
        f"const int cnn_emulator_kernel_count = {len(source.expressions)};\n"
    )
    options = (*COMMON, *flags, *look)
    if look == RACE:
        options += (f"-fsanitize={','.join((*RACE_CHECKS, _array_check(command)))}",)
    elif look == COUNT:
        options += COUNT_ACCESSES
    unit, compiled = out.with_name(out.name + ".cpp"), out.with_name(out.name + ".o")
    try:
        unit.write_text(text)
        _run((*command, *options, f"-I{csrc_dir()}", "-c", str(unit), "-o", str(compiled)))
        _run((*command, *COMMON, *flags, "-shared", str(compiled), str(runtime), "-ldl", "-o", str(out)))
    finally:
        unit.unlink(missing_ok=True)
        compiled.unlink(missing_ok=True)


def can_count(command: tuple[str, ...]) -> bool:
    """Whether it is g++, whose flags keep the accesses of the source apart."""
    return "Free Software Foundation" in _version(command)


def _array_check(command: tuple[str, ...]) -> str:
    """g++'s ``bounds`` takes a struct's last array, such as a tile, to be of any length; ``bounds-strict`` does not."""
    return "bounds" if "clang" in _version(command) else "bounds-strict"


def _runtime(command: tuple[str, ...], flags: tuple[str, ...], store: Cache) -> Path:
    """The emulator's own object file, the same for every kernel family."""
    options = (*COMMON, *flags)
    key = fingerprint(KernelSource("emulator/runtime.cpp", ()), _version(command), options)
    unit = str(csrc_dir() / "emulator" / "runtime.cpp")
    return store.fetch(key, ".o", lambda out: _run((*command, *options, "-x", "c++", "-c", unit, "-o", str(out))))


def _run(command: tuple[str, ...]) -> None:
    """Runs the compiler, whose last argument is the file to write. Raises KernelError with its log."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"{shlex.join(command)} failed:\n{done.stderr.strip()}")
    written = Path(command[-1])
    if not written.is_file() or not written.stat().st_size:
        raise KernelError(f"{shlex.join(command)} wrote nothing: is {command[0]} a C++ compiler?")


@lru_cache(maxsize=8)
def _version(command: tuple[str, ...]) -> str:
    """What the compiler says of itself. Raises BackendUnavailable where it cannot: then it is none."""
    try:
        done = subprocess.run((*command, "--version"), capture_output=True, text=True, check=False)
    except OSError as error:
        raise BackendUnavailable(f"no C++ compiler: {shlex.join(command)} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise BackendUnavailable(f"no C++ compiler: `{shlex.join(command)} --version` ends with {done.returncode}")
    return done.stdout


def _runtime_text() -> str:
    """A key of the run-time part: a family is linked to it, though its file does not include it."""
    return fingerprint(KernelSource("emulator/runtime.cpp", ()))
