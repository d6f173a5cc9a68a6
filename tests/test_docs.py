"""The documentation is true: its Python runs, its links lead somewhere, its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnnengine import backends
from cnnengine.shapes import Conv2dShape

from .lines import ROOT
from .test_layout import STEMS

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
MAKE = re.compile(r"\bmake (demo|test|bench|lint|docs|wheel|clean|[a-z]+)\b")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def python_blocks(text: str) -> list[str]:
    return [body for language, body in FENCE.findall(text) if language == "python"]


def anchors(text: str) -> set[str]:
    """The names GitHub gives to headings: lower case, punctuation dropped, spaces to hyphens."""
    outside = FENCE.sub("", text)
    headings = re.findall(r"^#+ +(.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [p for p in PAGES if python_blocks(p.read_text(encoding="utf-8"))], ids=name)
def test_python_on_the_page_runs(page: Path, tmp_path: Path) -> None:
    """A page's blocks run in order, as one program, in an empty folder."""
    program = tmp_path / "page.py"
    program.write_text("\n".join(python_blocks(page.read_text(encoding="utf-8"))), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    command = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{name(page)}:\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link, picture in LINK.findall(FENCE.sub("", text)):
        target = link or picture
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        aim = (page.parent / path).resolve() if path else page
        assert aim.exists(), f"{name(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(aim.read_text(encoding="utf-8")), f"{name(page)}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    quoted = [body for language, body in FENCE.findall(text) if language in ("", "sh", "bash", "console")]
    quoted += re.findall(r"`([^`\n]+)`", text)
    for piece in quoted:
        assert {m for m in MAKE.findall(piece) if piece.strip().startswith("make")} <= targets, f"{name(page)}: {piece}"


def pages_linked_from(page: Path) -> set[Path]:
    links = (link.partition("#")[0] for link, _ in LINK.findall(page.read_text(encoding="utf-8")))
    return {(page.parent / link).resolve() for link in links if link.endswith(".md") and not link.startswith("http")}


def test_every_page_is_reached_from_the_index() -> None:
    """From the index itself, and the steps of the course from its first page."""
    linked = pages_linked_from(ROOT / "docs/index.md") | pages_linked_from(ROOT / "docs/ladder.md")
    missing = [name(p) for p in (ROOT / "docs").rglob("*.md") if p.name != "index.md" and p.resolve() not in linked]
    assert missing == []


@pytest.mark.parametrize("stem", STEMS)
def test_kernel_pages_say_the_same_things(stem: str) -> None:
    """What it computes, where it is, its rungs, its roofline, how to run it."""
    text = (ROOT / f"docs/kernels/{stem}.md").read_text(encoding="utf-8")
    headings = [h.strip() for h in re.findall(r"^## (.*)$", text, re.MULTILINE)]
    assert headings[:4] == ["Where it is", "Rungs", "Roofline", "Run it"]


def test_conv2d_page_names_every_algorithm() -> None:
    pages = "".join(p.read_text(encoding="utf-8") for p in (ROOT / "docs/kernels").glob("conv2d*.md"))
    for backend, reason in backends.available().items():
        if reason is None:
            for names in backends.get(backend).algorithms.values():
                assert all(f"`{algorithm}`" in pages for algorithm in names), f"{backend}: {names}"


def test_the_recipe_names_files_that_operations_have() -> None:
    """Every file that the recipe asks for exists for an operation that went through it."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+hardtanh\.\w+)`", text))
    assert len(files) >= 7
    missing = [f for f in files if not (ROOT / f.replace("hardtanh", "activation")).is_file()]
    assert missing == []


def test_glossary_has_the_letters() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    letters = [field for field in Conv2dShape.__dataclass_fields__ if field != "packed"]
    assert all(f"`{letter}`" in text for letter in letters)


def test_the_readme_example_is_about_twenty_lines() -> None:
    (example,) = python_blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(example.strip().splitlines()) <= 25


def test_extractor_sees_python_alone() -> None:
    text = "```python\na = 1\n```\ntext\n```sh\nls\n```\n```python\nb = 2\n```\n"
    assert python_blocks(text) == ["a = 1\n", "b = 2\n"]
    assert anchors("# Two words\n```\n# no heading\n```\n## `code`, more!\n") == {"two-words", "code-more"}
