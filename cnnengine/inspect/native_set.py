"""The CPU kernels of a call: which of the extension's functions do its work, and the machine code of these.

Functions are found by their names: those of the operation and, of a convolution, of the algorithm that is chosen for
the shape, in the instruction set that the extension uses here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..backends.contract import CONV2D_VERBS
from ..errors import BackendUnavailable, KernelError, Unsupported
from ..shapes import conv2d_shape
from .inspection import Kernel
from .machine_code import MachineCode
from .problem import Problem

SYMBOL = re.compile(r"^(?P<start>[0-9a-f]+) (?P<size>[0-9a-f]+) [tTwW] (?P<name>.+)$")
INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\t(?P<text>\S.*)$")
MOST = 12  # functions that are shown, those with the most arithmetic first
CONVOLUTIONS = {  # (pass, algorithm) -> what names of its functions have; the pass is a letter: f, i, w
    "implicit_gemm": {
        "f": "run_gather|gather_item|multiply_rows|implicit_gemm_forward",
        "i": "run_gather|gather_item|multiply_rows|implicit_gemm_ba",
        "w": "weight_by_|WeightBy|add_outer_products|add_image_products|multiply_all_images",
    },
    "winograd": {"f": "winograd_gather", "i": "winograd_gather", "w": "winograd_(backward_)?weight|multiply_band"},
    "winograd_6x6": {"f": "winograd_gather<6", "i": "winograd_gather<6"},
    "columns": {"i": "columns_backward_input"},
    "depthwise": {"f": "depthwise|lane_sums|LaneSum", "i": "depthwise|lane_sums|LaneSum", "w": "depthwise"},
    "grouped": {"f": "grouped|lane_sums|LaneSum", "i": "grouped|lane_sums|LaneSum", "w": "grouped"},
    "direct": {"f": "direct_forward", "i": "direct_backward_input", "w": "direct_backward_weight"},
}
VERBS = {  # what the functions of other verbs are called, where it is not the verb
    "pool2d_forward": "{kind}_pool2d_forward|{kind}_forward|{kind}_of|gather_windows|for_each_window",
    "pool2d_backward": "{kind}_pool2d_backward|{kind}_backward|spread_windows",
    "optimizer_step": r"\b{kind}\(",
    "norm_forward": "norm_forward|batch_forward|finish_groups|affine",
    "norm_backward": "norm_backward|batch_backward|gradient_row|finish_gradients",
    "reduce": "reduce_",
    "binary": "combine",
    "unary": "unary|map_elements",
    "gemm": "gemm",
}
_ARITHMETIC = "add|sub|mul|div|max|min|sqrt|rcp|cmp|blend|and|or|xor|scalef|rnd|round|ternlog|cvt"
_MOVES = "mov|broadcast|insert|extract|perm|shuf|unpck|gather|scatter|zero"
CLASSES = {  # of x86 instructions, by a pattern of the mnemonic; the first that fits
    "multiply-adds": r"vf(n?m)(add|sub)",
    "other vector arithmetic": rf"vp?({_ARITHMETIC}|s[lr]l)|({_ARITHMETIC})[a-z]*[ps][sd]$",
    "vector loads, stores, moves": rf"vp?({_MOVES})|({_MOVES})[a-z]*[ps][sd]$",
    "control": r"j|call|ret|endbr|nop",
}


class Symbol(NamedTuple):
    start: int
    size: int
    name: str


def chosen(problem: Problem) -> str | None:
    """The algorithm of a convolution. Raises Unsupported where the named one does not take the shape."""
    from .. import _native

    r = problem.request
    if r.operation != "conv2d":
        return None
    assert r.w is not None
    shape = conv2d_shape(r.x, r.w, 1 if r.stride is None else r.stride, r.padding, r.dilation, r.groups)
    number = CONV2D_VERBS.index(problem.verb)
    if r.algorithm is None:
        return str(_native.conv2d_chosen(number, shape.packed))
    if r.algorithm not in CONVOLUTIONS or not _native.conv2d_can(number, shape.packed, r.algorithm):
        raise Unsupported(f"native: {problem.verb} cannot use {r.algorithm!r} for {shape}")
    return r.algorithm


def kernels(problem: Problem, algorithm: str | None, missing: dict[str, str]) -> list[Kernel]:
    """The functions, as far as objdump and nm can tell; why not goes into ``missing``."""
    from .. import _native

    if problem.request.dtype != "float32":
        raise Unsupported(f"native: computes in float32, received {problem.request.dtype}")
    try:
        nm, objdump = (_program(name) for name in ("nm", "objdump"))
        found = list(_symbols(nm, _native.__file__, _native.isa(), pattern(problem, algorithm)))
        codes = [(symbol, _code(objdump, _native.__file__, symbol)) for symbol in found]
    except (BackendUnavailable, KernelError) as error:
        missing["machine code, instruction mix"] = str(error)
        return []
    codes.sort(key=lambda pair: -pair[1].mix.get("multiply-adds", 0) - pair[1].mix.get("other vector arithmetic", 0))
    return [
        Kernel(_plain(symbol.name), symbol.name, _native.isa(), None, None, None, 0, code=code)
        for symbol, code in codes[:MOST]
    ]


def pattern(problem: Problem, algorithm: str | None) -> str:
    """What the names of the functions have that do a call's work."""
    if algorithm is not None:
        letter = {"forward": "f", "backward_input": "i", "backward_weight": "w"}[problem.request.verb]
        return CONVOLUTIONS[algorithm][letter]
    return VERBS.get(problem.verb, problem.verb).format(kind=problem.request.kind)


def _symbols(nm: str, library: str, isa: str, pattern: str) -> Iterator[Symbol]:
    wanted = re.compile(pattern)
    for line in _run([nm, "-CS", "--defined-only", library]).splitlines():
        match = SYMBOL.match(line)
        if match and re.search(rf"isa_{isa}\b|isa_{isa}\d", match["name"]) and wanted.search(match["name"]):
            yield Symbol(int(match["start"], 16), int(match["size"], 16), match["name"])


def _code(objdump: str, library: str, symbol: Symbol) -> MachineCode:
    bounds = [f"--start-address={symbol.start}", f"--stop-address={symbol.start + symbol.size}"]
    text = _run([objdump, "-d", "--no-show-raw-insn", *bounds, library])
    lines = [match["text"].strip() for match in map(INSTRUCTION.match, text.splitlines()) if match]
    names = Counter(line.split()[0] for line in lines)
    mix: Counter[str] = Counter()
    for name, count in names.items():
        mix[class_of(name)] += count
    listing = f"; {symbol.name}\n" + "".join(f"  {line}\n" for line in lines)
    return MachineCode(len(lines), dict(mix.most_common()), dict(names.most_common()), None, {}, listing)


def class_of(name: str) -> str:
    """The class of a mnemonic."""
    return next((kind for kind, text in CLASSES.items() if re.match(text, name)), "integers, addresses")


def _plain(name: str) -> str:
    """Without namespaces and arguments."""
    return re.sub(r"isa_\w+::|\(anonymous namespace\)::", "", name).split("(")[0].removeprefix("void ")[:60]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BackendUnavailable(f"{name} is not installed: it is one of the GNU binutils")
    return found


def _run(command: list[Any]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KernelError(f"{command[0]} failed: {done.stderr.strip()}")
    return done.stdout
