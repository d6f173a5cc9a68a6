"""What is compiled: a kernel file, the template instances wanted of it, and text that goes before it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._paths import csrc_dir

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KernelSource:
    """One compilation: ``file`` is relative to ``csrc/``, ``expressions`` are the kernels to instantiate, such as
    ``conv2d_forward_direct<float, Conv2dShape>``; ``prelude`` is C++ that the expressions need (see
    ``constant_shape``), placed between the file and the instances."""

    file: str
    expressions: tuple[str, ...]
    prelude: str = ""

    def text(self) -> str:
        """The translation unit, without the instances, which NVRTC and g++ ask for in different ways."""
        return f'#include "{self.file}"\n{self.prelude}'

    def only(self, expression: str) -> KernelSource:
        """One of its kernels, a compilation of its own."""
        return replace(self, expressions=(expression,))


def fingerprint(source: KernelSource, *details: object) -> str:
    """Key of a compilation, 32 hex digits: the kernel file with all it includes from ``csrc/``, the prelude, the
    expressions and ``details`` (architecture, compiler version, flags)."""
    key = hashlib.sha256()
    for name, content in _closure(source.file):
        key.update(f"{name}\0{len(content)}\0".encode() + content)
    key.update(repr((source.prelude, source.expressions, details)).encode())
    return key.hexdigest()[:32]


def _closure(file: str) -> Iterator[tuple[str, bytes]]:
    """A file and everything it includes with quotes, each once, in order of first appearance. Files that are not in
    ``csrc/`` (``cuda_fp16.h``) belong to the compiler, whose version is part of the key."""
    root = csrc_dir()
    waiting, seen = [root / file], set()
    while waiting:
        path = waiting.pop(0).resolve()
        if path in seen:
            continue
        seen.add(path)
        content = path.read_bytes()
        yield path.relative_to(root.resolve()).as_posix(), content
        for name in INCLUDE.findall(content.decode()):
            found = _find(name, path.parent, root)
            if found is not None:
                waiting.append(found)


def _find(name: str, beside: Path, root: Path) -> Path | None:
    return next((p for p in (beside / name, root / name) if p.is_file()), None)


@lru_cache(maxsize=1024)
def constant_shape(shape: Any, runtime: tuple[str, ...] = ("N",)) -> tuple[str, str]:
    """(name, definition) of a C++ struct with the members of ``shape`` (see ``cnnengine/shapes.py``): those named in
    ``runtime`` stay members, the others are compile-time constants, so that a kernel's divisions and loop bounds are
    known to the compiler and another batch size recompiles nothing."""
    members = dict(zip(_names(shape), shape.members(), strict=True))
    unknown = [name for name in runtime if name not in members]
    if unknown:
        raise ValueError(f"constant_shape: {type(shape).__name__} has no member {unknown[0]!r}, it has {list(members)}")
    constants = ", ".join(f"{name} = {value}" for name, value in members.items() if name not in runtime)
    digest = hashlib.sha256(constants.encode()).hexdigest()[:16]
    name = f"{type(shape).__name__}_{digest}"
    kept = f"  int {', '.join(runtime)};\n" if runtime else ""
    return name, f"struct {name} {{\n{kept}  static constexpr int {constants};\n}};\n"


def _names(shape: Any) -> Sequence[str]:
    return [f.name for f in fields(shape) if f.name != "packed"]
