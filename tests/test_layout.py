"""One stem, every room: an operation's files carry the same name wherever they lie, and no file outgrows its budget."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .lines import CORE_BUDGET, FILE_BUDGET, ROOT, core_lines, oversized, sources

STEMS = (
    "conv2d",
    "pool2d",
    "activation",
    "binary",
    "reduce",
    "gemm",
    "norm",
    "softmax_cross_entropy",
    "dropout",
    "optimizer_step",
    "normalize_images",
)
COMPOSED = {"layout", "conv2d_batch_norm", "drop_path", "local_response_norm"}  # of the kernels of others
BENCHMARKED = set(STEMS) - {"reduce", "gemm"}  # sums are timed with the bias of `binary`, products with LeNet-5
ROOMS = {
    "functional": "cnnengine/functional/{}.py",
    "numpy": "cnnengine/backends/numpy/{}.py",
    "native": "csrc/cpu/{}.inl",
    "cuda": "csrc/cuda/{}.cuh",
    "numba": "kernels/{}.py",
    "test": "tests/test_{}.py",
    "page": "docs/kernels/{}.md",
}
WITHOUT = {("optimizer_step", "functional")}  # lives in optim/: it changes parameters in place and has no derivative
TOP_LEVEL = {"kernels", "cnnengine", "csrc", "bench", "tests", "docs", "examples", ".ci"}


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("stem", STEMS)
def test_every_stem_has_every_room(stem: str, room: str) -> None:
    path = ROOT / ROOMS[room].format(stem)
    if (stem, room) in WITHOUT:
        assert not path.exists(), f"{path.name} exists: take it off the exceptions"
    else:
        assert path.is_file(), f"{stem} lacks {path.relative_to(ROOT)}"


@pytest.mark.parametrize("stem", sorted(BENCHMARKED))
def test_what_costs_time_is_benchmarked(stem: str) -> None:
    assert (ROOT / f"bench/bench_{stem}.py").is_file()


def test_every_operation_is_listed_here() -> None:
    functional = {p.stem for p in (ROOT / "cnnengine/functional").glob("*.py") if not p.stem.startswith("_")}
    assert functional - COMPOSED <= set(STEMS), "a new operation: add its stem to STEMS"


def test_no_file_outgrows_its_budget() -> None:
    assert oversized() == {}, f"more than {FILE_BUDGET} lines"


def test_the_core_stays_small() -> None:
    assert core_lines() < CORE_BUDGET


def test_the_line_counter_runs() -> None:
    done = subprocess.run([sys.executable, "tests/lines.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[0].split() == ["room", "files", "lines"]


def test_top_level_is_fixed() -> None:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    folders = {line.split("/")[0] for line in done.stdout.splitlines() if "/" in line}
    assert folders <= TOP_LEVEL


def test_sources_are_utf8_and_end_with_a_newline() -> None:
    for path in sources():
        text = (ROOT / path).read_bytes()
        assert not text or text.endswith(b"\n"), f"{path} does not end with a newline"
        text.decode("utf-8")
