"""What stands between a kernel file and its shared object: the compiler, its messages and the cache."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import pytest

from cnnengine.errors import BackendUnavailable, KernelError
from cnnengine.jit import host
from cnnengine.jit.cache import Cache
from cnnengine.jit.host import build, compiler
from cnnengine.jit.source import KernelSource

ONE = KernelSource("cuda/platform.cuh", ("one",), "__global__ void one(int* y) { y[0] = 1; }\n")


def broken(text: str, tmp_path: Path) -> str:
    with pytest.raises(KernelError) as raised:
        build(KernelSource("cuda/platform.cuh", ("one",), text), cache=tmp_path)
    assert not list(tmp_path.glob("building-*")), "nothing is left half-written"
    return str(raised.value)


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O3")
    with pytest.raises(
        BackendUnavailable, match="no C\\+\\+ compiler: CXX is 'no-such-compiler -O3', which is not found"
    ):
        compiler()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendUnavailable, match=r"none of g\+\+, clang\+\+, c\+\+ is found; install one or set CXX"):
        compiler()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("g++ '", "CXX is .*, which is no command: No closing quotation"),
        ("false", "no C.. compiler: `false --version` ends with 1"),
        ("true", "wrote nothing: is true a C.. compiler"),
        ("program", "program cannot be run: Exec format error"),
    ],
)
def test_a_compiler_that_is_none(command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF and no more")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CXX", command)
    with pytest.raises((BackendUnavailable, KernelError), match=message):
        build(ONE, cache=tmp_path / "cache")
    assert not list(tmp_path.glob("cache/*")), "nothing is left half-written"


def test_flags_in_the_compilers_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", f"{compiler()[0]} -DWITH_A_FLAG")
    assert compiler()[1:] == ("-DWITH_A_FLAG",)


def test_compile_errors_show_the_compilers_words(tmp_path: Path) -> None:
    message = broken("__global__ void one(int* y) { y[0] = undeclared; }\n", tmp_path)
    assert "failed:" in message
    assert "undeclared" in message


def test_static_shared_memory_is_refused(tmp_path: Path) -> None:
    message = broken("__global__ void one(int* y) { __shared__ int s[4]; y[0] = s[0]; }\n", tmp_path)
    assert "the emulator has no static __shared__ arrays: put them into the struct of DYN_SMEM" in message


def test_a_kernel_that_the_module_lacks(tmp_path: Path) -> None:
    module = build(ONE, cache=tmp_path)
    assert module.index("one") == 0
    with pytest.raises(KernelError, match=r"has no kernel two, it has \['one'\]"):
        module.index("two")


def test_builds_are_kept_apart_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    first = build(ONE, cache=cache).path
    paths = {first, build(ONE, cache=cache, race=True).path, build(ONE, cache=cache, flags=("-O1",)).path}
    assert len(paths) == 3
    assert cache.size()[0] == 6  # three modules and the run-time part of each

    def compiles(command: tuple[str, ...]) -> None:
        raise AssertionError(f"compiled again: {command}")

    monkeypatch.setattr(host, "_run", compiles)
    assert build(ONE, cache=tmp_path).path == first


def test_hundreds_of_families_can_be_loaded(tmp_path: Path) -> None:
    """Their thread-local variables must not come out of the loader's small static block."""
    module = build(ONE, cache=tmp_path)
    for i in range(300):
        copy = tmp_path / f"{i}.so"
        shutil.copy(module.path, copy)
        ctypes.CDLL(str(copy))
