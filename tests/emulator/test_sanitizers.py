"""AddressSanitizer and UndefinedBehaviorSanitizer over the emulator: silent on correct kernels, with both fiber
switches, and ending the process with the kernel's line on an access out of bounds."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cnnengine.jit.host import compiler

from .machine import line_of

ROOT = Path(__file__).resolve().parents[2]


@cache
def library(name: str) -> str | None:
    """Where the compiler keeps a sanitizer's run-time library, if it has one."""
    command = (*compiler(), f"-print-file-name={name}")
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return path if Path(path).is_file() else None


def run(what: str) -> subprocess.CompletedProcess[str]:
    preload = [library(name) for name in ("libasan.so", "libubsan.so")]
    if None in preload:
        pytest.skip("the C++ compiler has no libasan.so or libubsan.so")
    environment = {**os.environ, "LD_PRELOAD": " ".join(map(str, preload)), "ASAN_OPTIONS": "detect_leaks=0"}
    command = (sys.executable, "-m", "tests.emulator.sanitized", what)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("what", ["assembly", "ucontext"])
def test_correct_kernels(what: str) -> None:
    done = run(what)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == "finished\n"


@pytest.mark.parametrize(
    ("bug", "kind", "mark"),
    [
        (5, "heap-buffer-overflow", "shared-past-end"),
        (6, "index 64 out of bounds for type 'float [64]'", "shared-index"),
        (7, "heap-buffer-overflow", "global-write"),
        (9, "misaligned address", "misaligned"),
    ],
)
def test_bad_accesses(bug: int, kind: str, mark: str) -> None:
    done = run(str(bug))
    assert done.returncode != 0
    assert "finished" not in done.stdout
    assert kind in done.stderr, done.stderr[-4000:]
    assert line_of("threads.cuh", mark) in done.stderr, done.stderr[-4000:]
