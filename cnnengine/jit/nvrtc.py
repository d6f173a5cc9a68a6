"""NVRTC, NVIDIA's run-time compiler, through ctypes: kernel source to a cubin for one architecture. Needs no GPU.

The library and CUDA's headers are looked for in the packages ``nvidia-cuda-nvrtc`` and ``nvidia-cuda-runtime``, in
``CUDA_HOME`` or ``CUDA_PATH``, in ``/usr/local/cuda``, and where the system's linker looks.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

from .._paths import csrc_dir
from ..errors import BackendUnavailable, KernelError
from . import workers
from .cache import Cache
from .source import KernelSource, fingerprint

OPTIONS = ("--std=c++17", "-lineinfo", "--ptxas-options=-v")
SUFFIX = ".cubin"
PROGRAM_NAME = b"instances.cu"  # in messages; any name that no #include has
ENTRY = re.compile(r"Compiling entry function '(?P<name>\w+)'")
SPILLS = re.compile(r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads")
USED = re.compile(r"Used (?P<registers>\d+) registers(?:.*?(?P<shared>\d+) bytes smem)?")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the assembler says of a kernel: registers a thread, spilled and static shared bytes."""

    registers: int
    spill_bytes: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class Cubin:
    """Machine code for one architecture; ``names`` gives the symbol of each expression."""

    image: bytes
    names: dict[str, str]
    log: str

    def usage(self) -> dict[str, Usage]:
        """Usage by expression."""
        by_symbol = _parse_log(self.log)
        return {expression: by_symbol[symbol] for expression, symbol in self.names.items()}

    def pack(self) -> bytes:
        head = json.dumps([self.names, self.log]).encode()
        return len(head).to_bytes(8, "little") + head + self.image

    @classmethod
    def unpack(cls, packed: bytes) -> Cubin:
        start = 8 + int.from_bytes(packed[:8], "little")
        names, log = json.loads(packed[8:start])
        return cls(packed[start:], names, log)


def problem() -> str | None:
    """None, or why nothing can be compiled: NVRTC or CUDA's headers are missing."""
    try:
        _library()
        _include_folder()
    except BackendUnavailable as reason:
        return str(reason)
    return None


def version() -> tuple[int, int]:
    """NVRTC's version, such as (13, 5). Raises BackendUnavailable where there is none."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check("nvrtcVersion", _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def architecture(capability: tuple[int, int]) -> str:
    """What to compile for, given a device's compute capability: 9.0 and 10.x have instructions that only their own
    architecture (``sm_90a``) offers."""
    major, minor = capability
    return f"sm_{major}{minor}{'a' if major in (9, 10) else ''}"


def compile_source(source: KernelSource, arch: str) -> Cubin:
    """Compiles one source. Raises KernelError with the compiler's log."""
    with _compiled(source, arch) as (program, log):
        names = {e: _lowered(program, e) for e in source.expressions}
        return Cubin(_bytes("CUBIN", program), names, log)


def ptx(source: KernelSource, arch: str) -> str:
    """The virtual machine code that one source becomes on its way. Raises as ``compile_source``."""
    with _compiled(source, arch) as (program, _):
        return _bytes("PTX", program).rstrip(b"\0").decode()


@contextmanager
def _compiled(source: KernelSource, arch: str) -> Iterator[tuple[ctypes.c_void_p, str]]:
    """(program, log)"""
    nvrtc = _library()
    program = ctypes.c_void_p()
    text = source.text().encode()
    created = nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, PROGRAM_NAME, 0, None, None)
    _check("nvrtcCreateProgram", created)
    try:
        for expression in source.expressions:
            _check("nvrtcAddNameExpression", nvrtc.nvrtcAddNameExpression(program, expression.encode()))
        options = [f"-arch={arch}", *OPTIONS, f"-I{csrc_dir()}", f"-I{_include_folder()}"]
        encoded = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        failed = nvrtc.nvrtcCompileProgram(program, len(options), encoded)
        log = _bytes("ProgramLog", program).rstrip(b"\0").decode(errors="replace").strip()
        if failed:
            raise KernelError(f"{source.file} does not compile for {arch}: {_error(failed)}\n{log}")
        yield program, log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def build(source: KernelSource, arch: str, kept: Cache) -> Cubin:
    """As ``compile_source``, from the cache where it is there."""
    return Cubin.unpack(kept.fetch_bytes(_key(source, arch), SUFFIX, lambda: compile_source(source, arch).pack()))


