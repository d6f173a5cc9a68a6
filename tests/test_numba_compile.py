"""Every Numba kernel compiles to PTX for every GPU generation, and is assembled for two, without a GPU.

The simulator is settled when numba is first imported, so the compiler runs in processes of its own: this file as a
script, ``python -m tests.test_numba_compile 0 2``, prints one JSON object of what it made of the first half.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
STEMS = sorted(path.stem for path in (ROOT / "kernels").glob("*.py") if path.stem != "__init__")
TARGETS = ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))
ASSEMBLED = ((8, 0), (9, 0))
PROCESSES = 2
TENSOR_CORES = "_mma"  # ends the names of kernels that need compute capability 8.0
MOST_REGISTERS = 200  # of a thread; blocks of up to 128 threads then fit twice on a multiprocessor
MOST_OF_A_LARGE_BLOCK = 168  # where a block has 256 threads; 65536 / 168 / 256 = 1.5


def jitted(stem: str) -> list[ast.FunctionDef]:
    """The functions of a kernel file under ``@cuda.jit`` (kernels) or ``@cuda.jit(device=True)``."""
    tree = ast.parse((ROOT / "kernels" / f"{stem}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(ast.unparse(d).startswith("cuda.jit") for d in f.decorator_list)]


def kernels(stem: str) -> list[ast.FunctionDef]:
    return [f for f in jitted(stem) if [ast.unparse(d) for d in f.decorator_list] == ["cuda.jit"]]


def compile_some(part: int, parts: int) -> list[dict[str, Any]]:
    """Compiles every ``parts``-th entry of every SIGNATURES for the targets. Numba lowers a kernel once; libNVVM and
    the assembler then make each target's code of it."""
    from numba import void
    from numba.cuda.compiler import _compile_pyfunc_with_fixup

    from cnnengine.backends.numba import compiled

    entries = {}  # conv2d.py repeats those of its files
    for stem in STEMS:
        for kernel, arguments in getattr(import_module(f"cnnengine.kernels.{stem}"), "SIGNATURES", []):
            entries[kernel.py_func.__name__, arguments] = kernel
    made = []
    for (name, arguments), kernel in list(entries.items())[part::parts]:
        library, _ = _compile_pyfunc_with_fixup(kernel.py_func, void(*arguments), device=False, abi="numba", cc=(9, 0))
        for target in TARGETS:
            (ptx,) = library.get_asm_strs(cc=target)
            row = {
                "kernel": name,
                "wanted": target,
                "target": re.search(r"^\.target (\w+)", ptx, re.M)[1],
                "entry": len(re.findall(r"^\.visible \.entry", ptx, re.M)),
                "float64": sorted(set(re.findall(r"^\s*(\w\S*\.f64\S*)", ptx, re.M))),
                "local": "__local_depot" in ptx,
                "mma": ptx.count("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"),
                "parameters": [int(bits) // 8 for bits in re.findall(r"^\s*\.param \.\w(\d+)", ptx, re.M)],
                "expected": parameter_bytes(arguments),
            }
            if target in ASSEMBLED and compiled.problem() is None:
                ((_, usage),) = compiled.assemble(ptx, target).usage().items()
                row |= {"registers": usage.registers, "spills": usage.spill_bytes, "shared": usage.shared_bytes}
            made.append(row)
    return made


def parameter_bytes(types_: tuple[Any, ...]) -> list[int]:
    """What the launcher hands over for arguments of these types, in bytes."""
    import numpy as np
    from numba.cuda.np.numpy_support import as_dtype

    from cnnengine import _launch
    from cnnengine.backends.numba import compiled

    def value(type_: Any) -> Any:
        if hasattr(type_, "ndim"):
            return np.zeros((1,) * type_.ndim, as_dtype(type_.dtype))
        return tuple(map(value, type_)) if hasattr(type_, "instance_class") else as_dtype(type_).type(1)

    given = compiled.flat([value(type_) for type_ in types_])
    sizes = [8 if v is None or compiled.is_array(v) else v.itemsize for v in given]
    assert [len(packed) for packed in _launch.pack(given, sizes, False)] == sizes
    return sizes


def libnvvm_missing() -> str | None:
    if find_spec("numba") is None:
        return "Numba is not installed"
    probe = "from numba.cuda.cudadrv.nvvm import NVVM; NVVM()"
    done = subprocess.run([sys.executable, "-c", probe], env=_environment(), capture_output=True, text=True)
    return None if done.returncode == 0 else f"libnvvm is not installed: {done.stderr.strip().splitlines()[-1]}"


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "NUMBA_ENABLE_CUDASIM"} | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    reason = libnvvm_missing()
    if reason is not None:
        pytest.skip(reason)
    module = [sys.executable, "-m", "tests.test_numba_compile"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    parts = [(str(part), str(PROCESSES)) for part in range(PROCESSES)]
    running = [subprocess.Popen([*module, *part], env=_environment(), cwd=ROOT, **pipes) for part in parts]
    rows: list[dict[str, Any]] = []
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err
        rows += json.loads(out.splitlines()[-1])
    return rows


def test_every_kernel_is_compiled_for_every_target(made: list[dict[str, Any]]) -> None:
    expected = {f.name for stem in STEMS for f in kernels(stem)}
    assert len(expected) >= 40
    for target in TARGETS:
        compiled = {row["kernel"] for row in made if tuple(row["wanted"]) == target}
        assert compiled == expected, f"{target}: SIGNATURES and kernels differ"
    for row in made:
        major, minor = row["wanted"]
        assert row["target"] == f"sm_{major}{minor}", row
        assert row["entry"] == 1, row


def test_kernels_compute_in_float32_only(made: list[dict[str, Any]]) -> None:
    assert [(row["kernel"], row["float64"]) for row in made if row["float64"]] == []


def test_accumulators_stay_in_registers(made: list[dict[str, Any]]) -> None:
    """A local array that the compiler could not unroll lives in slow local memory, ``__local_depot`` in PTX."""
    assert sorted({row["kernel"] for row in made if row["local"]}) == []


def test_the_launcher_hands_over_what_a_kernel_takes(made: list[dict[str, Any]]) -> None:
    for row in made:
        assert row["parameters"] == row["expected"], row["kernel"]


def test_registers_and_spills(made: list[dict[str, Any]]) -> None:
    """What the assembler says: nothing spills, and registers leave room for two blocks on a multiprocessor."""
    assembled = [row for row in made if "registers" in row]
    if not assembled:
        pytest.skip("nvJitLink is not installed: pip install nvidia-nvjitlink")
    assert {tuple(row["wanted"]) for row in assembled} == set(ASSEMBLED)
    assert len(assembled) * len(TARGETS) == len(made) * len(ASSEMBLED)
    assert [(row["kernel"], row["spills"]) for row in assembled if row["spills"]] == []
    few = ("_implicit_gemm", TENSOR_CORES)  # kernels with blocks of 128 threads
    for row in assembled:
        ceiling = MOST_REGISTERS if row["kernel"].endswith(few) else MOST_OF_A_LARGE_BLOCK
        assert row["registers"] <= ceiling, f"{row['kernel']}: {row['registers']} registers"


def test_tensor_cores_are_asked(made: list[dict[str, Any]]) -> None:
    """A corner of a warp is 2 x 4 fragments: eight products in a step of eight"""
    assert {row["kernel"]: row["mma"] for row in made if row["mma"]} == dict.fromkeys(
        (f"conv2d_{verb}{TENSOR_CORES}" for verb in ("forward", "backward_input", "backward_weight")), 8
    )


@pytest.mark.parametrize("stem", STEMS)
def test_shared_arrays_suit_simulator_and_compiler(stem: str) -> None:
    """Two shared arrays on one line alias in Numba's simulator; shapes that are computed do not compile."""
    for function in jitted(stem):
        calls = [
            n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func) == "cuda.shared.array"
        ]
        lines = [call.lineno for call in calls]
        assert len(lines) == len(set(lines)), f"{function.name}: two shared arrays on one line"
        for call in calls:
            shape = call.args[0]
            sizes = shape.elts if isinstance(shape, ast.Tuple) else [shape]
            for size in sizes:
                assert isinstance(size, ast.Constant) or (isinstance(size, ast.Name) and size.id.isupper()), (
                    f"{function.name}: the shape {ast.unparse(shape)} is neither a literal nor a module's constant"
                )


if __name__ == "__main__":
    import cnnengine  # noqa: F401

    print(json.dumps(compile_some(*map(int, sys.argv[1:]))))
