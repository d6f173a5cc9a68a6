"""A run that goes on where an earlier one was cut off: what its file already holds, and whether the GPU still works."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STUCK = "did not end in two calls"
LOST = 3  # exit status: the GPU's context is lost, a new process can go on
Key = tuple[str, ...]


def stored(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that may end in half a line, which is cut off; none where there is no file."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if len(whole) < len(text):
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def keys(rows: Iterable[dict[str, Any]], *fields: str) -> set[Key]:
    """Which combinations of ``fields`` the rows have."""
    return {tuple(row[f] for f in fields) for row in rows if all(f in row for f in fields)}


def unfinished(rows: Iterable[dict[str, Any]], ended: set[Key], *fields: str) -> set[Key]:
    """What was started twice and never ended. Once, the time limit may have cut it off; twice, it hangs."""
    begun = Counter(tuple(row[f] for f in fields) for row in rows if row.get("started"))
    return {key for key, times in begun.items() if times > 1 and key not in ended}


def gpu_lost() -> bool:
    """After an error such as an illegal address every further call in the process fails."""
    try:
        import cupy

        cupy.cuda.Device().synchronize()
    except Exception:
        return True
    return False
