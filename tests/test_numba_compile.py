"""Every Numba kernel compiles to PTX for every GPU generation, and to machine code without spills, without a GPU.

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
LONG = os.environ.get("CNNENGINE_LONG", "0") not in ("", "0")
TARGETS = ("7.5", "8.0", "9.0", *(("10.0", "12.0") if LONG else ()))
ASSEMBLED = ("8.0", "9.0")  # down to machine code
PROCESSES = (("8.0",), ("9.0",), *((target,) for target in TARGETS if target not in ASSEMBLED))
MOST_REGISTERS = {  # of a thread, by rung: one block of the default size fits a multiprocessor's 65,536
    "implicit_gemm": 255,
    "implicit_gemm_mma": 255,
    "depthwise": 192,
    "tiled": 168,
}


def jitted(stem: str) -> list[ast.FunctionDef]:
    """The functions of a kernel file under ``@cuda.jit`` (kernels) or ``@cuda.jit(device=True)``."""
    tree = ast.parse((ROOT / "kernels" / f"{stem}.py").read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(ast.unparse(d).startswith("cuda.jit") for d in f.decorator_list)]


def kernels(stem: str) -> list[ast.FunctionDef]:
    return [f for f in jitted(stem) if [ast.unparse(d) for d in f.decorator_list] == ["cuda.jit"]]


def linked(ptx: str, target: str) -> dict[str, int]:
    """Registers of a thread, bytes of its stack, and bytes spilled to memory, of the kernel as machine code.

    ptxas tells them; it is part of NVIDIA's linker, which needs no GPU.
    """
    from cuda.bindings import nvjitlink

    linker = nvjitlink.create(2, [f"-arch={target}", "-verbose"])
    nvjitlink.add_data(linker, nvjitlink.InputType.PTX, ptx.encode(), len(ptx.encode()), "kernel")
    nvjitlink.complete(linker)
    log = bytearray(nvjitlink.get_info_log_size(linker))
    nvjitlink.get_info_log(linker, log)
    nvjitlink.destroy(linker)
    said = log.decode()
    patterns = {
        "registers": r"Used (\d+) registers",
        "stack": r"(\d+) bytes stack frame",
        "stores": r"(\d+) bytes spill stores",
        "loads": r"(\d+) bytes spill loads",
    }
    return {name: int(re.search(pattern, said)[1]) for name, pattern in patterns.items()}


def compile_all(targets: list[str]) -> list[dict[str, Any]]:
    """Compiles every entry of every SIGNATURES for the targets that it is made for."""
    from numba import cuda, void

    assembles = nvjitlink_missing() is None
    made = []
    for stem in STEMS:
        module = import_module(f"cnnengine.kernels.{stem}")
        for target in targets:
            cc = tuple(int(part) for part in target.split("."))
            if cc < getattr(module, "CAPABILITY", cc):
                continue
            for kernel, arguments in getattr(module, "SIGNATURES", []):
                ptx, _ = cuda.compile_ptx(kernel.py_func, void(*arguments), cc=cc)
                wanted = f"sm_{cc[0]}{cc[1]}"
                made.append(
                    {
                        "file": stem,
                        "kernel": kernel.py_func.__name__,
                        "wanted": wanted,
                        "target": re.search(r"^\.target (\w+)", ptx, re.M)[1],
                        "entry": len(re.findall(r"^\.visible \.entry", ptx, re.M)),
                        "float64": sorted(set(re.findall(r"^\s*(\w\S*\.f64\S*)", ptx, re.M))),
                        "local": "__local_depot" in ptx,
                        "mma": ptx.count("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"),
                        "machine": linked(ptx, wanted) if assembles and target in ASSEMBLED else None,
                    }
                )
    return made


def libnvvm_missing() -> str | None:
    if find_spec("numba") is None:
        return "Numba is not installed"
    probe = "from numba.cuda.cudadrv.nvvm import NVVM; NVVM()"
    done = subprocess.run([sys.executable, "-c", probe], env=_environment(), capture_output=True, text=True)
    return None if done.returncode == 0 else f"libnvvm is not installed: {done.stderr.strip().splitlines()[-1]}"


def nvjitlink_missing() -> str | None:
    try:
        from cuda.bindings import nvjitlink

        nvjitlink.version()
    except (ImportError, RuntimeError) as error:
        return f"NVIDIA's linker is not installed: {error}".splitlines()[0]
    return None


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


@pytest.fixture(scope="module")
def machine(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of the kernels that became machine code."""
    if reason := nvjitlink_missing():
        pytest.skip(reason)
    rows = [row for row in made if row["machine"]]
    assert {row["wanted"] for row in rows} == {"sm_80", "sm_90"}
    return rows


def test_no_kernel_spills(machine: list[dict[str, Any]]) -> None:
    spilled = [row for row in machine if any(row["machine"][name] for name in ("stack", "stores", "loads"))]
    assert spilled == []


def test_registers(machine: list[dict[str, Any]]) -> None:
    """Of a thread: what a full block leaves it."""
    for row in machine:
        most = MOST_REGISTERS.get(row["file"].removeprefix("conv2d_"), 128)
        assert row["machine"]["registers"] <= most, row


def test_tensor_cores_multiply_in_one_rung_alone(made: list[dict[str, Any]]) -> None:
    """For each step of 8 along k a warp's 64 x 32 outputs are 16 products, its 32 x 32 are 8."""
    rung = "conv2d_implicit_gemm_mma"
    for target in TARGETS[1:]:
        mine = [row for row in made if row["wanted"] == "sm_" + target.replace(".", "") and row["file"] == rung]
        assert [row["mma"] for row in mine] == [16] * 3 + [8] * 3
    assert {row["file"] for row in made if row["mma"]} == {rung}
    assert [row for row in made if row["file"] == rung and row["wanted"] == "sm_75"] == []


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
