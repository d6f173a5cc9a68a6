"""What the compiler makes of a kernel: PTX, machine code with the source beside it, and what that is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..jit import sass
from .source_text import line_of, short

CLASSES = {  # of instructions, by the beginnings of their names; the first that fits
    "tensor cores": ("HMMA", "HGMMA", "IMMA", "QGMMA", "WARPGROUP"),
    "float32": ("FFMA", "FADD", "FMUL", "FMNMX", "FSEL", "FSET", "FCHK", "FSWZ"),
    "special functions": ("MUFU",),
    "float16": ("HADD", "HFMA", "HMUL", "HMNMX", "HSET"),
    "conversions": ("F2", "I2", "FRND"),
    "global memory": ("LDG", "STG", "LD", "ST", "ATOM", "RED", "CCTL"),
    "shared memory": ("LDS", "STS", "LDSM", "STSM", "ATOMS"),
    "copies past registers": ("LDGSTS", "UBLKCP", "UTMA", "LDGDEPBAR", "DEPBAR"),
    "local memory": ("LDL", "STL"),
    "constants": ("LDC", "ULDC", "LDCU"),
    "synchronisation": ("BAR", "WARPSYNC", "SYNCS", "MEMBAR", "FENCE", "ERRBAR", "NANOSLEEP", "UCGABAR", "ELECT"),
    "exchange": ("SHFL", "VOTE", "MATCH", "REDUX"),
    "control": ("BRA", "BRX", "EXIT", "RET", "CALL", "BSSY", "BSYNC", "BREAK", "BMOV", "JMP", "NOP", "KILL", "YIELD"),
}
OTHERS = "integers, addresses, moves"


@dataclass(frozen=True, slots=True)
class MachineCode:
    """``mix``: instructions by class; ``names``: by name. ``loop``: those of the main loop by name, the innermost loop
    with the most of the instruction that does the work; None where there is none."""

    instructions: int
    mix: dict[str, int]
    names: dict[str, int]
    loop: dict[str, int] | None
    by_line: dict[str, int]
    listing: str = field(repr=False)


def machine_code(kernel: sass.Kernel) -> MachineCode:
    """Of one kernel's instructions."""
    code = kernel.instructions
    return MachineCode(
        len(code),
        _sorted(Counter(class_of(i.name) for i in code)),
        _sorted(sass.mix(code)),
        _main_loop(kernel),
        dict(Counter(short(i.place) for i in code if i.place)),
        listing(code),
    )


def class_of(name: str) -> str:
    """The class of an instruction's name, the longest beginning that fits."""
    fitting = [(len(start), kind) for kind, starts in CLASSES.items() for start in starts if name.startswith(start)]
    return max(fitting)[1] if fitting else OTHERS


def listing(code: Iterable[sass.Instruction]) -> str:
    """Machine code under the lines of the source that it comes from."""
    lines, place = [], None
    for instruction in code:
        if instruction.place != place:
            place = instruction.place
            lines.append(f"// {short(place) or 'no line'}  {line_of(place)}".rstrip())
        lines.append(f"  /*{instruction.address:04x}*/ {instruction.guard:5} {instruction.text}")
    return "\n".join(lines) + "\n"


def _main_loop(kernel: sass.Kernel) -> dict[str, int] | None:
    for names in (("HGMMA", "HMMA"), ("FFMA",), ("LDG", "LDS", "LDGSTS"), ("STG",)):
        try:
            return _sorted(sass.mix(kernel.main_loop(*names)))
        except ValueError:
            continue
    return None


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common())
