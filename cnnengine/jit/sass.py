"""Machine code in words: a cubin's instructions, by ``nvdisasm``. Needs no GPU.

``nvdisasm`` is looked for in the package ``nvidia-cuda-nvdisasm``, in ``CUDA_HOME`` or ``CUDA_PATH``, in
``/usr/local/cuda`` and on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import BackendUnavailable, KernelError
from . import nvrtc

SECTION = re.compile(r"^\.text\.(?P<symbol>\w+):")
LABEL = re.compile(r"^(?P<label>\.L_x_\d+):")
INSTRUCTION = re.compile(r"^\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?P<guard>@!?U?P\w+\s+)?(?P<text>[^;]+);")
LINE = re.compile(r'^\s*//## File "(?P<file>[^"]+)", line (?P<line>\d+)')
TARGET = re.compile(r"`\((?P<label>\.L_x_\d+)\)")
WRAPPERS = ("/ptx.cuh", "/platform.cuh")  # whose functions stand for the instruction at the line that calls them
LOCAL_MEMORY = ("LDL", "STL")


@dataclass(frozen=True, slots=True)
class Instruction:
    """``opcode`` with its modifiers, such as HGMMA.64x128x16.F32; ``target``: the label a branch goes to; ``guard``:
    the predicate it depends on, "@!P0"; ``place``: where the source has it, "/folder/csrc/cuda/tile.cuh:93", or "".
    What a wrapper of ptx.cuh becomes has the place of its call."""

    address: int
    opcode: str
    text: str
    target: str | None
    place: str = ""
    guard: str = ""

    @property
    def name(self) -> str:
        return self.opcode.split(".")[0]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Instructions in the order of memory, and the number of the instruction that each label stands before."""

    instructions: tuple[Instruction, ...]
    labels: dict[str, int]

    def count(self, *names: str) -> int:
        """Instructions whose name, without modifiers, is one of ``names``."""
        return sum(i.name in names for i in self.instructions)

    def loops(self) -> list[tuple[Instruction, ...]]:
        """The bodies of all branches backwards, the shortest first."""
        found = []
        for number, instruction in enumerate(self.instructions):
            start = self.labels.get(instruction.target or "")
            if start is not None and start <= number:
                found.append(self.instructions[start : number + 1])
        return sorted(found, key=len)

    def main_loop(self, *names: str) -> tuple[Instruction, ...]:
        """The shortest loop with as many of the instructions ``names`` as any innermost loop has. Raises ValueError
        where no loop has one."""
        counted = [(sum(i.name in names for i in loop), loop) for loop in self.loops()]
        inner = [(n, loop) for n, loop in counted if n and not any(_inside(other, loop) for m, other in counted if m)]
        if not inner:
            raise ValueError(f"no loop has one of {', '.join(names)}")
        return max(inner, key=lambda pair: pair[0])[1]


def _inside(inner: tuple[Instruction, ...], outer: tuple[Instruction, ...]) -> bool:
    first, last = outer[0].address, outer[-1].address
    return len(inner) < len(outer) and first <= inner[0].address and inner[-1].address <= last


def mix(instructions: Iterable[Instruction]) -> Counter[str]:
    """How many of each name."""
    return Counter(i.name for i in instructions)


def problem() -> str | None:
    """None, or why nothing can be disassembled."""
    try:
        _program()
    except BackendUnavailable as reason:
        return str(reason)
    return None


def disassemble(cubin: nvrtc.Cubin) -> dict[str, Kernel]:
    """Kernels by expression; their lines, as the compiler tells them for ``-lineinfo``. Raises BackendUnavailable
    without nvdisasm, KernelError with its complaint."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.cubin"
        path.write_bytes(cubin.image)
        done = subprocess.run([_program(), "-gi", "-c", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"nvdisasm failed: {done.stderr.strip()}")
    by_symbol = _parse(done.stdout)
    return {expression: by_symbol[symbol] for expression, symbol in cubin.names.items()}


def _parse(text: str) -> dict[str, Kernel]:
    found: dict[str, tuple[list[Instruction], dict[str, int]]] = {}
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    place, frames = "", []
    for line in text.splitlines():
        if match := SECTION.match(line):
            instructions, labels = found.setdefault(match["symbol"], ([], {}))
            place = ""
        elif match := LINE.match(line):
            frames.append(f"{os.path.normpath(match['file'])}:{match['line']}")  # the innermost first
            place = next((f for f in frames if not f.rpartition(":")[0].endswith(WRAPPERS)), frames[0])
        elif match := LABEL.match(line):
            labels[match["label"]] = len(instructions)
        elif match := INSTRUCTION.match(line):
            words = match["text"].strip()
            target = TARGET.search(words)
            label = target["label"] if target else None
            frames = []
            guard = (match["guard"] or "").strip()
            instructions.append(Instruction(int(match["address"], 16), words.split()[0], words, label, place, guard))
    return {symbol: Kernel(tuple(code), places) for symbol, (code, places) in found.items()}


@cache
def _program() -> str:
    for root in nvrtc.roots():
        program = root / "bin" / "nvdisasm"
        if program.is_file():
            if not os.access(program, os.X_OK):  # some installers drop the permission
                program.chmod(program.stat().st_mode | stat.S_IXUSR)
            return str(program)
    on_path = shutil.which("nvdisasm")
    if on_path:
        return on_path
    raise BackendUnavailable("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm, or set CUDA_HOME")
