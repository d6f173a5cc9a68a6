"""Lines per room, and the budgets they are held to: small rooms by budget, moved by argument.

python tests/lines.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_BUDGET = 600  # of any one source file; most have less than half
# what a newcomer must hold in mind at once: the tensor, the tape, the sizes, the contract
CORE = ("cnnengine/tensor.py", "cnnengine/autograd.py", "cnnengine/shapes.py", "cnnengine/backends/contract.py")
CORE_BUDGET = 800  # fewer than that together
SOURCES = (".py", ".h", ".inl", ".cuh", ".cpp", ".c", ".sh")
ROOMS = {
    "core": CORE,
    "functional": ("cnnengine/functional",),
    "backends": ("cnnengine/backends",),
    "nn, optim, amp, models": ("cnnengine/nn", "cnnengine/optim", "cnnengine/amp", "cnnengine/models"),
    "data, training, command": ("cnnengine",),
    "jit": ("cnnengine/jit",),
    "trace": ("cnnengine/trace",),
    "kernels (Numba)": ("kernels",),
    "csrc/cuda": ("csrc/cuda",),
    "csrc/cpu": ("csrc/cpu",),
    "csrc/emulator": ("csrc/emulator",),
    "csrc/launch": ("csrc/launch", "csrc/shapes.h"),
    "bench": ("bench",),
    "examples": ("examples",),
    "the site": ("docs",),
    "tests": ("tests",),
}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def sources() -> list[Path]:
    """The project's source files, relative to the root. Build outputs and environments are not among them."""
    rooms = ("cnnengine", "kernels", "csrc", "bench", "tests", "examples", "docs")
    found = (p.relative_to(ROOT) for room in rooms for p in (ROOT / room).rglob("*"))
    return sorted([p for p in found if p.suffix in SOURCES] + [Path("setup.py")])


def core_lines() -> int:
    return sum(lines(ROOT / path) for path in CORE)


def oversized() -> dict[str, int]:
    """Files over the budget."""
    return {str(p): n for p in sources() if (n := lines(ROOT / p)) > FILE_BUDGET}


def by_room() -> dict[str, tuple[int, int]]:
    """(files, lines) of each room; a file belongs to the room with the longest matching path."""
    table = dict.fromkeys([*ROOMS, "setup"], (0, 0))
    for path in sources():
        matches = {
            len(prefix): room
            for room, prefixes in ROOMS.items()
            for prefix in prefixes
            if path == Path(prefix) or Path(prefix) in path.parents
        }
        room = matches[max(matches)] if matches else "setup"
        files, total = table[room]
        table[room] = files + 1, total + lines(ROOT / path)
    return table


def main() -> int:
    """Prints the table; 1 where a budget is passed."""
    print(f"{'room':26}{'files':>6}{'lines':>8}")
    for room, (files, total) in by_room().items():
        budget = f"  of fewer than {CORE_BUDGET}" if room == "core" else ""
        print(f"{room:26}{files:6d}{total:8d}{budget}")
    for path, count in oversized().items():
        print(f"over the budget of {FILE_BUDGET} lines a file: {path} has {count}")
    return 1 if oversized() or core_lines() >= CORE_BUDGET else 0


if __name__ == "__main__":
    sys.exit(main())