def is_built(source: KernelSource, arch: str, kept: Cache) -> bool:
    """Whether the cache has it."""
    return kept.has(_key(source, arch), SUFFIX)


def build_many(jobs: Sequence[tuple[KernelSource, str]], kept: Cache, processes: int) -> list[Cubin]:
    """``build`` of (source, architecture) pairs, in their order, in that many processes: NVRTC holds a lock for most of
    a compilation, threads would wait for each other. Raises the first KernelError."""
    return workers.run([partial(build, source, arch, kept) for source, arch in jobs], processes)


def _key(source: KernelSource, arch: str) -> str:
    return fingerprint(source, arch, version(), OPTIONS)


def _parse_log(log: str) -> dict[str, Usage]:
    """Usage by symbol. ptxas writes three lines a kernel: its name, its spills, its registers."""
    found: dict[str, Usage] = {}
    name, spilled = "", 0
    for line in log.splitlines():
        if match := ENTRY.search(line):
            name, spilled = match["name"], 0
        elif match := SPILLS.search(line):
            spilled = int(match["stores"]) + int(match["loads"])
        elif match := USED.search(line):
            found[name] = Usage(int(match["registers"]), spilled, int(match["shared"] or 0))
    return found


def roots() -> Iterator[Path]:
    """Where parts of a CUDA installation may lie, the packages first."""
    nvidia = find_spec("nvidia")
    for folder in nvidia.submodule_search_locations or () if nvidia else ():
        yield from (Path(folder) / name for name in ("cu13", "cuda_nvrtc", "cuda_runtime"))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path("/usr/local/cuda")


def _library_candidates() -> Iterator[str]:
    for root in roots():
        for folder in ("lib", "lib64"):
            yield from (str(p) for p in sorted((root / folder).glob("libnvrtc.so.[0-9]*"), reverse=True))
    system = ctypes.util.find_library("nvrtc")
    if system:
        yield system


@cache
def _library() -> ctypes.CDLL:
    for candidate in _library_candidates():
        try:
            library = ctypes.CDLL(candidate)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        _load_builtins(Path(candidate))
        return library
    raise BackendUnavailable("NVRTC is not installed: pip install 'cnnengine[cuda]', or set CUDA_HOME")


def _load_builtins(library: Path) -> None:
    """NVRTC opens its second library by name while it compiles, and 13.0 does not find it in a folder that the system's
    linker does not search; one that is loaded already is found."""
    if library.is_absolute():  # else the linker found the first and finds the second
        for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
            with suppress(OSError):
                ctypes.CDLL(str(builtins))


@cache
def _include_folder() -> Path:
    for root in roots():
        if (root / "include" / "cuda_fp16.h").is_file():
            return root / "include"
    raise BackendUnavailable(
        "CUDA's headers (cuda_fp16.h) are not installed: pip install 'cnnengine[cuda]', or set CUDA_HOME"
    )


def _error(code: int) -> str:
    text: bytes = _library().nvrtcGetErrorString(code)
    return text.decode()


def _check(call: str, code: int) -> None:
    if code:
        raise KernelError(f"{call}: {_error(code)}")


def _lowered(program: ctypes.c_void_p, expression: str) -> str:
    name = ctypes.c_char_p()
    _check("nvrtcGetLoweredName", _library().nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(name)))
    assert name.value is not None
    return name.value.decode()


def _bytes(what: str, program: ctypes.c_void_p) -> bytes:
    """What nvrtcGet<what>Size and nvrtcGet<what> give."""
    nvrtc = _library()
    size = ctypes.c_size_t()
    _check(f"nvrtcGet{what}Size", getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(f"nvrtcGet{what}", getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw
