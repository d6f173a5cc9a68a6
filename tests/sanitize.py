"""Builds the native extension under sanitizers and runs the operation tests with it.

    python tests/sanitize.py address      # AddressSanitizer and UndefinedBehaviorSanitizer
    python tests/sanitize.py thread       # ThreadSanitizer
    python tests/sanitize.py thread tests/test_native_threads.py -k fork

The builds lie in build/sanitize-NAME and leave the one in use alone. The first report ends the run with an error.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = {"address": "address,undefined", "thread": "thread"}
LIBRARIES = {"address": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
OPTIONS = {
    # leaks: the interpreter frees nothing at exit; new_delete_type_mismatch stays on
    "address": {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"},
    "thread": {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:die_after_fork=0"},
}
TESTS = (
    "test_activation",
    "test_binary",
    "test_conv2d",
    "test_dropout",
    "test_normalize_images",
    "test_gemm",
    "test_native_memory",
    "test_native_random",
    "test_native_threads",
    "test_norm",
    "test_optimizer_step",
    "test_pool2d",
    "test_reduce",
    "test_softmax_cross_entropy",
)
# results to a unit of the last place, which depends on how the compiler fuses; the process's own size; PyTorch, whose
# OpenMP ThreadSanitizer cannot follow
DESELECTED = "not units_in_the_last_place and not eighth_of_a_block and not gives_memory_back and not pytorch"


def main(arguments: list[str]) -> int:
    kind, *rest = arguments or [""]
    if kind not in FLAGS:
        raise SystemExit(f"sanitize.py: expected {' or '.join(FLAGS)}, received {kind!r}")
    libraries = [library(name) for name in LIBRARIES[kind]]
    extension = build(kind)
    tests = rest or [f"tests/{name}.py" for name in TESTS if (ROOT / "tests" / f"{name}.py").exists()]
    environment = {
        **os.environ,
        **OPTIONS[kind],
        "LD_PRELOAD": " ".join(libraries),
        "CNNENGINE_TEST_EXTENSION": str(extension),
        "CNNENGINE_TEST_BACKENDS": "native",
        "CNNENGINE_TEST_TIER": "small",
        "CNNENGINE_NUM_THREADS": "4",  # more than cores: another order of events
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONMALLOC": "malloc",  # so that every array has its own guarded block
    }
    options = ["--capture=sys", "--maxfail=5", "-p", "no:cacheprovider", "-k", DESELECTED]  # reports go past pytest
    command = [sys.executable, "-m", "pytest", *options, *tests]
    if kind == "thread" and shutil.which("setarch"):  # its shadow memory has no place among randomised addresses
        command = ["setarch", platform.machine(), "--addr-no-randomize", *command]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def build(kind: str) -> Path:
    """The extension's file"""
    folder = ROOT / "build" / f"sanitize-{kind}"
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(folder)]
    environment = {**os.environ, "CNNENGINE_SANITIZE": FLAGS[kind]}
    subprocess.run([*command, "--build-temp", str(folder / "objects")], cwd=ROOT, env=environment, check=True)
    (extension,) = (folder / "cnnengine").glob("_native.*")
    return extension


def library(name: str) -> str:
    """The run-time library that a sanitized extension wants loaded before everything else."""
    compiler = os.environ.get("CXX", "c++").split()
    found = subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not Path(path).is_file():
        raise SystemExit(f"sanitize.py: {compiler[0]} has no {name}")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
