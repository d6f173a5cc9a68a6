"""What the pages of the course say to run, and what they say it prints."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from .lines import ROOT

PAGES = [ROOT / "docs/ladder.md", *sorted((ROOT / "docs/ladder").glob("*.md"))]
BLOCK = re.compile(r"^```sh\n(?P<commands>.*?)^```\n(?:\n?^```text\n(?P<output>.*?)^```)?", re.MULTILINE | re.DOTALL)
PROGRAMS = ("python", "cnnengine")
GAP = "..."
BY_COMPILER = re.compile(r"\bregisters,|\boccupancy\b|\binstructions: |\bmain loop\b|\bmost are\b")


@dataclass(frozen=True)
class Example:
    """``output``: None where the page shows none."""

    page: Path
    command: tuple[str, ...]
    output: str | None

    def __str__(self) -> str:
        return f"{self.page.stem}: {shlex.join(self.command)}"


def examples(page: Path) -> list[Example]:
    """The commands of a page that can be run here: not those that install or build. A block whose output is shown has
    one command."""
    found = []
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        lines = block["commands"].replace("\\\n", " ").strip().splitlines()
        commands = [tuple(shlex.split(line, comments=True)) for line in lines]
        if block["output"] is not None:
            assert len(commands) == 1, f"{page.name}: one command for the output below it, not {lines}"
        found += [Example(page, command, block["output"]) for command in commands if command[0] in PROGRAMS]
    return found


def without_compiled(text: str) -> str:
    """The lines that say what a version of the CUDA compiler made are left out."""
    return "\n".join(line for line in text.splitlines() if not BY_COMPILER.search(line))


def difference(shown: str, printed: str) -> str | None:
    """None where what was printed is what the page shows, else the first line of the page that is not there.

    Spaces may be more or fewer. ``...`` stands for the rest of a line, or between lines for any number of lines.
    """
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    lines = [line for line in lines if line]
    at, gap = 0, False
    for wanted in (" ".join(line.split()) for line in shown.splitlines()):
        if wanted == GAP:
            gap = True
        elif wanted:
            pattern = re.compile(".*".join(map(re.escape, wanted.split(GAP))))
            candidates = range(at, len(lines)) if gap else range(at, min(at + 1, len(lines)))
            place = next((i for i in candidates if pattern.fullmatch(lines[i])), None)
            if place is None:
                found = lines[at] if at < len(lines) else "nothing more"
                return f"the page shows {wanted!r}, printed was {found!r}"
            at, gap = place + 1, False
    return None if gap or at == len(lines) else f"printed, but not on the page: {lines[at]!r}"
