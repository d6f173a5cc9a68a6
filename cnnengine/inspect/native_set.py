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
from functools import cache
from typing import Any, NamedTuple

from ..backends.contract import CONV2D_VERBS
from ..errors import BackendUnavailable, KernelError, Unsupported
from ..shapes import conv2d_shape
from .inspection import Kernel
from .machine_code import MachineCode
from .problem import Problem

SYMBOL = re.compile(r"^(?P<start>[0-9a-f]+) (?P<size>[0-9a-f]+) [tTwW] (?P<name>.+)$")
INSTRUCTION = re.compile(r"^\s*[0-9a-f]+:\t(?P<text>\S.*)$")
NAMESPACES = re.compile(r"isa_\w+::|\(anonymous namespace\)::")
NAME = 60  # characters of a name
LOOKED_AT, SHOWN = 16, 8  # functions: the largest; of them those with the most arithmetic
CONVOLUTIONS = {  # algorithm -> pass (f, i, w) -> what the names of its inner functions have
    "implicit_gemm": {
        "f": "multiply_tile<|gather_item",
        "i": "multiply_tile<|gather_item",
        "w": "add_outer_products<|add_image_products<|weight_by_channels",
    },
    "winograd": {
        "f": "winograd_item<[24]|interpolate_tile<6|multiply_tiles<|transform_(output|filters)<6",
        "i": "winograd_item<[24]|interpolate_tile<6|multiply_tiles<|transform_(output|filters)<6",
        "w": "transform_(band|gradients)|multiply_band|multiply_tiles<",
    },
    "winograd_6x6": {
        "f": "winograd_item<6|interpolate_tile<8|multiply_tiles<|transform_(output|filters)<8",
        "i": "winograd_item<6|interpolate_tile<8|multiply_tiles<|transform_(output|filters)<8",
    },
    "columns": {"i": "columns_backward_input|multiply_tile<"},
    "depthwise": {"f": "lane_block<OwnCh", "i": "lane_block<OwnCh", "w": "weight_band<OwnCh"},
    "grouped": {"f": "lane_block<Group", "i": "lane_block<Group", "w": "weight_band<Panel"},
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
    "gemm": "multiply_tile<|gemm",
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
        symbols = _symbols(nm, _native.__file__, _native.isa(), pattern(problem, algorithm))
        found = sorted(symbols, key=lambda symbol: -symbol.size)
        codes = [(symbol, _code(objdump, _native.__file__, symbol)) for symbol in found[:LOOKED_AT]]
    except (BackendUnavailable, KernelError) as error:
        missing["machine code, instruction mix"] = str(error)
        return []
    codes.sort(key=lambda pair: -pair[1].mix.get("multiply-adds", 0) - pair[1].mix.get("other vector arithmetic", 0))
    return [
        Kernel(_plain(symbol.name), _plain(symbol.name), _native.isa(), None, None, None, 0, code=code)
        for symbol, code in codes[:SHOWN]
    ]


def pattern(problem: Problem, algorithm: str | None) -> str:
    """What the names of the functions have that do a call's work."""
    if algorithm is not None:
        letter = {"forward": "f", "backward_input": "i", "backward_weight": "w"}[problem.request.verb]
        return CONVOLUTIONS[algorithm][letter]
    return VERBS.get(problem.verb, problem.verb).format(kind=problem.request.kind)


def _symbols(nm: str, library: str, isa: str, pattern: str) -> Iterator[Symbol]:
    wanted = re.compile(pattern)
    for line in _table(nm, library):
        match = SYMBOL.match(line)
        if match and f"isa_{isa}" in match["name"] and wanted.search(NAMESPACES.sub("", match["name"])):
            yield Symbol(int(match["start"], 16), int(match["size"], 16), match["name"])


@cache
def _table(nm: str, library: str) -> tuple[str, ...]:
    return tuple(_run([nm, "-CS", "--defined-only", library]).splitlines())


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
    return NAMESPACES.sub("", name).split("(")[0].removeprefix("void ")[:NAME]


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
