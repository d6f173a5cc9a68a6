"""``dry_run.py COMMANDS OUTPUT``: runs, in one process with a fake GPU, the commands that bench/gpu_run.sh would give
to Python, as its test noted them; then what happens to a wrong contender, to a run that goes on behind an earlier one,
and where a kernel breaks the GPU's context. Prints "done"."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cudnn
import cupy
import machine
import numpy as np

from bench import emulator_vs_gpu, resume, run
from bench.contenders import cudnn as contender
from bench.contenders import device
from cnnengine.jit import nvrtc

ONE = ("conv2d", "--device", "cuda", "--smoke", "--dtype", "float32", "--only", "conv2d_forward lenet")


def commands(lines: list[str]) -> None:
    """Each ends with 0."""
    for line in lines:
        script, *arguments = shlex.split(line)
        module = import_module(script.removesuffix(".py").replace("/", "."))
        print("=====", line, flush=True)
        assert module.main(arguments) == 0, line


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def timed(rows: list[dict], suite: str, dtype: str, operation: str) -> dict[str, dict]:
    """contender -> row, of the last case."""
    chosen = (row for row in rows if (row["suite"], row["dtype"]) == (suite, dtype) and "milliseconds" in row)
    return {row["contender"]: row for row in chosen if row["operation"] == operation}


def everybody_took_part(rows: list[dict]) -> None:
    assert not [row for row in rows if "failed" in row], [row["failed"] for row in rows if "failed" in row]
    theirs = {"cuDNN best plan"} | ({"PyTorch nhwc", "PyTorch nchw"} if find_spec("torch") else set())
    for dtype in ("float16", "bfloat16", "float32", "tf32"):
        for verb in ("conv2d_forward", "conv2d_backward_input", "conv2d_backward_weight"):
            found = timed(rows, "conv2d", dtype, verb)
            assert {"cuda", *theirs} <= found.keys(), (dtype, verb, found.keys())
            assert dtype == "tf32" or {"cuda tuned"} < found.keys()
            row = found["cuDNN best plan"]
            assert row["plans"] == row["plans_timed"] + row["plans_refused"] == len(cudnn.PLANS)
            assert row["plan"] == ("eng4_quick" if dtype == "float32" else "eng5_tensor_core"), (dtype, row["plan"])
            assert row["plans_untried"] == 0
            assert row["allow_tf32"] == (dtype == "tf32")
            if find_spec("torch"):
                assert found["PyTorch nhwc"]["allow_tf32"] == (dtype == "tf32")
        if dtype != "tf32":
            found = timed(rows, "conv2d_bias_relu", dtype, "conv2d_bias_relu")
            assert {"cuda", *theirs} <= found.keys(), (dtype, found.keys())
    suites = {row["suite"] for row in rows if "milliseconds" in row}
    short = {"pool2d", "activation", "norm", "binary", "overhead", "lenet5", "ladder"}
    assert short | {"networks", "cifar10"} <= suites, suites
    for dtype in ("float16", "bfloat16"):
        found = timed(rows, "networks", dtype, "training step")
        assert {"cuda", "cuda graph"} <= found.keys(), (dtype, found.keys())
        assert "PyTorch nhwc" in found or not find_spec("torch")
    found = timed(rows, "cifar10", "float16", "train and test")
    assert len(found["cuda"]["accuracy"]) == 1, found
    rungs = {row["contender"] for row in rows if row["suite"] == "ladder" and "milliseconds" in row}
    assert {"cuda direct", "cuda tiled", "cuda implicit_gemm", "cuda implicit_gemm_mma"} <= rungs, rungs
    assert any(row["contender"].startswith("numba") and "absent" in row for row in rows if row["suite"] == "ladder")
    overhead = [row for row in rows if row["suite"] == "overhead" and "milliseconds" in row]
    assert {row["timer"] for row in overhead} == {"wall clock, not waiting for the GPU"}
    assert all(row["gpu"] == "Fake 9000, 580.1" for row in rows)
    peaks = {row["dtype"] for row in rows if row["suite"] == "peaks"}
    assert peaks == ({"float32", "tf32", "float16", "bfloat16"} if find_spec("torch") else {"float32", "float16"})


def the_emulator_is_what_it_is(rows: list[dict]) -> None:
    probes = [row for row in rows if row["dtype"] == "probe" and "agrees" in row]
    assert len(probes) == 3, probes
    assert all(row["identical"] and row["launches"] for row in probes), probes


def a_wrong_contender_is_refused(output: Path) -> None:
    right = cudnn.PLANS
    cudnn.PLANS = (("eng0_wrong", cudnn.numerical_note.WINOGRAD, 0.0, 0),)  # rounds to ten bits
    try:
        assert run.main([*ONE, "--output", str(output)]) == 1
    finally:
        cudnn.PLANS = right
    rows = rows_of(output)
    (refused,) = (row for row in rows if "failed" in row)
    assert refused["contender"] == "cuDNN best plan"
    assert refused["failed"].startswith("refused: cuDNN best plan differs from cuda by 2.0e-03 (relative)"), refused
    assert {"cuda", "cuda implicit_gemm"} <= {row["contender"] for row in rows if "milliseconds" in row}


def a_contender_without_plans_is_absent(output: Path) -> None:
    right = cudnn.PLANS
    cudnn.PLANS = right[:1]
    try:
        assert run.main([*ONE, "--output", str(output)]) == 0
    finally:
        cudnn.PLANS = right
    reasons = {row["contender"]: row["absent"] for row in rows_of(output) if "absent" in row}
    assert reasons["cuDNN best plan"] == "RuntimeError: none of cuDNN's 1 plans runs: no such engine", reasons


def plans_that_take_too_long_are_counted(output: Path) -> None:
    contender.PLAN_SECONDS, limit = -1.0, contender.PLAN_SECONDS
    try:
        assert run.main([*ONE, "--output", str(output)]) == 0
    finally:
        contender.PLAN_SECONDS = limit
    reasons = {row["contender"]: row["absent"] for row in rows_of(output) if "absent" in row}
    assert reasons["cuDNN best plan"] == "RuntimeError: none of cuDNN's 6 plans runs: none was tried", reasons


def tf32_is_not_float32(output: Path) -> None:
    """Where the notes did not exclude them, a plan that rounds would win, and its result be refused."""
    notes, contender.ROUNDING = contender.ROUNDING, ()
    try:
        assert run.main([*ONE, "--output", str(output)]) == 1
    finally:
        contender.ROUNDING = notes
    assert [row["contender"] for row in rows_of(output) if "failed" in row] == ["cuDNN best plan"]


def what_is_not_written_is_seen() -> None:
    y = cupy.empty((1, 2, 2, 3), "float32")
    y.fill(1)
    lazy = device.rerun_into_nan(lambda: y)  # a kernel that writes nothing, into the memory of the last result
    assert np.isnan(cupy.asnumpy(lazy(y))).all()


def a_run_goes_on(output: Path) -> None:
    """Half a line is cut off, a race that is there is not run again, one that was started twice is given up."""
    go_on = [*ONE, "--resume", "--output", str(output)]
    output.unlink()
    assert run.main(go_on) == 0
    whole = rows_of(output)
    with output.open("a") as file:
        file.write('{"suite": "conv2d", "oper')
    assert run.main(go_on) == 0
    assert rows_of(output) == whole
    started = [row for row in whole if row.get("started")]
    assert len(started) == 1
    peaks = [row for row in whole if row["suite"] == "peaks"]
    output.write_text("".join(json.dumps(row) + "\n" for row in [*peaks, *started]))
    assert run.main(go_on) == 0
    assert any("milliseconds" in row for row in rows_of(output))
    output.write_text("".join(json.dumps(row) + "\n" for row in [*peaks, *started, *started]))
    assert run.main(go_on) == 1
    assert rows_of(output)[-1]["failed"] == resume.STUCK
    assert run.main(go_on) == 0


def a_lost_context_ends_the_process(output: Path) -> None:

    def broken() -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    def failing(*arguments: object) -> None:
        raise RuntimeError("cudaErrorIllegalAddress")

    works, race = cupy.cuda.Device, run.race
    output.unlink()
    cupy.cuda.Device = lambda: SimpleNamespace(synchronize=broken)
    run.race = failing
    try:
        assert run.main([*ONE, "--resume", "--output", str(output)]) == resume.LOST
    finally:
        cupy.cuda.Device, run.race = works, race
    assert rows_of(output)[-1]["failed"] == "RuntimeError: cudaErrorIllegalAddress"
    assert run.main([*ONE, "--resume", "--output", str(output)]) == 0  # goes on behind it


def a_hanging_check_is_given_up(output: Path) -> None:
    """As above, of bench/emulator_vs_gpu.py."""
    command = ["--resume", "--few", "--probes", "1", "--at-most", "1", "--output", str(output)]
    output.unlink()
    assert emulator_vs_gpu.main(command) == 0
    first = next(row for row in rows_of(output) if row.get("started"))
    output.write_text(2 * (json.dumps(first) + "\n"))
    assert emulator_vs_gpu.main(command) == 1
    given_up = [row for row in rows_of(output) if row.get("failed")]
    assert [row["failed"] for row in given_up] == [resume.STUCK]
    assert sum("agrees" in row for row in rows_of(output)) == 2


benchmarks = [line for line in Path(sys.argv[1]).read_text().splitlines() if line.startswith("bench/")]
folder = Path(sys.argv[2])
compiling = [line for line in benchmarks if line.startswith("bench/compile_kernels.py")]
if nvrtc.problem() is None:  # and it starts processes, which is done before there are threads
    commands(compiling)
machine.install()
commands([line for line in benchmarks if line not in compiling])
everybody_took_part(rows_of(folder / "gpu.jsonl"))
the_emulator_is_what_it_is(rows_of(folder / "emulator_vs_gpu.jsonl"))
other = folder / "other.jsonl"
a_wrong_contender_is_refused(other)
a_contender_without_plans_is_absent(other)
plans_that_take_too_long_are_counted(other)
tf32_is_not_float32(other)
what_is_not_written_is_seen()
a_run_goes_on(other)
a_lost_context_ends_the_process(other)
a_hanging_check_is_given_up(other)
print("done")
