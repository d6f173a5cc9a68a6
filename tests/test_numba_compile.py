"""Every Numba kernel compiles to PTX for every GPU generation, without a GPU.

The simulator is settled when numba is first imported, so the compiler runs in processes of its own: this file as a
script, ``python -m tests.test_numba_compile 9.0 8.0``, prints one JSON object of what it made.
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
TARGETS = ("7.5", "8.0", "9.0", "10.0", "12.0")
PROCESSES = (TARGETS[:3], TARGETS[3:])


def jitted(stem: str) -> list[ast.FunctionDef]:
    """The functions of a kernel file under ``@cuda.jit`` (kernels) or ``@cuda.jit(device=True)``."""
    tree = ast.parse((ROOT / "kernels" / f"{stem}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(ast.unparse(d).startswith("cuda.jit") for d in f.decorator_list)]


def kernels(stem: str) -> list[ast.FunctionDef]:
    return [f for f in jitted(stem) if [ast.unparse(d) for d in f.decorator_list] == ["cuda.jit"]]


def compile_all(targets: list[str]) -> list[dict[str, Any]]:
    """Compiles every entry of every SIGNATURES for the targets."""
    from numba import cuda, void

    made = []
    seen = set()
    for stem in STEMS:
        for kernel, arguments in getattr(import_module(f"cnnengine.kernels.{stem}"), "SIGNATURES", []):
            name = kernel.py_func.__name__
            if (name, arguments) in seen:  # conv2d.py repeats those of its two files
                continue
            seen.add((name, arguments))
            for target in targets:
                cc = tuple(int(part) for part in target.split("."))
                ptx, _ = cuda.compile_ptx(kernel.py_func, void(*arguments), cc=cc)
                made.append(
                    {
                        "kernel": name,
                        "wanted": f"sm_{cc[0]}{cc[1]}",
                        "target": re.search(r"^\.target (\w+)", ptx, re.M)[1],
                        "entry": len(re.findall(r"^\.visible \.entry", ptx, re.M)),
                        "float64": sorted(set(re.findall(r"^\s*(\w\S*\.f64\S*)", ptx, re.M))),
                        "local": "__local_depot" in ptx,
                    }
                )
    return made


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
    running = [subprocess.Popen([*module, *some], env=_environment(), cwd=ROOT, **pipes) for some in PROCESSES]
    rows: list[dict[str, Any]] = []
    for process in running:
        out, err = process.communicate()
        assert process.returncode == 0, err
        rows += json.loads(out.splitlines()[-1])
    return rows


def test_every_kernel_is_compiled_for_every_target(made: list[dict[str, Any]]) -> None:
    expected = {f.name for stem in STEMS for f in kernels(stem)}
    assert len(expected) >= 18
    for target in TARGETS:
        wanted = "sm_" + target.replace(".", "")
        compiled = {row["kernel"] for row in made if row["wanted"] == wanted}
        assert compiled == expected, f"{wanted}: SIGNATURES and kernels differ"
    for row in made:
        assert row["target"] == row["wanted"], row
        assert row["entry"] == 1, row


def test_kernels_compute_in_float32_only(made: list[dict[str, Any]]) -> None:
    assert [(row["kernel"], row["float64"]) for row in made if row["float64"]] == []


def test_accumulators_stay_in_registers(made: list[dict[str, Any]]) -> None:
    """A local array that the compiler could not unroll lives in slow local memory, ``__local_depot`` in PTX."""
    assert sorted({row["kernel"] for row in made if row["local"]}) == []


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

    print(json.dumps(compile_all(sys.argv[1:])))
