"""What does not fit when a state is loaded, said so that it can be put right: names, shapes, a guess at the cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

Shape = tuple[int, ...]
SHOWN = 8  # names of one kind; the others are counted


def described(
    expected: Mapping[str, Shape], received: Mapping[str, Shape], mismatched: Iterable[str], strict: bool
) -> list[str]:
    """Lines that say which names are missing, unexpected (with ``strict``) and of another shape, and what may help."""
    missing = {n: s for n, s in expected.items() if n not in received} if strict else {}
    unexpected = {n: s for n, s in received.items() if n not in expected} if strict else {}
    wrong = list(mismatched)
    lines = shortened("missing", [f"missing: {name} {shape}" for name, shape in missing.items()])
    lines += shortened("unexpected", [f"unexpected: {name} {shape}" for name, shape in unexpected.items()])
    shapes = [f"shape of {n}: {expected[n]} expected, {received[n]} received" for n in wrong]
    lines += shortened("of another shape", shapes)
    return lines + _hints(missing, unexpected, {n: (expected[n], received[n]) for n in wrong})


def shortened(kind: str, lines: list[str]) -> list[str]:
    """The first of the lines, and how many more there are."""
    more = len(lines) - SHOWN
    return lines if more <= 1 else [*lines[:SHOWN], f"... and {more} more {kind} ({len(lines)} in all)"]


def _hints(
    missing: Mapping[str, Shape], unexpected: Mapping[str, Shape], wrong: Mapping[str, tuple[Shape, Shape]]
) -> list[str]:
    hints = []
    prefix = _prefix(unexpected, missing)
    if prefix:
        hints.append(f"hint: without {prefix!r} before them, unexpected names are among the missing ones")
    prefix = _prefix(missing, unexpected)
    if prefix:
        hints.append(f"hint: with {prefix!r} before them, unexpected names are among the missing ones")
    if not hints and len(missing) <= SHOWN:
        for name in missing:
            close = [n for n in get_close_matches(name, unexpected, 3, 0.8) if unexpected[n] == missing[name]]
            hints += [f"hint: {name} may be what is called {close[0]} here"] if close else []
    if any(len(a) == 4 and b == (a[0], a[3], a[1], a[2]) for a, b in wrong.values()):
        hints.append("hint: convolution weights are (K, R, S, C/groups) here; cnn.load_torch turns those of PyTorch")
    return hints


def _prefix(longer: Iterable[str], shorter: Iterable[str]) -> str:
    """What all the longer names begin with, where at least one of the shorter ones remains without it; else ""."""
    longer, shorter = list(longer), set(shorter)
    if not longer:
        return ""
    parts = longer[0].split(".")
    for count in range(1, len(parts)):
        prefix = ".".join(parts[:count]) + "."
        if not all(name.startswith(prefix) for name in longer):
            return ""
        if any(name.removeprefix(prefix) in shorter for name in longer):
            return prefix
    return ""
