"""Source files of the kernels: lines by place, and a translation unit written out as one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from .._paths import csrc_dir
from ..jit.source import INCLUDE, KernelSource


def short(place: str) -> str:
    """The last folder, the file and the line, as the emulator writes them: cuda/tile.cuh:93."""
    return "/".join(place.split("/")[-2:])


def line_of(place: str) -> str:
    """The text at "cuda/tile.cuh:93", without its indentation; "" where that is no line of the sources."""
    file, _, number = short(place).rpartition(":")
    lines = _files().get(file, [])
    return lines[int(number) - 1].strip() if number.isdigit() and 0 < int(number) <= len(lines) else ""


@cache
def _files() -> dict[str, list[str]]:
    paths = (csrc_dir() / "cuda").rglob("*.cuh")
    return {"/".join(path.parts[-2:]): path.read_text().splitlines() for path in paths}


def written_out(source: KernelSource) -> str:
    """The translation unit with the files of ``csrc/`` that it includes in their places, each once, and its kernels as
    explicit instances: nvcc compiles it. ``#line`` keeps places as they are."""
    seen: set[Path] = set()
    root = csrc_dir().resolve()
    body = "".join(_written_out(root / source.file, root, seen))
    instances = "".join(f"auto const cnn_kernel_{i} = &{e};\n" for i, e in enumerate(source.expressions))
    return f"{body}\n{source.prelude}\n{instances}"


def _written_out(path: Path, root: Path, seen: set[Path]) -> Iterator[str]:
    seen.add(path)
    name = path.relative_to(root).as_posix()
    yield f'#line 1 "{name}"\n'
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        match = INCLUDE.match(line)
        included = _found(match[1], path.parent, root) if match else None
        if line.startswith("#pragma once"):
            yield "\n"
        elif included is None:
            yield line
        elif included not in seen:
            yield from _written_out(included, root, seen)
            yield f'#line {number + 1} "{name}"\n'
        else:
            yield "\n"


def _found(name: str, beside: Path, root: Path) -> Path | None:
    candidates = (Path(os.path.normpath(folder / name)) for folder in (beside, root))
    return next((path for path in candidates if path.is_file()), None)
