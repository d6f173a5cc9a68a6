"""bench/gpu_run.sh without a GPU: which commands it gives, what it does where they fail, last too long or were run by
an earlier call, and those commands themselves on the fake GPU of tests/fake_gpu."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench import emulator_probes
from bench.task import Prepared, Task, check_agreement
from cnnengine.backends.registry import unavailable
from cnnengine.jit import host
from cnnengine.jit.cache import default_folder

from .lines import ROOT

FAKE_GPU = ROOT / "tests/fake_gpu"
MEASURING = (
    *("conv2d-float16", "fused-float16", "conv2d-float32", "conv2d-bfloat16", "conv2d-tf32", "fused-others"),
    *("memory-bound", "launch-cost", "lenet5", "networks", "cifar10", "ladder"),
)
SANITIZERS = ("memcheck", "racecheck", "synccheck", "initcheck")
CHECKING = ("backends", "emulator-vs-gpu", "tests-cuda", "tests-numba")
EVERY = {
    *("environment", "build", "compile", "tune-float16", "tune-float32", "tune-bfloat16"),
    *(MEASURING + SANITIZERS + CHECKING),
}


@dataclass(frozen=True)
class Call:
    """One call of the script."""

    status: int
    printed: str
    out: Path

    @property
    def commands(self) -> list[list[str]]:
        file = self.out.parent / "commands"
        return [shlex.split(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def ended(self) -> dict[str, str]:
        """stage -> how it ended, the last time"""
        rows = map(json.loads, (self.out / "stages.jsonl").read_text().splitlines())
        return {row["stage"]: row["status"] for row in rows}


def call(folder: Path, **environment: str) -> Call:
    """The script with a Python that only notes what it is asked for (tests/fake_gpu/bin)."""
    out = Path(environment.get("OUT", folder / "out"))
    settings = {
        "PATH": f"{FAKE_GPU / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "REAL_PYTHON": sys.executable,
        "COMMANDS": str(out.parent / "commands"),
        "OUT": str(out),
        "SITE": str(folder / "site"),
        "SMOKE": "1",
        "CNNENGINE_CACHE": str(folder / "cache"),
    }
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHON", "TOTAL", "STAGES", "RESUME", "PYTHONPATH")}
    done = subprocess.run(
        ["bash", "bench/gpu_run.sh"],
        cwd=ROOT,
        env=kept | settings | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Call(done.returncode, done.stdout + done.stderr, out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Call:
    folder = tmp_path_factory.mktemp("whole")
    (folder / "out").mkdir()
    (folder / "out/gpu.jsonl").touch()  # of which a report is made
    return call(folder)


def test_every_stage_runs_in_one_call(whole: Call) -> None:
    assert whole.status == 0, whole.printed
    assert set(whole.ended) == EVERY | {"report"}
    assert set(whole.ended.values()) == {"ok"}
    assert "left for the next call: nothing" in whole.printed
    table = (whole.out / "table.md").read_text()
    assert all(f"| {stage} | ok |" in table for stage in EVERY)


def test_every_command_names_files_that_exist(whole: Call) -> None:
    for command in whole.commands:
        script = command[0]
        assert script in ("-m", "setup.py") or (ROOT / script).exists(), command
        if command[:2] == ["-m", "pytest"]:
            ignored = [command[i + 1] for i, word in enumerate(command) if word == "--ignore"]
            assert ignored
            assert all((ROOT / name).exists() for name in ignored), ignored


def test_pytest_takes_the_options(whole: Call) -> None:
    (first, *_) = (c for c in whole.commands if c[:2] == ["-m", "pytest"])
    command = ["tests/test_shapes.py" if word == "tests" else word for word in first]
    done = subprocess.run(
        [sys.executable, *command, "--collect-only", "-q"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_a_stage_that_fails_stops_no_other(tmp_path: Path) -> None:
    failed = call(tmp_path, PLANTED="bench/tune.py", PLANTED_STATUS="7")
    assert failed.status == 1
    assert {k for k, v in failed.ended.items() if v == "failed (7)"} == {
        "tune-float16",
        "tune-float32",
        "tune-bfloat16",
    }
    assert {v for k, v in failed.ended.items() if not k.startswith("tune")} == {"ok"}
    assert set(failed.ended) == EVERY


def test_without_a_build_nothing_else_runs(tmp_path: Path) -> None:
    failed = call(tmp_path, PLANTED="setup.py")
    assert failed.ended["build"] == "failed (1)"
    rest = EVERY - {"environment", "build"}
    assert {failed.ended[name] for name in rest} == {"not run: there is no build"}
    assert failed.status == 1


def test_without_time_every_stage_is_named_and_left(tmp_path: Path) -> None:
    nothing = call(tmp_path, TOTAL="0")
    assert set(nothing.ended) == EVERY
    assert all(status.startswith("not run") for status in nothing.ended.values())
    assert nothing.status == 1
    assert nothing.commands == []


def test_a_lost_context_is_tried_again_behind_the_race(tmp_path: Path) -> None:
    lost = call(tmp_path, PLANTED="bench/run.py", PLANTED_STATUS="3", STAGES="conv2d-float16")
    assert lost.ended["conv2d-float16"] == "failed (3)"
    assert len([c for c in lost.commands if c[0] == "bench/run.py"]) == 6


def test_the_next_call_goes_on(tmp_path: Path) -> None:
    """What was done is not repeated, what the total cut off is; build and compile are, for the machine may be new."""
    some = "backends conv2d-float16 conv2d-float32"
    first = call(tmp_path, PLANTED="conv2d --dtype float16", PLANTED_SECONDS="30", TOTAL="6", STAGES=some)
    assert first.ended["backends"] == "ok"
    assert first.ended["conv2d-float16"] == "goes on in the next call"
    assert first.ended["conv2d-float32"] == "not run: the total of 6 s was used up"
    assert first.status == 1
    assert "left for the next call: conv2d-float16, conv2d-float32" in first.printed
    (tmp_path / "commands").unlink()
    second = call(tmp_path)
    assert second.status == 0, second.printed
    scripts = [" ".join(command) for command in second.commands]
    assert "-m cnnengine backends" not in scripts
    assert any(s.startswith("setup.py") for s in scripts)
    assert any(s.startswith("bench/compile_kernels.py") for s in scripts)
    assert any(s.startswith("bench/run.py conv2d --dtype float16") for s in scripts)
    assert set(second.ended.values()) == {"ok"}


def test_what_came_out_of_a_call_is_taken_along(tmp_path: Path) -> None:
    first = call(tmp_path, STAGES="build backends")
    (first.out / "autotune.json").write_text("{}")
    (first.out / "gpu.jsonl").write_text("")
    second = call(
        tmp_path, OUT=str(tmp_path / "later/out"), RESUME=str(first.out), STAGES="build backends tune-float16"
    )
    assert ["-m", "cnnengine", "backends"] not in second.commands
    assert (second.out / "autotune.json").read_text() == "{}"
    assert (second.out / "gpu.jsonl").exists()
    assert second.ended["tune-float16"] == "ok"


def test_a_stage_has_a_limit_of_its_own(tmp_path: Path) -> None:
    """Here shortened in a copy of the script; one that can go on is left for the next call, another is not."""
    for limit, name, status in (
        ("once backends 60", "backends", "stopped at its time limit"),
        ("once conv2d-float16 400", "conv2d-float16", "goes on in the next call"),
    ):
        text = (ROOT / "bench/gpu_run.sh").read_text()
        assert limit in text
        (tmp_path / "bench").mkdir(exist_ok=True)
        script = tmp_path / "bench/gpu_run.sh"
        script.write_text(text.replace(limit, limit.rsplit(" ", 1)[0] + " 1"))
        environment = os.environ | {
            "PATH": f"{FAKE_GPU / 'bin'}:/usr/bin:/bin",
            "REAL_PYTHON": sys.executable,
            "COMMANDS": str(tmp_path / "commands"),
            "OUT": str(tmp_path / name),
            "SITE": str(tmp_path / "site"),
            "STAGES": name,
            "PLANTED": "cnnengine backends" if name == "backends" else "bench/run.py",
            "PLANTED_SECONDS": "20",
        }
        subprocess.run(["bash", str(script)], env=environment, capture_output=True, timeout=60, check=False)
        assert Call(1, "", tmp_path / name).ended[name] == status


def test_what_is_wrong_is_refused_and_what_breaks_left_out() -> None:
    """Right is what at least half of the others agree with: here the first is wrong."""
    import numpy as np

    task = Task("relu_forward", "planted", lambda rng: {}, ours={}, torch={})

    def of(value: float) -> Prepared:
        return Prepared(lambda: np.full((1, 2, 2, 3), value), np.asarray)

    three = {"ours": of(2.0), "broken": Prepared(lambda: 1 // 0, np.asarray), "cuDNN": of(1.0), "torch": of(1.0)}
    left_out: dict[str, str] = {}
    assert list(check_agreement(task, three, left_out)) == ["cuDNN", "torch"]
    assert left_out["ours"].startswith("refused: ours differs from cuDNN by 1.0e+00")
    assert left_out["broken"].startswith("ZeroDivisionError")
    left_out.clear()
    assert list(check_agreement(task, {"ours": of(1.0), "nan": of(np.nan)}, left_out)) == ["ours"]
    assert left_out.keys() == {"nan"}
    with pytest.raises(ArithmeticError, match="no contender works"):
        check_agreement(task, {"broken": three["broken"]}, left_out)


def test_the_probes_are_tests_of_right_kernels() -> None:
    found = list(emulator_probes.probes())
    assert len(found) > 100
    assert {probe.name for probe in found} == {name for names in emulator_probes.PROBES.values() for name in names}
    assert len({probe.label for probe in found}) == len(found)
    assert set(emulator_probes.EXPLAINED) <= {probe.name for probe in found}


@pytest.mark.skipif(unavailable("emulator") is not None, reason=str(unavailable("emulator")))
def test_every_command_works_on_the_fake_gpu(whole: Call, tmp_path: Path) -> None:
    """Everything but the launch: data, contenders, checks, timers, rows, what is resumed and what is refused."""
    driver = tmp_path / "libcuda.so"
    source = str(FAKE_GPU / "libcuda.cpp")
    subprocess.run([*host.compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", source, "-o", str(driver)], check=True)
    environment = os.environ | {
        "CNNENGINE_LIBCUDA": str(driver),
        "CNNENGINE_CACHE": str(default_folder()),
        "PYTHONPATH": os.pathsep.join((str(FAKE_GPU), str(ROOT))),
        "PATH": f"{FAKE_GPU / 'bin'}:{os.environ['PATH']}",
    }
    environment.pop("CNNENGINE_BACKEND", None)
    command = [sys.executable, str(FAKE_GPU / "dry_run.py"), str(whole.out.parent / "commands"), str(whole.out)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert done.stdout.endswith("done\n")
    assert "| cuda, ms |" in (whole.out / "report.md").read_text()
