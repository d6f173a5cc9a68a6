"""What an inspection finds: numbers, texts, and reasons for what is missing."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..jit.counters import Counts
from .emulated import Emulated
from .machine_code import MachineCode
from .measured import Measured
from .occupancy import Occupancy
from .problem import Problem, Size3
from .roofline import Bound


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch. ``registers`` are a thread's, ``spill_bytes`` and ``static_shared`` bytes too; None where nothing
    could compile it. ``waves``: its blocks over those that the GPU holds at once."""

    name: str
    expression: str
    file: str
    grid: Size3 | None
    block: Size3 | None
    cluster: Size3 | None
    dynamic_shared: int
    registers: int | None = None
    spill_bytes: int | None = None
    static_shared: int | None = None
    occupancy: Occupancy | None = None
    waves: float | None = None
    code: MachineCode | None = None
    source: str = field(default="", repr=False)
    ptx: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Inspection:
    """``kernels`` in the order of their launches. ``missing``: what could not be found out, and why. ``emulated`` and
    ``measured`` are None where nothing ran."""

    problem: Problem
    set: str  # cuda, numba or native
    algorithm: str | None  # of a convolution, the rung that was named or chosen
    arch: str
    kernels: list[Kernel]
    bound: Bound | None
    emulated: Emulated | None
    measured: Measured | None
    missing: dict[str, str]

    def text(self) -> str:
        """The report, as the command prints it."""
        from .report import text

        return text(self)

    def numbers(self) -> dict[str, Any]:
        """Everything but the texts, for JSON."""
        p = self.problem
        return {
            "call": p.verb,
            "operands": {name: {"shape": o.shape, "dtype": o.dtype} for name, o in p.operands.items()},
            "request": asdict(p.request),
            "set": self.set,
            "algorithm": self.algorithm,
            "arch": self.arch,
            "flops": p.flops,
            "bytes": p.nbytes,
            "intensity": p.intensity,
            "kernels": [_without_texts(asdict(kernel)) for kernel in self.kernels],
            "bound": asdict(self.bound) if self.bound else None,
            "emulated": _emulated(self.emulated) if self.emulated else None,
            "measured": asdict(self.measured) if self.measured else None,
            "missing": self.missing,
        }

    def save(self, folder: str | Path) -> Path:
        """Writes report.txt, report.json, and of each kernel its source, PTX and machine code. Returns the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.txt").write_text(self.text() + "\n")
        (folder / "report.json").write_text(json.dumps(self.numbers(), indent=1) + "\n")
        for number, kernel in enumerate(self.kernels, 1):
            stem = f"{number}-{re.sub(r'[^a-z0-9_]+', '_', kernel.name.lower())}"
            suffix = {"cuda": ".cu", "numba": ".py", "native": ".txt"}[self.set]
            texts = {suffix: kernel.source, ".ptx": kernel.ptx}
            texts[".asm" if self.set == "native" else ".sass"] = kernel.code.listing if kernel.code else ""
            for ending, content in texts.items():
                if content:
                    (folder / (stem + ending)).write_text(content)
        return folder


def _without_texts(kernel: dict[str, Any]) -> dict[str, Any]:
    code = kernel["code"]
    kept = {name: value for name, value in kernel.items() if name not in ("source", "ptx")}
    return kept | {"code": code and {name: value for name, value in code.items() if name != "listing"}}


def _emulated(emulated: Emulated) -> dict[str, Any]:
    counters = emulated.counters
    return {
        "what": emulated.what,
        "whole": emulated.whole,
        "kernels": emulated.kernels,
        "differs": emulated.differs,
        "total": _counts(counters.total),
        "lines": {place: _counts(counts) for place, counts in counters.lines.items()},
    }


def _counts(counts: Counts) -> dict[str, dict[str, Any]]:
    """Of what was counted at all; ``sizes`` with their bytes as text."""
    parts = {part.name: getattr(counts, part.name) for part in fields(counts)}
    return {
        name: {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
        for name, part in parts.items()
        if part.requests
    }


def _plain(value: int | Counter[int]) -> int | dict[str, int]:
    return {str(size): n for size, n in value.items()} if isinstance(value, Counter) else value
