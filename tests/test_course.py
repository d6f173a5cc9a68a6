"""The course's commands run, one page after the other, and print what the pages say; without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path

import pytest

from cnnengine.backends.registry import unavailable
from cnnengine.jit import host

from .course import PAGES, Example, difference, examples, without_compiled
from .lines import ROOT

REASON = unavailable("emulator")
NO_GCC = REASON is None and not host.can_count(host.compiler())
EXAMPLES = [example for page in PAGES for example in examples(page)]


def compiler() -> str:
    """Of CUDA C++: 13.1, or "" where there is none."""
    try:
        return ".".join(version("nvidia-cuda-nvrtc").split(".")[:2])
    except PackageNotFoundError:
        return ""


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.skipif(NO_GCC, reason="the counters need g++")
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_command_prints_what_the_page_shows(example: Example, tmp_path: Path) -> None:
    """In an empty folder beside the examples. Registers and instructions are compared where the CUDA compiler is the
    one that the course was written with."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    program, *arguments = example.command
    command = [sys.executable, *(["-m", "cnnengine"] if program == "cnnengine" else []), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if example.output is None:
        return
    shown, printed = example.output, done.stdout
    if f"NVRTC {compiler()}," not in PAGES[0].read_text(encoding="utf-8"):
        shown, printed = without_compiled(shown), without_compiled(printed)
    assert difference(shown, printed) is None


def test_every_step_has_a_command_and_an_exercise() -> None:
    for page in PAGES[1:]:
        text = page.read_text(encoding="utf-8")
        assert any(example.output for example in examples(page)), f"{page.name} runs nothing"
        assert "<details>" in text, f"{page.name} has no exercise"
        assert text.count("<details>") == text.count("</details>") == text.count("<summary>Answer</summary>")


def test_steps_are_linked_in_order() -> None:
    """Each from the table of contents, and from the step before it."""
    contents = PAGES[0].read_text(encoding="utf-8")
    places = [contents.index(f"](ladder/{page.name})") for page in PAGES[1:]]
    assert places == sorted(places)
    for page, following in pairwise(PAGES[1:]):
        assert page.read_text(encoding="utf-8").rstrip().endswith(f"]({following.name})"), f"{page.name}: what is next?"


def test_large_numbers_in_the_text_are_those_of_the_examples() -> None:
    """Of four digits and more: each stands in what a command prints, or in Python that is run (tests/test_docs.py)."""
    fence = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    number = re.compile(r"(?<![\w.])(?:\d{1,3}(?:[,_]\d{3})+|\d{4,})\b")
    texts = {page.name: page.read_text(encoding="utf-8") for page in PAGES[1:]}
    ran = {n for text in texts.values() for block in fence.findall(text) for n in map(digits, number.findall(block))}
    said = {(name, n) for name, text in texts.items() for n in map(digits, number.findall(fence.sub("", text)))}
    assert len(said) > 30
    assert sorted((name, n) for name, n in said if n not in ran) == []


def digits(number: str) -> int:
    return int(number.replace(",", "").replace("_", ""))


def test_words_that_the_course_introduces_are_in_the_glossary() -> None:
    """Those in bold: a word or two, in lower case or all capitals."""
    glossary = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").lower()
    bold = {word for page in PAGES for word in re.findall(r"\*\*([a-z][a-z -]{2,18}|TMA)\*\*", page.read_text("utf-8"))}
    assert len(bold) > 12
    assert [word for word in bold if word.lower().removesuffix("s") not in glossary] == []


def test_difference_finds_a_wrong_number() -> None:
    printed = "a  1\nb 2\n\nc 3 of 4\nd 5\n"
    for right in ("a 1\nb 2\nc 3 of 4\nd 5", "a 1\n...\nd  5", "...\nc 3 ...\n...", "a 1\nb 2\nc ... 4\nd 5"):
        assert difference(right, printed) is None
    for wrong in ("a 2\n...", "a 1\nc 3 of 4\n...", "a 1\nb 2", "...\nd 5\nc 3 of 4", "...\nc 4 ...\n...", "...\ne 1"):
        assert difference(wrong, printed) is not None


def test_lines_of_the_compiler_are_left_out() -> None:
    text = "kernel\n  151 registers, 0 bytes spilled\n  main loop, 207: LDG 128\nall 3"
    assert without_compiled(text) == "kernel\nall 3"
