"""The HTML page: one file that needs no network. Its pieces are page.html, page.css and the scripts beside them."""

from __future__ import annotations

import base64
import html
import json
import zlib
from importlib.resources import files
from typing import Any

import numpy as np

from .._paths import csrc_dir
from ..errors import KernelError
from ..jit.trace import KINDS, WARP
from ..shapes import Conv2dShape
from .recording import Recording
from .rungs import VERBS
from .steps import Steps, steps_of
from .sums import Sums, follow
from .tiles import regions

SCRIPTS = (  # in this order
    "data.js", "machine.js", "costs.js", "words.js", "focus.js", "picture.js", "arrays.js", "pictures.js", "page.js",
)  # fmt: skip
LIMIT = 5_000_000  # bytes
COLUMNS = (
    "kind", "warp", "place", "amount", "lanes", "array", "unit", "sectors", "ideal", "wavefronts", "least", "requests",
)  # fmt: skip


def page_of(recording: Recording, command: str = "") -> str:
    """The page of a recording; ``command`` is what makes it again. Raises KernelError where the sums that the page
    would show are not what the kernel stored, and where the page would have LIMIT bytes or more."""
    sums = follow(recording)
    data = json.dumps(_data(recording, steps_of(recording, sums), sums, command), separators=(",", ":"))
    packed = base64.b64encode(zlib.compress(data.encode(), 9)).decode()
    folder = files(__package__)
    title = f"{recording.algorithm}, conv2d {recording.verb}"
    pieces = {
        "TITLE": html.escape(title),
        "STYLE": (folder / "page.css").read_text(encoding="utf-8"),
        "DATA": packed,
        "SCRIPT": "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS),
    }
    text = (folder / "page.html").read_text(encoding="utf-8")
    for name, piece in pieces.items():
        text = text.replace(f"%{name}%", piece)
    if len(text.encode()) >= LIMIT:
        raise KernelError(
            f"the page of {len(recording.trace.requests)} requests has {len(text) / 1e6:.1f} MB, a page has less than"
            f" {LIMIT / 1e6:.0f}: make the sum over R, S and the channels shorter"
        )
    return text


def _data(recording: Recording, steps: Steps, sums: Sums, command: str) -> dict[str, Any]:
    """What data.js unpacks; arrays of floats are in base64, float32 and little-endian."""
    names, shape = VERBS[recording.verb], recording.shape
    launched = recording.launched
    paths = list(dict.fromkeys(line.file for place in recording.trace.places for line in place))
    threads = range(launched.threads[0] * launched.threads[1] * launched.threads[2])
    first = steps.of_request
    return {
        "verb": recording.verb,
        "algorithm": recording.algorithm,
        "dtype": recording.result.dtype.name,
        "shape": {name: getattr(shape, name) for name in Conv2dShape.__dataclass_fields__ if name != "packed"},
        "kernel": launched.expression,
        "grid": launched.grid,
        "block": recording.block,
        "threads": launched.threads,
        "sharedBytes": launched.shared_bytes,
        "command": command,
        "kinds": KINDS,
        "arrays": [
            {"name": name, "shape": recording.arrays[name].shape, "values": _floats(recording.arrays[name])}
            for name in names
        ],
        "item": recording.result.dtype.itemsize,
        "regions": [
            {"name": r.name, "begin": r.begin, "end": r.end, "item": r.item, "dims": r.dims, "axes": r.axes}
            for r in regions(sums.tile)
        ],
        "places": [[[paths.index(line.file), line.number] for line in place] for place in recording.trace.places],
        "files": [{"name": path, "text": _text(path)} for path in paths],
        "steps": {name: getattr(steps, name) for name in COLUMNS},
        "at": _differences(steps.at),
        "held": _differences(steps.held),
        "numbers": _floats(np.array(steps.numbers)),
        "tile": sums.index.shape,
        "index": _differences(sums.index.reshape(-1).tolist()),
        "rows": [sums.rows.get(t, ()) for t in threads],
        "columns": [sums.columns.get(t, ()) for t in threads],
        "groups": {first[group[-1]]: [[first[n] for n in group if sums.roles[n] == r] for r in (0, 1)]
                   for group in sums.groups},
        "fragments": {first[n]: [*corner, sums.depth[n]] for n, corner in sums.fragments.items()},
        "fragmentValues": _floats(np.array([sums.values[n] for n in sorted(sums.values)])),
        "warp": WARP,
    }  # fmt: skip


def _floats(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _differences(values: list[int]) -> list[int]:
    """Each from the one before: neighbours' addresses repeat then."""
    return np.diff(np.array(values, np.int64), prepend=0).tolist()  # type: ignore[no-any-return]


def _text(path: str) -> str:
    """Of a kernel file; nothing of one that is not the package's"""
    file = csrc_dir() / path
    return file.read_text(encoding="utf-8") if file.is_file() else ""
