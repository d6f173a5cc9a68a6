"""What `make lint` checks, as tests where the tools are installed; and a few rules that no tool knows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from .lines import ROOT, sources

BLANKET = re.compile(r"#\s*(noqa|type:\s*ignore|mypy:\s*ignore-errors|ruff:\s*noqa)\s*(?![:\[(\w])")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
ABSOLUTE = re.compile(r"(?<![\w.])/(root|home|work|Users)/\w")  # a path of somebody's machine
THIS = Path(__file__).relative_to(ROOT)
CPP = (".h", ".inl", ".cuh", ".cpp", ".c")


def tool(name: str) -> str:
    """The tool beside this Python or on the PATH; the test is skipped where it is missing."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (pip install 'cnnengine[dev]')")
    return found


def passes(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_ruff() -> None:
    passes(tool("ruff"), "check", "--no-cache", "--output-format", "concise", ".")


def test_mypy_strict() -> None:
    tool("mypy")
    passes(sys.executable, "-m", "mypy")


def test_clang_format() -> None:
    files = [str(p) for p in sources() if p.suffix in CPP]
    passes(tool("clang-format"), "--dry-run", "-Werror", *files)


def project_texts() -> list[Path]:
    """Sources, pages and settings, but for this file, whose patterns would find themselves."""
    pages = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("*.toml"),
        ROOT / "Makefile",
        ROOT / ".ci/run",
    ]
    return [p for p in (*sources(), *(page.relative_to(ROOT) for page in pages)) if p != THIS]


def matches(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_no_suppression_without_a_code() -> None:
    assert matches(BLANKET, [p for p in project_texts() if p.suffix == ".py"]) == []


def test_nothing_unfinished() -> None:
    assert matches(UNFINISHED, project_texts()) == []


def test_no_machine_paths() -> None:
    assert matches(ABSOLUTE, project_texts()) == []


@pytest.mark.parametrize("line", ["x = 1  # noqa", "x = 1  # type: ignore", "# ruff: noqa"])
def test_blanket_pattern_finds(line: str) -> None:
    assert BLANKET.search(line)


@pytest.mark.parametrize("line", ["x = 1  # noqa: E501", "x = f()  # type: ignore[arg-type]"])
def test_blanket_pattern_lets_codes_pass(line: str) -> None:
    assert not BLANKET.search(line)
