"""The ledger: each verb of the contract on each backend, as present, composed or absent."""

from __future__ import annotations

from .contract import Backend
from .registry import NAMES, get, unavailable

MEMORY_VERBS = ("empty", "workspace", "to_host", "to_device", "synchronize")
VERBS = tuple(
    name
    for name, member in vars(Backend).items()
    if callable(member) and not name.startswith("_") and name not in MEMORY_VERBS
)


def ledger() -> dict[str, dict[str, str]]:
    """{verb: {backend: entry}} for the backends that can run here. An entry is "present" (a kernel of its own),
    "composed: how" or "absent: why"; a backend states the last two in its ``notes``."""
    backends = {name: get(name) for name in NAMES if unavailable(name) is None}
    return {verb: {name: b.notes.get(verb, "present") for name, b in backends.items()} for verb in VERBS}
